"""Guidance: wrappers around a denoiser that are denoisers again, so that they compose and any sampler takes them.

The book's weight w multiplies the gradient of log p(y | x_t): w = 0 is the unconditional law, w = 1 the conditional one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_edu.denoisers import DenoiserFunction
from diffusion_edu.process import Prediction, expand_to

LogProbability = Callable[[Tensor, Tensor, Tensor], Tensor]


class Guided:
    """A denoiser made of another: `raw` is what `rule(x_t, t, y)` answers, a call is that with x_0 clipped like the other's.

    Carries the other's `schedule` and `clip`; `num_classes` is given where it still means something to ask for no class.
    """

    def __init__(
        self, denoiser: DenoiserFunction, rule: Callable[..., Prediction], num_classes: int | None = None
    ) -> None:
        self.schedule, self.clip = denoiser.schedule, getattr(denoiser, "clip", None)
        self.raw, self.num_classes = rule, num_classes

    def __call__(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Prediction:
        prediction = self.raw(x_t, t, y)
        return prediction if self.clip is None else prediction.with_x0(prediction.x0.clamp(*self.clip))


def unclipped(denoiser: DenoiserFunction) -> DenoiserFunction:
    """The denoiser's answer before clipping; estimates are added first and the sum is clipped."""
    return getattr(denoiser, "raw", denoiser)


def count_classes(denoiser: DenoiserFunction) -> int:
    """Number of classes of a class-conditional denoiser, which is also the label of "no class"; ValueError for others."""
    count = getattr(getattr(denoiser, "net", denoiser), "num_classes", None)
    if not count:
        raise ValueError(f"guidance needs a denoiser with classes, got {type(denoiser).__name__} without")
    return count


def classifier_free(denoiser: DenoiserFunction, w: float) -> DenoiserFunction:
    """Classifier-free guidance: score = (1 - w) score(x_t) + w score(x_t | y), in one network call of twice the batch.

    denoiser: a network's or an exact mixture's. w: 1 is plain conditional sampling, 0 unconditional, above 1 away from
    "any digit" towards y (Ho & Salimans 2022, Eq. 6, whose own weight is w - 1). The sum is clipped like the denoiser's
    own answer. Raises ValueError for a denoiser without classes, or when called without labels.
    """
    null_class = count_classes(denoiser)

    def rule(x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Prediction:
        if y is None:
            raise ValueError("classifier-free guidance needs labels y, got None")
        times = t if t.ndim == 0 else torch.cat([t, t])
        both = unclipped(denoiser)(torch.cat([x_t, x_t]), times, torch.cat([torch.full_like(y, null_class), y]))
        null, conditional = both.x0.chunk(2)
        return Prediction(denoiser.schedule, x_t, t, null + w * (conditional - null), "x0")

    return denoiser if w == 1 else Guided(denoiser, rule)


def classifier_guided(
    denoiser: DenoiserFunction, log_p_y: LogProbability, scale: float, conditional: bool = False
) -> DenoiserFunction:
    """Classifier guidance: score + scale * gradient of log p(y | x_t) in x_t (Dhariwal & Nichol 2021, Alg. 2).

    log_p_y: (x_t, t, y) -> (N,) in nats, of noisy x_t (N, ...), differentiable in x_t; a row's value may depend on that
    row alone. conditional: whether the denoiser is told y too. The sum is clipped like the denoiser's own answer.
    Raises ValueError when called without labels, or for a log_p_y of another shape.
    """

    def rule(x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Prediction:
        if y is None:
            raise ValueError("classifier guidance needs labels y, got None")
        prediction = unclipped(denoiser)(x_t, t, y if conditional else None)
        push = scale * log_gradient(log_p_y, x_t, t, y)
        # the score moves by push, so x_0 = (x_t + sigma^2 score) / alpha moves by sigma^2 / alpha push
        return prediction.with_x0(prediction.x0 + prediction.sigma**2 / prediction.alpha * push)

    return Guided(denoiser, rule)


def log_gradient(log_p_y: LogProbability, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """Gradient of log_p_y(x_t, t, y) (N,) in x_t, shaped like x_t (N, ...); works inside `torch.no_grad()` too."""
    with torch.enable_grad():
        x_t = x_t.detach().requires_grad_()
        value = log_p_y(x_t, t, y)
        if value.shape != x_t.shape[:1]:
            raise ValueError(f"log_p_y must answer shape ({len(x_t)},), one for each row, got {tuple(value.shape)}")
        return torch.autograd.grad(value.sum(), x_t)[0]


def on_interval(
    guided: DenoiserFunction, plain: DenoiserFunction, low: float = -torch.inf, high: float = torch.inf
) -> DenoiserFunction:
    """`guided` where the log-SNR lies in [low, high], `plain` elsewhere (Kynkäänniemi et al. 2024).

    Where all rows share one time, only the one that counts is called. Raises ValueError for low > high.
    """
    if not low <= high:
        raise ValueError(f"need low <= high, got {low} and {high}")

    def rule(x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Prediction:
        log_snr = plain.schedule.log_snr(t)
        inside = (log_snr >= low) & (log_snr <= high)
        if bool(inside.all()) or not bool(inside.any()):
            return unclipped(guided if bool(inside.all()) else plain)(x_t, t, y)
        both = [unclipped(each)(x_t, t, y).x0 for each in (guided, plain)]
        return Prediction(plain.schedule, x_t, t, torch.where(expand_to(inside, x_t).bool(), *both), "x0")

    return Guided(plain, rule)
