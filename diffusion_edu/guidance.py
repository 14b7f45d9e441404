"""Guidance: wrappers around a denoiser that are denoisers again, so that they compose and any sampler takes them.

The book's weight w multiplies the gradient of log p(y | x_t): w = 0 is the unconditional law, w = 1 the conditional one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_edu.denoisers import DenoiserFunction, check_labels
from diffusion_edu.likelihood import encode, likelihood_grid
from diffusion_edu.process import Prediction, expand_to, normal_like, q_sample
from diffusion_edu.samplers import ancestral, probability_flow, sample
from diffusion_edu.schedules import time_grid

LogProbability = Callable[[Tensor, Tensor, Tensor], Tensor]


class Guided:
    """A denoiser made of another: `raw` is what `rule(x_t, t, y)` answers, a call is that with x_0 clipped like the other's.

    Carries the other's `schedule` and `clip`, but no classes: to guide is to have said what "no class" means.
    """

    def __init__(self, denoiser: DenoiserFunction, rule: Callable[..., Prediction]) -> None:
        self.schedule, self.clip, self.raw = denoiser.schedule, getattr(denoiser, "clip", None), rule

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
        check_labels(y, x_t, null_class)
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
        return row_gradient(log_p_y(x_t, t, y), x_t)


def row_gradient(values: Tensor, x: Tensor) -> Tensor:
    """Gradient of values (N,), one for each row, in the x (N, ...) that they were computed from.

    Raises ValueError for values of another shape, or computed without gradients.
    """
    if values.shape != x.shape[:1]:
        raise ValueError(f"guidance needs one number for each row, ({len(x)},), got {tuple(values.shape)}")
    if not values.requires_grad:
        raise ValueError("the numbers to follow do not depend on x_t, or were computed without gradients")
    return torch.autograd.grad(values.sum(), x)[0]


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


# --- loss ---------------------------------------------------------------------------------------------

Loss = Callable[[Tensor], Tensor]
Scale = float | Callable[[Tensor], Tensor]


def loss_guided(denoiser: DenoiserFunction, loss: Loss, scale: Scale = 1.0) -> DenoiserFunction:
    """Guidance by any loss of the clean image: score - scale * gradient over x_t of loss(x0_hat(x_t)).

    loss: images (N, ...) -> one number for each, (N,), in nats where scale is 1; each must depend on its own image alone.
    scale: a number, or a function of t, () or (N,). The gradient goes through the denoiser: one forward and one backward
    pass a call. The estimate that the loss sees is not clipped if the denoiser has a `raw`; the guided one is, as usual.
    The plug-in of Chung et al. 2023 and Bansal et al. 2023, whose s(t) is scale * sigma: an approximation of the
    conditional score. Raises ValueError when the loss answers anything but (N,) or ignores its argument.
    """

    def rule(x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Prediction:
        with torch.enable_grad():  # samplers switch it off
            x = x_t.detach().requires_grad_(True)
            prediction = unclipped(denoiser)(x, t, y)
            gradient = row_gradient(loss(prediction.x0), x)
        weight = scale(prediction.t) if callable(scale) else torch.tensor(scale, dtype=torch.float64)
        shift = expand_to(weight, x_t) * prediction.sigma**2 / prediction.alpha * gradient
        return Prediction(prediction.schedule, x_t, t, prediction.x0.detach() - shift, "x0")

    return Guided(denoiser, rule)


# --- partial noising ----------------------------------------------------------------------------------


def encode_to(
    denoiser: DenoiserFunction, x0: Tensor, t: float, *, y: Tensor | None = None, steps: int = 12, method: str = "heun"
) -> Tensor:
    """Noise images x0 (N, ...) up to time t without drawing noise: along the probability-flow ODE, from `t_min` on.

    `return_from` with the same denoiser leads back to x0, up to the steps' error. An unclipped denoiser is asked for,
    see `likelihood.encode`. Raises ValueError unless t_min < t <= t_max.
    """
    ts = likelihood_grid(denoiser.schedule, steps, t)
    return encode(denoiser, expand_to(denoiser.schedule.alpha(ts[0]), x0) * x0, ts, y=y, method=method)


def return_from(
    denoiser: DenoiserFunction, x_t: Tensor, t: float, *, y: Tensor | None = None, steps: int = 12, method: str = "heun"
) -> Tensor:
    """Carry x_t (N, ...) from time t along the probability-flow ODE back to an image: the way back of `encode_to`."""
    ts = likelihood_grid(denoiser.schedule, steps, t)
    x = sample(probability_flow(denoiser, x_t, ts.flip(0), y=y, method=method))
    return x / expand_to(denoiser.schedule.alpha(ts[0]), x)


def sdedit(
    denoiser: DenoiserFunction,
    x0: Tensor,
    t: float,
    *,
    y: Tensor | None = None,
    generator: torch.Generator | None = None,
    steps: int = 20,
) -> Tensor:
    """Noise pictures x0 (N, ...) up to time t and draw images from there by ancestral steps: SDEdit (Meng et al. 2022).

    With the exact score each is a draw from q(x_0 | x_t), so an image of the data whatever x0 was. One evaluation a step.
    Raises ValueError unless t_min < t <= t_max.
    """
    ts = time_grid(denoiser.schedule, steps, start=t)
    x_t = q_sample(denoiser.schedule, x0, ts[0], normal_like(x0, generator))
    return sample(ancestral(denoiser, x_t, ts, y=y, generator=generator))


def anomaly_map(
    denoiser: DenoiserFunction,
    normal: DenoiserFunction,
    x0: Tensor,
    t: float,
    *,
    y: Tensor | None = None,
    eps: Tensor | None = None,
    steps: int = 12,
) -> Tensor:
    """|x0 - its return|, (N, ...): noised up to t, then brought back by `normal`, the denoiser that is guided to health.

    eps: noise to draw x_t with; None encodes with `denoiser` and no noise (Wolleb et al. 2022). y: labels for `normal`.
    """
    if eps is None:
        x_t = encode_to(denoiser, x0, t, steps=steps)
    else:
        x_t = q_sample(denoiser.schedule, x0, torch.tensor(t, dtype=torch.float64), eps)
    return (x0 - return_from(normal, x_t, t, y=y, steps=steps)).abs()
