"""Samplers: from noise x_T along a decreasing grid of times to data.

Each is a generator of Step(t, x, prediction). One loop serves them all; a sampler is the rule for one step.
Any denoiser will do, exact or learned: `denoiser(x_t, t, y) -> Prediction`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffusion_edu.denoisers import DenoiserFunction
from diffusion_edu.process import Prediction, checked_score, expand_to, normal_like, posterior, q_sample, transition
from diffusion_edu.schedules import time_at_log_snr

StepRule = Callable[[Prediction, Tensor], Tensor]
Slope = Callable[[Tensor, Tensor], Tensor]
Variance = str | Tensor | Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Step:
    """State x (N, ...) at time t, reached by a step for which the denoiser gave `prediction` at the time before.

    Plain Langevin dynamics know no denoiser: there `prediction` is the score that was followed, (N, ...).
    """

    t: Tensor
    x: Tensor
    prediction: Prediction | Tensor


def walk(
    denoiser: DenoiserFunction,
    x_T: Tensor,
    ts: Tensor,
    y: Tensor | None,
    rule: StepRule,
    before: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
) -> Iterator[Step]:
    """The loop that all samplers share: predict at each time, let `rule(prediction, s)` lead to the next time s.

    ts: (K + 1,) strictly decreasing in [0, 1]; K steps. Raises ValueError for any other grid. before: (x, t) -> (x, t), what
    happens to the state before it is shown to the denoiser.
    """
    check_grid(ts)
    x = x_T
    for t, s in zip(ts[:-1], ts[1:], strict=True):
        with torch.no_grad():
            if before is not None:
                x, t = before(x, t)
            prediction = denoiser(x, t, y)
            x = rule(prediction, s)
        yield Step(s, x, prediction)


def check_grid(ts: Tensor) -> None:
    """Raise ValueError unless `ts` is a strictly decreasing 1-D grid of at least two times in [0, 1]."""
    if not isinstance(ts, Tensor):
        raise ValueError(f"a time grid is a tensor, such as time_grid(schedule, steps), got {ts!r}")
    if ts.ndim != 1 or len(ts) < 2:
        raise ValueError(f"a time grid is 1-D with at least two times, got shape {tuple(ts.shape)}")
    if not bool((ts[1:] < ts[:-1]).all()):
        raise ValueError(
            f"a sampler's time grid must decrease strictly, got {float(ts[0]):.4g} ... {float(ts[-1]):.4g}"
        )
    if float(ts[0]) > 1 or float(ts[-1]) < 0:
        raise ValueError(f"times must lie in [0, 1], got {float(ts[0]):.6g} to {float(ts[-1]):.6g}")


def sample(steps: Iterator[Step]) -> Tensor:
    """Run a sampler to its end and return the last x, (N, ...). Raises ValueError for one that has been run already."""
    x = None
    for step in steps:
        x = step.x
    if x is None:
        raise ValueError("this sampler has been run to its end: make a new one")
    return x


def ancestral(
    denoiser: DenoiserFunction,
    x_T: Tensor,
    ts: Tensor,
    *,
    y: Tensor | None = None,
    generator: torch.Generator | None = None,
    variance: Variance = "small",
) -> Iterator[Step]:
    """Draw x_s from q(x_s | x_t, x_0 = x0_hat): DDPM's sampler (Ho et al. 2020, Alg. 2). One evaluation a step.

    variance: "small", the posterior's own (beta tilde), or "large", that of q(x_t | x_s) (beta), both the paper's; or a
    function (t, s) -> variance, or a tensor (K,) with that of each of the K steps, such as `likelihood.optimal_variance`.
    The step to t = 0 adds no noise: the posterior's variance is 0 there, and any other is left out.
    """
    check_grid(ts)
    variance_of = variance_rule(variance, len(ts) - 1)

    def rule(prediction: Prediction, s: Tensor) -> Tensor:
        mean, std = posterior(prediction.schedule, prediction.x0, prediction.x_t, prediction.t, s)
        if variance_of is not None:
            std = variance_of(prediction, s).sqrt()
        return mean if s == 0 else mean + expand_to(std, mean) * normal_like(mean, generator)

    return walk(denoiser, x_T, ts, y, rule)


def variance_rule(variance: Variance, steps: int) -> StepRule | None:
    """The variance of a step as a rule (prediction, s) -> Tensor; None for the posterior's own. See `ancestral`.

    Raises ValueError for an unknown name, or a tensor that is not one variance >= 0 for each step.
    """
    if callable(variance):
        return lambda prediction, s: variance(prediction.t, s)
    if isinstance(variance, Tensor):
        if variance.shape != (steps,) or not bool((variance >= 0).all()):
            raise ValueError(f"need {steps} variances >= 0, one a step, got shape {tuple(variance.shape)}")
        each = iter(variance)
        return lambda prediction, s: next(each)
    if variance not in ("small", "large"):
        raise ValueError(f'variance must be a function, a tensor, "small" or "large", got {variance!r}')
    return None if variance == "small" else lambda p, s: transition(p.schedule, p.t, s)[1]


def ddim(
    denoiser: DenoiserFunction,
    x_T: Tensor,
    ts: Tensor,
    *,
    y: Tensor | None = None,
    generator: torch.Generator | None = None,
    eta: float = 0.0,
) -> Iterator[Step]:
    """x_s = alpha_s x0_hat + sqrt(sigma_s^2 - d^2) eps_hat + d z with d = eta times the posterior's deviation.

    eta = 0 is deterministic, eta = 1 has the marginal noise of `ancestral` (Song et al. 2021a, Eq. 12 and 16). For
    eta = 0 it is also Euler's method for the probability-flow ODE of x / alpha in sigma / alpha: order 1.
    One evaluation a step.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1], got {eta}")

    def rule(prediction: Prediction, s: Tensor) -> Tensor:
        schedule = prediction.schedule
        variance_ts = transition(schedule, prediction.t, s)[1]
        fresh = eta * (variance_ts * schedule.sigma(s) ** 2 / schedule.sigma(prediction.t) ** 2).sqrt()
        kept = (schedule.sigma(s) ** 2 - fresh**2).clamp(min=0).sqrt()
        x = expand_to(schedule.alpha(s), prediction.x_t) * prediction.x0
        x = x + expand_to(kept, x) * prediction.eps
        return x if eta == 0 or s == 0 else x + expand_to(fresh, x) * normal_like(x, generator)

    return walk(denoiser, x_T, ts, y, rule)


def euler_maruyama(
    denoiser: DenoiserFunction,
    x_T: Tensor,
    ts: Tensor,
    *,
    y: Tensor | None = None,
    generator: torch.Generator | None = None,
    noise: float = 1.0,
) -> Iterator[Step]:
    """Euler-Maruyama on dx = (f x - (1 + noise^2) / 2 g^2 score) dt + noise g dW, run backwards.

    noise = 1 is the reverse SDE (Song et al. 2021b, Eq. 6), 0 Euler's method for the probability-flow ODE; with the
    exact score all of them have the forward marginals (Karras et al. 2022, Eq. 6). Weak order 1; one evaluation a
    step. No noise is added by a step that ends at t = 0. Raises ValueError unless noise >= 0.
    """
    check_noise(noise)

    def rule(prediction: Prediction, s: Tensor) -> Tensor:
        return reverse_step(prediction, s, generator, noise)

    return walk(denoiser, x_T, ts, y, rule)


def check_noise(noise: float) -> None:
    """Raise ValueError unless `noise` is a finite number >= 0."""
    if not 0 <= noise < float("inf"):
        raise ValueError(f"noise must be at least 0, got {noise}")


def reverse_step(prediction: Prediction, s: Tensor, generator: torch.Generator | None, noise: float = 1.0) -> Tensor:
    """One Euler-Maruyama step from the prediction's time to `s`, with `noise` times the noise of the reverse SDE."""
    schedule, x, t = prediction.schedule, prediction.x_t, prediction.t
    g2 = schedule.diffusion_squared(t)
    slope = expand_to(schedule.drift(t), x) * x - expand_to((1 + noise**2) / 2 * g2, x) * prediction.score
    x = x - expand_to(t - s, x) * slope
    if noise == 0 or s == 0:
        return x
    return x + expand_to(noise * (g2 * (t - s)).sqrt(), x) * normal_like(x, generator)


def predictor_corrector(
    denoiser: DenoiserFunction,
    x_T: Tensor,
    ts: Tensor,
    *,
    y: Tensor | None = None,
    generator: torch.Generator | None = None,
    snr: float = 0.16,
    corrections: int = 1,
) -> Iterator[Step]:
    """A step of `euler_maruyama`, then `corrections` Langevin steps at the new time (Song et al. 2021b, Alg. 2-5).

    The corrector is x + e score + sqrt(2 e) z with e = 2 (snr |z| / |score|)^2, the norms averaged over the batch, so
    an image's step depends a little on its neighbours. For K steps down to t = 0, where nothing is corrected,
    K + (K - 1) corrections evaluations. Raises ValueError unless snr > 0 and corrections >= 0.
    """
    if not 0 < snr < float("inf"):
        raise ValueError(f"snr must be above 0, got {snr}")
    if corrections < 0 or corrections != int(corrections):
        raise ValueError(f"corrections must be a whole number of at least 0, got {corrections}")

    def rule(prediction: Prediction, s: Tensor) -> Tensor:
        x = reverse_step(prediction, s, generator)
        for _ in range(0 if s == 0 else int(corrections)):
            x = corrected(x, denoiser(x, s, y).score, snr, generator)
        return x

    return walk(denoiser, x_T, ts, y, rule)


def corrected(x: Tensor, score: Tensor, snr: float, generator: torch.Generator | None) -> Tensor:
    """One Langevin step of length 2 e, e = 2 (snr |z| / |score|)^2, for x and score (N, ...)."""
    z = normal_like(x, generator)
    ratio = z.flatten(1).norm(dim=1).mean() / score.flatten(1).norm(dim=1).mean()
    return langevin_step(x, score, 4 * (snr * ratio) ** 2, z)


def langevin_step(x: Tensor, score: Tensor, step: Tensor | float, z: Tensor | None) -> Tensor:
    """x + (step / 2) score + sqrt(step) z, for x, score and noise z (N, ...); without noise where z is None."""
    x = x + step / 2 * score
    return x if z is None else x + step**0.5 * z


def probability_flow(
    denoiser: DenoiserFunction,
    x_T: Tensor,
    ts: Tensor,
    *,
    y: Tensor | None = None,
    method: str = "heun",
) -> Iterator[Step]:
    """The probability-flow ODE dx/dt = f x - g^2 score / 2 (Song et al. 2021b, Eq. 13), deterministic.

    method: "euler", order 1, one evaluation a step; "heun", order 2, two (Karras et al. 2022, Alg. 1); or "rk4",
    the classical method of Runge and Kutta, order 4, four. A step that ends at t = 0, where the score is not defined,
    is Euler's for all three.
    """
    check_method(method)

    def rule(prediction: Prediction, s: Tensor) -> Tensor:
        used = "euler" if s == 0 else method

        def slope(x: Tensor, t: Tensor) -> Tensor:
            return denoiser(x, t, y).velocity

        return runge_kutta_step(slope, prediction.x_t, prediction.t, s, used, first=prediction.velocity)

    return walk(denoiser, x_T, ts, y, rule)


def check_method(method: str) -> None:
    """Raise ValueError unless `method` names a one-step rule."""
    if method not in ("euler", "heun", "rk4"):
        raise ValueError(f'method must be "euler", "heun" or "rk4", got {method!r}')


def runge_kutta_step(
    slope: Slope, x: Tensor, t: Tensor, s: Tensor, method: str = "heun", first: Tensor | None = None
) -> Tensor:
    """One step of dx/dt = slope(x, t) from time t to time s, forwards or backwards; x (N, ...), t and s ().

    method: "euler" (order 1, one evaluation), "heun" (2, two) or "rk4" (4, four); first: slope(x, t), if known.
    """
    check_method(method)
    h = expand_to(s - t, x)
    k1 = slope(x, t) if first is None else first
    if method == "euler":
        return x + h * k1
    if method == "heun":
        return x + h * (k1 + slope(x + h * k1, s)) / 2
    middle = (t + s) / 2
    k2 = slope(x + h / 2 * k1, middle)
    k3 = slope(x + h / 2 * k2, middle)
    k4 = slope(x + h * k3, s)
    return x + h * (k1 + 2 * k2 + 2 * k3 + k4) / 6


def adaptive_solve(
    slope: Slope, x: Tensor, t_from: float, t_to: float, *, rtol: float = 1e-5, atol: float = 1e-5, solver: str = "RK45"
) -> tuple[Tensor, int]:
    """Solve dx/dt = slope(x, t) with steps that scipy chooses: x at t_to, (N, ...), and the number of evaluations.

    rtol, atol: error allowed in each step, relative and absolute (root mean square over all numbers of x).
    solver: "RK45" (Dormand & Prince, order 5) or "DOP853" (order 8). Needs scipy.
    Raises ValueError for times outside (0, 1] or an unknown solver, FloatingPointError where the solver gives up.
    """
    from scipy.integrate import solve_ivp

    if solver not in ("RK45", "DOP853"):
        raise ValueError(f'solver must be "RK45" or "DOP853", got {solver!r}')
    if not (0 < t_from <= 1 and 0 < t_to <= 1):
        raise ValueError(f"times must lie in (0, 1], got {t_from:.6g} and {t_to:.6g}")

    def as_tensor(flat: Any) -> Tensor:
        return torch.as_tensor(flat).to(x).reshape(x.shape)

    def right_hand_side(t: float, flat: Any) -> Any:
        time = torch.tensor(t, dtype=torch.float64, device=x.device)
        found = slope(as_tensor(flat), time)
        if t == t_from and not bool(found.isfinite().all()):  # scipy would find no first step, and go on for ever
            raise FloatingPointError(
                f"{solver} stopped at t = {t:.6g} on the way to {t_to:.6g}: the slope is not finite"
            )
        return found.detach().double().flatten().cpu().numpy()

    start = x.detach().double().flatten().cpu().numpy()
    found = solve_ivp(right_hand_side, (t_from, t_to), start, method=solver, rtol=rtol, atol=atol)
    if not found.success:
        raise FloatingPointError(f"{solver} stopped at t = {found.t[-1]:.6g} on the way to {t_to:.6g}: {found.message}")
    return as_tensor(found.y[:, -1]), int(found.nfev)


@torch.no_grad()
def adaptive_flow(
    denoiser: DenoiserFunction,
    x: Tensor,
    t_from: float,
    t_to: float,
    *,
    y: Tensor | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    solver: str = "RK45",
) -> tuple[Tensor, int]:
    """The probability-flow ODE by an adaptive solver, in either direction: x at t_to and the number of evaluations.

    Arguments as for `adaptive_solve`; the whole batch shares its steps.
    """
    return adaptive_solve(lambda x, t: denoiser(x, t, y).velocity, x, t_from, t_to, rtol=rtol, atol=atol, solver=solver)


# --- Langevin dynamics --------------------------------------------------------------------------------


def langevin(
    score_fn: Callable[[Tensor], Tensor],
    x: Tensor,
    step: float,
    steps: int,
    generator: torch.Generator | None = None,
    noise: bool = True,
) -> Iterator[Step]:
    """x + (step / 2) score(x) + sqrt(step) z, `steps` times from x (N, ...). Weak order 1; one evaluation a step.

    Yields Step(t, x, prediction) with the dynamics' own clock, t = k step, and the score that was followed. The stationary
    law is biased: N(0, c^2) comes out with variance c^2 / (1 - step / (4 c^2)), and diverges from step = 4 c^2 on.
    noise=False leaves out z: gradient ascent to the modes, no sampler. Source: Roberts & Tweedie 1996, the unadjusted
    algorithm. Raises ValueError for step <= 0 or steps < 1.
    """
    if not step > 0 or steps < 1:
        raise ValueError(f"need step > 0 and steps >= 1, got {step} and {steps}")

    def run(x: Tensor) -> Iterator[Step]:
        for k in range(1, steps + 1):
            with torch.no_grad():
                score = checked_score(score_fn, x)
                x = langevin_step(x, score, step, normal_like(x, generator) if noise else None)
            yield Step(torch.tensor(k * step, dtype=torch.float64), x, score)

    return run(x)


def annealed_langevin(
    denoiser: DenoiserFunction,
    x_T: Tensor,
    ts: Tensor,
    *,
    y: Tensor | None = None,
    generator: torch.Generator | None = None,
    steps: int = 5,
    size: float = 0.5,
) -> Iterator[Step]:
    """Langevin dynamics at falling noise levels, `steps` at each of ts[:-1] (Song & Ermon 2019, Alg. 1).

    The levels are sigma / alpha and the walker is x / alpha, so any schedule will do; the step is `size` times the level's
    variance. Between levels x / alpha stays. If ts ends at 0, the last evaluation of all gives the answer x0_hat: its noise
    is removed. Evaluations: steps (len(ts) - 1). Raises ValueError unless 0 < size < 4 (beyond, it diverges), steps >= 1.
    """
    if not 0 < size < 4 or steps < 1:
        raise ValueError(f"need 0 < size < 4 and steps >= 1, got {size} and {steps}")

    def run(x: Tensor) -> Iterator[Step]:
        check_grid(ts)
        for t, s in zip(ts[:-1], ts[1:], strict=True):
            for k in range(1, steps + 1):
                with torch.no_grad():
                    prediction = denoiser(x, t, y)
                    # a step of size sigma^2 / alpha^2 for x / alpha, and back to x: all factors alpha cancel
                    x = langevin_step(x, prediction.score, size * prediction.sigma**2, normal_like(x, generator))
                    if k == steps:
                        ratio = prediction.schedule.alpha(s) / prediction.schedule.alpha(t)
                        x = prediction.x0 if s == 0 else expand_to(ratio, x) * x
                yield Step(s if k == steps else t, x, prediction)

    return run(x_T)


# --- few evaluations ----------------------------------------------------------------------------------
# All of these follow the probability-flow ODE of x / alpha in the noise level sigma / alpha, whose slope is eps_hat.


def ddim_step(prediction: Prediction, s: Tensor, eps: Tensor) -> Tensor:
    """x / alpha + (level_s - level_t) eps, times alpha_s: the straight line along `eps` (N, ...) to the noise level of s."""
    x, schedule = prediction.x_t, prediction.schedule
    ratio = schedule.alpha(s) / schedule.alpha(prediction.t)
    return expand_to(ratio, x) * x + expand_to(schedule.sigma(s) - ratio * schedule.sigma(prediction.t), x) * eps


def edm(
    denoiser: DenoiserFunction,
    x_T: Tensor,
    ts: Tensor,
    *,
    y: Tensor | None = None,
    generator: torch.Generator | None = None,
    churn: float = 0.0,
    churn_range: tuple[float, float] = (0.0, float("inf")),
    inflate: float = 1.0,
) -> Iterator[Step]:
    """Heun's method for x / alpha in the noise level, with noise stirred in before each step (Karras et al. 2022, Alg. 2).

    churn: S_churn; in K steps each raises the level by a factor 1 + min(churn / K, sqrt(2) - 1) where it lies in
    `churn_range`, [S_min, S_max], but never above that of the schedule's t_max; 0 is deterministic. inflate: S_noise.
    Order 2 without churn. The step to t = 0 is Euler's: 2 K - 1 evaluations. Raises ValueError for churn < 0.
    """
    if not 0 <= churn < float("inf"):
        raise ValueError(f"churn must be at least 0, got {churn}")
    check_grid(ts)
    gamma = min(churn / (len(ts) - 1), 2**0.5 - 1)

    def stir(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        schedule = denoiser.schedule
        level = schedule.noise_level(t)
        if not churn_range[0] <= level <= churn_range[1] or t >= schedule.t_max:
            return x, t
        raised = time_at_log_snr(schedule, -2 * (level * (1 + gamma)).log(), ends=(float(t), schedule.t_max))
        alpha_ts, variance_ts = transition(schedule, raised, t)
        fresh = expand_to(inflate * variance_ts.sqrt(), x) * normal_like(x, generator)
        return expand_to(alpha_ts, x) * x + fresh, raised

    def rule(prediction: Prediction, s: Tensor) -> Tensor:
        x = ddim_step(prediction, s, prediction.eps)
        if s == 0:
            return x
        return ddim_step(prediction, s, (prediction.eps + denoiser(x, s, y).eps) / 2)

    return walk(denoiser, x_T, ts, y, rule, before=stir if gamma > 0 else None)


ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def multistep(
    denoiser: DenoiserFunction,
    x_T: Tensor,
    ts: Tensor,
    *,
    y: Tensor | None = None,
    order: int = 4,
    even: bool = True,
) -> Iterator[Step]:
    """DDIM's step along a combination of the last `order` predictions of eps: Adams-Bashforth. One evaluation a step.

    even=True: the coefficients of equal steps whatever the grid is: iPNDM (Zhang & Chen 2023), after PNDM (Liu et al.
    2022). even=False: those of the grid's own noise levels (rhoAB-DEIS, Zhang & Chen 2023). The first steps use
    fewer predictions, and the step to t = 0 only the last one: it returns x0_hat. Order: `order` for even=False away
    from the start, but 2 at most for even=True, unless the grid is even in sigma / alpha. Raises ValueError unless
    order is 1 ... 4.
    """
    if order not in (1, 2, 3, 4):
        raise ValueError(f"order must be 1, 2, 3 or 4, got {order}")
    slopes: list[Tensor] = []
    levels: list[Tensor] = []

    def rule(prediction: Prediction, s: Tensor) -> Tensor:
        slopes.insert(0, prediction.eps)
        levels.insert(0, prediction.schedule.noise_level(prediction.t))
        del slopes[order:], levels[order:]
        if s == 0:
            return ddim_step(prediction, s, slopes[0])
        if even:
            weights: Any = ADAMS_BASHFORTH[len(slopes) - 1]
        else:
            weights = adams_bashforth(torch.stack(levels), prediction.schedule.noise_level(s))
        return ddim_step(prediction, s, sum(float(w) * slope for w, slope in zip(weights, slopes, strict=True)))

    return walk(denoiser, x_T, ts, y, rule)


def adams_bashforth(nodes: Tensor, to: Tensor) -> Tensor:
    """Weights (k,) with sum_j w_j f(nodes_j) = mean of f between nodes_0 and `to`, for polynomials f of degree < k.

    nodes: (k,), all different, the latest first; to: (). With even steps: `ADAMS_BASHFORTH`.
    """
    u = ((nodes - nodes[0]) / (to - nodes[0])).double()  # 0 at the latest, 1 at the end of the step
    powers = torch.arange(len(u), dtype=torch.float64, device=u.device)
    return torch.linalg.solve(u[None] ** powers[:, None], 1 / (powers + 1))


def dpm_solver_pp(
    denoiser: DenoiserFunction,
    x_T: Tensor,
    ts: Tensor,
    *,
    y: Tensor | None = None,
    order: int = 2,
) -> Iterator[Step]:
    """DPM-Solver++ in its multistep form (Lu et al. 2022b, Alg. 2): x0_hat held, or extrapolated linearly, in the log-SNR.

    order: 1, which is DDIM, or 2 ("2M"). One evaluation a step. The first step has order 1, and so has the one to t = 0: it
    returns x0_hat. Raises ValueError for another order.
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order}")
    last: list[tuple[Tensor, Tensor]] = []  # half log-SNR and x0_hat of the step before

    def rule(prediction: Prediction, s: Tensor) -> Tensor:
        schedule, x0 = prediction.schedule, prediction.x0
        now, target = schedule.log_snr(prediction.t) / 2, prediction.x0
        if order == 2 and last and s > 0:
            h, h_before = schedule.log_snr(s) / 2 - now, now - last[0][0]
            target = x0 + expand_to(h / (2 * h_before), x0) * (x0 - last[0][1])
        last[:] = [(now, x0)]
        ratio = schedule.sigma(s) / schedule.sigma(prediction.t)
        gain = schedule.alpha(s) - ratio * schedule.alpha(prediction.t)  # = -alpha_s (e^-h - 1)
        return expand_to(ratio, x0) * prediction.x_t + expand_to(gain, x0) * target

    return walk(denoiser, x_T, ts, y, rule)


# --- inpainting ---------------------------------------------------------------------------------------


def inpaint(
    denoiser: DenoiserFunction,
    x_T: Tensor,
    ts: Tensor,
    known: Tensor,
    mask: Tensor,
    *,
    y: Tensor | None = None,
    generator: torch.Generator | None = None,
    resamplings: int = 1,
) -> Iterator[Step]:
    """Ancestral sampling in which the known part is replaced at every time by known data, noised to that time.

    known: like x_T, the data where mask is 1; mask: 1 (known) or 0, shaped to multiply x_T. resamplings = r > 1 noises the
    merged state back from s to t and steps again, r - 1 times (RePaint, Lugmayr et al. 2022, Alg. 1, with jumps of one
    step). r evaluations a step. Not exact: even with the exact score the parts agree only in part, more so for larger r.
    Raises ValueError for a mask of other numbers, shapes that disagree, or resamplings < 1.
    """
    fits = all(m in (1, n) for m, n in zip(mask.shape[::-1], x_T.shape[::-1], strict=False))
    if known.shape != x_T.shape or mask.ndim > x_T.ndim or not fits:
        raise ValueError(
            f"known and mask must fit x_T, {tuple(x_T.shape)}, got {tuple(known.shape)} and {tuple(mask.shape)}"
        )
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError("a mask holds 1 where the data are known and 0 elsewhere")
    if resamplings < 1 or resamplings != int(resamplings):
        raise ValueError(f"resamplings must be a whole number of at least 1, got {resamplings}")

    def rule(prediction: Prediction, s: Tensor) -> Tensor:
        schedule, t = prediction.schedule, prediction.t
        x = merged_step(prediction, s, known, mask, generator)
        for _ in range(int(resamplings) - 1):
            alpha_ts, variance_ts = transition(schedule, t, s)
            x = expand_to(alpha_ts, x) * x + expand_to(variance_ts.sqrt(), x) * normal_like(x, generator)
            x = merged_step(denoiser(x, t, y), s, known, mask, generator)
        return x

    return walk(denoiser, x_T, ts, y, rule)


def merged_step(
    prediction: Prediction, s: Tensor, known: Tensor, mask: Tensor, generator: torch.Generator | None
) -> Tensor:
    """One ancestral step to `s` where mask is 0, and known data noised to `s` where it is 1; the parts share one draw."""
    mean, std = posterior(prediction.schedule, prediction.x0, prediction.x_t, prediction.t, s)
    if s == 0:
        return torch.where(mask == 1, known, mean)
    z = normal_like(mean, generator)
    return torch.where(mask == 1, q_sample(prediction.schedule, known, s, z), mean + expand_to(std, mean) * z)


# By the names that the command line and the widgets give them.
SAMPLERS: dict[str, Callable[..., Iterator[Step]]] = {
    "analytic": ancestral,  # with the best variance of each step
    "ancestral": ancestral,
    "ddim": ddim,
    "dpm-solver++": dpm_solver_pp,
    "edm": edm,
    "edm-churn": partial(edm, churn=10),
    "euler-maruyama": euler_maruyama,
    "heun": probability_flow,
    "ipndm": multistep,
    "predictor-corrector": predictor_corrector,
}
NEEDS_GENERATOR = ("analytic", "ancestral", "ddim", "edm-churn", "euler-maruyama", "predictor-corrector")
TWICE_A_STEP = ("edm", "edm-churn", "heun", "predictor-corrector")  # but for the step to t = 0


def check_sampler(name: str) -> None:
    """Raise ValueError unless `name` is one of SAMPLERS."""
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}; known: {', '.join(SAMPLERS)}")


def evaluations(sampler: str, steps: int) -> int:
    """Network evaluations of one image, for a name in SAMPLERS; with guidance each costs twice. ValueError for others."""
    check_sampler(sampler)
    return 2 * steps - 1 if sampler in TWICE_A_STEP else steps


def steps_within(sampler: str, budget: int) -> int:
    """The largest number of steps that a budget of evaluations allows, for a name in SAMPLERS; ValueError for others."""
    check_sampler(sampler)
    return (budget + 1) // 2 if sampler in TWICE_A_STEP else budget
