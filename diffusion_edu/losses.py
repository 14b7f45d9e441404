"""Training losses: one number for each example, before any averaging."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_edu.denoisers import Denoiser
from diffusion_edu.likelihood import step_kl
from diffusion_edu.process import (
    SIGMA_DATA,
    Prediction,
    check_floating,
    check_target,
    checked_score,
    expand_to,
    input_spread,
    q_sample,
    transition,
)
from diffusion_edu.schedules import Schedule


def target_value(schedule: Schedule, x0: Tensor, t: Tensor, eps: Tensor, target: str) -> Tensor:
    """What a network with this target is asked for, (N, ...): the face of that name of `Prediction`.

    Raises ValueError for another target than TARGETS.
    """
    check_target(target)
    alpha, sigma = expand_to(schedule.alpha(t), x0), expand_to(schedule.sigma(t), x0)
    if target == "v":
        return alpha * eps - sigma * x0
    if target == "score":
        return -eps / sigma
    if target == "edm":
        return (sigma * x0 / SIGMA_DATA - SIGMA_DATA * alpha * eps) / expand_to(input_spread(schedule, t), x0)
    return {"eps": eps, "x0": x0}[target]


def denoising_loss(denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor, y: Tensor | None = None) -> Tensor:
    """Squared error of the denoiser's raw output, averaged over each example's coordinates: (N,), >= 0.

    x0, eps: (N, ...); t: (N,) in (0, 1]; y: (N,) labels or None. With target "eps" this is DDPM's simple loss
    (Ho et al. 2020, Eq. 14); with "v" it is that of Salimans & Ho 2022, which weighs the eps-error by 1 / alpha^2.
    """
    prediction = denoiser.raw(q_sample(denoiser.schedule, x0, t, eps), t, y)
    wanted = target_value(denoiser.schedule, x0, t, eps, denoiser.target)
    return (prediction.value - wanted).square().flatten(1).mean(dim=1)


WEIGHTS = ("simple", "min-snr", "sigmoid")
MIN_SNR = 5.0  # gamma of Hang et al.
SIGMOID_BIAS = 2.0  # log-SNR at which the sigmoid weight is a half


def x0_factor(schedule: Schedule, t: Tensor, target: str) -> Tensor:
    """By how much the squared error of `target` exceeds that of x_0 at the same x_t, shaped like `t`, > 0.

    From x_t = alpha x_0 + sigma eps: alpha^2 / sigma^2 for eps, and so on (Salimans & Ho 2022, Sec. 4). Raises ValueError
    for another target than TARGETS.
    """
    check_target(target)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    if target == "x0":
        return torch.ones_like(alpha)
    if target == "v":
        return ((alpha**2 + sigma**2) / sigma) ** 2
    if target == "edm":
        return (input_spread(schedule, t) / (SIGMA_DATA * sigma)) ** 2
    return {"eps": alpha / sigma, "score": alpha / sigma**2}[target] ** 2


def loss_weight(schedule: Schedule, t: Tensor, target: str, weight: str = "simple") -> Tensor:
    """Factor for `denoising_loss` at times t (N,), drawn evenly: (N,), > 0; which of WEIGHTS it is says `weight`.

    "simple": 1, whatever the target. The other two do not depend on the target. "min-snr": the error of x_0 counts
    min(SNR, 5) times (Hang et al. 2023). "sigmoid": the error of eps counts sigmoid(2 - log SNR) for each unit of
    log SNR (Kingma & Gao 2023; Hoogeboom et al. 2024): a bound on the likelihood of data with noise added, on any schedule.
    Raises ValueError for another target or weight.
    """
    check_target(target)
    if weight not in WEIGHTS:
        raise ValueError(f"unknown weight {weight!r}; known: {', '.join(WEIGHTS)}")
    if weight == "simple":
        return torch.ones_like(t)
    log_snr = schedule.log_snr(t)
    if weight == "min-snr":
        return log_snr.exp().clamp(max=MIN_SNR) / x0_factor(schedule, t, target)
    speed = schedule.diffusion_squared(t) / schedule.sigma(t) ** 2  # of the log-SNR, as times are even in t, not in it
    return speed * (SIGMOID_BIAS - log_snr).sigmoid() * log_snr.exp() / x0_factor(schedule, t, target)


def spread_times(schedule: Schedule, n: int, generator: torch.Generator | None = None) -> Tensor:
    """n times, float32 (n,), in [t_min, t_max], on the generator's device: one uniform draw in each of n equal cells.

    Together they cover the interval evenly, so the batch loss varies less than with independent times
    (Kingma et al. 2021, App. I.1).
    """
    device = None if generator is None else generator.device
    first = torch.rand(1, generator=generator, device=device, dtype=torch.float32)
    u = (first + torch.arange(n, device=device, dtype=torch.float32) / n) % 1
    return schedule.t_min + (schedule.t_max - schedule.t_min) * u


def drop_labels(y: Tensor, null_class: int, p_null: float, generator: torch.Generator | None = None) -> Tensor:
    """Replace each label by the null class with probability p_null, for classifier-free guidance (Ho & Salimans 2022)."""
    dropped = torch.rand(y.shape, generator=generator, device=None if generator is None else generator.device) < p_null
    return torch.where(dropped.to(y.device), torch.full_like(y, null_class), y)


# --- score matching -----------------------------------------------------------------------------------
#
# Here `score_fn` maps points (N, ...) to vectors (N, ...), row by row, and a loss sums over coordinates, as a squared
# norm does. All carry the factor 1/2 of the Fisher divergence.

ScoreFunction = Callable[[Tensor], Tensor]


def half_square(vectors: Tensor) -> Tensor:
    """|v|^2 / 2 of each row of `vectors` (N, ...): (N,)."""
    return vectors.square().flatten(1).sum(1) / 2


def explicit_score_matching(score_fn: ScoreFunction, true_score: ScoreFunction, x: Tensor) -> Tensor:
    """|score_fn - true_score|^2 / 2 at points x (N, ...): (N,), >= 0; its mean over data is the Fisher divergence.

    Source: Hyvärinen 2005. It needs the true score: an oracle for tests, no way to train.
    """
    return half_square(checked_score(score_fn, x) - checked_score(true_score, x))


def implicit_score_matching(score_fn: ScoreFunction, x: Tensor) -> Tensor:
    """|score_fn|^2 / 2 + div score_fn at data x (N, ...): (N,), of either sign, differentiable in the parameters.

    Its mean differs from the explicit loss by a constant (Hyvärinen 2005, Thm. 1) where the density times the score
    vanishes at the edge. The divergence is exact: one backward pass for each coordinate.
    """
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        score = checked_score(score_fn, x) + 0 * x  # so that a constant score has a derivative too
        columns = score.flatten(1).unbind(1)
        slopes = [torch.autograd.grad(column.sum(), x, create_graph=True)[0].flatten(1) for column in columns]
    return half_square(score) + sum(slope[:, i] for i, slope in enumerate(slopes))


def sliced_score_matching(score_fn: ScoreFunction, x: Tensor, projections: Tensor) -> Tensor:
    """(v . score_fn)^2 / 2 + v . grad(v . score_fn), averaged over projections v (K, N, ...): (N,).

    For E v v^T = I (normal or sign vectors) its mean is that of the implicit loss. One backward pass for each of the K
    projections, whatever the dimension. Source: Song et al. 2019. Raises ValueError for other shapes.
    """
    if projections.ndim != x.ndim + 1 or projections.shape[1:] != x.shape or len(projections) == 0:
        raise ValueError(
            f"projections must have shape (K, {', '.join(map(str, x.shape))}), got {tuple(projections.shape)}"
        )
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        score = checked_score(score_fn, x) + 0 * x  # so that a constant score has a derivative too
        terms = []
        for v in projections:
            along = (v * score).flatten(1).sum(1)
            slope = torch.autograd.grad(along.sum(), x, create_graph=True)[0]
            terms.append(along.square() / 2 + (v * slope).flatten(1).sum(1))
    return torch.stack(terms).mean(0)


def denoising_score_matching(score_fn: ScoreFunction, x: Tensor, sigma: Tensor | float, eps: Tensor) -> Tensor:
    """|score_fn(x + sigma eps) + eps / sigma|^2 / 2 at data x (N, ...), eps standard normal: (N,), >= 0.

    sigma: a number or (N,), > 0. Its minimiser is the score of the *noisy* density (Vincent 2011), its mean that of
    the explicit loss there plus a constant. No derivative of the network is needed.
    """
    if eps.shape != x.shape:
        raise ValueError(f"eps must have the shape of x, {tuple(x.shape)}, got {tuple(eps.shape)}")
    check_floating(x)
    sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    if sigma.shape not in ((), x.shape[:1]) or not bool((sigma > 0).all()):
        raise ValueError(f"sigma must be positive, a number or one for each of {len(x)} points, got {sigma.tolist()}")
    sigma = expand_to(sigma, x)
    return half_square(checked_score(score_fn, x + sigma * eps) + eps / sigma)


# --- learned variance --------------------------------------------------------------------------------


def interpolated_log_variance(schedule: Schedule, v: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """v log beta + (1 - v) log beta~, like `v` (N, ...), for 0 < s < t (Nichol & Dhariwal 2021, Eq. 15).

    beta = sigma^2_{t|s}, beta~ = beta sigma_s^2 / sigma_t^2; t, s: () or (N,). v = 0 is the
    posterior's variance, 1 the large one.
    """
    large = transition(schedule, t, s)[1].log()
    ratio = 2 * (schedule.sigma(s).log() - schedule.sigma(t).log())
    return expand_to(large, v) + (1 - v) * expand_to(ratio, v)


def variance_loss(prediction: Prediction, x0: Tensor, s: Tensor, v: Tensor) -> Tensor:
    """The step's divergence with the variance that `v` names, (N,), in nats a coordinate; no gradient reaches the mean.

    prediction: for x_t at t; s: (N,) or (), 0 < s < t; v: like x0 (Nichol & Dhariwal 2021, Sec. 3.1).
    """
    fixed = prediction.with_x0(prediction.x0.detach())
    log_variance = interpolated_log_variance(prediction.schedule, v, prediction.t, s)
    return step_kl(fixed, x0, s, log_variance).flatten(1).mean(1)


def hybrid_loss(prediction: Prediction, x0: Tensor, eps: Tensor, s: Tensor, v: Tensor, weight: float = 1e-3) -> Tensor:
    """Simple loss + weight times `variance_loss`, (N,) (Nichol & Dhariwal 2021, Eq. 16, with a mean over coordinates).

    The first term alone teaches the mean, the second alone teaches v.
    """
    simple = (eps - prediction.eps).square().flatten(1).mean(1)
    return simple + weight * variance_loss(prediction, x0, s, v)
