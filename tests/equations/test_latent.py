"""The equations of `book/latent.md`."""

from math import log, pi

import pytest
import sympy as sp
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from diffusion_edu.analytic import GaussianMixture, LinearGaussian, kl_of_gaussians
from diffusion_edu.networks import VAE
from diffusion_edu.networks.vae import PixelLogistic, kl_to_prior
from diffusion_edu.process import posterior as process_posterior
from diffusion_edu.schedules import Cosine
from tests.equations import equation

F64 = torch.float64
GRID = torch.linspace(-9, 9, 18_001, dtype=F64)
STEP = float(GRID[1] - GRID[0])
SEEN, NOISE = 2.0, 0.6


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def normal_log(x: Tensor | float, mean: Tensor | float, std: Tensor | float) -> Tensor:
    return Normal(torch.as_tensor(mean, dtype=F64), torch.as_tensor(std, dtype=F64)).log_prob(torch.as_tensor(x))


def joint_log(z: Tensor) -> Tensor:
    """log p(2, z) of the chapter's example x = z^2 + 0.6 eps."""
    return normal_log(SEEN, z**2, NOISE) + normal_log(z, 0, 1)


def tables(states: int = 4, number: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """p(z), p(x | z) for one x, and q(z), at random."""
    g = seeded(number)
    prior, q = (torch.rand(states, generator=g, dtype=F64) + 0.05 for _ in range(2))
    return prior / prior.sum(), torch.rand(states, generator=g, dtype=F64) * 0.9 + 0.05, q / q.sum()


def kl(left: Tensor, right: Tensor) -> float:
    return float((left * (left / right).log()).sum())


def elbo(prior: Tensor, likelihood: Tensor, q: Tensor) -> float:
    return float((q * (prior * likelihood / q).log()).sum())


def posterior(prior: Tensor, likelihood: Tensor) -> Tensor:
    return prior * likelihood / (prior * likelihood).sum()


def within(values: Tensor, wanted: float) -> bool:
    """Whether the mean of (N,) draws lies within 4 standard errors."""
    return abs(float(values.mean()) - wanted) < 4 * float(values.std() / len(values) ** 0.5)


# --- the evidence -----------------------------------------------------------------------------------


@equation(
    "eq-latent-evidence", method="monte carlo", tolerance="4 standard errors (400,000 pairs drawn from the model)"
)
def test_evidence():
    """p(x) as an average over the prior is the density of x that the model draws."""
    z = torch.randn(400_000, generator=seeded(0), dtype=F64)
    x = z**2 + NOISE * torch.randn(400_000, generator=seeded(1), dtype=F64)
    inside = ((x > 1.5) & (x < 2.5)).double()
    xs = torch.linspace(1.5, 2.5, 101, dtype=F64)
    evidence = (normal_log(xs[:, None], GRID[::10] ** 2, NOISE) + normal_log(GRID[::10], 0, 1)).exp().sum(1) * 10 * STEP
    assert within(inside, float(torch.trapezoid(evidence, xs)))
    at_the_mode = normal_log(xs, 1.0, NOISE).exp()  # as if z^2 always had its mean
    assert not within(inside, float(torch.trapezoid(at_the_mode, xs)))


@equation("eq-latent-importance", method="exact", tolerance="1e-10 (sums over a grid of step 1e-3; smooth integrands)")
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.5, 0.9), (-1.0, 2.0)])
def test_importance(mean, std):
    q = normal_log(GRID, mean, std).exp()
    evidence = float(joint_log(GRID).exp().sum() * STEP)
    weight = joint_log(GRID).exp() / q
    assert float((q * weight).sum() * STEP) == pytest.approx(evidence, abs=1e-10)
    belief = joint_log(GRID).exp() / evidence
    torch.testing.assert_close(weight, evidence * belief / q, rtol=1e-9, atol=0)
    unweighted = float((q * normal_log(SEEN, GRID**2, NOISE).exp()).sum() * STEP)  # right for the prior only
    assert (abs(unweighted - evidence) < 1e-10) == ((mean, std) == (0.0, 1.0))


@equation(
    "eq-latent-importance-variance", method="monte carlo", tolerance="4 standard errors (20,000 averages of 16 weights)"
)
def test_importance_variance():
    mean, std, k = 0.3, 1.5, 16
    evidence = joint_log(GRID).exp().sum() * STEP
    belief, q = joint_log(GRID).exp() / evidence, normal_log(GRID, mean, std).exp()
    chi_square = float((belief**2 / q).sum() * STEP) - 1
    z = mean + std * torch.randn(20_000, k, generator=seeded(0), dtype=F64)
    averages = (joint_log(z) - normal_log(z, mean, std)).exp().mean(1) / evidence
    squares = (averages - 1) ** 2
    assert within(squares, chi_square / k)
    assert not within(squares, (chi_square + 1) / k)  # the mean of squares for the variance
    assert not within(squares, chi_square / k**2)
    assert not within(squares, float((q**2 / belief)[belief > 1e-300].sum() * STEP - 1) / k)  # the other direction


# --- the bound --------------------------------------------------------------------------------------


@equation("eq-latent-jensen", method="exact", tolerance="none (an inequality, for 300 random tables)")
def test_jensen():
    below = [
        elbo(*tables(number=n)) - float((tables(number=n)[0] * tables(number=n)[1]).sum().log()) for n in range(300)
    ]
    assert max(below) < 0
    prior, likelihood, _ = tables()
    assert elbo(prior, likelihood, posterior(prior, likelihood)) == pytest.approx(
        float((prior * likelihood).sum().log()), abs=1e-14
    )
    # the reconstruction term alone is no bound
    above = [
        float((q * p.log()).sum() - (prior * p).sum().log()) for prior, p, q in (tables(number=n) for n in range(300))
    ]
    assert max(above) > 0.1 and min(above) < -0.1


@equation("eq-latent-identity", method="exact", tolerance="1e-12 (float64 rounding)")
@pytest.mark.parametrize("number", range(5))
def test_identity(number):
    prior, likelihood, q = tables(number=number)
    evidence, belief = float((prior * likelihood).sum().log()), posterior(prior, likelihood)
    assert elbo(prior, likelihood, q) + kl(q, belief) == pytest.approx(evidence, abs=1e-12)
    for wrong in (kl(belief, q), kl(q, prior), -kl(q, belief)):
        assert abs(elbo(prior, likelihood, q) + wrong - evidence) > 1e-3


@equation("eq-latent-identity", method="exact", tolerance="1e-9 (grid sums; a continuous latent)")
def test_identity_on_a_grid():
    log_q = normal_log(GRID, 0.5, 0.7)
    q, evidence = log_q.exp() * STEP, float((joint_log(GRID).exp().sum() * STEP).log())
    bound = float((q * (joint_log(GRID) - log_q)).sum())
    gap = float((q * (log_q - joint_log(GRID) + evidence)).sum())
    assert gap > 0.5
    assert bound + gap == pytest.approx(evidence, abs=1e-9)


@equation("eq-latent-two-terms", method="exact", tolerance="1e-12 (float64 rounding)")
@pytest.mark.parametrize("number", range(5))
def test_two_terms(number):
    prior, likelihood, q = tables(number=number)
    reconstruction = float((q * likelihood.log()).sum())
    assert reconstruction - kl(q, prior) == pytest.approx(elbo(prior, likelihood, q), abs=1e-12)
    for wrong in (reconstruction + kl(q, prior), reconstruction - kl(prior, q), reconstruction):
        assert abs(wrong - elbo(prior, likelihood, q)) > 1e-3


@equation("eq-latent-three-terms", method="exact", tolerance="1e-12 (float64 rounding)")
@pytest.mark.parametrize("number", range(5))
def test_three_terms(number):
    prior, likelihood, q = tables(number=number)
    evidence = float((prior * likelihood).sum().log())
    reconstruction = float((q * likelihood.log()).sum())
    three = reconstruction - kl(q, prior) + kl(q, posterior(prior, likelihood))
    assert three == pytest.approx(evidence, abs=1e-12)
    assert abs(reconstruction - evidence) > 1e-3  # the identity cut short


# --- Gaussians --------------------------------------------------------------------------------------


def spread(m: int, number: int) -> Tensor:
    """A covariance (m, m) at random."""
    root = torch.randn(m, m, generator=seeded(number), dtype=F64)
    return root @ root.T + 0.3 * torch.eye(m, dtype=F64)


@equation("eq-latent-gaussian-kl", method="exact", tolerance="1e-10 (against torch.distributions)")
@pytest.mark.parametrize("m", [1, 2, 4])
def test_gaussian_kl(m):
    mean_q, mean_p = torch.randn(2, m, generator=seeded(0), dtype=F64)
    cov_q, cov_p = spread(m, 1), spread(m, 2)
    inverse, gap = cov_p.inverse(), mean_q - mean_p
    ours = ((inverse @ cov_q).trace() - m + (cov_p.det() / cov_q.det()).log() + gap @ inverse @ gap) / 2
    theirs = kl_divergence(MultivariateNormal(mean_q, cov_q), MultivariateNormal(mean_p, cov_p))
    assert float(ours) == pytest.approx(float(theirs), abs=1e-10)
    assert float(kl_of_gaussians(mean_q, cov_q, mean_p, cov_p)) == pytest.approx(float(theirs), abs=1e-10)
    log_det = (cov_p.det() / cov_q.det()).log()
    for wrong in (ours * 2, ours + m / 2, ours - log_det, kl_of_gaussians(mean_p, cov_p, mean_q, cov_q)):
        assert abs(float(wrong - theirs)) > 1e-3


@equation("eq-latent-gaussian-kl", method="monte carlo", tolerance="4 standard errors (100,000 draws)")
def test_gaussian_kl_by_draws():
    q, p = (
        MultivariateNormal(torch.ones(2, dtype=F64), spread(2, 1)),
        MultivariateNormal(torch.zeros(2, dtype=F64), spread(2, 2)),
    )
    z = q.mean + torch.randn(100_000, 2, generator=seeded(0), dtype=F64) @ torch.linalg.cholesky(q.covariance_matrix).T
    ratio = q.log_prob(z) - p.log_prob(z)
    assert within(ratio, float(kl_of_gaussians(q.mean, q.covariance_matrix, p.mean, p.covariance_matrix)))
    assert not within(ratio, float(kl_of_gaussians(p.mean, p.covariance_matrix, q.mean, q.covariance_matrix)))


@equation("eq-latent-kl-prior", method="symbolic", tolerance="exact (the integral of q log(q / p), one unit)")
def test_kl_prior_by_integration():
    z, mu = sp.symbols("z mu", real=True)
    sigma = sp.symbols("sigma", positive=True)
    log_ratio = -((z - mu) ** 2) / (2 * sigma**2) - sp.log(sigma) + z**2 / 2
    # moments of q: E z = mu, E z^2 = mu^2 + sigma^2
    expanded = sp.expand(log_ratio)
    average = expanded.coeff(z, 2) * (mu**2 + sigma**2) + expanded.coeff(z, 1) * mu + expanded.coeff(z, 0)
    assert sp.simplify(average - ((mu**2 + sigma**2 - 1) / 2 - sp.log(sigma))) == 0
    assert (
        sp.simplify(average - ((mu**2 + sigma**2 - 1) / 2 - sp.log(sigma) / 2)) != 0
    )  # log-variance for log-deviation


@equation("eq-latent-kl-prior", method="exact", tolerance="1e-12 (against torch.distributions)")
def test_kl_prior_of_the_package():
    mean, log_std = torch.randn(2, 3, 5, generator=seeded(0), dtype=F64)
    theirs = kl_divergence(Normal(mean, log_std.exp()), Normal(torch.zeros((), dtype=F64), torch.ones((), dtype=F64)))
    torch.testing.assert_close(kl_to_prior(mean, log_std), theirs, rtol=0, atol=1e-12)
    assert not torch.allclose(kl_to_prior(mean, log_std / 2), theirs, atol=1e-3)


# --- the linear model -------------------------------------------------------------------------------


def linear(d: int = 3, m: int = 2, noise: float = 0.5) -> tuple[LinearGaussian, Tensor]:
    weight = torch.randn(d, m, generator=seeded(3), dtype=F64)
    model = LinearGaussian(weight, torch.arange(d, dtype=F64) / 3, noise)
    return model, torch.randn(4, d, generator=seeded(4), dtype=F64)


def plane() -> tuple[Tensor, float]:
    side = torch.linspace(-7, 7, 281, dtype=F64)
    return torch.cartesian_prod(side, side), float((side[1] - side[0]) ** 2)


@equation("eq-latent-linear-evidence", method="exact", tolerance="1e-9 (grid sums over a latent plane)")
def test_linear_evidence():
    model, x = linear()
    points, cell = plane()
    log_px_z = normal_log(x[:, None], points @ model.weight.T + model.bias, model.noise).sum(2)
    on_grid = (log_px_z + normal_log(points, 0, 1).sum(1)).logsumexp(1) + log(cell)
    covariance = model.weight @ model.weight.T + model.noise**2 * torch.eye(3, dtype=F64)
    formula = MultivariateNormal(model.bias, covariance).log_prob(x)
    torch.testing.assert_close(formula, on_grid, rtol=0, atol=1e-9)
    torch.testing.assert_close(model.log_evidence(x), on_grid, rtol=0, atol=1e-9)
    wrong = MultivariateNormal(model.bias, covariance + (model.noise - model.noise**2) * torch.eye(3, dtype=F64))
    assert float((wrong.log_prob(x) - on_grid).abs().max()) > 1e-2  # s for s^2


@equation("eq-latent-linear-posterior", method="exact", tolerance="1e-9 (moments by grid sums over a latent plane)")
def test_linear_posterior():
    model, x = linear()
    points, _ = plane()
    log_px_z = normal_log(x[:, None], points @ model.weight.T + model.bias, model.noise).sum(2)
    belief = (log_px_z + normal_log(points, 0, 1).sum(1)).softmax(1)
    mean = belief @ points
    precision = torch.eye(2, dtype=F64) + model.weight.T @ model.weight / model.noise**2
    formula = (x - model.bias) @ model.weight @ precision.inverse() / model.noise**2
    torch.testing.assert_close(formula, mean, rtol=0, atol=1e-9)
    gap = points - mean[0]
    on_grid = (belief[0][:, None] * gap).T @ gap
    torch.testing.assert_close(precision.inverse(), on_grid, rtol=0, atol=1e-9)
    package_mean, package_covariance = model.posterior(x)
    torch.testing.assert_close(package_mean, mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(package_covariance, on_grid, rtol=0, atol=1e-9)
    without_prior = (precision - torch.eye(2, dtype=F64)).inverse()
    assert not torch.allclose(without_prior, on_grid, atol=1e-3)


@equation("eq-latent-linear-elbo", method="monte carlo", tolerance="4 standard errors (100,000 draws of z)")
def test_linear_elbo():
    model, x = linear()
    mean, covariance = torch.tensor([0.4, -0.2], dtype=F64), spread(2, 5)
    q = MultivariateNormal(mean, covariance)
    z = mean + torch.randn(100_000, 2, generator=seeded(6), dtype=F64) @ torch.linalg.cholesky(covariance).T
    draws = normal_log(x[0], z @ model.weight.T + model.bias, model.noise).sum(1)
    error = (x[0] - model.bias - model.weight @ mean).square().sum()
    trace = (model.weight @ covariance @ model.weight.T).trace()
    formula = -(error + trace) / (2 * model.noise**2) - 3 / 2 * log(2 * pi * model.noise**2)
    reconstruction, divergence = model.elbo_terms(x[:1], mean, covariance)
    assert within(draws, float(formula)) and float(reconstruction) == pytest.approx(float(formula), abs=1e-12)
    assert not within(draws, float(formula + trace / (2 * model.noise**2)))  # the decoder at the mean of q only
    closed = (covariance.trace() + mean @ mean - 2 - covariance.logdet()) / 2
    assert within(q.log_prob(z) - normal_log(z, 0, 1).sum(1), float(closed))
    assert float(divergence) == pytest.approx(float(closed), abs=1e-12)


@equation(
    "eq-latent-linear-elbo", method="exact", tolerance="1e-10 (evidence - ELBO is the divergence from the posterior)"
)
def test_linear_gap():
    model, x = linear()
    mean, covariance = model.posterior(x)
    torch.testing.assert_close(model.elbo(x, mean, covariance), model.log_evidence(x), rtol=0, atol=1e-10)
    moved, wide = mean + 0.3, spread(2, 7)
    gap = model.log_evidence(x) - model.elbo(x, moved, wide)
    torch.testing.assert_close(gap, kl_of_gaussians(moved, wide, mean, covariance), rtol=0, atol=1e-10)
    assert bool((gap > 0).all())


@equation("eq-latent-mean-field", method="exact", tolerance="1e-10 (at the minimum; nothing below it nearby)")
def test_mean_field():
    weight = torch.tensor([[1.2, 0.9], [0.5, 1.1], [0.6, 0.2]], dtype=F64)
    model, x = LinearGaussian(weight, torch.zeros(3, dtype=F64), 0.5), torch.tensor([[1.5, 0.7, 0.1]], dtype=F64)
    mean, covariance = model.posterior(x)
    precision = covariance.inverse()
    formula = float(precision.diagonal().log().sum() - precision.logdet()) / 2
    best = 1 / precision.diagonal()

    def gap(variances: Tensor) -> float:
        return float((model.log_evidence(x) - model.elbo(x, mean, torch.diag(variances)))[0])

    assert formula > 0.01
    assert gap(best) == pytest.approx(formula, abs=1e-10)
    for factors in ([1.05, 1.0], [0.95, 1.0], [1.0, 1.05], [1.05, 0.95]):
        assert gap(best * torch.tensor(factors, dtype=F64)) > formula
    assert gap(covariance.diagonal()) > formula + 1e-3  # the posterior's own variances are not the best


# --- two ways to raise the bound --------------------------------------------------------------------


@equation("eq-latent-change", method="exact", tolerance="1e-12 (float64 rounding)")
def test_change():
    prior, q = torch.tensor([0.5, 0.5], dtype=F64), torch.tensor([0.7, 0.3], dtype=F64)
    before, after = torch.tensor([0.2, 0.9], dtype=F64), torch.tensor([0.45, 0.5], dtype=F64)
    evidence = [float((prior * p).sum().log()) for p in (before, after)]
    bound = [elbo(prior, p, q) for p in (before, after)]
    gaps = [kl(q, posterior(prior, p)) for p in (before, after)]
    change = bound[1] - bound[0] + gaps[1] - gaps[0]
    assert evidence[1] - evidence[0] == pytest.approx(change, abs=1e-12)
    for n in range(5):  # and any other pair of models
        prior_n, old, q_n = tables(number=n)
        new = tables(number=1000 + n)[1]
        by_hand = float((prior_n * new).sum().log() - (prior_n * old).sum().log())
        bounds = elbo(prior_n, new, q_n) - elbo(prior_n, old, q_n)
        shrink = kl(q_n, posterior(prior_n, new)) - kl(q_n, posterior(prior_n, old))
        assert by_hand == pytest.approx(bounds + shrink, abs=1e-12)
        assert abs(by_hand - bounds + shrink) > 1e-3  # the gaps with the wrong sign
    assert bound[1] > bound[0] and evidence[1] < evidence[0]  # "a higher bound, so a higher evidence" fails
    assert abs(evidence[1] - evidence[0] - (bound[1] - bound[0])) > 0.3


@equation("eq-latent-em", method="exact", tolerance="none (inequalities, for 300 random changes of the model)")
def test_em():
    stale = 0
    for n in range(300):
        prior, before, q = tables(number=n)
        _, after, _ = tables(number=1000 + n)
        old, new = (float((prior * p).sum().log()) for p in (before, after))
        tight = posterior(prior, before)
        assert elbo(prior, before, tight) == pytest.approx(old, abs=1e-12)
        assert new >= elbo(prior, after, tight) - 1e-12
        if elbo(prior, after, tight) >= elbo(prior, before, tight):
            assert new >= old - 1e-12
        stale += elbo(prior, after, q) > elbo(prior, before, q) and new < old
    assert stale > 0  # with another q the conclusion fails


@equation("eq-latent-weighted", method="exact", tolerance="none (all draws of K = 1, 2, 3 states enumerated)")
def test_weighted():
    prior, likelihood, q = tables(3, number=2)
    weight, evidence = prior * likelihood / q, float((prior * likelihood).sum().log())
    bounds = []
    for k in (1, 2, 3):
        states = torch.cartesian_prod(*[torch.arange(3)] * k).reshape(-1, k)
        chance = q[states].prod(1)
        bounds.append(float((chance * weight[states].mean(1).log()).sum()))
        wrong = float((chance * weight[states].sum(1).log()).sum())  # a sum for the mean
        assert k == 1 or wrong > evidence
    assert bounds[0] == pytest.approx(elbo(prior, likelihood, q), abs=1e-12)
    assert bounds[0] < bounds[1] < bounds[2] < evidence


# --- gradients --------------------------------------------------------------------------------------


@equation("eq-latent-reparametrise", method="exact", tolerance="1e-12 (densities by the change of variables)")
def test_reparametrise():
    mu, sigma = 0.5, 0.7
    eps = torch.linspace(-4, 4, 81, dtype=F64)
    changed = normal_log(eps, 0, 1) - log(sigma)  # divided by dz / deps
    torch.testing.assert_close(changed, normal_log(mu + sigma * eps, mu, sigma), rtol=0, atol=1e-12)
    assert (
        float((changed - normal_log(mu + sigma**2 * eps, mu, sigma)).abs().max()) > 0.1
    )  # the variance for the deviation


def average(mu: float, sigma: float) -> float:
    return float((normal_log(GRID, mu, sigma).exp() * joint_log(GRID)).sum() * STEP)


@equation("eq-latent-gradient", method="exact", tolerance="1e-6 (grid sums against central differences, step 1e-4)")
def test_gradient():
    mu, sigma, h = 0.5, 0.7, 1e-4
    z = GRID.clone().requires_grad_()
    slope = torch.autograd.grad(joint_log(z).sum(), z)[0]
    q = normal_log(GRID, mu, sigma).exp() * STEP
    by_mean, by_width = float((q * slope).sum()), float((q * slope * (GRID - mu) / sigma).sum())
    assert by_mean == pytest.approx((average(mu + h, sigma) - average(mu - h, sigma)) / (2 * h), abs=1e-6)
    width = (average(mu, sigma + h) - average(mu, sigma - h)) / (2 * h)
    assert by_width == pytest.approx(width, abs=1e-6)
    assert abs(by_mean - width) > 0.1
    assert abs(float((q * slope * (GRID - mu)).sum()) - width) > 0.1  # sigma eps for eps


@equation(
    "eq-latent-score-gradient", method="exact", tolerance="1e-6 (grid sums against central differences, step 1e-4)"
)
def test_score_gradient():
    mu, sigma, h = 0.5, 0.7, 1e-4
    q = normal_log(GRID, mu, sigma).exp() * STEP
    wanted = (average(mu + h, sigma) - average(mu - h, sigma)) / (2 * h)
    assert float((q * joint_log(GRID) * (GRID - mu) / sigma**2).sum()) == pytest.approx(wanted, abs=1e-6)
    assert abs(float((q * joint_log(GRID) * (GRID - mu) / sigma).sum()) - wanted) > 0.05


# --- the autoencoder --------------------------------------------------------------------------------


@equation("eq-latent-bin", method="symbolic", tolerance="exact (both sides as rational functions of exponentials)")
def test_bin():
    up, low = sp.symbols("U L", positive=True)  # e^{-u}, e^{-l}
    left = 1 / (1 + up) - 1 / (1 + low)
    # S(-l) = 1 / (1 + e^l) = L / (1 + L), and e^{l - u} = U / L
    assert sp.simplify(left - 1 / (1 + up) * low / (1 + low) * (1 - up / low)) == 0
    assert sp.simplify(left - 1 / (1 + up) * 1 / (1 + low) * (1 - up / low)) != 0  # S(l) for S(-l)


@equation("eq-latent-bin", method="exact", tolerance="1e-6 (the 256 probabilities sum to one in float32)")
def test_bins_of_the_package():
    location = torch.tensor([-1.4, -1.0, 0.2, 0.99, 1.3]).reshape(1, 5, 1, 1).expand(256, 5, 1, 1)
    log_scale = torch.tensor([-2.0, -5.0, -3.0, -0.5, -6.5]).reshape(1, 5, 1, 1).expand(256, 5, 1, 1)
    values = torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1)
    for k in range(5):
        law = PixelLogistic(location[:, k : k + 1].double(), log_scale[:, k : k + 1].double())
        p = law.log_prob(values).exp()
        assert float(p.sum()) == pytest.approx(1, abs=1e-6)
        v = 2 * torch.arange(256, dtype=F64) / 255 - 1
        u, low = (((v + sign / 255) - law.location.flatten()) / law.log_scale.flatten().exp() for sign in (1, -1))
        plain = torch.sigmoid(u) - torch.sigmoid(low)
        torch.testing.assert_close(p[1:-1], plain[1:-1], rtol=1e-4, atol=1e-7)  # pixels are float32
        if k in (0, 4):  # without open ends much of the law is lost
            assert abs(float(plain.sum()) - 1) > 0.1


@equation("eq-latent-two-terms", method="monte carlo", tolerance="4 standard errors (4,000 draws; an untrained VAE)")
def test_two_terms_of_the_vae():
    """The closed divergence against log-weights at the same draws of z: they differ by log q - log p only."""
    torch.manual_seed(0)
    net = VAE(latent=2, width=8)
    image = torch.randint(0, 256, (1, 1, 28, 28), generator=seeded(0), dtype=torch.uint8)
    with torch.no_grad():
        reconstruction, divergence = net.elbo_terms(image.expand(4000, 1, 28, 28), seeded(1))
        log_w = net.importance_log_weights(image, 4000, seeded(1))[0].double()
    spent = reconstruction.double() - log_w  # log q(z | x) - log p(z), draw by draw
    closed = float(divergence[0].double().sum())
    assert within(spent, closed) and closed > 0.01
    assert not within(spent, 2 * closed) and not within(spent, -closed)


@equation(
    "eq-latent-collapse", method="exact", tolerance="1e-9 (best weight by a fine search; averages in closed form)"
)
@pytest.mark.parametrize(("variance", "noise"), [(4.0, 1.0), (0.5, 1.0), (0.3, 0.2), (1.1, 1.0)])
def test_collapse(variance, noise):
    weights = torch.linspace(0, 4, 400_001, dtype=F64)
    total = weights**2 + noise**2
    best = float(weights[(-total.log() / 2 - variance / total / 2).argmax()])
    assert best**2 == pytest.approx(max(0.0, variance - noise**2), abs=1e-4)
    w2 = max(0.0, variance - noise**2)
    spread_z = noise**2 / (w2 + noise**2)
    means = w2 * variance / (w2 + noise**2) ** 2  # of the posterior's mean, over data of that variance
    assert spread_z == pytest.approx(min(1.0, noise**2 / variance))
    assert means == pytest.approx(max(0.0, 1 - noise**2 / variance))  # so the quadratic terms cancel
    rate = (means + spread_z - 1 - log(spread_z)) / 2
    assert rate == pytest.approx(max(0.0, log(variance / noise**2) / 2), abs=1e-9)
    if variance > noise**2:
        assert abs(rate - log(variance / noise) / 2) > 1e-3 or noise == 1.0
        assert abs(rate - log(1 + variance / noise**2) / 2) > 1e-2  # the noise counted as signal


# --- layers -----------------------------------------------------------------------------------------


def law(*shape: int, number: int) -> Tensor:
    """Conditional tables, the last axis summing to one."""
    p = torch.rand(*shape, generator=seeded(number), dtype=F64) + 0.1
    return p / p.sum(-1, keepdim=True)


class Chain:
    """z_3 -> z_2 -> z_1 -> x in tables with 2, 3, 4 states, one x seen, and an encoder q(z_1) q(z_2 | z_1) q(z_3 | z_2)."""

    def __init__(self) -> None:
        self.p3, self.p2, self.p1 = law(2, number=1), law(2, 3, number=2), law(3, 4, number=3)
        self.likelihood = torch.rand(4, generator=seeded(4), dtype=F64)
        self.q1, self.q2, self.q3 = law(4, number=5), law(4, 3, number=6), law(3, 2, number=7)
        # both over (z_1, z_2, z_3)
        self.joint = self.likelihood[:, None, None] * self.p1.T[:, :, None] * self.p2.T[None] * self.p3
        self.q = self.q1[:, None, None] * self.q2[:, :, None] * self.q3[None]
        self.log_p = float(self.joint.sum().log())
        self.elbo = float((self.q * (self.joint / self.q).log()).sum())


@equation(
    "eq-latent-hierarchy", method="exact", tolerance="1e-12 (all paths enumerated; factors against the joint table)"
)
def test_hierarchy():
    c = Chain()
    factors = (
        (c.q * (c.p3.log() + c.p2.T.log()[None] + c.p1.T.log()[:, :, None] + c.likelihood.log()[:, None, None])).sum()
        - (c.q1 * c.q1.log()).sum()
        - (c.q * (c.q2.log()[:, :, None] + c.q3.log()[None])).sum()
    )
    assert float(factors) == pytest.approx(c.elbo, abs=1e-12)
    belief = c.joint / c.joint.sum()
    assert c.elbo + kl(c.q, belief) == pytest.approx(c.log_p, abs=1e-12) and c.elbo < c.log_p
    # the found form log p(x_{0:T}) >= ELBO: on average the joint lies below
    assert float((c.q * c.joint.log()).sum()) < c.elbo


@equation("eq-latent-gap-layers", method="exact", tolerance="1e-12 (all paths enumerated)")
def test_gap_layers():
    c = Chain()
    belief = c.joint / c.joint.sum()
    b1, b12, b23 = belief.sum((1, 2)), belief.sum(2), belief.sum(0)
    b2_given_1, b3_given_2 = b12 / b12.sum(1, keepdim=True), b23 / b23.sum(1, keepdim=True)
    q12 = c.q1[:, None] * c.q2
    parts = [
        kl(c.q1, b1),
        float((q12 * (c.q2 / b2_given_1).log()).sum()),
        float((q12.sum(0)[:, None] * c.q3 * (c.q3 / b3_given_2).log()).sum()),
    ]
    assert sum(parts) == pytest.approx(c.log_p - c.elbo, abs=1e-12)
    assert min(parts) > 1e-3 and abs(sum(parts[:2]) - (c.log_p - c.elbo)) > 1e-3


@equation("eq-latent-telescope", method="exact", tolerance="1e-12 (all paths enumerated)")
def test_telescope():
    c = Chain()
    q12, q23 = c.q.sum(2), c.q.sum(0)
    q1_given_2, q2_given_3 = q12 / q12.sum(0), q23 / q23.sum(0)
    turned = q23.sum(0) * q2_given_3[None] * q1_given_2[:, :, None]
    torch.testing.assert_close(turned, c.q, rtol=0, atol=1e-12)
    forgotten = q23.sum(0) * q23.sum(1)[None, :, None] * q1_given_2[:, :, None]  # z_2 without looking at z_3
    assert float((forgotten - c.q).abs().max()) > 1e-3


@equation("eq-latent-layers", method="exact", tolerance="1e-12 (all paths enumerated)")
def test_layers():
    c = Chain()
    q12, q23 = c.q.sum(2), c.q.sum(0)
    q1_given_2, q2_given_3 = q12 / q12.sum(0), q23 / q23.sum(0)
    reconstruction = float((c.q1 * c.likelihood.log()).sum())
    top = kl(q23.sum(0), c.p3)
    middle = float((q12 * (q1_given_2 / c.p1.T).log()).sum() + (q23 * (q2_given_3 / c.p2.T).log()).sum())
    assert reconstruction - top - middle == pytest.approx(c.elbo, abs=1e-12)
    unturned = float((q12 * (c.q2 / c.p1.T).log()).sum())  # q(z_2 | z_1) paired with p(z_1 | z_2)
    assert abs(unturned - float((q12 * (q1_given_2 / c.p1.T).log()).sum())) > 1e-2


@equation(
    "eq-latent-one-layer", method="exact", tolerance="1e-10 (closed forms; the linear model with a fixed encoder)"
)
def test_one_layer():
    """Diffusion with one step, decoder N(c x_1, v): the VAE's ELBO with encoder N(alpha x_0, sigma^2)."""
    d, alpha, c, v = 3, 0.8, 0.7, 0.4
    sigma = (1 - alpha**2) ** 0.5
    x0 = torch.tensor([[0.9, -0.4, 0.1]], dtype=F64)
    model = LinearGaussian(c * torch.eye(d, dtype=F64), torch.zeros(d, dtype=F64), v**0.5)
    as_vae = float(model.elbo(x0, alpha * x0, sigma**2 * torch.eye(d, dtype=F64)))
    square = ((1 - c * alpha) ** 2 * x0.square() + c**2 * sigma**2).sum()
    last = -float(square) / (2 * v) - d / 2 * log(2 * pi * v)
    prior = alpha**2 / 2 * float(x0.square().sum()) + d / 2 * (sigma**2 - 1 - log(sigma**2))
    assert last - prior == pytest.approx(as_vae, abs=1e-10)
    fixed = Independent(Normal(alpha * x0[0], sigma * torch.ones(d, dtype=F64)), 1)
    noise = Independent(Normal(torch.zeros(d, dtype=F64), torch.ones(d, dtype=F64)), 1)
    assert prior == pytest.approx(float(kl_divergence(fixed, noise)), abs=1e-10)
    assert prior == pytest.approx(float(kl_to_prior(alpha * x0, torch.full_like(x0, log(sigma))).sum()), abs=1e-10)
    assert as_vae < float(model.log_evidence(x0))
    assert abs(last - alpha**2 / 2 * float(x0.square().sum()) - as_vae) > 1e-3  # the constant part of the prior's term


@equation("eq-latent-layer-cost", method="exact", tolerance="1e-6 (averages on grids, best variance by a fine search)")
@pytest.mark.parametrize(("t", "s"), [(0.8, 0.5), (0.5, 0.4), (0.3, 0.1)])
def test_layer_cost(t, s):
    schedule, (t, s) = Cosine(), torch.tensor([t, s], dtype=F64)
    lumps = GaussianMixture(torch.tensor([[-1.0], [1.0]], dtype=F64), 0.2)
    x_t, x_0 = torch.linspace(-5, 5, 501, dtype=F64), torch.linspace(-2.5, 2.5, 251, dtype=F64)
    weight = (
        lumps.log_density(x_0[:, None]).exp()
        * normal_log(x_t[:, None], schedule.alpha(t) * x_0, schedule.sigma(t)).exp()
    )
    weight = weight / weight.sum()  # (x_t, x_0)
    guess = (weight @ x_0) / weight.sum(1)
    both = [each.flatten() for each in torch.broadcast_tensors(x_0, x_t[:, None])]
    mean, std = process_posterior(schedule, *both, t, s)
    decoded, _ = process_posterior(schedule, guess, x_t, t, s)
    square = (weight * (mean.reshape(501, 251) - decoded[:, None]) ** 2).sum()
    variances = std**2 * torch.linspace(1, 30, 145_001, dtype=F64)
    costs = ((variances / std**2).log() - 1 + (std**2 + square) / variances) / 2
    drop = schedule.log_snr(s).exp() - schedule.log_snr(t).exp()
    error = (weight * (x_0 - guess[:, None]) ** 2).sum()
    assert float(costs.min()) == pytest.approx(float(torch.log1p(drop * error) / 2), abs=1e-6)
    assert float(costs[0]) == pytest.approx(
        float(drop * error / 2), abs=1e-6
    )  # the posterior's variance: the plain bound
    assert float(costs[0] - costs.min()) > 1e-3
