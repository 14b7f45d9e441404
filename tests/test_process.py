"""The forward process: moments, transitions, posteriors by Bayes' rule on a grid, and the four faces of a prediction."""

import pytest
import torch

from diffusion_edu.process import TARGETS, Prediction, expand_to, posterior, q_sample, transition
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

CHAIN = Schedule.from_betas(linear_betas())
ALL = [LinearBeta(), Cosine(), Sigmoid(), OrnsteinUhlenbeck(), CHAIN, VarianceExploding(0.1, 5), Flow()]


def name(schedule):
    return type(schedule).__name__


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# q(x_t | x_0)


@pytest.mark.parametrize("schedule", ALL, ids=name)
def test_each_image_is_noised_to_its_own_time(schedule):
    x0, eps, t = normal(3, 1, 2, 2), normal(3, 1, 2, 2, seed=1), torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    x_t = q_sample(schedule, x0, t, eps)
    for i in range(3):
        assert torch.equal(x_t[i], schedule.alpha(t[i]) * x0[i] + schedule.sigma(t[i]) * eps[i])
    assert torch.equal(q_sample(schedule, x0, t[1], eps)[1], x_t[1])  # one time for all


@pytest.mark.parametrize("schedule", ALL, ids=name)
def test_moments_of_noised_data(schedule):
    n, t = 40_000, number(0.3)
    x_t = q_sample(schedule, torch.full((n, 1), 0.7, dtype=torch.float64), t, normal(n, 1))
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    # five standard errors of a mean and of a standard deviation
    assert float(x_t.mean()) == pytest.approx(0.7 * alpha, abs=5 * sigma / n**0.5)
    assert float(x_t.std()) == pytest.approx(sigma, abs=5 * sigma / (2 * n) ** 0.5)


def test_at_time_0_nothing_happens():
    x0 = normal(4, 2)
    for schedule in ALL:
        torch.testing.assert_close(q_sample(schedule, x0, number(0.0), normal(4, 2)), x0, rtol=1e-14, atol=0)


def test_expand_to_gives_trailing_axes_and_the_type():
    x = torch.zeros(3, 1, 2, 2)
    assert expand_to(torch.ones(3, dtype=torch.float64), x).shape == (3, 1, 1, 1)
    assert expand_to(torch.ones(3, dtype=torch.float64), x).dtype == torch.float32
    assert expand_to(number(2.0), x).shape == ()


@pytest.mark.parametrize(
    ("t", "message"),
    [
        (torch.tensor([0.5, 0.5]), r"t must have shape \(\) or \(3,\), got \(2,\)"),
        (torch.full((3, 1), 0.5), r"got \(3, 1\)"),
        (torch.tensor(1.5), r"\[0, 1\], got 1.5"),
        (torch.tensor([0.1, -0.1, 0.2]), r"\[0, 1\], got -0.1 to 0.2"),
        (torch.tensor(float("nan")), r"\[0, 1\], got nan"),
        (torch.tensor(500), r"\[0, 1\], got 500"),
    ],
)
def test_times_of_wrong_shape_or_value_are_refused(t, message):
    with pytest.raises(ValueError, match=message):
        q_sample(Cosine(), torch.zeros(3, 2), t, torch.zeros(3, 2))


def test_shapes_that_disagree_are_refused():
    half, one = torch.tensor(0.5), torch.tensor(1.0)
    with pytest.raises(ValueError, match=r"eps must have the shape of x0, \(3, 2\), got \(3, 1\)"):
        q_sample(Cosine(), torch.zeros(3, 2), half, torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"x0 must have the shape of x_t, \(3, 2\), got \(2,\)"):
        posterior(Cosine(), torch.zeros(2), torch.zeros(3, 2), one, half)
    with pytest.raises(ValueError, match=r"came as \(3, 1\)"):
        Prediction(Cosine(), torch.zeros(3, 2), half, torch.zeros(3, 1))
    with pytest.raises(ValueError, match="unknown target 'noise'; known: eps"):
        Prediction(Cosine(), torch.zeros(3, 2), half, torch.zeros(3, 2), "noise")


# q(x_t | x_s)


@pytest.mark.parametrize("schedule", ALL, ids=name)
def test_two_transitions_make_one(schedule):
    r, s, t = number([0.0, 0.1, 0.3]), number([0.05, 0.3, 0.301]), number([0.6, 0.9, 0.95])
    alpha_tr, variance_tr = transition(schedule, t, r)
    alpha_ts, variance_ts = transition(schedule, t, s)
    alpha_sr, variance_sr = transition(schedule, s, r)
    torch.testing.assert_close(alpha_ts * alpha_sr, alpha_tr, rtol=1e-12, atol=0)  # float64 rounding
    torch.testing.assert_close(alpha_ts**2 * variance_sr + variance_ts, variance_tr, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("schedule", ALL, ids=name)
def test_a_transition_from_0_is_the_whole_process_and_one_to_itself_nothing(schedule):
    t = number([0.2, 0.7, schedule.t_max])
    alpha, variance = transition(schedule, t, torch.zeros_like(t))
    torch.testing.assert_close(alpha, schedule.alpha(t), rtol=1e-14, atol=0)
    torch.testing.assert_close(variance, schedule.sigma(t) ** 2, rtol=1e-14, atol=0)
    same = number([0.0, 0.5, 1.0])
    alpha, variance = transition(schedule, same, same)
    assert torch.equal(alpha, torch.ones_like(same))
    assert torch.equal(variance, torch.zeros_like(same))


def test_the_variance_of_a_tiny_step_keeps_its_digits():
    t, h = number(0.5), 1e-9
    _, variance = transition(LinearBeta(), t, t - h)
    exact = -float(torch.expm1(-(number(h) * (0.1 + 19.9 * (0.5 - h / 2)))))
    # sigma_t^2 - alpha_ts^2 sigma_s^2, computed plainly, has an error near 1e-16 / 1e-8 = 1e-8; the difference of
    # two log-SNR of size 2 has 4e-16 / 1e-8 too, and t - h is itself rounded: 1e-7 relative
    assert float(variance) == pytest.approx(exact, rel=1e-7)


def test_a_transition_backwards_is_refused():
    with pytest.raises(ValueError, match=r"need s <= t, got s up to 0.6 and t from 0.5"):
        transition(Cosine(), number(0.5), number(0.6))


# q(x_s | x_t, x_0)


@pytest.mark.parametrize("schedule", ALL, ids=name)
@pytest.mark.parametrize(("s", "t"), [(0.1, 0.2), (0.05, 0.9), (0.5, 0.501), (0.7, 0.99)])
def test_the_posterior_is_bayes_rule(schedule, s, t):
    s, t, x0, x_t = number(s), number(t), 0.6, -0.4
    mean, std = posterior(schedule, number([x0]), number([x_t]), t, s)
    x_s = torch.linspace(float(mean) - 10 * float(std), float(mean) + 10 * float(std), 4001, dtype=torch.float64)
    alpha_ts, alpha_s = schedule.alpha(t) / schedule.alpha(s), schedule.alpha(s)
    variance_ts = schedule.sigma(t) ** 2 - alpha_ts**2 * schedule.sigma(s) ** 2
    log_prior = -((x_s - alpha_s * x0) ** 2) / (2 * schedule.sigma(s) ** 2)
    weights = (log_prior - (x_t - alpha_ts * x_s) ** 2 / (2 * variance_ts)).softmax(0)
    by_bayes = (weights * x_s).sum()
    deviation = (weights * (x_s - by_bayes) ** 2).sum().sqrt()
    # a Gaussian summed over 10 deviations at 4001 points is exact to rounding, which the differences here magnify
    torch.testing.assert_close(mean[0], by_bayes, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(std, deviation, rtol=1e-9, atol=0)


def test_the_posterior_of_ddpm():
    betas = linear_betas()
    alpha_bar = torch.cumprod(1 - betas, 0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    s = torch.arange(0, 1000, dtype=torch.float64) / 1000
    one, zero = torch.ones_like(t), torch.zeros_like(t)
    weight_0, std = posterior(CHAIN, one, zero, t, s)
    weight_t, _ = posterior(CHAIN, zero, one, t, s)
    # 1e-10: 1 - alpha_bar of 1e-4, computed plainly here, has lost four of sixteen digits
    torch.testing.assert_close(weight_0, before.sqrt() * betas / (1 - alpha_bar), rtol=1e-10, atol=0)
    torch.testing.assert_close(weight_t, (1 - betas).sqrt() * (1 - before) / (1 - alpha_bar), rtol=1e-10, atol=1e-15)
    torch.testing.assert_close(std**2, betas * (1 - before) / (1 - alpha_bar), rtol=1e-10, atol=1e-15)
    alpha_ts, variance_ts = transition(CHAIN, t, s)
    torch.testing.assert_close(alpha_ts, (1 - betas).sqrt(), rtol=1e-12, atol=0)
    torch.testing.assert_close(variance_ts, betas, rtol=1e-11, atol=0)


@pytest.mark.parametrize("schedule", ALL, ids=name)
def test_the_posterior_at_its_two_ends(schedule):
    x0, x_t, t = normal(3, 2), normal(3, 2, seed=1), number(0.6)
    mean, std = posterior(schedule, x0, x_t, t, number(0.0))
    torch.testing.assert_close(mean, x0, rtol=1e-14, atol=1e-14)
    assert std == 0
    mean, std = posterior(schedule, x0, x_t, t, t)
    torch.testing.assert_close(mean, x_t, rtol=1e-14, atol=1e-14)
    assert std == 0


def test_every_row_of_a_posterior_has_its_own_times():
    x0, x_t = normal(2, 1, 2, 2), normal(2, 1, 2, 2, seed=1)
    t, s = number([0.5, 0.9]), number([0.1, 0.8])
    mean, std = posterior(Cosine(), x0, x_t, t, s)
    assert mean.shape == x_t.shape
    assert std.shape == (2,)
    for i in range(2):
        alone, deviation = posterior(Cosine(), x0[i], x_t[i], t[i], s[i])
        torch.testing.assert_close(mean[i], alone)
        torch.testing.assert_close(std[i], deviation)


# one prediction, four names


@pytest.mark.parametrize("schedule", ALL, ids=name)
@pytest.mark.parametrize("target", TARGETS)
def test_all_faces_come_back_from_each_of_them(schedule, target):
    x0, eps = normal(5, 2), normal(5, 2, seed=1)
    t = number([0.05, 0.3, 0.5, 0.8, 0.95])
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    faces = {"x0": x0, "eps": eps, "score": -eps / sigma, "v": alpha * eps - sigma * x0}
    # EDM as its paper writes it: x0 = c_skip x + c_out F for x = x_t / alpha of noise level sigma / alpha
    x, level, data = x0 + sigma / alpha * eps, sigma / alpha, 0.5
    c_skip, c_out = data**2 / (level**2 + data**2), level * data / (level**2 + data**2).sqrt()
    faces["edm"] = (x0 - c_skip * x) / c_out
    prediction = Prediction(schedule, alpha * x0 + sigma * eps, t, faces[target], target)
    for face, value in faces.items():
        # 1e-9: float64 rounding over alpha, which is 0.003 at the end of the steepest schedule, squared
        torch.testing.assert_close(getattr(prediction, face), value, rtol=1e-9, atol=1e-9)
    drift, g2 = schedule.drift(t)[:, None], schedule.diffusion_squared(t)[:, None]
    velocity = drift * prediction.x_t - g2 / 2 * faces["score"]
    torch.testing.assert_close(prediction.velocity, velocity, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", [s for s in ALL if s is not CHAIN], ids=name)
def test_the_velocity_is_the_slope_of_the_path_with_x0_and_eps_fixed(schedule):
    x0, eps, t, h = normal(4, 2), normal(4, 2, seed=1), number(0.4), 1e-5
    prediction = Prediction(schedule, q_sample(schedule, x0, t, eps), t, eps)
    later, earlier = q_sample(schedule, x0, t + h, eps), q_sample(schedule, x0, t - h, eps)
    # a central difference errs by h^2 f''' / 6 = 1e-10 x some hundred, and by rounding 1e-16 / h
    torch.testing.assert_close(prediction.velocity, (later - earlier) / (2 * h), rtol=1e-6, atol=1e-6)


def test_another_x0_changes_the_other_faces_with_it():
    t = number(0.5)
    prediction = Prediction(Cosine(), normal(3, 2), t, normal(3, 2, seed=1))
    clipped = prediction.with_x0(prediction.x0.clamp(-0.1, 0.1))
    assert float(clipped.x0.abs().max()) <= 0.1
    alpha, sigma = Cosine().alpha(t), Cosine().sigma(t)
    torch.testing.assert_close(alpha * clipped.x0 + sigma * clipped.eps, prediction.x_t)
