"""The forward process: q(x_t | x_0), q(x_t | x_s), q(x_s | x_t, x_0), and the faces of one prediction.

All of it follows from x_t = alpha(t) x_0 + sigma(t) eps. These formulas stand here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffusion_edu.noise import SharedNoise
from diffusion_edu.schedules import Schedule, within_reach

TARGETS = ("eps", "x0", "v", "score", "edm")
SIGMA_DATA = 0.5  # the deviation of an image's pixels that EDM reckons with


def check_floating(x: Tensor, name: str = "x") -> None:
    """Raise ValueError for whole numbers: stored images would be taken modulo 256, and coefficients cut to 0."""
    if not x.is_floating_point():
        raise ValueError(f"{name} must be floating-point (of stored images: data.to_float), got {x.dtype}")


def checked_score(score_fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """score_fn(x), (N, ...). Raises ValueError unless it has the shape of `x`."""
    if x.ndim < 2:
        raise ValueError(f"x must be a batch of points (N, ...), got shape {tuple(x.shape)}")
    score = score_fn(x)
    if score.shape != x.shape:
        raise ValueError(f"a score has the shape of x, {tuple(x.shape)}, got {tuple(score.shape)}")
    return score


def check_target(target: str) -> None:
    """Raise ValueError unless `target` is one of TARGETS."""
    if target not in TARGETS:
        raise ValueError(f"unknown target {target!r}; known: {', '.join(TARGETS)}")


def expand_to(coefficient: Tensor, x: Tensor) -> Tensor:
    """Give a coefficient of shape () or (N,) trailing axes, so that it multiplies `x` of shape (N, ...), floating-point."""
    check_floating(x)
    coefficient = coefficient.to(x.dtype)
    return coefficient if coefficient.ndim == 0 else coefficient.reshape(-1, *[1] * (x.ndim - 1))


def normal_like(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise of the shape, type and device of `x`, drawn where the generator lives."""
    if isinstance(generator, SharedNoise):
        return generator.normal(x.shape).to(x)
    device = x.device if generator is None else generator.device
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device).to(x.device)


def check_times(t: Tensor, x: Tensor, name: str = "t") -> None:
    """Raise ValueError unless `t` has shape () or (N,) for x of shape (N, ...) and, on a CPU, lies in [0, 1]."""
    if not isinstance(t, Tensor):
        raise ValueError(f"{name} must be a tensor, got {t!r}")
    if t.ndim > 1 or (t.ndim == 1 and t.shape[0] != x.shape[0]):
        raise ValueError(f"{name} must have shape () or ({x.shape[0]},), got {tuple(t.shape)}")
    if within_reach(t) and not bool(((t >= 0) & (t <= 1)).all()):
        raise ValueError(f"{name} must lie in [0, 1], got {float(t.min()):.6g} to {float(t.max()):.6g}")


def q_sample(schedule: Schedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Draw from q(x_t | x_0): alpha(t) x_0 + sigma(t) eps.

    `x0`, `eps`: (N, ...), eps standard normal; `t`: () or (N,) in [0, 1]. Source: Ho et al. 2020, Eq. 4.
    Raises ValueError when the shapes disagree or t leaves [0, 1].
    """
    if eps.shape != x0.shape:
        raise ValueError(f"eps must have the shape of x0, {tuple(x0.shape)}, got {tuple(eps.shape)}")
    check_times(t, x0)
    return expand_to(schedule.alpha(t), x0) * x0 + expand_to(schedule.sigma(t), x0) * eps


def transition(schedule: Schedule, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """alpha_{t|s} and sigma^2_{t|s} of q(x_t | x_s) for s <= t (Kingma et al. 2021, Eq. 20-22).

    Same shape as `t` and `s`. The variance is -sigma_t^2 expm1(log_snr(t) - log_snr(s)), which loses no digits
    when s is close to t. Raises ValueError unless 0 <= s <= t <= 1.
    """
    t, s = torch.broadcast_tensors(t, s)
    if within_reach(t) and bool((s > t).any()):
        raise ValueError(f"need s <= t, got s up to {float(s.max()):.6g} and t from {float(t.min()):.6g}")
    if within_reach(t) and not bool(((s >= 0) & (t <= 1)).all()):
        raise ValueError(f"times must lie in [0, 1], got {float(s.min()):.6g} to {float(t.max()):.6g}")
    drop = schedule.log_snr(t) - schedule.log_snr(s)
    drop = drop.masked_fill(s == t, 0)  # inf - inf where both are 0 or 1
    ratio = (schedule.alpha(t) / schedule.alpha(s)).masked_fill(s == t, 1)
    return ratio, -(schedule.sigma(t) ** 2) * torch.expm1(drop)


def posterior(schedule: Schedule, x0: Tensor, x_t: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, shaped like `x_t`, and standard deviation, shaped like `t`, of q(x_s | x_t, x_0) for s < t.

    With s = t - 1/T on DDPM's chain this is Ho et al. 2020, Eq. 6-7; for any s < t Kingma et al. 2021, Eq. 25-26.
    At s = 0 the mean is x_0 and the deviation 0.
    """
    if x0.shape != x_t.shape:
        raise ValueError(f"x0 must have the shape of x_t, {tuple(x_t.shape)}, got {tuple(x0.shape)}")
    t, s = torch.broadcast_tensors(t, s)
    alpha_ts, variance_ts = transition(schedule, t, s)
    share = schedule.sigma(s) ** 2 / schedule.sigma(t) ** 2
    weight_0 = schedule.alpha(s) * variance_ts / schedule.sigma(t) ** 2
    mean = expand_to(alpha_ts * share, x_t) * x_t + expand_to(weight_0, x_t) * x0
    return mean, (variance_ts * share).sqrt()


def input_spread(schedule: Schedule, t: Tensor) -> Tensor:
    """Root mean square of x_t for data of deviation SIGMA_DATA, shaped like `t`: what EDM divides the input by."""
    return (schedule.sigma(t) ** 2 + (SIGMA_DATA * schedule.alpha(t)) ** 2).sqrt()


@dataclass(frozen=True)
class Prediction:
    """What is believed about x_0 and eps given x_t: one estimate under several names.

    x_t: (N, ...); t: () or (N,) in (0, 1]; value: (N, ...), what was predicted; target: which of TARGETS it is.
    All obey x_t = alpha x0 + sigma eps, score = -eps / sigma, v = alpha eps - sigma x0 (Salimans & Ho 2022, App. D), and
    edm = (sigma x0 - d^2 alpha eps) / (d spread) with d = SIGMA_DATA and `input_spread` (Karras et al. 2022, Table 1; d = 1
    would give -v). Raises ValueError for an unknown target or shapes that disagree.
    """

    schedule: Schedule
    x_t: Tensor
    t: Tensor
    value: Tensor
    target: str = "eps"

    def __post_init__(self) -> None:
        check_target(self.target)
        check_times(self.t, self.x_t)
        if self.value.shape != self.x_t.shape:
            raise ValueError(f"a prediction for x_t of shape {tuple(self.x_t.shape)} came as {tuple(self.value.shape)}")

    @cached_property
    def alpha(self) -> Tensor:
        """alpha(t), shaped to multiply x_t."""
        return expand_to(self.schedule.alpha(self.t), self.x_t)

    @cached_property
    def sigma(self) -> Tensor:
        """sigma(t), shaped to multiply x_t."""
        return expand_to(self.schedule.sigma(self.t), self.x_t)

    @cached_property
    def spread(self) -> Tensor:
        """`input_spread` at t, shaped to multiply x_t."""
        return expand_to(input_spread(self.schedule, self.t), self.x_t)

    @cached_property
    def x0(self) -> Tensor:
        """Estimate of E[x_0 | x_t], (N, ...)."""
        if self.target == "x0":
            return self.value
        if self.target == "v":
            return (self.alpha * self.x_t - self.sigma * self.value) / (self.alpha**2 + self.sigma**2)
        if self.target == "edm":
            signal = SIGMA_DATA * self.alpha * self.x_t / self.spread
            return SIGMA_DATA * (signal + self.sigma * self.value) / self.spread
        return (self.x_t - self.sigma * self.eps) / self.alpha

    @cached_property
    def eps(self) -> Tensor:
        """Estimate of E[eps | x_t], (N, ...)."""
        if self.target == "eps":
            return self.value
        if self.target == "score":
            return -self.sigma * self.value
        if self.target == "v":
            return (self.sigma * self.x_t + self.alpha * self.value) / (self.alpha**2 + self.sigma**2)
        if self.target == "edm":
            return (self.sigma * self.x_t / self.spread - SIGMA_DATA * self.alpha * self.value) / self.spread
        return (self.x_t - self.alpha * self.x0) / self.sigma

    @cached_property
    def score(self) -> Tensor:
        """Estimate of the gradient of log q(x_t), (N, ...): -eps / sigma."""
        return self.value if self.target == "score" else -self.eps / self.sigma

    @cached_property
    def v(self) -> Tensor:
        """Estimate of E[alpha eps - sigma x_0 | x_t], (N, ...)."""
        return self.value if self.target == "v" else self.alpha * self.eps - self.sigma * self.x0

    @cached_property
    def edm(self) -> Tensor:
        """Estimate of what EDM's network is asked for, (N, ...): of unit variance at every t."""
        if self.target == "edm":
            return self.value
        return (self.sigma * self.x0 - SIGMA_DATA**2 * self.alpha * self.eps) / (SIGMA_DATA * self.spread)

    @cached_property
    def velocity(self) -> Tensor:
        """Right-hand side of the probability-flow ODE, f x_t - g^2 score / 2, (N, ...) per unit of t."""
        drift = expand_to(self.schedule.drift(self.t), self.x_t)
        return drift * self.x_t - expand_to(self.schedule.diffusion_squared(self.t), self.x_t) / 2 * self.score

    def with_x0(self, x0: Tensor) -> Prediction:
        """The prediction whose x_0 is the given one, for instance this one's clipped to the data's range."""
        return Prediction(self.schedule, self.x_t, self.t, x0, "x0")
