"""Samplers on exact scores: orders of convergence, exact moments, hand-written steps, densities, bad input.

For Gaussian data every step is an affine map of x plus noise. `affine_step` measures that map from outside, so that
means and variances can be followed exactly through a whole run, without Monte Carlo.
"""

from functools import partial

import pytest
import torch

from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.process import Prediction, posterior, q_sample
from diffusion_edu.samplers import Step, adaptive_flow, ancestral, ddim, euler_maruyama, probability_flow, sample
from diffusion_edu.schedules import Cosine, LinearBeta, Schedule, VarianceExploding, linear_betas, time_grid

MIXTURE = GaussianMixture(
    torch.tensor([[1.0, 0.0], [-0.6, 0.8], [0.2, -1.1]], dtype=torch.float64),
    torch.tensor([0.3, 0.35, 0.4], dtype=torch.float64),
    torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64),
)
DETERMINISTIC = {
    "ddim": ddim,
    "euler": partial(probability_flow, method="euler"),
    "heun": partial(probability_flow, method="heun"),
    "rk4": partial(probability_flow, method="rk4"),
}
STOCHASTIC = {
    "small": ancestral,
    "large": partial(ancestral, variance="large"),
    "eta 0.5": partial(ddim, eta=0.5),
    "eta 1": partial(ddim, eta=1.0),
    "euler-maruyama": euler_maruyama,
}
EVERY = DETERMINISTIC | STOCHASTIC


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def grid(steps, start=1.0, end=0.1):
    return torch.linspace(start, end, steps + 1, dtype=torch.float64)


def order(steps, errors):
    """Slope of -log error over log steps, by least squares."""
    x, y = torch.tensor(steps).double().log(), -torch.tensor(errors).double().log()
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


# deterministic samplers on a mixture


@pytest.fixture(scope="module")
def reference():
    """Ends of the exact paths, by the classical Runge-Kutta method of order 4; its own error is below 1e-6."""
    schedule = LinearBeta()

    def slope(x, t):
        return schedule.drift(t) * x - schedule.diffusion_squared(t) / 2 * MIXTURE.score(x, schedule, t)

    ends = []
    for steps in (80, 120):
        x, h = normal(24, 2), -0.9 / steps
        for t in grid(steps)[:-1]:
            a = slope(x, t)
            b = slope(x + h / 2 * a, t + h / 2)
            c = slope(x + h / 2 * b, t + h / 2)
            x = x + h / 6 * (a + 2 * b + 2 * c + slope(x + h * c, t + h))
        ends.append(x)
    assert float((ends[0] - ends[1]).abs().max()) < 1e-6
    return ends[1]


@pytest.mark.parametrize(("sampler", "expected"), [("ddim", 1), ("euler", 1), ("heun", 2), ("rk4", 4)])
def test_order_of_convergence(reference, sampler, expected):
    denoiser, x_T = MIXTURE.denoiser(LinearBeta()), normal(24, 2)
    steps = [10, 20, 40] if sampler == "rk4" else [25, 50, 100]  # order 4 is at the reference's own error after that
    ends = [sample(EVERY[sampler](denoiser, x_T, grid(n))) for n in steps]
    errors = [float((end - reference).square().mean().sqrt()) for end in ends]
    # at 25 to 100 steps the next power of h still bends the line by some per cent
    assert order(steps, errors) == pytest.approx(expected, abs=0.3 if sampler == "rk4" else 0.2)
    assert errors[-1] < 0.05


def test_ddim_is_eulers_method_in_another_variable():
    schedule, x_T, ts = Cosine(), normal(5, 2), grid(7, 0.9, 0.1)
    denoiser = MIXTURE.denoiser(schedule)
    x = x_T
    for t, s in zip(ts[:-1], ts[1:], strict=True):
        slope = denoiser(x, t).eps  # d (x / alpha) / d (sigma / alpha) = eps
        step = schedule.sigma(s) / schedule.alpha(s) - schedule.sigma(t) / schedule.alpha(t)
        x = schedule.alpha(s) * (x / schedule.alpha(t) + step * slope)
    torch.testing.assert_close(sample(ddim(denoiser, x_T, ts)), x, rtol=1e-10, atol=1e-10)


# Gaussian data: exact moments

MEAN, STD = 0.7, 0.4
GAUSSIAN = GaussianMixture(torch.tensor([[MEAN]], dtype=torch.float64), STD)


def affine_step(sampler, denoiser, t, s, seed=5):
    """A, B, C with x_s = A x_t + B + C z, measured on four inputs; the fourth proves that the step is affine."""
    x = torch.tensor([[0.0], [1.0], [-2.0], [3.0]], dtype=torch.float64)
    z = torch.randn(x.shape, generator=seeded(seed), dtype=torch.float64)
    extra = {} if sampler in DETERMINISTIC else {"generator": seeded(seed)}
    out = sample(EVERY[sampler](denoiser, x, torch.stack([t, s]), **extra))
    system = torch.cat([x, torch.ones_like(x), z], dim=1)
    solution = torch.linalg.solve(system[:3], out[:3])
    torch.testing.assert_close(system @ solution, out, rtol=1e-9, atol=1e-9)
    return solution[:, 0].tolist()


def run_moments(sampler, denoiser, ts, mean, variance):
    for t, s in zip(ts[:-1], ts[1:], strict=True):
        a, b, c = affine_step(sampler, denoiser, t, s)
        mean, variance = a * mean + b, a**2 * variance + c**2
    return mean, variance


def marginal(schedule, t, std=STD):
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    return alpha * MEAN, alpha**2 * std**2 + sigma**2


@pytest.mark.parametrize("schedule", [LinearBeta(), VarianceExploding(0.1, 5)], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("sampler", EVERY)
def test_the_law_of_gaussian_samples_converges(sampler, schedule):
    denoiser, steps, errors = GAUSSIAN.denoiser(schedule), [24, 48, 96], []
    for n in steps:
        ts = grid(n)
        mean, variance = run_moments(sampler, denoiser, ts, *marginal(schedule, ts[0]))
        wanted = marginal(schedule, ts[-1])
        errors.append(abs(mean - wanted[0]) + abs(variance - wanted[1]))
    # weak order 1, for Heun 2, for Runge-Kutta 4; the next power of h bends the line over this short range
    assert order(steps, errors) == pytest.approx({"heun": 2, "rk4": 4}.get(sampler, 1), abs=0.25)
    assert errors[-1] < 0.1


@pytest.mark.parametrize("sampler", ["small", "ddim", "eta 0.5", "eta 1"])
def test_one_point_of_data_is_exact_in_any_number_of_steps(sampler):
    schedule = LinearBeta()

    def point(x_t, t, y=None):
        return Prediction(schedule, x_t, t, torch.full_like(x_t, MEAN), "x0")

    ts = torch.tensor([1.0, 0.7, 0.65, 0.2, 0.01], dtype=torch.float64)
    for k in range(1, 5):
        moments = run_moments(sampler, point, ts[: k + 1], *marginal(schedule, ts[0], 0))
        assert moments == pytest.approx(marginal(schedule, ts[k], 0), rel=1e-10)


@pytest.mark.parametrize(("t", "s"), [(0.9, 0.5), (0.3, 0.29), (0.2, 0.01)])
def test_ddim_with_eta_1_is_ancestral_sampling(t, s):
    denoiser = GAUSSIAN.denoiser(Cosine())
    ts = torch.tensor([t, s], dtype=torch.float64)
    left = sample(ddim(denoiser, normal(5, 1), ts, eta=1.0, generator=seeded(1)))
    right = sample(ancestral(denoiser, normal(5, 1), ts, generator=seeded(1)))
    torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)


def test_noise_of_ddim_grows_with_eta_and_the_large_variance_is_the_larger():
    denoiser, (t, s) = GAUSSIAN.denoiser(Cosine()), torch.tensor([0.6, 0.4], dtype=torch.float64)
    noise = {name: abs(affine_step(name, denoiser, t, s)[2]) for name in EVERY}
    assert max(noise[name] for name in DETERMINISTIC) < 1e-12
    assert noise["eta 0.5"] == pytest.approx(noise["eta 1"] / 2)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    assert noise["small"] == pytest.approx(float(posterior(Cosine(), zero, zero, t, s)[1]))
    alpha_ts = float(Cosine().alpha(t) / Cosine().alpha(s))
    beta = float(Cosine().sigma(t)) ** 2 - alpha_ts**2 * float(Cosine().sigma(s)) ** 2
    assert noise["large"] == pytest.approx(beta**0.5)
    assert noise["euler-maruyama"] == pytest.approx(float(Cosine().beta(t) * (t - s)) ** 0.5)


# steps by hand


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("k", [1000, 500, 2, 1])
def test_the_step_of_ddpm_by_hand(variance, k):
    betas = linear_betas()
    alpha_bar = torch.cumprod(1 - betas, 0)
    schedule, x = Schedule.from_betas(betas), normal(4, 2)
    denoiser = MIXTURE.denoiser(schedule)
    ts = torch.tensor([k, k - 1], dtype=torch.float64) / 1000
    beta, eps, z = betas[k - 1], denoiser(x, ts[0]).eps, normal(4, 2, seed=3)
    mean = (x - beta / (1 - alpha_bar[k - 1]).sqrt() * eps) / (1 - beta).sqrt()
    if k == 1:
        noise = 0.0
    elif variance == "small":
        noise = (beta * (1 - alpha_bar[k - 2]) / (1 - alpha_bar[k - 1])).sqrt()
    else:
        noise = beta.sqrt()
    ours = sample(ancestral(denoiser, x, ts, variance=variance, generator=seeded(3)))
    # 1e-8: x_0 = (x - sigma eps) / alpha at k = 1000 divides by alpha = 0.006
    torch.testing.assert_close(ours, mean + noise * z, rtol=1e-8, atol=1e-8)


def test_the_step_of_euler_maruyama_by_hand():
    schedule, x, (t, s) = LinearBeta(), normal(4, 2), torch.tensor([0.5, 0.47], dtype=torch.float64)
    beta, score = 0.1 + 0.5 * 19.9, MIXTURE.score(x, schedule, t)
    wanted = x + 0.03 * (beta / 2 * x + beta * score) + (beta * 0.03) ** 0.5 * normal(4, 2, seed=3)
    ours = sample(euler_maruyama(MIXTURE.denoiser(schedule), x, torch.stack([t, s]), generator=seeded(3)))
    torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", EVERY)
def test_the_last_step_adds_no_noise(sampler):
    denoiser, ts = MIXTURE.denoiser(Cosine()), torch.tensor([0.3, 0.0], dtype=torch.float64)
    ends = []
    for seed in (1, 2):
        extra = {} if sampler in DETERMINISTIC else {"generator": seeded(seed)}
        ends.append(sample(EVERY[sampler](denoiser, normal(4, 2), ts, **extra)))
    assert torch.equal(ends[0], ends[1])
    assert bool(ends[0].isfinite().all())
    if sampler in ("small", "large", "ddim", "eta 0.5", "eta 1"):
        torch.testing.assert_close(ends[0], denoiser(normal(4, 2), ts[0]).x0)


def test_evaluations_a_step():
    calls = []
    exact = MIXTURE.denoiser(Cosine())

    def counted(x_t, t, y=None):
        calls.append(float(t))
        return exact(x_t, t, y)

    for sampler, expected in (("ddim", 4), ("euler", 4), ("heun", 7), ("small", 4), ("euler-maruyama", 4)):
        calls.clear()
        sample(EVERY[sampler](counted, normal(2, 2), time_grid(Cosine(), 4)))
        assert len(calls) == expected
        assert min(calls) > 0


# whole runs


def test_every_step_is_reported_with_the_prediction_that_led_to_it():
    ts, x_T = time_grid(Cosine(), 3), normal(2, 2)
    steps = list(ddim(MIXTURE.denoiser(Cosine()), x_T, ts))
    assert all(isinstance(step, Step) for step in steps)
    assert [float(step.t) for step in steps] == ts[1:].tolist()
    assert [float(step.prediction.t) for step in steps] == ts[:-1].tolist()
    assert torch.equal(steps[0].prediction.x_t, x_T)
    for before, after in zip(steps[:-1], steps[1:], strict=True):
        assert torch.equal(after.prediction.x_t, before.x)


@pytest.mark.parametrize("sampler", EVERY)
def test_samples_have_the_density_of_the_mixture(sampler):
    schedule, n = LinearBeta(), 1500
    extra = {} if sampler in DETERMINISTIC else {"generator": seeded(2)}
    x = sample(EVERY[sampler](MIXTURE.denoiser(schedule), normal(n, 2, seed=1), time_grid(schedule, 100), **extra))
    real = MIXTURE.sample(100_000, seeded(3))

    def shares(points):
        return torch.cdist(points, MIXTURE.means).argmin(1).bincount(minlength=3) / len(points)

    wanted = shares(real)
    # five standard errors of a share, and 0.01 for the bias of 100 steps, which falls as their inverse
    assert bool(((shares(x) - wanted).abs() < 5 * (wanted * (1 - wanted) / n).sqrt() + 0.01).all())
    log_density, exact = MIXTURE.log_density(x), MIXTURE.log_density(real)
    error = float(exact.std()) / n**0.5
    assert float(log_density.mean()) == pytest.approx(float(exact.mean()), abs=5 * error + 0.05)
    assert error < 0.04


@pytest.mark.parametrize("sampler", EVERY)
def test_labels_reach_the_denoiser(sampler):
    schedule, y = LinearBeta(), torch.tensor([0, 1, 2]).repeat(30)
    extra = {} if sampler in DETERMINISTIC else {"generator": seeded(2)}
    means = MIXTURE.means
    needles = GaussianMixture(means, 0.05).denoiser(schedule)
    x = sample(EVERY[sampler](needles, normal(90, 2), time_grid(schedule, 60), y=y, **extra))
    assert torch.equal(torch.cdist(x, means).argmin(1), y)


@pytest.mark.parametrize("sampler", EVERY)
def test_every_evaluation_is_asked_for_the_same_labels(sampler):
    asked, y, exact = [], torch.tensor([0, 2]), MIXTURE.denoiser(Cosine())

    def heard(x_t, t, y=None):
        asked.append(y)
        return exact(x_t, t, y)

    sample(EVERY[sampler](heard, normal(2, 2), time_grid(Cosine(), 3), y=y))
    assert all(labels is y for labels in asked)


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_the_generator_decides_everything(sampler):
    denoiser, ts = MIXTURE.denoiser(Cosine()), time_grid(Cosine(), 5)
    a, b, c = (sample(EVERY[sampler](denoiser, normal(3, 2), ts, generator=seeded(s))) for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_images_in_float32_stay_so_and_no_gradient_is_kept():
    x_T = torch.randn(2, 2, generator=seeded(0)).requires_grad_(True)
    mixture = GaussianMixture(MIXTURE.means.float(), 0.3)
    for name in EVERY:
        x = sample(EVERY[name](mixture.denoiser(Cosine()), x_T, time_grid(Cosine(), 3)))
        assert x.dtype == torch.float32
        assert not x.requires_grad
    assert torch.is_grad_enabled()


def test_noised_data_comes_home():
    x0, t = MIXTURE.sample(200, seeded(0)), torch.tensor(0.05, dtype=torch.float64)
    x_t = q_sample(Cosine(), x0, t, normal(200, 2))
    back = sample(probability_flow(MIXTURE.denoiser(Cosine()), x_t, torch.linspace(0.05, 0, 20, dtype=torch.float64)))
    # the noise at t = 0.05 has a standard deviation of 0.1; nobody ends further away than a few of it
    assert float((back - x0).norm(dim=1).max()) < 6 * float(Cosine().sigma(t))


# bad input


@pytest.mark.parametrize("sampler", EVERY)
@pytest.mark.parametrize(
    ("ts", "message"),
    [
        ([0.0, 0.5, 1.0], "must decrease strictly, got 0 ... 1"),
        ([1.0, 0.5, 0.5, 0.0], "must decrease strictly"),
        ([1.0], "at least two times"),
        ([[1.0, 0.0]], r"1-D with at least two times, got shape \(1, 2\)"),
        ([1.2, 0.5], r"\[0, 1\], got 1.2 to 0.5"),
        ([0.5, -0.1], r"\[0, 1\], got 0.5 to -0.1"),
        ([1.0, float("nan"), 0.0], "must decrease strictly"),
    ],
)
def test_bad_grids_are_refused(sampler, ts, message):
    with pytest.raises(ValueError, match=message):
        sample(EVERY[sampler](MIXTURE.denoiser(LinearBeta()), normal(2, 2), torch.tensor(ts)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(ddim, eta=1.1), r"\[0, 1\], got 1.1"),
        (partial(ddim, eta=-0.1), "got -0.1"),
        (partial(ddim, eta=float("nan")), "got nan"),
        (partial(ancestral, variance="learned"), '"small" or "large", got \'learned\''),
        (partial(probability_flow, method="rk5"), '"euler", "heun" or "rk4", got \'rk5\''),
    ],
)
def test_bad_options_are_refused_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make(MIXTURE.denoiser(Cosine()), normal(2, 2), time_grid(Cosine(), 2))


# adaptive steps


@pytest.mark.parametrize("solver", ["RK45", "DOP853"])
def test_adaptive_solvers_meet_their_tolerance_and_return(reference, solver):
    denoiser, x_T = MIXTURE.denoiser(LinearBeta()), normal(24, 2)
    errors, evaluations = [], []
    for tolerance in (1e-2, 1e-4, 1e-6):
        end, count = adaptive_flow(denoiser, x_T, 1.0, 0.1, rtol=tolerance, atol=tolerance, solver=solver)
        errors.append(float((end - reference).square().mean().sqrt()))
        evaluations.append(count)
        assert errors[-1] < 10 * tolerance  # the tolerance is for a step; there are about ten
    assert errors[2] < errors[1] < errors[0]
    assert evaluations[0] < evaluations[1] < evaluations[2]
    back, _ = adaptive_flow(denoiser, end, 0.1, 1.0, rtol=1e-8, atol=1e-8, solver=solver)
    torch.testing.assert_close(back, x_T, rtol=1e-3, atol=1e-3)


def test_adaptive_keeps_the_kind_of_numbers():
    end, count = adaptive_flow(MIXTURE.denoiser(Cosine()), normal(3, 2).float(), 0.9, 0.1)
    assert end.dtype == torch.float32
    assert count > 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t_from": 0.5, "t_to": 0.0}, r"\(0, 1\], got 0.5 and 0"),
        ({"t_from": 1.5, "t_to": 0.1}, r"\(0, 1\], got 1.5"),
        ({"t_from": 0.9, "t_to": 0.1, "solver": "LSODA"}, '"RK45" or "DOP853", got \'LSODA\''),
    ],
)
def test_adaptive_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        adaptive_flow(MIXTURE.denoiser(Cosine()), normal(2, 2), **arguments)
