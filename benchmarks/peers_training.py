"""Our training and three other libraries', for equal minutes on one machine, judged alike.

`python -m benchmarks.peers_training --minutes 10` writes `data/measured/peers_training.json`. Each library trains on the
same images with its own default recipe; as many images are drawn from each with its own sampler, and all are measured by our
frozen classifier. The distances are those of all images together; a network that knows classes draws each equally often, and
is also asked how many of its images are read as what was asked for.

Each library's network, loop, optimizer, average and sampler are its package's, unmodified; where the loop is an example
beside the package (diffusers, smalldiffusion), its settings are repeated here. Only the images come from memory instead of
picture files, without mirroring, which digits do not bear. Two things differ on a CPU, and the rows say so. 1000
evaluations an image, two peers' default, would take days: `--evaluations` (50 on a CPU, unless given) shortens three peers'
samplers, each by its own library's means. And smalldiffusion's 1024 images a step would be a handful of steps: it takes 64.

A run that was stopped goes on at the first row that is missing. A peer that is not installed is left out, and said so;
`INSTALL` says how to add it. Each runs in a process of its own.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.tables import write_table
from diffusion_edu import __main__ as cli
from diffusion_edu import checkpoints, data, metrics
from diffusion_edu.machine import describe

OUT = Path(__file__).resolve().parents[1] / "data" / "measured" / "peers_training.json"
INSTALL = {
    "denoising-diffusion-pytorch": "denoising-diffusion-pytorch einops ema-pytorch accelerate",
    "diffusers": "diffusers huggingface_hub",
    "smalldiffusion": "smalldiffusion torch-ema einops accelerate",
}
KEPT = 64  # images of each row kept to be looked at


class Trained(NamedTuple):
    """A trained network: how to draw n images in [-1, 1] from it, and what it is."""

    draw: Callable[[int], Tensor]
    facts: dict[str, Any]  # parameters, batch, steps, train_seconds, sampler, evaluations, recipe


class Task(NamedTuple):
    """What every library gets: images (N, C, H, W) in [0, 1] and labels (N,), minutes, the device, evaluations or None."""

    dataset: str
    images: Tensor
    labels: Tensor
    minutes: float
    device: torch.device
    seed: int
    evaluations: int | None
    options: list[str]  # of our own `train`


class TimeIsUp(Exception):
    """The minutes are over."""


class Clock:
    """Hands on batches until the time is up; knows how many there were and how long they took."""

    def __init__(self, minutes: float, device: torch.device) -> None:
        self.limit, self.device, self.batches, self.started = 60 * minutes, device, 0, perf_counter()

    def seconds(self) -> float:
        """Time since the start, with the work that a GPU still has before it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return perf_counter() - self.started

    def limited(self, batches: Iterable) -> Iterator:
        """The same batches, until `TimeIsUp`; the first is always given."""
        self.started = perf_counter()
        for batch in batches:
            if self.batches and perf_counter() - self.started > self.limit:
                raise TimeIsUp
            self.batches += 1
            yield batch


class Pictures(Dataset):
    """Images in memory, one by one, as libraries' loaders ask for them; with their labels, where there are any."""

    def __init__(self, images: Tensor, labels: Tensor | None = None) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor | tuple[Tensor, Tensor]:
        return self.images[i] if self.labels is None else (self.images[i], self.labels[i])


def padded(images: Tensor, side: int = 32) -> Tensor:
    """Images with a black rim up to `side`."""
    return F.pad(images, ((side - images.shape[-1]) // 2,) * 4)


def cropped(x: Tensor, side: int) -> Tensor:
    """The middle of images that were `padded`."""
    rim = (x.shape[-1] - side) // 2
    return x[..., rim : rim + side, rim : rim + side]


def in_parts(draw: Callable[[int], Tensor], batch: int) -> Callable[[int], Tensor]:
    """The same draw, `batch` images at a time."""
    return lambda n: torch.cat([draw(min(batch, n - done)).cpu() for done in range(0, n, batch)])


def every_class(n: int) -> Tensor:
    """Labels (n,) that ask for each of ten classes equally often."""
    return torch.arange(n) % 10


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def load_library(name: str) -> ModuleType:
    """Import a library; where torchvision or pytorch-fid is missing, without them: only their picture files need them."""
    import accelerate  # noqa: F401 (it looks for torchvision itself, before we stand in for it)

    missing = [base for base in ("torchvision", "pytorch_fid") if importlib.util.find_spec(base) is None]
    parts = {"torchvision": ("", ".transforms"), "pytorch_fid": ("", ".fid_score", ".inception")}
    stand_ins = [base + part for base in missing for part in parts[base]]
    sys.modules.update({name: MagicMock() for name in stand_ins})
    try:
        return importlib.import_module(name)
    finally:
        for stand_in in stand_ins:
            del sys.modules[stand_in]


# --- the six recipes ----------------------------------------------------------------------------------


def train_ours(task: Task) -> Trained:
    """`python -m diffusion_edu train --minutes`, then its default sampler, all classes equally often."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "diffusion_edu", "train", "--dataset", task.dataset, "--out", folder]
        command += ["--minutes", str(task.minutes), "--seed", str(task.seed), "--device", str(task.device)]
        command += ["--threads", str(torch.get_num_threads()), "--samples", "0", *task.options]
        subprocess.run(command, check=True)
        denoiser = checkpoints.load(folder, task.device)
    manifest, defaults = denoiser.manifest, cli.parser().parse_args(["sample"])

    def draw(n: int) -> Tensor:
        y = every_class(n)
        batch = cli.batch_on(task.device)
        return cli.draw(denoiser, y, defaults.sampler, defaults.steps, 1.0, task.seed, batch, defaults.grid)

    training = manifest["training"]
    facts = {
        "parameters": manifest["parameters"],
        "batch": training["batch"],
        "steps": training["steps"],
        "train_seconds": manifest["wall_seconds"],
        "sampler": f"{defaults.sampler}, its default",
        "evaluations": cli.evaluations(defaults.sampler, defaults.steps),
        "recipe": shlex.join(["python", *command[1:6], *task.options]),
    }
    return Trained(draw, facts)


def train_denoising_diffusion(task: Task) -> Trained:
    """The package's `Trainer`, with the settings of its README."""
    library = load_library("denoising_diffusion_pytorch")
    module = importlib.import_module("denoising_diffusion_pytorch.denoising_diffusion_pytorch")
    images, gpu, steps = padded(task.images), task.device.type == "cuda", task.evaluations or 250
    module.Dataset = lambda *arguments, **keywords: Pictures(images)
    net = library.Unet(dim=64, dim_mults=(1, 2, 4, 8), flash_attn=True, channels=images.shape[1])
    diffusion = library.GaussianDiffusion(net, image_size=32, timesteps=1000, sampling_timesteps=steps)
    settings = {"train_batch_size": 32, "train_lr": 8e-5, "gradient_accumulate_every": 2, "ema_decay": 0.995}
    with tempfile.TemporaryDirectory() as results:
        never = {"save_and_sample_every": 10**9, "calculate_fid": False, "results_folder": results}
        trainer = library.Trainer(diffusion, results, train_num_steps=700_000, amp=gpu, **settings, **never)
        clock = Clock(task.minutes, task.device)
        trainer.dl = clock.limited(trainer.dl)
        with contextlib.suppress(TimeIsUp):
            trainer.train()
    seconds, averaged = clock.seconds(), trainer.ema.ema_model.eval()

    @torch.no_grad()
    def draw(n: int) -> Tensor:
        return cropped(averaged.sample(batch_size=n) * 2 - 1, task.images.shape[-1])

    facts = {
        "parameters": parameters(net),
        "batch": 64,
        "steps": trainer.step,
        "train_seconds": seconds,
        "sampler": "the package's DDIM" + ("" if steps == 250 else "; its README uses 250 steps"),
        "evaluations": steps,
        "recipe": "README: Unet(64, (1, 2, 4, 8)), v, sigmoid schedule, Adam 8e-5, 2 x 32 images a step, "
        "EMA 0.995 from step 100 on, " + ("fp16" if gpu else "float32 (its fp16 needs a GPU)"),
    }
    return Trained(in_parts(draw, 250 if gpu else 25), facts)


def train_diffusers(task: Task) -> Trained:
    """UNet2DModel and DDPMScheduler as in the example `train_unconditional.py`, with its EMA."""
    from diffusers import UNet2DModel
    from diffusers.optimization import get_scheduler
    from diffusers.schedulers import DDPMScheduler
    from diffusers.training_utils import EMAModel

    images = 2 * padded(task.images) - 1
    net = UNet2DModel(
        sample_size=32,
        in_channels=images.shape[1],
        out_channels=images.shape[1],
        layers_per_block=2,
        block_out_channels=(128, 128, 256, 256, 512, 512),
        down_block_types=(*("DownBlock2D",) * 4, "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", *("UpBlock2D",) * 4),
    ).to(task.device)
    chain, loader = DDPMScheduler(num_train_timesteps=1000), DataLoader(Pictures(images), batch_size=16, shuffle=True)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    rates = get_scheduler("cosine", optimizer, num_warmup_steps=500, num_training_steps=100 * len(loader))
    ema = EMAModel(net.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    clock, steps = Clock(task.minutes, task.device), 0
    with contextlib.suppress(TimeIsUp):
        for x0 in clock.limited(batch for _ in range(100) for batch in loader):
            x0 = x0.to(task.device)
            eps, k = torch.randn_like(x0), torch.randint(1000, (len(x0),), device=task.device)
            loss = F.mse_loss(net(chain.add_noise(x0, eps, k), k).sample, eps)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            rates.step()
            optimizer.zero_grad()
            ema.step(net.parameters())
            steps += 1
    seconds, evaluations = clock.seconds(), task.evaluations or 1000
    ema.copy_to(net.parameters())
    facts = {
        "parameters": parameters(net),
        "batch": 16,
        "steps": steps,
        "train_seconds": seconds,
        "sampler": "its DDPM pipeline; the example takes 1000 steps",
        "evaluations": evaluations,
        "recipe": "examples/unconditional_image_generation/train_unconditional.py: six levels of 128 to 512, eps, linear "
        "betas, AdamW 1e-4, 16 images a step, 500 steps of warm-up, EMA up to 0.9999, float32",
    }
    return Trained(
        in_parts(
            diffusers_draw(net, chain, evaluations, task.images.shape[-1]), 250 if task.device.type == "cuda" else 25
        ),
        facts,
    )


def diffusers_draw(net: nn.Module, chain: Any, steps: int, side: int) -> Callable[[int], Tensor]:
    """Draw by the example's pipeline in so many of the chain's 1000 steps, and crop to `side`."""
    from diffusers import DDPMPipeline

    pipeline = DDPMPipeline(net, chain)
    pipeline.set_progress_bar_config(disable=True)

    def draw(n: int) -> Tensor:
        found = pipeline(batch_size=n, num_inference_steps=steps, output_type="np").images  # (n, H, W, C) in [0, 1]
        return cropped(torch.from_numpy(found).permute(0, 3, 1, 2) * 2 - 1, side)

    return draw


class CourseNetwork(nn.Module):
    """diffusers' network of the course: the class enters as four further channels of the image, (N, C, H, W) and (N,)."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        self.classes = nn.Embedding(10, 4)
        self.net = UNet2DModel(
            sample_size=side,
            in_channels=channels + 4,
            out_channels=channels,
            layers_per_block=2,
            block_out_channels=(32, 64, 64),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        )

    def forward(self, x: Tensor, k: Tensor, y: Tensor) -> Tensor:
        plane = self.classes(y)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return self.net(torch.cat([x, plane], 1), k).sample


def train_course(task: Task) -> Trained:
    """Digits of a class, as in the Hugging Face diffusion course, unit 2: diffusers' network and scheduler, its loop."""
    from diffusers.schedulers import DDPMScheduler

    images, labels = 2 * task.images - 1, task.labels
    net = CourseNetwork(images.shape[1], images.shape[-1]).to(task.device)
    chain = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    loader = DataLoader(Pictures(images, labels), batch_size=128, shuffle=True)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    clock, steps = Clock(task.minutes, task.device), 0
    with contextlib.suppress(TimeIsUp):
        for x0, y in clock.limited(batch for _ in range(1000) for batch in loader):
            x0, y = x0.to(task.device), y.to(task.device)
            eps, k = torch.randn_like(x0), torch.randint(999, (len(x0),), device=task.device)
            loss = F.mse_loss(net(chain.add_noise(x0, eps, k), k, y), eps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
    seconds, evaluations = clock.seconds(), task.evaluations or 1000

    @torch.no_grad()
    def draw(n: int) -> Tensor:
        x, y = torch.randn(n, *images.shape[1:], device=task.device), every_class(n).to(task.device)
        chain.set_timesteps(evaluations)
        for k in chain.timesteps:
            x = chain.step(net(x, k, y), k, x).prev_sample
        return x

    facts = {
        "parameters": parameters(net),
        "batch": 128,
        "steps": steps,
        "train_seconds": seconds,
        "sampler": "its DDPM; the course takes 1000 steps",
        "evaluations": evaluations,
        "recipe": "Hugging Face diffusion course, unit 2, class-conditioned: three levels of 32 to 64, eps, squared cosine "
        "schedule, Adam 1e-3, 128 images a step, float32; ten epochs there, as many as fit here",
    }
    return Trained(draw, facts)


def train_smalldiffusion(task: Task, network: str) -> Trained:
    """The package's `training_loop` and `samples`, with the settings of its examples `fashion_mnist_{dit,unet}.py`."""
    library = load_library("smalldiffusion")
    from torch_ema import ExponentialMovingAverage

    channels, side = task.images.shape[1:3]
    if network == "dit":
        net = library.DiT(
            in_dim=side, channels=channels, patch_size=2, depth=6, head_dim=32, num_heads=6, mlp_ratio=4.0
        )
        schedule, rate, decay = library.ScheduleDDPM(beta_start=0.0001, beta_end=0.02, N=1000), 1e-3, 0.99
    else:
        net = library.Scaled(library.Unet)(
            side, channels, channels, ch=64, ch_mult=(1, 1, 2), attn_resolutions=(side // 2,)
        )
        schedule, rate, decay = library.ScheduleLogLinear(sigma_min=0.01, sigma_max=20, N=800), 7e-4, 0.999
    net = net.to(task.device)
    ema = ExponentialMovingAverage(net.parameters(), decay=decay)
    clock, steps = Clock(task.minutes, task.device), 0
    batch = min(1024 if task.device.type == "cuda" else 64, len(task.images))
    loader = DataLoader(Pictures(2 * task.images - 1), batch_size=batch, shuffle=True)
    rounds = library.training_loop(loader, net, schedule, epochs=300, lr=rate)
    with contextlib.suppress(TimeIsUp):  # between two rounds of its generator lies one optimizer step
        for _ in clock.limited(rounds):
            ema.update()
            steps += 1
    seconds = clock.seconds()

    def draw(n: int) -> Tensor:
        with ema.average_parameters():
            *_, x0 = library.samples(net, schedule.sample_sigmas(20), gam=1.6, batchsize=n)
        return x0

    facts = {
        "parameters": parameters(net),
        "batch": batch,
        "steps": steps,
        "train_seconds": seconds,
        "sampler": "its own, gam = 1.6, the example's",
        "evaluations": 20,
        "recipe": f"examples/fashion_mnist_{network}.py: AdamW {rate:g}, {batch} images a step"
        + f"{'' if batch == 1024 else ' (the example takes 1024)'}, EMA {decay}",
    }
    return Trained(in_parts(draw, 250 if task.device.type == "cuda" else 50), facts)


class Peer(NamedTuple):
    """package: its name in a registry, None for ours; padded: it sees 32 x 32 pixels; classes: it can be asked for one."""

    package: str | None
    train: Callable[[Task], Trained]
    padded: bool = False
    classes: bool = False


def train_dit(task: Task) -> Trained:
    return train_smalldiffusion(task, "dit")


def train_unet(task: Task) -> Trained:
    return train_smalldiffusion(task, "unet")


PEERS = {
    "diffusion_edu": Peer(None, train_ours, classes=True),
    "diffusers-course": Peer("diffusers", train_course, classes=True),
    "denoising-diffusion-pytorch": Peer("denoising-diffusion-pytorch", train_denoising_diffusion, padded=True),
    "diffusers": Peer("diffusers", train_diffusers, padded=True),
    "smalldiffusion-dit": Peer("smalldiffusion", train_dit),
    "smalldiffusion-unet": Peer("smalldiffusion", train_unet),
}


# --- the table -----------------------------------------------------------------------------------------


def missing(peer: Peer) -> str | None:
    """Why a peer is left out, None when it is there."""
    if peer.package is None:
        return None
    try:
        for name in INSTALL[peer.package].split():
            importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError as error:
        return f"{error.name} is not installed: pip install --no-deps {INSTALL[peer.package]}"
    return None


def measure(name: str, key: dict[str, Any], given: argparse.Namespace, floors: dict[str, Any] | None) -> tuple:
    """Train, draw and judge; the row, the floors and the first images as uint8. In a process of its own."""
    torch.set_num_threads(given.threads)
    torch.manual_seed(key["seed"])
    device, peer = cli.find_device(given.device), PEERS[name]
    if device.type == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"  # it would take a GPU that is there
    train, test = data.load(given.dataset, "train"), data.load(given.dataset, "test")
    evaluations = given.evaluations or (None if device.type == "cuda" else 50)
    images, labels = train.images[: given.images].float() / 255, train.labels[: given.images]
    task = Task(
        given.dataset, images, labels, given.minutes, device, key["seed"], evaluations, shlex.split(given.options)
    )
    trained = peer.train(task)
    started = perf_counter()
    x = trained.draw(given.samples).float().cpu().clamp(-1, 1)
    sample_seconds = perf_counter() - started
    classifier, digest = cli.load_judge(given.dataset, given.judge, device)
    asked = every_class(len(x)) if peer.classes else len(x)
    real = metrics.RealImages(classifier, train, test, asked, floors=floors)
    found = real.measure(x)
    row = key | {
        "version": importlib.metadata.version(peer.package) if peer.package else None,
        "padded_to": 32 if peer.padded and images.shape[-1] != 32 else None,
        "conditional": peer.classes,
        **trained.facts,
        "images_seen": trained.facts["batch"] * trained.facts["steps"],
        "sample_seconds": sample_seconds,
        **{k: v for k, v in found.items() if k not in real.floors},
        "floor": real.floors["floor"],
        "classifier": digest,
        **describe(device),
    }
    return row, real.floors, data.to_uint8(x[:KEPT]).numpy()


def apart(*arguments: Any) -> Any:
    """`measure` in a fresh process: libraries keep global state, and each shall find the memory empty."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, *arguments).result()


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The table and the pictures that an earlier run left."""
    if not path.exists():
        return {"floors": {}, "rows": []}, {}
    pictures, table = path.with_suffix(".npz"), json.loads(path.read_text())
    if any(PEERS[row["peer"]].classes for row in table["rows"]) and not any(
        k.endswith("-classes") for k in table["floors"]
    ):
        raise SystemExit(f"{path} is of an earlier version, which had other floors; remove it or give another --out")
    return table, dict(np.load(pictures)) if pictures.exists() else {}


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=10, help="of training, for each")
    options.add_argument("--samples", type=int, default=1000)
    options.add_argument("--dataset", default="mnist", help="mnist, fashion-mnist or cifar10")
    options.add_argument("--peers", nargs="+", default=list(PEERS), choices=list(PEERS))
    options.add_argument("--seeds", type=int, nargs="+", default=[0])
    options.add_argument(
        "--evaluations", type=int, help="of three peers' samplers (default 50 on a CPU, else their own)"
    )
    options.add_argument("--images", type=int, help="train on the first so many images only")
    options.add_argument("--options", default="", help="of our own `train`, in one string")
    options.add_argument("--judge", type=Path, help="folder of the classifier that judges")
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    options.add_argument("--device", default="auto")
    options.add_argument("--out", type=Path, default=OUT)
    return options


def main(arguments: list[str] | None = None) -> None:
    """Fill the table row by row."""
    given = parser().parse_args(arguments)
    table, pictures = read(given.out)
    card = describe(cli.find_device(given.device))["card"]
    for seed in given.seeds:
        for name in given.peers:
            key = {"peer": name, "dataset": given.dataset, "minutes": given.minutes, "samples": given.samples}
            key |= {"seed": seed, "card": card}
            if any(all(row[k] == v for k, v in key.items()) for row in table["rows"]):
                continue
            if reason := missing(PEERS[name]):
                print(f"{name} is left out: {reason}", flush=True)
                continue
            place = f"{given.dataset}-{given.samples}" + ("-classes" if PEERS[name].classes else "")
            row, floors, images = apart(name, key, given, table["floors"].get(place))
            table["rows"].append(row)
            table["floors"][place] = floors
            pictures[f"{name}-{given.dataset}-{given.minutes:g}-{seed}-{row['device']}"] = images
            checkpoints.write_arrays(given.out.with_suffix(".npz"), **pictures)
            write_table(given.out, table)
            print(f"{name}: {row['steps']} steps in {row['train_seconds']:.0f} s, {row['frechet']:.2f}", flush=True)


if __name__ == "__main__":
    main()
