"""The equations of `book/elbo.md`."""

from collections.abc import Callable
from dataclasses import dataclass
from math import erf, log, pi, sqrt

import numpy as np
import pytest
import sympy as sp
import torch
from torch import Tensor

from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.likelihood import (
    BIN,
    bits_per_dim,
    chain_draws,
    decoder_nats,
    elbo,
    gaussian_kl,
    prior_nats,
    spread_uniform,
    step_kl,
)
from diffusion_edu.losses import hybrid_loss, interpolated_log_variance, variance_loss
from diffusion_edu.process import Prediction, posterior, q_sample, transition
from diffusion_edu.schedules import (
    Cosine,
    Flow,
    LinearBeta,
    Schedule,
    derivative,
    linear_betas,
    time_at_log_snr,
    time_grid,
)
from tests.equations import equation

F64 = torch.float64
BETAS = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=F64)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=F64)


def lumps() -> GaussianMixture:
    """Two unequal lumps on the line."""
    return GaussianMixture(torch.tensor([[-1.0], [0.8]], dtype=F64), torch.tensor([0.3, 0.2], dtype=F64))


def plane() -> GaussianMixture:
    means = torch.tensor([[-1.2, 0.3], [0.9, 1.0], [0.4, -1.1]], dtype=F64)
    return GaussianMixture(means, torch.tensor([0.3, 0.4, 0.25]), weights=torch.tensor([0.2, 0.5, 0.3]))


# --- the two cuts: a chain of four steps in which all averages are closed ------------------------------


@dataclass
class Path:
    """A linear-Gaussian chain and a distorted model p(x_{k-1} | x_k) = N(m_k x_k, v_k), from one x_0."""

    x_0: float = 0.8
    stretch: float = 0.9
    widen: float = 1.3

    def __post_init__(self) -> None:
        kept = (1 - BETAS).sqrt()
        self.steps = len(BETAS)
        self.m, self.v = self.stretch * kept, self.widen * BETAS
        # x = A x_0 + B (eps_1 ... eps_T), built step by step and not from the closed form
        rows, weight = [torch.zeros(self.steps, dtype=F64)], [number(1.0)]
        for k in range(self.steps):
            row = kept[k] * rows[-1]
            row[k] += BETAS[k].sqrt()
            rows.append(row)
            weight.append(kept[k] * weight[-1])
        noise = torch.stack(rows)
        self.alpha, self.sigma2 = torch.stack(weight), noise.square().sum(1)
        self.mean, self.covariance = self.alpha * self.x_0, noise @ noise.T
        self.e = torch.eye(self.steps + 1, dtype=F64)

    def average(self, row: Tensor, variance: Tensor) -> Tensor:
        """E log N(row . x; 0, variance)."""
        square = (row @ self.mean) ** 2 + row @ self.covariance @ row
        return -(square / variance + (2 * pi * variance).log()) / 2

    def forward(self, k: int) -> Tensor:
        return self.average(self.e[k] - (1 - BETAS[k - 1]).sqrt() * self.e[k - 1], BETAS[k - 1])

    def model(self, k: int) -> Tensor:
        return self.average(self.e[k - 1] - self.m[k - 1] * self.e[k], self.v[k - 1])

    def marginal(self, k: int) -> Tensor:
        return self.average(self.e[k] - self.alpha[k] * self.e[0], self.sigma2[k])

    def reverse(self, k: int) -> Tensor:
        """E log q(x_{k-1} | x_k, x_0), by conditioning the joint Gaussian."""
        beta, s2, t2 = BETAS[k - 1], self.sigma2[k - 1], self.sigma2[k]
        gain = (1 - beta).sqrt() * s2 / t2
        row = self.e[k - 1] - gain * self.e[k] - (self.alpha[k - 1] - gain * self.alpha[k]) * self.e[0]
        return self.average(row, s2 - gain**2 * t2)

    @property
    def end(self) -> Tensor:
        return self.average(self.e[-1], number(1.0))

    @property
    def bound(self) -> Tensor:
        """From the entropy of q(x_1 ... x_T | x_0) as one Gaussian, and the model's factors."""
        entropy = (self.covariance[1:, 1:].logdet() + self.steps * log(2 * pi * np.e)) / 2
        return -entropy - sum(self.model(k) for k in range(1, self.steps + 1)) - self.end

    @property
    def joint(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the model's (x_0, ..., x_T)."""
        size = self.steps + 1
        matrix = torch.zeros(size, size, dtype=F64)
        matrix[-1, -1] = 1
        for k in range(self.steps, 0, -1):
            matrix[k - 1] = self.m[k - 1] * matrix[k]
            matrix[k - 1, k - 1] += self.v[k - 1].sqrt()
        return torch.zeros(size, dtype=F64), matrix @ matrix.T

    @property
    def nll(self) -> Tensor:
        variance = self.joint[1][0, 0]
        return (self.x_0**2 / variance + (2 * pi * variance).log()) / 2


def full_kl(mu_1: Tensor, cov_1: Tensor, mu_2: Tensor, cov_2: Tensor) -> Tensor:
    gap, inverse = mu_1 - mu_2, cov_2.inverse()
    return ((inverse @ cov_1).trace() - len(gap) + cov_2.logdet() - cov_1.logdet() + gap @ inverse @ gap) / 2


@equation(
    "eq-elbo-paths", method="exact", tolerance="1e-12 (float64 rounding; a chain in which all averages are closed)"
)
def test_paths():
    path = Path()
    factors = sum(path.forward(k) - path.model(k) for k in range(1, 5)) - path.end
    assert abs(float(path.bound - factors)) < 1e-12
    assert float(path.bound - path.nll) > 1e-3
    # the wrong way round, E_p instead of E_q, or without the prior, it is another number
    assert abs(float(path.bound - (factors + path.end))) > 0.1


@equation(
    "eq-elbo-gap", method="exact", tolerance="1e-12 (float64 rounding; the divergence of two 4-dimensional Gaussians)"
)
def test_gap():
    path = Path()
    mean, covariance = path.joint
    # p(x_1 ... x_T | x_0) by conditioning the model's joint Gaussian
    gain = covariance[1:, 0] / covariance[0, 0]
    p_mean, p_covariance = gain * path.x_0, covariance[1:, 1:] - torch.outer(gain, gain) * covariance[0, 0]
    gap = full_kl(path.mean[1:], path.covariance[1:, 1:], p_mean, p_covariance)
    assert abs(float(path.bound - path.nll - gap)) < 1e-12
    wrong = full_kl(p_mean, p_covariance, path.mean[1:], path.covariance[1:, 1:])  # KL(p || q)
    assert abs(float(path.bound - path.nll - wrong)) > 1e-3


@equation("eq-elbo-consistency", method="exact", tolerance="1e-12 (float64 rounding; the slip is off by more than 0.5)")
def test_consistency():
    path = Path()
    ends = path.forward(4) - path.end - path.model(1)
    triples = sum(path.forward(k) - path.model(k + 1) for k in range(1, 4))
    assert abs(float(path.bound - ends - triples)) < 1e-12
    slip = 0.0  # KL(q(x_k | x_{k-1}) || p(x_k | x_{k+1})), averaged over x_{k-1} and x_{k+1}
    for k in range(1, 4):
        row = (1 - BETAS[k - 1]).sqrt() * path.e[k - 1] - path.m[k] * path.e[k + 1]
        square = (row @ path.mean) ** 2 + row @ path.covariance @ row
        slip += (square / path.v[k] + BETAS[k - 1] / path.v[k] - 1 + (path.v[k] / BETAS[k - 1]).log()) / 2
    assert float(slip - triples) > 0.5


@equation(
    "eq-elbo-consistency", method="monte carlo", tolerance="4 standard errors (200,000 triples; a term below zero)"
)
def test_a_triple_drawn():
    """A big step, then a small one: the term is negative, and averaging x_k given both neighbours keeps its mean."""
    g, n, x_0, big, small = torch.Generator().manual_seed(0), 200_000, 0.8, 0.6, 0.05
    state = sqrt(1 - big) * x_0 + sqrt(big) * torch.randn(n, generator=g, dtype=F64)
    after = sqrt(1 - small) * state + sqrt(small) * torch.randn(n, generator=g, dtype=F64)
    m, v = 0.9 * sqrt(1 - small), 1.3 * small  # the model: p(x_k | x_{k+1}) = N(m x_{k+1}, v)
    before, guess = sqrt(1 - big) * x_0, m * after

    def log_ratio(square_before: Tensor, square_guess: Tensor) -> Tensor:
        return (square_guess / v + log(v) - square_before / big - log(big)) / 2

    drawn = log_ratio((state - before) ** 2, (state - guess) ** 2)
    spread = 1 / (1 / big + (1 - small) / small)
    centre = spread * (before / big + sqrt(1 - small) * after / small)
    averaged = log_ratio((centre - before) ** 2 + spread, (centre - guess) ** 2 + spread)
    error = float((drawn - averaged).std()) / sqrt(n)
    assert abs(float((drawn - averaged).mean())) < 4 * error
    assert float(averaged.var()) < 0.7 * float(drawn.var())
    assert float(drawn.mean()) < -0.3  # no divergence is negative
    wrong = log_ratio(number(big), (before - guess) ** 2 + big)  # KL(q(x_k | x_{k-1}) || p(x_k | x_{k+1}))
    assert float(wrong.mean()) > float(drawn.mean()) + 40 * error


@equation("eq-elbo-telescope", method="exact", tolerance="1e-12 (float64 rounding, term by term)")
def test_telescope():
    path = Path()
    for k in range(2, 5):
        ratio = path.marginal(k) - path.marginal(k - 1)
        assert abs(float(path.forward(k) - path.reverse(k) - ratio)) < 1e-12
        assert abs(float(path.forward(k) - path.reverse(k) + ratio)) > 1e-2  # the fraction upside down
    forwards = sum(path.forward(k) for k in range(1, 5))
    backwards = path.marginal(4) + sum(path.reverse(k) for k in range(2, 5))
    assert abs(float(forwards - backwards)) < 1e-12
    assert abs(float(forwards - backwards - path.marginal(1))) > 1e-2  # q(x_1 | x_0) counted twice


@equation("eq-elbo-kl", method="symbolic", tolerance="exact (Gaussian moments in two dimensions, by sympy)")
def test_kl_symbolic():
    a, b, c, d = sp.symbols("a b c d", positive=True)
    m, n = sp.symbols("m n", real=True)
    r, s = sp.Rational(2, 3), sp.Rational(-1, 4)  # correlations
    root_1, root_2 = sp.Matrix([[a, 0], [r, b]]), sp.Matrix([[c, 0], [s, d]])
    cov_1, cov_2 = root_1 * root_1.T, root_2 * root_2.T
    z = sp.Matrix(sp.symbols("z1 z2", real=True))
    x, gap = root_1 * z, sp.Matrix([m, n])  # mu_1 = 0, mu_2 = -gap
    log_ratio = sp.expand(((x + gap).T * cov_2.inv() * (x + gap))[0] / 2 - (x.T * cov_1.inv() * x)[0] / 2)
    poly = sp.Poly(log_ratio, *z)
    moments = {0: 1, 1: 0, 2: 1}
    average = sum(coefficient * moments[i] * moments[j] for (i, j), coefficient in poly.terms())
    formula = ((cov_2.inv() * cov_1).trace() - 2 + (gap.T * cov_2.inv() * gap)[0]) / 2  # the determinants apart
    assert sp.simplify(average - formula) == 0
    swapped = ((cov_1.inv() * cov_2).trace() - 2 + (gap.T * cov_1.inv() * gap)[0]) / 2
    assert sp.simplify(average - swapped) != 0


@equation("eq-elbo-kl", method="monte carlo", tolerance="4 standard errors (100,000 draws)")
def test_kl_drawn():
    mu_1, mu_2 = torch.tensor([[0.5, -0.3], [-0.2, 0.4]], dtype=F64)
    cov_1 = torch.tensor([[0.6, 0.2], [0.2, 0.3]], dtype=F64)
    cov_2 = torch.tensor([[1.1, -0.4], [-0.4, 0.9]], dtype=F64)
    g = torch.Generator().manual_seed(0)
    x = mu_1 + torch.randn(100_000, 2, generator=g, dtype=F64) @ torch.linalg.cholesky(cov_1).T
    left, right = (torch.distributions.MultivariateNormal(m, c) for m, c in ((mu_1, cov_1), (mu_2, cov_2)))
    ratio = left.log_prob(x) - right.log_prob(x)
    error = float(ratio.std()) / sqrt(len(x))
    assert abs(float(ratio.mean() - full_kl(mu_1, cov_1, mu_2, cov_2))) < 4 * error
    assert abs(float(ratio.mean() - full_kl(mu_2, cov_2, mu_1, cov_1))) > 40 * error
    diagonal = gaussian_kl(mu_1, cov_1.diag().log(), mu_2, cov_2.diag().log()).sum()
    torch.testing.assert_close(diagonal, full_kl(mu_1, cov_1.diag().diag(), mu_2, cov_2.diag().diag()))


# --- the readings --------------------------------------------------------------------------------------


@equation("eq-elbo-readings", method="exact", tolerance="1e-9 (relative; float64 rounding, for every example)")
@pytest.mark.parametrize("schedule", [LinearBeta(), Cosine(), Flow()], ids=lambda s: type(s).__name__)
def test_readings(schedule):
    g = torch.Generator().manual_seed(0)
    t, s = number(0.4), number(0.33)
    x0, eps = plane().sample(200, g), torch.randn(200, 2, generator=g, dtype=F64)
    x_t = q_sample(schedule, x0, t, eps)
    guess = Prediction(schedule, x_t, t, 0.8 * eps + 0.3, "eps")
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    snr_t, snr_s = (alpha / sigma) ** 2, (schedule.alpha(s) / schedule.sigma(s)) ** 2
    truth, std = posterior(schedule, x0, x_t, t, s)
    mean, _ = posterior(schedule, guess.x0, x_t, t, s)
    kl = (truth - mean).square().sum(1) / (2 * std**2)
    conditional = -(x_t - alpha * x0) / sigma**2
    marginal = plane().score(x_t, schedule, t)
    readings = [
        (snr_s - snr_t) / 2 * (x0 - guess.x0).square().sum(1),
        (snr_s / snr_t - 1) / 2 * (eps - guess.eps).square().sum(1),
        sigma**2 * (snr_s / snr_t - 1) / 2 * (conditional - guess.score).square().sum(1),
        step_kl(guess, x0, s, 2 * std.log()).sum(1),
    ]
    for reading in readings:
        torch.testing.assert_close(reading, kl, rtol=1e-9, atol=1e-12)
    slip = sigma**2 * (snr_s / snr_t - 1) / 2 * (marginal - guess.score).square().sum(1)
    assert float((slip / kl - 1).abs().max()) > 0.1
    no_sigma = (snr_s / snr_t - 1) / 2 * (conditional - guess.score).square().sum(1)
    assert float((no_sigma / kl - 1).abs().max()) > 0.1


@equation("eq-elbo-score-constant", method="exact", tolerance="1e-8 (quadrature over x_0 and x_t on a grid)")
def test_score_constant():
    schedule, t = Cosine(), number(0.4)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x0 = torch.linspace(-3.5, 3.5, 1401, dtype=F64)
    x_t = torch.linspace(-6, 6, 1201, dtype=F64)
    prior = lumps().log_density(x0[:, None]).exp() * (x0[1] - x0[0])
    joint = prior * torch.exp(-((x_t[:, None] - alpha * x0) ** 2) / (2 * sigma**2)) / (sigma * sqrt(2 * pi))
    joint = joint * (x_t[1] - x_t[0])
    conditional = -(x_t[:, None] - alpha * x0) / sigma**2
    marginal = lumps().score(x_t[:, None], schedule, t)
    weight = joint / joint.sum(1, keepdim=True)
    uncertainty = (weight * x0**2).sum(1) - (weight * x0).sum(1) ** 2
    constant = alpha**2 / sigma**4 * (joint.sum(1) * uncertainty).sum()
    for guess in (0.7 * marginal, marginal, -0.5 * x_t[:, None]):
        with_conditional = (joint * (conditional - guess) ** 2).sum()
        with_marginal = (joint.sum(1) * (marginal - guess)[:, 0] ** 2).sum()
        assert abs(float(with_conditional - with_marginal - constant)) < 1e-8
        assert abs(float(with_conditional - with_marginal)) > 0.1  # the slip: no constant
        assert abs(float(with_conditional - with_marginal - constant * sigma**2)) > 0.1


# --- areas -----------------------------------------------------------------------------------------------


def mmse_gaussian(snr: Tensor, c: float) -> Tensor:
    return c**2 / (1 + c**2 * snr)


@equation("eq-elbo-discrete", method="exact", tolerance="1e-10 (closed expectations for Gaussian data)")
def test_discrete():
    schedule, c = LinearBeta(), 0.6
    ts = time_grid(schedule, 8, "log_snr")[:-1]
    alpha, sigma = schedule.alpha(ts), schedule.sigma(ts)
    snr = (alpha / sigma) ** 2
    formula = ((snr[1:] - snr[:-1]) * mmse_gaussian(snr[:-1], c)).sum() / 2
    summed = 0.0
    for t, s in zip(ts[:-1], ts[1:], strict=True):  # E KL of each step from the posterior's weights
        one, nil = torch.ones(1, dtype=F64), torch.zeros(1, dtype=F64)
        weight, std = posterior(schedule, one, nil, t, s)
        a, b = schedule.alpha(t), schedule.sigma(t)
        variance = c**2 * b**2 / (a**2 * c**2 + b**2)  # Var[x_0 | x_t]
        summed += float(weight**2 * variance / (2 * std**2))
    assert abs(float(formula) - summed) < 1e-10 * summed
    wrong = ((snr[1:] - snr[:-1]) * mmse_gaussian(snr[1:], c)).sum() / 2  # the error at the cleaner end
    assert abs(float(wrong) - summed) > 0.1 * summed
    _, weights = chain_draws(schedule, ts, 1, None, None)
    torch.testing.assert_close((weights[0] * snr[:-1] * mmse_gaussian(snr[:-1], c)).sum() / 2, formula)


@equation("eq-elbo-continuous", method="exact", tolerance="1e-4 (extrapolated; order 1 in the step, fitted to 5 %)")
def test_continuous():
    c, low, high = 0.6, 0.05, 40.0
    limit = 0.5 * log((1 + c**2 * high) / (1 + c**2 * low))
    sums = []
    for count in (250, 500, 1000, 2000):  # each grid contains the one before
        snr = torch.linspace(low, high, count + 1, dtype=F64)
        sums.append(float((mmse_gaussian(snr[:-1], c) * (high - low) / count).sum() / 2))
    assert all(left > right > limit for left, right in zip(sums, sums[1:], strict=False))
    orders = [log((a - limit) / (b - limit), 2) for a, b in zip(sums, sums[1:], strict=False)]
    assert 0.95 < orders[-1] < 1.05
    assert abs(2 * sums[-1] - sums[-2] - limit) < 1e-4  # extrapolated
    assert abs(2 * (2 * sums[-1] - sums[-2]) - limit) > 0.1  # without the half


@equation("eq-elbo-continuous", method="exact", tolerance="1e-8 (Gauss-Legendre in t against an integral over SNR)")
def test_continuous_in_time():
    schedule, c = LinearBeta(), 0.6
    nodes, weights = (torch.tensor(v) for v in np.polynomial.legendre.leggauss(200))
    first, last = 0.02, 1.0
    t = first + (last - first) * (nodes + 1) / 2
    slope = derivative(lambda u: schedule.log_snr(u).exp(), t)
    over_time = float((weights * (last - first) / 2 * -slope * mmse_gaussian(schedule.log_snr(t).exp(), c)).sum() / 2)
    ends = schedule.log_snr(torch.tensor([first, last], dtype=F64)).exp()
    limit = 0.5 * float(torch.log((1 + c**2 * ends[0]) / (1 + c**2 * ends[1])))
    assert abs(over_time - limit) < 1e-8
    doubled = 2 * over_time  # without the half
    assert abs(doubled - limit) > 1
    wrong = derivative(schedule.log_snr, t)  # d log SNR for d SNR
    slip = (weights * (last - first) / 2 * -wrong * mmse_gaussian(schedule.log_snr(t).exp(), c)).sum() / 2
    assert abs(float(slip) - limit) > 0.05


@equation("eq-elbo-gaussian-area", method="symbolic", tolerance="exact (sympy's integral)")
def test_gaussian_area():
    c, low, width, snr = sp.symbols("c l w gamma", positive=True)
    area = sp.integrate(c**2 / (1 + c**2 * snr) / 2, (snr, low, low + width))
    formula = sp.log((1 + c**2 * (low + width)) / (1 + c**2 * low)) / 2
    assert sp.simplify(sp.expand_log(area - formula, force=True)) == 0
    # the mean squared error of the linear guess is that of N(0, c^2) given sqrt(gamma) x_0 + eps
    gain = sp.sqrt(snr) * c**2 / (1 + c**2 * snr)
    error = (1 - gain * sp.sqrt(snr)) ** 2 * c**2 + gain**2
    assert sp.simplify(error - c**2 / (1 + c**2 * snr)) == 0
    # with prior and decoder the limit is the entropy: t_1 -> data, t_T -> noise
    entropy = sp.log(2 * sp.pi * sp.E * c**2) / 2
    total = formula.subs(low, 0) + sp.log(2 * sp.pi * sp.E / width) / 2
    assert sp.simplify(sp.limit(sp.expand_log(total - entropy, force=True), width, sp.oo)) == 0


@equation(
    "eq-elbo-reconstruction", method="exact", tolerance="1e-10 (DDPM's 1000 steps, each by the general divergence)"
)
def test_reconstruction():
    betas, chain = linear_betas(), Schedule.from_betas(linear_betas())
    k = torch.arange(1, 1001, dtype=F64) / 1000
    alpha, sigma2 = chain.alpha(k), chain.sigma(k) ** 2
    # N(0, 1) data: the exact reversal of the last step has mean alpha_1 x_1 and variance beta_1 = sigma_1^2
    decoder = 0.5 * torch.log(2 * pi * betas[0]) + ((1 - alpha[0] ** 2) ** 2 + alpha[0] ** 2 * sigma2[0]) / (
        2 * betas[0]
    )
    assert abs(float(decoder - 0.5 * torch.log(2 * pi * np.e * sigma2[0]))) < 1e-10
    tilde = betas[1:] * sigma2[:-1] / sigma2[1:]
    weight = alpha[:-1] * betas[1:] / sigma2[1:]
    kls = (tilde / betas[1:] - 1 + (betas[1:] / tilde).log() + weight**2 * sigma2[1:] / betas[1:]) / 2
    assert abs(float(kls.sum() - 0.5 * (sigma2[-1] / sigma2[0]).log())) < 1e-10
    total, truth = float(decoder + kls.sum()), 0.5 * log(2 * pi * np.e)
    assert abs(total - truth) < 1e-4  # what is missing is the prior term, of the order of alpha_T^2
    assert abs(float(kls.sum()) - truth) > 3  # the reconstruction neglected
    small = (weight**2 * sigma2[1:] / tilde / 2).sum()
    assert float(small - kls.sum()) > 0.4  # the small variance is not the best one


# --- the schedule ------------------------------------------------------------------------------------------


def eps_error(log_snr: Tensor, data: GaussianMixture) -> Tensor:
    """E|eps - eps_hat|^2 of the exact denoiser on the line, by quadrature over x_t = alpha x_0 + sigma eps."""
    grid = torch.linspace(-8, 8, 641, dtype=F64)
    alpha, sigma = log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()
    x = grid.repeat(len(log_snr))[:, None]
    a, s = alpha.repeat_interleave(len(grid)), sigma.repeat_interleave(len(grid))
    logs = data.component_log_densities(x, a, s)
    variance = a[:, None] ** 2 * data.stds**2 + s[:, None] ** 2
    score = (logs.softmax(1) * (a[:, None] * data.means[:, 0] - x) / variance).sum(1)
    return 1 - ((logs.logsumexp(1).exp() * (s * score) ** 2).reshape(len(log_snr), -1).sum(1) * (grid[1] - grid[0]))


def stretched(schedule: Schedule, high: float, low: float) -> Callable[[Tensor], Tensor]:
    first, last = time_at_log_snr(schedule, torch.tensor([high, low], dtype=F64), ends=(1e-9, 1 - 1e-9))
    return lambda u: schedule.log_snr(first + (last - first) * u)


def over_time(curve: Callable[[Tensor], Tensor], value: Callable[[Tensor], Tensor], panels: int = 6) -> float:
    """Integral over u in [0, 1] of value(u), by Gauss-Legendre on panels."""
    nodes, weights = (torch.tensor(v) for v in np.polynomial.legendre.leggauss(40))
    u = torch.cat([(p + (nodes + 1) / 2) / panels for p in range(panels)])
    return float((weights.repeat(panels) / (2 * panels) * value(u)).sum())


@equation("eq-elbo-invariance", method="exact", tolerance="1e-5 (quadrature in each schedule's own time)")
def test_invariance():
    high, low = 6.0, -6.0
    curves = [stretched(s, high, low) for s in (LinearBeta(), Cosine(), Flow())]
    curves.append(lambda u: high + (low - high) * (u + 0.1 * torch.sin(2 * pi * u)))
    nodes, weights = (torch.tensor(v) for v in np.polynomial.legendre.leggauss(40))
    u = torch.cat([(p + (nodes + 1) / 2) / 3 for p in range(3)])
    weights = weights.repeat(3) / 6
    slopes = [-derivative(c, u) / 2 for c in curves]
    errors = [eps_error(c(u), lumps()) for c in curves]
    bounds = [float((weights * slope * e).sum()) for slope, e in zip(slopes, errors, strict=True)]
    assert max(bounds) - min(bounds) < 1e-5
    simple = [float((weights * e).sum()) for e in errors]
    assert max(simple) - min(simple) > 0.05  # without the weight -lambda'(t) the schedule matters
    # the same for a wrong denoiser: an error at each level, weighed by the level alone
    wrong = [
        float((weights * slope * (e + c(u).cos() ** 2)).sum())
        for slope, e, c in zip(slopes, errors, curves, strict=True)
    ]
    assert max(wrong) - min(wrong) < 1e-3
    other_ends = over_time(None, lambda u: (high + 1 - low) / 2 * eps_error(high + 1 + (low - high - 1) * u, lumps()))
    assert abs(other_ends - bounds[0]) > 0.1  # the ends count


@equation("eq-elbo-weighted", method="exact", tolerance="1e-6 (quadrature in t against quadrature in log-SNR)")
def test_weighted():
    schedule, first, last = LinearBeta(), 0.02, 1.0
    high, low = (float(schedule.log_snr(number(v))) for v in (first, last))
    simple = over_time(
        None, lambda u: (last - first) * eps_error(schedule.log_snr(first + (last - first) * u), lumps())
    )

    def weight(log_snr: Tensor) -> Tensor:
        t = time_at_log_snr(schedule, log_snr, ends=(first, last))
        return -1 / derivative(schedule.log_snr, t)

    level = lambda u: low + (high - low) * u  # noqa: E731
    weighed = over_time(None, lambda u: (high - low) * weight(level(u)) * eps_error(level(u), lumps()))
    assert abs(simple - weighed) < 1e-6
    inverse = over_time(None, lambda u: (high - low) / weight(level(u)) * eps_error(level(u), lumps()))
    assert abs(simple - inverse) > 1  # -d lambda / dt for -dt / d lambda


@equation("eq-elbo-cosine-weight", method="symbolic", tolerance="exact (derivative of the inverse, by sympy)")
def test_cosine_weight():
    level, t = sp.symbols("lambda t", real=True)
    time = 2 / sp.pi * sp.atan(sp.exp(-level / 2))
    assert sp.simplify((-2 * sp.log(sp.tan(sp.pi * time / 2)) - level).subs(level, sp.Rational(3, 2))) == 0
    weight = -sp.diff(time, level)
    assert sp.simplify((weight - 1 / (2 * sp.pi * sp.cosh(level / 2))).rewrite(sp.exp)) == 0
    assert abs(float((weight - 1 / (sp.pi * sp.cosh(level / 2))).subs(level, 1))) > 0.05  # without the 2
    v_weight = weight * (1 + sp.exp(-level))  # of the v-loss, divided by alpha^2: no bell, an exponential
    assert sp.simplify((v_weight - sp.exp(-level / 2) / sp.pi).rewrite(sp.exp)) == 0
    ours = -1 / derivative(Cosine(0.0).log_snr, torch.tensor([0.2, 0.5, 0.7], dtype=F64))
    levels = Cosine(0.0).log_snr(torch.tensor([0.2, 0.5, 0.7], dtype=F64))
    torch.testing.assert_close(ours, 1 / (2 * pi * torch.cosh(levels / 2)))


def gaussian_fourth(log_snr: Tensor, c: float) -> Tensor:
    """E[c^2 | lambda] for Gaussian data: |eps - eps_hat|^2 is chi-squared times its mean, so 3 mean^2."""
    snr = log_snr.exp()
    return 3 * (snr * mmse_gaussian(snr, c)) ** 2


@equation(
    "eq-elbo-second-moment", method="monte carlo", tolerance="4 standard errors (200,000 draws; 1e-9 for the optimum)"
)
def test_second_moment():
    c, schedule, high, low, n = 0.6, Cosine(), 5.0, -5.0, 200_000
    curve, g = stretched(schedule, high, low), torch.Generator().manual_seed(0)
    u = torch.rand(n, generator=g, dtype=F64)
    log_snr, slope = curve(u), derivative(curve, u)
    alpha, sigma = log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()
    x0, eps = c * torch.randn(n, generator=g, dtype=F64), torch.randn(n, generator=g, dtype=F64)
    x_t = alpha * x0 + sigma * eps
    eps_hat = sigma * x_t / (alpha**2 * c**2 + sigma**2)
    squares = (slope / 2 * (eps - eps_hat) ** 2) ** 2
    wanted = over_time(None, lambda v: derivative(curve, v) ** 2 / 4 * gaussian_fourth(curve(v), c))
    error = float(squares.std()) / sqrt(n)
    assert abs(float(squares.mean()) - wanted) < 4 * error
    assert abs(float(squares.mean()) - 4 * wanted) > 40 * error  # the half forgotten
    level = lambda v: low + (high - low) * v  # noqa: E731
    least = over_time(None, lambda v: (high - low) * gaussian_fourth(level(v), c).sqrt()) ** 2 / 4
    assert least < wanted
    # the optimal density attains it
    mass = over_time(None, lambda v: (high - low) * gaussian_fourth(level(v), c).sqrt())
    attained = over_time(
        None, lambda v: (high - low) / 4 * gaussian_fourth(level(v), c) / (gaussian_fourth(level(v), c).sqrt() / mass)
    )
    assert abs(attained - least) < 1e-9
    uniform = over_time(None, lambda v: (high - low) ** 2 / 4 * gaussian_fourth(level(v), c))
    assert uniform > least * 1.05


@equation(
    "eq-elbo-spread", method="monte carlo", tolerance="8 % (variance of 4,000 batch means: 2 standard errors are 4.5 %)"
)
def test_spread():
    g, batch, repeats = torch.Generator().manual_seed(0), 32, 4000

    def f(t: Tensor) -> Tensor:
        """Mean 6 t, variance (1 + t)^2 given t: 3 between the levels, 7/3 within, on average."""
        return 6 * t + (1 + t) * torch.randn(t.shape, generator=g, dtype=F64)

    alone = f(torch.rand(repeats, batch, generator=g, dtype=F64)).mean(1).var() * batch
    spread = torch.stack([spread_uniform(batch, 1, g)[:, 0] for _ in range(repeats)])
    together = f(spread).mean(1).var() * batch
    assert abs(float(alone) / (3 + 7 / 3) - 1) < 0.08
    within = 7 / 3 + 36 / (12 * batch)  # what is left between the levels: a shift by one cell of 1 / batch at most
    assert abs(float(together) / within - 1) < 0.08
    assert abs(float(together) / (3 + 7 / 3) - 1) > 0.4


# --- learned variance ----------------------------------------------------------------------------------------


@equation("eq-elbo-optimal-variance", method="symbolic", tolerance="exact (the minimum of the divergence, by sympy)")
def test_optimal_variance_symbolic():
    small, weight, doubt, variance = sp.symbols("q w V p", positive=True)
    kl = (small / variance - 1 + sp.log(variance / small) + weight**2 * doubt / variance) / 2
    [best] = sp.solve(sp.diff(kl, variance), variance)
    assert sp.simplify(best - small - weight**2 * doubt) == 0
    assert sp.simplify(sp.diff(kl, variance, 2).subs(variance, best) - 1 / (2 * best**2)) == 0  # a minimum
    assert sp.simplify(kl.subs(variance, best) - sp.log(best / small) / 2) == 0


@equation("eq-elbo-optimal-variance", method="exact", tolerance="1e-8 (Bayes on a grid against the formula)")
def test_optimal_variance_on_a_grid():
    schedule, t, s, x_t = Cosine(), number(0.5), number(0.35), number(0.1)
    a, v = transition(schedule, t, s)
    grid = torch.linspace(-6, 6, 120_001, dtype=F64)
    density = (-((x_t - a * grid) ** 2) / (2 * v) + lumps().log_density(grid[:, None], schedule, s)).softmax(0)
    true = (density * grid**2).sum() - (density * grid).sum() ** 2
    belief = (
        -((x_t - schedule.alpha(t) * grid) ** 2) / (2 * schedule.sigma(t) ** 2) + lumps().log_density(grid[:, None])
    ).softmax(0)
    doubt = (belief * grid**2).sum() - (belief * grid).sum() ** 2
    tilde, weight = v * schedule.sigma(s) ** 2 / schedule.sigma(t) ** 2, schedule.alpha(s) * v / schedule.sigma(t) ** 2
    assert abs(float(true - tilde - weight**2 * doubt)) < 1e-8
    assert abs(float(true - tilde - weight * doubt)) > 1e-2


@equation("eq-elbo-interpolation", method="exact", tolerance="1e-12 (float64 rounding)")
def test_interpolation():
    schedule, t, s = Cosine(), number(0.6), number(0.4)
    a, beta = transition(schedule, t, s)
    tilde = schedule.sigma(s) ** 2 / schedule.sigma(t) ** 2 * beta
    for v in (0.0, 0.3, 1.0, 1.4):
        found = interpolated_log_variance(schedule, torch.full((2, 1), v, dtype=F64), t, s).exp()
        torch.testing.assert_close(found, (beta**v * tilde ** (1 - v)).expand(2, 1), rtol=1e-12, atol=0)
        assert v in (0.0, 1.0) or abs(float(found[0] / (v * beta + (1 - v) * tilde)) - 1) > 0.01  # not the variances
    _, std = posterior(schedule, torch.ones(1, dtype=F64), torch.ones(1, dtype=F64), t, s)
    assert abs(float(tilde - std**2)) < 1e-12


@equation("eq-elbo-hybrid", method="exact", tolerance="1e-12 (float64 rounding; gradients by autograd)")
def test_hybrid():
    schedule, t, s = Cosine(), number(0.6), number(0.4)
    g = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(8, 3, generator=g, dtype=F64), torch.randn(8, 3, generator=g, dtype=F64)
    guess = torch.randn(8, 3, generator=g, dtype=F64, requires_grad=True)
    v = torch.full((8, 3), 0.2, dtype=F64, requires_grad=True)
    prediction = Prediction(schedule, q_sample(schedule, x0, t, eps), t, guess, "eps")
    loss = hybrid_loss(prediction, x0, eps, s, v).sum()
    at_guess, at_v = torch.autograd.grad(loss, [guess, v])
    torch.testing.assert_close(at_guess, 2 * (guess - eps) / 3, rtol=1e-12, atol=1e-12)  # the simple loss alone
    # value and gradient of the bound's part by hand
    a, beta = transition(schedule, t, s)
    tilde = schedule.sigma(s) ** 2 / schedule.sigma(t) ** 2 * beta
    weight = schedule.alpha(s) * beta / schedule.sigma(t) ** 2 * schedule.sigma(t) / schedule.alpha(t)
    variance = beta**0.2 * tilde**0.8
    square = tilde + weight**2 * (eps - guess) ** 2
    bound = (square / variance - 1 + (variance / tilde).log()) / 2
    torch.testing.assert_close(loss, ((eps - guess) ** 2 / 3 + 1e-3 * bound / 3).sum(), rtol=1e-12, atol=1e-12)
    slope = 1e-3 / 3 * (1 - square / variance) / 2 * (beta / tilde).log()
    torch.testing.assert_close(at_v, slope, rtol=1e-10, atol=1e-14)
    free = prediction.with_x0(prediction.x0)  # the same without the stop: the mean does get a gradient
    unstopped = step_kl(free, x0, s, number(float(variance.log()))).sum()
    assert float(torch.autograd.grad(unstopped, guess)[0].abs().max()) > 1e-2
    assert float(variance_loss(prediction, x0, s, v).detach().sum()) == pytest.approx(
        float(bound.detach().sum() / 3), rel=1e-12
    )


# --- bits ----------------------------------------------------------------------------------------------------


@equation(
    "eq-elbo-dequantised",
    method="exact",
    tolerance="1e-9 (cells of a Gaussian by its distribution function and by quadrature)",
)
def test_dequantised():
    width, mean, std = BIN, 0.1, 0.01  # a density that varies a lot within a cell
    nodes, weights = (torch.tensor(v) for v in np.polynomial.legendre.leggauss(60))

    def cdf(x: float) -> float:
        return (1 + erf((x - mean) / (std * sqrt(2)))) / 2

    for value in (0.08, 0.1, 0.13):
        u = nodes * width / 2
        log_density = -((value + u - mean) ** 2) / (2 * std**2) - log(std * sqrt(2 * pi))
        exact = log(cdf(value + width / 2) - cdf(value - width / 2))
        averaged = float((weights / 2 * log_density.exp() * width).sum())
        assert abs(log(averaged) - exact) < 1e-9
        bound = float((weights / 2 * log_density).sum()) + log(width)
        assert bound < exact
        assert bound - 2 * log(width) > exact + 1  # the width's logarithm with the wrong sign is no bound
        assert abs(float(bits_per_dim(number(-bound + log(width)), 1)) + bound / log(2)) < 1e-9


@equation("eq-elbo-dequantised", method="exact", tolerance="none (an inequality, for a decoder over 256 values)")
def test_decoder_is_a_distribution():
    schedule = Cosine()
    flat = lambda x, t, y=None: Prediction(schedule, x, t, torch.zeros_like(x), "x0")  # noqa: E731
    flat.schedule = schedule
    values = torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1)
    t = torch.tensor(0.3)
    # with the network's centre (here always 0) the probabilities of the 256 values of a pixel sum to 1
    nats = decoder_nats(flat, values, t, torch.zeros(256, 1, 1, 1), None, 1.0)
    assert float((-nats).exp().sum()) == pytest.approx(1, abs=1e-6)
    assert float(nats.min()) > 0


@equation("eq-elbo-gap", method="monte carlo", tolerance="4 standard errors (4,000 points, exact denoiser)")
def test_the_package_s_bound_closes_in():
    points, g = plane().sample(4000, torch.Generator().manual_seed(1)), torch.Generator().manual_seed(2)
    schedule = LinearBeta()
    truth = -plane().log_density(points)
    denoiser = plane().denoiser(schedule)
    coarse = elbo(denoiser, points, time_grid(schedule, 12, "log_snr")[:-1], generator=g).total - truth
    endless = elbo(denoiser, points, generator=g, draws=16).total - truth
    assert float(coarse.mean()) > 40 * float(coarse.std()) / sqrt(4000)  # a finite chain pays
    assert abs(float(endless.mean())) < 4 * float(endless.std()) / sqrt(4000)
    without = endless - elbo(denoiser, points, generator=g, draws=1).reconstruction
    assert abs(float(without.mean())) > 40 * float(without.std()) / sqrt(4000)
    assert float(prior_nats(schedule, points, number(1.0)).mean()) < 1e-4
