"""Likelihood: how many nats, or bits a dimension, a model needs for data it has not seen.

Two routes: the evidence lower bound, term by term, and the probability-flow ODE. For images both bound the same number,
the probability of the integers that are stored: continuous densities are made comparable by dequantisation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log, pi

import torch
from torch import Tensor

from diffusion_edu.analytic import standard_normal_log_density
from diffusion_edu.data import to_float
from diffusion_edu.denoisers import DenoiserFunction
from diffusion_edu.process import Prediction, expand_to, normal_like, posterior, q_sample, transition
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


@dataclass(frozen=True)
class Bound:
    """-log p(x_0) <= prior + diffusion + reconstruction, each (N,), in nats, float64.

    t: (N, K), the times at which the denoiser was asked; costs: (N, K), what each of them adds to the diffusion term.
    """

    prior: Tensor
    reconstruction: Tensor
    t: Tensor
    costs: Tensor

    @property
    def diffusion(self) -> Tensor:
        """The sum of the steps' divergences, or of its unbiased estimate, (N,)."""
        return self.costs.sum(1)

    @property
    def total(self) -> Tensor:
        """The bound itself, (N,)."""
        return self.prior + self.diffusion + self.reconstruction


@torch.no_grad()
def elbo(
    denoiser: DenoiserFunction,
    x0: Tensor,
    ts: Tensor | None = None,
    y: Tensor | None = None,
    generator: torch.Generator | None = None,
    *,
    draws: int | None = None,
    ends: tuple[float, float] | None = None,
    scale: float | None = None,
) -> Bound:
    """The bound on -log p(x_0) of the model that a denoiser and its schedule make, term by term.

    x0: points, float (N, ...), whose density is bounded; or stored images, uint8 (N, C, H, W), whose probability is.
    ts: (T,) times of a chain, decreasing from the prior's to that of the decoder, > 0; its T - 1 steps have the posterior's
    variance (Ho et al. 2020, Eq. 5). None: continuous time between `ends`, by default the schedule's t_max and t_min
    (Kingma et al. 2021, Eq. 17). draws: K times an example, spread evenly over the steps or over the log-SNR; None
    asks for every step of a chain, or for 8 times. scale: see `decoder_nats`. One evaluation a draw, and one if scale.
    Raises ValueError for a grid that does not decrease or reaches 0, and for fewer draws than 1.
    """
    schedule, points = denoiser.schedule, as_points(x0)
    if draws is not None and draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    if ts is None:
        ends = (schedule.t_max, schedule.t_min) if ends is None else ends
        ts = torch.tensor(ends, dtype=torch.float64, device=x0.device)
        t, factors = continuous_draws(schedule, ts, len(x0), draws or 8, generator)
    elif ends is not None:
        raise ValueError(f"give ts or ends, not both, got {len(ts)} times and ends {ends}")
    else:
        ts = ts.to(x0.device)
        t, factors = chain_draws(schedule, ts, len(x0), draws, generator)
    costs = []
    for now, factor in zip(t.T, factors.T, strict=True):
        eps = normal_like(points, generator)
        guess = denoiser(q_sample(schedule, points, now.to(points.dtype), eps), now.to(points.dtype), y)
        costs.append(factor / 2 * (eps - guess.eps).double().square().flatten(1).sum(1))
    last = decoder_nats(denoiser, x0, ts[-1], normal_like(points, generator), y, scale)
    return Bound(prior_nats(schedule, points, ts[0]), last, t, torch.stack(costs, 1))


def as_points(x: Tensor) -> Tensor:
    """Stored images, uint8, as float32 points in [-1, 1]; floating-point x as it is. Raises ValueError for other types."""
    if x.dtype == torch.uint8:
        return to_float(x)
    if not x.is_floating_point():
        raise ValueError(f"need floating-point points or uint8 images, got {x.dtype}")
    return x


def check_chain(ts: Tensor) -> None:
    """Raise ValueError unless `ts` is (T,), T >= 2, and decreases strictly within (0, 1]."""
    if ts.ndim != 1 or len(ts) < 2 or not bool((ts[1:] < ts[:-1]).all()) or not 0 < float(ts[-1]) < float(ts[0]) <= 1:
        raise ValueError(
            f"a chain's times must decrease strictly within (0, 1], got {[round(v, 6) for v in ts.flatten().tolist()[:6]]}"
        )


def spread_uniform(n: int, draws: int, generator: torch.Generator | None = None) -> Tensor:
    """(n, draws) numbers, each uniform in [0, 1): a row holds one in each of `draws` cells, the rows shift it evenly.

    float64; the batch has a single random number (Kingma et al. 2021, App. I.1).
    """
    device = "cpu" if generator is None else generator.device
    start = torch.rand(1, generator=generator, dtype=torch.float64, device=device)
    rows = (start + torch.arange(n, device=device) / n) % 1
    return (rows[:, None] + torch.arange(draws, device=device)) / draws


def continuous_draws(
    schedule: Schedule, ts: Tensor, n: int, draws: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Times (n, draws), even in the log-SNR, and the weight of |eps - eps_hat|^2 / 2 at each: the range over draws."""
    check_chain(ts)
    low, high = schedule.log_snr(ts.double())
    u = spread_uniform(n, draws, generator).to(ts.device)
    t = time_at_log_snr(schedule, (low + (high - low) * u).clamp(low, high), ends=(float(ts[-1]), float(ts[0])))
    return t, ((high - low) / draws).expand_as(t)


def chain_draws(
    schedule: Schedule, ts: Tensor, n: int, draws: int | None, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Times (n, draws) of a chain's steps and the weight SNR(s) / SNR(t) - 1 of |eps - eps_hat|^2 / 2 at each.

    All T - 1 steps, or `draws` of them, one in each of as many equal parts of the chain, with the weight raised to match.
    """
    check_chain(ts)
    log_snr, steps = schedule.log_snr(ts.double()), len(ts) - 1
    weights = torch.expm1(log_snr[1:] - log_snr[:-1])
    if draws is None:
        return ts[:-1].double().expand(n, -1), weights.expand(n, -1)
    chosen = (spread_uniform(n, draws, generator).to(ts.device) * steps).long().clamp(max=steps - 1)
    return ts.double()[chosen], weights[chosen] * steps / draws


def prior_nats(schedule: Schedule, x0: Tensor, t: Tensor) -> Tensor:
    """KL(q(x_t | x_0) || N(0, (alpha^2 + sigma^2) I)), (N,) in nats; a standard normal where variance is preserved."""
    alpha, sigma = schedule.alpha(t.double()), schedule.sigma(t.double())
    spread = alpha**2 + sigma**2
    flat = x0.flatten(1).double()
    each = sigma**2 / spread - 1 - (sigma**2 / spread).log()
    return (flat.shape[1] * each + alpha**2 / spread * flat.square().sum(1)) / 2


def decoder_nats(
    denoiser: DenoiserFunction,
    x0: Tensor,
    t: Tensor,
    eps: Tensor,
    y: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """-log p(x_0 | x_t) at the chain's last noisy time t, () or (N,), in nats, (N,), for noise `eps` like x_0.

    A Gaussian density for points, float; for stored images the same bell over the 256 grey values, normalised. scale: None
    centres it at x_t / alpha with deviation sigma / alpha (Kingma et al. 2021, Eq. 8: no network); a number centres it
    at the denoiser's x0_hat with deviation scale sigma / alpha (with 1 that of Ho et al. 2020, Eq. 13, up to alpha).
    """
    if scale is not None and not scale > 0:
        raise ValueError(f"scale must be above 0, or None, got {scale}")
    points, schedule = as_points(x0), denoiser.schedule
    t = t.to(points.device)
    x_t = q_sample(schedule, points, t.to(points.dtype), eps)
    alpha, sigma = expand_to(schedule.alpha(t.double()), x_t), expand_to(schedule.sigma(t.double()), x_t)
    deviation = sigma / alpha * (1 if scale is None else scale)
    centre = x_t / alpha if scale is None else denoiser(x_t, t.to(x_t.dtype), y).x0
    if x0.dtype != torch.uint8:
        square = ((points - centre) / deviation).double().square()
        return (square / 2 + (2 * pi * deviation.double() ** 2).log() / 2).flatten(1).sum(1)
    greys = to_float(torch.arange(LEVELS, dtype=torch.uint8, device=x0.device))
    logits = -(((greys - centre[..., None]) / deviation[..., None]) ** 2) / 2
    return -logits.log_softmax(-1).gather(-1, x0.long()[..., None]).double().flatten(1).sum(1)


def gaussian_kl(mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """KL(N(mean, e^log_variance) || N(other_mean, e^other_log_variance)) of each coordinate, in nats; broadcasts."""
    gap = other_log_variance - log_variance
    return (gap - 1 + (-gap).exp() + (mean - other_mean).square() * (-other_log_variance).exp()) / 2


def step_kl(prediction: Prediction, x0: Tensor, s: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q(x_s | x_t, x_0) || N(mu(x_t, x0_hat), e^log_variance)) of each coordinate, like x0, in nats, for 0 < s < t.

    log_variance broadcasts against x0. With the posterior's own it is Ho et al. 2020, Eq. 8.
    """
    t, schedule = prediction.t, prediction.schedule
    mean, std = posterior(schedule, x0, prediction.x_t, t, s)
    guess, _ = posterior(schedule, prediction.x0, prediction.x_t, t, s)
    return gaussian_kl(mean, expand_to(2 * std.log(), x0), guess, log_variance)


# --- the best variance and the best times of a chain -------------------------------------------------


@torch.no_grad()
def score_norms(
    denoiser: DenoiserFunction,
    x0: Tensor,
    ts: Tensor,
    y: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """E |score(x_t)|^2 / d at each of the times ts (K,), float64 (K,), over data x0 (N, ...): one evaluation a time.

    For exact scores 1 - sigma_t^2 times this is the mean variance of eps given x_t, which `optimal_variance` needs
    (Bao et al. 2022, Eq. 7-8). The same noise at every time.
    """
    points = as_points(x0)
    eps = normal_like(points, generator)
    found = []
    for t in ts.to(points.device):
        score = denoiser(q_sample(denoiser.schedule, points, t.to(points.dtype), eps), t, y).score
        found.append(score.double().square().mean())
    return torch.stack(found)


def optimal_variance(schedule: Schedule, ts: Tensor, norms: Tensor, bound: float = float("inf")) -> Tensor:
    """The variance that minimises the bound in each step of a chain, float64 (K,), one number for all coordinates.

    ts: (K + 1,), decreasing; norms: (K,), E |score|^2 / d at ts[:-1], see `score_norms`. The variance is the posterior's
    own and that of x_0 given x_t times the squared weight of x_0 in the mean (Bao et al. 2022, Eq. 7). Where noise
    dominates, the variance of x_0 is a small difference over alpha^2: `bound` is the largest it can be, 1 for data in
    [-1, 1].
    Raises ValueError when the numbers disagree or the bound is not positive.
    """
    if norms.shape != (len(ts) - 1,):
        raise ValueError(f"need a norm for each of the {len(ts) - 1} steps, got shape {tuple(norms.shape)}")
    if not bound > 0:
        raise ValueError(f"bound must be above 0, got {bound}")
    t, s = ts[:-1].double(), ts[1:].double()
    unknown = (1 - schedule.sigma(t) ** 2 * norms.to(t)).clamp(0, 1)  # mean variance of eps given x_t
    unknown_x0 = (unknown * schedule.sigma(t) ** 2 / schedule.alpha(t) ** 2).clamp(max=bound)
    _, variance_ts = transition(schedule, t, s)
    own = variance_ts * schedule.sigma(s) ** 2 / schedule.sigma(t) ** 2
    return own + (schedule.alpha(s) * variance_ts / schedule.sigma(t) ** 2) ** 2 * unknown_x0


def chain_costs(schedule: Schedule, ts: Tensor, errors: Tensor, dims: int, variance: str = "small") -> Tensor:
    """Nats of the step from ts[i] to ts[j] of a chain, float64 (T, T), infinite unless j > i.

    ts: (T,), decreasing, > 0; errors: (T,), E |x_0 - x0_hat|^2 at each time, summed over `dims` coordinates. variance:
    "small", the posterior's, errors_i (SNR_j - SNR_i) / 2; or "optimal", that of `optimal_variance`,
    (dims / 2) log(1 + errors_i (SNR_j - SNR_i) / dims).
    Raises ValueError for another one.
    """
    if variance not in ("small", "optimal"):
        raise ValueError(f'variance must be "small" or "optimal", got {variance!r}')
    check_chain(ts)
    snr = schedule.log_snr(ts.double()).exp()
    costs = (snr[None] - snr[:, None]) * errors.double()[:, None] / 2
    later = torch.ones_like(costs, dtype=torch.bool).triu(1)
    if variance == "optimal":
        costs = dims / 2 * torch.log1p((2 * costs / dims).clamp(min=0))
    return costs.masked_fill(~later, torch.inf)


def best_trajectory(costs: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The cheapest way from state 0 to state T - 1 in exactly `steps` steps: states, int64 (steps + 1,), and cost, ().

    costs: (T, T), that of the step i -> j, infinite where there is none. A dynamic programme: O(T^2) work a step
    (Watson et al. 2021, Alg. 1). Raises ValueError unless there is such a way.
    """
    if costs.ndim != 2 or len(costs) != costs.shape[1] or not 1 <= steps < len(costs):
        raise ValueError(f"need a square matrix of more than {steps} states, got {tuple(costs.shape)}")
    cheapest, origins = costs[0], []  # to each state, in one step
    for _ in range(steps - 1):
        cheapest, origin = (cheapest[:, None] + costs).min(0)
        origins.append(origin)
    if not bool(cheapest[-1].isfinite()):
        raise ValueError(f"there is no way of {steps} steps to the last state")
    way = [len(costs) - 1]
    for origin in reversed(origins):
        way.insert(0, int(origin[way[0]]))
    return torch.tensor([0, *way]), cheapest[-1]


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
    if probes.shape[1:] != x.shape or len(probes) == 0:
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
    z = normal_like(x.expand(count, *x.shape), generator)
    return z if kind == "gaussian" else torch.where(z < 0, -1.0, 1.0).to(x.dtype)


def likelihood_grid(schedule: Schedule, steps: int, t: float | None = None) -> Tensor:
    """Increasing times from `t_min` to t (default `t_max`), float64 (steps + 1,), uniform in the log signal-to-noise ratio.

    Raises ValueError for steps < 1, or t outside (t_min, t_max].
    """
    t = schedule.t_max if t is None else t
    if steps < 1:
        raise ValueError(f"a time grid needs at least 1 step, got {steps}")
    if not schedule.t_min < t <= schedule.t_max:
        raise ValueError(f"t must lie above {schedule.t_min} and not above {schedule.t_max}, got {t}")
    ends = torch.tensor([schedule.t_min, t], dtype=torch.float64)
    first, last = schedule.log_snr(ends).tolist()
    inner = time_at_log_snr(schedule, torch.linspace(first, last, steps + 1, dtype=torch.float64)[1:-1])
    return torch.cat([ends[:1], inner, ends[1:]])


def check_flow(denoiser: DenoiserFunction, x: Tensor, ts: Tensor) -> None:
    """Raise ValueError unless `x` is floating-point, `ts` increases within (0, 1], and the denoiser does not clip."""
    if not x.is_floating_point():
        raise ValueError(f"need floating-point points, for stored images see `dequantise`, got {x.dtype}")
    if ts.ndim != 1 or len(ts) < 2 or not bool((ts[1:] > ts[:-1]).all()) or not (ts[0] > 0 and ts[-1] <= 1):
        raise ValueError(f"need a 1-D grid of times that increases strictly within (0, 1], got {ts.tolist()[:4]} ...")
    if getattr(denoiser, "clip", None) is not None:
        raise ValueError(
            f"codes and densities want the unclipped network: set denoiser.clip = None, got {denoiser.clip}"
        )


@torch.no_grad()
def encode(
    denoiser: DenoiserFunction, x: Tensor, ts: Tensor, *, y: Tensor | None = None, method: str = "heun"
) -> Tensor:
    """Carry the state x (N, ...) at time ts[0] along the probability-flow ODE to ts[-1]: from data to its noise.

    ts: strictly increasing, in (0, 1]. `samplers.probability_flow` on the same times in reverse order leads back.
    """
    check_flow(denoiser, x, ts)
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
    check_flow(denoiser, x0, ts)
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
    level = expand_to(schedule.sigma(t) / schedule.alpha(t), x0).to(x0.device)  # noise in units of the image
    points = x0 + level * normal_like(x0, generator)
    values = to_float(torch.arange(LEVELS, dtype=torch.uint8, device=images.device))
    exponents = -(((points[..., None] - values) / level[..., None]) ** 2) / 2  # (N, ..., LEVELS)
    # P / q: the numerators of both are the same Gaussian, so that only the normalisers are left
    return points, (log(2 * pi) / 2 + level.log() - exponents.logsumexp(-1)).flatten(1).sum(1)
