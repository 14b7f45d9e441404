"""The equations of `book/sde.md`."""

from math import exp, log, sqrt

import numpy as np
import pytest
import sympy as sp
import torch
from torch import Tensor

from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.process import Prediction, transition
from diffusion_edu.samplers import corrected, euler_maruyama, sample
from diffusion_edu.schedules import (
    Cosine,
    Flow,
    LinearBeta,
    OrnsteinUhlenbeck,
    Schedule,
    Sigmoid,
    SubVariancePreserving,
    VarianceExploding,
    linear_betas,
)
from tests.equations import equation

F64 = torch.float64
SCHEDULES = [LinearBeta(), SubVariancePreserving(), VarianceExploding(0.1, 5), Cosine(), Sigmoid(), Flow()]
VP = LinearBeta()


def double(value) -> Tensor:
    return torch.tensor(value, dtype=F64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def line() -> GaussianMixture:
    return GaussianMixture(double([[-1.4], [0.1], [1.3]]), double([0.25, 0.15, 0.3]), double([0.35, 0.2, 0.45]))


def order(steps: list, errors: list) -> float:
    """Slope of -log error over log steps, by least squares."""
    x, y = double(steps).log(), -double(errors).log()
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


# --- Brownian motion and Ito's calculus -----------------------------------------------------------


def expectation(expression: sp.Expr, variances: dict) -> sp.Expr:
    """Mean of a polynomial in independent centred normal variables, by their even moments (n - 1)!! v^(n / 2)."""
    variables, total = list(variances), sp.Integer(0)
    for powers, coefficient in sp.Poly(sp.expand(expression), *variables).terms():
        term = coefficient
        for variable, n in zip(variables, powers, strict=True):
            term *= 0 if n % 2 else sp.factorial2(n - 1) * variances[variable] ** sp.Rational(n, 2) if n else 1
        total += term
    return sp.expand(total)


@equation("eq-sde-brownian", method="symbolic", tolerance="exact (moments of independent increments)")
def test_brownian():
    s, t = sp.symbols("s t", positive=True)
    first, second = sp.symbols("W_s D")  # W_s, and the increment from s to t
    variances = {first: s, second: t - s}
    assert expectation(first * (first + second), variances) == s  # min(s, t) for s < t
    assert sp.expand(expectation((first + second) ** 2, variances) - t) == 0  # so the whole has variance t
    assert expectation(first * (first + second), variances) != t  # and the maximum is refused


@equation("eq-sde-quadratic-variation", method="symbolic", tolerance="exact (fourth moment of a normal)")
def test_quadratic_variation():
    n = 4
    steps, t = sp.symbols(f"w0:{n}"), sp.Symbol("t", positive=True)
    variances = dict.fromkeys(steps, t / n)
    total = sum(w**2 for w in steps)
    mean = expectation(total, variances)
    variance = sp.expand(expectation(total**2, variances) - mean**2)
    assert mean == t
    assert sp.simplify(variance - 2 * t**2 / n) == 0
    assert sp.simplify(variance - t**2 / n) != 0  # as if the fourth moment were 2


@equation("eq-sde-isometry", method="symbolic", tolerance="exact (a sum of five intervals, u read at left ends)")
def test_isometry():
    n, h = 5, sp.Symbol("h", positive=True)
    w = sp.symbols(f"w0:{n}")
    variances = dict.fromkeys(w, h)
    u = [(k + 1) * sum(w[:k], sp.Integer(0)) + k for k in range(n)]  # knows the past only
    integral = sum(a * b for a, b in zip(u, w, strict=True))
    assert expectation(integral, variances) == 0
    squares = sum(expectation(a**2, variances) * h for a in u)
    assert sp.simplify(expectation(integral**2, variances) - squares) == 0
    peeping = sum((a + b) * b for a, b in zip(u, w, strict=True))  # u read at right ends: it knows the noise
    assert expectation(peeping, variances) == n * h


@equation("eq-sde-ito-integral", method="symbolic", tolerance="exact (an identity of sums, and their moments)")
def test_ito_integral():
    n, t = 6, sp.Symbol("t", positive=True)
    w = sp.symbols(f"w0:{n}")
    path = [sum(w[:k], sp.Integer(0)) for k in range(n + 1)]
    left = sum(path[k] * w[k] for k in range(n))
    both = sum((path[k] + path[k + 1]) / 2 * w[k] for k in range(n))
    squares = sum(a**2 for a in w)
    assert sp.expand(left - (path[-1] ** 2 - squares) / 2) == 0  # and the squares sum to t
    assert sp.expand(both - path[-1] ** 2 / 2) == 0  # read in the middle: the ordinary rule
    second = expectation(left**2, dict.fromkeys(w, t / n))
    assert sp.simplify(second - t**2 / 2 * (1 - sp.Rational(1, n))) == 0  # tends to t^2 / 2
    limit = sp.limit(t**2 / 2 * (1 - 1 / sp.Symbol("m")), sp.Symbol("m"), sp.oo)
    assert limit == t**2 / 2


@equation("eq-sde-ito-formula", method="symbolic", tolerance="exact (Taylor's series in the step, averaged over z)")
def test_ito_formula():
    x, t, h, z, b, g = sp.symbols("x t h z b g", real=True)
    r = sp.Symbol("r", positive=True)  # the root of h
    for phi in (x**2, x**4 * t, sp.exp(2 * x + t)):
        moved = phi.subs({x: x + b * r**2 + g * r * z, t: t + r**2}, simultaneous=True)
        series = sp.series(moved, r, 0, 3).removeO()
        mean = expectation(sp.expand(series), {z: sp.Integer(1)})
        rate = sp.diff(phi, t) + b * sp.diff(phi, x) + g**2 / 2 * sp.diff(phi, x, 2)
        assert sp.simplify(mean - phi - rate * r**2) == 0
        assert sp.simplify(sp.expand(series).coeff(r, 1) - g * sp.diff(phi, x) * z) == 0
        ordinary = rate - g**2 / 2 * sp.diff(phi, x, 2)
        assert sp.simplify(mean - phi - ordinary * r**2) != 0  # the ordinary chain rule


# --- linear SDEs ----------------------------------------------------------------------------------


@equation("eq-sde-linear-solution", method="symbolic", tolerance="exact (Ito's formula for x / alpha)")
def test_linear_solution():
    t, x = sp.symbols("t x")
    f = sp.Function("f")(t)
    alpha = sp.exp(sp.Integral(f, (t, 0, t)))
    phi = x / sp.Function("a")(t)
    drift = (sp.diff(phi, t) + f * x * sp.diff(phi, x)).subs(sp.diff(sp.Function("a")(t), t), f * sp.Function("a")(t))
    assert sp.simplify(drift) == 0
    assert sp.diff(phi, x, 2) == 0  # so Ito's extra term is 0
    assert sp.simplify(sp.diff(alpha, t) / alpha - f) == 0
    # the same solution along a path: the chain's Euler steps tend to it with the same increments
    gaps = []
    fine = normal(4096, seed=3) / 64
    for n in (512, 4096):
        dW, ts = fine.reshape(n, -1).sum(1), torch.linspace(0, 1, n + 1, dtype=F64)
        g = VP.diffusion_squared(ts[:-1]).sqrt()
        path = double(0.7)
        for k in range(n):
            path = path + VP.drift(ts[k]) * path / n + g[k] * dW[k]
        closed = VP.alpha(ts[-1]) * (0.7 + (g / VP.alpha(ts[:-1]) * dW).sum())
        gaps.append(float((path - closed).abs()))
    assert gaps[1] < gaps[0] / 3 < 0.1


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@equation("eq-sde-variance-integral", method="exact", tolerance="1e-6 (midpoint rule with 20,000 cells)")
def test_variance_integral(schedule: Schedule):
    edges = torch.linspace(0, 0.8, 20_001, dtype=F64)
    middle, t = (edges[1:] + edges[:-1]) / 2, edges[-1]
    g2, alpha = schedule.diffusion_squared(middle), schedule.alpha(middle)
    variance = float(schedule.alpha(t) ** 2 * (g2 / alpha**2 * edges.diff()).sum())
    assert variance == pytest.approx(float(schedule.sigma(t) ** 2), rel=1e-6)
    if not isinstance(schedule, VarianceExploding):
        assert variance != pytest.approx(float((g2 * edges.diff()).sum()), rel=0.1)  # noise that is not forgotten
    # covariance of two times: alpha_{t|s} Var(x_s) from the transition, and the same from the joint law given x_0
    s, v_0 = double(0.3), 0.2
    var_s = schedule.alpha(s) ** 2 * v_0 + schedule.sigma(s) ** 2
    ratio, _ = transition(schedule, t, s)
    shared = schedule.alpha(t) * schedule.alpha(s) * v_0  # the part due to x_0
    early = edges <= float(s)
    common = (g2 / alpha**2 * edges.diff())[early[1:]].sum()  # and the noise up to s, in both
    direct = shared + schedule.alpha(t) * schedule.alpha(s) * common
    assert float(ratio * var_s) == pytest.approx(float(direct), rel=1e-3)


@equation("eq-sde-moment-odes", method="symbolic", tolerance="exact (Ito's formula for x and x^2, averaged)")
def test_moment_odes():
    f, g, m, V, x = sp.symbols("f g m V x", real=True)

    def rate(phi: sp.Expr) -> sp.Expr:
        return f * x * sp.diff(phi, x) + g**2 / 2 * sp.diff(phi, x, 2)

    second = sp.expand(rate(x**2)).subs(x**2, V + m**2)
    assert sp.simplify(second - 2 * m * (f * m) - (2 * f * V + g**2)) == 0
    assert sp.simplify(second - 2 * m * (f * m) - (f * V + g**2)) != 0  # the rate of the mean for that of the variance


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@equation("eq-sde-moment-odes", method="exact", tolerance="1e-6 (central differences of step 1e-5)")
def test_moments_of_the_package_obey_the_odes(schedule: Schedule):
    t, h = double(0.4), 1e-5

    def moments(u: Tensor) -> tuple[Tensor, Tensor]:
        return schedule.alpha(u) * 0.7, schedule.alpha(u) ** 2 * 0.3 + schedule.sigma(u) ** 2

    (m_0, V_0), (m_1, V_1), (m, V) = moments(t - h), moments(t + h), moments(t)
    f, g2 = schedule.drift(t), schedule.diffusion_squared(t)
    assert float((m_1 - m_0) / (2 * h) - f * m) == pytest.approx(0, abs=1e-6)
    assert float((V_1 - V_0) / (2 * h) - 2 * f * V - g2) == pytest.approx(0, abs=1e-6)


@equation("eq-sde-subvp", method="symbolic", tolerance="exact (the general formula for g^2, with beta left open)")
def test_subvp():
    t = sp.Symbol("t")
    B = sp.Function("B")(t)  # the integral of beta
    alpha, beta = sp.exp(-B / 2), sp.diff(B, t)
    sigma = 1 - alpha**2
    g2 = sp.diff(sigma**2, t) - 2 * sp.diff(sp.log(alpha), t) * sigma**2
    assert sp.simplify(g2 - beta * (1 - alpha**4)) == 0
    assert sp.simplify(sp.diff(sigma**2, t) - beta * (1 - alpha**4)) != 0  # without - 2 f sigma^2
    schedule, ts = SubVariancePreserving(), torch.linspace(0.01, 1, 50, dtype=F64)
    torch.testing.assert_close(schedule.diffusion_squared(ts), VP.beta(ts) * (1 - VP.alpha(ts) ** 4))
    torch.testing.assert_close(schedule.sigma(ts), 1 - VP.alpha(ts) ** 2)


@equation("eq-sde-chain-order", method="exact", tolerance="order 2 (of what is left; fitted to 0.1)")
def test_chain_order():
    t, rests, wrong = 0.8, [], []
    low, high = 0.1, 20.0
    squares = low**2 * t + low * (high - low) * t**2 + (high - low) ** 2 * t**3 / 3  # integral of beta^2
    for n in (200, 400, 800, 1600):
        h = t / n
        k = torch.arange(1, n + 1, dtype=F64)
        chain = float(torch.log1p(-VP.beta(k * h) * h).sum() / 2)
        gap = chain - float(VP.log_alpha(double(t)))
        bracket = (high - low) * t + squares
        rests.append(abs(gap + h / 4 * bracket))
        wrong.append(abs(gap + h / 4 * squares))  # without the ends of the Riemann sum
    assert order([200, 400, 800, 1600], rests) == pytest.approx(2, abs=0.1)
    assert order([200, 400, 800, 1600], wrong) == pytest.approx(1, abs=0.1)
    # DDPM's betas hold both ends, (k - 1) / (T - 1), so their sum is that of the trapezoidal rule: no overshoot
    ratio = float(torch.log1p(-linear_betas(1000)).sum()) - 2 * float(VP.log_alpha(double(1.0)))
    whole = low**2 + low * (high - low) + (high - low) ** 2 / 3
    assert ratio == pytest.approx(-whole / 2000, rel=0.02)
    assert ratio != pytest.approx(-(whole + 19.9) / 2000, rel=0.02)


@equation("eq-sde-ou-variance", method="symbolic", tolerance="exact (put into the equation and the start)")
def test_ou_variance():
    theta, g, t, v_0 = sp.symbols("theta g t v_0", positive=True)
    V = sp.exp(-2 * theta * t) * v_0 + g**2 / (2 * theta) * (1 - sp.exp(-2 * theta * t))
    assert sp.simplify(sp.diff(V, t) + 2 * theta * V - g**2) == 0
    assert sp.simplify(V.subs(t, 0) - v_0) == 0
    slip = sp.exp(-theta * t) * v_0 + g**2 / theta * (1 - sp.exp(-theta * t))
    assert sp.simplify(sp.diff(slip, t) + 2 * theta * slip - g**2) != 0


# --- Euler-Maruyama -------------------------------------------------------------------------------


@equation("eq-sde-euler-maruyama", method="exact", tolerance="1e-12 (float64 rounding)")
def test_euler_maruyama():
    # the package walks back: the formula on the page with h < 0 in the drift and |h| in the noise
    x, t, s = normal(5, 1), double(0.5), double(0.48)
    f, g2 = -(0.1 + 19.9 * 0.5) / 2, 0.1 + 19.9 * 0.5
    z = torch.randn(5, 1, generator=torch.Generator().manual_seed(2), dtype=F64)
    score = line().score(x, VP, t)
    wanted = x + (f * x - g2 * score) * (-0.02) + sqrt(g2) * sqrt(0.02) * z
    steps = euler_maruyama(line().denoiser(VP), x, torch.stack([t, s]), generator=torch.Generator().manual_seed(2))
    found = sample(steps)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    slip = wanted - sqrt(g2) * sqrt(0.02) * z + sqrt(g2) * 0.02 * z  # h for its root
    assert float((found - slip).abs().max()) > 0.1


def gbm_moments(n: int, mu: float, s: float) -> tuple[float, float, float]:
    """E x^2, E xhat^2 and E x xhat at T = 1, as on the page."""
    h = 1 / n
    return (
        exp(2 * mu + s**2),
        ((1 + mu * h) ** 2 + s**2 * h) ** n,
        (exp(mu * h) * (1 + mu * h + s**2 * h)) ** n,
    )


@equation("eq-sde-strong-gbm", method="exact", tolerance="1e-12 (Gauss-Hermite quadrature of one step, to the power n)")
def test_strong_gbm():
    n, mu, s = 7, 0.5, 0.8
    h = 1 / n
    z, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    true = np.exp((mu - s**2 / 2) * h + s * sqrt(h) * z)
    euler = 1 + mu * h + s * sqrt(h) * z
    by_quadrature = [float((weights * a).sum()) ** n for a in (true**2, euler**2, true * euler)]
    assert by_quadrature == pytest.approx(gbm_moments(n, mu, s), rel=1e-12)
    slip = (exp(mu * h) * (1 + mu * h)) ** n  # as if both were independent
    assert by_quadrature[2] != pytest.approx(slip, rel=0.1)


@equation("eq-sde-orders", method="exact", tolerance="orders to 0.05 (fitted to errors in closed form)")
def test_orders():
    steps = [64, 128, 256, 512]
    strong, weak, additive, weak_additive = [], [], [], []
    for n in steps:
        a, b, c = gbm_moments(n, 0.5, 0.8)
        strong.append(sqrt(a + b - 2 * c))
        weak.append(exp(0.5) - (1 + 0.5 / n) ** n)
        # dx = -theta x dt + dW: the isometry, integrated exactly within each step
        theta, h = 2.0, 1 / n
        k = np.arange(n)
        euler, left = (1 - theta * h) ** (n - 1 - k), np.exp(-theta * (1 - k * h))
        square = left**2 * (np.exp(2 * theta * h) - 1) / (2 * theta)
        cross = left * (np.exp(theta * h) - 1) / theta
        additive.append(sqrt(float((square - 2 * euler * cross + euler**2 * h).sum())))
        weak_additive.append(abs(float((euler**2 * h).sum()) - (1 - exp(-2 * theta)) / (2 * theta)))
    assert order(steps, strong) == pytest.approx(0.5, abs=0.05)
    assert order(steps, weak) == pytest.approx(1, abs=0.05)
    assert order(steps, additive) == pytest.approx(1, abs=0.05)  # not 1 / 2
    assert order(steps, weak_additive) == pytest.approx(1, abs=0.05)


# --- Fokker-Planck and reversal -------------------------------------------------------------------


def density_derivatives(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, dq/dt, dq/dx and d^2q/dx^2 of the mixture under VP, by autograd."""
    x, t = x.clone().requires_grad_(True), t.expand(len(x)).clone().requires_grad_(True)
    q = line().log_density(x[:, None], VP, t).exp()
    q_t, q_x = torch.autograd.grad(q.sum(), (t, x), create_graph=True)
    q_xx = torch.autograd.grad(q_x.sum(), x)[0]
    return q.detach(), q_t.detach(), q_x.detach(), q_xx


@pytest.mark.parametrize("t", [0.05, 0.2, 0.6])
@equation("eq-sde-fokker-planck", method="exact", tolerance="1e-10 (autograd of the closed form, float64)")
def test_fokker_planck(t: float):
    x, t = torch.linspace(-3, 3, 61, dtype=F64), double(t)
    q, q_t, q_x, q_xx = density_derivatives(x, t)
    f, g2 = VP.drift(t), VP.diffusion_squared(t)
    transport = -f * (q + x * q_x)  # -d(f x q)/dx
    torch.testing.assert_close(q_t, transport + g2 / 2 * q_xx, rtol=1e-10, atol=1e-10)
    assert float((q_t - transport - g2 * q_xx).abs().max()) > 0.05  # without the half
    assert float((q_t + transport - g2 / 2 * q_xx).abs().max()) > 0.05  # the other sign


@equation("eq-sde-fokker-planck", method="symbolic", tolerance="exact (a nonlinear drift: its stationary law)")
def test_fokker_planck_with_a_nonlinear_drift():
    x, g, a = sp.symbols("x g a", positive=True)
    potential = a * x**4 / 4 + x**2
    q = sp.exp(-2 * potential / g**2)
    b = -sp.diff(potential, x)
    assert sp.simplify(-sp.diff(b * q, x) + g**2 / 2 * sp.diff(q, x, 2)) == 0
    assert sp.simplify(-sp.diff(b * q, x) + g**2 * sp.diff(q, x, 2)) != 0


def family_rate(x: Tensor, t: Tensor, noise: float, half: float = 0.5, power: float = 2) -> tuple[Tensor, Tensor]:
    """dp/dtau by the Fokker-Planck equation of the reverse process with `noise`, and -dq/dt."""
    q, q_t, q_x, q_xx = density_derivatives(x, t)
    f, g2 = VP.drift(t), VP.diffusion_squared(t)
    share = half * (1 + noise**power)
    # drift times density: -f x q + share g^2 dq/dx, since q times the score is dq/dx
    rate = f * (q + x * q_x) - share * g2 * q_xx + noise**2 / 2 * g2 * q_xx
    return rate, -q_t


@pytest.mark.parametrize("t", [0.05, 0.2, 0.6])
@equation("eq-sde-reverse", method="exact", tolerance="1e-10 (autograd of the closed form, float64)")
def test_reverse(t: float):
    x, t = torch.linspace(-3, 3, 61, dtype=F64), double(t)
    rate, wanted = family_rate(x, t, 1.0)
    torch.testing.assert_close(rate, wanted, rtol=1e-10, atol=1e-10)
    halved, _ = family_rate(x, t, 1.0, half=0.25)  # the ODE's score with the SDE's noise
    assert float((halved - wanted).abs().max()) > 0.05


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0, 2.0])
@equation("eq-sde-family", method="exact", tolerance="1e-10 (autograd of the closed form, float64)")
def test_family(noise: float):
    x, t = torch.linspace(-3, 3, 61, dtype=F64), double(0.2)
    rate, wanted = family_rate(x, t, noise)
    torch.testing.assert_close(rate, wanted, rtol=1e-10, atol=1e-10)
    slip, _ = family_rate(x, t, noise, power=1)  # lambda for its square
    if noise not in (0, 1):
        assert float((slip - wanted).abs().max()) > 0.05


@pytest.mark.parametrize("noise", [0.0, 0.5, 2.0])
@equation("eq-sde-family", method="exact", tolerance="1e-9 (the package's step; float64 rounding)")
def test_family_step_of_the_package(noise: float):
    x, ts = normal(5, 1), double([0.5, 0.47])
    f, g2 = -(0.1 + 19.9 * 0.5) / 2, 0.1 + 19.9 * 0.5
    score = line().score(x, VP, ts[0])
    z = torch.randn(5, 1, generator=torch.Generator().manual_seed(2), dtype=F64)
    wanted = x - 0.03 * (f * x - (1 + noise**2) / 2 * g2 * score) + noise * sqrt(g2 * 0.03) * z
    steps = euler_maruyama(line().denoiser(VP), x, ts, generator=torch.Generator().manual_seed(2), noise=noise)
    torch.testing.assert_close(sample(steps), wanted, rtol=1e-9, atol=1e-9)


def kernel_gap(h: float, factor: float = 1.0) -> tuple[float, float, float]:
    """Error of the mean, total variation and KL between q(x_{t-h} | x_t) on a grid and the Gaussian of the page."""
    t, s, x_t = double(0.3), double(0.3 - h), 0.4
    a, v = transition(VP, t, s)
    f, g2 = float(VP.drift(t)), float(VP.diffusion_squared(t))
    mean = x_t - (f * x_t - factor * g2 * line().score(double([[x_t]]), VP, t).item()) * h
    grid = mean + sqrt(g2 * h) * torch.linspace(-9, 9, 4001, dtype=F64)
    log_kernel = (-((x_t - a * grid) ** 2) / (2 * v) + line().log_density(grid[:, None], VP, s)).log_softmax(0)
    log_gauss = (-((grid - mean) ** 2) / (2 * g2 * h)).log_softmax(0)
    kernel, gauss = log_kernel.exp(), log_gauss.exp()
    divergence = float((kernel * (log_kernel - log_gauss)).sum())
    return abs(float((kernel * grid).sum()) - mean), float((kernel - gauss).abs().sum() / 2), divergence


@equation("eq-sde-reverse-kernel", method="exact", tolerance="orders 2, 1 and 2 (fitted to 0.15; Bayes on a grid)")
def test_reverse_kernel():
    lengths = [0.01, 0.005, 0.0025, 0.00125]
    means, variations, divergences = zip(*(kernel_gap(h) for h in lengths), strict=True)
    assert order([1 / h for h in lengths], list(means)) == pytest.approx(2, abs=0.15)
    assert order([1 / h for h in lengths], list(variations)) == pytest.approx(1, abs=0.15)
    assert order([1 / h for h in lengths], list(divergences)) == pytest.approx(2, abs=0.15)  # so 1/h of them vanish
    wrong, slow, stay = zip(*(kernel_gap(h, factor=0.5) for h in lengths), strict=True)  # half the score
    assert stay[-1] > 2 * divergences[-1]  # of order 1 in the end: 1/h of them do not vanish
    assert order([1 / h for h in lengths], list(wrong)) == pytest.approx(1, abs=0.15)
    assert slow[-1] > 1.4 * variations[-1]


@equation("eq-sde-clock", method="exact", tolerance="0.01 (moment equations in 4000 steps)")
def test_clock():
    n = 4000
    tau = (torch.arange(n, dtype=F64) + 0.5) / n
    f, g2 = VP.drift(1 - tau).tolist(), VP.diffusion_squared(1 - tau).tolist()

    def end(turned: bool) -> tuple[float, float]:
        m, V = float(VP.alpha(double(1.0))) * 2, 1.0
        read = 1 - tau if turned else tau  # the time that the score is told
        alpha = VP.alpha(read).tolist()
        variance = (VP.alpha(read) ** 2 / 4 + VP.sigma(read) ** 2).tolist()
        for k in range(n):
            slope = -f[k] - g2[k] / variance[k]
            m, V = m + (slope * m + g2[k] * alpha[k] * 2 / variance[k]) / n, V + (2 * slope * V + g2[k]) / n
        return m, sqrt(V)

    assert end(True) == pytest.approx((2, 0.5), abs=0.01)
    assert abs(end(False)[0] - 2) > 0.5
    assert abs(end(False)[1] - 0.5) > 0.3


# --- Girsanov -------------------------------------------------------------------------------------


@equation("eq-sde-girsanov-step", method="symbolic", tolerance="exact (the integral of one Gaussian's log-ratio)")
def test_girsanov_step():
    w, gap = sp.symbols("w Delta", real=True)  # w: the distance from the first mean
    g, h = sp.symbols("g h", positive=True)
    variance, shift = g**2 * h, g**2 * h * gap
    log_ratio = ((w - shift) ** 2 - w**2) / (2 * variance)
    divergence = expectation(log_ratio, {w: variance})
    assert sp.simplify(divergence - g**2 * gap**2 * h / 2) == 0
    assert sp.simplify(divergence - gap**2 * h / 2) != 0  # the factor of the score in the drift forgotten


def gaussian_chain_kl(delta: float, c: float, n: int, mean_gap: float = 0.0) -> tuple[float, float]:
    """Exact path KL of two Euler chains with linear scores from their joint Gaussian law, and the sum on the page.

    The true chain of n states is a Gaussian vector; so is the other; their KL needs covariances only. mean_gap shifts
    the prior of the second by so much.
    """
    h = 1 / n
    t = 1 - torch.arange(n, dtype=F64) * h
    f, g2 = VP.drift(t), VP.diffusion_squared(t)
    precision = 1 / (VP.alpha(t) ** 2 * c**2 + VP.sigma(t) ** 2)
    start = 1 / precision[0]

    def law(factor: float, mean: float) -> tuple[Tensor, Tensor]:
        a = 1 - h * (f + g2 * factor * precision)  # y' = a y + noise
        # y = L w with independent w = (start, steps): lower triangular products of a
        L = torch.eye(n + 1, dtype=F64)
        for k in range(n):
            L[k + 1, : k + 1] = a[k] * L[k, : k + 1]
        cov = L @ torch.diag(torch.cat([start[None], g2 * h])) @ L.T
        return L[:, 0] * mean, cov

    (m, C), (m_hat, C_hat) = law(1.0, 0.0), law(1 + delta, mean_gap)
    solved = torch.linalg.solve(C_hat, C)
    gap = m_hat - m
    kl = solved.trace() - n - 1 + gap @ torch.linalg.solve(C_hat, gap) - torch.logdet(solved)
    sums = h * (g2 / 2 * delta**2 * precision**2 * C.diagonal()[:-1]).sum() + mean_gap**2 / (2 * start)
    return float(kl / 2), float(sums)


@equation("eq-sde-girsanov", method="exact", tolerance="1e-8 (joint Gaussian law of whole paths of 60 steps)")
def test_girsanov():
    for delta, mean_gap in ((0.3, 0.0), (0.0, 0.4), (-0.2, 0.4)):
        joint, sums = gaussian_chain_kl(delta, 0.6, 60, mean_gap)
        assert joint == pytest.approx(sums, abs=1e-8)
    joint, sums = gaussian_chain_kl(0.3, 0.6, 60)
    assert joint != pytest.approx(2 * sums, rel=0.1)  # without the half
    # the sum tends to the integral: order 1 in the step
    integral = girsanov_gaussian(0.3, 0.6)
    errors = [abs(gaussian_chain_kl(0.3, 0.6, n)[1] - integral) for n in (100, 200, 400)]
    assert order([100, 200, 400], errors) == pytest.approx(1, abs=0.15)


def girsanov_gaussian(delta: float, c: float) -> float:
    """The closed form on the page."""
    V_0, V_1 = c**2, float(VP.alpha(double(1.0)) ** 2 * c**2 + VP.sigma(double(1.0)) ** 2)
    return delta**2 / 2 * log(V_1 / (1 - V_1) * (1 - V_0) / V_0)


@equation("eq-sde-girsanov-gaussian", method="exact", tolerance="1e-6 (midpoint rule with 100,000 cells)")
@pytest.mark.parametrize("c", [0.3, 0.6, 1.5])
def test_girsanov_gaussian(c: float):
    t = (torch.arange(100_000, dtype=F64) + 0.5) / 100_000
    V = VP.alpha(t) ** 2 * c**2 + VP.sigma(t) ** 2
    integral = float((VP.beta(t) / V).mean()) * 0.3**2 / 2
    assert integral == pytest.approx(girsanov_gaussian(0.3, c), rel=1e-6)
    assert float(VP.beta(t).mean()) * 0.3**2 / 2 != pytest.approx(girsanov_gaussian(0.3, c), rel=0.05)  # V forgotten


@equation("eq-sde-girsanov-gaussian", method="monte carlo", tolerance="4 standard errors (and 2 % for 500 steps)")
def test_girsanov_by_paths():
    delta, c, n, paths = 0.3, 0.6, 500, 4000
    V = VP.alpha(double(1.0)) ** 2 * c**2 + VP.sigma(double(1.0)) ** 2
    y, total, h = V.sqrt() * normal(paths, seed=1), torch.zeros(paths, dtype=F64), 1 / n
    noise = normal(n, paths, seed=2)
    for k in range(n):
        t = double(1 - k * h)
        f, g2 = VP.drift(t), VP.diffusion_squared(t)
        score = -y / (VP.alpha(t) ** 2 * c**2 + VP.sigma(t) ** 2)
        mean, mean_hat = y - h * (f * y - g2 * score), y - h * (f * y - g2 * (1 + delta) * score)
        y = mean + (g2 * h).sqrt() * noise[k]
        total += ((y - mean_hat) ** 2 - (y - mean) ** 2) / (2 * g2 * h)
    closed, error = girsanov_gaussian(delta, c), float(total.std()) / sqrt(paths)
    allowed = 4 * error + 0.02 * closed
    assert abs(float(total.mean()) - closed) < allowed
    assert abs(float(total.mean()) - 2 * closed) > allowed
    assert abs(float(total.mean()) - closed / 2) > allowed


@equation("eq-sde-data-processing", method="exact", tolerance="an inequality between closed forms")
@pytest.mark.parametrize("delta", [-0.4, -0.1, 0.1, 0.4])
def test_data_processing(delta: float):
    c, n = 0.6, 4000
    V = float(VP.alpha(double(1.0)) ** 2 * c**2 + VP.sigma(double(1.0)) ** 2)
    h, t = 1 / n, 1 - (torch.arange(n, dtype=F64) + 0.5) / n
    precision = 1 / (VP.alpha(t) ** 2 * c**2 + VP.sigma(t) ** 2)
    a = (2 * (-VP.drift(t) - VP.diffusion_squared(t) * (1 + delta) * precision)).tolist()
    for slope, g2 in zip(a, VP.diffusion_squared(t).tolist(), strict=True):
        V += h * (slope * V + g2)
    truth = (c**2 / V - 1 - log(c**2 / V)) / 2  # KL(N(0, c^2) || N(0, V))
    bound = girsanov_gaussian(delta, c)
    assert 0 < truth < bound
    assert truth > 0.02 * bound  # a bound, not an abyss: one that is 50 times too small is refused


@equation("eq-sde-girsanov-family", method="symbolic", tolerance="exact (one Gaussian step; the factor's minimum)")
def test_girsanov_family():
    g, h, lam = sp.symbols("g h lambda", positive=True)
    gap = sp.Symbol("Delta", real=True)
    shift, variance = (1 + lam**2) / 2 * g**2 * gap * h, lam**2 * g**2 * h
    divergence = shift**2 / (2 * variance)
    factor = ((1 + lam**2) / (2 * lam)) ** 2
    assert sp.simplify(divergence - factor * g**2 * gap**2 * h / 2) == 0
    assert sp.solve(sp.diff(factor, lam), lam) == [1]
    assert factor.subs(lam, 1) == 1
    assert sp.diff(factor, lam, 2).subs(lam, 1) > 0
    assert sp.limit(factor, lam, 0) == sp.oo  # no guarantee for the ODE


@pytest.mark.parametrize("schedule", [*SCHEDULES, OrnsteinUhlenbeck()], ids=lambda s: type(s).__name__)
@equation("eq-sde-logsnr-rate", method="exact", tolerance="1e-8 (autograd of log-SNR, float64)")
def test_logsnr_rate(schedule: Schedule):
    t = torch.linspace(0.02, 0.97, 40, dtype=F64).requires_grad_(True)
    rate = torch.autograd.grad(schedule.log_snr(t).sum(), t)[0]
    t = t.detach()
    torch.testing.assert_close(schedule.diffusion_squared(t) / schedule.sigma(t) ** 2, -rate, rtol=1e-8, atol=1e-8)
    slip = schedule.diffusion_squared(t) / schedule.sigma(t)
    assert float((slip + rate).abs().max()) > 1e-2


@equation(
    "eq-sde-likelihood-bound",
    method="exact",
    tolerance="1e-6 (two integrals by the midpoint rule); a strict inequality",
)
def test_likelihood_bound():
    mixture, delta = line(), 0.25
    t = (torch.arange(100, dtype=F64) + 0.5) / 100
    x = torch.linspace(-6, 6, 1201, dtype=F64)
    in_eps, in_score = 0.0, 0.0
    for time in t:
        q = mixture.log_density(x[:, None], VP, time).exp() * 0.01
        true = Prediction(VP, x[:, None], time, mixture.score(x[:, None], VP, time), "score")
        wrong = Prediction(VP, x[:, None], time, (1 + delta) * true.score, "score")
        u = time.clone().requires_grad_(True)
        rate = torch.autograd.grad(VP.log_snr(u), u)[0]
        in_eps += float(-rate / 2 * (q * (true.eps - wrong.eps)[:, 0] ** 2).sum()) / 100
        in_score += float(VP.diffusion_squared(time) / 2 * (q * (true.score - wrong.score)[:, 0] ** 2).sum()) / 100
    assert in_eps == pytest.approx(in_score, rel=1e-6)  # the path KL, in the language of the noise
    # the other side, for Gaussian data, where both are closed: the bound holds, its half would not be one for a shift
    c = 0.6
    shift = 0.5  # s_hat = s + shift
    t = (torch.arange(4000, dtype=F64) + 0.5) / 4000
    path = shift**2 / 2 * float(VP.beta(t).mean())
    m, u = 0.0, t.flip(0)
    f, g2 = VP.drift(u).tolist(), VP.diffusion_squared(u).tolist()
    for k, V in enumerate((VP.alpha(u) ** 2 * c**2 + VP.sigma(u) ** 2).tolist()):
        m += (-f[k] * m - g2[k] * m / V + g2[k] * shift) / 4000
    truth = m**2 / (2 * c**2)
    assert 0.02 * path < truth < path


@equation("eq-sde-corrector", method="exact", tolerance="1e-12 (the step by hand); moments of the affine map, symbolic")
def test_corrector():
    e, V = sp.symbols("e V", positive=True)
    (fixed,) = sp.solve(sp.Eq((1 - e) ** 2 * V + 2 * e, V), V)  # x + e (-x) + sqrt(2 e) z on a standard normal law
    assert sp.simplify(fixed - 1 / (1 - e / 2)) == 0
    assert sp.limit(fixed, e, 0) == 1
    (slip,) = sp.solve(sp.Eq((1 - e) ** 2 * V + e, V), V)  # sqrt(e) z: half the noise, another law
    assert sp.limit(slip, e, 0) == sp.Rational(1, 2)
    x, score = normal(6, 3), normal(6, 3, seed=1)
    z = torch.randn(6, 3, generator=torch.Generator().manual_seed(5), dtype=F64)
    step = 2 * (0.16 * z.norm(dim=1).mean() / score.norm(dim=1).mean()) ** 2
    found = corrected(x, score, 0.16, torch.Generator().manual_seed(5))
    torch.testing.assert_close(found, x + step * score + (2 * step).sqrt() * z, rtol=1e-12, atol=1e-12)
    # the rule makes the pull r sqrt(2) / ... of the noise: |e s| / |sqrt(2 e) z| = r when the norms agree
    assert float(step * score.norm(dim=1).mean() / ((2 * step).sqrt() * z.norm(dim=1).mean())) == pytest.approx(0.16)
