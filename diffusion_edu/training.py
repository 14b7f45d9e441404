"""Training: one loop, written so that a run can be stopped at any moment and continued as if nothing had happened.

Everything random in step k is a function of (seed, k): the batch, the times, the noise, the dropped labels. So the
state of a run is its weights, their average, Adam's moments and the number k, all in one file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from diffusion_edu.checkpoints import write_atomically
from diffusion_edu.data import to_float
from diffusion_edu.denoisers import Denoiser
from diffusion_edu.losses import denoising_loss, drop_labels, spread_times, variance_loss
from diffusion_edu.networks import VarianceHead
from diffusion_edu.process import q_sample
from diffusion_edu.schedules import Schedule, time_grid


@dataclass(frozen=True)
class TrainConfig:
    """What a run does. steps: optimizer steps in all; batch: images a step; rate: Adam's peak learning rate.

    The rate rises over `warmup` steps, stays, and falls linearly to 0 over the last `decay` share of the steps.
    ema: decay of the weight average; p_null: share of labels replaced by the null class; seed: of everything random.
    precision: "float32" or "bfloat16"; compile: whether torch.compile builds the step. save_every: steps between
    checkpoints; log_every: steps averaged in one record.
    """

    steps: int = 4000
    batch: int = 64
    rate: float = 1e-3
    warmup: int = 200
    decay: float = 0.3
    ema: float = 0.999
    p_null: float = 0.1
    seed: int = 0
    precision: str = "float32"
    compile: bool = False
    save_every: int = 200
    log_every: int = 20

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "save_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.save_every % self.log_every:
            raise ValueError(f"save_every must be a multiple of log_every = {self.log_every}, got {self.save_every}")
        if not 0 <= self.p_null <= 1 or not 0 <= self.ema < 1 or not 0 <= self.decay <= 1:
            raise ValueError(
                f"need p_null and decay in [0, 1], ema in [0, 1), got {self.p_null}, {self.decay}, {self.ema}"
            )
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f'precision must be "float32" or "bfloat16", got {self.precision!r}')

    def rate_at(self, step: int) -> float:
        """Learning rate of step `step` = 0 ... steps - 1."""
        rise = min(1.0, (step + 1) / max(self.warmup, 1))
        fall = min(1.0, (self.steps - step) / max(self.decay * self.steps, 1))
        return self.rate * min(rise, fall)


@dataclass(frozen=True)
class Record:
    """One line of a run's log: steps done, mean loss since the last record, learning rate, seconds trained so far."""

    step: int
    loss: float
    rate: float
    seconds: float


class Run:
    """A training run in memory: the denoiser, its averaged twin `ema`, the optimizer, and how many steps are done."""

    def __init__(self, denoiser: Denoiser, config: TrainConfig) -> None:
        self.denoiser, self.config = denoiser, config
        self.ema = deepcopy(denoiser).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(denoiser.parameters(), config.rate, betas=(0.9, 0.99), weight_decay=0.0)
        self.log: list[Record] = []
        self.step = 0
        self.seconds = 0.0
        # what a continued run must share with the saved one, besides its configuration; `fit` adds the data
        schedule = f"{type(denoiser.schedule).__name__}({vars(denoiser.schedule)})"
        self.task = {"schedule": schedule, "target": denoiser.target}

    def state(self) -> dict[str, Tensor]:
        """All tensors of the run under flat names."""
        tensors = {f"net.{k}": v for k, v in self.denoiser.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.state_dict().items()}
        for name, parameter in self.denoiser.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"adam.{key}.{name}"] = value
        return tensors

    def save(self, path: Path) -> None:
        """Write the whole state to one safetensors file, atomically."""
        log = [list(asdict(r).values()) for r in self.log]
        note = {
            "step": self.step,
            "seconds": self.seconds,
            "config": asdict(self.config),
            "task": self.task,
            "log": log,
        }
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in self.state().items()}
        write_atomically(path, save_bytes(tensors, {"run": json.dumps(note)}))

    def restore(self, path: Path) -> None:
        """Continue from a file written by `save`.

        Raises ValueError when the file is damaged, or when it was made with another configuration, schedule, target
        or data set; the number of steps alone may differ, as long as the learning rate was the same up to the step reached.
        """
        try:
            with safe_open(path, "pt") as file:
                note = json.loads(file.metadata()["run"])
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is damaged or no training state: {error}") from None
        self.check_config(note, path)
        self.step, self.seconds = note["step"], note["seconds"]
        self.log = [Record(*values) for values in note["log"]]
        try:
            self.denoiser.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
        except RuntimeError:
            raise ValueError(
                f"{path} belongs to another architecture than {type(self.denoiser.net).__name__}"
            ) from None
        self.ema.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("ema.")})
        for name, parameter in self.denoiser.named_parameters():
            keys = ("step", "exp_avg", "exp_avg_sq")
            moments = {key: tensors[f"adam.{key}.{name}"] for key in keys if f"adam.{key}.{name}" in tensors}
            self.optimizer.state[parameter] = {
                k: v if k == "step" else v.to(parameter.device) for k, v in moments.items()
            }

    def check_config(self, note: dict[str, Any], path: Path) -> None:
        """Raise ValueError when a saved run was made in another way than this one's configuration says."""
        ours, theirs = asdict(self.config) | self.task, note["config"] | note.get("task", self.task)
        free = ("steps", "save_every")
        differing = [key for key in ours if ours[key] != theirs.get(key) and key not in free]
        if differing:
            key = differing[0]
            was, asked = str(theirs.get(key))[:80], str(ours[key])[:80]
            raise ValueError(f"{path} was trained with {key} = {was}, asked for {asked}")
        saved = TrainConfig(**note["config"])
        if any(saved.rate_at(k) != self.config.rate_at(k) for k in range(note["step"])):
            raise ValueError(
                f"{path} has {note['step']} of {saved.steps} steps, and a run of {self.config.steps} "
                f"would have had another learning rate by then"
            )


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


def draw_batch(images: Tensor, labels: Tensor, config: TrainConfig, step: int) -> tuple[Tensor, Tensor]:
    """The images (float32 in [-1, 1]) and labels of one step: a slice of the epoch's own permutation."""
    per_epoch = len(images) // config.batch
    if per_epoch < 1:
        raise ValueError(f"a batch of {config.batch} needs at least as many images, got {len(images)}")
    epoch, place = divmod(step, per_epoch)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1_000_003 * config.seed + epoch))
    index = order[place * config.batch : (place + 1) * config.batch].to(images.device)
    return to_float(images[index]), labels[index]


def train_step(run: Run, images: Tensor, labels: Tensor) -> Tensor:
    """Loss, gradient, optimizer, weight average; returns the mean loss, detached."""
    config, denoiser = run.config, run.denoiser
    g = torch.Generator().manual_seed(2_000_003 * config.seed + 7 * run.step + 1)
    x0, y = draw_batch(images, labels, config, run.step)
    t = spread_times(denoiser.schedule, len(x0), g).to(x0.device)
    eps = torch.randn(x0.shape, generator=g).to(x0.device)
    y = drop_labels(y, denoiser.net.num_classes, config.p_null, g)
    for group in run.optimizer.param_groups:
        group["lr"] = config.rate_at(run.step)
    with torch.autocast(x0.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        loss = denoising_loss(denoiser, x0, t, eps, y).mean()
    loss.backward()
    nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    update_average(run)
    run.step += 1
    return loss.detach()


@torch.no_grad()
def update_average(run: Run) -> None:
    """ema <- d ema + (1 - d) weights, with d growing from 0.1 to config.ema over the first steps."""
    d = min(run.config.ema, (1 + run.step) / (10 + run.step))
    averages, weights = list(run.ema.parameters()), list(run.denoiser.parameters())
    torch._foreach_lerp_(averages, weights, 1 - d)


def fit(run: Run, images: Tensor, labels: Tensor, state: Path | None = None) -> Iterator[Record]:
    """Train `run` to its last step; yield a Record every `log_every` steps, after the optimizer and the average.

    images: (M, C, H, W) uint8 and labels: (M,) int64, on the network's device. state: file from which the run
    continues if it exists, and to which it is saved every `save_every` steps and at the end.
    Raises FloatingPointError when loss or weights are not finite; the last saved state is then still good.
    """
    config = run.config
    run.task["data"] = fingerprint(images, labels)
    if state is not None and state.exists():
        run.restore(state)
    if config.compile:
        run.denoiser.net.compile()
    run.denoiser.train()
    started, before, losses = perf_counter(), run.seconds, []
    while run.step < config.steps:
        losses.append(train_step(run, images, labels))
        run.seconds = before + perf_counter() - started
        logged = run.step % config.log_every == 0 or run.step == config.steps
        saved = state is not None and (run.step % config.save_every == 0 or run.step == config.steps)
        if logged or saved:
            mean = float(torch.stack(losses).mean())
            if not isfinite(mean) or not all(bool(p.isfinite().all()) for p in run.denoiser.parameters()):
                kept = f"; the last good state is {state}" if state is not None and state.exists() else ""
                raise FloatingPointError(f"loss {mean} or weights not finite at step {run.step}{kept}")
        if logged:
            run.log.append(Record(run.step, mean, config.rate_at(run.step - 1), run.seconds))
            losses = []
        if saved:
            run.save(state)
        if logged:
            yield run.log[-1]


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
