"""Likelihood: how many nats, or bits a dimension, a model needs for data it has not seen.

Two routes: the evidence lower bound, term by term, and the probability-flow ODE. For images both bound the same number,
the probability of the integers that are stored: continuous densities are made comparable by dequantisation.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log, pi

import torch
from torch import Tensor

from diffusion_edu.analytic import standard_normal_log_density
from diffusion_edu.data import to_float
from diffusion_edu.denoisers import DenoiserFunction
from diffusion_edu.samplers import adaptive_solve, runge_kutta_step
from diffusion_edu.schedules import Schedule, time_at_log_snr

LEVELS = 256  # grey values of a stored pixel
BIN = 2 / (LEVELS - 1)  # width of one grey value in the range [-1, 1] of `to_float`


def dequantise(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Stored pixels, uint8 (N, ...), as float32 points drawn uniformly from the bin of width BIN around each value.

    Then log P(image) >= E log p(x) + d log BIN for any density p: Jensen's inequality (Theis et al. 2016, Sec. 3.1).
    """
    device = images.device if generator is None else generator.device
    u = torch.rand(images.shape, generator=generator, device=device).to(images.device)
    return to_float(images) + BIN * (u - 0.5)


def bits_per_dim(nats: Tensor, dims: int, width: float = BIN) -> Tensor:
    """Bits a dimension from -log p(x) in nats of points in `dims` dimensions, each the bin's `width` wide.

    For a probability of the stored integers (no density) the width is 1.
    """
    return (nats / dims - log(width)) / log(2)


# --- the evidence lower bound -----------------------------------------------------------------------


# --- the probability-flow ODE -----------------------------------------------------------------------

Field = Callable[[Tensor], Tensor]


def exact_divergence(field: Field, x: Tensor) -> tuple[Tensor, Tensor]:
    """field(x), (N, ...), and the trace of its Jacobian at each of the N points, (N,).

    One backward pass for each coordinate: for small dimensions. Each row of field(x) may depend on its own row of x
    alone, which batch normalisation in training mode would break.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        value = field(x)
        columns = value.flatten(1).sum(0)
        total = x.new_zeros(len(x))
        for i, column in enumerate(columns):
            (gradient,) = torch.autograd.grad(column, x, retain_graph=i + 1 < len(columns))
            total = total + gradient.flatten(1)[:, i]
    return value.detach(), total


def hutchinson(field: Field, x: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
    """field(x), (N, ...), and the estimate z . (J z) of its divergence for each probe z, (K, N).

    probes: (K, N, ...) with mean 0 and covariance I, see `draw_probes`. Unbiased; one backward pass for each of the K
    (Hutchinson 1989; for flows Grathwohl et al. 2019).
    """
    if probes.shape[1:] != x.shape:
        raise ValueError(f"need probes (K, {', '.join(map(str, x.shape))}), got {tuple(probes.shape)}")
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        value = field(x)
        estimates = []
        for i, z in enumerate(probes):
            (row,) = torch.autograd.grad((value * z).sum(), x, retain_graph=i + 1 < len(probes))  # z^T J
            estimates.append((row * z).flatten(1).sum(1))
    return value.detach(), torch.stack(estimates)


def draw_probes(
    x: Tensor, count: int = 1, kind: str = "rademacher", generator: torch.Generator | None = None
) -> Tensor:
    """`count` random probes for each point of x, (count, N, ...): signs +1 and -1 ("rademacher"), or "gaussian"."""
    if kind not in ("rademacher", "gaussian"):
        raise ValueError(f'kind must be "rademacher" or "gaussian", got {kind!r}')
    if count < 1:
        raise ValueError(f"need at least 1 probe, got {count}")
    device = x.device if generator is None else generator.device
    z = torch.randn(count, *x.shape, generator=generator, dtype=x.dtype, device=device).to(x.device)
    return z if kind == "gaussian" else torch.where(z < 0, -1.0, 1.0).to(x.dtype)


def likelihood_grid(schedule: Schedule, steps: int) -> Tensor:
    """Increasing times from `t_min` to `t_max`, float64 (steps + 1,), uniform in the log signal-to-noise ratio."""
    if steps < 1:
        raise ValueError(f"a time grid needs at least 1 step, got {steps}")
    ends = torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64)
    first, last = schedule.log_snr(ends).tolist()
    inner = time_at_log_snr(schedule, torch.linspace(first, last, steps + 1, dtype=torch.float64)[1:-1])
    return torch.cat([ends[:1], inner, ends[1:]])


def check_flow(denoiser: DenoiserFunction, ts: Tensor) -> None:
    """Raise ValueError unless `ts` increases strictly within (0, 1] and the denoiser does not clip."""
    if ts.ndim != 1 or len(ts) < 2 or not bool((ts[1:] > ts[:-1]).all()) or not (ts[0] > 0 and ts[-1] <= 1):
        raise ValueError(f"need a 1-D grid of times that increases strictly within (0, 1], got {ts.tolist()[:4]} ...")
    if getattr(denoiser, "clip", None) is not None:
        raise ValueError(f"a clipped estimate has no density: set denoiser.clip = None, got {denoiser.clip}")


@torch.no_grad()
def encode(
    denoiser: DenoiserFunction, x: Tensor, ts: Tensor, *, y: Tensor | None = None, method: str = "heun"
) -> Tensor:
    """Carry the state x (N, ...) at time ts[0] along the probability-flow ODE to ts[-1]: from data to its noise.

    ts: strictly increasing, in (0, 1]. `samplers.probability_flow` on the same times in reverse order leads back.
    """
    check_flow(denoiser, ts)
    for t, s in zip(ts[:-1], ts[1:], strict=True):
        x = runge_kutta_step(lambda x, t: denoiser(x, t, y).velocity, x, t, s, method)
    return x


def prior_log_density(schedule: Schedule, x: Tensor, t: Tensor) -> Tensor:
    """log density, in nats, of what sampling starts with, (N,): N(0, I), or N(0, sigma_t^2 I) where sigma_t exceeds 1."""
    std = schedule.sigma(t).clamp(min=1).to(x.dtype)
    return standard_normal_log_density(x / std) - x.flatten(1).shape[1] * std.log()


def ode_log_likelihoods(
    denoiser: DenoiserFunction,
    x0: Tensor,
    ts: Tensor,
    *,
    y: Tensor | None = None,
    method: str = "heun",
    probes: Tensor | None = None,
    rtol: float = 1e-5,
) -> Tensor:
    """log p(x0) in nats by the probability-flow ODE, (K, N): a row for each probe, one row with the exact divergence.

    x0: (N, ...); ts: (steps + 1,), strictly increasing in (0, 1], see `likelihood_grid`; probes: (K, N, ...), the same
    along the whole way, or None for the exact divergence. method: "euler", "heun" or "rk4" on the grid, or "RK45" or
    "DOP853", which choose their own steps between ts[0] and ts[-1] with relative and absolute tolerance `rtol`.

    At t = ts[0] the state is alpha x_0 + sigma eps, and sigma is not quite 0. What is returned is the density at x0 of
    x_t / alpha, that is, of the model's data blurred by sigma / alpha of that time: the flow starts at alpha x0, and
    d log alpha is added for the change of scale. (Song et al. 2021b, Eq. 39, which leaves out the scale.)
    """
    check_flow(denoiser, ts)
    schedule, (n, d) = denoiser.schedule, x0.flatten(1).shape
    count = 1 if probes is None else len(probes)

    def slope(state: Tensor, t: Tensor) -> Tensor:
        x = state[:, :d].reshape(x0.shape)

        def field(x: Tensor) -> Tensor:
            return denoiser(x, t, y).velocity

        velocity, change = exact_divergence(field, x) if probes is None else hutchinson(field, x, probes)
        return torch.cat([velocity.flatten(1), change.reshape(count, n).T], dim=1)

    alpha = schedule.alpha(ts[0])
    state = torch.cat([alpha.to(x0) * x0.flatten(1), x0.new_zeros(n, count)], dim=1)
    if method in ("RK45", "DOP853"):
        state, _ = adaptive_solve(slope, state, float(ts[0]), float(ts[-1]), rtol=rtol, atol=rtol, solver=method)
    else:
        for t, s in zip(ts[:-1], ts[1:], strict=True):
            state = runge_kutta_step(slope, state, t, s, method)
    end, change = state[:, :d].reshape(x0.shape), state[:, d:].T
    return prior_log_density(schedule, end, ts[-1]) + change + d * alpha.log().to(x0)


def ode_log_likelihood(
    denoiser: DenoiserFunction,
    x0: Tensor,
    ts: Tensor | int,
    *,
    y: Tensor | None = None,
    method: str = "heun",
    divergence: str = "exact",
    probes: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """log p(x0) in nats by the probability-flow ODE, (N,), for x0 (N, ...); see `ode_log_likelihoods`.

    ts: increasing times, or a number of steps of `likelihood_grid`. divergence: "exact", or "hutchinson", which averages
    over `probes` Rademacher probes: unbiased for the log-density, so not for the density.
    """
    if divergence not in ("exact", "hutchinson"):
        raise ValueError(f'divergence must be "exact" or "hutchinson", got {divergence!r}')
    if isinstance(ts, int):
        ts = likelihood_grid(denoiser.schedule, ts)
    drawn = draw_probes(x0, probes, generator=generator) if divergence == "hutchinson" else None
    return ode_log_likelihoods(denoiser, x0, ts, y=y, method=method, probes=drawn).mean(0)


def noise_dequantise(
    schedule: Schedule, images: Tensor, t: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Dequantise by the process's own noise at time t: points (N, ...) and nats (N,) to add to their log-density.

    On average over the noise, log P(image) >= log p(points) + nats, where p is the density of x_t / alpha. Nothing is
    lost to the blur of the density, as the points are blurred by as much. images: stored pixels, uint8.

    The nats are log P(image | points) - log q(points | image), with P among the LEVELS grey values of each pixel
    proportional to q (Kingma et al. 2021, for the reconstruction).
    """
    x0 = to_float(images)
    level = schedule.sigma(t).to(x0) / schedule.alpha(t).to(x0)  # noise in units of the image
    device = x0.device if generator is None else generator.device
    points = x0 + level * torch.randn(x0.shape, generator=generator, device=device).to(x0.device)
    values = to_float(torch.arange(LEVELS, dtype=torch.uint8, device=images.device))
    exponents = -((points.flatten(1)[:, :, None] - values) ** 2) / (2 * level**2)  # (N, d, LEVELS)
    # P / q: the numerators of both are the same Gaussian, so that only the normalisers are left
    return points, (log(2 * pi) / 2 + level.log() - exponents.logsumexp(2)).sum(1)
