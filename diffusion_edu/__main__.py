"""The command line: `python -m diffusion_edu train | sample | evaluate | likelihood | export | train-...`, see `--help`."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from diffusion_edu import checkpoints, data, film, judges, machine, metrics, parallel, samplers, training
from diffusion_edu.denoisers import Denoiser, DenoiserFunction, check_labels
from diffusion_edu.guidance import classifier_free
from diffusion_edu.likelihood import (
    BIN,
    bits_per_dim,
    decoder_nats,
    dequantise,
    draw_probes,
    elbo,
    likelihood_grid,
    noise_dequantise,
    ode_log_likelihoods,
    optimal_variance,
    score_norms,
    step_kl,
)
from diffusion_edu.losses import interpolated_log_variance
from diffusion_edu.metrics import mean_and_error, measure_elbo
from diffusion_edu.networks import VAE, NoisyClassifier, UNet, VarianceHead
from diffusion_edu.process import TARGETS, normal_like, q_sample
from diffusion_edu.samplers import NEEDS_GENERATOR, SAMPLERS, evaluations, steps_within
from diffusion_edu.schedules import SCHEDULES, SPACINGS, Schedule, make_schedule, time_grid

CHECKPOINTS = Path(__file__).resolve().parents[1] / "data" / "checkpoints"
BATCH = 50  # images drawn at once: on a CPU larger batches leave the cache and are slower
GPU_BATCH = 500  # on a GPU
SHARES = ("data", "equal")  # of the classes among samples
BEFORE = {"grid": "uniform", "shares": "equal"}  # what figures from before there was a choice do not name


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    main = argparse.ArgumentParser(prog="python -m diffusion_edu", description=__doc__)
    commands = main.add_subparsers(dest="command", required=True)

    train = commands.add_parser("train", help="train a U-Net; continues where an earlier run in --out stopped")
    train.add_argument("--dataset", default="mnist", help="mnist, fashion-mnist or cifar10")
    train.add_argument(
        "--out", type=Path, help="folder for checkpoint, film, loss curve and sample grid (default runs/NAME)"
    )
    train.add_argument(
        "--minutes", type=float, default=10, help="as many steps as fit, measured at the start (default 10)"
    )
    train.add_argument("--steps", type=int, help="optimizer steps, instead of --minutes")
    train.add_argument("--images", type=int, help="train on the first so many images only")
    train.add_argument(
        "--samples", type=int, default=1000, help="images judged at the end, as `evaluate` does (default 1000); 0: none"
    )
    recipe = train.add_argument_group(
        "recipe", "what is not given is taken from the data set's own in training.RECIPES"
    )
    recipe.add_argument("--batch", type=int, help="images a step, of all processes together")
    recipe.add_argument("--optimizer", help=", ".join(training.CHOICES["optimizer"]))
    recipe.add_argument("--rate", type=float, help="peak learning rate; the best one depends on the optimizer")
    recipe.add_argument("--channels", type=int, nargs="+", help="width of each resolution, the finest first")
    recipe.add_argument("--blocks", type=int, help="residual blocks a resolution")
    recipe.add_argument("--patch", type=int, help="fold squares of so many pixels a side into channels")
    recipe.add_argument("--flips", action=argparse.BooleanOptionalAction, help="mirror every second image")
    recipe.add_argument("--save-every", type=int, help="steps between two saved states")
    recipe.add_argument(
        "--half", action=argparse.BooleanOptionalAction, help="store the finished network's weights in 16 bits"
    )
    choice = train.add_argument_group("choices")
    choice.add_argument("--schedule", default="Cosine", help=", ".join(SCHEDULES))
    choice.add_argument("--target", default="v", help=", ".join(TARGETS))
    choice.add_argument("--weight", default="simple", help=", ".join(training.CHOICES["weight"]))
    choice.add_argument("--ema", type=float, default=0.05, help="width of the weight average, as a share of the run")
    choice.add_argument("--p-null", type=float, default=0.1, help="share of labels withheld")
    about = (
        "auto: the fastest that was measured on a device of this kind; on a CPU --compile only if asked: it takes time"
    )
    speed = train.add_argument_group("speed", about)
    for name in ("precision", "compile"):
        speed.add_argument(f"--{name}", default="auto", help="auto, " + ", ".join(training.CHOICES[name]))
    speed.add_argument(
        "--channels-last", action=argparse.BooleanOptionalAction, help="memory layout (default: on a GPU)"
    )
    speed.add_argument(
        "--deterministic", action="store_true", help="the same bits each time on a GPU too, where that costs speed"
    )

    sample = commands.add_parser("sample", help="draw images from a checkpoint: a grid of them, or many to be judged")
    sample.add_argument(
        "--out", type=Path, default=Path("grid.png"), help="a picture, or NAME.npz for `evaluate --drawn`"
    )
    sample.add_argument("--rows", type=int, default=4, help="images of each class in a picture")
    sample.add_argument("--samples", type=int, default=10_000, help="images in an .npz")

    evaluate = commands.add_parser(
        "evaluate",
        help="measure a checkpoint's samples: into its manifest, or with --table for every combination of the settings",
    )
    evaluate.add_argument("--samples", type=int, default=10_000)
    evaluate.add_argument(
        "--drawn",
        type=Path,
        help="judge what `sample --out NAME.npz` drew from this checkpoint, here or elsewhere; the file knows how",
    )
    evaluate.add_argument(
        "--table", type=Path, help="JSON file for the figures, continued where an earlier run stopped"
    )
    evaluate.add_argument("--keep", type=int, default=10, help="images of each row kept beside the table, as .npz")
    evaluate.add_argument(
        "--judge", type=Path, help="folder of the classifier that judges (default: the data set's own)"
    )
    evaluate.add_argument(
        "--features",
        type=Path,
        help="TorchScript file whose features give one more Fréchet distance: FID with Inception's",
    )
    evaluate.add_argument("--reference", choices=["train", "test"], default="train", help="split for --features")
    for command, many in ((sample, None), (evaluate, "+")):
        one = (lambda value: value) if many is None else (lambda value: [value])
        command.add_argument("--checkpoint", type=Path, nargs=many, default=one(CHECKPOINTS / "mnist-unet"))
        command.add_argument("--sampler", nargs=many, default=one("ancestral"), choices=list(SAMPLERS))
        command.add_argument("--steps", type=int, default=25)
        command.add_argument("--evaluations", type=int, nargs=many, help="instead of --steps: as many as they allow")
        command.add_argument("--grid", nargs=many, default=one("uniform"), choices=SPACINGS, help="where the times lie")
        command.add_argument("--w", type=float, nargs=many, default=one(1.0), help="guidance; 1 is plain conditional")
        command.add_argument("--batch", type=int, default=BATCH, help="images drawn at once; a GPU likes more")
        command.add_argument(
            "--shares", default="data", choices=SHARES, help="of the classes: the test split's, or equal (default data)"
        )

    likelihood = commands.add_parser(
        "likelihood", help="bits a dimension on the test split, written into the checkpoint's manifest"
    )
    likelihood.add_argument("--route", default="elbo", choices=list(ROUTES))
    likelihood.add_argument("--checkpoint", type=Path, default=CHECKPOINTS / "mnist-unet")
    likelihood.add_argument("--images", type=int, default=1000, help="the first so many test images")
    likelihood.add_argument("--steps-ode", type=int, default=24, help="Runge-Kutta steps of route ode")
    likelihood.add_argument("--probes", type=int, default=4, help="Hutchinson probes for the spread, route ode")
    likelihood.add_argument("--conditional", action="store_true", help="tell the network each image's class")
    likelihood.add_argument("--draws", type=int, default=8, help="route elbo: noise levels asked for an image")

    export = commands.add_parser("export", help="write a checkpoint's network as one ONNX file")
    export.add_argument("--checkpoint", type=Path, default=CHECKPOINTS / "mnist-unet")
    export.add_argument("--out", type=Path, required=True, help="the file, NAME.onnx")

    classifier = commands.add_parser("train-classifier", help="train the classifier that judges a data set's samples")
    classifier.add_argument("--dataset", default="mnist", help=", ".join(judges.JUDGES))
    classifier.add_argument("--out", type=Path, required=True)
    classifier.add_argument("--epochs", type=int, help="(default 10, cifar10: 32)")
    classifier.add_argument("--batch", type=int, help="(default 128, cifar10: 512)")
    classifier.add_argument("--images", type=int, help="train on the first so many images only")

    noisy = commands.add_parser(
        "train-noisy-classifier", help="train a classifier of noisy digits, for classifier guidance, and measure it"
    )
    noisy.add_argument("--out", type=Path, required=True)
    noisy.add_argument("--epochs", type=int, default=6)
    noisy.add_argument("--images", type=int, help="train on the first so many images only")
    noisy.add_argument("--batch", type=int, default=128)
    noisy.add_argument("--schedule", default="Cosine", help=", ".join(SCHEDULES))

    variance = commands.add_parser(
        "train-variance", help="train a small head for the variance of a denoiser's steps, and measure what it saves"
    )
    variance.add_argument("--out", type=Path, required=True)
    variance.add_argument("--checkpoint", type=Path, default=CHECKPOINTS / "mnist-unet")
    variance.add_argument("--steps", type=int, default=600, help="optimizer steps")
    variance.add_argument("--batch", type=int, default=32)
    variance.add_argument("--images", type=int, default=1000, help="test images to measure on")
    variance.add_argument("--draws", type=int, default=8, help="steps of each chain measured for an image")

    vae = commands.add_parser(
        "train-vae", help="train a VAE on MNIST and measure its bits a dimension on the test split"
    )
    vae.add_argument("--out", type=Path, required=True)
    vae.add_argument("--latent", type=int, default=2, help="dimension of the latent")
    vae.add_argument("--width", type=int, default=128, help="width of the hidden layers")
    vae.add_argument("--epochs", type=int, default=20)
    vae.add_argument("--images", type=int, help="train on the first so many images only")
    vae.add_argument("--batch", type=int, default=128)
    vae.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    for command in (train, sample, evaluate, likelihood, classifier, noisy, variance, vae):
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--threads", type=int, help="CPU threads")
        command.add_argument("--device", default="auto", help="cpu, cuda, mps or auto")
    return main


def find_device(name: str) -> torch.device:
    """The device of that name, "auto" for the best there is.

    A GPU must add one number before it is believed in. One that cannot is done without, with a line on standard error, if
    "auto" found it. Raises ValueError when a device is unknown or absent, or was asked for and cannot compute.
    """
    available = ["cpu"]
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if name != "auto" and name.split(":")[0] not in available:
        raise ValueError(f"unknown or absent device {name!r}; here: {', '.join(available)}")
    wanted = available[0] if name == "auto" else name
    try:
        device = torch.device(wanted)
        alone = "WORLD_SIZE" not in os.environ  # `parallel.start` gives torchrun's processes theirs
        if device.type == "cuda" and alone:
            torch.ones(1, device=device).sum().item()
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        if name != "auto" or isinstance(error, torch.OutOfMemoryError):  # that passes
            raise ValueError(f"device {wanted!r} cannot be used: {reason}; here: {', '.join(available)}") from None
        training.say(f"{wanted} cannot be used, the CPU does it: {reason}")
        return torch.device("cpu")
    return device


def train_config(options: argparse.Namespace, device: torch.device) -> training.TrainConfig:
    """The configuration that the options ask for, completed by the data set's recipe and for the device."""
    fields = {f.name: getattr(options, f.name) for f in dataclasses.fields(training.TrainConfig) if f.name in options}
    on_gpu = device.type == "cuda"
    fields["precision"] = training.find_precision(options.precision, device)
    if options.compile == "auto":
        fields["compile"] = "default" if on_gpu else "off"
    fields["channels_last"] = on_gpu if options.channels_last is None else options.channels_last
    return training.TrainConfig(**{name: value for name, value in fields.items() if value is not None})


def complete(options: argparse.Namespace, device: torch.device) -> argparse.Namespace:
    """The options of `train`, with the data set's recipe for whatever they leave open; the same object."""
    for name, value in training.recipe(options.dataset, device).items():
        if getattr(options, name) in (None, "auto"):
            setattr(options, name, value)
    return options


def find_steps_to_train(options: argparse.Namespace, run: training.Run, images: Tensor, labels: Tensor) -> int:
    """--steps, or those that a saved run was started for, or as many as fit into --minutes: measured once, then fixed."""
    state = options.out / "state.safetensors"
    if options.steps is not None:
        return options.steps
    if parallel.first_says(state.exists(), images.device):
        return parallel.first_says(training.saved_steps(state) if parallel.rank() == 0 else 0, images.device)
    started = perf_counter()
    fitting = max(100, math.floor(60 * options.minutes / training.seconds_a_step(run, images, labels)))
    steps = parallel.first_says(fitting, images.device)
    if parallel.rank() == 0:
        print(f"{steps} steps fit into {options.minutes:g} minutes, found out in {perf_counter() - started:.0f} s")
    return steps


def train(options: argparse.Namespace) -> None:
    """Train a U-Net, show progress, and leave checkpoint, state, film, loss curve and sample grid in --out.

    In the end its samples are judged: the figures are in the manifest.
    """
    check_samples(options)
    device = parallel.start(find_device(options.device))
    dataset = data.load(options.dataset, "train")
    if options.samples:  # are there as many real ones? better now than after hours
        next(
            metrics.part_indices(
                dataset.labels, metrics.in_shares(data.load(options.dataset, "test").labels, options.samples)
            )
        )
    complete(options, device)
    options.out = options.out or Path("runs") / options.dataset
    set_up_gpu(options.deterministic)
    images, labels = (part[: options.images].to(device) for part in (dataset.images, dataset.labels))
    network = {"in_channels": images.shape[1], "channels": tuple(options.channels), "num_classes": dataset.num_classes}
    network |= {"blocks": options.blocks, "patch": options.patch}
    torch.manual_seed(options.seed)  # the weights' first values
    denoiser = Denoiser(UNet(**network), make_schedule(options.schedule), options.target).to(device)
    if parallel.rank() == 0:
        check_writable(options.out)

    run = training.Run(denoiser, train_config(options, device))
    run.config = replace(run.config, steps=find_steps_to_train(options, run, images, labels))
    shape, digest = list(images.shape[1:]), dataset.sha256
    records = training.fit(run, images, labels, options.out / "state.safetensors")
    if parallel.rank() == 0:
        records = film.filmed(records, run, options.out / "film.npz", shape)
    show(records, run, f"{options.dataset} on {device}")
    facts = {
        "dataset": {"name": dataset.name, "split": "train", "images": len(images), "shape": shape, "sha256": digest},
        "training": {
            **asdict(run.config),
            "compile": run.compile,  # what came of it
            "at_once": run.at_once,
            "deterministic": options.deterministic,
            "device": str(device),
            "threads": torch.get_num_threads(),
            "processes": parallel.size(),
        },
    }
    first = parallel.rank() == 0
    parallel.stop()  # what follows is for the first alone, and the others need not wait
    if first:
        finish(run, options.out, network, facts | {"machine": machine.describe(device)}, options.half)
        judge_trained(options.out, options.samples, device)


def set_up_gpu(deterministic: bool) -> None:
    """On a GPU: let cuDNN try which convolution is fastest, or allow only what gives the same bits each time."""
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS may add up in any order
        torch.use_deterministic_algorithms(True)


def show(records: Iterator[training.Record], run: training.Run, title: str) -> None:
    """Run through a training with a progress bar, on the first process only."""
    with tqdm(total=run.config.steps, unit="step", desc=title, disable=parallel.rank() > 0) as progress:
        for record in records:
            progress.update(record.step - progress.n)
            progress.set_postfix(loss=f"{record.loss:.4f}")


def finish(run: training.Run, out: Path, network: dict[str, Any], facts: dict[str, Any], half: bool) -> None:
    """Write a finished run's averaged weights, in 16 bits if `half`, manifest, log, loss curve and sample grid to `out`.

    Where the same weights lay there already, the manifest keeps what was measured on them.
    """
    from diffusion_edu import plotting

    tail = [record.loss for record in run.log][-max(1, len(run.log) // 20) :]
    checkpoints.save(
        out,
        deepcopy(run.ema.net).half() if half else run.ema.net,
        {"class": "UNet", "arguments": network},
        keep=("metrics", "likelihood"),
        schedule=checkpoints.describe_schedule(run.denoiser.schedule),
        target=run.denoiser.target,
        clip=[-1, 1],
        **facts,
        wall_seconds=run.seconds,
        final_loss=sum(tail) / len(tail),
        metrics=[],
    )
    rows = [f"{r.step},{r.loss:.6g},{r.rate:.6g},{r.seconds:.1f}" for r in run.log]
    checkpoints.write_atomically(out / "log.csv", "\n".join(["step,loss,rate,seconds", *rows, ""]).encode())
    plotting.save_loss_curve(out / "loss.png", run.log)
    denoiser = checkpoints.load(out, next(run.ema.parameters()).device)
    plotting.save_image_grid(
        out / "samples.png", draw(denoiser, classes(denoiser, 4), "ancestral", 25, 1.0, 0), columns=4
    )
    print(f"wrote {out}/model.safetensors, manifest.json, log.csv, loss.png, samples.png and film.npz")


def judge_trained(folder: Path, samples: int, device: torch.device) -> None:
    """Judge samples of a trained network as `evaluate` does by default, unless its manifest has those figures already.

    samples: how many, 0 for none. Where there is no judge, one line says why.
    """
    options = parser().parse_args(["evaluate"])
    options.checkpoint, options.batch = [folder], batch_on(device)
    (cell,), started = find_cells(options), perf_counter()
    if samples == 0:
        return
    try:
        bench = load_bench([folder], None, device)
        known = [old for old in checkpoints.read_manifest(folder)["metrics"] if old.get("classifier") == bench.digest]
        if any(cell.is_in(old, samples) for old in known):
            return
        figures = figures_of(cell, bench, *cell.draw(samples, device))
    except (ValueError, OSError, ArithmeticError, RuntimeError) as error:  # no reason to fail after the training
        print(f"samples are not judged: {error}")
        return
    write_figures(cell, figures | {"seconds": perf_counter() - started})


def batch_on(device: torch.device) -> int:
    """How many images are best drawn at once on a device."""
    return GPU_BATCH if device.type == "cuda" else BATCH


def classes(denoiser: Denoiser, each: int) -> Tensor:
    """Labels 0 0 0 ... 1 1 1 ..., `each` of every class."""
    return torch.arange(denoiser.net.num_classes).repeat_interleave(each)


def draw(
    denoiser: Denoiser,
    y: Tensor,
    sampler: str,
    steps: int,
    w: float,
    seed: int,
    batch: int = BATCH,
    grid: str = "uniform",
) -> Tensor:
    """One image for each label, float in [-1, 1]; the same ones for the same arguments."""
    device, shape = next(denoiser.parameters()).device, denoiser.manifest["dataset"]["shape"]
    generator = torch.Generator().manual_seed(seed)
    ts = time_grid(denoiser.schedule, steps, grid)
    guided = classifier_free(denoiser, w)
    extra = {}
    if sampler == "analytic":
        train = data.load(denoiser.manifest["dataset"]["name"], "train")
        extra["variance"] = best_variances(guided, train.images[:200].to(device), train.labels[:200].to(device), ts)
    parts = []
    for labels in tqdm(y.to(device).split(batch), unit="batch", disable=len(y) <= batch):
        noise = torch.randn(len(labels), *shape, generator=generator).to(device)
        arguments = extra | {"y": labels} | ({"generator": generator} if sampler in NEEDS_GENERATOR else {})
        parts.append(samplers.sample(SAMPLERS[sampler](guided, noise, ts, **arguments)).cpu())
    return torch.cat(parts)


@torch.no_grad()
def best_variances(denoiser: DenoiserFunction, images: Tensor, y: Tensor, ts: Tensor) -> Tensor:
    """Analytic-DPM's variances of the steps of `ts` (K + 1,), float64 (K,), by the scores of images (N, ...), noised."""
    norms = score_norms(denoiser, data.to_float(images), ts[:-1], y, torch.Generator().manual_seed(0))
    return optimal_variance(denoiser.schedule, ts, norms, bound=1.0)


def find_steps(sampler: str, steps: int, budget: int | None) -> int:
    """The number of steps asked for, or the largest that a budget of evaluations allows."""
    return steps if budget is None else steps_within(sampler, budget)


def sample(options: argparse.Namespace) -> None:
    """Draw a grid, one column for each class, and save it as a picture; or many images, where --out is an .npz."""
    from diffusion_edu import plotting

    steps = find_steps(options.sampler, options.steps, options.evaluations)
    if options.out.suffix == ".npz":
        return sample_many(steps, options)
    denoiser = checkpoints.load(options.checkpoint, find_device(options.device))
    y = torch.arange(denoiser.net.num_classes).repeat(options.rows)
    images = draw(denoiser, y, options.sampler, steps, options.w, options.seed, options.batch, options.grid)
    plotting.save_image_grid(options.out, images, columns=denoiser.net.num_classes)
    print(f"wrote {options.out}: {len(images)} images, {options.sampler}, {steps} steps, w = {options.w:g}")


def sample_many(steps: int, options: argparse.Namespace) -> None:
    """Draw --samples images and keep them for `evaluate --drawn`, with how they were drawn."""
    names = (options.checkpoint, options.sampler, steps, options.grid, options.w, options.seed, options.batch)
    cell, started = Cell(*names, options.shares), perf_counter()
    x, y = cell.draw(options.samples, find_device(options.device))
    note = {"cell": cell.settings() | {"batch": cell.batch}, "checkpoint": sha256_of(options.checkpoint)}
    note["seconds"] = perf_counter() - started
    pixels = data.to_uint8(x).numpy()
    checkpoints.write_arrays(options.out, images=pixels, labels=y.numpy(), note=np.array(json.dumps(note)))
    print(f"wrote {options.out}: {len(x)} images in {note['seconds']:.0f} s, {options.sampler}, {steps} steps")


def read_samples(path: Path, checkpoint: Path) -> tuple[Cell, Tensor, Tensor]:
    """What `sample_many` kept: how it was drawn, images (N, C, H, W) in [-1, 1], on the CPU, and labels (N,).

    Raises ValueError for a damaged file, for fewer than 10 images, or when they are those of another checkpoint.
    """
    try:
        with np.load(path) as file:
            note, pixels, labels = json.loads(str(file["note"])), file["images"], file["labels"]
        cell = Cell(checkpoint, **BEFORE | note["cell"])
        drawn_from = note["checkpoint"]
    except Exception as error:  # there are too many ways in which a damaged archive fails
        raise ValueError(f"{path} is missing, damaged or no file of `sample --out NAME.npz`: {error}") from None
    shape = checkpoints.read_manifest(checkpoint)["dataset"]["shape"]
    if pixels.dtype != np.uint8 or list(pixels.shape[1:]) != shape or len(labels) != len(pixels) or len(pixels) < 10:
        found = f"{pixels.dtype} {pixels.shape} with {len(labels)} labels"
        raise ValueError(f"{path} needs at least 10 images, uint8 (N, {', '.join(map(str, shape))}), got {found}")
    if drawn_from != sha256_of(checkpoint):
        raise ValueError(f"{path} was drawn from weights {drawn_from[:12]}, not those of {checkpoint}")
    images, y = data.to_float(torch.from_numpy(pixels)), torch.from_numpy(labels)
    check_labels(y, images, checkpoints.read_manifest(checkpoint)["network"]["arguments"]["num_classes"], null=False)
    return cell, images, y.long()


class Cell(NamedTuple):
    """One set of samples to be measured: what it is drawn from, and how."""

    checkpoint: Path
    sampler: str
    steps: int
    grid: str
    w: float
    seed: int
    batch: int
    shares: str

    def settings(self) -> dict[str, Any]:
        """What identifies the cell in a manifest or a table."""
        return {name: getattr(self, name) for name in ("sampler", "steps", "w", "seed", "grid", "shares")}

    def is_in(self, figures: dict[str, Any], samples: int) -> bool:
        """Whether a manifest's figures are those of this cell, from so many samples."""
        same = self.settings() | {"samples": samples}
        return all((BEFORE | figures).get(name) == value for name, value in same.items())

    def labels(self, samples: int) -> Tensor:
        """The classes that so many images are asked for, which take turns; `shares` says how many there are of each."""
        manifest = checkpoints.read_manifest(self.checkpoint)
        if self.shares == "data":
            return metrics.in_shares(data.load(manifest["dataset"]["name"], "test").labels, samples)
        return torch.arange(samples) % manifest["network"]["arguments"]["num_classes"]

    def draw(self, samples: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """`samples` images in [-1, 1], on the CPU, and the `labels` they were asked for."""
        denoiser, y = checkpoints.load(self.checkpoint, device), self.labels(samples)
        return draw(denoiser, y, self.sampler, self.steps, self.w, self.seed, self.batch, self.grid), y


def dataset_of(folders: list[Path]) -> str:
    """The data set that the checkpoints in these folders were trained on. Raises ValueError for none or for several."""
    names = {checkpoints.read_manifest(folder).get("dataset", {}).get("name") for folder in folders}
    if len(names) > 1 or None in names:
        raise ValueError(f"need checkpoints of one data set, got {', '.join(sorted(map(str, names)))}")
    return names.pop()


def load_judge(dataset: str, folder: Path | None, device: torch.device) -> tuple[nn.Module, str]:
    """The classifier that judges a data set's samples, and the digest of its weights.

    folder: where it is, None for the committed one. It stays on the CPU where a GPU has no float64. Raises ValueError for
    a data set without a judge, for a judge that was not trained on it, and says how to train one that is missing.
    """
    judge = judges.find_judge(dataset)
    folder = folder or CHECKPOINTS / judge.folder
    if not (folder / "manifest.json").exists():
        command = f"python -m diffusion_edu train-classifier --dataset {dataset} --out {folder}"
        raise ValueError(f"no classifier of {dataset} at {folder}; train it: {command}")
    net, manifest = checkpoints.load_network(folder, device if device.type == "cuda" else "cpu")
    trained_on = manifest.get("dataset", {}).get("name")
    if not isinstance(net, judge.network) or trained_on != dataset:
        raise ValueError(f"{folder} holds a {type(net).__name__} of {trained_on}, no judge of {dataset}")
    return net, manifest["sha256"]


class Bench(NamedTuple):
    """What samples of a data set are measured with: its judge, the digest of the judge's weights, and real images."""

    classifier: nn.Module
    digest: str
    train: data.Dataset
    test: data.Dataset


def load_bench(folders: list[Path], judge: Path | None, device: torch.device) -> Bench:
    """What the checkpoints in these folders are measured with; raises ValueError as `dataset_of` and `load_judge` do."""
    name = dataset_of(folders)
    return Bench(*load_judge(name, judge, device), data.load(name, "train"), data.load(name, "test"))


def find_cells(options: argparse.Namespace) -> list[Cell]:
    """Every combination of the settings given, those that need fewest evaluations first."""
    budgets = options.evaluations or [None]
    axes = product(options.checkpoint, options.sampler, budgets, options.grid, options.w)
    alike = (options.seed, options.batch, options.shares)
    cells = [
        Cell(checkpoint, sampler, find_steps(sampler, options.steps, budget), grid, w, *alike)
        for checkpoint, sampler, budget, grid, w in axes
    ]
    return sorted(cells, key=lambda cell: evaluations(cell.sampler, cell.steps))


def evaluate(options: argparse.Namespace) -> None:
    """Measure samples and add the figures to the checkpoint's manifest or to a table, once for the same settings."""
    check_samples(options)
    cells, device = find_cells(options), find_device(options.device)
    if options.table and (options.features or options.drawn):
        raise ValueError("--features and --drawn go with one combination of settings, not with --table")
    if options.table:
        return fill_table(options, cells, device)
    if len(cells) > 1:
        raise ValueError(f"{len(cells)} combinations of settings need --table FILE")
    (cell,), started = cells, perf_counter()
    bench = load_bench(options.checkpoint, options.judge, device)
    extractor = options.features and metrics.load_extractor(options.features, device)
    if options.drawn:
        cell, x, y = read_samples(options.drawn, cell.checkpoint)
    else:
        next(metrics.part_indices(bench.train.labels, cell.labels(options.samples)))  # are there as many real ones?
        x, y = cell.draw(options.samples, device)
    measured = figures_of(cell, bench, x, y)
    if extractor:
        pair = (bench.train, bench.test) if options.reference == "train" else (bench.test, bench.train)
        network = {"file": options.features.name, "sha256": hashlib.sha256(options.features.read_bytes()).hexdigest()}
        measured["features"] = network | metrics.feature_distance(extractor, x, y, *pair)
    write_figures(cell, measured | {"seconds": perf_counter() - started})


def figures_of(cell: Cell, bench: Bench, x: Tensor, y: Tensor) -> dict[str, Any]:
    """How a cell was drawn, and how its images x (N, C, H, W), asked for as y (N,), are judged."""
    return cell.settings() | {
        "evaluations": evaluations(cell.sampler, cell.steps),
        "batch": cell.batch,  # samplers with noise draw other images with another one
        **metrics.measure_samples(bench.classifier, x, y, bench.train, bench.test),
        "classifier": bench.digest,
    }


def write_figures(cell: Cell, figures: dict[str, Any]) -> None:
    """Put a cell's figures last in its checkpoint's manifest, instead of earlier ones of the same, and print them."""
    manifest = checkpoints.read_manifest(cell.checkpoint)
    others = [old for old in manifest["metrics"] if not cell.is_in(old, figures["samples"])]
    checkpoints.write_json(cell.checkpoint / "manifest.json", manifest | {"metrics": [*others, figures]})
    print("\n".join(f"{key:16} {value}" for key, value in figures.items()))


def fill_table(options: argparse.Namespace, cells: list[Cell], device: torch.device) -> None:
    """Measure the cells that the table lacks, and write it, and the first images of each row, after each of them.

    The table: `floors` by number of samples, and `rows` in the order measured; the images, named `digits`, are uint8
    (rows, keep, H, W), with a third axis for the colours where there are any.
    """
    classifier, digest, train, test = load_bench(options.checkpoint, options.judge, device)
    table, digits = read_table(options.table, options.keep)
    if table.setdefault("classifier", digest) != digest:
        raise ValueError(f"{options.table} was measured with another classifier; give another --table")
    if table.setdefault("shares", options.shares) != options.shares:  # the floors would be others
        raise ValueError(f"{options.table} was measured with --shares {table['shares']}; give another --table")
    real = None
    for cell in tqdm(cells, unit="cell", desc=options.table.name):
        key = cell.settings() | {"samples": options.samples, "checkpoint": sha256_of(cell.checkpoint)}
        if any(all((BEFORE | row)[k] == v for k, v in key.items()) for row in table["rows"]):
            continue
        known = table["floors"].get(str(options.samples))
        real = real or metrics.RealImages(classifier, train, test, cell.labels(options.samples), floors=known)
        started = perf_counter()
        x, _ = cell.draw(options.samples, device)
        found = {k: v for k, v in real.measure(x).items() if k not in real.floors}
        row = key | {"evaluations": evaluations(cell.sampler, cell.steps), **found, "seconds": perf_counter() - started}
        table["rows"].append({"name": cell.checkpoint.name, **row})
        table["floors"][str(options.samples)] = real.floors
        digits.append(data.to_uint8(x[: options.keep].squeeze(1)).numpy())
        write_table(options.table, table, digits)


def sha256_of(checkpoint: Path) -> str:
    """The digest of a checkpoint's weights, from its manifest."""
    return checkpoints.read_manifest(checkpoint)["sha256"]


def read_table(path: Path, keep: int) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The table that an earlier run left, and the digits of its rows; an empty one where there is none."""
    if not path.exists():
        return {"floors": {}, "rows": []}, []
    table = json.loads(path.read_text())
    if table["rows"] and "shares" not in table:
        raise ValueError(f"{path} is of an earlier version, which had other floors; remove it or give another --table")
    digits = list(np.load(path.with_suffix(".npz"))["digits"])[: len(table["rows"])]  # the digits are written first
    if digits and len(digits[0]) != keep:
        raise ValueError(f"{path} keeps {len(digits[0])} digits of a row, not --keep {keep}")
    return table, digits


def write_table(path: Path, table: dict[str, Any], digits: list[np.ndarray]) -> None:
    """Write the digits and then the table, each atomically."""
    checkpoints.write_arrays(path.with_suffix(".npz"), digits=np.stack(digits))
    checkpoints.write_json(path, table)


def elbo_route(denoiser: Denoiser, images: Tensor, y: Tensor | None, options: argparse.Namespace) -> dict[str, Any]:
    """Bits a dimension by the evidence lower bound in continuous time, term by term, with standard errors over images.

    The decoder's width is one number, fitted on training images. `levels`: the diffusion term by noise level.
    """
    g, bins = torch.Generator().manual_seed(options.seed), 20
    scale = decoder_scale(denoiser, data.load(denoiser.manifest["dataset"]["name"], "train").images[:200])
    batches = images.split(100)
    labels = [None] * len(batches) if y is None else y.split(100)
    parts = [
        elbo(denoiser, x0, None, c, g, draws=options.draws, scale=scale)
        for x0, c in zip(tqdm(batches, unit="batch"), labels, strict=True)
    ]
    dims = images[0].numel()
    terms = {
        name: torch.cat([getattr(part, name) for part in parts]) for name in ("prior", "diffusion", "reconstruction")
    }
    costs, t = torch.cat([part.costs for part in parts]), torch.cat([part.t for part in parts])
    low, high = denoiser.schedule.log_snr(torch.tensor([denoiser.schedule.t_max, denoiser.schedule.t_min]).double())
    level = ((denoiser.schedule.log_snr(t) - low) / (high - low) * bins).long().clamp(0, bins - 1)
    shares = torch.zeros(len(images), bins, dtype=torch.float64).scatter_add_(1, level.cpu(), costs.cpu())
    return {
        "draws": options.draws,
        "t_first": denoiser.schedule.t_min,
        "decoder_scale": scale,
        "bits_per_dim": mean_and_error(bits_per_dim(sum(terms.values()), dims, 1)),
        **{name: mean_and_error(bits_per_dim(value, dims, 1)) for name, value in terms.items()},
        "levels": {
            "log_snr": torch.linspace(float(low), float(high), bins + 1).tolist(),
            "bits": bits_per_dim(shares.mean(0), dims, 1).tolist(),
            "errors": bits_per_dim(shares.std(0) / math.sqrt(len(shares)), dims, 1).tolist(),
        },
    }


def decoder_scale(denoiser: Denoiser, images: Tensor) -> float:
    """The width of the last step's bell, in units of sigma / alpha, that suits these (training) images best."""
    g = torch.Generator().manual_seed(0)
    images = images.to(next(denoiser.parameters()).device)
    t, eps = torch.tensor(denoiser.schedule.t_min), normal_like(data.to_float(images), g)
    candidates = [round(0.4 + 0.05 * i, 2) for i in range(8)]
    with torch.no_grad():
        nats = [float(decoder_nats(denoiser, images, t, eps, None, scale).mean()) for scale in candidates]
    return candidates[nats.index(min(nats))]


def ode_route(denoiser: Denoiser, images: Tensor, y: Tensor | None, options: argparse.Namespace) -> dict[str, Any]:
    """Bits a dimension by the probability-flow ODE, with standard errors over images.

    Twice: with uniform dequantisation, and ("noised") with the process's own noise at t_min. Runge-Kutta of order 4.
    Each image has one Hutchinson probe; the first 16 have `--probes` of them, and are measured again on coarser and finer
    grids ("convergence"). `probe_spread` is the deviation between two probes of one image.
    """
    denoiser.clip = None  # the density of the network itself
    generator, dims = torch.Generator().manual_seed(options.seed), images[0].numel()
    t_min = torch.tensor(denoiser.schedule.t_min, dtype=torch.float64)

    def bits(points: Tensor, nats: Tensor | float, labels: Tensor | None, steps: int, probes: Tensor) -> Tensor:
        ts = likelihood_grid(denoiser.schedule, steps)
        found = ode_log_likelihoods(denoiser, points, ts, y=labels, method="rk4", probes=probes)
        return bits_per_dim(-(found + nats), dims, width=1.0).cpu()

    uniform, noised = [], []
    for start in tqdm(range(0, len(images), 50), unit="batch"):
        some, labels = images[start : start + 50], None if y is None else y[start : start + 50]
        points, nats = dequantise(some, generator), dims * math.log(BIN)
        probe = draw_probes(points, 1, generator=generator)
        uniform.append(bits(points, nats, labels, options.steps_ode, probe)[0])
        points, nats = noise_dequantise(denoiser.schedule, some, t_min, generator)
        noised.append(bits(points, nats, labels, options.steps_ode, probe)[0])

    few, labels = images[:16], None if y is None else y[:16]
    points, nats = dequantise(few, generator), dims * math.log(BIN)
    probes = draw_probes(points, options.probes, generator=generator)
    finer = {n: bits(points, nats, labels, n, probes) for n in (4, 8, 16, 32)}
    return {
        "bits_per_dim": mean_and_error(torch.cat(uniform).double()),
        "noised": mean_and_error(torch.cat(noised).double()),
        "convergence": [
            {"steps": n, "evaluations": 4 * n, "bits_per_dim": float(found.mean())} for n, found in finer.items()
        ],
        "convergence_images": len(few),
        "probe_spread": float(finer[32].double().var(0).mean().sqrt()) if options.probes > 1 else None,
        "method": "rk4",
        "steps": options.steps_ode,
        "evaluations": 4 * options.steps_ode,
        "probes": options.probes,
        "t_min": float(t_min),
        "t_max": denoiser.schedule.t_max,
    }


ROUTES = {"elbo": elbo_route, "ode": ode_route}


def likelihood(options: argparse.Namespace) -> None:
    """Measure bits a dimension and add the figures to the checkpoint's manifest, replacing those of the same settings."""
    check_images(options)
    device = find_device(options.device)
    denoiser = checkpoints.load(options.checkpoint, device)
    test = data.load(denoiser.manifest["dataset"]["name"], "test")
    images, labels = test.images[: options.images].to(device), test.labels[: options.images].to(device)
    started = perf_counter()
    found = ROUTES[options.route](denoiser, images, labels if options.conditional else None, options)
    settings = {
        "route": options.route,
        "images": len(images),
        "conditional": options.conditional,
        "seed": options.seed,
    }
    measured = settings | found | {"seconds": perf_counter() - started}
    manifest = checkpoints.read_manifest(options.checkpoint)
    others = [m for m in manifest.get("likelihood", []) if any(m.get(k) != v for k, v in settings.items())]
    checkpoints.write_json(options.checkpoint / "manifest.json", manifest | {"likelihood": [*others, measured]})
    print("\n".join(f"{key:16} {value}" for key, value in measured.items()))


@torch.no_grad()
def measure_variances(
    head: VarianceHead, denoiser: Denoiser, images: Tensor, steps: int, draws: int, g: torch.Generator
) -> dict[str, Any]:
    """The chain's diffusion term in bits a dimension with small, large and learned variance, on the same noise.

    The chain has `steps` times even in the log-SNR. Each value is [mean, standard error over images];
    "saved" is small less learned.
    """
    schedule, ts = denoiser.schedule, time_grid(denoiser.schedule, steps, "log_snr")[:-1].float()
    few, sums = min(draws, steps - 1), []
    for x0 in data.to_float(images).to(next(head.parameters()).device).split(100):
        cells = (torch.rand(len(x0), 1, generator=g) + torch.arange(few)) / few
        totals = torch.zeros(len(x0), 3, dtype=torch.float64)
        for k in (cells * (steps - 1)).long().clamp(max=steps - 2).T:
            t, s = ts[k].to(x0.device), ts[k + 1].to(x0.device)
            prediction = denoiser(q_sample(schedule, x0, t, normal_like(x0, g)), t)
            v = head(prediction.x_t, prediction.x0, schedule.log_snr(t), schedule.log_snr(s))
            for column, each in enumerate((torch.zeros_like(v), torch.ones_like(v), v)):
                nats = step_kl(prediction, x0, s, interpolated_log_variance(schedule, each, t, s))
                totals[:, column] += nats.double().flatten(1).sum(1).cpu() * (steps - 1) / few
        sums.append(bits_per_dim(totals, images[0].numel(), 1))
    bits = torch.cat(sums)
    found = {name: mean_and_error(bits[:, column]) for column, name in enumerate(("small", "large", "learned"))}
    return {
        "steps": steps,
        "images": len(images),
        "draws": few,
        **found,
        "saved": mean_and_error(bits[:, 0] - bits[:, 2]),
    }


def train_variance(options: argparse.Namespace) -> None:
    """Train the head on a fixed denoiser; write it with what it saves on the test split at several numbers of steps."""
    check_images(options)
    device = find_device(options.device)
    denoiser = checkpoints.load(options.checkpoint, device)
    name, base = denoiser.manifest["dataset"]["name"], denoiser.manifest["sha256"]
    train_set, test_set = data.load(name, "train"), data.load(name, "test")
    torch.manual_seed(options.seed)
    arguments = {"in_channels": train_set.images.shape[1]}
    head, started, losses = VarianceHead(**arguments).to(device), perf_counter(), []
    rounds = training.fit_variance(head, denoiser, train_set.images, options.steps, options.batch, seed=options.seed)
    for _, loss in tqdm(rounds, total=options.steps, unit="step"):
        losses.append(loss)
    seconds, g = perf_counter() - started, torch.Generator().manual_seed(options.seed)
    head.eval()
    metrics = [
        measure_variances(head, denoiser, test_set.images[: options.images], steps, options.draws, g)
        for steps in training.VARIANCE_STEPS
    ]
    checkpoints.save(
        options.out,
        head,
        {"class": "VarianceHead", "arguments": arguments},
        denoiser=base,
        dataset={"name": name, "split": "train", "images": len(train_set), "sha256": train_set.sha256},
        training={
            "steps": options.steps,
            "batch": options.batch,
            "seed": options.seed,
            "threads": torch.get_num_threads(),
        },
        wall_seconds=seconds,
        final_loss=sum(losses[-100:]) / len(losses[-100:]),
        metrics=metrics,
    )
    print((options.out / "manifest.json").read_text())


def check_writable(folder: Path) -> None:
    """Raise ValueError when no file can be written there: better before the work than after it."""
    checkpoints.write_atomically(folder / ".writable", b"")
    (folder / ".writable").unlink()


def follow(epochs: int, losses: Iterator[tuple[int, float]], out: Path) -> float:
    """Go through a training of some epochs, each a printed line and one of log.csv; the seconds it took."""
    check_writable(out)
    lines, started, seconds = ["epoch,loss,seconds"], perf_counter(), 0.0
    for epoch, loss in losses:
        seconds = perf_counter() - started
        lines.append(f"{epoch},{loss:.6g},{seconds:.1f}")
        checkpoints.write_atomically(out / "log.csv", "\n".join([*lines, ""]).encode())
        print(f"epoch {epoch} of {epochs}: loss {loss:.4f}, {seconds:.0f} s", flush=True)
    return seconds


def train_classifier(options: argparse.Namespace) -> None:
    """Train a data set's judge and write it with its measured test accuracy."""
    judge, device = judges.find_judge(options.dataset), find_device(options.device)
    train_set, test_set = data.load(options.dataset, "train"), data.load(options.dataset, "test")
    images, labels = (part[: options.images].to(device) for part in (train_set.images, train_set.labels))
    torch.manual_seed(options.seed)
    net = judge.network().to(device)
    recipe = {"epochs": options.epochs or judge.epochs, "batch": options.batch or judge.batch, "seed": options.seed}
    seconds = follow(recipe["epochs"], judge.fit(net, images, labels, **recipe), options.out)
    stored = net.eval().half() if judge.halved else net.eval()
    _, seen = metrics.judge(deepcopy(stored).float(), data.to_float(test_set.images))
    checkpoints.save(
        options.out,
        stored,
        {"class": judge.network.__name__, "arguments": {}},
        dataset={"name": train_set.name, "split": "train", "images": len(images), "sha256": train_set.sha256},
        training=recipe | {"threads": torch.get_num_threads(), "device": str(device)},
        machine=machine.describe(device),
        wall_seconds=seconds,
        test_accuracy=float((seen == test_set.labels).double().mean()),
        test_images=len(test_set),
    )
    print((options.out / "manifest.json").read_text())


@torch.no_grad()
def accuracy_by_noise(net: NoisyClassifier, schedule: Schedule, test: data.Dataset) -> list[dict[str, float]]:
    """Accuracy and mean log p(y | x_t) on the test split at eleven noise levels, each with its standard error."""
    net.eval()
    g, x0, rows = torch.Generator().manual_seed(0), data.to_float(test.images), []
    for t in torch.linspace(0, schedule.t_max, 11).clamp(min=schedule.t_min):
        x_t = q_sample(schedule, x0, t, torch.randn(x0.shape, generator=g))
        logits = torch.cat([net(part, t) for part in x_t.split(500)])
        log_p = logits.log_softmax(1).gather(1, test.labels[:, None])[:, 0]
        mean, error = mean_and_error(log_p.double())
        row = {"t": round(float(t), 4), "log_snr": round(float(schedule.log_snr(t)), 3)}
        row |= metrics.accuracy(logits.argmax(1), test.labels)
        rows.append(row | {"log_p": mean, "log_p_error": error})
    return rows


def train_noisy_classifier(options: argparse.Namespace) -> None:
    """Train the classifier of noisy digits and write it with its test accuracy at each noise level."""
    train_set, test_set = data.load("mnist", "train"), data.load("mnist", "test")
    images, labels, schedule = (
        train_set.images[: options.images],
        train_set.labels[: options.images],
        make_schedule(options.schedule),
    )
    torch.manual_seed(options.seed)
    net = NoisyClassifier()
    recipe = {name: getattr(options, name) for name in ("epochs", "batch", "seed")}
    rounds = training.fit_noisy_classifier(net, schedule, images, labels, **recipe)
    seconds = follow(options.epochs, rounds, options.out)
    checkpoints.save(
        options.out,
        net,
        {"class": "NoisyClassifier", "arguments": {}},
        noise=checkpoints.describe_schedule(schedule),
        dataset={"name": "mnist", "split": "train", "images": len(images), "sha256": train_set.sha256},
        training=recipe | {"threads": torch.get_num_threads()},
        wall_seconds=seconds,
        test_images=len(test_set),
        levels=accuracy_by_noise(net, schedule, test_set),
    )
    print((options.out / "manifest.json").read_text())


def train_vae(options: argparse.Namespace) -> None:
    """Train a VAE on MNIST and write it with its log and its bits a dimension on the test split, term by term."""
    device = find_device(options.device)
    train_set, test_set = data.load("mnist", "train"), data.load("mnist", "test")
    images = train_set.images[: options.images].to(device)
    torch.manual_seed(options.seed)  # the weights' first values
    network = {"latent": options.latent, "width": options.width}
    net = VAE(**network).to(device)
    recipe = {name: getattr(options, name) for name in ("epochs", "batch", "rate", "seed")}
    seconds = follow(options.epochs, training.fit_vae(net, images, **recipe), options.out)
    generator = torch.Generator().manual_seed(options.seed)
    measured = measure_elbo(net.eval(), test_set.images.to(device), generator)
    checkpoints.save(
        options.out,
        net,
        {"class": "VAE", "arguments": network},
        dataset={"name": "mnist", "split": "train", "images": len(images), "sha256": train_set.sha256},
        training=recipe | {"threads": torch.get_num_threads(), "device": str(device)},
        wall_seconds=seconds,
        test=measured,
    )
    print("\n".join(f"{key:24} {value}" for key, value in measured.items()))


def export(options: argparse.Namespace) -> None:
    """Write a checkpoint's network as an ONNX file."""
    size = checkpoints.export_onnx(options.checkpoint, options.out)
    print(f"wrote {options.out}, {size / 1e6:.1f} MB")


def check_images(options: argparse.Namespace) -> None:
    """Raise ValueError for fewer images than a standard error needs."""
    if options.images < 2:
        raise ValueError(f"--images must be at least 2, for a standard error, got {options.images}")


def check_samples(options: argparse.Namespace) -> None:
    """Raise ValueError for fewer samples than can be judged; `train` may be told to judge none."""
    may_be_none = options.command == "train"
    if options.samples < 10 and not (may_be_none and options.samples == 0):
        allowed = "at least 10, or 0 for none" if may_be_none else "at least 10"
        raise ValueError(f"--samples must be {allowed}, got {options.samples}")


def check_positive(options: argparse.Namespace) -> None:
    """Raise ValueError for a count or a duration that is not above 0."""
    counts = (
        "steps",
        "minutes",
        "images",
        "batch",
        "blocks",
        "patch",
        "rate",
        "rows",
        "samples",
        "epochs",
        "threads",
        "draws",
        "latent",
        "width",
    )
    for name in (*counts, "steps_ode", "probes", "evaluations", "keep"):
        if (options.command, name) == ("train", "samples"):
            continue  # 0 says that none are judged
        value = getattr(options, name, None)
        for each in value if isinstance(value, list) else [value]:
            if each is not None and not each > 0:
                raise ValueError(f"--{name.replace('_', '-')} must be above 0, got {each}")


COMMANDS = {
    "train": train,
    "sample": sample,
    "evaluate": evaluate,
    "likelihood": likelihood,
    "export": export,
    "train-variance": train_variance,
    "train-classifier": train_classifier,
    "train-noisy-classifier": train_noisy_classifier,
    "train-vae": train_vae,
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; a mistake of the user is one line on standard error and exit status 2."""
    options = parser().parse_args(arguments)
    try:
        check_positive(options)
        if getattr(options, "threads", None):
            torch.set_num_threads(options.threads)
        COMMANDS[options.command](options)
    except (ValueError, OSError) as error:
        print(f"diffusion_edu {options.command}: {error}", file=sys.stderr)
        return 2
    except (FloatingPointError, MemoryError, torch.OutOfMemoryError) as error:
        print(f"diffusion_edu {options.command}: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
