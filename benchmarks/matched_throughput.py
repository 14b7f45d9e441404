"""How many digits a second each library trains on, with networks of as many parameters as ours.

`python -m benchmarks.matched_throughput` writes `data/measured/matched_throughput.json`: images a second of a whole training
step (noising, forward, backward, optimizer, weight average) of our recipe and of three libraries' U-Nets, whose widths are
chosen for about our 1.08 M parameters. Ours takes its recipe's precision and layout; the others take what their examples do:
float32, their optimizer and average. All get the same batch from memory. Turns of about a second are interleaved, and what
counts is each turn's ratio to ours. A library that is not installed is left out, and said so.
"""

import argparse
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.bench import seconds
from benchmarks.peers_training import PEERS, load_library, missing, parameters
from benchmarks.tables import write_table
from benchmarks.throughput import build, train_options
from diffusion_edu import __main__ as cli
from diffusion_edu import data, training
from diffusion_edu.machine import describe

OUT = Path(__file__).resolve().parents[1] / "data" / "measured" / "matched_throughput.json"
Step = Callable[[], object]


def our_step(images: Tensor, labels: Tensor) -> tuple[nn.Module, Step, str]:
    """The recipe's step, of as many images as are given."""
    options = ["--dataset", "mnist", "--device", str(images.device), "--batch", str(len(images))]
    run = build(train_options(options, images.device), images.device)
    with_it = f"{run.config.optimizer}, {run.config.precision}, compile {run.config.compile}"
    return run.denoiser.net, lambda: training.train_step(run, images, labels), with_it


def diffusers_step(images: Tensor, labels: Tensor) -> tuple[nn.Module, Step, str]:
    """The step of diffusers' unconditional example."""
    from diffusers import UNet2DModel
    from diffusers.schedulers import DDPMScheduler
    from diffusers.training_utils import EMAModel

    net = UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        block_out_channels=(24, 48, 80),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D",) * 3,
        up_block_types=("UpBlock2D",) * 3,
    ).to(images.device)
    x0, chain = data.to_float(images), DDPMScheduler(num_train_timesteps=1000)
    optimizer, ema = torch.optim.AdamW(net.parameters(), lr=1e-4), EMAModel(net.parameters(), decay=0.9999)

    def step() -> None:
        eps, k = torch.randn_like(x0), torch.randint(1000, (len(x0),), device=x0.device)
        F.mse_loss(net(chain.add_noise(x0, eps, k), k).sample, eps).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(net.parameters())

    return net, step, "AdamW, float32"


def denoising_diffusion_step(images: Tensor, labels: Tensor) -> tuple[nn.Module, Step, str]:
    """The step of denoising-diffusion-pytorch's Trainer, all images at once."""
    library, ema = load_library("denoising_diffusion_pytorch"), load_library("ema_pytorch")
    net = library.Unet(dim=20, dim_mults=(1, 2, 4), channels=1)
    diffusion = library.GaussianDiffusion(net, image_size=28).to(images.device)
    optimizer, average = torch.optim.Adam(diffusion.parameters(), lr=8e-5), ema.EMA(diffusion, update_every=10)
    x0 = images / 255

    def step() -> None:
        diffusion(x0).backward()
        nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()

    return net, step, "Adam, float32"


def smalldiffusion_step(images: Tensor, labels: Tensor) -> tuple[nn.Module, Step, str]:
    """smalldiffusion's `training_loop` over one batch."""
    library, ema = load_library("smalldiffusion"), load_library("torch_ema")
    net = library.Scaled(library.Unet)(28, 1, 1, ch=32, ch_mult=(1, 2), attn_resolutions=(14,)).to(images.device)
    average = ema.ExponentialMovingAverage(net.parameters(), decay=0.999)
    schedule = library.ScheduleLogLinear(sigma_min=0.01, sigma_max=20, N=800)
    rounds = library.training_loop([data.to_float(images)], net, schedule, epochs=10**9, lr=7e-4)

    def step() -> None:
        next(rounds)
        average.update()

    return net, step, "AdamW, float32"


STEPS = {
    "diffusion_edu": our_step,
    "diffusers": diffusers_step,
    "denoising-diffusion-pytorch": denoising_diffusion_step,
    "smalldiffusion-unet": smalldiffusion_step,
}


def in_turn(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Seconds a step of each, in interleaved turns of about a second."""
    for step in steps.values():
        for _ in range(3):  # warms up, compiles
            seconds(step)
    counts = {name: max(1, round(1 / seconds(step))) for name, step in steps.items()}
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            found[name].append(seconds(lambda step=step, n=counts[name]: [step() for _ in range(n)]) / counts[name])
    return found


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    options.add_argument("--out", type=Path, default=OUT)
    return options


def main(arguments: list[str] | None = None) -> None:
    """Measure all that are installed and write the table; older rows of the same library, card and batch are replaced."""
    given = parser().parse_args(arguments)
    if given.rounds < 2:
        raise SystemExit(f"--rounds must be at least 2, got {given.rounds}")
    device, train = cli.find_device(given.device), data.load("mnist", "train")
    if device.type == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"  # it would take a GPU that is there
    elif device.type == "cuda":
        torch.cuda.set_device(device)
    if not 0 < given.batch <= len(train):
        raise SystemExit(f"--batch must be 1 to {len(train)}, got {given.batch}")
    cli.set_up_gpu(deterministic=False)
    images, labels = train.images[: given.batch].to(device), train.labels[: given.batch].to(device)
    made = {}
    for name, make in STEPS.items():
        if (reason := missing(PEERS[name])) is not None:
            print(f"{name} is left out: {reason}")
            continue
        torch.manual_seed(0)
        made[name] = make(images, labels)
    times = in_turn({name: step for name, (_, step, _) in made.items()}, given.rounds)
    place, rows = describe(device), []
    for name, (net, _, with_it) in made.items():
        ratios = [ours / theirs for ours, theirs in zip(times["diffusion_edu"], times[name], strict=True)]
        rows.append(place | row_of(name, net, with_it, given.batch, times[name], ratios))
        print({key: rows[-1][key] for key in ("library", "parameters", "images_per_second", "of_ours")})
    same = ("library", "card", "device", "threads", "batch")
    new = {tuple(row[key] for key in same) for row in rows}
    old = json.loads(given.out.read_text())["rows"] if given.out.exists() else []
    write_table(given.out, {"rows": [row for row in old if tuple(row[key] for key in same) not in new] + rows})


def row_of(
    name: str, net: nn.Module, with_it: str, batch: int, times: list[float], ratios: list[float]
) -> dict[str, Any]:
    """One library's line: images a second and their share of ours, median and quartiles over the turns."""
    speeds = statistics.quantiles([batch / each for each in times], n=4)
    shares = statistics.quantiles(ratios, n=4)
    return {
        "library": name,
        "parameters": parameters(net),
        "with": with_it,
        "batch": batch,
        "images_per_second": speeds[1],
        "quartiles": [speeds[0], speeds[2]],
        "of_ours": shares[1],
        "of_ours_quartiles": [shares[0], shares[2]],
        "turns": len(times),
    }


if __name__ == "__main__":
    main()
