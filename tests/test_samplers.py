"""Samplers on exact scores: orders of convergence, exact moments, hand-written steps, densities, bad input.

For Gaussian data every step is an affine map of x plus noise. `affine_step` measures that map from outside, so that
means and variances can be followed exactly through a whole run, without Monte Carlo.
"""

from functools import partial

import pytest
import torch

from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.process import Prediction, posterior, q_sample, transition
from diffusion_edu.samplers import (
    ADAMS_BASHFORTH,
    Step,
    adams_bashforth,
    adaptive_flow,
    adaptive_solve,
    ancestral,
    annealed_langevin,
    corrected,
    ddim,
    dpm_solver_pp,
    edm,
    euler_maruyama,
    inpaint,
    langevin,
    multistep,
    predictor_corrector,
    probability_flow,
    sample,
)
from diffusion_edu.schedules import (
    Cosine,
    LinearBeta,
    Schedule,
    VarianceExploding,
    linear_betas,
    time_at_log_snr,
    time_grid,
)

MIXTURE = GaussianMixture(
    torch.tensor([[1.0, 0.0], [-0.6, 0.8], [0.2, -1.1]], dtype=torch.float64),
    torch.tensor([0.3, 0.35, 0.4], dtype=torch.float64),
    torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64),
)
DETERMINISTIC = {
    "ddim": ddim,
    "euler": partial(probability_flow, method="euler"),
    "heun": partial(probability_flow, method="heun"),
    "noise 0": partial(euler_maruyama, noise=0.0),
    "rk4": partial(probability_flow, method="rk4"),
    "edm": edm,
    "ipndm": multistep,
    "multistep 3": partial(multistep, order=3, even=False),
    "multistep 4": partial(multistep, even=False),
    "dpm-solver++ 1": partial(dpm_solver_pp, order=1),
    "dpm-solver++ 2": dpm_solver_pp,
}
STOCHASTIC = {
    "small": ancestral,
    "large": partial(ancestral, variance="large"),
    "eta 0.5": partial(ddim, eta=0.5),
    "eta 1": partial(ddim, eta=1.0),
    "euler-maruyama": euler_maruyama,
    "noise 0.5": partial(euler_maruyama, noise=0.5),
    "corrector off": partial(predictor_corrector, corrections=0),
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
    assert order(steps, errors) == pytest.approx({"heun": 2, "edm": 2, "rk4": 4}.get(sampler, 1), abs=0.25)
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
        (partial(euler_maruyama, noise=-0.5), "at least 0, got -0.5"),
        (partial(euler_maruyama, noise=float("nan")), "at least 0, got nan"),
        (partial(predictor_corrector, snr=0.0), "snr must be above 0, got 0.0"),
        (partial(predictor_corrector, snr=float("nan")), "snr must be above 0, got nan"),
        (partial(predictor_corrector, corrections=-1), "at least 0, got -1"),
        (partial(predictor_corrector, corrections=1.5), "whole number of at least 0, got 1.5"),
        (partial(probability_flow, method="rk5"), '"euler", "heun" or "rk4", got \'rk5\''),
        (partial(edm, churn=-1.0), "churn must be at least 0, got -1.0"),
        (partial(multistep, order=5), "order must be 1, 2, 3 or 4, got 5"),
        (partial(dpm_solver_pp, order=3), "order must be 1 or 2, got 3"),
        (partial(ancestral, variance=torch.ones(3)), "need 2 variances >= 0, one a step, got shape"),
        (partial(ancestral, variance=-torch.ones(2)), "need 2 variances >= 0"),
    ],
)
def test_bad_options_are_refused_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make(MIXTURE.denoiser(Cosine()), normal(2, 2), time_grid(Cosine(), 2))


# the family of reverse processes, and the corrector


def test_without_noise_it_is_eulers_method_for_the_ode():
    denoiser, x_T, ts = MIXTURE.denoiser(LinearBeta()), normal(24, 2), grid(20)
    left = sample(euler_maruyama(denoiser, x_T, ts, noise=0.0))
    right = sample(probability_flow(denoiser, x_T, ts, method="euler"))
    torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-10)  # float64 rounding over 20 steps


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0, 2.0])
def test_every_noise_has_the_same_marginals(noise):
    schedule, steps, errors = LinearBeta(), [150, 300, 600], []
    denoiser = GAUSSIAN.denoiser(schedule)
    for n in steps:
        ts, worst = grid(n), 0.0
        mean, variance = marginal(schedule, ts[0])
        # the step is affine (`affine_step` proves it elsewhere): three numbers a step, from one batch of two points
        for t, s in zip(ts[:-1], ts[1:], strict=True):
            score = denoiser(torch.tensor([[0.0], [1.0]], dtype=torch.float64), t).score[:, 0].tolist()
            f, g2, h = float(schedule.drift(t)), float(schedule.diffusion_squared(t)), float(t - s)
            pull = (1 + noise**2) / 2 * g2
            a = 1 - h * (f - pull * (score[1] - score[0]))
            mean, variance = a * mean + h * pull * score[0], a**2 * variance + noise**2 * g2 * h
            wanted = marginal(schedule, s)
            worst = max(worst, abs(mean - wanted[0]) + abs(variance - wanted[1]))
        errors.append(worst)
    assert order(steps, errors) == pytest.approx(1, abs=0.1)
    assert errors[-1] < 0.06


@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_the_step_with_other_noise_by_hand(noise):
    schedule, x, (t, s) = LinearBeta(), normal(4, 2), torch.tensor([0.5, 0.47], dtype=torch.float64)
    beta, score = 0.1 + 0.5 * 19.9, MIXTURE.score(x, schedule, t)
    wanted = x + 0.03 * (beta / 2 * x + (1 + noise**2) / 2 * beta * score)
    wanted = wanted + noise * (beta * 0.03) ** 0.5 * normal(4, 2, seed=3)
    ours = sample(euler_maruyama(MIXTURE.denoiser(schedule), x, torch.stack([t, s]), generator=seeded(3), noise=noise))
    torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)


def test_one_data_point_at_0_has_the_score_minus_x_over_sigma_squared():
    def point(x_t, t, y=None):
        return Prediction(LinearBeta(), x_t, t, torch.zeros_like(x_t), "x0")

    x, t = normal(5, 2), torch.tensor(0.3, dtype=torch.float64)
    torch.testing.assert_close(point(x, t).score, -x / LinearBeta().sigma(t) ** 2)
    # and the reverse SDE leads there, from wherever it starts
    ends = sample(euler_maruyama(point, x, time_grid(LinearBeta(), 500), generator=seeded(0)))
    assert float(ends.abs().max()) < 0.1


def test_the_corrector_leaves_the_right_law_nearly_alone_and_heals_a_wrong_one():
    x, wide = normal(20_000, 2, seed=1), 2 * normal(20_000, 2, seed=2)
    for k in range(150):  # |score| = 2 makes the first steps of `wide` a quarter as long
        x, wide = corrected(x, -x, 0.16, seeded(k)), corrected(wide, -wide, 0.16, seeded(k + 200))
    # x (1 - e) + sqrt(2 e) z has the stationary variance 1 / (1 - e / 2); here e = 2 snr^2 within a per cent
    stationary = 1 / (1 - 0.16**2)
    error = 4 * (2 / 40_000) ** 0.5  # four standard errors of a variance of 40,000 numbers
    assert float(x.var()) == pytest.approx(stationary, abs=error)
    assert float(wide.var()) == pytest.approx(stationary, abs=error)


def test_the_step_of_predictor_corrector_by_hand():
    schedule, x, (t, s) = LinearBeta(), normal(6, 2), torch.tensor([0.5, 0.47], dtype=torch.float64)
    denoiser, g = MIXTURE.denoiser(schedule), seeded(3)
    wanted = sample(euler_maruyama(denoiser, x, torch.stack([t, s]), generator=g))
    score, z = MIXTURE.score(wanted, schedule, s), torch.randn(6, 2, generator=g, dtype=torch.float64)
    step = 2 * (0.2 * z.norm(dim=1).mean() / score.norm(dim=1).mean()) ** 2
    wanted = wanted + step * score + (2 * step) ** 0.5 * z
    ours = sample(predictor_corrector(denoiser, x, torch.stack([t, s]), generator=seeded(3), snr=0.2))
    torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("corrections", "expected"), [(0, 4), (1, 7), (3, 13)])
def test_evaluations_of_predictor_corrector(corrections, expected):
    calls, exact = [], MIXTURE.denoiser(Cosine())

    def counted(x_t, t, y=None):
        calls.append((float(t), y))
        return exact(x_t, t, y)

    y = torch.tensor([0, 1])
    sample(predictor_corrector(counted, normal(2, 2), time_grid(Cosine(), 4), y=y, corrections=corrections))
    assert len(calls) == expected
    assert min(t for t, _ in calls) > 0
    assert all(labels is y for _, labels in calls)


def test_a_run_of_predictor_corrector_ends_without_noise_and_repeats():
    denoiser, x_T, ts = MIXTURE.denoiser(Cosine()), normal(50, 2), torch.tensor([0.3, 0.0], dtype=torch.float64)
    ends = [sample(predictor_corrector(denoiser, x_T, ts, generator=seeded(seed))) for seed in (1, 2)]
    assert torch.equal(*ends)
    runs = [sample(predictor_corrector(denoiser, x_T, grid(5), generator=seeded(4))) for _ in range(2)]
    assert torch.equal(*runs)


# Langevin


def test_langevin_settles_at_the_variance_that_a_finite_step_has():
    """Exactly: each step is x -> f x + sqrt(step) z, f and the noise's factor measured from outside."""
    for c, step in [(1.0, 0.1), (1.0, 2.0), (0.5, 0.3)]:
        start = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        score = partial(torch.mul, torch.tensor(-1 / c**2, dtype=torch.float64))
        moved = sample(langevin(score, start, step, 1, noise=False))
        factor = float(moved[1] - moved[0])
        shaken = sample(langevin(score, start, step, 1, seeded(0)))
        spread = float(((shaken - moved) / normal(2, 1)).mean())
        variance = 1.0
        for _ in range(2000):
            variance = factor**2 * variance + spread**2
        assert variance == pytest.approx(c**2 / (1 - step / (4 * c**2)), rel=1e-9)
        assert variance != pytest.approx(c**2, rel=0.01)


def test_langevins_weak_order_is_one():
    steps, errors = [5, 10, 20, 40], []
    for n in steps:
        h, variance = 1.0 / n, 0.04
        for _ in range(n):
            moved = sample(langevin(torch.neg, torch.ones(1, 1, dtype=torch.float64), h, 1, noise=False))
            variance = float(moved) ** 2 * variance + h
        errors.append(abs(variance - (1 + (0.04 - 1) * torch.tensor(-1.0).exp().item())))
    assert order(steps, errors) == pytest.approx(1, abs=0.1)


def test_langevin_samples_the_law():
    x = sample(langevin(MIXTURE.score, MIXTURE.sample(4000, seeded(0)), 0.01, 50, seeded(1)))
    # what is distributed like the mixture stays so; 4 standard errors, and 0.01 / 4 of bias relative to the variance
    mean = (MIXTURE.weights[:, None] * MIXTURE.means).sum(0)
    error = x.std(0) / len(x) ** 0.5
    assert bool(((x.mean(0) - mean).abs() < 4 * error).all())


def test_langevin_without_noise_climbs_to_the_modes():
    one = GaussianMixture(torch.tensor([[0.4, -0.2]], dtype=torch.float64), 0.5)
    x = sample(langevin(one.score, normal(20, 2), 0.1, 200, noise=False))
    torch.testing.assert_close(x, one.means.expand(20, 2), atol=1e-6, rtol=0)


def test_langevin_yields_its_clock_and_the_score_it_followed():
    x = normal(3, 2).requires_grad_(True)
    steps = list(langevin(MIXTURE.score, x, 0.25, 4, seeded(0)))
    assert [float(step.t) for step in steps] == [0.25, 0.5, 0.75, 1.0]
    torch.testing.assert_close(steps[0].prediction, MIXTURE.score(x).detach())
    torch.testing.assert_close(steps[1].prediction, MIXTURE.score(steps[0].x))
    assert all(isinstance(step, Step) and not step.x.requires_grad for step in steps)


@pytest.mark.parametrize("ends_at", [0.0, 0.1])
def test_annealed_langevin_by_hand(ends_at):
    schedule, ts = Cosine(), torch.tensor([0.8, 0.4, ends_at], dtype=torch.float64)
    denoiser, x, g = MIXTURE.denoiser(schedule), normal(5, 2), seeded(3)
    steps = list(annealed_langevin(denoiser, x, ts, generator=seeded(3), steps=3, size=0.4))
    assert [round(float(step.t), 6) for step in steps] == [0.8, 0.8, 0.4, 0.4, 0.4, ends_at]
    for t, s in zip(ts[:-1], ts[1:], strict=True):
        for k in range(3):
            alpha, sigma, score = schedule.alpha(t), schedule.sigma(t), MIXTURE.score(x, schedule, t)
            guess = (x + sigma**2 * score) / alpha
            z = torch.randn(x.shape, generator=g, dtype=x.dtype)
            x = x + 0.2 * sigma**2 * score + 0.4**0.5 * sigma * z
            if k == 2:
                x = guess if s == 0 else x * schedule.alpha(s) / alpha
    torch.testing.assert_close(steps[-1].x, x)


def test_annealed_langevin_does_not_know_the_schedule():
    """The walker x / alpha sees noise levels only: two schedules with the same levels give the same samples."""
    levels = torch.tensor([2.0, 1.0, 0.5, 0.2], dtype=torch.float64)
    ends = []
    for schedule in (Cosine(), LinearBeta()):
        ts = time_at_log_snr(schedule, -2 * levels.log())
        start = schedule.alpha(ts[0]) * normal(6, 2)
        ts = torch.cat([ts, ts.new_zeros(1)])
        ends.append(sample(annealed_langevin(MIXTURE.denoiser(schedule), start, ts, generator=seeded(0))))
    torch.testing.assert_close(ends[0], ends[1], atol=1e-8, rtol=0)


def test_annealed_langevin_finds_the_weights_from_one_corner():
    ve, n = VarianceExploding(0.05, 4.0), 2000
    corner = torch.tensor([-3.0, -3.0], dtype=torch.float64) + 0.1 * normal(n, 2)
    levels = time_at_log_snr(ve, -2 * torch.linspace(1.4, -2.3, 40, dtype=torch.float64))
    ts = torch.cat([levels, levels.new_zeros(1)])
    x = sample(annealed_langevin(MIXTURE.denoiser(ve), corner, ts, generator=seeded(1), steps=5))
    real = MIXTURE.sample(100_000, seeded(2))

    def shares(points):
        return torch.cdist(points, MIXTURE.means).argmin(1).bincount(minlength=3) / len(points)

    error = (shares(real) * (1 - shares(real)) / n).sqrt()
    # 4 standard errors, and 2 % because the levels fall in finitely many steps
    assert bool(((shares(x) - shares(real)).abs() < 4 * error + 0.02).all())
    stuck = sample(langevin(lambda z: MIXTURE.score(z, ve, ts[-2]), corner, 0.02, 200, seeded(1)))
    assert bool(((shares(stuck) - shares(real)).abs() > 4 * error + 0.02).any())


@pytest.mark.parametrize("run", ["langevin", "annealed"])
def test_langevins_generator_decides_everything(run):
    def end(seed):
        if run == "langevin":
            return sample(langevin(MIXTURE.score, normal(3, 2), 0.1, 5, seeded(seed)))
        return sample(annealed_langevin(MIXTURE.denoiser(Cosine()), normal(3, 2), grid(4), generator=seeded(seed)))

    assert torch.equal(end(1), end(1))
    assert not torch.equal(end(1), end(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: langevin(MIXTURE.score, normal(2, 2), 0.0, 5), "step > 0 and steps >= 1, got 0.0 and 5"),
        (lambda: langevin(MIXTURE.score, normal(2, 2), float("nan"), 5), "got nan and 5"),
        (lambda: langevin(MIXTURE.score, normal(2, 2), 0.1, 0), "got 0.1 and 0"),
        (partial(annealed_langevin, steps=0), "got 0.5 and 0"),
        (partial(annealed_langevin, size=4.0), "0 < size < 4 and steps >= 1, got 4.0 and 5"),
        (partial(annealed_langevin, size=-1.0), "got -1.0"),
    ],
)
def test_langevin_refuses_bad_options_at_once(make, message):
    arguments = (MIXTURE.denoiser(Cosine()), normal(2, 2), time_grid(Cosine(), 2)) if isinstance(make, partial) else ()
    with pytest.raises(ValueError, match=message):
        make(*arguments)


def test_annealed_langevin_refuses_a_rising_grid():
    with pytest.raises(ValueError, match="must decrease strictly"):
        sample(annealed_langevin(MIXTURE.denoiser(Cosine()), normal(2, 2), torch.tensor([0.1, 0.5])))


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


@pytest.mark.parametrize("solver", ["RK45", "DOP853"])
def test_a_solver_that_gives_up_says_so(solver):
    def broken(x, t):
        return x / 0 if t < 0.5 else x

    with pytest.raises(FloatingPointError, match=f"{solver} stopped at t = 0.5"):
        adaptive_solve(broken, torch.ones(2, 2), 1.0, 0.1, solver=solver)


# --- inpainting ---------------------------------------------------------------------------------------

KNOWN = normal(6, 2).flip(0)


def seeded_inpaint(mask, resamplings=1, ts=None, known=KNOWN):
    ts = time_grid(Cosine(), 8) if ts is None else ts
    g = torch.Generator().manual_seed(11)
    steps = inpaint(MIXTURE.denoiser(Cosine()), normal(6, 2), ts, known, mask, generator=g, resamplings=resamplings)
    return sample(steps)


@pytest.mark.parametrize("resamplings", [1, 3])
def test_all_known_comes_back(resamplings):
    assert torch.equal(seeded_inpaint(torch.ones(2), resamplings), KNOWN)


def test_nothing_known_is_plain_sampling():
    plain = ancestral(
        MIXTURE.denoiser(Cosine()),
        normal(6, 2),
        time_grid(Cosine(), 8),
        generator=torch.Generator().manual_seed(11),
    )
    assert torch.equal(seeded_inpaint(torch.zeros(2)), sample(plain))


def test_known_coordinates_stay_and_the_others_listen():
    mask = torch.tensor([1.0, 0.0])
    x = seeded_inpaint(mask, resamplings=2)
    assert torch.equal(x[:, 0], KNOWN[:, 0])
    other = seeded_inpaint(mask, resamplings=2, known=KNOWN + torch.tensor([1.0, 0.0]))
    assert (x[:, 1] - other[:, 1]).abs().max() > 1e-3
    ignored = seeded_inpaint(mask, resamplings=2, known=KNOWN + torch.tensor([0.0, 1.0]))
    assert torch.equal(x, ignored)  # what is not known is not looked at


def test_resampling_keeps_the_exact_marginals_where_nothing_is_known():
    """Self-recurrence with an exact Gaussian denoiser: the deviation stays that of the data."""
    exact, n = GaussianMixture(torch.zeros(1, 1, dtype=torch.float64), 0.5).denoiser(Cosine()), 4000
    ts = time_grid(Cosine(), 100, "log_snr")
    x_T = torch.randn(n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(12))
    g = torch.Generator().manual_seed(13)
    x = sample(inpaint(exact, x_T, ts, x_T, torch.zeros(1), generator=g, resamplings=3))
    assert abs(float(x.std()) - 0.5) < 4 * 0.5 / (2 * n) ** 0.5 + 0.01  # and what 100 steps cost


def test_inpainting_costs_a_call_for_each_resampling():
    calls = []

    def counted(x, t, y=None):
        calls.append(float(t))
        return MIXTURE.denoiser(Cosine())(x, t)

    ts = time_grid(Cosine(), 4)
    sample(inpaint(counted, normal(3, 2), ts, normal(3, 2), torch.ones(2), resamplings=3))
    assert calls == [float(t) for t in ts[:-1] for _ in range(3)]


@pytest.mark.parametrize("resamplings", [1, 2])
def test_inpainting_ends_without_noise_and_shows_every_evaluation_the_labels(resamplings):
    labels, shown = torch.arange(6) % 3, []

    def watched(x, t, y=None):
        shown.append((y, MIXTURE.denoiser(Cosine())(x, t, y)))
        return shown[-1][1]

    ts, mask = torch.tensor([0.5, 0.0], dtype=torch.float64), torch.tensor([1.0, 0.0])
    x = sample(inpaint(watched, normal(6, 2), ts, KNOWN, mask, y=labels, generator=seeded(1), resamplings=resamplings))
    assert len(shown) == resamplings and all(y is labels for y, _ in shown)
    assert torch.equal(x[:, 0], KNOWN[:, 0]) and torch.equal(x[:, 1], shown[-1][1].x0[:, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"known": normal(5, 2)}, r"must fit x_T, \(6, 2\), got \(5, 2\)"),
        ({"mask": torch.ones(7, 6, 2)}, "must fit x_T"),
        ({"mask": torch.tensor([0.5, 1.0])}, "1 where the data are known and 0 elsewhere"),
        ({"resamplings": 0}, "at least 1, got 0"),
        ({"resamplings": 1.5}, "at least 1, got 1.5"),
    ],
)
def test_inpainting_refuses(change, message):
    arguments = {"known": KNOWN, "mask": torch.ones(2)} | change
    with pytest.raises(ValueError, match=message):
        sample(inpaint(MIXTURE.denoiser(Cosine()), normal(6, 2), time_grid(Cosine(), 4), **arguments))


# few evaluations


def fast_end(name, steps, spacing):
    """Down to the last time before 0: the step to 0 has order 1 for all of them."""
    ts = time_grid(LinearBeta(), steps, spacing)[:-1]
    return sample(EVERY[name](MIXTURE.denoiser(LinearBeta()), normal(24, 2), ts))


@pytest.fixture(scope="module")
def fast_reference():
    """Order 4 and three times the finest steps: off by a hundredth of the smallest error below."""
    return fast_end("multistep 4", 1000, "edm")


@pytest.mark.parametrize(
    ("sampler", "spacing", "expected"),
    [
        ("ddim", "edm", 1),
        ("dpm-solver++ 1", "edm", 1),
        ("edm", "edm", 2),
        ("dpm-solver++ 2", "log_snr", 2),
        ("multistep 3", "log_snr", 3),
        ("multistep 4", "edm", 4),
        ("ipndm", "edm", 2),  # coefficients of even steps on an uneven grid
    ],
)
def test_orders_of_the_fast_samplers(fast_reference, sampler, spacing, expected):
    steps = [80, 160, 320]
    errors = [float((fast_end(sampler, n, spacing) - fast_reference).square().mean().sqrt()) for n in steps]
    assert order(steps, errors) == pytest.approx(expected, abs=0.3)
    assert errors[-1] < 0.02


def test_adams_bashforth_of_even_steps_and_of_polynomials():
    for weights in ADAMS_BASHFORTH:
        nodes = -torch.arange(len(weights), dtype=torch.float64)
        torch.testing.assert_close(adams_bashforth(nodes, torch.tensor(1.0).double()), torch.tensor(weights).double())
    nodes, to = torch.tensor([1.0, 1.7, 3.1], dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)
    for power in range(3):
        mean = (to ** (power + 1) - nodes[0] ** (power + 1)) / ((power + 1) * (to - nodes[0]))
        assert float((adams_bashforth(nodes, to) * nodes**power).sum()) == pytest.approx(float(mean))


def test_order_one_is_ddim():
    denoiser, x_T, ts = MIXTURE.denoiser(Cosine()), normal(5, 2), time_grid(Cosine(), 6, "edm")
    for other in (
        partial(dpm_solver_pp, order=1),
        partial(multistep, order=1),
        partial(multistep, order=1, even=False),
    ):
        torch.testing.assert_close(sample(other(denoiser, x_T, ts)), sample(ddim(denoiser, x_T, ts)))


@pytest.mark.parametrize("even", [True, False])
def test_multistep_ends_at_the_last_guess(even):
    *_, last = multistep(MIXTURE.denoiser(Cosine()), normal(5, 2), time_grid(Cosine(), 6, "edm"), even=even)
    torch.testing.assert_close(last.x, last.prediction.x0)


def test_heun_in_the_noise_level_by_hand():
    schedule, x_T, ts = Cosine(), normal(5, 2), time_grid(Cosine(), 3, "edm")
    denoiser, levels = MIXTURE.denoiser(schedule), schedule.noise_level(ts)
    u = x_T / schedule.alpha(ts[0])
    for i in range(3):
        first = denoiser(u * schedule.alpha(ts[i]), ts[i]).eps
        trial = u + (levels[i + 1] - levels[i]) * first
        if ts[i + 1] > 0:
            second = denoiser(trial * schedule.alpha(ts[i + 1]), ts[i + 1]).eps
            trial = u + (levels[i + 1] - levels[i]) * (first + second) / 2
        u = trial
    torch.testing.assert_close(sample(edm(denoiser, x_T, ts)), u, rtol=1e-9, atol=1e-9)


def test_churn_keeps_the_marginal_and_stays_in_its_range():
    schedule, n = Cosine(), 20_000
    seen = []

    def denoiser(x_t, t, y=None):
        seen.append((float(t), float(x_t.std())))
        return MIXTURE.denoiser(schedule)(x_t, t)

    denoiser.schedule = schedule
    ts = torch.tensor([0.5, 0.3], dtype=torch.float64)
    x = q_sample(schedule, MIXTURE.sample(n, seeded(0)), ts[0], normal(n, 2, seed=1))
    sample(edm(denoiser, x, ts, churn=0.2, generator=seeded(2)))
    level = float(schedule.noise_level(torch.tensor(seen[0][0], dtype=torch.float64)))
    assert level == pytest.approx(1.2 * float(schedule.noise_level(ts[0])))
    fresh = q_sample(schedule, MIXTURE.sample(n, seeded(3)), torch.tensor(seen[0][0]).double(), normal(n, 2, seed=4))
    assert seen[0][1] == pytest.approx(float(fresh.std()), rel=4 / (2 * n) ** 0.5)
    seen.clear()
    sample(edm(denoiser, x, ts, churn=0.2, churn_range=(2.0, 9.0), generator=seeded(2)))
    assert seen[0][0] == 0.5, "the level lies below the range"
    top = torch.tensor([schedule.t_max, 0.5], dtype=torch.float64)
    sample(edm(denoiser, x, top, churn=0.2, generator=seeded(2)))
    assert max(t for t, _ in seen) <= schedule.t_max


def test_churn_has_its_strength_its_limit_and_its_range():
    schedule, x = Cosine(), normal(50, 2, seed=1)
    ts = torch.tensor([0.7, 0.5], dtype=torch.float64)
    before = float(schedule.noise_level(ts[0]))

    def shown(**options):
        """The state and the noise level that the denoiser is asked about first."""
        guess = next(edm(MIXTURE.denoiser(schedule), x, ts, generator=seeded(2), **options)).prediction
        return guess.x_t, float(schedule.noise_level(guess.t))

    still, plain, thrice = (shown(churn=0.2, inflate=k)[0] for k in (0.0, 1.0, 3.0))
    torch.testing.assert_close(thrice - still, 3 * (plain - still), rtol=1e-9, atol=1e-12)
    assert float((plain - still).std()) > 0.1
    assert shown(churn=1e6)[1] / before == pytest.approx(2**0.5), "no more than sqrt(2)"
    inside = shown(churn=0.2, churn_range=(0.9 * before, 1.1 * before))[1]  # levels, all above 1; t is below
    assert inside / before == pytest.approx(1.2)
    assert shown(churn=0.2, churn_range=(0.0, 0.9 * before))[1] == pytest.approx(before), "above the range"


def test_heun_shows_the_labels_to_both_evaluations():
    seen = []

    def denoiser(x_t, t, y=None):
        seen.append(y)
        return MIXTURE.denoiser(Cosine())(x_t, t)

    denoiser.schedule = Cosine()
    y = torch.arange(3)
    sample(edm(denoiser, normal(3, 2), torch.tensor([0.7, 0.5], dtype=torch.float64), y=y))
    assert len(seen) == 2 and all(label is y for label in seen)


def test_ancestral_takes_a_variance_for_each_step():
    denoiser, ts, x_T = GAUSSIAN.denoiser(Cosine()), time_grid(Cosine(), 4), normal(3, 1)
    large = torch.stack([transition(Cosine(), t, s)[1] for t, s in zip(ts[:-1], ts[1:], strict=True)])
    ends = [
        sample(ancestral(denoiser, x_T, ts, variance=v, generator=seeded(1)))
        for v in ("large", large, lambda t, s: transition(Cosine(), t, s)[1])
    ]
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[0], ends[2])


# the schedulers of diffusers, on the same predictions


def steps_of_diffusers(scheduler, denoiser, x, count, generator=None, scaled=False):
    """The scheduler's whole run with our eps, and our grid for the same times: k of T = 1000 is (k + 1) / 1000 here."""
    scheduler.set_timesteps(count)
    extra = {} if generator is None else {"generator": generator}
    for k in scheduler.timesteps:
        shown = scheduler.scale_model_input(x, k) if scaled else x
        x = scheduler.step(denoiser(shown, (k.double() + 1) / 1000).eps, k, x, **extra).prev_sample
    times = [(float(k) + 1) / 1000 for k in dict.fromkeys(scheduler.timesteps.tolist())]
    return x, torch.tensor([*times, 0.0], dtype=torch.float64)


@pytest.mark.parametrize("name", ["DDIM", "DDIM eta", "DDPM", "DPMSolverMultistep", "HeunDiscrete"])
def test_equal_to_the_schedulers_of_diffusers(name):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    betas = linear_betas(1000)
    common = {"trained_betas": betas.tolist(), "timestep_spacing": "leading"}
    denoiser, x_T = MIXTURE.denoiser(Schedule.from_betas(betas)), normal(6, 2)
    if name == "DDIM":
        theirs = diffusers.DDIMScheduler(**common, clip_sample=False)
        found, ts = steps_of_diffusers(theirs, denoiser, x_T, 10)
        ours = sample(ddim(denoiser, x_T, ts))
    elif name == "DDIM eta":
        theirs = diffusers.DDIMScheduler(**common, clip_sample=False)
        theirs.set_timesteps(10)
        g, found = seeded(1), x_T
        for k in theirs.timesteps:
            guess = denoiser(found, (k.double() + 1) / 1000).eps
            found = theirs.step(guess, k, found, eta=0.7, generator=g).prev_sample
        ts = torch.cat([(theirs.timesteps.double() + 1) / 1000, torch.zeros(1).double()])
        ours = sample(ddim(denoiser, x_T, ts, eta=0.7, generator=seeded(1)))
    elif name == "DDPM":
        theirs = diffusers.DDPMScheduler(**common, clip_sample=False, variance_type="fixed_small")
        found, ts = steps_of_diffusers(theirs, denoiser, x_T, 10, seeded(1))
        ours = sample(ancestral(denoiser, x_T, ts, generator=seeded(1)))
    elif name == "DPMSolverMultistep":
        theirs = diffusers.DPMSolverMultistepScheduler(**common, algorithm_type="dpmsolver++", final_sigmas_type="zero")
        found, ts = steps_of_diffusers(theirs, denoiser, x_T, 10)
        ours = sample(dpm_solver_pp(denoiser, x_T, ts))
    else:
        theirs = diffusers.HeunDiscreteScheduler(**common)
        theirs.set_timesteps(10)
        alpha = float(denoiser.schedule.alpha((theirs.timesteps[0].double() + 1) / 1000))
        found, ts = steps_of_diffusers(theirs, denoiser, x_T / alpha, 10, scaled=True)
        ours = sample(edm(denoiser, x_T, ts))
    torch.testing.assert_close(ours, found.double(), rtol=1e-5, atol=1e-5)  # their tables are float32
    if name in ("DDIM", "DPMSolverMultistep"):
        assert float((sample(multistep(denoiser, x_T, ts)) - found).abs().max()) > 1e-3
