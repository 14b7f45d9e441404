"""Samplers: from noise x_T along a decreasing grid of times to data.

Each is a generator of Step(t, x, prediction). One loop serves them all; a sampler is the rule for one step.
Any denoiser will do, exact or learned: `denoiser(x_t, t, y) -> Prediction`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffusion_edu.denoisers import DenoiserFunction
from diffusion_edu.process import Prediction, expand_to, posterior, transition

StepRule = Callable[[Prediction, Tensor], Tensor]
Slope = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Step:
    """State x (N, ...) at time t, reached by a step for which the denoiser gave `prediction` at the time before."""

    t: Tensor
    x: Tensor
    prediction: Prediction


def walk(denoiser: DenoiserFunction, x_T: Tensor, ts: Tensor, y: Tensor | None, rule: StepRule) -> Iterator[Step]:
    """The loop that all samplers share: predict at each time, let `rule(prediction, s)` lead to the next time s.

    ts: (K + 1,) strictly decreasing in [0, 1]; K steps. Raises ValueError for any other grid.
    """
    check_grid(ts)
    x = x_T
    for t, s in zip(ts[:-1], ts[1:], strict=True):
        with torch.no_grad():
            prediction = denoiser(x, t, y)
            x = rule(prediction, s)
        yield Step(s, x, prediction)


def check_grid(ts: Tensor) -> None:
    """Raise ValueError unless `ts` is a strictly decreasing 1-D grid of at least two times in [0, 1]."""
    if ts.ndim != 1 or len(ts) < 2:
        raise ValueError(f"a time grid is 1-D with at least two times, got shape {tuple(ts.shape)}")
    if not bool((ts[1:] < ts[:-1]).all()):
        raise ValueError(
            f"a sampler's time grid must decrease strictly, got {float(ts[0]):.4g} ... {float(ts[-1]):.4g}"
        )
    if float(ts[0]) > 1 or float(ts[-1]) < 0:
        raise ValueError(f"times must lie in [0, 1], got {float(ts[0]):.6g} to {float(ts[-1]):.6g}")


def sample(steps: Iterator[Step]) -> Tensor:
    """Run a sampler to its end and return the last x, (N, ...)."""
    x = None
    for step in steps:
        x = step.x
    return x


def normal_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise like `x`, drawn where the generator lives."""
    device = x.device if generator is None else generator.device
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device).to(x.device)


def ancestral(
    denoiser: DenoiserFunction,
    x_T: Tensor,
    ts: Tensor,
    *,
    y: Tensor | None = None,
    generator: torch.Generator | None = None,
    variance: str = "small",
) -> Iterator[Step]:
    """Draw x_s from q(x_s | x_t, x_0 = x0_hat): DDPM's sampler (Ho et al. 2020, Alg. 2). One evaluation a step.

    variance: "small", the posterior's own (beta tilde), or "large", that of q(x_t | x_s) (beta). Both are the paper's.
    The step to t = 0 adds no noise: the posterior's variance is 0 there, and for "large" it is left out.
    """
    if variance not in ("small", "large"):
        raise ValueError(f'variance must be "small" or "large", got {variance!r}')

    def rule(prediction: Prediction, s: Tensor) -> Tensor:
        mean, std = posterior(prediction.schedule, prediction.x0, prediction.x_t, prediction.t, s)
        if s == 0:
            return mean
        if variance == "large":
            std = transition(prediction.schedule, prediction.t, s)[1].sqrt()
        return mean + expand_to(std, mean) * normal_like(mean, generator)

    return walk(denoiser, x_T, ts, y, rule)


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
) -> Iterator[Step]:
    """Euler-Maruyama on the reverse SDE dx = (f x - g^2 score) dt + g dW, run backwards (Song et al. 2021b, Eq. 6).

    Weak order 1; one evaluation a step. No noise is added by a step that ends at t = 0.
    """

    def rule(prediction: Prediction, s: Tensor) -> Tensor:
        schedule, x, t = prediction.schedule, prediction.x_t, prediction.t
        g2 = schedule.diffusion_squared(t)
        slope = expand_to(schedule.drift(t), x) * x - expand_to(g2, x) * prediction.score
        x = x - expand_to(t - s, x) * slope
        return x if s == 0 else x + expand_to((g2 * (t - s)).sqrt(), x) * normal_like(x, generator)

    return walk(denoiser, x_T, ts, y, rule)


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
    Raises ValueError for times outside (0, 1] or an unknown solver.
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
        return slope(as_tensor(flat), time).detach().double().flatten().cpu().numpy()

    start = x.detach().double().flatten().cpu().numpy()
    found = solve_ivp(right_hand_side, (t_from, t_to), start, method=solver, rtol=rtol, atol=atol)
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
