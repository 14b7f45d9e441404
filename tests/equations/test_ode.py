"""The equations of `book/ode.md`."""

from math import e, log, log2, pi, sqrt

import pytest
import sympy as sp
import torch
from torch import Tensor

from diffusion_edu.analytic import GaussianMixture, standard_normal_log_density
from diffusion_edu.denoisers import DenoiserFunction
from diffusion_edu.likelihood import (
    BIN,
    bits_per_dim,
    draw_probes,
    encode,
    hutchinson,
    likelihood_grid,
    ode_log_likelihoods,
)
from diffusion_edu.samplers import ddim, probability_flow, runge_kutta_step, sample
from diffusion_edu.schedules import Cosine, Flow, LinearBeta, Schedule, time_at_log_snr
from tests.equations import equation

F64 = torch.float64
SCHEDULES = [LinearBeta(), Cosine(), Flow()]
H = 1e-4  # of central differences: their error is about H^2 times a third derivative

# symbols: a Gaussian marginal N(a m, s^2) under f and g
X, T, M, C = sp.symbols("x t m c", real=True)
A, S = sp.Function("alpha", positive=True)(T), sp.Function("sigma", positive=True)(T)
F = sp.diff(A, T) / A
G2 = sp.diff(S**2, T) - 2 * F * S**2
V_T = A**2 * C**2 + S**2
LOG_Q = -((X - A * M) ** 2) / (2 * V_T) - sp.log(2 * sp.pi * V_T) / 2  # log of the Gaussian marginal


def is_zero(expression) -> bool:
    """Whether a rational expression in alpha, sigma and their derivatives vanishes."""
    return sp.cancel(sp.together(expression.doit())) == 0


def time(value: float) -> Tensor:
    return torch.tensor(value, dtype=F64)


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=F64)


def lumps() -> GaussianMixture:
    """Three unequal lumps on the line."""
    means = torch.tensor([[-1.0], [0.3], [1.2]], dtype=F64)
    return GaussianMixture(means, torch.tensor([0.2, 0.3, 0.25], dtype=F64), torch.tensor([0.5, 0.2, 0.3], dtype=F64))


def plane() -> GaussianMixture:
    """The book's mixture in the plane."""
    means = torch.tensor([[-1.2, 0.3], [0.9, 1.0], [0.4, -1.1]], dtype=F64)
    return GaussianMixture(means, torch.tensor([0.3, 0.4, 0.25], dtype=F64), torch.tensor([0.2, 0.5, 0.3], dtype=F64))


def density(x: Tensor, schedule: Schedule, t: float) -> Tensor:
    return lumps().log_density(x[:, None], schedule, time(t)).exp()


def velocity(x: Tensor, schedule: Schedule, t: float, factor: float = 0.5) -> Tensor:
    """f x - factor g^2 score on the line."""
    score = lumps().score(x[:, None], schedule, time(t))[:, 0]
    return schedule.drift(time(t)) * x - factor * schedule.diffusion_squared(time(t)) * score


def d_dx(function, x: Tensor) -> Tensor:
    return (function(x + H) - function(x - H)) / (2 * H)


GRID = torch.linspace(-4, 4, 401, dtype=F64)


@equation("eq-ode-fokker-planck", method="symbolic", tolerance="exact (Gaussian data, any alpha and sigma)")
def test_fokker_planck_of_a_gaussian():
    slope, curvature = sp.diff(LOG_Q, X), sp.diff(LOG_Q, X, 2)

    def residual(half):  # both sides over q: q' / q = (log q)', q'' / q = (log q)'' + (log q)'^2
        return sp.diff(LOG_Q, T) + F + F * X * slope - half * G2 * (curvature + slope**2)

    assert is_zero(residual(sp.Rational(1, 2)))
    assert not is_zero(residual(1))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@equation("eq-ode-fokker-planck", method="exact", tolerance="1e-5 (central differences of step 1e-4)")
def test_fokker_planck_of_a_mixture(schedule):
    f, g2 = schedule.drift(time(0.3)), schedule.diffusion_squared(time(0.3))
    change = (density(GRID, schedule, 0.3 + H) - density(GRID, schedule, 0.3 - H)) / (2 * H)
    drift = d_dx(lambda x: f * x * density(x, schedule, 0.3), GRID)
    ends = density(GRID + H, schedule, 0.3) + density(GRID - H, schedule, 0.3)
    curvature = (ends - 2 * density(GRID, schedule, 0.3)) / H**2
    assert float((change + drift - g2 / 2 * curvature).abs().max()) < 1e-5
    assert float((change + drift - g2 * curvature).abs().max()) > 0.1


@equation("eq-ode-diffusion-as-flow", method="symbolic", tolerance="exact (any positive density)")
def test_diffusion_as_flow():
    q, g = sp.Function("q", positive=True)(X), sp.symbols("g", positive=True)
    flow = -sp.diff(-(g**2) / 2 * sp.diff(sp.log(q), X) * q, X)
    assert sp.simplify(g**2 / 2 * sp.diff(q, X, 2) - flow) == 0
    assert sp.simplify(g**2 / 2 * sp.diff(q, X, 2) + flow) != 0  # the other sign


@equation("eq-ode-velocity", method="symbolic", tolerance="exact (Gaussian data, any alpha and sigma)")
def test_velocity_moves_the_gaussian():
    score = sp.diff(LOG_Q, X)

    def residual(factor):  # the continuity equation over q
        v = F * X - factor * G2 * score
        return sp.diff(LOG_Q, T) + sp.diff(v, X) + v * score

    assert is_zero(residual(sp.Rational(1, 2)))
    assert not is_zero(residual(1)) and not is_zero(residual(-sp.Rational(1, 2)))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@equation("eq-ode-velocity", method="exact", tolerance="1e-12 (the package's velocity is the formula)")
def test_velocity_of_the_package(schedule):
    found = lumps().denoiser(schedule)(GRID[:, None], time(0.4)).velocity[:, 0]
    torch.testing.assert_close(found, velocity(GRID, schedule, 0.4), rtol=1e-12, atol=1e-12)
    assert float((found - velocity(GRID, schedule, 0.4, factor=1)).abs().max()) > 0.1


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@equation("eq-ode-continuity", method="exact", tolerance="1e-5 (central differences of step 1e-4)")
def test_continuity_on_a_grid(schedule):
    change = (density(GRID, schedule, 0.3 + H) - density(GRID, schedule, 0.3 - H)) / (2 * H)

    def residual(factor):
        outflow = d_dx(lambda x: velocity(x, schedule, 0.3, factor) * density(x, schedule, 0.3), GRID)
        return float((change + outflow).abs().max())

    assert residual(0.5) < 1e-5
    assert residual(1.0) > 0.1 and residual(-0.5) > 0.1


@equation("eq-ode-test-function", method="exact", tolerance="1e-6 (grid sums and central differences)")
def test_one_test_function():
    schedule, x = LinearBeta(), torch.linspace(-8, 8, 8_001, dtype=F64)
    dx = x[1] - x[0]
    phi = (-((x + 1) ** 2)).exp()
    slope = -2 * (x + 1) * phi
    rate = (phi * (density(x, schedule, 0.3 + H) - density(x, schedule, 0.3 - H))).sum() * dx / (2 * H)
    weak = (slope * velocity(x, schedule, 0.3) * density(x, schedule, 0.3)).sum() * dx
    divergence = d_dx(lambda x: velocity(x, schedule, 0.3) * density(x, schedule, 0.3), x)
    assert abs(float(rate - weak)) < 1e-6
    assert abs(float(rate + (phi * divergence).sum() * dx)) < 1e-6
    assert abs(float(rate + (slope * divergence).sum() * dx)) > 0.02  # the gradient kept: counted twice


@equation("eq-ode-velocity-mean", method="symbolic", tolerance="exact (x = alpha x0 + sigma eps put in)")
def test_velocity_is_an_average():
    x0, eps = sp.symbols("x0 epsilon", real=True)
    v = F * (A * x0 + S * eps) + G2 / (2 * S) * eps  # -g^2 score / 2 with score = -eps / sigma
    assert sp.simplify(v - sp.diff(A, T) * x0 - sp.diff(S, T) * eps) == 0
    whole = F * (A * x0 + S * eps) + G2 / S * eps
    assert sp.simplify(whole - sp.diff(A, T) * x0 - sp.diff(S, T) * eps) != 0


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@equation("eq-ode-velocity-mean", method="exact", tolerance="1e-9 (the average over x_0 on a grid of step 1e-3)")
def test_velocity_is_the_average_of_examples(schedule):
    t, x = time(0.4), 0.35
    x0 = torch.linspace(-6, 6, 12_001, dtype=F64)
    eps = (x - schedule.alpha(t) * x0) / schedule.sigma(t)
    weight = (lumps().log_density(x0[:, None]) - eps**2 / 2).softmax(0)  # q(x_0 | x_t = x)
    d_alpha, d_sigma = ((c(t + 1e-5) - c(t - 1e-5)) / 2e-5 for c in (schedule.alpha, schedule.sigma))
    average = float((weight * (d_alpha * x0 + d_sigma * eps)).sum())
    found = float(velocity(torch.tensor([x], dtype=F64), schedule, 0.4))
    assert average == pytest.approx(found, rel=1e-7, abs=1e-9)  # 1e-5 squared, from the differences
    assert average != pytest.approx(float(velocity(torch.tensor([x], dtype=F64), schedule, 0.4, 1.0)), rel=1e-2)


@equation("eq-ode-gaussian-map", method="symbolic", tolerance="exact (the path solves the ODE)")
def test_gaussian_map_solves_the_ode():
    s, k = sp.sqrt(V_T), sp.symbols("k", real=True)
    path = A * M + k * s
    score = -(path - A * M) / V_T
    assert sp.simplify(sp.diff(path, T) - (F * path - G2 / 2 * score)) == 0
    other = A * M + k * V_T  # variances for standard deviations
    assert sp.simplify(sp.diff(other, T) - (F * other + G2 / 2 * (other - A * M) / V_T)) != 0


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@equation("eq-ode-gaussian-map", method="exact", tolerance="1e-5 (Runge-Kutta with 40 steps)")
def test_gaussian_map_by_the_package(schedule):
    data = GaussianMixture(torch.tensor([[0.7]], dtype=F64), 0.4)
    ts, x0 = likelihood_grid(schedule, 40), torch.tensor([[-0.2], [0.7], [1.5]], dtype=F64)
    a, b = (
        schedule.alpha(ts[[0, -1]]),
        (schedule.alpha(ts[[0, -1]]) ** 2 * 0.16 + schedule.sigma(ts[[0, -1]]) ** 2).sqrt(),
    )
    end = encode(data.denoiser(schedule), x0, ts, method="rk4")
    torch.testing.assert_close((end - a[1] * 0.7) / b[1], (x0 - a[0] * 0.7) / b[0], rtol=1e-5, atol=1e-5)


@equation("eq-ode-rank", method="exact", tolerance="1e-5 (Runge-Kutta with 60 steps)")
def test_ranks_are_kept():
    data, schedule = lumps(), LinearBeta()
    ts, x0 = likelihood_grid(schedule, 60), torch.linspace(-1.4, 1.6, 9, dtype=F64)[:, None]

    def below(x, t):
        scale = ((schedule.alpha(t) * data.stds) ** 2 + schedule.sigma(t) ** 2).sqrt()
        return (data.weights * torch.special.ndtr((x - schedule.alpha(t) * data.means.T) / scale)).sum(1)

    end = encode(data.denoiser(schedule), x0, ts, method="rk4")
    torch.testing.assert_close(below(end, ts[-1]), below(x0, ts[0]), rtol=0, atol=1e-5)
    assert float((below(schedule.alpha(ts[-1]) * x0, ts[-1]) - below(x0, ts[0])).abs().max()) > 0.1


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@equation("eq-ode-ddim", method="exact", tolerance="1e-7 (central differences) and 1e-12 (the step)")
def test_ddim_is_eulers_method(schedule):
    denoiser, t, s, x = plane().denoiser(schedule), time(0.5), time(0.4), normal(6, 2, seed=0)
    p, level = denoiser(x, t), lambda t: schedule.sigma(t) / schedule.alpha(t)
    d_level = (level(t + 1e-5) - level(t - 1e-5)) / 2e-5
    d_x_bar = (p.velocity - schedule.drift(t) * x) / schedule.alpha(t)  # d (x / alpha) / dt
    torch.testing.assert_close(d_x_bar, d_level * p.eps, rtol=1e-7, atol=1e-7)
    euler = schedule.alpha(s) * (x / schedule.alpha(t) + (level(s) - level(t)) * p.eps)
    torch.testing.assert_close(sample(ddim(denoiser, x, torch.stack([t, s]))), euler, rtol=1e-12, atol=1e-12)
    plain = sample(probability_flow(denoiser, x, torch.stack([t, s]), method="euler"))
    same = float((plain - euler).abs().max()) < 1e-12  # Euler in t is another step, but where x_t is linear in t
    assert same == isinstance(schedule, Flow)


def heun(v, x, t, s, end_at_old_point=False):
    k1 = v(x, t)
    k2 = v(x if end_at_old_point else x + (s - t) * k1, s)
    return x + (s - t) * (k1 + k2) / 2


def rk4(v, x, t, s):
    h, middle = s - t, (t + s) / 2
    k1 = v(x, t)
    k2 = v(x + h / 2 * k1, middle)
    k3 = v(x + h / 2 * k2, middle)
    return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + v(x + h * k3, s))


def order(step, counts) -> float:
    """Fitted order on Gaussian data, whose flow is known in closed form."""
    schedule, c = LinearBeta(), 0.5
    v = GaussianMixture(torch.zeros(1, 1, dtype=F64), c).denoiser(schedule)
    errors = []
    for n in counts:
        ts, x = torch.linspace(0.9, 0.1, n + 1, dtype=F64), torch.ones(1, 1, dtype=F64)
        for t, s in zip(ts[:-1], ts[1:], strict=True):
            x = step(lambda x, t: v(x, t).velocity, x, t, s)
        ends = (schedule.alpha(ts[[0, -1]]) ** 2 * c**2 + schedule.sigma(ts[[0, -1]]) ** 2).sqrt()
        errors.append(abs(float(x - ends[1] / ends[0])))
    return log(errors[0] / errors[1]) / log(counts[1] / counts[0])


@equation("eq-ode-heun", method="exact", tolerance="0.15 (fitted order 2; the package's step to 1e-14)")
def test_heun():
    assert order(heun, (40, 80)) == pytest.approx(2, abs=0.15)
    assert order(lambda *a: heun(*a, end_at_old_point=True), (40, 80)) < 1.3  # the famous slip is of order 1
    same_as_package(heun, "heun")


@equation("eq-ode-rk4", method="exact", tolerance="0.25 (fitted order 4; the package's step to 1e-14)")
def test_rk4():
    assert order(rk4, (20, 40)) == pytest.approx(4, abs=0.25)
    same_as_package(rk4, "rk4")


def same_as_package(step, method):
    denoiser, x = plane().denoiser(Cosine()), normal(5, 2, seed=1)

    def v(x, t):
        return denoiser(x, t).velocity

    ours, theirs = step(v, x, time(0.6), time(0.5)), runge_kutta_step(v, x, time(0.6), time(0.5), method)
    torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=1e-14)


@equation("eq-ode-slerp", method="symbolic", tolerance="exact (length and ends)")
def test_slerp_keeps_the_length():
    u, angle, r = sp.symbols("u theta r", positive=True)
    first, second = sp.sin((1 - u) * angle) / sp.sin(angle), sp.sin(u * angle) / sp.sin(angle)
    length = r**2 * (first**2 + second**2 + 2 * first * second * sp.cos(angle))
    assert sp.simplify(sp.expand_trig(sp.expand(length - r**2))) == 0
    assert (first.subs(u, 0), sp.simplify(second.subs(u, 1)), second.subs(u, 0)) == (1, 1, 0)
    line = r**2 * ((1 - u) ** 2 + u**2 + 2 * u * (1 - u) * sp.cos(angle))
    assert sp.simplify(line.subs({u: sp.Rational(1, 2), angle: sp.pi / 2}) - r**2 / 2) == 0  # a line is too short


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@equation("eq-ode-log-density", method="exact", tolerance="1e-6 (a short path and central differences)")
def test_log_density_along_a_path(schedule):
    data, t = plane(), time(0.4)
    denoiser, x = data.denoiser(schedule), torch.tensor([[0.3, 0.2], [-1.0, 0.5]], dtype=F64)

    def v(x, t):
        return denoiser(x, t).velocity

    ahead, behind = (runge_kutta_step(v, x, t, t + h, "rk4") for h in (H, -H))
    change = (data.log_density(ahead, schedule, t + H) - data.log_density(behind, schedule, t - H)) / (2 * H)
    shift = torch.eye(2, dtype=F64) * H
    divergence = sum((v(x + e, t) - v(x - e, t))[:, i] / (2 * H) for i, e in enumerate(shift))
    torch.testing.assert_close(change, -divergence, rtol=1e-6, atol=1e-6)
    assert float((change - divergence).abs().max()) > 0.1  # the other sign
    still = (data.log_density(x, schedule, t + H) - data.log_density(x, schedule, t - H)) / (2 * H)
    assert float((still + divergence).abs().max()) > 1e-2  # at a fixed place it is another number


@equation("eq-ode-likelihood", method="symbolic", tolerance="exact (Gaussian data: the divergence is (log s_t)')")
def test_likelihood_of_a_gaussian():
    s, k = sp.sqrt(V_T), sp.symbols("k", real=True)
    v = F * X + G2 / 2 * (X - A * M) / V_T
    assert sp.simplify(sp.diff(v, X) - sp.diff(sp.log(s), T)) == 0
    along = LOG_Q.subs(X, A * M + k * s)
    assert sp.simplify(sp.diff(along, T) + sp.diff(v, X)) == 0  # so log q_0 = log q_T + log (s_T / s_0)
    assert sp.simplify(sp.diff(along, T) - sp.diff(v, X)) != 0


@pytest.mark.parametrize("schedule", [LinearBeta(), Cosine()], ids=str)
@equation("eq-ode-likelihood", method="exact", tolerance="2e-4 nats (Runge-Kutta with 60 steps)")
def test_likelihood_of_the_package(schedule):
    data, x0 = plane(), plane().sample(20, seeded(2))
    ts = likelihood_grid(schedule, 60)
    found = ode_log_likelihoods(data.denoiser(schedule), x0, ts, method="rk4")[0]
    alpha = schedule.alpha(ts[0])
    blurred = data.log_density(alpha * x0, schedule, ts[0]) + 2 * alpha.log()
    end = encode(data.denoiser(schedule), alpha * x0, ts, method="rk4")
    change = found - standard_normal_log_density(end)
    torch.testing.assert_close(change + data.log_density(end, schedule, ts[-1]), blurred, rtol=0, atol=2e-4)
    torch.testing.assert_close(found, blurred, rtol=0, atol=2e-2)  # the prior for q_T
    assert float((standard_normal_log_density(end) - change - blurred).abs().mean()) > 1  # the other sign


@equation("eq-ode-scale", method="exact", tolerance="1e-12 (the mixture blurred by sigma / alpha, in closed form)")
def test_change_of_scale():
    data, schedule, t, x0 = plane(), LinearBeta(), time(0.05), plane().sample(9, seeded(3))
    level = schedule.sigma(t) / schedule.alpha(t)
    blurred = GaussianMixture(data.means, (data.stds**2 + level**2).sqrt(), data.weights).log_density(x0)
    alpha = schedule.alpha(t)
    found = data.log_density(alpha * x0, schedule, t)
    torch.testing.assert_close(found + 2 * alpha.log(), blurred, rtol=1e-12, atol=1e-12)
    assert float((found - blurred).abs().min()) > 1e-2  # the scale forgotten
    assert float((found + alpha.log() - blurred).abs().min()) > 1e-2  # one dimension for two


JACOBIAN = torch.tensor([[1.0, 2.0, 0.0], [-0.5, 3.0, 1.0], [0.7, 0.0, -1.0]], dtype=F64)
SYMMETRIC = (JACOBIAN + JACOBIAN.T) / 2


def estimates(kind: str, count: int = 40_000) -> Tensor:
    """Hutchinson's estimates for the linear field x -> J x, by the package."""
    x = torch.zeros(count, 3, dtype=F64)
    return hutchinson(lambda x: x @ JACOBIAN.T, x, draw_probes(x, 1, kind, seeded(4)))[1][0]


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
@equation("eq-ode-hutchinson", method="monte carlo", tolerance="4 standard errors of 40,000 probes")
def test_probes_are_unbiased(kind):
    found = estimates(kind)
    error = float(found.std()) / len(found) ** 0.5
    trace = float(JACOBIAN.trace())
    assert abs(float(found.mean()) - trace) < 4 * error
    for wrong in (trace / 3, -trace, float((JACOBIAN**2).sum()), 3.0 + 1):  # mean for sum, sign, |J|^2
        assert abs(float(found.mean()) - wrong) > 4 * error


def variance_and_error(values: Tensor) -> tuple[float, float]:
    squares = (values - values.mean()) ** 2
    return float(squares.mean()), float(squares.std()) / len(values) ** 0.5


@equation("eq-ode-rademacher", method="exact", tolerance="1e-12 (all eight sign probes of three dimensions)")
def test_variance_of_sign_probes():
    z = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=F64)] * 3)
    values = ((z @ JACOBIAN) * z).sum(1)
    off = SYMMETRIC - SYMMETRIC.diagonal().diag()
    assert float(values.var(correction=0)) == pytest.approx(float(2 * (off**2).sum()), rel=1e-12)
    assert float(2 * ((JACOBIAN - JACOBIAN.diagonal().diag()) ** 2).sum()) != pytest.approx(
        float(values.var()), rel=0.1
    )
    variance, error = variance_and_error(estimates("rademacher"))
    assert abs(variance - float(2 * (off**2).sum())) < 4 * error


@equation("eq-ode-gaussian-probe", method="monte carlo", tolerance="4 standard errors of 40,000 probes")
def test_variance_of_gaussian_probes():
    variance, error = variance_and_error(estimates("gaussian"))
    assert abs(variance - float(2 * (SYMMETRIC**2).sum())) < 4 * error
    for wrong in (2 * (JACOBIAN**2).sum(), (SYMMETRIC**2).sum()):  # not symmetrised; no factor 2
        assert abs(variance - float(wrong)) > 4 * error


def bound(denoiser: DenoiserFunction, x0: float, cells: int, half: float = 0.5) -> float:
    """The ELBO of one point on the line by quadrature over the log-SNR and over the noise."""
    schedule = denoiser.schedule
    ends = likelihood_grid(schedule, 1)
    low, high = schedule.log_snr(ends[1]), schedule.log_snr(ends[0])
    lam = low + (high - low) * (torch.arange(cells, dtype=F64) + 0.5) / cells
    ts = time_at_log_snr(schedule, lam)
    eps = torch.linspace(-7, 7, 281, dtype=F64)
    weight = (-(eps**2) / 2).softmax(0)
    errors = []
    for t in ts:
        x0_hat = denoiser((schedule.alpha(t) * x0 + schedule.sigma(t) * eps)[:, None], t).x0[:, 0]
        errors.append((weight * (x0 - x0_hat) ** 2).sum())
    diffusion = half * float((lam.exp() * torch.stack(errors)).sum() * (high - low) / cells)
    alpha, variance = float(schedule.alpha(ends[1])), float(schedule.sigma(ends[1]) ** 2)
    kl = ((alpha * x0) ** 2 + variance - 1 - log(variance)) / 2
    return -(kl + diffusion + log(2 * pi * e * exp_minus(high)) / 2)


def exp_minus(log_snr: Tensor) -> float:
    return float((-log_snr).exp())


@pytest.mark.parametrize("x0", [-1.0, 0.6, 1.9])
@equation("eq-ode-bound", method="exact", tolerance="1e-2 nats (quadrature; the decoder's gap at t_min)")
def test_the_bound_is_tight_for_the_exact_score(x0):
    true = float(lumps().log_density(torch.tensor([[x0]], dtype=F64)))
    assert bound(lumps().denoiser(LinearBeta()), x0, 250) == pytest.approx(true, abs=1e-2)
    assert abs(bound(lumps().denoiser(LinearBeta()), x0, 60, half=1.0) - true) > 0.5  # the half forgotten


@equation(
    "eq-ode-bound",
    method="exact",
    tolerance="0.05 nats (below the truth by more, on average, for a wrong denoiser)",
)
def test_the_bound_is_below_for_a_wrong_score():
    wider = GaussianMixture(lumps().means, lumps().stds * 1.5, lumps().weights).denoiser(LinearBeta())
    x0 = torch.linspace(-2.5, 2.5, 26, dtype=F64)
    log_q = lumps().log_density(x0[:, None])
    weight = log_q.exp() / log_q.exp().sum()
    gap = sum(
        float(w) * (bound(wider, float(x), 40) - float(true)) for x, w, true in zip(x0, weight, log_q, strict=True)
    )
    assert gap < -0.05


@equation("eq-ode-dequantised", method="exact", tolerance="1e-6 (fine grids within the bins)")
def test_dequantisation_is_a_bound():
    values = torch.arange(256, dtype=F64) * BIN - 1
    u = (torch.arange(400, dtype=F64) + 0.5) / 400 * BIN - BIN / 2
    slope = GaussianMixture(torch.tensor([[-0.9], [0.3]], dtype=F64), torch.tensor([0.02, 0.4], dtype=F64))
    log_p = slope.log_density((values[:, None] + u).reshape(-1, 1)).reshape(256, 400)
    log_P = log(BIN) + log_p.exp().mean(1).log()
    lower = log(BIN) + log_p.mean(1)
    assert bool((lower <= log_P + 1e-12).all()) and float((log_P - lower).max()) > 1e-3
    assert float(log_P.exp().sum()) == pytest.approx(1, abs=0.05)  # but for the tails beyond [-1, 1]
    assert float((log_P - log(BIN)).exp().sum()) > 100  # without the bin these are no probabilities


@equation("eq-ode-bits", method="exact", tolerance="1e-12 (a uniform density costs exactly 8 bits over 256 bins)")
def test_bits_of_a_uniform_density():
    d = 784
    nats = torch.tensor(d * log(256 * BIN), dtype=F64)  # minus log of 1 / (256 bins), d times
    found = float(bits_per_dim(nats, d))
    assert found == pytest.approx(8, abs=1e-12)
    assert found == pytest.approx(float(nats) / d / log(2) + log2(127.5), abs=1e-12)
    for width in (1 / 255, 2 / 256, 1 / 256, 1.0):
        assert abs(float(nats) / d / log(2) - log2(width) - 8) > 1e-3
    assert sqrt(BIN**2) == 2 / 255
