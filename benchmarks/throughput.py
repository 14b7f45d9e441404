"""Images a second of the training step, and how far that is from what the device can do.

`python -m benchmarks.throughput --train "--dataset mnist --batch 64" --train "--dataset cifar10 --batch 512"` trains each
for a moment through `training.fit`, on made-up images, and writes `data/measured/throughput.json`. The options are those of
`train`. Beside the images a second (median and quartiles over windows of steps):

- `matrix_tflops`, `copy_gb_per_s`: the device's own ceilings, measured with one large matrix product and one large copy;
- `model_flops_per_image`: multiply-adds times two of convolutions, matrix products and attention, forward and backward, as
  `torch.utils.flop_counter` counts them; `matrix_share` is the model FLOP utilisation, their rate over the matrix ceiling;
- `bytes_per_image`: what the operations of a step write, each tensor once and read once, if none is fused with the next;
  `copy_share` is their rate over the copy ceiling, and above 1 where fusion spares memory traffic;
- `idle_share`: time in which no kernel ran on the GPU, from a profile of one window (null on a CPU). The profile itself
  slows the host, so this is an upper bound;
- `peak_memory_mb`: the most that tensors took on the GPU at once (null on a CPU).
"""

import argparse
import json
import shlex
import statistics
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.bench import Written
from benchmarks.tables import write_table
from diffusion_edu import __main__ as cli
from diffusion_edu import training
from diffusion_edu.denoisers import Denoiser
from diffusion_edu.machine import describe
from diffusion_edu.networks import UNet
from diffusion_edu.schedules import make_schedule

OUT = Path(__file__).resolve().parents[1] / "data" / "measured" / "throughput.json"
SHAPES = {"mnist": (1, 28, 28), "fashion-mnist": (1, 28, 28), "cifar10": (3, 32, 32)}


def wait(device: torch.device) -> float:
    """The time, after everything that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter()


def fastest(work: Callable[[], object], device: torch.device, repetitions: int = 10) -> float:
    """Least time of `work` in seconds, after two to warm up: a ceiling is what the device can do undisturbed."""
    times = []
    for _ in range(repetitions + 2):
        started = wait(device)
        work()
        times.append(wait(device) - started)
    return min(times[2:])


def ceilings(device: torch.device) -> dict[str, Any]:
    """Measured rates of one large matrix product, in the number format that `train` picks here, and of one large copy."""
    gpu = device.type == "cuda"
    size, dtype = 8192 if gpu else 1024, getattr(torch, training.find_precision("auto", device))
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    product = fastest(lambda: left @ right, device)
    source = torch.randn(2**28 if gpu else 2**24, device=device)
    target = torch.empty_like(source)
    copy = fastest(lambda: target.copy_(source), device)
    return {
        "matrix_tflops": 2 * size**3 / product / 1e12,
        "matrix": f"{size} x {size}, {str(dtype).removeprefix('torch.')}",
        "copy_gb_per_s": 2 * source.numel() * source.element_size() / copy / 1e9,
        "copy": f"{source.numel() * source.element_size() >> 20} MiB, bytes read and written",
    }


def train_options(text: list[str], device: torch.device) -> argparse.Namespace:
    """The options of `train`, with its data set's recipe for those that are not given."""
    return cli.complete(cli.parser().parse_args(["train", *text]), device)


def build(options: argparse.Namespace, device: torch.device, **changes: Any) -> training.Run:
    """A fresh run as `train` makes it from its options."""
    sizes = {"channels": tuple(options.channels), "blocks": options.blocks, "patch": options.patch}
    torch.manual_seed(0)
    net = UNet(in_channels=SHAPES[options.dataset][0], num_classes=10, **sizes)
    denoiser = Denoiser(net, make_schedule(options.schedule), options.target).to(device)
    return training.Run(denoiser, replace(cli.train_config(options, device), **changes))


def made_up(options: argparse.Namespace, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images of noise: a step takes as long for them as for real ones."""
    images = torch.randint(0, 256, (count, *SHAPES[options.dataset]), dtype=torch.uint8, device=device)
    return images, torch.arange(count, device=device) % 10


def count_step(options: argparse.Namespace, batch: int = 8) -> dict[str, float]:
    """Model FLOPs and bytes an image, in an uncompiled float32 step on the CPU; with AdamW, which multiplies no matrices."""
    plain = {"precision": "float32", "compile": "off", "channels_last": False, "optimizer": "adamw"}
    cpu = torch.device("cpu")
    run = build(options, cpu, batch=batch, **plain)
    images, labels = made_up(options, batch, cpu)
    with FlopCounterMode(display=False) as flops, Written() as written:
        training.train_step(run, images, labels)
    return {"model_flops_per_image": flops.get_total_flops() / batch, "bytes_per_image": 2 * written.count / batch}


def windows(run: training.Run, images: Tensor, labels: Tensor) -> Iterator[tuple[int, float]]:
    """Steps done and the time, with the device at rest, after every record of a fit."""
    for record in training.fit(run, images, labels):
        yield record.step, wait(images.device)


def busy_seconds(spans: list[tuple[float, float]]) -> float:
    """Length of the union of (start, end) intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def idle_share(found: profile, seconds: float) -> float | None:
    """Share of `seconds` in which no kernel or copy ran on the GPU, from their profile."""
    events = [  # annotations are named spans around kernels, the gaps between them included
        e.time_range
        for e in found.events()
        if e.device_type == DeviceType.CUDA and not getattr(e, "is_user_annotation", False)
    ]
    return 1 - busy_seconds([(e.start, e.end) for e in events]) / 1e6 / seconds if events else None


def measure(options: argparse.Namespace, device: torch.device, window: int, count: int) -> dict[str, Any]:
    """Train through two windows to warm up, `count` windows that are timed, and on a GPU one that is profiled."""
    gpu = device.type == "cuda"
    run = build(options, device, steps=window * (count + 3), log_every=window, save_every=window)
    images, labels = made_up(options, max(4096, 4 * options.batch) if gpu else 4 * options.batch, device)
    if gpu:
        torch.cuda.reset_peak_memory_stats(device)
    marks = windows(run, images, labels)
    times = [next(marks)[1] for _ in range(count + 2)][1:]
    rates = [options.batch * window / (b - a) for a, b in zip(times, times[1:], strict=False)]
    with profile(activities=[ProfilerActivity.CUDA]) if gpu else nullcontext() as found:
        started = wait(device)
        _, ended = next(marks)
    quartiles = statistics.quantiles(rates, n=4) if len(rates) > 1 else rates * 3
    return {
        "images_per_second": quartiles[1],
        "quartiles": [quartiles[0], quartiles[2]],
        "idle_share": idle_share(found, ended - started) if gpu else None,
        "peak_memory_mb": torch.cuda.max_memory_allocated(device) / 1e6 if gpu else None,
        "parameters": sum(p.numel() for p in run.denoiser.parameters()),
        "batch": options.batch,
        "precision": run.config.precision,
        "compile": run.compile,
    }


def row(text: str, given: argparse.Namespace, device: torch.device, roof: dict[str, Any]) -> dict[str, Any]:
    """Everything about one set of options."""
    options = train_options(shlex.split(text), device)
    torch.compiler.reset()  # else the second network is compiled for all sizes at once, and is not what `train` runs
    cli.set_up_gpu(options.deterministic)
    found = count_step(options) | measure(options, device, given.window, given.windows)
    flops, traffic = (found["images_per_second"] * found[n] for n in ("model_flops_per_image", "bytes_per_image"))
    shares = {
        "model_tflops": flops / 1e12,
        "matrix_share": flops / 1e12 / roof["matrix_tflops"],
        "copy_share": traffic / 1e9 / roof["copy_gb_per_s"],
    }
    return {"options": text, "dataset": options.dataset} | found | shares


def main(arguments: list[str] | None = None) -> None:
    """Measure every set of options and write the table after each."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--train", action="append", help="options of `train`, in one string; may be given several times"
    )
    options.add_argument("--device", default="auto")
    options.add_argument("--window", type=int, default=20, help="steps between two looks at the clock")
    options.add_argument("--windows", type=int, default=5, help="how many are timed")
    options.add_argument("--out", type=Path, default=OUT)
    given = options.parse_args(arguments)
    device = cli.find_device(given.device)
    place, roof = describe(device), ceilings(device)
    table = json.loads(given.out.read_text()) if given.out.exists() else {"rows": []}
    for text in given.train or ["--dataset mnist"]:
        same = {"options": text, "card": place["card"]}
        found = place | row(text, given, device, roof) | {"ceilings": roof}
        table["rows"] = [old for old in table["rows"] if any(old[k] != v for k, v in same.items())] + [found]
        write_table(given.out, table)
        print("\n".join(f"{name:24} {value}" for name, value in table["rows"][-1].items()), flush=True)


if __name__ == "__main__":
    main()
