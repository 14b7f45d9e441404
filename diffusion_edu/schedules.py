"""Noise schedules: the two functions alpha(t) and sigma(t) of x_t = alpha(t) x_0 + sigma(t) eps.

Time runs over [0, 1], 0 is data and 1 is noise. Every schedule answers `alpha` and `sigma`; the log signal-to-noise
ratio and the coefficients of the stochastic differential equation follow from these two.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, log, pi

import torch
from torch import Tensor


def within_reach(x: Tensor) -> bool:
    """Whether a check may look at the values of `x`: not while torch.compile traces, nor on a GPU, which it would stop."""
    return not torch.compiler.is_compiling() and x.device.type == "cpu"


class Schedule(ABC):
    """x_t = alpha(t) x_0 + sigma(t) eps for t in [0, 1]; alpha falls, sigma / alpha rises.

    Between `t_min` and `t_max` both alpha and sigma are far enough from zero for eps and x_0 to be computed from
    each other in float32. Sampling starts at `t_max`.
    """

    t_min = 1e-3
    t_max = 1.0

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Signal coefficient at times `t` (any shape, in [0, 1]); same shape, in [0, 1]."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Noise standard deviation at times `t` (any shape, in [0, 1]); same shape, >= 0."""

    def log_snr(self, t: Tensor) -> Tensor:
        """Log signal-to-noise ratio 2 log(alpha / sigma) at `t`; strictly decreasing (VDM, Kingma et al. 2021)."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def noise_level(self, t: Tensor) -> Tensor:
        """sigma / alpha at `t`, the noise in units of the data: EDM's sigma (Karras et al. 2022); strictly increasing."""
        return self.sigma(t) / self.alpha(t)

    def drift(self, t: Tensor) -> Tensor:
        """f(t) = d log alpha / dt of dx = f x dt + g dW, by autograd unless overridden (Song et al. 2021)."""
        return derivative(lambda u: self.alpha(u).log(), t)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        """g(t)^2 = d sigma^2 / dt - 2 f sigma^2 of dx = f x dt + g dW (VDM, Eq. 20 in continuous time)."""
        return derivative(lambda u: self.sigma(u) ** 2, t) - 2 * self.drift(t) * self.sigma(t) ** 2

    @staticmethod
    def from_betas(betas: Tensor | Sequence[float]) -> DiscreteBetas:
        """Schedule that passes exactly through the chain x_k = sqrt(1 - beta_k) x_{k-1} + sqrt(beta_k) eps."""
        return DiscreteBetas(tuple(torch.as_tensor(betas, dtype=torch.float64).tolist()))


class VariancePreserving(Schedule):
    """Schedules with alpha^2 + sigma^2 = 1, for which g^2 = -2 f = beta(t)."""

    def beta(self, t: Tensor) -> Tensor:
        """Noise rate beta(t) = -2 d log alpha / dt per unit of t, >= 0."""
        return -2 * self.drift(t)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        """g(t)^2 = beta(t) (Song et al. 2021, Eq. 11)."""
        return self.beta(t)


@dataclass(frozen=True)
class LinearRate(Schedule):
    """Schedules with drift f = -beta(t) / 2 and the rate beta(t) = beta_min + t (beta_max - beta_min)."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 <= self.beta_min <= self.beta_max or self.beta_max == 0:
            raise ValueError(
                f"need 0 <= beta_min <= beta_max and beta_max > 0, got {self.beta_min} and {self.beta_max}"
            )

    def log_alpha(self, t: Tensor) -> Tensor:
        """log alpha = -(1/2) integral of beta from 0 to t; <= 0."""
        return -t * (2 * self.beta_min + t * (self.beta_max - self.beta_min)) / 4

    def alpha(self, t: Tensor) -> Tensor:
        return self.log_alpha(t).exp()

    def drift(self, t: Tensor) -> Tensor:
        return -(self.beta_min + t * (self.beta_max - self.beta_min)) / 2


@dataclass(frozen=True)
class LinearBeta(LinearRate, VariancePreserving):
    """Noise rate beta(t) = beta_min + t (beta_max - beta_min) (Song et al. 2021, Eq. 32-33).

    DDPM's chain of T = 1000 steps with betas from 1e-4 to 0.02 tends to beta_min = 0.1, beta_max = 20.
    """

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(2 * self.log_alpha(t))).sqrt()


@dataclass(frozen=True)
class SubVariancePreserving(LinearRate):
    """alpha of `LinearBeta`, sigma = 1 - alpha^2: less noise at every t, the same end (Song et al. 2021, Eq. 27-29)."""

    t_min = 1e-2  # sigma rises like t, not like its root: at 1e-3 it would be 1e-4

    def sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(2 * self.log_alpha(t))

    def diffusion_squared(self, t: Tensor) -> Tensor:
        """g(t)^2 = beta(t) (1 - alpha(t)^4) (Song et al. 2021, Eq. 27)."""
        return 2 * self.drift(t) * torch.expm1(4 * self.log_alpha(t))


@dataclass(frozen=True)
class Cosine(VariancePreserving):
    """alpha_bar(t) = cos^2(u) / cos^2(u_0), u = (t + s) / (1 + s) pi / 2 (Nichol & Dhariwal 2021, Eq. 17)."""

    s: float = 0.008
    t_max = 0.995  # alpha = 0.008 here; at t = 1 it is 0, and x_0 cannot be computed from eps

    def __post_init__(self) -> None:
        if not 0 <= self.s < 1:
            raise ValueError(f"the cosine offset s must be in [0, 1), got {self.s}")

    def angle(self, t: Tensor) -> Tensor:
        """u(t), from u_0 at t = 0 to pi / 2 at t = 1."""
        return (t + self.s) / (1 + self.s) * pi / 2

    @property
    def start_angle(self) -> float:
        """u_0 = u(0)."""
        return self.s / (1 + self.s) * pi / 2

    def alpha(self, t: Tensor) -> Tensor:
        return self.angle(t).cos().clamp(min=0) / cos(self.start_angle)

    def sigma(self, t: Tensor) -> Tensor:
        # sin^2 u - sin^2 u_0 as a product of sines of u - u_0 and u + u_0: no cancellation near t = 0
        rise, u_0 = t * pi / (2 * (1 + self.s)), self.start_angle
        return (rise.sin() * (rise + 2 * u_0).sin()).clamp(min=0).sqrt() / cos(u_0)

    def drift(self, t: Tensor) -> Tensor:
        return -self.angle(t).tan() * pi / (2 * (1 + self.s))


@dataclass(frozen=True)
class Sigmoid(VariancePreserving):
    """alpha_bar(t) falls along a logistic curve between `start` and `end`, rescaled to [1, 0] (Chen 2023, Sec. 2)."""

    start: float = -3.0
    end: float = 3.0
    tau: float = 1.0
    t_max = 0.9995

    def __post_init__(self) -> None:
        if not (self.start < self.end and self.tau > 0):
            raise ValueError(f"need start < end and tau > 0, got {self.start}, {self.end} and {self.tau}")

    @property
    def span(self) -> float:
        """Length of the stretch of the logistic curve that is used."""
        return (self.end - self.start) / self.tau

    def argument(self, t: Tensor) -> Tensor:
        """Argument of the logistic function, from start / tau to end / tau."""
        return self.start / self.tau + t * self.span

    def rise(self, t: Tensor, length: Tensor) -> Tensor:
        """Rise of the logistic curve over `length` of time from t: a product, so no cancellation where it is small."""
        z = self.argument(t)
        return (z + length * self.span).sigmoid() * (-z).sigmoid() * -torch.expm1(-length * self.span)

    def alpha(self, t: Tensor) -> Tensor:
        zero = torch.zeros_like(t)
        return (self.rise(t, 1 - t) / self.rise(zero, zero + 1)).sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        zero = torch.zeros_like(t)
        return (self.rise(zero, t) / self.rise(zero, zero + 1)).sqrt()

    def drift(self, t: Tensor) -> Tensor:
        z = self.argument(t)
        return -z.sigmoid() * (-z).sigmoid() / self.rise(t, 1 - t) * self.span / 2


@dataclass(frozen=True)
class OrnsteinUhlenbeck(VariancePreserving):
    """dX = -X ds + sqrt(2) dB run for s = horizon * t: alpha = e^{-s}, sigma^2 = 1 - e^{-2 s}."""

    horizon: float = 5.0

    def __post_init__(self) -> None:
        if not self.horizon > 0:
            raise ValueError(f"horizon must be positive, got {self.horizon}")

    def alpha(self, t: Tensor) -> Tensor:
        return (-self.horizon * t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(-2 * self.horizon * t)).sqrt()

    def drift(self, t: Tensor) -> Tensor:
        return torch.full_like(t, -self.horizon)


@dataclass(frozen=True)
class VarianceExploding(Schedule):
    """alpha = 1, sigma^2 = sigma_min^2 ((sigma_max / sigma_min)^{2t} - 1): the SDE of Song et al. 2021, Eq. 30.

    Their Eq. 31 has no -1: there the data come with the first noise already on them.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"need 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}")

    @property
    def rate(self) -> float:
        """2 log(sigma_max / sigma_min)."""
        return 2 * log(self.sigma_max / self.sigma_min)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.expm1(self.rate * t).sqrt()

    def drift(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        return self.sigma_min**2 * self.rate * (self.rate * t).exp()


@dataclass(frozen=True)
class Flow(Schedule):
    """Straight line from data to noise: alpha = 1 - t, sigma = t (Lipman et al. 2023; Liu et al. 2023)."""

    t_max = 0.999  # alpha = 0.001; at t = 1 it is 0, and x_0 cannot be computed from eps

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t.clone()

    def drift(self, t: Tensor) -> Tensor:
        return -1 / (1 - t)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        return 2 * t / (1 - t)


@dataclass(frozen=True)
class DiscreteBetas(VariancePreserving):
    """A chain of T noise variances beta_1 ... beta_T, read at t = k / T; between two k, log alpha is linear in t."""

    betas: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))  # a manifest brings a list
        bad = [beta for beta in self.betas if not 0 <= beta < 1]
        if bad or not self.betas:
            raise ValueError(f"betas must be a non-empty list in [0, 1), got {bad[0] if bad else 'none'}")

    @property
    def steps(self) -> int:
        """T, the number of steps of the chain."""
        return len(self.betas)

    @property
    def t_min(self) -> float:
        """1 / T: the first noisy state."""
        return 1 / self.steps

    def log_alpha(self, t: Tensor) -> Tensor:
        """log alpha = (1/2) sum over j <= k of log(1 - beta_j), at k = t T; linear between whole k."""
        increments = torch.log1p(-torch.tensor(self.betas, dtype=torch.float64)) / 2
        knots = torch.cat([increments.new_zeros(1), increments.cumsum(0)]).to(t.device)
        if within_reach(t) and not bool(((t > -1e-6) & (t < 1 + 1e-6)).all()):
            raise ValueError(f"t = k / T must lie in [0, 1], got {float(t.min()):.6g} to {float(t.max()):.6g}")
        position = (t.double() * self.steps).clamp(0, self.steps)
        # a time that is k / T up to rounding is k / T
        position = torch.where((position - position.round()).abs() < 1e-4, position.round(), position)
        k = position.floor().long().clamp(max=self.steps - 1)
        log_alpha = torch.lerp(knots[k], knots[k + 1], position - k)
        return log_alpha.to(t.dtype) if t.is_floating_point() else log_alpha

    def alpha(self, t: Tensor) -> Tensor:
        return self.log_alpha(t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(2 * self.log_alpha(t))).sqrt()

    def drift(self, t: Tensor) -> Tensor:
        rates = torch.log1p(-torch.tensor(self.betas, dtype=torch.float64)) * self.steps / 2
        # on a step's right end the step itself counts: at t = k / T the rate is that of beta_k
        k = (t.double() * self.steps - 1e-4).ceil().long().clamp(1, self.steps)
        return rates.to(t.device)[k - 1].to(t.dtype)


def linear_betas(steps: int = 1000, beta_first: float = 1e-4, beta_last: float = 0.02) -> Tensor:
    """DDPM's betas, float64 of shape (steps,), evenly spaced (Ho et al. 2020, Sec. 4)."""
    if steps < 1:
        raise ValueError(f"a chain needs at least 1 step, got {steps}")
    return torch.linspace(beta_first, beta_last, steps, dtype=torch.float64)


SPACINGS = ("uniform", "log_snr", "edm")  # of a time grid


def time_grid(schedule: Schedule, steps: int, spacing: str = "uniform", start: float | None = None) -> Tensor:
    """Decreasing times from `start`, by default `schedule.t_max`, to 0, float64 of shape (steps + 1,).

    `spacing`: "uniform" in t, or down to `t_min` and then 0: "log_snr", uniform in the log signal-to-noise ratio, or "edm",
    uniform in the seventh root of the noise level sigma / alpha (Karras et al. 2022, Eq. 5 with rho = 7).
    """
    if steps < 1:
        raise ValueError(f"a time grid needs at least 1 step, got {steps}")
    if start is not None and not schedule.t_min < start <= schedule.t_max:
        raise ValueError(f"start must lie in ({schedule.t_min:g}, {schedule.t_max:g}], (t_min, t_max], got {start:g}")
    first = schedule.t_max if start is None else start
    if spacing == "uniform":
        return torch.linspace(first, 0, steps + 1, dtype=torch.float64)
    ends = schedule.log_snr(torch.tensor([first, schedule.t_min], dtype=torch.float64))
    if spacing == "log_snr":
        log_snr = torch.linspace(float(ends[0]), float(ends[1]), steps, dtype=torch.float64)
    elif spacing == "edm":
        roots = (-ends / 14).exp()  # the noise level is exp(-log_snr / 2), and rho = 7
        log_snr = -14 * torch.linspace(float(roots[0]), float(roots[1]), steps, dtype=torch.float64).log()
    else:
        raise ValueError(f"spacing must be one of {', '.join(SPACINGS)}, got {spacing!r}")
    inner = time_at_log_snr(schedule, log_snr)
    return torch.cat([inner, inner.new_zeros(1)])


def time_at_log_snr(schedule: Schedule, log_snr: Tensor, ends: tuple[float, float] | None = None) -> Tensor:
    """Times between `ends`, by default [t_min, t_max], at which the log-SNR has the given values, by bisection."""
    if not log_snr.is_floating_point():
        raise ValueError(f"log_snr must be floating-point, as its times will be, got {log_snr.dtype}")
    first, last = (schedule.t_min, schedule.t_max) if ends is None else ends
    low, high = torch.full_like(log_snr, first), torch.full_like(log_snr, last)
    for _ in range(60):  # 2^-60 is below float64's spacing on [0, 1]
        middle = (low + high) / 2
        too_clean = schedule.log_snr(middle) > log_snr
        low, high = torch.where(too_clean, middle, low), torch.where(too_clean, high, middle)
    return (low + high) / 2


def derivative(function, t: Tensor) -> Tensor:
    """d function / dt at every element of `t`, by autograd; `function` acts on each element alone."""
    with torch.enable_grad():
        u = t.detach().clone().requires_grad_(True)
        value = function(u).sum()
        return torch.autograd.grad(value, u)[0] if value.requires_grad else torch.zeros_like(t)  # a constant


SCHEDULES = {
    c.__name__: c
    for c in (
        LinearBeta,
        SubVariancePreserving,
        Cosine,
        Sigmoid,
        OrnsteinUhlenbeck,
        VarianceExploding,
        Flow,
        DiscreteBetas,
    )
}


def make_schedule(name: str, **arguments) -> Schedule:
    """Schedule of that class name, for command lines and manifests; `arguments` as for the class."""
    if name not in SCHEDULES:
        raise ValueError(f"unknown schedule {name!r}; known: {', '.join(SCHEDULES)}")
    try:
        return SCHEDULES[name](**arguments)
    except TypeError as error:
        raise ValueError(f"cannot build schedule {name} with {arguments}: {str(error).split('() ')[-1]}") from None
