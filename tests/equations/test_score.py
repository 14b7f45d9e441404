"""The equations of `book/score.md`."""

from itertools import product
from math import exp, log, pi, sqrt

import pytest
import sympy as sp
import torch
from torch import Tensor

from diffusion_edu.analytic import GaussianMixture, empirical_denoiser
from diffusion_edu.denoisers import Denoiser
from diffusion_edu.losses import denoising_score_matching, implicit_score_matching
from diffusion_edu.process import Prediction, q_sample
from diffusion_edu.samplers import annealed_langevin, langevin, sample
from diffusion_edu.schedules import Cosine, LinearBeta, OrnsteinUhlenbeck, VarianceExploding, time_at_log_snr
from tests.equations import equation

F64 = torch.float64
MIXTURE = GaussianMixture(
    torch.tensor([[-1.2, 0.3], [0.9, 1.0], [0.4, -1.1]], dtype=F64),
    torch.tensor([0.3, 0.4, 0.25], dtype=F64),
    torch.tensor([0.2, 0.5, 0.3], dtype=F64),
)
AXIS = torch.linspace(-6, 6, 241, dtype=F64)
PLANE = torch.cartesian_prod(AXIS, AXIS)
CELL = float(AXIS[1] - AXIS[0]) ** 2
LINE = torch.linspace(-14, 14, 14_001, dtype=F64)
STEP = float(LINE[1] - LINE[0])


def time(value: float) -> Tensor:
    return torch.tensor(value, dtype=F64)


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=F64)


def with_noise(sigma: float) -> GaussianMixture:
    return GaussianMixture(MIXTURE.means, (MIXTURE.stds**2 + sigma**2).sqrt(), MIXTURE.weights)


def line_mixture(w: float, m: float = 1.5) -> GaussianMixture:
    return GaussianMixture(torch.tensor([[-m], [m]], dtype=F64), 1.0, torch.tensor([w, 1 - w], dtype=F64))


def plane_mean(law: GaussianMixture, values: Tensor) -> Tensor:
    """E under `law` of values on the grid, by summation: exact to rounding for such smooth densities."""
    return (law.log_density(PLANE).exp() * CELL) @ values


def test_the_grid_is_fine_and_wide_enough():
    one = torch.ones(len(PLANE), dtype=F64)
    for law in (MIXTURE, with_noise(0.5)):
        assert abs(float(plane_mean(law, one)) - 1) < 1e-9


def a_field(x: Tensor) -> Tensor:
    """A vector field that is no gradient: a score model that is wrong."""
    return torch.stack([-x[:, 0] + 0.4 * x[:, 1] ** 2, -0.5 * x[:, 1] + x[:, 0].sin()], dim=1)


def its_divergence(x: Tensor) -> Tensor:
    return torch.full_like(x[:, 0], -1.5)


# --- energies -------------------------------------------------------------------------------------


def energy(x: Tensor, theta: Tensor) -> Tensor:
    return theta[0] * (x[:, 0] ** 2 - 1) ** 2 / 4 + theta[1] * x[:, 1] ** 2 / 2


@equation("eq-score-energy", method="exact", tolerance="1e-9 (grid sums of a smooth density)")
def test_energy():
    theta = torch.tensor([1.5, 2.0], dtype=F64)
    heights = (-energy(PLANE, theta)).exp()
    Z = heights.sum() * CELL
    assert abs(float((heights / Z).sum() * CELL) - 1) < 1e-12
    x1 = torch.linspace(-6, 6, 24_001, dtype=F64)  # Z factorises: an independent value of it
    first = (-theta[0] * (x1**2 - 1) ** 2 / 4).exp().sum() * (x1[1] - x1[0])
    assert abs(float(Z - first * sqrt(2 * pi / 2.0))) < 1e-9
    assert abs(float((heights / Z**2).sum() * CELL) - 1) > 0.1


@equation("eq-score-ml-gradient", method="exact", tolerance="1e-7 (central differences of log Z on a grid)")
def test_likelihood_gradient():
    data, theta, h = MIXTURE.sample(50, seeded(0)), torch.tensor([1.5, 2.0], dtype=F64), 1e-4

    def loss(theta: Tensor) -> Tensor:
        return energy(data, theta).mean() + (-energy(PLANE, theta)).exp().sum().mul(CELL).log()

    model = (-energy(PLANE, theta)).softmax(0)

    def slopes(x: Tensor) -> Tensor:  # d energy / d theta
        return torch.stack([(x[:, 0] ** 2 - 1) ** 2 / 4, x[:, 1] ** 2 / 2])

    for i in range(2):
        shift = torch.zeros(2, dtype=F64)
        shift[i] = h
        numeric = (loss(theta + shift) - loss(theta - shift)) / (2 * h)
        data_part, model_part = slopes(data)[i].mean(), slopes(PLANE)[i] @ model
        assert abs(float(numeric - (data_part - model_part))) < 1e-7
        assert abs(float(numeric - (data_part + model_part))) > 0.1  # the sign of the model's part


@equation("eq-score-no-z", method="symbolic", tolerance="exact (log Z does not depend on x)")
def test_no_normaliser():
    x, theta = sp.symbols("x theta", real=True)
    E, Z = sp.Function("E")(x, theta), sp.Function("Z")(theta)
    log_p = sp.expand_log(sp.log(sp.exp(-E) / Z), force=True)
    assert sp.simplify(sp.diff(log_p, x) + sp.diff(E, x)) == 0
    assert sp.simplify(sp.diff(log_p, theta) + sp.diff(E, theta)) != 0  # for theta, Z does count


# --- Fisher divergence ------------------------------------------------------------------------------


@equation("eq-fisher-divergence", method="exact", tolerance="1e-9 (grid), and 0 for equal densities only")
def test_fisher_divergence():
    def divergence(p: GaussianMixture, q: GaussianMixture) -> float:
        gap = (p.score(LINE[:, None]) - q.score(LINE[:, None]))[:, 0]
        return float((p.log_density(LINE[:, None]).exp() * gap**2).sum() * STEP / 2)

    p, q = line_mixture(0.3), line_mixture(0.31)
    assert divergence(p, p) == 0
    assert divergence(p, q) > 1e-6
    # the rate of KL's fall along the heat flow is the Fisher divergence (de Bruijn): an independent route to it
    wide, other, h = line_mixture(0.3), line_mixture(0.6, 1.0), 1e-4

    def kl(t: float) -> float:
        a, b = (GaussianMixture(law.means, sqrt(1 + t), law.weights) for law in (wide, other))
        log_a, log_b = a.log_density(LINE[:, None]), b.log_density(LINE[:, None])
        return float((log_a.exp() * (log_a - log_b)).sum() * STEP)

    fall = -(kl(h) - kl(-h)) / (2 * h)
    assert abs(fall - divergence(wide, other)) < 1e-7
    assert abs(fall - 2 * divergence(wide, other)) > 1e-2  # without the half


@equation("eq-fisher-gaussians", method="symbolic", tolerance="exact (the Gaussian's second moment)")
def test_fisher_of_gaussians():
    x, m, n = sp.symbols("x m n", real=True)
    a, b = sp.symbols("a b", positive=True)
    gap = -(x - m) / a**2 + (x - n) / b**2
    u = sp.symbols("u", real=True)  # x = m + a u, E u = 0, E u^2 = 1
    polynomial = sp.Poly(sp.expand(gap.subs(x, m + a * u) ** 2 / 2), u)
    mean = polynomial.coeff_monomial(1) + polynomial.coeff_monomial(u**2)
    stated = a**2 / 2 * (1 / a**2 - 1 / b**2) ** 2 + (m - n) ** 2 / (2 * b**4)
    assert sp.simplify(mean - stated) == 0
    wrong = a**2 / 2 * (1 / a**2 - 1 / b**2) ** 2 + (m - n) ** 2 / (2 * b**2)
    assert sp.simplify(mean - wrong) != 0


@equation("eq-fisher-blind", method="exact", tolerance="1e-12 (both sides on one grid)")
def test_fisher_of_two_weights():
    x, w, v = LINE[:, None], 0.2, 0.5
    p, q = line_mixture(w), line_mixture(v)
    direct = (p.log_density(x).exp() * (p.score(x) - q.score(x))[:, 0] ** 2).sum() * STEP / 2

    def chance(law: GaussianMixture) -> Tensor:
        return law.component_log_densities(x, time(1.0), time(0.0)).softmax(1)[:, 0]

    s1, s2 = -(LINE + 1.5), -(LINE - 1.5)
    stated = (p.log_density(x).exp() * (chance(p) - chance(q)) ** 2 * (s1 - s2) ** 2).sum() * STEP / 2
    assert abs(float(direct - stated)) < 1e-12
    assert abs(float(direct) - float((p.log_density(x).exp() * (w - v) ** 2 * (s1 - s2) ** 2).sum() * STEP / 2)) > 0.1
    far = [line_mixture(each, 5.0) for each in (w, v)]  # blind: ten widths apart
    assert (far[0].log_density(x).exp() * (far[0].score(x) - far[1].score(x))[:, 0] ** 2).sum() * STEP / 2 < 1e-5


@equation("eq-fisher-coins", method="exact", tolerance="1e-5 (the overlap of lumps ten widths apart)")
def test_divergence_of_two_coins():
    w, v = 0.2, 0.5
    coins = w * log(w / v) + (1 - w) * log((1 - w) / (1 - v))

    def kl(m: float) -> float:
        log_p, log_q = (line_mixture(each, m).log_density(LINE[:, None]) for each in (w, v))
        return float((log_p.exp() * (log_p - log_q)).sum() * STEP)

    assert abs(kl(5.0) - coins) < 1e-5
    assert abs(kl(1.0) - coins) > 0.05  # a limit: near lumps differ by less
    assert abs(kl(5.0) - (v * log(v / w) + (1 - v) * log((1 - v) / (1 - w)))) > 0.02  # not the other direction


# --- implicit and sliced ------------------------------------------------------------------------------


@equation("eq-ism-parts", method="symbolic", tolerance="exact (polynomials on [0, 1], boundary included)")
def test_parts():
    x = sp.symbols("x")
    for density, s in (
        (2 * x, 1 + x**2),
        (sp.Integer(1), 6 - 12 * x),
        (sp.Rational(3, 2) * (1 - x**2), sp.exp(x)),
    ):
        assert sp.integrate(density, (x, 0, 1)) == 1
        left = sp.integrate(sp.expand(s * sp.diff(density, x)), (x, 0, 1))
        boundary = (s * density).subs(x, 1) - (s * density).subs(x, 0)
        inner = sp.integrate(sp.expand(density * sp.diff(s, x)), (x, 0, 1))
        assert sp.simplify(left - (boundary - inner)) == 0
        assert sp.simplify(left + inner) != 0  # without the boundary it is wrong here


@equation("eq-ism", method="exact", tolerance="1e-9 (grid sums over the plane)")
def test_implicit_score_matching():
    truth, model = MIXTURE.score(PLANE), a_field(PLANE)
    explicit = plane_mean(MIXTURE, (model - truth).square().sum(1) / 2)
    implicit = plane_mean(MIXTURE, model.square().sum(1) / 2 + its_divergence(PLANE))
    constant = plane_mean(MIXTURE, truth.square().sum(1) / 2)
    assert abs(float(explicit - implicit - constant)) < 1e-9
    whole = plane_mean(MIXTURE, model.square().sum(1) + its_divergence(PLANE))  # the half forgotten
    assert abs(float(explicit - whole - constant)) > 0.1
    points = MIXTURE.sample(7, seeded(0))
    torch.testing.assert_close(
        implicit_score_matching(a_field, points), a_field(points).square().sum(1) / 2 + its_divergence(points)
    )


@equation("eq-ism-boundary", method="symbolic", tolerance="exact (the minimum of a quadratic)")
def test_uniform_density():
    u, k, x = sp.symbols("u k x", real=True)
    implicit = sp.integrate(sp.expand((u + k * x) ** 2 / 2 + k), (x, 0, 1))
    (found,) = sp.solve([sp.diff(implicit, u), sp.diff(implicit, k)], [u, k], dict=True)
    assert (found[k], found[u]) == (-12, 6)
    variance = sp.Rational(1, 12)
    assert (found[k], found[u]) == (-1 / variance, sp.Rational(1, 2) / variance)
    explicit = sp.integrate(sp.expand((u + k * x) ** 2 / 2), (x, 0, 1))
    assert explicit.subs(found) == 6
    full = sp.simplify(implicit - ((u + k) - u))  # with the boundary the truth wins
    (mended,) = sp.solve([sp.diff(full, u), sp.diff(full, k)], [u, k], dict=True)
    assert (mended[k], mended[u]) == (0, 0)


@equation("eq-sliced", method="exact", tolerance="1e-12 (all sign vectors are enumerated)")
def test_slices():
    points = MIXTURE.sample(20, seeded(0)).requires_grad_(True)
    score = a_field(points)
    implicit = score.square().sum(1) / 2 + its_divergence(points)

    def sliced(vectors: list[Tensor]) -> Tensor:
        total = torch.zeros(len(points), dtype=F64)
        for v in vectors:
            along = score @ v
            slope = torch.autograd.grad(along.sum(), points, retain_graph=True)[0]
            total = total + along**2 / 2 + slope @ v
        return total / len(vectors)

    signs = [torch.tensor(v, dtype=F64) for v in product((-1.0, 1.0), repeat=2)]
    torch.testing.assert_close(sliced(signs), implicit, rtol=1e-12, atol=1e-12)
    unit = [v / sqrt(2) for v in signs]  # E v v^T = I / d: d times too small
    torch.testing.assert_close(2 * sliced(unit), implicit, rtol=1e-12, atol=1e-12)
    assert float((sliced(signs[:1]) - implicit).detach().abs().max()) > 0.1  # one slice alone is another number


@equation("eq-sliced-variance", method="exact", tolerance="1e-10 (all sign vectors; Gauss-Hermite for normal v)")
def test_variance_of_slices():
    A = normal(5, 5)  # not symmetric
    B = (A + A.T) / 2
    signs = torch.tensor(list(product((-1.0, 1.0), repeat=5)), dtype=F64)
    values = ((signs @ A) * signs).sum(1)
    assert float(values.mean() - A.trace()) == pytest.approx(0, abs=1e-12)
    stated = 2 * (B.square().sum() - B.diag().square().sum())
    assert float(values.var(unbiased=False)) == pytest.approx(float(stated), abs=1e-10)
    assert float(values.var(unbiased=False)) != pytest.approx(
        float(2 * (A.square().sum() - A.diag().square().sum())), rel=0.05
    )
    pairs = (values[:, None] + values[None, :]) / 2  # K = 2: all pairs of sign vectors
    assert float(pairs.var(unbiased=False)) == pytest.approx(float(stated) / 2, abs=1e-10)
    # normal v: Gauss-Hermite, three nodes in each of five coordinates, exact for polynomials of degree five
    nodes = torch.tensor(list(product((-sqrt(3), 0.0, sqrt(3)), repeat=5)), dtype=F64)
    weights = torch.where(nodes == 0, 4.0, 1.0).to(F64).prod(1) / 6**5
    forms = ((nodes @ A) * nodes).sum(1)
    mean = weights @ forms
    assert float(mean - A.trace()) == pytest.approx(0, abs=1e-12)
    variance = float(weights @ (forms - mean) ** 2)
    assert variance == pytest.approx(float(2 * B.square().sum()), abs=1e-10)
    assert variance != pytest.approx(float(stated), rel=0.05)  # the two kinds of v differ


# --- denoising ----------------------------------------------------------------------------------------


@equation("eq-conditional-score", method="symbolic", tolerance="exact (derivative of a Gaussian's logarithm)")
def test_conditional_score():
    x, noisy, eps = sp.symbols("x noisy epsilon", real=True)
    sigma = sp.symbols("sigma", positive=True)
    log_q = -((noisy - x) ** 2) / (2 * sigma**2) - sp.log(sigma)
    slope = sp.diff(log_q, noisy)
    assert sp.simplify(slope + (noisy - x) / sigma**2) == 0
    at_noise = sp.simplify(slope.subs(noisy, x + sigma * eps))
    assert sp.simplify(at_noise + eps / sigma) == 0
    for wrong in (eps / sigma, -eps / sigma**2):  # the two famous ones
        assert sp.simplify(at_noise - wrong) != 0


@equation("eq-score-average", method="exact", tolerance="1e-9 (posterior on a grid against the closed form)")
def test_score_is_an_average():
    sigma = 0.4
    for point in ([0.5, 0.2], [-1.0, -0.8], [2.0, 2.0]):
        x = torch.tensor(point, dtype=F64)
        belief = (MIXTURE.log_density(PLANE) - (x - PLANE).square().sum(1) / (2 * sigma**2)).softmax(0)
        average = belief @ (-(x - PLANE) / sigma**2)
        torch.testing.assert_close(average, with_noise(sigma).score(x[None])[0], rtol=0, atol=1e-9)
        assert float((-average - with_noise(sigma).score(x[None])[0]).norm()) > 0.1


def dsm_on_grids(model, sigma: float) -> float:
    """E |model(x + sigma eps) + eps / sigma|^2 / 2 for data on the line, by a double sum."""
    x, eps = torch.linspace(-9, 9, 601, dtype=F64), torch.linspace(-8, 8, 401, dtype=F64)
    p = line_mixture(0.3).log_density(x[:, None]).exp() * (x[1] - x[0])
    phi = (-(eps**2) / 2).exp() / sqrt(2 * pi) * (eps[1] - eps[0])
    losses = (model(x[:, None] + sigma * eps) + eps / sigma).square() / 2
    return float(p @ losses @ phi)


@equation("eq-dsm", method="exact", tolerance="1e-8 (double sums over grids: a parabola in the slope of the model)")
def test_denoising_objective():
    sigma, second = 0.7, 1 + 1.5**2 + 0.7**2  # E x~^2 of the mixture with lumps at -1.5 and 1.5, noise added
    losses = {k: dsm_on_grids(lambda z, k=k: k * z, sigma) for k in (-1.0, 0.0, 1.0)}
    for k, loss in losses.items():  # E (k x~ + eps / sigma)^2 / 2, with E x~ eps = sigma
        assert abs(loss - (k**2 * second + 2 * k + 1 / sigma**2) / 2) < 1e-8
    curvature = losses[1.0] + losses[-1.0] - 2 * losses[0.0]
    best = -(losses[1.0] - losses[-1.0]) / 2 / curvature
    noisy = GaussianMixture(line_mixture(0.3).means, sqrt(1 + sigma**2), line_mixture(0.3).weights)
    q = noisy.log_density(LINE[:, None]).exp() * STEP
    fitted = (q * LINE) @ noisy.score(LINE[:, None])[:, 0] / (q @ LINE**2)  # the line nearest to the noisy score
    assert abs(best - float(fitted)) < 1e-8
    mirrored = {k: dsm_on_grids(lambda z, k=k: -k * z, sigma) for k in (-1.0, 1.0)}  # the slip: minus eps / sigma
    assert abs(-(mirrored[1.0] - mirrored[-1.0]) / 2 / curvature + best) < 1e-8  # minus the score, at no higher loss
    x, eps = normal(5, 2), normal(5, 2, seed=1)
    wanted = (a_field(x + sigma * eps) + eps / sigma).square().sum(1) / 2
    torch.testing.assert_close(denoising_score_matching(a_field, x, sigma, eps), wanted, rtol=1e-12, atol=0)


@equation("eq-vincent", method="exact", tolerance="1e-7 (double sums over grids)")
@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_vincents_identity(sigma):
    law = line_mixture(0.3)
    noisy = GaussianMixture(law.means, sqrt(1 + sigma**2), law.weights)
    q, truth = noisy.log_density(LINE[:, None]).exp() * STEP, noisy.score(LINE[:, None])[:, 0]
    constant = (1 / sigma**2 - float(q @ truth**2)) / 2

    def exact_score(x: Tensor) -> Tensor:
        return noisy.score(x.reshape(-1, 1)).reshape(x.shape)

    for model in (exact_score, torch.zeros_like, lambda x: -0.7 * x + x.sin()):
        explicit = float(q @ (model(LINE) - truth) ** 2) / 2
        assert abs(dsm_on_grids(model, sigma) - explicit - constant) < 1e-7
        assert abs(dsm_on_grids(model, sigma) - explicit) > 0.05  # not without the constant
    clean = law.score(LINE[:, None])[:, 0]  # the clean data's score is not the minimum
    assert float(q @ (clean - truth) ** 2) > 1e-3


@equation("eq-vincent-gaussian", method="symbolic", tolerance="exact (moments of a Gaussian)")
def test_vincents_constant_for_gaussian_data():
    d, c, sigma = sp.symbols("d c sigma", positive=True)
    fisher = d * (c**2 + sigma**2) / (c**2 + sigma**2) ** 2  # E |x / v|^2 with E |x|^2 = d v
    constant = (d / sigma**2 - fisher) / 2
    assert sp.simplify(constant - d / 2 * (1 / sigma**2 - 1 / (c**2 + sigma**2))) == 0
    assert sp.simplify(constant - d * c**2 / (2 * sigma**2 * (c**2 + sigma**2))) == 0
    assert sp.limit(constant.subs({d: 1, c: 1}), sigma, 0, "+") == sp.oo


# --- Tweedie and the dictionary -----------------------------------------------------------------------


def moments_by_bayes(schedule, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    belief = (MIXTURE.log_density(PLANE) - (x - alpha * PLANE).square().sum(1) / (2 * sigma**2)).softmax(0)
    mean = belief @ PLANE
    gaps = PLANE - mean
    return mean, (belief[:, None] * gaps).T @ gaps


@equation("eq-tweedie", method="exact", tolerance="1e-9 (Bayes on a grid against the closed-form score)")
@pytest.mark.parametrize("schedule", [Cosine(), LinearBeta()], ids=str)
def test_tweedie(schedule):
    t, x = time(0.35), torch.tensor([0.55, 0.1], dtype=F64)
    alpha, sigma, score = schedule.alpha(t), schedule.sigma(t), MIXTURE.score(x[None], schedule, t)[0]
    mean, _ = moments_by_bayes(schedule, t, x)
    torch.testing.assert_close(mean, (x + sigma**2 * score) / alpha, rtol=0, atol=1e-9)
    for wrong in ((x + sigma * score) / alpha, x + sigma**2 * score, (x - sigma**2 * score) / alpha):
        assert float((mean - wrong).norm()) > 0.02


@equation("eq-tweedie-second", method="exact", tolerance="1e-9 (Bayes on a grid against autograd of the score)")
@pytest.mark.parametrize("schedule", [Cosine(), LinearBeta()], ids=str)
def test_tweedie_of_second_order(schedule):
    t, x = time(0.35), torch.tensor([0.55, 0.1], dtype=F64)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    _, covariance = moments_by_bayes(schedule, t, x)
    hessian = torch.autograd.functional.jacobian(lambda z: MIXTURE.score(z[None], schedule, t)[0], x)
    eye = torch.eye(2, dtype=F64)
    stated = sigma**2 / alpha**2 * (eye + sigma**2 * hessian)
    torch.testing.assert_close(covariance, stated, rtol=0, atol=1e-9)
    for wrong in (sigma**2 / alpha**2 * (eye - sigma**2 * hessian), sigma**2 / alpha**2 * (eye + sigma * hessian)):
        assert float((covariance - wrong).norm()) > 0.02


@equation("eq-score-mmse", method="exact", tolerance="1e-8 (grid sums; the denoiser's error through its covariance)")
def test_least_error_of_a_denoiser():
    schedule, t = Cosine(), time(0.3)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    density = MIXTURE.log_density(PLANE, schedule, t).exp() * CELL
    x = PLANE.clone().requires_grad_(True)
    D = MIXTURE.denoiser(schedule)(x, t).x0
    trace = sum(torch.autograd.grad(D[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(2))
    error = density @ (sigma**2 / alpha * trace)  # tr Cov = sigma^2 / alpha div D
    # and directly: E |x_0|^2 - E |D|^2
    direct = plane_mean(MIXTURE, PLANE.square().sum(1)) - density @ D.detach().square().sum(1)
    fisher = density @ MIXTURE.score(PLANE, schedule, t).square().sum(1)
    stated = sigma**2 / alpha**2 * (2 - sigma**2 * fisher)
    C = (2 / sigma**2 - fisher) / 2
    for found in (error, direct, 2 * sigma**4 / alpha**2 * C):
        assert abs(float(found - stated)) < 1e-8
    assert abs(float(direct - sigma**2 / alpha**2 * 2)) > 0.1  # the noise itself is not the error


@equation("eq-score-dictionary", method="symbolic", tolerance="exact (one linear relation solved three ways)")
def test_dictionary():
    x, s, D, eps = sp.symbols("x s D epsilon", real=True)
    alpha, sigma = sp.symbols("alpha sigma", positive=True)
    by_score = {eps: -sigma * s, D: (x + sigma**2 * s) / alpha}
    assert sp.simplify((-eps / sigma).subs(by_score) - s) == 0
    assert sp.simplify(((alpha * D - x) / sigma**2).subs(by_score) - s) == 0
    assert sp.simplify(((x - alpha * D) / sigma).subs(by_score) - by_score[eps]) == 0
    assert sp.simplify(((x - sigma * eps) / alpha).subs(by_score) - by_score[D]) == 0
    assert sp.simplify(((D - x) / sigma**2).subs(by_score) - s) != 0  # alpha may be dropped only where it is 1
    schedule, t, x_t = Cosine(), time(0.4), normal(3, 2)
    seen = Prediction(schedule, x_t, t, normal(3, 2, seed=1), "score")
    a, b = schedule.alpha(t), schedule.sigma(t)
    torch.testing.assert_close(seen.x0, (x_t + b**2 * seen.score) / a)
    torch.testing.assert_close(seen.eps, (x_t - a * seen.x0) / b)


@equation("eq-drop-alpha", method="exact", tolerance="1e-12 (closed forms)")
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_drop_alpha(dim):
    law = GaussianMixture(normal(3, dim), torch.tensor([0.3, 0.4, 0.25], dtype=F64))
    schedule, t, x = Cosine(), time(0.45), normal(6, dim, seed=1)
    alpha, level = schedule.alpha(t), schedule.sigma(t) / schedule.alpha(t)
    stretched = GaussianMixture(law.means, (law.stds**2 + level**2).sqrt(), law.weights)
    log_q = law.log_density(x, schedule, t)
    torch.testing.assert_close(log_q, stretched.log_density(x / alpha) - dim * alpha.log(), rtol=0, atol=1e-12)
    torch.testing.assert_close(law.score(x, schedule, t), stretched.score(x / alpha) / alpha, rtol=0, atol=1e-12)
    if dim > 1:
        assert float((log_q - stretched.log_density(x / alpha) + alpha.log()).abs().min()) > 0.1  # one alpha is too few


@equation("eq-pure-denoiser", method="exact", tolerance="1e-10 (closed forms)")
def test_pure_denoiser():
    level, x0, eps = 0.6, MIXTURE.sample(8, seeded(0)), normal(8, 2, seed=1)
    ve = VarianceExploding(0.05, 3.0)
    t = torch.tensor(log((level / 0.05) ** 2 + 1) / ve.rate, dtype=F64)
    u = q_sample(ve, x0, t, eps)
    D = MIXTURE.denoiser(ve)(u, t).x0
    score = (D - u) / level**2
    torch.testing.assert_close(score, with_noise(level).score(u), rtol=0, atol=1e-10)
    left = (score + eps / level).square().sum(1)
    torch.testing.assert_close(left, (x0 - D).square().sum(1) / level**4, rtol=1e-10, atol=0)
    assert float((left / (x0 - D).square().sum(1) * level**2 - 1).abs().min()) > 0.5  # sigma^-2 is the eps weight


@equation("eq-dsm-chain", method="exact", tolerance="1e-10 (four forms of one number)")
@pytest.mark.parametrize("target", ["score", "eps", "x0", "v"])
def test_chain_of_losses(target):
    schedule, t, x0, eps = Cosine(), time(0.4), normal(5, 2), normal(5, 2, seed=1)
    x_t = q_sample(schedule, x0, t, eps)
    net = torch.nn.Linear(2, 2).double()
    denoiser = Denoiser(_Timeless(net), schedule, target)
    with torch.no_grad():
        seen = denoiser(x_t, t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    forms = [
        sigma**2 * (seen.score + eps / sigma).square().sum(1),
        (sigma * seen.score + eps).square().sum(1),
        (eps - seen.eps).square().sum(1),
        (alpha / sigma) ** 2 * (x0 - seen.x0).square().sum(1),
    ]
    for form in forms[1:]:
        torch.testing.assert_close(form, forms[0], rtol=1e-10, atol=1e-10)
    assert float((sigma**2 * (seen.score - eps / sigma).square().sum(1) - forms[0]).abs().max()) > 0.1


class _Timeless(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, t, y=None):
        return self.net(x)


@equation("eq-random-time-floor", method="exact", tolerance="1e-6 (quadrature over log t)")
@pytest.mark.parametrize("t_min, printed", [(1e-2, 2.0), (1e-4, 4.3), (1e-6, 6.6)])
def test_floor_of_the_random_time_loss(t_min, printed):
    horizon = 10.0
    ou = OrnsteinUhlenbeck(horizon)
    data = GaussianMixture(torch.zeros(1, 1, dtype=F64), 1.0)
    clock = torch.logspace(log(t_min) / log(10), 1, 40_001, dtype=F64)
    score = data.score(torch.ones(1, 1, dtype=F64), ou, time(0.3))
    assert float(score) == pytest.approx(-1)  # the score is -x at all times
    nodes, weights = torch.tensor([-sqrt(3), 0.0, sqrt(3)], dtype=F64), torch.tensor([1, 4, 1], dtype=F64) / 6
    for each in (0.05, 1.0, 3.0):  # the floor itself, from its definition: Gauss-Hermite is exact for a square
        alpha, sigma = ou.alpha(time(each / horizon)), ou.sigma(time(each / horizon))
        x_t = alpha * nodes[:, None] + sigma * nodes
        learned = data.score(x_t.reshape(-1, 1), ou, time(each / horizon)).reshape(3, 3)
        mean = weights @ (learned + nodes / sigma).square() @ weights
        assert float(mean) == pytest.approx(1 / (exp(2 * each) - 1), rel=1e-9)
    floor = 1 / ou.sigma(clock / horizon) ** 2 - 1  # E |eps / sigma - x|^2 = 1 / sigma^2 - 2 + 1
    integral = float(torch.trapezoid(floor, clock))
    closed = log((1 - exp(-2 * horizon)) / (1 - exp(-2 * t_min))) / 2
    assert abs(integral - closed) < 1e-6
    assert abs(closed - log(1 / (2 * t_min)) / 2) < t_min
    assert round(closed, 1) == printed


# --- Langevin -----------------------------------------------------------------------------------------


@equation("eq-langevin-sde", method="monte carlo", tolerance="4 standard errors, step 0.01 (weak error below one)")
def test_langevin_has_the_density_for_its_law():
    # the exact law of a Gaussian under dX = s/2 dt + dW relaxes as variance = 1 + (v - 1) e^{-t}
    x = 0.2 * normal(40_000, 1)
    end = sample(langevin(lambda z: -z, x, 0.01, 100, seeded(1)))
    wanted = 1 + (0.04 - 1) * exp(-1.0)
    error = wanted * sqrt(2 / len(x))
    assert abs(float(end.var()) - wanted) < 4 * error + 0.0025
    for wrong in (1 + (0.04 - 1) * exp(-2.0), 2 * wanted, wanted / 2):  # drift s, noise sqrt 2, half of both
        assert abs(float(end.var()) - wrong) > 4 * error + 0.0025


@equation("eq-langevin-stationary", method="symbolic", tolerance="exact (for any density)")
def test_langevin_keeps_the_density():
    x, y = sp.symbols("x y", real=True)
    p = sp.Function("p")(x, y)
    log_p = sp.log(p)

    def rate(drift, diffusion):
        flow = sum(sp.diff(p * drift * sp.diff(log_p, z), z) for z in (x, y))
        return sp.simplify(-flow + diffusion * sum(sp.diff(p, z, 2) for z in (x, y)))

    assert rate(sp.Rational(1, 2), sp.Rational(1, 2)) == 0
    assert rate(1, 1) == 0  # the faster clock: drift s, noise sqrt 2
    assert rate(sp.Rational(1, 2), 1) != 0 and rate(1, sp.Rational(1, 2)) != 0  # mixed clocks


@equation("eq-langevin-step", method="exact", tolerance="0 (the same numbers in the same order)")
def test_langevin_step():
    x, eta = normal(5, 2), 0.07
    z = torch.randn(5, 2, generator=seeded(3), dtype=F64)
    found = sample(langevin(MIXTURE.score, x, eta, 1, seeded(3)))
    torch.testing.assert_close(found, x + eta / 2 * MIXTURE.score(x) + sqrt(eta) * z, rtol=0, atol=1e-15)
    for wrong in (x + eta * MIXTURE.score(x) + sqrt(eta) * z, x + eta / 2 * MIXTURE.score(x) + sqrt(2 * eta) * z):
        assert float((found - wrong).abs().max()) > 1e-2


@equation("eq-langevin-bias", method="symbolic", tolerance="exact (a fixed point), and 1e-12 by iteration")
def test_bias_of_a_finite_step():
    V, eta, c = sp.symbols("V eta c", positive=True)
    (fixed,) = sp.solve((1 - eta / (2 * c**2)) ** 2 * V + eta - V, V)
    assert sp.simplify(fixed - c**2 / (1 - eta / (4 * c**2))) == 0
    assert sp.simplify(fixed - c**2 / (1 - eta / 4)) != 0  # c counts in the denominator too
    assert sp.series(fixed, eta, 0, 2).removeO().equals(c**2 + eta / 4)  # too wide by eta / 4, whatever c is
    variance = 1.0
    for _ in range(2000):
        variance = (1 - 0.5 / 2) ** 2 * variance + 0.5
    assert variance == pytest.approx(1 / (1 - 0.5 / 4), abs=1e-12)


@equation("eq-annealed-step", method="exact", tolerance="1e-12 (Langevin in x / alpha, written out)")
def test_annealed_step():
    schedule, h = Cosine(), 0.4
    ts = torch.tensor([0.7, 0.5, 0.3], dtype=F64)
    denoiser, x = MIXTURE.denoiser(schedule), normal(6, 2)
    found = sample(annealed_langevin(denoiser, x, ts, generator=seeded(4), steps=2, size=h))
    g, u = seeded(4), x / schedule.alpha(ts[0])
    for t in ts[:-1]:
        level = schedule.sigma(t) / schedule.alpha(t)
        for _ in range(2):  # plain Langevin on the data with noise `level`, step h level^2
            z = torch.randn(6, 2, generator=g, dtype=F64)
            u = u + h * level**2 / 2 * with_noise(float(level)).score(u) + (h**0.5 * level) * z
    torch.testing.assert_close(found, schedule.alpha(ts[-1]) * u, rtol=0, atol=1e-12)
    assert float((found - u).abs().max()) > 0.01  # without the last factor alpha it is another point


@equation("eq-annealed-lag", method="exact", tolerance="1e-9 (the package's sampler on one data point, second moments)")
@pytest.mark.parametrize("h, r", [(1.0, 0.77), (0.5, 0.9), (1.0, 1 - 1e-12)])
def test_lag_of_annealing(h, r):
    schedule = VarianceExploding(0.01, 50.0)
    point = empirical_denoiser(torch.zeros(1, 1, dtype=F64), schedule)
    variance = 1.0
    for _ in range(200):  # one step each, from level 1 to level sqrt(r), and the scale is free
        variance = ((1 - h / 2) ** 2 * variance + h) / r
    assert variance == pytest.approx(h / (r - (1 - h / 2) ** 2), rel=1e-9)
    assert variance != pytest.approx(1, rel=0.1)  # the level that the network is told
    sizes = torch.linspace(0.01, 1.9, 18_901, dtype=F64)
    lags = sizes / (r - (1 - sizes / 2) ** 2)
    best = sizes[lags.where(lags > 0, torch.inf).argmin()]  # below 0: no fixed point
    assert abs(float(best) - max(2 * sqrt(1 - r), 0.01)) < 1e-4
    if r > 0.99:
        assert variance == pytest.approx(1 / (1 - h / 4), rel=1e-9)
        return
    # the package's step on one data point has just that factor and that noise
    ts = time_at_log_snr(schedule, -torch.tensor([1.0, r], dtype=F64).log())
    starts = torch.tensor([[[0.0]], [[1.0]]], dtype=F64)
    ends = [sample(annealed_langevin(point, x, ts, generator=seeded(5), steps=1, size=h)) for x in starts]
    z = torch.randn(1, 1, generator=seeded(5), dtype=F64)
    assert float(ends[1] - ends[0]) == pytest.approx(1 - h / 2, abs=1e-9)
    assert float(ends[0]) == pytest.approx(float(z) * sqrt(h), abs=1e-9)
