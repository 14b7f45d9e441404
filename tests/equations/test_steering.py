"""The equations of `book/steering.md`."""

from math import atanh, exp, sqrt

import pytest
import sympy as sp
import torch
from scipy.integrate import quad, solve_ivp

from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.guidance import encode_to, loss_guided, return_from
from diffusion_edu.metrics import auc
from diffusion_edu.process import Prediction, q_sample, transition
from diffusion_edu.samplers import inpaint, sample
from diffusion_edu.schedules import Cosine, Flow, LinearBeta, time_grid
from tests.equations import equation

F64 = torch.float64
COSINE = Cosine()
SCHEDULES = [COSINE, LinearBeta(), Flow()]
MIXTURE = GaussianMixture(
    torch.tensor([[-1.2, 0.3], [0.9, 1.0], [0.4, -1.1]], dtype=F64),
    torch.tensor([0.3, 0.4, 0.25], dtype=F64),
    weights=torch.tensor([0.2, 0.5, 0.3], dtype=F64),
)
LINE = GaussianMixture(torch.tensor([[-1.0], [0.8]], dtype=F64), torch.tensor([0.3, 0.5], dtype=F64))
GRID = torch.linspace(-6, 6, 6001, dtype=F64)
STEP = GRID[1] - GRID[0]
X = torch.tensor([[0.3, -0.4], [-0.9, 0.8], [1.2, 0.1]], dtype=F64)


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def tensor(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=F64)


def belief(x_t: torch.Tensor, schedule, t: torch.Tensor) -> torch.Tensor:
    """q(x_0 | x_t) of LINE on the grid, for a single number x_t; with gradient in x_t."""
    log_p = LINE.log_density(GRID[:, None]) - (x_t - schedule.alpha(t) * GRID) ** 2 / (2 * schedule.sigma(t) ** 2)
    return log_p.softmax(0)


def steep(x: torch.Tensor) -> torch.Tensor:
    """A loss that is no quadratic."""
    return 1.3 * (x - 0.4).abs() + torch.sin(2 * x)


# --- the exact answer ---------------------------------------------------------------------------------


@equation("eq-steer-tilt", method="exact", tolerance="1e-10 (Bayes' rule against the tilt, sums over a grid)")
def test_tilt_is_bayes_rule():
    y, s = 0.3, 0.4
    prior = LINE.log_density(GRID[:, None]).exp()
    loss = (y - GRID) ** 2 / (2 * s**2)
    tilted = prior * (-loss).exp()
    tilted = tilted / (tilted.sum() * STEP)
    likelihood = torch.distributions.Normal(GRID, s).log_prob(tensor(y)).exp()
    bayes = prior * likelihood / ((prior * likelihood).sum() * STEP)
    assert (tilted - bayes).abs().max() < 1e-10
    twice = prior * (-2 * loss).exp()  # twice the loss is another posterior
    assert (twice / (twice.sum() * STEP) - bayes).abs().max() > 0.1


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@equation("eq-steer-exact", method="exact", tolerance="1e-8 (autograd of sums over a grid)")
def test_exact_steered_score(schedule):
    t = tensor(0.5)
    x = tensor(0.35).requires_grad_(True)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    tilted = LINE.log_density(GRID[:, None]) - steep(GRID)  # noise the tilted data, then differentiate
    noised = (tilted - (x - alpha * GRID) ** 2 / (2 * sigma**2)).logsumexp(0)
    (left,) = torch.autograd.grad(noised, x)
    average = (belief(x, schedule, t) * (-steep(GRID)).exp()).sum().log()
    (correction,) = torch.autograd.grad(average, x)
    score = LINE.score(x.detach().reshape(1, 1), schedule, t)[0, 0]
    assert abs(float(left - score - correction)) < 1e-8
    assert abs(float(left - score + correction)) > 1e-2  # the sign
    mean = (belief(x, schedule, t) * GRID).sum()
    (plug,) = torch.autograd.grad(-steep(mean), x)
    assert abs(float(left - score - plug)) > 1e-2  # the shortcut is something else


@equation("eq-steer-linear-posterior", method="exact", tolerance="1e-9 (log-densities up to one constant)")
def test_posterior_of_a_linear_measurement():
    a, s, y = torch.tensor([[0.6, -0.8], [0.3, 0.5]], dtype=F64), 0.3, torch.tensor([0.4, 0.1], dtype=F64)
    points = torch.randn(50, 2, dtype=F64, generator=seeded(0))
    direct = MIXTURE.log_density(points) - (y - points @ a.T).square().sum(1) / (2 * s**2)

    def mixture_form(noise_in_weight: float) -> torch.Tensor:
        parts = []
        for m, std, w in zip(MIXTURE.means, MIXTURE.stds, MIXTURE.weights, strict=True):
            c = std**2 * torch.eye(2, dtype=F64)
            total = a @ c @ a.T + s**2 * torch.eye(2, dtype=F64)
            gain = c @ a.T @ torch.linalg.inv(total)
            weight = a @ c @ a.T + noise_in_weight * torch.eye(2, dtype=F64)
            fit = torch.distributions.MultivariateNormal(a @ m, weight).log_prob(y)
            cov = (torch.eye(2, dtype=F64) - gain @ a) @ c
            cov = (cov + cov.T) / 2
            normal = torch.distributions.MultivariateNormal(m + gain @ (y - a @ m), cov)
            parts.append(w.log() + fit + normal.log_prob(points))
        return torch.stack(parts).logsumexp(0)

    assert float((direct - mixture_form(s**2)).std()) < 1e-9
    assert float((direct - mixture_form(0.0)).std()) > 0.1  # without s^2 in the weights


# --- the shortcut -------------------------------------------------------------------------------------


def bent(x0: torch.Tensor) -> torch.Tensor:
    return (x0[:, 0] * x0[:, 1] - 0.3) ** 2 + torch.sin(x0[:, 0])


def differences(function, x: torch.Tensor, h: float = 1e-5) -> torch.Tensor:
    """Central differences of function(x) (N,) for x (N, 2): a gradient without autograd."""
    shifts = h * torch.eye(2, dtype=F64)
    return torch.stack([(function(x + e) - function(x - e)) / (2 * h) for e in shifts], 1)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@equation("eq-steer-plug", method="exact", tolerance="1e-7 (central differences)")
def test_shortcut(schedule):
    t, exact = tensor(0.4), MIXTURE.denoiser(schedule)
    gradient = differences(lambda x: bent(exact(x, t).x0), X)
    found = loss_guided(exact, bent, 0.7)(X, t).score
    assert (found - (exact(X, t).score - 0.7 * gradient)).abs().max() < 1e-7
    assert (found - (exact(X, t).score + 0.7 * gradient)).abs().max() > 1e-2  # the sign
    x0 = exact(X, t).x0
    short = exact(X, t).score - 0.7 * differences(bent, x0)  # the gradient in x0_hat
    assert (found - short).abs().max() > 1e-2


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@equation("eq-steer-eps", method="exact", tolerance="1e-7 (central differences)")
def test_shortcut_in_noise(schedule):
    t, exact = tensor(0.4), MIXTURE.denoiser(schedule)
    gradient = differences(lambda x: bent(exact(x, t).x0), X)
    found = loss_guided(exact, bent, 0.7)(X, t).eps
    plain, sigma = exact(X, t).eps, schedule.sigma(t)
    assert (found - (plain + 0.7 * sigma * gradient)).abs().max() < 1e-7
    assert (found - (plain - 0.7 * sigma * gradient)).abs().max() > 1e-3
    assert (found - (plain + 0.7 * gradient)).abs().max() > 1e-3  # sigma forgotten


def exact_moments(x_t: torch.Tensor, t: torch.Tensor, schedule) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (2,) and covariance (2, 2) of x_0 given one x_t, from the mixture's components: no derivative."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    share = MIXTURE.component_log_densities(x_t[None], alpha, sigma).softmax(1)[0]
    total = alpha**2 * MIXTURE.stds**2 + sigma**2
    means = MIXTURE.means + (alpha * MIXTURE.stds**2 / total)[:, None] * (x_t - alpha * MIXTURE.means)
    mean = share @ means
    within = (share * MIXTURE.stds**2 * sigma**2 / total).sum() * torch.eye(2, dtype=F64)
    return mean, within + (share[:, None] * (means - mean)).T @ (means - mean)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@equation("eq-steer-jacobian", method="exact", tolerance="1e-10 (autograd against the components' moments)")
def test_jacobian_is_the_covariance(schedule):
    t, exact = tensor(0.4), MIXTURE.denoiser(schedule)
    factor = schedule.alpha(t) / schedule.sigma(t) ** 2
    for x in X:
        jacobian = torch.autograd.functional.jacobian(lambda u: exact(u[None], t).x0[0], x)
        covariance = exact_moments(x, t, schedule)[1]
        assert (jacobian - factor * covariance).abs().max() < 1e-10
        assert (jacobian - covariance / schedule.sigma(t) ** 2).abs().max() > 1e-3  # alpha forgotten


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@equation("eq-steer-x0", method="exact", tolerance="1e-10 (autograd against the components' moments)")
def test_the_guess_moves_by_covariance_times_gradient(schedule):
    t, w, exact = tensor(0.4), 0.7, MIXTURE.denoiser(schedule)
    found = loss_guided(exact, bent, w)(X, t).x0
    for row, x in zip(found, X, strict=True):
        mean, covariance = exact_moments(x, t, schedule)
        gradient = torch.autograd.functional.jacobian(lambda u: bent(u[None])[0], mean)
        assert (row - (mean - w * covariance @ gradient)).abs().max() < 1e-10
        wrong = mean - w * schedule.sigma(t) ** 2 / schedule.alpha(t) * gradient  # the Jacobian left out
        assert (row - wrong).abs().max() > 1e-3


@equation("eq-steer-gap", method="symbolic", tolerance="exact (Taylor), and 4th order in the spread for a Gaussian")
def test_jensens_gap():
    g, h, c, e = sp.symbols("g h c e", positive=True)
    delta = sp.symbols("delta")
    loss = e * g * delta + e**2 * h * delta**2 / 2  # delta is of order e
    series = sp.series(sp.exp(-loss), e, 0, 3).removeO()
    average = sp.expand(series).subs({delta**2: c}).subs(delta, 0)
    log_average = sp.series(sp.log(average), e, 0, 3).removeO()
    assert sp.simplify(log_average - e**2 * (g**2 * c - h * c) / 2) == 0
    errors = []
    for std in (0.08, 0.04):  # a Gaussian belief around 0.2, and a loss that is no quadratic
        x = 0.2 + std * GRID
        weight = (-(GRID**2) / 2).softmax(0)
        loss = torch.sin(2 * x) + x**2
        g0, h0 = 2 * torch.cos(tensor(0.4)) + 0.4, 2 - 4 * torch.sin(tensor(0.4))
        exact = (weight * (-loss).exp()).sum().log()
        plug = -(torch.sin(tensor(0.4)) + 0.04)
        errors.append(abs(float(exact - plug - std**2 * (g0**2 - h0) / 2)))
        assert abs(float(exact - plug - std**2 * (g0**2 + h0) / 2)) > 5 * errors[-1]  # the other sign
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.15)


@pytest.mark.parametrize(("s", "y"), [(0.5, 1.0), (0.9, -0.7), (0.3, 0.6)])
@equation("eq-steer-dps-gaussian", method="exact", tolerance="1e-6 (moment equations by RK45)")
def test_shortcut_on_gaussian_data(s, y):
    def moments(pull: float) -> tuple[float, float]:
        def slope(backwards, state):  # LinearBeta(0.1, 30): alpha(1) = 5e-4, so that it starts from N(0, 1)
            t = 1 - backwards
            alpha, beta = exp(-t * (0.2 + 29.9 * t) / 4), 0.1 + 29.9 * t
            gain = beta / 2 - beta * (1 + pull * alpha**2 / s**2)  # -(f x - g^2 score), coefficient of x
            return [gain * state[0] + beta * pull * alpha * y / s**2, 2 * gain * state[1] + beta]

        return tuple(solve_ivp(slope, (0, 1), [0.0, 1.0], rtol=1e-8, atol=1e-10).y[:, -1])

    mean, variance = moments(1.0)
    assert mean == pytest.approx(y * (1 - exp(-1 / s**2)), abs=1e-6)
    assert variance == pytest.approx(s**2 / 2 * (1 - exp(-2 / s**2)), abs=1e-6)
    assert abs(variance - s**2 / (1 + s**2)) > 0.02  # not the truth
    flow = solve_ivp(lambda alpha, x: (y - alpha * x) / s**2, (0, 1), [0.0, 1.0], rtol=1e-9, atol=1e-12).y[:, -1]
    assert flow[1] - flow[0] == pytest.approx(exp(-1 / (2 * s**2)), abs=1e-6)  # the ODE's deviation is another
    half = moments(0.5)  # the scale acts as s^2 / w
    assert half[1] == pytest.approx(s**2 * (1 - exp(-1 / s**2)), abs=1e-6)


# --- correcting it ------------------------------------------------------------------------------------


def gaussian(c: torch.Tensor, t: torch.Tensor, schedule) -> tuple[torch.Tensor, torch.Tensor]:
    """For data N(0, c): the matrix of x0_hat = G x_t, and Cov[x_0 | x_t]."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    gain = alpha * c @ torch.linalg.inv(alpha**2 * c + sigma**2 * torch.eye(len(c), dtype=F64))
    return gain, c - alpha * gain @ c


COV = torch.tensor([[1.0, 0.6, 0.1], [0.6, 0.8, -0.2], [0.1, -0.2, 0.5]], dtype=F64)
A = torch.tensor([[1.0, 0.5, 0.0], [0.0, -0.3, 0.8]], dtype=F64)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@equation("eq-steer-moment", method="exact", tolerance="1e-10 (joint Gaussian, conditioned by linear algebra)")
def test_likelihood_given_the_noisy_image(schedule):
    t, s, eye = tensor(0.4), 0.3, torch.eye(3, dtype=F64)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    noisy = alpha**2 * COV + sigma**2 * eye  # Cov(x_t); Cov(y, x_t) = alpha A COV
    regression = alpha * A @ COV @ torch.linalg.inv(noisy)
    conditional = A @ COV @ A.T + s**2 * torch.eye(2, dtype=F64) - regression @ noisy @ regression.T
    gain, spread = gaussian(COV, t, schedule)
    assert (regression - A @ gain).abs().max() < 1e-10
    assert (conditional - (A @ spread @ A.T + s**2 * torch.eye(2, dtype=F64))).abs().max() < 1e-10
    assert (conditional - s**2 * torch.eye(2, dtype=F64)).abs().max() > 0.02  # the shortcut's


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@equation("eq-steer-kalman", method="exact", tolerance="1e-9 (score of the noised posterior, by linear algebra)")
def test_kalman_gain_is_exact_for_gaussians(schedule):
    t, s, y = tensor(0.4), 0.3, torch.tensor([0.7, -0.2], dtype=F64)
    x_t = torch.tensor([0.3, -0.5, 0.9], dtype=F64)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    first = COV @ A.T @ torch.linalg.inv(A @ COV @ A.T + s**2 * torch.eye(2, dtype=F64))
    mean, after = first @ y, COV - first @ A @ COV  # the posterior of x_0, then its own exact denoiser
    noisy = alpha**2 * after + sigma**2 * torch.eye(3, dtype=F64)
    exact = mean + alpha * after @ torch.linalg.solve(noisy, x_t - alpha * mean)

    gain, spread = gaussian(COV, t, schedule)
    guess, tolerance = gain @ x_t, A @ spread @ A.T + s**2 * torch.eye(2, dtype=F64)

    def corrected(total: torch.Tensor) -> torch.Tensor:
        return guess + spread @ A.T @ torch.linalg.solve(total, y - A @ guess)

    assert (corrected(tolerance) - exact).abs().max() < 1e-9
    assert (corrected(s**2 * torch.eye(2, dtype=F64)) - exact).abs().max() > 0.02  # the shortcut


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@equation("eq-steer-isotropic", method="exact", tolerance="1e-12 (float64 rounding)")
def test_spread_of_unit_data(schedule):
    for t in (tensor(0.2), tensor(0.7)):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        closed = sigma**2 / (alpha**2 + sigma**2)
        assert (
            gaussian(torch.eye(3, dtype=F64), t, schedule)[1] - closed * torch.eye(3, dtype=F64)
        ).abs().max() < 1e-12
        assert abs(float(closed - sigma**2 / alpha**2)) > 1e-3
        # as a scale of the shortcut, for A A' = I: w / s^2 = 1 / (r^2 + s^2)
        s, pick = 0.3, torch.tensor([[1.0, 0.0, 0.0]], dtype=F64)
        kalman = closed * pick.T @ torch.linalg.inv(closed * pick @ pick.T + s**2 * torch.eye(1, dtype=F64))
        w = s**2 / (closed + s**2)
        assert (kalman - w / s**2 * closed * pick.T).abs().max() < 1e-12


@equation("eq-steer-backward", method="exact", tolerance="1e-12 (float64 rounding)")
def test_changing_the_guess_changes_the_noise():
    t, delta = tensor(0.4), torch.tensor([[0.2, -0.1]], dtype=F64)
    for schedule in SCHEDULES:
        prediction = MIXTURE.denoiser(schedule)(X[:1], t)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        eps = prediction.eps - alpha / sigma * delta
        assert (alpha * (prediction.x0 + delta) + sigma * eps - X[:1]).abs().max() < 1e-12  # the state stays
        assert (prediction.with_x0(prediction.x0 + delta).eps - eps).abs().max() < 1e-12
        wrong = prediction.eps + alpha / sigma * delta
        assert (alpha * (prediction.x0 + delta) + sigma * wrong - X[:1]).abs().max() > 0.01


# --- inpainting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@equation("eq-steer-renoise", method="exact", tolerance="1e-12 (moments of x_t given x_0)")
def test_renoising_restores_the_level(schedule):
    t, s = tensor(0.6), tensor(0.35)
    ratio, variance = transition(schedule, t, s)
    assert abs(float(ratio * schedule.alpha(s) - schedule.alpha(t))) < 1e-12
    assert abs(float(ratio**2 * schedule.sigma(s) ** 2 + variance - schedule.sigma(t) ** 2)) < 1e-12
    too_much = schedule.alpha(t) ** 2 * schedule.sigma(s) ** 2 + schedule.sigma(t) ** 2  # as if x_s were clean
    assert abs(float(too_much - schedule.sigma(t) ** 2)) > 1e-3


@equation("eq-steer-replace", method="monte carlo", tolerance="4 standard errors of 20,000 draws")
def test_known_part_is_at_the_level_of_the_new_time():
    n, stop = 20_000, tensor(0.35)
    known = torch.tensor([0.7, 0.0], dtype=F64).expand(n, 2)
    start = torch.randn(n, 2, dtype=F64, generator=seeded(1))
    ts = torch.stack([tensor(0.6), stop])
    x = sample(inpaint(MIXTURE.denoiser(COSINE), start, ts, known, torch.tensor([1.0, 0.0]), generator=seeded(2)))
    mean, deviation = float(COSINE.alpha(stop) * 0.7), float(COSINE.sigma(stop))
    se = deviation / sqrt(n)
    assert abs(float(x[:, 0].mean()) - mean) < 4 * se
    assert abs(float(x[:, 0].std()) - deviation) < 4 * se / sqrt(2)
    assert abs(float(COSINE.alpha(ts[0])) * 0.7 - mean) > 8 * se  # the old time
    assert abs(float(COSINE.sigma(ts[0])) - deviation) > 8 * se
    assert abs(deviation**2 - deviation) > 8 * se  # the variance


@pytest.mark.parametrize(("rho", "y"), [(0.9, 1.0), (0.5, -0.8), (-0.7, 0.6)])
@equation(
    "eq-steer-replace-gaussian", method="exact", tolerance="1e-6 (moment equations by RK45), 1/steps for the chain"
)
def test_replacement_on_a_gaussian_pair(rho, y):
    def slope(log_alpha, state):
        alpha = exp(log_alpha)
        gain = 1 - 2 / (
            1 - (alpha**2 * rho) ** 2
        )  # (x + 2 s_2) / alpha per d alpha, so per d log alpha without 1 / alpha
        return [gain * state[0] + 2 * alpha**3 * rho * y / (1 - (alpha**2 * rho) ** 2), 2 * gain * state[1] + 2]

    mean, variance = solve_ivp(slope, (-9, 0), [0.0, 1.0], rtol=1e-9, atol=1e-12).y[:, -1]
    closed = (1 - sqrt(1 - rho**2)) / rho * y, (1 - rho**2) * atanh(rho) / rho
    assert mean == pytest.approx(closed[0], abs=1e-6)
    assert variance == pytest.approx(closed[1], abs=1e-6)
    assert abs(closed[0] - rho * y) > 0.1 and closed[1] - (1 - rho**2) > 0.05  # not the truth

    # the chain of the package's steps, fresh noise and all, tends to it
    gaps = []
    for steps in (100, 200):
        M, V = replaced(rho, y, time_grid(COSINE, steps, "log_snr"))
        gaps.append((M - closed[0], V - closed[1]))
    for coarse, fine in zip(*gaps, strict=True):
        assert abs(fine) < 0.04 and abs(fine) < 0.75 * abs(coarse) + 2e-3


def replaced(rho: float, y: float, ts: torch.Tensor) -> tuple[float, float]:
    """Mean and variance of the unknown coordinate under `inpaint` on a Gaussian pair, by linear algebra."""
    alphas, sigmas = COSINE.alpha(ts).tolist(), COSINE.sigma(ts).tolist()
    M, V = 0.0, 1.0
    for alpha, sigma, alpha_s, sigma_s in zip(alphas, sigmas, alphas[1:], sigmas[1:], strict=False):
        ratio = alpha / alpha_s
        v, share = sigma**2 - (ratio * sigma_s) ** 2, (sigma_s / sigma) ** 2
        det = 1 - (alpha**2 * rho) ** 2  # of Cov(x_t), whose variances are 1
        own, other = alpha * (1 - alpha**2 * rho**2) / det, alpha * (rho - alpha**2 * rho) / det  # of x0_hat
        weight = alpha_s * v / sigma**2
        keep = ratio * share + weight * own
        M = keep * M + weight * other * alpha * y
        V = keep**2 * V + (weight * other * sigma) ** 2 + v * share
    return M, V


def test_the_recursion_is_the_package(n: int = 20_000):
    rho, y, ts = 0.9, 1.0, time_grid(COSINE, 10, "log_snr")
    c = torch.tensor([[1.0, rho], [rho, 1.0]], dtype=F64)

    def denoise(x, t, labels=None):
        return Prediction(COSINE, x, t, x @ gaussian(c, t, COSINE)[0].T, "x0")

    x = torch.randn(n, 2, dtype=F64, generator=seeded(3))
    known = torch.tensor([y, 0.0], dtype=F64).expand(n, 2)
    x = sample(inpaint(denoise, x, ts, known, torch.tensor([1.0, 0.0]), generator=seeded(4)))[:, 1]
    M, V = replaced(rho, y, ts)
    assert abs(float(x.mean()) - M) < 4 * sqrt(V / n) + 0.01  # x_T's known part starts as pure noise
    assert abs(float(x.var()) - V) < 4 * V * sqrt(2 / n)


# --- there and back -----------------------------------------------------------------------------------


@equation("eq-steer-edit", method="exact", tolerance="sympy identity; 1e-12 (float64 rounding)")
def test_an_edited_gaussian_is_known():
    a, s, c, x0 = sp.symbols("a s c x_0", positive=True)
    gain, left = a * c**2 / (a**2 * c**2 + s**2), c**2 * s**2 / (a**2 * c**2 + s**2)  # q(x_0 | x_L) of Gaussian data
    mean, variance = gain * a * x0, gain**2 * s**2 + left  # averaged over x_L = a x_0 + s eps
    kept = a**2 * c**2 / (a**2 * c**2 + s**2)
    assert sp.simplify(mean - kept * x0) == 0
    assert sp.simplify(variance - (1 - kept**2) * c**2) == 0
    assert sp.simplify(variance - (1 - kept) * c**2) != 0  # that would be q(x_0 | x_L) for one x_L
    for schedule in SCHEDULES:
        for c in (0.3, 2.0):
            t = tensor(0.6)
            exact = GaussianMixture(torch.zeros(1, 1, dtype=F64), tensor([c])).denoiser(schedule)
            x_t = torch.linspace(-2, 2, 9, dtype=F64)[:, None]
            snr = schedule.log_snr(t).exp() * c**2
            torch.testing.assert_close(
                schedule.alpha(t) * exact(x_t, t).x0, snr / (1 + snr) * x_t, rtol=1e-12, atol=1e-12
            )


@equation("eq-steer-noised-return", method="monte carlo", tolerance="4 standard errors of 40,000 draws")
def test_a_noised_image_comes_back_as_another(n: int = 40_000):
    t, schedule = tensor(0.4), COSINE
    x0 = MIXTURE.sample(n, seeded(5))
    x_t = q_sample(schedule, x0, t, torch.randn(n, 2, dtype=F64, generator=seeded(6)))
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    share = MIXTURE.component_log_densities(x_t, alpha, sigma).softmax(1)  # draw x_0' from q(x_0 | x_t), exactly
    k = torch.multinomial(share, 1, generator=seeded(7))[:, 0]
    total = alpha**2 * MIXTURE.stds**2 + sigma**2
    mean = MIXTURE.means[k] + (alpha * MIXTURE.stds**2 / total)[k, None] * (x_t - alpha * MIXTURE.means[k])
    other = mean + (MIXTURE.stds * sigma / total.sqrt())[k, None] * torch.randn(n, 2, dtype=F64, generator=seeded(8))
    square = (other - x0).square().sum(1)
    guess = MIXTURE.denoiser(schedule)(x_t, t).x0
    spread = (guess - x0).square().sum(1)  # its mean is E tr Cov
    gap = square - 2 * spread
    assert abs(float(gap.mean())) < 4 * float(gap.std()) / sqrt(n)
    once = square - spread
    assert abs(float(once.mean())) > 20 * float(once.std()) / sqrt(n)  # the factor 2
    few = x0[:500]
    back = return_from(
        MIXTURE.denoiser(schedule), encode_to(MIXTURE.denoiser(schedule), few, 0.4, steps=40), 0.4, steps=40
    )
    assert float((back - few).square().sum(1).mean()) < 1e-3 * float(square.mean())  # encoding draws nothing


@equation("eq-steer-auc", method="exact", tolerance="1e-12 (sum over pairs, and the area by trapezoids)")
def test_area_under_the_curve():
    scores = torch.randint(0, 12, (300,), generator=seeded(9)).double()  # many ties
    positive = torch.rand(300, generator=seeded(10)) < 0.2 + 0.03 * scores
    gap = scores[positive][:, None] - scores[~positive]
    pairs = ((gap > 0).double() + (gap == 0).double() / 2).mean()
    assert auc(scores, positive) == pytest.approx(float(pairs), abs=1e-12)
    thresholds = [13.0, *sorted(set(scores.tolist()), reverse=True)]
    hits = torch.tensor([float((scores[positive] >= c).double().mean()) for c in thresholds])
    alarms = torch.tensor([float((scores[~positive] >= c).double().mean()) for c in thresholds])
    assert float(torch.trapezoid(hits.double(), alarms.double())) == pytest.approx(
        float(pairs), abs=1e-6
    )  # float32 shares
    assert abs(float((gap > 0).double().mean()) - float(pairs)) > 0.01  # ties not counted
    density = quad(lambda c: (1 / sqrt(2 * 3.141592653589793)) * exp(-(c**2) / 2), -10, 1 / sqrt(2))[0]
    normal = torch.randn(4000, dtype=F64, generator=seeded(11))
    labels = torch.arange(4000) < 2000
    assert auc(normal + labels, labels) == pytest.approx(density, abs=4 * 0.008)  # Phi(1 / sqrt 2) for a shift of 1
