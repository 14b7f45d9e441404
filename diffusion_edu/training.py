"""Training: one loop, written so that a run can be stopped at any moment and continued as if nothing had happened.

Everything random in step k is a function of (seed, k): the batch, the times, the noise, the dropped labels, the flips. So
the state of a run is its weights, their average, the optimizers' moments and the number k, all in one file.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from math import cos, isfinite, pi
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_bytes
from torch import Tensor, nn
from tqdm import tqdm

from diffusion_edu import parallel
from diffusion_edu.checkpoints import write_atomically
from diffusion_edu.data import to_float
from diffusion_edu.denoisers import Denoiser, check_labels
from diffusion_edu.losses import WEIGHTS, denoising_loss, drop_labels, loss_weight, spread_times, variance_loss
from diffusion_edu.networks import VarianceHead
from diffusion_edu.optimizers import OPTIMIZERS, make_optimizers
from diffusion_edu.process import q_sample
from diffusion_edu.schedules import Schedule, time_grid

CHOICES = {
    "weight": WEIGHTS,
    "optimizer": OPTIMIZERS,
    "precision": ("float32", "bfloat16"),
    "compile": ("off", "default", "reduce-overhead", "max-autotune"),
}
GRAPHS = ("reduce-overhead", "max-autotune")  # modes of compile that record a GPU's kernels and replay them


def find_precision(name: str, device: torch.device) -> str:
    """The number format asked for; for "auto" bfloat16 where the device has instructions for it, else float32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    has_it = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)  # torch has no public name for it; bool() is False
    return "bfloat16" if device.type == "cpu" and has_it() else "float32"


@dataclass(frozen=True)
class TrainConfig:
    """What a run does. steps: optimizer steps in all; batch: images a step; rate: the optimizer's peak learning rate.

    The rate rises over the first `warmup` share of the steps and falls to 0 along half a cosine. ema: width of the weight
    average as a share of the run so far, see `update_average`; 0 averages nothing. weight, optimizer: names in `losses` and
    `optimizers`. p_null: share of labels replaced by the null class; flips: mirror every second image; seed: of everything
    random. precision: "float32", or "bfloat16" for products and convolutions; compile: "off" or a mode of torch.compile;
    channels_last: memory layout of the network. save_every: steps between checkpoints; log_every: steps in a record.
    """

    steps: int = 4000
    batch: int = 64
    rate: float = 1e-3
    warmup: float = 0.05
    ema: float = 0.05
    weight: str = "simple"
    optimizer: str = "adamw"
    p_null: float = 0.1
    flips: bool = False
    seed: int = 0
    precision: str = "float32"
    compile: str = "off"
    channels_last: bool = False
    save_every: int = 200
    log_every: int = 20

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "save_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.save_every % self.log_every:
            raise ValueError(f"save_every must be a multiple of log_every = {self.log_every}, got {self.save_every}")
        if not 0 <= self.p_null <= 1 or not 0 <= self.warmup <= 1 or not 0 <= self.ema <= 0.25:
            raise ValueError(
                f"need p_null and warmup in [0, 1], ema in [0, 0.25], got {self.p_null}, {self.warmup}, {self.ema}"
            )
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")

    def rate_at(self, step: int) -> float:
        """Learning rate of step `step` = 0 ... steps - 1."""
        rise = min(1.0, (step + 1) / max(self.warmup * self.steps, 1))
        past = max(0.0, (step / self.steps - self.warmup) / max(1 - self.warmup, 1 / self.steps))
        return self.rate * min(rise, (1 + cos(pi * past)) / 2)

    @cached_property
    def ema_power(self) -> float:
        """The exponent gamma + 1 of the average of relative width `ema` (Karras et al. 2024, Sec. 3.1)."""
        inverse = self.ema**-2
        return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max()) + 1


SMALL = {
    "channels": (48, 96),
    "blocks": 1,
    "patch": 2,
    "batch": 64,
    "optimizer": "muon",
    "rate": 1e-2,
    "flips": False,
    "save_every": 200,
    "half": False,
}
RECIPES = {  # for ten minutes: MNIST's on two cores of a CPU, CIFAR-10's on one large GPU (measured there for four)
    "mnist": SMALL,
    "fashion-mnist": SMALL,
    "cifar10": {
        "channels": (128, 128, 160),
        "blocks": 2,
        "patch": 1,
        "batch": 512,
        "optimizer": "muon",
        "rate": 6e-3,
        "flips": True,
        "save_every": 2000,
        "half": True,
    },
}
SMALL_ON_GPU = {"batch": 512, "compile": "reduce-overhead", "save_every": 2000}  # else the host cannot keep up
ON_GPU = {"mnist": SMALL_ON_GPU, "fashion-mnist": SMALL_ON_GPU}  # what a GPU wants otherwise


def recipe(dataset: str, device: torch.device) -> dict[str, Any]:
    """Options of `train` -> their values for a data set on a device, where nothing else is asked for."""
    return RECIPES[dataset] | (ON_GPU.get(dataset, {}) if device.type == "cuda" else {})


@dataclass(frozen=True)
class Record:
    """One line of a run's log: steps done, mean loss since the last record, learning rate, seconds trained so far."""

    step: int
    loss: float
    rate: float
    seconds: float


class Run:
    """A training run in memory: the denoiser, its averaged twin `ema`, the optimizers, and how many steps are done.

    at_once: images that go through the network together; after an out-of-memory fewer than the batch. compile: the
    configuration's, or "off" after torch.compile failed.
    """

    def __init__(self, denoiser: Denoiser, config: TrainConfig) -> None:
        if config.batch < parallel.size():
            raise ValueError(f"a batch of {config.batch} cannot be shared by {parallel.size()} processes")
        if config.channels_last:
            denoiser.to(memory_format=torch.channels_last)
        self.denoiser, self.config = denoiser, config
        self.ema = deepcopy(denoiser).eval().requires_grad_(False)
        self.optimizers = make_optimizers(denoiser, config.optimizer, config.rate)
        self.log: list[Record] = []
        self.step = 0
        self.seconds = 0.0
        self.at_once = -(-config.batch // parallel.size())
        self.compile, self.compiled, self.compiled_steps = config.compile, None, 0
        # what a continued run must share with the saved one, besides its configuration; `fit` adds the data
        schedule = f"{type(denoiser.schedule).__name__}({vars(denoiser.schedule)})"
        self.task = {"schedule": schedule, "target": denoiser.target}

    def loss_function(self) -> Callable[..., Tensor]:
        """`denoising_loss`, compiled where asked for: at the first call, when any state was loaded."""
        if self.compile == "off":
            return denoising_loss
        if self.compiled is None:
            self.compiled = torch.compile(denoising_loss, mode=None if self.compile == "default" else self.compile)
        return self.compiled

    def state(self) -> dict[str, Tensor]:
        """All tensors of the run under flat names."""
        tensors = {f"net.{k}": v for k, v in self.denoiser.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.state_dict().items()}
        names = {parameter: name for name, parameter in self.denoiser.named_parameters()}
        for optimizer in self.optimizers:
            for parameter, moments in optimizer.state.items():
                tensors |= {f"optimizer.{key}.{names[parameter]}": value for key, value in moments.items()}
        return tensors

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `state` gave. Raises RuntimeError when it belongs to another architecture."""
        self.denoiser.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
        self.ema.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("ema.")})
        parameters = dict(self.denoiser.named_parameters())
        for optimizer in self.optimizers:
            optimizer.state.clear()
        home = {p: o for o in self.optimizers for group in o.param_groups for p in group["params"]}
        for full_name in (k for k in tensors if k.startswith("optimizer.")):
            _, key, name = full_name.split(".", 2)
            p, value = parameters[name], tensors[full_name]
            # a moment lies in memory as its parameter does: fused optimizers rely on it
            moment = torch.empty_like(p).copy_(value) if value.shape == p.shape else value.to(p.device)
            home[p].state[p][key] = moment

    def save(self, path: Path) -> None:
        """Write the whole state to one safetensors file, atomically."""
        note = {
            "step": self.step,
            "seconds": self.seconds,
            "at_once": self.at_once,
            "config": asdict(self.config),
            "task": self.task,
            "log": [list(asdict(r).values()) for r in self.log],
        }
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in self.state().items()}
        write_atomically(path, save_bytes(tensors, {"run": json.dumps(note)}))

    def restore(self, path: Path) -> None:
        """Continue from a file written by `save`.

        Raises ValueError when the file is damaged, or when it was made with another configuration, schedule, target
        or data set, or by a version of this package whose runs cannot be continued exactly.
        """
        try:
            with safe_open(path, "pt") as file:
                note = json.loads(file.metadata()["run"])
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is damaged or no training state: {error}") from None
        self.check_config(note, path)
        try:
            self.load(tensors)
        except RuntimeError:
            raise ValueError(
                f"{path} belongs to another architecture than {type(self.denoiser.net).__name__}"
            ) from None
        self.step, self.seconds = note["step"], note["seconds"]
        self.at_once = min(self.at_once, note["at_once"])
        self.log = [Record(*values) for values in note["log"]]

    def check_config(self, note: dict[str, Any], path: Path) -> None:
        """Raise ValueError when a saved run was made in another way than this one's configuration says."""
        ours, theirs = asdict(self.config) | self.task, note["config"] | note.get("task", {})
        if asdict(self.config).keys() != note["config"].keys():
            raise ValueError(f"{path} was written by another version of diffusion_edu, which alone can continue it")
        differing = [key for key in ours if ours[key] != theirs.get(key, ours[key]) and key != "save_every"]
        if differing:
            key = differing[0]
            was, asked = str(theirs[key])[:80], str(ours[key])[:80]
            raise ValueError(f"{path} was trained with {key} = {was}, asked for {asked}")


def fingerprint(images: Tensor, labels: Tensor) -> str:
    """SHA-256 of what a run is trained on."""
    digest = hashlib.sha256(images.cpu().contiguous().numpy())
    digest.update(labels.cpu().contiguous().numpy())
    return digest.hexdigest()


def saved_steps(path: Path) -> int:
    """The number of steps that the run saved at `path` was started for."""
    try:
        with safe_open(path, "pt") as file:
            return json.loads(file.metadata()["run"])["config"]["steps"]
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged or no training state: {error}") from None


@lru_cache(maxsize=2)
def epoch_order(images: int, seed: int, epoch: int, device: torch.device) -> Tensor:
    """The order in which an epoch sees the images, int64 (images,): shuffled once an epoch, not once a step."""
    order = torch.randperm(images, generator=torch.Generator().manual_seed(1_000_003 * seed + epoch))
    if device.type == "cuda":
        return order.pin_memory().to(device, non_blocking=True)  # from pageable memory the host would wait for it
    return order.to(device)


def draw_batch(images: Tensor, labels: Tensor, config: TrainConfig, step: int) -> tuple[Tensor, Tensor]:
    """The images (float32 in [-1, 1]) and labels of one step: a slice of the epoch's own permutation."""
    per_epoch = len(images) // config.batch
    if per_epoch < 1:
        raise ValueError(f"a batch of {config.batch} needs at least as many images, got {len(images)}")
    epoch, place = divmod(step, per_epoch)
    order = epoch_order(len(images), config.seed, epoch, images.device)
    index = order[place * config.batch : (place + 1) * config.batch]
    return to_float(images[index]), labels[index]


def draw_step(run: Run, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """Everything random in the run's next step, x0, t, eps and y: this process's share of it.

    All processes draw the whole batch, each on its device, and take every size-th image: so the times stay spread.
    """
    config, denoiser = run.config, run.denoiser
    g = torch.Generator(images.device).manual_seed(2_000_003 * config.seed + 7 * run.step + 1)
    x0, y = draw_batch(images, labels, config, run.step)
    t = spread_times(denoiser.schedule, len(x0), g)
    eps = torch.randn(x0.shape, generator=g, device=x0.device)
    y = drop_labels(y, denoiser.net.num_classes, config.p_null, g)
    if config.flips:
        mirrored = torch.rand(len(x0), generator=g, device=x0.device) < 0.5
        x0 = torch.where(mirrored[:, None, None, None], x0.flip(3), x0)
    x0, t, eps, y = (part[parallel.rank() :: parallel.size()] for part in (x0, t, eps, y))
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    return x0.contiguous(memory_format=layout), t, eps.contiguous(memory_format=layout), y


def train_step(run: Run, images: Tensor, labels: Tensor) -> Tensor:
    """Loss, gradient, optimizers, weight average; returns the mean loss, detached (of N processes: this one's part of it).

    Nothing in it makes the host wait for a GPU.
    """
    loss = gradients(run, draw_step(run, images, labels))
    weights = list(run.denoiser.parameters())
    parallel.sum_gradients(weights)
    nn.utils.clip_grad_norm_(weights, 1.0)
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = run.config.rate_at(run.step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    update_average(run)
    run.step += 1
    return loss


def gradients(run: Run, parts: tuple[Tensor, ...]) -> Tensor:
    """Put the gradient of the batch's mean loss into the weights' .grad; return the loss.

    Where memory runs out it starts again with half as many images at once, and where torch.compile fails without it.
    Raises MemoryError when not even one image fits.
    """
    while True:
        mode = run.compile
        try:
            loss = accumulate(run, parts)
            return loss if run.compile == "off" or run.compiled_steps > 3 else checked(run, parts, loss)
        except Exception as error:
            run.denoiser.zero_grad(set_to_none=True)
            if not make_room(run, error) and not do_without_compile(run, error):
                raise
        if mode in GRAPHS:
            run.compiled = None
            torch.compiler.reset()  # else the graph keeps the memory that was taken for it
        if parts[0].is_cuda:
            torch.cuda.empty_cache()  # here the error, and what it held, is gone


def accumulate(run: Run, parts: tuple[Tensor, ...]) -> Tensor:
    """The same by `at_once` images at a time, whose gradients add up."""
    config, denoiser = run.config, run.denoiser
    device, summed = parts[0].device, 0.0
    in_parts = run.at_once < len(parts[0])
    if in_parts and run.compile in GRAPHS:  # replaying for the next part would overwrite the gradient
        run.compile, run.compiled, run.compiled_steps = "default", None, 0
    if run.compile != "off":
        torch.compiler.cudagraph_mark_step_begin()  # whatever the last step's graph gave may be written over
    for x0, t, eps, y in zip(*(part.split(run.at_once) for part in parts), strict=True):
        weight = loss_weight(denoiser.schedule, t, denoiser.target, config.weight)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            losses = run.loss_function()(denoiser, x0, t, eps, y)
        loss = (losses * weight).sum() / config.batch
        loss.backward()
        summed = summed + loss.detach()
    run.compiled_steps += 1
    return summed


def checked(run: Run, parts: tuple[Tensor, ...], loss: Tensor) -> Tensor:
    """After one of the first steps of a compiled network: go on without torch.compile if eager mode's gradient is another.

    Returns the loss of what is in the weights' .grad then. (A fresh network's first gradient is 0 in most weights, so three
    steps are looked at. It does happen: on CPUs that have bfloat16, torch 2.13 loses what `F.interpolate` passes back.)
    """
    weights = list(run.denoiser.parameters())
    compiled = [None if p.grad is None else p.grad.clone() for p in weights]
    kept = run.compile, run.at_once, run.compiled_steps
    run.denoiser.zero_grad(set_to_none=True)
    try:
        run.compile, run.at_once = "off", min(run.at_once, 64)  # eager mode needs more memory
        eager_loss = accumulate(run, parts)
    finally:
        run.compile, run.at_once, run.compiled_steps = kept
    wrong = share_wrong(compiled, [p.grad for p in weights], weights)
    if wrong < 0.01:  # a bias whose gradient cancels to rounding errors may differ; they are few
        for p, gradient in zip(weights, compiled, strict=True):
            p.grad = gradient
        return loss
    run.compile = "off"
    say(f"torch.compile gives {wrong:.0%} of the weights a wrong gradient: training goes on without it")
    return eager_loss


def share_wrong(found: list[Tensor | None], right: list[Tensor | None], weights: list[Tensor]) -> float:
    """Share of the weights, in [0, 1], in tensors whose gradient is off by more than a tenth of its own length.

    Each tensor by itself: early in a run nearly all of the whole gradient lies in the last layer. None counts as 0.
    """
    found, right = (
        [torch.zeros_like(p) if g is None else g for g, p in zip(gs, weights, strict=True)] for gs in (found, right)
    )
    gaps, sizes = torch._foreach_norm(torch._foreach_sub(found, right)), torch._foreach_norm(right)
    is_wrong = (~(torch.stack(gaps) <= 0.1 * torch.stack(sizes))).tolist()  # NaN is wrong, too
    counts = [p.numel() for p in weights]
    return sum(n for n, bad in zip(counts, is_wrong, strict=True) if bad) / sum(counts)


def make_room(run: Run, error: Exception) -> bool:
    """After an out-of-memory: halve the images at once, and say so. False for any other error."""
    said = str(error)
    if not isinstance(error, torch.OutOfMemoryError) and "out of memory" not in said and "allocate memory" not in said:
        return False
    if run.at_once == 1:
        raise MemoryError("out of memory with one image at once: a smaller network would fit") from None
    run.at_once = -(-run.at_once // 2)
    say(f"out of memory: a batch now goes through the network {run.at_once} images at a time, with the same gradient")
    return True


def do_without_compile(run: Run, error: Exception) -> bool:
    """After a failed first step of a compiled network: go on without, and say so. False for any other error.

    The third counts as first: a graph is recorded in the second or third.
    """
    if run.compile == "off" or run.compiled_steps >= 3:
        return False
    run.compile = "off"
    reason = " ".join(str(error).split())[:150]
    say(f"torch.compile failed, training goes on without it: {type(error).__name__}: {reason}")
    return True


def say(line: str) -> None:
    """Print one line to standard error, above a progress bar if there is one."""
    tqdm.write(line, file=sys.stderr)


@torch.no_grad()
def update_average(run: Run) -> None:
    """ema <- d ema + (1 - d) weights after step k = 1, 2, ..., with d = (1 - 1 / k)^(gamma + 1).

    So it spans the same share of the run at any moment and forgets the first weights (Karras et al. 2024, Sec. 3.1).
    """
    d = (1 - 1 / (run.step + 1)) ** run.config.ema_power if run.config.ema else 0.0
    averages, weights = list(run.ema.parameters()), list(run.denoiser.parameters())
    torch._foreach_lerp_(averages, weights, 1 - d)


def seconds_a_step(run: Run, images: Tensor, labels: Tensor) -> float:
    """Median duration of a training step, after the first three, which compile and warm up; a fresh run stays as it was."""
    kept, times = {k: v.clone() for k, v in run.state().items()}, []
    length = run.config.log_every if images.is_cuda else 1  # on a GPU single steps are too short to be timed
    for block in range(13):
        started = perf_counter()
        losses = [train_step(run, images, labels) for _ in range(length if block >= 3 else 1)]
        mean_loss(run, losses)  # waits for the device, as every record does
        times.append((perf_counter() - started) / length)
    run.load(kept)
    run.step = 0
    return median(times[3:])


@torch.no_grad()
def mean_loss(run: Run, losses: list[Tensor]) -> float:
    """The mean over steps, and the sum over processes, of their losses; NaN where a weight is not finite."""
    good = torch.stack(torch._foreach_norm(list(run.denoiser.parameters()))).isfinite().all()
    mean = parallel.total(torch.stack(losses).mean())
    return float(torch.where(good, mean, torch.nan))


def fit(run: Run, images: Tensor, labels: Tensor, state: Path | None = None) -> Iterator[Record]:
    """Train `run` to its last step; yield a Record every `log_every` steps, after the optimizers and the average.

    images: (M, C, H, W) uint8 and labels: (M,) int64, on the network's device. state: file from which the run
    continues if it exists, and to which it is saved every `save_every` steps and at the end.
    Raises ValueError unless each image has a label (as `check_labels` sees it; none is "no class") and when the state cannot
    be written, FloatingPointError when loss or weights are not finite; the last saved state is then still good.
    """
    config = run.config
    check_labels(labels, images, getattr(run.denoiser.net, "num_classes", 0) or None, null=False)
    run.task["data"] = fingerprint(images, labels)
    if state is not None and state.exists():
        run.restore(state)
    differs = parallel.first_says(run.step, images.device) != run.step
    if parallel.total(torch.tensor(int(differs), device=images.device)):  # the first process hears of it too
        raise ValueError(f"the processes do not see the same state at {state}: they need one folder that all can read")
    run.denoiser.train()
    started, before, losses = perf_counter(), run.seconds, []
    while run.step < config.steps:
        losses.append(train_step(run, images, labels))
        last = run.step == config.steps
        if run.step % config.log_every and not last:
            continue
        mean, losses = mean_loss(run, losses), []
        run.seconds = before + perf_counter() - started  # a GPU is done only now
        if not isfinite(mean):
            raise FloatingPointError(f"loss or weights not finite at step {run.step}{last_good(state)}")
        run.log.append(Record(run.step, mean, config.rate_at(run.step - 1), run.seconds))
        if state is not None and parallel.rank() == 0 and (last or run.step % config.save_every == 0):
            save_or_explain(run, state)
        paused = perf_counter()
        yield run.log[-1]
        started += perf_counter() - paused  # what the caller does with a record is not training


def save_or_explain(run: Run, state: Path) -> None:
    """Save the run; ValueError says which state is still good when that fails, as on a full disk."""
    try:
        run.save(state)
    except ValueError as error:
        raise ValueError(f"{error}{last_good(state)}") from error


def last_good(state: Path | None) -> str:
    """Half a sentence on the saved state that an error leaves behind."""
    return f"; the last good state is {state}" if state is not None and state.exists() else ""


def jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (N, C, H, W) turned by up to 12 degrees, scaled by up to 10 % and shifted by up to 2 pixels of 28."""
    n = len(images)
    u = torch.rand(4, n, generator=generator) * 2 - 1
    angle, scale = u[0] * 0.21, 1 + 0.1 * u[1]
    rows = [scale * angle.cos(), -scale * angle.sin(), u[2] / 7, scale * angle.sin(), scale * angle.cos(), u[3] / 7]
    grid = nn.functional.affine_grid(torch.stack(rows, 1).reshape(n, 2, 3), list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images + 1, grid.to(images.device), align_corners=False) - 1  # pads with -1


def one_cycle(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[Tensor], Tensor],
    images: int,
    epochs: int,
    batch: int,
    generator: torch.Generator,
    clip_norm: float = float("inf"),
) -> Iterator[tuple[int, float]]:
    """The loop of the smaller networks: shuffled batches, the optimizer's rate as the peak of one cycle.

    loss_of: indices (batch,) of the images -> their mean loss, (). Yields (epoch, mean loss) after each epoch. Raises
    ValueError when there are fewer images than a batch, FloatingPointError when the loss is not finite.
    """
    per_epoch = images // batch
    if per_epoch < 1:
        raise ValueError(f"a batch of {batch} needs at least as many images, got {images}")
    rate = optimizer.param_groups[0]["lr"]
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * per_epoch)
    net.train()
    for epoch in range(1, epochs + 1):
        total = 0.0
        for index in torch.randperm(images, generator=generator)[: per_epoch * batch].split(batch):
            loss = loss_of(index)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), clip_norm)
            optimizer.step()
            cycle.step()
            total += float(loss.detach())
        if not isfinite(total):
            raise FloatingPointError(f"loss {total / per_epoch} in epoch {epoch}")
        yield epoch, total / per_epoch


def fit_classifier(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    epochs: int = 10,
    batch: int = 128,
    rate: float = 3e-3,
    seed: int = 0,
) -> Iterator[tuple[int, float]]:
    """Train a classifier on uint8 images with jitter; yield as `one_cycle` does."""
    check_labels(labels, images, getattr(net, "num_classes", None), null=False)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=0.02)

    def loss_of(index: Tensor) -> Tensor:
        logits = net(jitter(to_float(images[index]), generator))
        return nn.functional.cross_entropy(logits, labels[index], label_smoothing=0.05)

    return one_cycle(net, optimizer, loss_of, len(images), epochs, batch, generator)


def fit_noisy_classifier(
    net: nn.Module,
    schedule: Schedule,
    images: Tensor,
    labels: Tensor,
    epochs: int = 6,
    batch: int = 128,
    rate: float = 2e-3,
    seed: int = 0,
) -> Iterator[tuple[int, float]]:
    """Train (x_t, t) -> logits on uint8 images noised to all levels of `schedule`; yield as `one_cycle` does.

    The loss, the plain cross entropy, is least for the true p(y | x_t).
    """
    check_labels(labels, images, getattr(net, "num_classes", None), null=False)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=0.01)

    def loss_of(index: Tensor) -> Tensor:
        x0, t = to_float(images[index]), spread_times(schedule, batch, generator)
        x_t = q_sample(schedule, x0, t, torch.randn(x0.shape, generator=generator))
        return nn.functional.cross_entropy(net(x_t, t), labels[index])

    return one_cycle(net, optimizer, loss_of, len(images), epochs, batch, generator)


def fit_vae(
    net: nn.Module, images: Tensor, epochs: int = 20, batch: int = 128, rate: float = 2e-3, seed: int = 0
) -> Iterator[tuple[int, float]]:
    """Train a VAE on uint8 images by the ELBO, one draw of z an image; yield as `one_cycle` does, -ELBO in nats an image."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), rate)

    def loss_of(index: Tensor) -> Tensor:
        reconstruction, kl = net.elbo_terms(images[index.to(images.device)], generator)
        return (kl.sum(1) - reconstruction).mean()

    # gradients are sums over 784 pixels
    return one_cycle(net, optimizer, loss_of, len(images), epochs, batch, generator, clip_norm=1000.0)


VARIANCE_STEPS = (10, 25, 50, 100)  # lengths of the chains that the variance head is trained and measured on


def fit_variance(
    head: VarianceHead,
    denoiser: Denoiser,
    images: Tensor,
    steps: int,
    batch: int = 64,
    rate: float = 2e-3,
    seed: int = 0,
) -> Iterator[tuple[int, float]]:
    """Teach `head` the variance of a fixed denoiser's steps; yields (step, loss in nats a coordinate) after each.

    images: uint8 (N, C, H, W). Each batch takes steps from one chain of VARIANCE_STEPS, even in the log-SNR. Everything
    random in a step is a function of (seed, step). Raises FloatingPointError when the loss is not finite.
    """
    optimizer = torch.optim.Adam(head.parameters(), rate)
    device = next(denoiser.parameters()).device
    grids = [time_grid(denoiser.schedule, n, "log_snr")[:-1].float() for n in VARIANCE_STEPS]
    for step in range(steps):
        g = torch.Generator().manual_seed(seed * 1_000_003 + step)
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        x0 = to_float(images[torch.randint(len(images), (batch,), generator=g)]).to(device)
        ts = grids[step % len(grids)]
        k = torch.randint(len(ts) - 1, (batch,), generator=g)
        t, s = ts[k].to(device), ts[k + 1].to(device)
        x_t = q_sample(denoiser.schedule, x0, t, torch.randn(x0.shape, generator=g).to(device))
        with torch.no_grad():
            prediction = denoiser(x_t, t)
        v = head(x_t, prediction.x0, denoiser.schedule.log_snr(t), denoiser.schedule.log_snr(s))
        loss = variance_loss(prediction, x0, s, v).mean()
        if not isfinite(float(loss.detach())):
            raise FloatingPointError(f"loss {float(loss.detach())} at step {step + 1}")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        yield step + 1, loss.item()
