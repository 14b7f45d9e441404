"""The equations of `book/denoising.md`."""

from math import log, pi, sqrt

import pytest
import sympy as sp
import torch
from torch import Tensor

from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.denoisers import Denoiser
from diffusion_edu.losses import denoising_loss
from diffusion_edu.process import Prediction, posterior, q_sample, transition
from diffusion_edu.samplers import ancestral, sample
from diffusion_edu.schedules import Cosine, LinearBeta, Schedule, linear_betas, time_grid
from tests.equations import equation

F64 = torch.float64
SCHEDULES = [LinearBeta(), Cosine()]
PAIRS = [(0.9, 0.4), (0.5, 0.45), (0.2, 0.01)]  # times t > s

# symbols: alpha and sigma at t and s, and the transition between
A_T, A_S, S_T, S_S = sp.symbols("alpha_t alpha_s sigma_t sigma_s", positive=True)
X_T, X_S, X_0, EPS, EPS_HAT, X_0_HAT = sp.symbols("x_t x_s x_0 epsilon epsilonhat x0hat", real=True)
A_TS = A_T / A_S
V_TS = S_T**2 - A_TS**2 * S_S**2
MEAN_Q = A_TS * S_S**2 / S_T**2 * X_T + A_S * V_TS / S_T**2 * X_0
VAR_Q = V_TS * S_S**2 / S_T**2
BETA, BAR_S = sp.symbols("beta alphabar_s", positive=True)
CHAIN = {
    A_T: sp.sqrt((1 - BETA) * BAR_S),
    A_S: sp.sqrt(BAR_S),
    S_T: sp.sqrt(1 - (1 - BETA) * BAR_S),
    S_S: sp.sqrt(1 - BAR_S),
}


def time(value: float) -> Tensor:
    return torch.tensor(value, dtype=F64)


def mixture() -> GaussianMixture:
    """Three unequal lumps on the line."""
    means = torch.tensor([[-1.0], [0.3], [1.2]], dtype=F64)
    return GaussianMixture(means, torch.tensor([0.2, 0.1, 0.3], dtype=F64), torch.tensor([0.5, 0.2, 0.3], dtype=F64))


def normal(x: Tensor, mean: Tensor | float, variance: Tensor) -> Tensor:
    return (-((x - mean) ** 2) / (2 * variance)).exp() / (2 * pi * variance).sqrt()


def reverse_on_grid(schedule: Schedule, t: Tensor, s: Tensor, x_t: float) -> tuple[Tensor, Tensor, Tensor]:
    """Grid of x_s, its spacing, and q(x_s | x_t) on it by Bayes' rule, normalised by summation."""
    grid = torch.linspace(-8, 8, 160_001, dtype=F64)
    a, v = transition(schedule, t, s)
    density = normal(time(x_t), a * grid, v) * mixture().log_density(grid[:, None], schedule, s).exp()
    step = grid[1] - grid[0]
    return grid, step, density / (density.sum() * step)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@equation("eq-reverse-bayes", method="exact", tolerance="1e-10 (sums over a grid of step 1e-4; smooth integrands)")
def test_reverse_bayes(schedule):
    t, s, x_t = time(0.5), time(0.3), 0.4
    grid, step, _ = reverse_on_grid(schedule, t, s, x_t)
    a, v = transition(schedule, t, s)
    q_s = mixture().log_density(grid[:, None], schedule, s).exp()
    q_t = mixture().log_density(torch.tensor([[x_t]], dtype=F64), schedule, t).exp()
    kernel = normal(time(x_t), a * grid, v) * q_s / q_t
    assert abs(float(kernel.sum() * step) - 1) < 1e-10  # q(x_t) is the right normaliser
    assert abs(float(normal(time(x_t), a * grid, v).sum() * step) - 1) > 0.1  # the forward kernel alone is none


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("t, s", PAIRS)
@equation("eq-reverse-mean", method="exact", tolerance="1e-9 (grid sums against the closed-form score)")
def test_reverse_mean(schedule, t, s):
    t, s, x_t = time(t), time(s), 0.4
    grid, step, density = reverse_on_grid(schedule, t, s, x_t)
    a, v = transition(schedule, t, s)
    score = mixture().score(torch.tensor([[x_t]], dtype=F64), schedule, t)
    closed = float((x_t + v * score) / a)
    assert abs(float((grid * density).sum() * step) - closed) < 1e-9
    assert abs(closed - float((x_t - v * score) / a)) > 1e-3  # the other sign is another number


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("t, s", PAIRS)
@equation("eq-reverse-variance", method="exact", tolerance="1e-9 (grid sums against autograd of the score)")
def test_reverse_variance(schedule, t, s):
    t, s, x_t = time(t), time(s), 0.4
    grid, step, density = reverse_on_grid(schedule, t, s, x_t)
    mean = (grid * density).sum() * step
    variance = ((grid - mean) ** 2 * density).sum() * step
    a, v = transition(schedule, t, s)
    x = torch.tensor([[x_t]], dtype=F64, requires_grad=True)
    slope = torch.autograd.grad(mixture().score(x, schedule, t).sum(), x)[0]
    assert abs(float(variance - v / a**2 * (1 + v * slope))) < 1e-9


@equation("eq-posterior-bayes", method="symbolic", tolerance="exact (the exponents differ by a term without x_s)")
def test_posterior_bayes():
    ours = (X_T - A_TS * X_S) ** 2 / (2 * V_TS) + (X_S - A_S * X_0) ** 2 / (2 * S_S**2)
    rest = ours - (X_T - A_T * X_0) ** 2 / (2 * S_T**2) - (X_S - MEAN_Q) ** 2 / (2 * VAR_Q)
    assert sp.simplify(rest) == 0  # Bayes' three exponents are exactly the fourth


@equation("eq-posterior-variance", method="symbolic", tolerance="exact (precisions add)")
def test_posterior_variance():
    assert sp.simplify(1 / (A_TS**2 / V_TS + 1 / S_S**2) - VAR_Q) == 0


@equation("eq-posterior-mean", method="symbolic", tolerance="exact (zero of the exponent's derivative)")
def test_posterior_mean():
    exponent = (X_T - A_TS * X_S) ** 2 / (2 * V_TS) + (X_S - A_S * X_0) ** 2 / (2 * S_S**2)
    (top,) = sp.solve(sp.diff(exponent, X_S), X_S)
    assert sp.simplify(top - MEAN_Q) == 0


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("t, s", PAIRS)
@equation("eq-posterior-mean", method="exact", tolerance="1e-9 (the package against Bayes on a grid of step 1e-4)")
def test_posterior_of_the_package(schedule, t, s):
    t, s, x_t, x_0 = time(t), time(s), 0.4, -0.7
    a, v = transition(schedule, t, s)
    grid = torch.linspace(-8, 8, 160_001, dtype=F64)
    weight = normal(time(x_t), a * grid, v) * normal(grid, schedule.alpha(s) * x_0, schedule.sigma(s) ** 2)
    weight /= weight.sum()
    mean, std = posterior(schedule, torch.tensor([x_0], dtype=F64), torch.tensor([x_t], dtype=F64), t, s)
    on_grid = (grid * weight).sum()
    assert abs(float(on_grid - mean)) < 1e-9
    assert abs(float(((grid - on_grid) ** 2 * weight).sum().sqrt() - std)) < 1e-9


@equation("eq-posterior-ddpm", method="symbolic", tolerance="exact (alpha_bar_t = (1 - beta) alpha_bar_s put in)")
def test_posterior_ddpm():
    bar_t = (1 - BETA) * BAR_S
    mean = sp.sqrt(1 - BETA) * (1 - BAR_S) / (1 - bar_t) * X_T + sp.sqrt(BAR_S) * BETA / (1 - bar_t) * X_0
    variance = (1 - BAR_S) / (1 - bar_t) * BETA
    assert sp.simplify(MEAN_Q.subs(CHAIN) - mean) == 0
    assert sp.simplify(VAR_Q.subs(CHAIN) - variance) == 0
    slip = sp.sqrt(1 - BETA) * (1 - BAR_S) / (1 - bar_t) * X_T + sp.sqrt(BAR_S) * X_0  # (1 - bar_t) for beta
    assert sp.simplify(MEAN_Q.subs(CHAIN) - slip) != 0


@equation("eq-posterior-ddpm", method="exact", tolerance="1e-12 (float64 rounding over a chain of 1000 betas)")
def test_posterior_ddpm_chain():
    betas = linear_betas()
    chain, bar = Schedule.from_betas(betas), (1 - betas).cumprod(0)
    x_t, x_0 = torch.tensor([0.4], dtype=F64), torch.tensor([-0.7], dtype=F64)
    for k in (2, 10, 500, 1000):
        beta, bar_t, bar_s = betas[k - 1], bar[k - 1], bar[k - 2]
        mean, std = posterior(chain, x_0, x_t, time(k / 1000), time((k - 1) / 1000))
        paper = (1 - beta).sqrt() * (1 - bar_s) / (1 - bar_t) * x_t + bar_s.sqrt() * beta / (1 - bar_t) * x_0
        torch.testing.assert_close(mean, paper, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(std**2, (1 - bar_s) / (1 - bar_t) * beta, rtol=1e-9, atol=1e-14)


def two_points_reverse(weights_from: str) -> tuple[Tensor, Tensor]:
    """Density of q(x_s | x_t) for data at -1 and 1, as a mixture of posteriors and by Bayes on a grid."""
    schedule, t, s, x_t = Cosine(), time(0.5), time(0.2), 0.3
    grid = torch.linspace(-6, 6, 60_001, dtype=F64)
    points = torch.tensor([-1.0, 1.0], dtype=F64)
    a, v = transition(schedule, t, s)
    prior = torch.tensor([0.5, 0.5], dtype=F64)
    seen = prior * normal(time(x_t), schedule.alpha(t) * points, schedule.sigma(t) ** 2)
    weights = {"x_t": seen / seen.sum(), "nothing": prior}[weights_from]
    mean, std = posterior(schedule, points, torch.full_like(points, x_t), t, s)
    ours = (weights * normal(grid[:, None], mean, std**2)).sum(1)
    q_s = (prior * normal(grid[:, None], schedule.alpha(s) * points, schedule.sigma(s) ** 2)).sum(1)
    bayes = normal(time(x_t), a * grid, v) * q_s
    return ours, bayes / (bayes.sum() * (grid[1] - grid[0]))


@equation("eq-reverse-mixture", method="exact", tolerance="1e-9 (density on a grid against Bayes)")
def test_reverse_mixture():
    ours, bayes = two_points_reverse("x_t")
    torch.testing.assert_close(ours, bayes, rtol=0, atol=1e-9)
    prior, _ = two_points_reverse("nothing")  # the slip: weights q(x_0) instead of q(x_0 | x_t)
    assert float((prior - bayes).abs().max()) > 0.1


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@equation("eq-reverse-total-variance", method="exact", tolerance="1e-9 (grid sums)")
def test_reverse_total_variance(schedule):
    t, s, x_t = time(0.6), time(0.3), 0.4
    grid, step, density = reverse_on_grid(schedule, t, s, x_t)
    mean = (grid * density).sum() * step
    variance = ((grid - mean) ** 2 * density).sum() * step
    # Var(x_0 | x_t), also on the grid
    weight = (
        normal(time(x_t), schedule.alpha(t) * grid, schedule.sigma(t) ** 2) * mixture().log_density(grid[:, None]).exp()
    )
    weight /= weight.sum()
    variance_0 = (grid**2 * weight).sum() - (grid * weight).sum() ** 2
    _, std = posterior(schedule, time(0).reshape(1), time(x_t).reshape(1), t, s)
    weight_0 = schedule.alpha(s) * transition(schedule, t, s)[1] / schedule.sigma(t) ** 2
    assert abs(float(variance - std**2 - weight_0**2 * variance_0)) < 1e-9


@equation("eq-two-variances", method="symbolic", tolerance="exact (one data point, and standard normal data)")
def test_two_variances():
    # total variance with Var(x_0 | x_t) of one point, 0, and of N(0, 1) under a variance-preserving schedule, sigma_t^2
    weight_0 = A_S * V_TS / S_T**2
    preserving = {S_T: sp.sqrt(1 - A_T**2), S_S: sp.sqrt(1 - A_S**2)}
    assert sp.simplify((VAR_Q + weight_0**2 * S_T**2 - V_TS).subs(preserving)) == 0
    ratio = sp.simplify(VAR_Q / V_TS - S_S**2 / S_T**2)
    assert ratio == 0


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("t, s", PAIRS)
@equation("eq-two-variances", method="exact", tolerance="none (an inequality, averaged over x_t on a grid)")
def test_true_variance_between(schedule, t, s):
    t, s = time(t), time(s)
    lumps = GaussianMixture(torch.tensor([[-0.8], [0.8]], dtype=F64), 0.3)  # variance 0.73 < 1
    grid = torch.linspace(-8, 8, 16_001, dtype=F64)[:, None]
    a, v = transition(schedule, t, s)
    mean = (grid + v * lumps.score(grid, schedule, t)) / a
    q_t = lumps.log_density(grid, schedule, t).exp() * 1e-3
    second_moment = schedule.alpha(s) ** 2 * (0.8**2 + 0.3**2) + schedule.sigma(s) ** 2
    average = float(second_moment - (q_t * mean[:, 0] ** 2).sum())
    assert float(v * schedule.sigma(s) ** 2 / schedule.sigma(t) ** 2) < average < float(v)


def conditional_eps(x_t: Tensor, schedule: Schedule, t: Tensor) -> Tensor:
    """E[eps | x_t] by summing over x_0 on a grid, without any score."""
    grid = torch.linspace(-4, 4, 80_001, dtype=F64)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    weight = normal(x_t, alpha * grid, sigma**2) * mixture().log_density(grid[:, None]).exp()
    return ((x_t - alpha * grid) / sigma * weight).sum() / weight.sum()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@equation("eq-eps-star", method="exact", tolerance="1e-9 (grid sums against the closed-form score)")
def test_eps_star(schedule):
    t = time(0.3)
    for x_t in (-1.1, 0.0, 0.8):
        score = mixture().score(torch.tensor([[x_t]], dtype=F64), schedule, t)
        assert abs(float(conditional_eps(time(x_t), schedule, t) + schedule.sigma(t) * score)) < 1e-9


@equation("eq-regression-floor", method="monte carlo", tolerance="4 standard errors (400,000 draws)")
def test_regression_floor():
    schedule, t, n = Cosine(), time(0.4), 400_000
    g = torch.Generator().manual_seed(0)
    x0 = mixture().sample(n, g)
    eps = torch.randn(n, 1, generator=g, dtype=F64)
    x_t = q_sample(schedule, x0, t, eps)
    best = mixture().denoiser(schedule)(x_t, t).eps
    guess = 0.7 * x_t  # some other function of x_t
    # floor and gap by quadrature: E Var(eps | x_t) = (alpha / sigma)^2 E Var(x_0 | x_t)
    grid = torch.linspace(-7, 7, 14_001, dtype=F64)[:, None]
    q = mixture().log_density(grid, schedule, t).exp() * 1e-3
    exact = mixture().denoiser(schedule)(grid, t).eps[:, 0]
    gap = (q * (exact - 0.7 * grid[:, 0]) ** 2).sum()
    floor = 1 - (q * exact**2).sum()  # Var(eps) = 1 splits into the part explained by x_t and the rest
    for function, wanted in ((best, floor), (guess, floor + gap)):
        errors = (eps - function).square()
        standard_error = errors.std() / sqrt(n)
        assert abs(float(errors.mean() - wanted)) < 4 * standard_error
    assert abs(float((eps - best).square().mean())) > 40 * standard_error  # the floor is not 0


def gaussian_chain(data_variance: float, exact: bool) -> dict[str, float]:
    """-log p(x_0), the bound computed at once, and its three terms, for a linear-Gaussian chain of 4 steps in 1-D."""
    betas = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=F64)
    chain, x_0, steps = Schedule.from_betas(betas), time(0.8), 4
    times = torch.arange(steps + 1, dtype=F64) / steps
    alpha, sigma2 = chain.alpha(times), chain.sigma(times) ** 2
    marginal = alpha**2 * data_variance + sigma2
    # p(x_{k-1} | x_k) = N(m_k x_k, v_k): the exact reversal of the chain for N(0, data_variance), or a distorted one
    m = (1 - betas).sqrt() * marginal[:-1] / marginal[1:]
    v = betas * marginal[:-1] / marginal[1:]
    if not exact:
        m, v = m * 0.9, v * 1.3
    variance = time(1.0)  # of x_T under p
    for k in range(steps, 0, -1):
        variance = m[k - 1] ** 2 * variance + v[k - 1]
    nll = float((x_0**2 / variance + (2 * pi * variance).log()) / 2)

    # q(x_1..x_T | x_0): mean alpha_k x_0, covariance alpha_k / alpha_j sigma_j^2 for j <= k
    j, k = torch.meshgrid(torch.arange(1, 5), torch.arange(1, 5), indexing="ij")
    low, high = torch.minimum(j, k), torch.maximum(j, k)
    covariance = alpha[high] / alpha[low] * sigma2[low]
    mean = alpha[1:] * x_0
    entropy = (covariance.logdet() + steps * log(2 * pi * torch.e)) / 2

    def expected_nll(row: Tensor, constant: Tensor, variance: Tensor) -> Tensor:
        """E_q of -log N(row . x + constant; 0, variance)."""
        square = (row @ mean + constant) ** 2 + row @ covariance @ row
        return (square / variance + (2 * pi * variance).log()) / 2

    unit = torch.eye(steps, dtype=F64)
    zero = time(0.0)
    joint = expected_nll(unit[3], zero, time(1.0)) + expected_nll(-m[0] * unit[0], x_0, v[0])
    joint = joint + sum(expected_nll(unit[k - 2] - m[k - 1] * unit[k - 1], zero, v[k - 1]) for k in (2, 3, 4))
    bound = float(joint - entropy)

    prior = float((mean[3] ** 2 + sigma2[4] - 1 - sigma2[4].log()) / 2)
    reconstruction = float(expected_nll(-m[0] * unit[0], x_0, v[0]))
    denoising = 0.0
    for k in (2, 3, 4):
        t, s = times[k], times[k - 1]
        one, nil = time(1.0).reshape(1), time(0.0).reshape(1)
        from_x_t, std = posterior(chain, nil, one, t, s)
        from_x_0, _ = posterior(chain, one, nil, t, s)
        row = (from_x_t[0] - m[k - 1]) * unit[k - 1]
        square = (row @ mean + from_x_0[0] * x_0) ** 2 + row @ covariance @ row
        denoising += float((square + std**2 - v[k - 1]) / (2 * v[k - 1]) + (v[k - 1] / std**2).log() / 2)
    return {
        "nll": nll,
        "bound": bound,
        "prior": prior,
        "denoising": denoising,
        "reconstruction": reconstruction,
    }


@equation(
    "eq-elbo",
    method="exact",
    tolerance="1e-12 (float64 rounding; a chain in which all expectations are closed)",
)
def test_elbo():
    found = gaussian_chain(0.4, exact=False)
    terms = found["prior"] + found["denoising"] + found["reconstruction"]
    assert abs(found["bound"] - terms) < 1e-12
    assert found["nll"] < terms - 1e-3  # a strict bound for a wrong reversal
    perfect = gaussian_chain(1.0, exact=True)  # q(x_T) = N(0, 1), p the exact reversal: no gap
    assert abs(perfect["nll"] - perfect["prior"] - perfect["denoising"] - perfect["reconstruction"]) < 1e-12


@equation("eq-gaussian-kl", method="symbolic", tolerance="exact (the integral, by sympy)")
def test_gaussian_kl():
    a, b, z = sp.symbols("a b z", real=True)
    s = sp.symbols("s", positive=True)
    x = a + s * z
    log_ratio = sp.expand(((x - b) ** 2 - (x - a) ** 2) / (2 * s**2))
    density = sp.exp(-(z**2) / 2) / sp.sqrt(2 * sp.pi)
    integral = sum(log_ratio.coeff(z, n) * sp.integrate(z**n * density, (z, -sp.oo, sp.oo)) for n in range(3))
    assert sp.simplify(integral - (a - b) ** 2 / (2 * s**2)) == 0


@equation("eq-kl-x0", method="symbolic", tolerance="exact (half the drop of the signal-to-noise ratio)")
def test_kl_x0():
    kl = (MEAN_Q - MEAN_Q.subs(X_0, X_0_HAT)) ** 2 / (2 * VAR_Q)
    drop = (A_S**2 / S_S**2 - A_T**2 / S_T**2) / 2
    assert sp.simplify(kl - drop * (X_0 - X_0_HAT) ** 2) == 0


@equation("eq-kl-eps", method="symbolic", tolerance="exact (x_0 = (x_t - sigma eps) / alpha put in)")
def test_kl_eps():
    shift = {X_0: (X_T - S_T * EPS) / A_T, X_0_HAT: (X_T - S_T * EPS_HAT) / A_T}
    kl = ((MEAN_Q - MEAN_Q.subs(X_0, X_0_HAT)) ** 2 / (2 * VAR_Q)).subs(shift)
    weight = (A_S**2 * S_T**2 / (S_S**2 * A_T**2) - 1) / 2
    assert sp.simplify(kl - weight * (EPS - EPS_HAT) ** 2) == 0
    bar_t = (1 - BETA) * BAR_S
    ddpm = BETA**2 / (2 * VAR_Q * (1 - BETA) * (1 - bar_t))
    assert sp.simplify((weight - ddpm).subs(CHAIN)) == 0


@equation("eq-simple-loss", method="exact", tolerance="1e-12 (float64 rounding of the package's loss)")
def test_simple_loss():
    class Linear(torch.nn.Module):
        def forward(self, x, t, y=None):
            return 0.3 * x + t[:, None]

    g = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(50, 2, generator=g, dtype=F64), torch.randn(50, 2, generator=g, dtype=F64)
    t, schedule = torch.rand(50, generator=g, dtype=F64), Cosine()
    x_t = schedule.alpha(t)[:, None] * x0 + schedule.sigma(t)[:, None] * eps
    by_hand = (eps - (0.3 * x_t + t[:, None])).square().sum(1) / 2  # 2 coordinates: the package averages over them
    ours = denoising_loss(Denoiser(Linear(), schedule), x0, t, eps)
    torch.testing.assert_close(ours, by_hand, rtol=1e-12, atol=1e-12)


@equation("eq-ancestral-step", method="symbolic", tolerance="exact (x0_hat put into the posterior's mean)")
def test_ancestral_step():
    mean = MEAN_Q.subs(X_0, (X_T - S_T * EPS_HAT) / A_T)
    assert sp.simplify(mean - (X_T - V_TS / S_T * EPS_HAT) / A_TS) == 0
    slip = (X_T - S_T * EPS_HAT) / A_TS  # (1 - alpha_bar) / sqrt(1 - alpha_bar) for beta / sqrt(1 - alpha_bar)
    assert sp.simplify(mean - slip) != 0


@equation("eq-ancestral-ddpm", method="symbolic", tolerance="exact (DDPM's chain put in)")
def test_ancestral_ddpm():
    general = (X_T - V_TS / S_T * EPS_HAT) / A_TS
    paper = (X_T - BETA / sp.sqrt(1 - (1 - BETA) * BAR_S) * EPS_HAT) / sp.sqrt(1 - BETA)
    assert sp.simplify((general - paper).subs(CHAIN)) == 0


@equation("eq-v", method="symbolic", tolerance="exact (a rotation by the angle whose cosine is alpha)")
def test_v():
    angle = sp.symbols("phi", positive=True)
    alpha, sigma = sp.cos(angle), sp.sin(angle)
    x_t, v = alpha * X_0 + sigma * EPS, alpha * EPS - sigma * X_0
    assert sp.simplify(alpha * x_t - sigma * v - X_0) == 0
    assert sp.simplify(sigma * x_t + alpha * v - EPS) == 0


@equation("eq-v-loss", method="symbolic", tolerance="exact (both errors from one x_t)")
def test_v_loss():
    angle = sp.symbols("phi", positive=True)
    alpha, sigma = sp.cos(angle), sp.sin(angle)
    clean, guess = (X_T - sigma * EPS) / alpha, (X_T - sigma * EPS_HAT) / alpha
    v_error = (alpha * EPS_HAT - sigma * guess) - (alpha * EPS - sigma * clean)
    assert sp.simplify(v_error**2 - (EPS_HAT - EPS) ** 2 / alpha**2) == 0


def gaussian_output_variance(schedule: Schedule, ts: Tensor, data_std: float, power: int) -> float:
    """Variance of ancestral samples of N(0, data_std^2) by the recursion; power 1 is right, 2 takes variance as std."""
    variance = time(1.0)
    for t, s in zip(ts[:-1], ts[1:], strict=True):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        gain = alpha * data_std**2 / (alpha**2 * data_std**2 + sigma**2)
        a, v = transition(schedule, t, s)
        share = schedule.sigma(s) ** 2 / sigma**2
        factor = a * share + schedule.alpha(s) * v / sigma**2 * gain
        variance = factor**2 * variance + (v * share) ** power
    return float(variance)


@equation(
    "eq-gaussian-recursion",
    method="monte carlo",
    tolerance="4 standard errors (200,000 samples of the package)",
)
def test_gaussian_recursion():
    schedule, n, c = LinearBeta(), 200_000, 0.5
    ts = time_grid(schedule, 10)
    g = torch.Generator().manual_seed(1)
    data = GaussianMixture(torch.zeros(1, 1, dtype=F64), c)
    x_T = torch.randn(n, 1, generator=g, dtype=F64)
    x = sample(ancestral(data.denoiser(schedule), x_T, ts, generator=g))
    found, error = float(x.var()), float(x.var()) * sqrt(2 / n)
    assert abs(found - gaussian_output_variance(schedule, ts, c, power=1)) < 4 * error
    assert abs(found - gaussian_output_variance(schedule, ts, c, power=2)) > 40 * error


@equation("eq-two-points", method="exact", tolerance="1e-7 (points of width 1e-5 against two exact points)")
def test_two_points():
    schedule, t = Cosine(), time(0.4)
    x_t = torch.linspace(-2, 2, 41, dtype=F64)[:, None]
    pair = GaussianMixture(torch.tensor([[-1.0], [1.0]], dtype=F64), 1e-5)
    closed = (schedule.alpha(t) * x_t / schedule.sigma(t) ** 2).tanh()
    torch.testing.assert_close(pair.denoiser(schedule)(x_t, t).x0, closed, rtol=0, atol=1e-7)
    eps = Prediction(schedule, x_t, t, closed, "x0").eps
    torch.testing.assert_close(eps, -schedule.sigma(t) * pair.score(x_t, schedule, t), rtol=0, atol=1e-7)
