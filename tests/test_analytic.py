"""Exact denoisers: the mixture against autograd and integration, the finite data set against a plain loop."""

from math import log, pi

import pytest
import torch

from diffusion_edu.analytic import (
    GaussianMixture,
    LinearGaussian,
    empirical_denoiser,
    kl_of_gaussians,
    standard_normal_log_density,
)
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

ALL = [
    LinearBeta(),
    Cosine(),
    Sigmoid(),
    OrnsteinUhlenbeck(),
    VarianceExploding(0.1, 5),
    Flow(),
    Schedule.from_betas(linear_betas()),
]
MEANS = torch.tensor([[1.0, 0.0], [-0.6, 0.8], [0.2, -1.1]], dtype=torch.float64)
MIXTURE = GaussianMixture(MEANS, torch.tensor([0.2, 0.3, 0.4]), torch.tensor([1.0, 2.0, 3.0]))


def name(schedule):
    return type(schedule).__name__


def points(n=6, dim=2, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("schedule", ALL, ids=name)
@pytest.mark.parametrize("t", [0.001, 0.1, 0.5, 0.9, 0.99])
def test_the_score_is_the_gradient_of_the_log_density(schedule, t):
    x, t = points().requires_grad_(True), torch.tensor(t, dtype=torch.float64)
    gradient = torch.autograd.grad(MIXTURE.log_density(x, schedule, t).sum(), x)[0]
    torch.testing.assert_close(MIXTURE.score(x, schedule, t), gradient, rtol=1e-10, atol=1e-10)  # float64 rounding
    prediction = MIXTURE.denoiser(schedule)(x.detach(), t)
    # through x_0 and back: a small sigma divides twice
    torch.testing.assert_close(prediction.score, gradient, rtol=1e-6, atol=1e-8)


def test_the_density_of_the_data_itself():
    x = points()
    by_hand = sum(
        w / 6 * (-(x - m).square().sum(1) / (2 * s**2)).exp() / (2 * pi * s**2)
        for w, s, m in zip((1, 2, 3), (0.2, 0.3, 0.4), MEANS, strict=True)
    )
    torch.testing.assert_close(MIXTURE.log_density(x), by_hand.log(), rtol=1e-6, atol=1e-6)  # stds given in float32
    gradient = torch.autograd.grad(MIXTURE.log_density(x.requires_grad_(True)).sum(), x)[0]
    torch.testing.assert_close(MIXTURE.score(x), gradient)


def test_each_row_has_its_own_time():
    x, t = points(3), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    together, density = MIXTURE.denoiser(Cosine())(x, t).x0, MIXTURE.log_density(x, Cosine(), t)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], MIXTURE.denoiser(Cosine())(x[i : i + 1], t[i]).x0)
        torch.testing.assert_close(density[i : i + 1], MIXTURE.log_density(x[i : i + 1], Cosine(), t[i]))


@pytest.mark.parametrize("schedule", ALL, ids=name)
@pytest.mark.parametrize("t", [0.1, 0.6, 0.95])
def test_density_and_denoiser_by_integration(schedule, t):
    means = torch.tensor([[-0.8], [0.5]], dtype=torch.float64)
    mixture = GaussianMixture(means, torch.tensor([0.3, 0.15], dtype=torch.float64), torch.tensor([0.3, 0.7]))
    t = torch.tensor(t, dtype=torch.float64)
    x_t = torch.tensor([[-1.0], [0.0], [0.4]], dtype=torch.float64)
    x0 = torch.linspace(-4, 4, 20001, dtype=torch.float64)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    likelihood = (-((x_t - alpha * x0) ** 2) / (2 * sigma**2)).exp() / (2 * pi * sigma**2).sqrt()
    joint = likelihood * mixture.log_density(x0[:, None]).exp()
    total = torch.trapezoid(joint, x0, dim=1)
    # 1e-8: the trapezium rule is exact here up to the tails beyond -4 and 4, which hold below 1e-20
    torch.testing.assert_close(mixture.log_density(x_t, schedule, t), total.log(), rtol=1e-8, atol=1e-8)
    mean = torch.trapezoid(joint * x0, x0, dim=1) / total
    torch.testing.assert_close(mixture.denoiser(schedule)(x_t, t).x0[:, 0], mean, rtol=1e-8, atol=1e-8)


def test_labels_choose_components_and_the_null_class_all():
    x, t = points(3), torch.tensor(0.5, dtype=torch.float64)
    denoiser = MIXTURE.denoiser(Cosine())
    labelled = denoiser(x, t, torch.tensor([0, 2, 3])).x0
    for row, k in ((0, 0), (1, 2)):
        alone = GaussianMixture(MEANS[k : k + 1], MIXTURE.stds[k : k + 1])
        torch.testing.assert_close(labelled[row : row + 1], alone.denoiser(Cosine())(x[row : row + 1], t).x0)
    torch.testing.assert_close(labelled[2], denoiser(x, t).x0[2])
    assert denoiser.schedule == Cosine()


def test_limits_of_the_exact_denoiser():
    x, denoiser = points(), MIXTURE.denoiser(LinearBeta())
    # without noise x_0 is known; under almost only noise it is the data's mean
    torch.testing.assert_close(denoiser(x, torch.tensor(0.0, dtype=torch.float64)).x0, x, rtol=1e-12, atol=1e-12)
    late = GaussianMixture(MEANS, MIXTURE.stds, MIXTURE.weights).denoiser(OrnsteinUhlenbeck(20.0))
    mean = (MIXTURE.weights[:, None] * MEANS).sum(0).expand(6, 2)
    torch.testing.assert_close(late(x, torch.tensor(1.0, dtype=torch.float64)).x0, mean, rtol=1e-6, atol=1e-6)


def test_the_noised_density_tends_to_the_standard_normal():
    x, end = points(), torch.tensor(1.0, dtype=torch.float64)
    density = MIXTURE.log_density(x, OrnsteinUhlenbeck(20.0), end)
    torch.testing.assert_close(density, standard_normal_log_density(x), rtol=1e-7, atol=1e-7)
    zero = standard_normal_log_density(torch.zeros(1, 2, 3))
    assert float(zero) == pytest.approx(-3 * log(2 * pi))


def test_samples_have_the_mixtures_moments():
    n = 20_000
    x = MIXTURE.sample(n, torch.Generator().manual_seed(0))
    mean = (MIXTURE.weights[:, None] * MEANS).sum(0)
    centred = MEANS - mean
    spread = (MIXTURE.weights * MIXTURE.stds**2).sum() * torch.eye(2, dtype=torch.float64)
    covariance = spread + (MIXTURE.weights[:, None] * centred).T @ centred
    # five standard errors; the variance of a product of two coordinates is bounded by that of a Gaussian here
    torch.testing.assert_close(x.mean(0), mean, rtol=0, atol=5 * float(covariance.diag().max() / n) ** 0.5)
    torch.testing.assert_close(x.T.cov(), covariance, rtol=0, atol=5 * float(covariance.max()) * (2 / n) ** 0.5)
    assert torch.equal(x, MIXTURE.sample(n, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianMixture(torch.zeros(2), 1.0), r"\(components, dim\), got \(2,\)"),
        (lambda: GaussianMixture(torch.zeros(0, 2), 1.0), r"got \(0, 2\)"),
        (lambda: GaussianMixture(MEANS, 0.0), "need 3 positive weights and stds"),
        (lambda: GaussianMixture(MEANS, torch.ones(2)), "need 3 positive"),
        (lambda: GaussianMixture(MEANS, 1.0, torch.ones(2)), "need 3 positive"),
        (lambda: GaussianMixture(MEANS, 1.0, torch.tensor([1.0, -1.0, 1.0])), "need 3 positive"),
        (lambda: MIXTURE.log_density(torch.zeros(4, 1)), r"need points \(N, 2\), got \(4, 1\)"),
        (lambda: MIXTURE.log_density(torch.zeros(4, 2), Cosine()), "both schedule and t, or neither"),
        (lambda: MIXTURE.denoiser(Cosine())(points(), torch.tensor(2.0)), r"\[0, 1\], got 2"),
        (lambda: MIXTURE.denoiser(Cosine())(points(1), torch.tensor(0.5), torch.tensor([4])), r"0 ... 2 .* got 4"),
        (lambda: MIXTURE.denoiser(Cosine())(points(1), torch.tensor(0.5), torch.tensor([0, 1])), r"shape \(1,\)"),
        (lambda: empirical_denoiser(points(), Cosine())(points(3, 5), torch.tensor(0.5)), r"\(N, 2\), got \(3, 5\)"),
        (lambda: empirical_denoiser(points(), Cosine())(points(), torch.tensor(-0.5)), r"\[0, 1\], got -0.5"),
    ],
)
def test_what_makes_no_distribution_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("schedule", ALL, ids=name)
def test_the_finite_data_set_against_a_plain_loop(schedule):
    data, x_t = points(5, 4).reshape(5, 1, 2, 2), points(3, 4, seed=1).reshape(3, 1, 2, 2)
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    x0 = empirical_denoiser(data, schedule)(x_t, t).x0
    for i in range(3):
        alpha, sigma = schedule.alpha(t[i]), schedule.sigma(t[i])
        weights = torch.stack([(-(x_t[i] - alpha * d).square().sum() / (2 * sigma**2)).exp() for d in data])
        wanted = sum(w * d for w, d in zip(weights / weights.sum(), data, strict=True))
        torch.testing.assert_close(x0[i], wanted, rtol=1e-8, atol=1e-10)  # float64 rounding over a small sum


def test_the_finite_data_set_is_a_mixture_of_needles_and_ends_in_one_of_its_points():
    data, x = points(5), points(4, seed=1)
    needles = GaussianMixture(data, 1e-7)
    t = torch.tensor(0.4, dtype=torch.float64)
    torch.testing.assert_close(
        empirical_denoiser(data, Cosine())(x, t).x0, needles.denoiser(Cosine())(x, t).x0, rtol=1e-9, atol=1e-9
    )
    near = empirical_denoiser(data, Cosine())(x, torch.tensor(1e-3, dtype=torch.float64)).x0
    torch.testing.assert_close(near, data[torch.cdist(x, data).argmin(1)])
    far = empirical_denoiser(data, OrnsteinUhlenbeck(20.0))(x, torch.tensor(1.0, dtype=torch.float64)).x0
    torch.testing.assert_close(far, data.mean(0).expand(4, 2), rtol=1e-6, atol=1e-6)


# --- latent variables ---


def linear_model():
    weight = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return LinearGaussian(weight, torch.tensor([1.0, 0.0, -1.0, 0.5], dtype=torch.float64), 0.6)


def test_the_latent_model_s_pairs_have_its_moments():
    model, n = linear_model(), 200_000
    z, x = model.sample(n, torch.Generator().manual_seed(1))
    covariance = model.weight @ model.weight.T + 0.36 * torch.eye(4, dtype=torch.float64)
    error = 5 * (float(covariance.max()) / n) ** 0.5  # five standard errors of a mean, as below of a covariance
    torch.testing.assert_close(x.mean(0), model.bias, rtol=0, atol=error)
    torch.testing.assert_close(x.T.cov(), covariance, rtol=0, atol=5 * float(covariance.max()) * (2 / n) ** 0.5)
    mean, spread = model.posterior(x)
    torch.testing.assert_close((z - mean).T.cov(), spread, rtol=0, atol=5 * float(spread.max()) * (2 / n) ** 0.5)


def test_bayes_rule_of_the_latent_model():
    """log p(x) = log p(x | z) + log p(z) - log p(z | x), at any z."""
    model = linear_model()
    z, x = model.sample(6, torch.Generator().manual_seed(2))
    mean, covariance = model.posterior(x)
    posterior = torch.distributions.MultivariateNormal(mean, covariance).log_prob(z + 0.4)
    decoder = torch.distributions.Normal((z + 0.4) @ model.weight.T + model.bias, model.noise).log_prob(x).sum(1)
    torch.testing.assert_close(model.log_evidence(x), decoder + standard_normal_log_density(z + 0.4) - posterior)


def test_the_bound_touches_the_evidence_at_the_posterior_and_nowhere_else():
    model = linear_model()
    _, x = model.sample(6, torch.Generator().manual_seed(3))
    mean, covariance = model.posterior(x)
    torch.testing.assert_close(model.elbo(x, mean, covariance), model.log_evidence(x))
    for q in ((mean + 0.1, covariance), (mean, 1.1 * covariance), (torch.zeros(2, dtype=torch.float64), covariance)):
        gap = model.log_evidence(x) - model.elbo(x, *q)
        torch.testing.assert_close(gap, kl_of_gaussians(*(q[0].expand(6, 2), q[1]), mean, covariance))
        assert bool((gap > 1e-3).all())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearGaussian(torch.ones(3), torch.zeros(3), 1.0), r"weight \(d, m\).*got \(3,\) and \(3,\)"),
        (lambda: LinearGaussian(torch.ones(3, 2), torch.zeros(2), 1.0), r"got \(3, 2\) and \(2,\)"),
        (lambda: LinearGaussian(torch.ones(3, 2), torch.zeros(3), 0.0), "noise must be positive, got 0"),
        (lambda: LinearGaussian(torch.ones(3, 2), torch.zeros(3), float("nan")), "got nan"),
    ],
)
def test_what_makes_no_latent_model_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
