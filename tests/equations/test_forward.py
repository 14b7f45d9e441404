"""The equations of `book/forward.md`. Each test holds the formula of the page, and refuses a famous wrong one."""

from math import exp, log, pi, sqrt

import numpy as np
import pytest
import sympy as sp
import torch
from scipy.integrate import quad

from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.process import transition
from diffusion_edu.schedules import (
    Cosine,
    Flow,
    LinearBeta,
    OrnsteinUhlenbeck,
    Schedule,
    Sigmoid,
    VarianceExploding,
    linear_betas,
)
from tests.equations import equation

PRESERVING = [LinearBeta(), Cosine(), Sigmoid(), OrnsteinUhlenbeck()]
ALL = [*PRESERVING, VarianceExploding(), Flow(), Schedule.from_betas(linear_betas())]
ERRORS = 5  # a correct Monte Carlo test fails by chance with probability below 1e-6


def times(count: int, low: float = 0.01, high: float = 0.98) -> torch.Tensor:
    return torch.linspace(low, high, count, dtype=torch.float64)


def close(left, right, tolerance: float) -> bool:
    return bool(np.allclose(np.asarray(left), np.asarray(right), rtol=tolerance, atol=tolerance))


@equation("eq-forward-step", method="exact", tolerance="1e-12 (float64 rounding of logarithms of size 20)")
def test_one_step_of_the_package_is_the_step_on_the_page():
    betas = linear_betas(1000)
    k = torch.arange(1, 1001, dtype=torch.float64)
    coefficient, variance = transition(Schedule.from_betas(betas), k / 1000, (k - 1) / 1000)
    assert close(coefficient, (1 - betas).sqrt(), 1e-12)
    assert close(variance, betas, 1e-12)
    assert not close(variance, betas.sqrt(), 1e-3)  # the deviation in the variance's place


@equation("eq-merge-noises", method="symbolic", tolerance="0 (convolution of the densities, square completed)")
def test_the_sum_of_two_noises_by_convolution():
    """N(y; 0, a²) N(z - y; 0, b²) = N(y; mean, spread) N(z; 0, a² + b²): integrate over y, and the first factor is 1."""
    a, b = sp.symbols("a b", positive=True)
    y, z = sp.symbols("y z", real=True)
    merged = a**2 + b**2
    mean, spread = z * a**2 / merged, a**2 * b**2 / merged
    exponent = y**2 / a**2 + (z - y) ** 2 / b**2
    assert sp.simplify(exponent - (y - mean) ** 2 / spread - z**2 / merged) == 0
    assert sp.simplify(a**2 * b**2 - spread * merged) == 0  # the factors in front, squared
    assert sp.simplify(exponent - (y - mean) ** 2 / spread - z**2 / (a + b) ** 2) != 0


@equation("eq-merge-noises", method="monte carlo", tolerance="5 standard errors (400,000 draws)")
def test_the_sum_of_two_noises_by_drawing():
    a, b, n = 0.6, 0.35, 400_000
    eps = np.random.default_rng(0).standard_normal((2, n))
    variance = np.var(a * eps[0] + b * eps[1])
    error = (a**2 + b**2) * sqrt(2 / n)
    assert abs(variance - (a**2 + b**2)) < ERRORS * error
    assert abs(variance - (a + b) ** 2) > 100 * error  # deviations do not add


@equation("eq-induction-step", method="symbolic", tolerance="0")
def test_induction_step():
    beta, alpha_bar = sp.symbols("beta alpha_bar", positive=True)
    kept_noise = sp.sqrt((1 - beta) * (1 - alpha_bar))
    assert sp.expand(kept_noise**2 + sp.sqrt(beta) ** 2 - (1 - (1 - beta) * alpha_bar)) == 0
    assert sp.simplify((kept_noise + sp.sqrt(beta)) ** 2 - (1 - (1 - beta) * alpha_bar)) != 0


@equation("eq-forward-closed-form", method="exact", tolerance="1e-12 (1000 steps, each rounded to 1e-16)")
def test_closed_form_against_the_recursion():
    betas = linear_betas(1000)
    mean, variance, means, variances = 1.0, 0.0, [], []
    for beta in betas.tolist():
        mean, variance = sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        means.append(mean)
        variances.append(variance)
    alpha_bar = torch.cumprod(1 - betas, 0)
    assert close(means, alpha_bar.sqrt(), 1e-12)
    assert close(variances, 1 - alpha_bar, 1e-12)
    k = torch.arange(1, 1001, dtype=torch.float64) / 1000
    assert close(Schedule.from_betas(betas).alpha(k), alpha_bar.sqrt(), 1e-12)


@equation("eq-forward-closed-form", method="monte carlo", tolerance="5 standard errors (40,000 chains of 50 steps)")
def test_closed_form_against_simulated_chains():
    rng, n, x0 = np.random.default_rng(0), 40_000, 0.8
    betas = np.linspace(1e-3, 0.1, 50)
    x = np.full(n, x0)
    for beta in betas:
        x = np.sqrt(1 - beta) * x + np.sqrt(beta) * rng.standard_normal(n)
    alpha_bar = np.prod(1 - betas)
    mean_error, variance_error = x.std() / sqrt(n), x.var() * sqrt(2 / n)
    assert abs(x.mean() - sqrt(alpha_bar) * x0) < ERRORS * mean_error
    assert abs(x.var() - (1 - alpha_bar)) < ERRORS * variance_error
    assert abs(x.mean() - sqrt(1 - betas[-1]) * x0) > 20 * mean_error  # the last alpha for the product
    assert abs(x.var() - betas[-1]) > 20 * variance_error


@equation("eq-forward-variance", method="symbolic", tolerance="0")
def test_variance_recursion():
    beta, alpha_bar, v = sp.symbols("beta alpha_bar v", positive=True)
    before = 1 + alpha_bar * (v - 1)
    after = 1 + (1 - beta) * alpha_bar * (v - 1)
    assert sp.expand((1 - beta) * before + beta - after) == 0
    assert sp.solve(sp.Eq(after, v), v) == [1]  # preserved at every step only if it is 1


@equation("eq-transition", method="symbolic", tolerance="0")
def test_two_jumps_make_one():
    alpha_s, alpha_t, sigma_s, sigma_t = sp.symbols("alpha_s alpha_t sigma_s sigma_t", positive=True)
    alpha_ts = alpha_t / alpha_s
    variance_ts = sigma_t**2 - alpha_ts**2 * sigma_s**2
    assert sp.simplify(alpha_ts * alpha_s - alpha_t) == 0
    assert sp.simplify(alpha_ts**2 * sigma_s**2 + variance_ts - sigma_t**2) == 0


@equation("eq-transition", method="exact", tolerance="1e-11 (float64 rounding; variances up to 2500)")
@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_transition_of_the_package(schedule):
    s, t = times(12)[:, None], times(12)[None, :]
    s, t = torch.minimum(s, t), torch.maximum(s, t)
    coefficient, variance = transition(schedule, t, s)
    alpha_ts = schedule.alpha(t) / schedule.alpha(s)
    assert close(coefficient, alpha_ts, 1e-12)
    assert close(variance, schedule.sigma(t) ** 2 - alpha_ts**2 * schedule.sigma(s) ** 2, 1e-11)
    if schedule.alpha(t[0, 1]) < 1:  # for VE the two agree
        assert not close(variance, schedule.sigma(t) ** 2 - schedule.sigma(s) ** 2, 1e-3)


@equation("eq-transition-snr", method="symbolic", tolerance="0")
def test_transition_variance_by_snr():
    alpha_s, alpha_t, sigma_s, sigma_t = sp.symbols("alpha_s alpha_t sigma_s sigma_t", positive=True)
    snr_s, snr_t = alpha_s**2 / sigma_s**2, alpha_t**2 / sigma_t**2
    assert sp.simplify(sigma_t**2 - (alpha_t / alpha_s) ** 2 * sigma_s**2 - sigma_t**2 * (1 - snr_t / snr_s)) == 0


@equation("eq-betas-from-alpha-bar", method="exact", tolerance="1e-12 (float64 rounding)")
def test_betas_from_the_table_and_back():
    betas = linear_betas(1000)
    alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - betas, 0)])
    assert close(1 - alpha_bar[1:] / alpha_bar[:-1], betas, 1e-12)
    t = torch.arange(0, 41, dtype=torch.float64) / 40
    cosine = Cosine().alpha(t)[:-1] ** 2  # without t = 1, where beta = 1
    rebuilt = Schedule.from_betas(1 - cosine[1:] / cosine[:-1])
    assert close(rebuilt.alpha(torch.arange(40, dtype=torch.float64) / 39) ** 2, cosine, 1e-12)


@equation("eq-log-snr", method="exact", tolerance="1e-12 (float64 rounding of logarithms of size 20)")
@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_log_snr_falls(schedule):
    t = times(200)
    log_snr = (schedule.alpha(t) ** 2 / schedule.sigma(t) ** 2).log()
    assert close(schedule.log_snr(t), log_snr, 1e-12)
    assert bool((log_snr.diff() < 0).all())


@equation("eq-snr-sigmoid", method="exact", tolerance="1e-12 (float64 rounding)")
def test_variance_preserving_schedules_from_their_log_snr():
    t = times(50)
    for schedule in PRESERVING:
        log_snr = schedule.log_snr(t)
        assert close(log_snr.sigmoid(), schedule.alpha(t) ** 2, 1e-12)
        assert close((-log_snr).sigmoid(), schedule.sigma(t) ** 2, 1e-12)
    for schedule in (VarianceExploding(), Flow()):  # not variance preserving: the formula does not hold
        assert not close(schedule.log_snr(t).sigmoid(), schedule.alpha(t) ** 2, 1e-2)


@equation("eq-chain-limit", method="exact", tolerance="fitted order 1 ± 0.02 in 1/T (T from 1000 to 32,000)")
def test_chain_tends_to_the_exponential():
    def alpha_bar(steps: int) -> float:
        return float(torch.cumprod(1 - linear_betas(steps, 0.1 / steps, 20 / steps), 0)[-1])

    steps = [1000 * 2**i for i in range(6)]
    limit = exp(-(0.1 + 20) / 2)
    assert limit == pytest.approx(float(LinearBeta().alpha(torch.tensor(1.0, dtype=torch.float64)) ** 2), rel=1e-12)
    errors = [abs(log(alpha_bar(n)) - log(limit)) for n in steps]
    order = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert order == pytest.approx(1, abs=0.02)
    assert abs(log(alpha_bar(steps[-1])) - log(limit) / 2) > 1  # alpha for alpha_bar: the exponent halved


@equation("eq-forward-sde", method="monte carlo", tolerance="5 standard errors (20,000 paths; step bias below 1)")
def test_sde_has_the_marginals_of_the_closed_form():
    rng, n, steps, x0 = np.random.default_rng(0), 20_000, 1000, 0.8
    schedule, dt = LinearBeta(), 0.5 / 1000
    x = np.full(n, x0)
    for i in range(steps):
        beta = 0.1 + (i + 0.5) * dt * 19.9
        x = x - beta / 2 * x * dt + sqrt(beta * dt) * rng.standard_normal(n)
    half = torch.tensor(0.5, dtype=torch.float64)
    alpha, variance = float(schedule.alpha(half)), float(schedule.sigma(half)) ** 2
    mean_error, variance_error = x.std() / sqrt(n), variance * sqrt(2 / n)
    assert abs(x.mean() - alpha * x0) < ERRORS * mean_error
    assert abs(x.var() - variance) < ERRORS * variance_error
    assert abs(x.mean() - alpha**2 * x0) > 20 * mean_error  # drift -beta x instead of -beta x / 2


@equation("eq-sde-coefficients", method="exact", tolerance="1e-4 relative (difference quotient with h = 1e-6)")
@pytest.mark.parametrize("schedule", ALL[:-1], ids=lambda s: type(s).__name__)
def test_sde_coefficients_are_the_limit_of_small_jumps(schedule):
    t, h = times(30, 0.05, 0.95), 1e-6
    coefficient, variance = transition(schedule, t + h, t)
    np.testing.assert_allclose((coefficient - 1) / h, schedule.drift(t), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(variance / h, schedule.diffusion_squared(t), rtol=1e-4)


@equation("eq-sde-coefficients", method="symbolic", tolerance="0")
def test_sde_coefficients_of_variance_preserving_and_straight_schedules():
    t = sp.symbols("t", positive=True)
    big_beta = sp.Function("B")(t)  # the integral of beta

    def coefficients(alpha, sigma2):
        f = sp.diff(sp.log(alpha), t)
        return f, sp.diff(sigma2, t) - 2 * f * sigma2

    f, g2 = coefficients(sp.exp(-big_beta / 2), 1 - sp.exp(-big_beta))
    assert sp.simplify(f + sp.diff(big_beta, t) / 2) == 0
    assert sp.simplify(g2 - sp.diff(big_beta, t)) == 0
    f, g2 = coefficients(1 - t, t**2)
    assert sp.simplify(g2 - 2 * t / (1 - t)) == 0


@equation("eq-ou-solution", method="symbolic", tolerance="0 (Ito isometry)")
def test_variance_of_the_ou_solution():
    u, s = sp.symbols("u s", positive=True)
    variance = 2 * sp.integrate(sp.exp(u - s) ** 2, (u, 0, s))
    assert sp.simplify(variance - (1 - sp.exp(-2 * s))) == 0
    doubled = 2 * sp.integrate(sp.exp(2 * (u - s)) ** 2, (u, 0, s))  # the exponent doubled, as once printed
    assert float(variance.subs(s, 1)) == pytest.approx(0.865, abs=5e-4)
    assert float(doubled.subs(s, 1)) == pytest.approx(0.491, abs=5e-4)


@equation("eq-ou-clock", method="exact", tolerance="1e-9 (numerical integral of beta)")
@pytest.mark.parametrize("schedule", PRESERVING, ids=lambda s: type(s).__name__)
def test_every_variance_preserving_schedule_is_a_clock(schedule):
    def beta(t: float) -> float:
        return float(schedule.beta(torch.tensor(t, dtype=torch.float64)))

    for t in (0.2, 0.5, 0.9):
        s = quad(beta, 0, t)[0] / 2
        now = torch.tensor(t, dtype=torch.float64)
        assert close(schedule.alpha(now), exp(-s), 1e-9)
        assert close(schedule.sigma(now), sqrt(1 - exp(-2 * s)), 1e-9)


@equation("eq-mixture-law", method="exact", tolerance="1e-9 (quadrature of the convolution)")
def test_noised_mixture_is_a_mixture():
    means, stds, weights = (-1.2, 0.4, 1.5), (0.3, 0.2, 0.5), (0.5, 0.2, 0.3)
    as_tensor = [torch.tensor(v, dtype=torch.float64) for v in (means, stds, weights)]
    mixture = GaussianMixture(as_tensor[0][:, None], as_tensor[1], as_tensor[2])

    def normal(x, mean, std):
        return np.exp(-(((x - mean) / std) ** 2) / 2) / (std * sqrt(2 * pi))

    schedule, t = LinearBeta(), torch.tensor(0.2, dtype=torch.float64)
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))

    def joint(x0, x):
        data = sum(w * normal(x0, m, s) for m, s, w in zip(means, stds, weights, strict=True))
        return normal(x, alpha * x0, sigma) * data

    for x in (-1.0, 0.1, 0.9):
        integral = quad(joint, -6, 6, args=(x,), epsabs=1e-12, limit=200)[0]
        by_formula = sum(
            w * normal(x, alpha * m, sqrt(alpha**2 * s**2 + sigma**2))
            for m, s, w in zip(means, stds, weights, strict=True)
        )
        by_package = mixture.log_density(torch.tensor([[x]], dtype=torch.float64), schedule, t).exp()
        assert close([by_formula, float(by_package)], integral, 1e-9)
        assert not close(integral, normal(x, 0, 1), 1e-3)


@equation("eq-prior-kl", method="exact", tolerance="1e-12 (float64 rounding)")
def test_prior_kl():
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(784, generator=generator, dtype=torch.float64) * 2 - 1
    for alpha_bar in (0.5, 0.048, 4e-5):
        q = torch.distributions.Normal(sqrt(alpha_bar) * x0, sqrt(1 - alpha_bar))
        noise = torch.distributions.Normal(torch.zeros_like(x0), 1.0)
        formula = alpha_bar / 2 * x0.square().sum() + 784 / 2 * (-alpha_bar - log(1 - alpha_bar))
        # torch subtracts numbers of size 1 per pixel: 784 roundings of 1e-16
        assert float(formula) == pytest.approx(float(torch.distributions.kl_divergence(q, noise).sum()), abs=1e-12)
        if alpha_bar > 1e-2:
            reverse = float(torch.distributions.kl_divergence(noise, q).sum())
            assert float(formula) != pytest.approx(reverse, rel=1e-2)


@equation("eq-prior-kl-small", method="symbolic", tolerance="0 (series to second order)")
def test_prior_kl_for_small_alpha_bar():
    a, d, norm2 = sp.symbols("a d n", positive=True)
    kl = a / 2 * norm2 + d / 2 * (-a - sp.log(1 - a))
    assert sp.expand(sp.series(kl, a, 0, 3).removeO() - (a / 2 * norm2 + d * a**2 / 4)) == 0


@equation("eq-prior-kl-split", method="exact", tolerance="1e-9 (quadrature)")
@pytest.mark.parametrize("alpha_bar", [0.3, 0.048])
def test_prior_kl_is_information_plus_mismatch(alpha_bar):
    """Data: -1 or 1.5, with weights 0.7 and 0.3."""
    points, weights = np.array([-1.0, 1.5]), np.array([0.7, 0.3])
    alpha, sigma = sqrt(alpha_bar), sqrt(1 - alpha_bar)

    def normal(x, mean, std):
        return np.exp(-(((x - mean) / std) ** 2) / 2) / (std * sqrt(2 * pi))

    def marginal(x):
        return sum(w * normal(x, alpha * p, sigma) for p, w in zip(points, weights, strict=True))

    def integral(function):
        return quad(function, -12, 12, epsabs=1e-12, limit=200)[0]

    mismatch = integral(lambda x: marginal(x) * log(marginal(x) / normal(x, 0, 1)))
    information = sum(
        w * integral(lambda x, p=p: normal(x, alpha * p, sigma) * log(normal(x, alpha * p, sigma) / marginal(x)))
        for p, w in zip(points, weights, strict=True)
    )
    average = sum(
        w * (alpha_bar / 2 * p**2 + (-alpha_bar - log(1 - alpha_bar)) / 2) for p, w in zip(points, weights, strict=True)
    )
    assert average == pytest.approx(information + mismatch, abs=1e-9)
    assert abs(average - mismatch) > 1e-3  # the bound is not tight: the information counts
