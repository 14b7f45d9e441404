"""Schedules: closed forms against autograd and 50-digit arithmetic, DDPM's chain, time grids, bad arguments."""

import mpmath
import pytest
import torch

from diffusion_edu.schedules import (
    SCHEDULES,
    Cosine,
    DiscreteBetas,
    Flow,
    LinearBeta,
    OrnsteinUhlenbeck,
    Schedule,
    Sigmoid,
    SubVariancePreserving,
    VarianceExploding,
    VariancePreserving,
    derivative,
    linear_betas,
    make_schedule,
    time_at_log_snr,
    time_grid,
)

CHAIN = Schedule.from_betas(linear_betas())
PRESERVING = [
    LinearBeta(),
    LinearBeta(0, 5),
    LinearBeta(3, 3),
    Cosine(),
    Cosine(0),
    Sigmoid(),
    Sigmoid(0, 3, 0.7),
    OrnsteinUhlenbeck(),
    OrnsteinUhlenbeck(2.0),
    CHAIN,
]
ALL = [
    *PRESERVING,
    VarianceExploding(),
    VarianceExploding(0.1, 5),
    Flow(),
    SubVariancePreserving(),
    SubVariancePreserving(1, 9),
]


def name(schedule):
    return type(schedule).__name__


def inner_times(schedule, count=41):
    """Times inside (0, 1); for the chain the middles between its knots, where it has a derivative."""
    t = torch.linspace(0.01, 0.99, count, dtype=torch.float64)
    return ((t * 1000).floor() + 0.5) / 1000 if isinstance(schedule, DiscreteBetas) else t


@pytest.mark.parametrize("schedule", ALL, ids=name)
def test_closed_form_coefficients_are_the_derivatives_of_alpha_and_sigma(schedule):
    t = inner_times(schedule)
    drift = derivative(lambda u: schedule.alpha(u).log(), t)
    variance_slope = derivative(lambda u: schedule.sigma(u) ** 2, t)
    # 1e-10: float64 rounding, times the 1 / (1 - t) = 100 by which a logarithm near its zero magnifies it
    torch.testing.assert_close(schedule.drift(t), drift, rtol=1e-10, atol=1e-10)
    g2 = variance_slope - 2 * drift * schedule.sigma(t) ** 2
    torch.testing.assert_close(schedule.diffusion_squared(t), g2, rtol=1e-10, atol=1e-10)
    assert bool((schedule.diffusion_squared(t) > 0).all())


@pytest.mark.parametrize("schedule", ALL, ids=name)
def test_the_base_class_finds_both_coefficients_alone(schedule):
    t = inner_times(schedule, 9)
    torch.testing.assert_close(Schedule.drift(schedule, t), schedule.drift(t), rtol=1e-10, atol=1e-10)
    g2 = Schedule.diffusion_squared(schedule, t)
    torch.testing.assert_close(g2, schedule.diffusion_squared(t), rtol=1e-10, atol=1e-10)


def test_a_schedule_needs_only_alpha_and_sigma():
    class Circle(Schedule):
        def alpha(self, t):
            return (t * torch.pi / 2).cos()

        def sigma(self, t):
            return (t * torch.pi / 2).sin()

    t = torch.tensor([0.25, 0.5], dtype=torch.float64)
    torch.testing.assert_close(Circle().drift(t), -torch.pi / 2 * (t * torch.pi / 2).tan())
    torch.testing.assert_close(Circle().diffusion_squared(t), torch.pi * (t * torch.pi / 2).tan())


@pytest.mark.parametrize("schedule", PRESERVING, ids=name)
def test_variance_is_preserved(schedule):
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    whole = schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2
    torch.testing.assert_close(whole, torch.ones_like(t), rtol=0, atol=1e-14)  # float64 rounding


@pytest.mark.parametrize("schedule", ALL, ids=name)
def test_data_at_0_and_more_noise_the_later(schedule):
    zero = torch.zeros((), dtype=torch.float64)
    assert schedule.alpha(zero) == pytest.approx(1, abs=1e-15)
    assert schedule.sigma(zero) == 0
    t = torch.linspace(schedule.t_min, schedule.t_max, 301, dtype=torch.float64)
    log_snr = schedule.log_snr(t)
    assert bool(log_snr.isfinite().all())
    assert bool((log_snr.diff() < 0).all())
    torch.testing.assert_close(log_snr, 2 * (schedule.alpha(t) / schedule.sigma(t)).log())


@pytest.mark.parametrize("schedule", ALL, ids=name)
def test_both_conversions_are_finite_in_float32_between_t_min_and_t_max(schedule):
    t = torch.tensor([schedule.t_min, schedule.t_max])
    assert bool((schedule.alpha(t) > 1e-4).all())
    assert bool((schedule.sigma(t) > 1e-4).all())
    # the same to float32 rounding as in float64: no cancellation on the way
    for coefficient in (schedule.alpha, schedule.sigma):
        torch.testing.assert_close(coefficient(t).double(), coefficient(t.double()), rtol=2e-5, atol=1e-7)


def exact_alpha_bar(schedule, t):
    """alpha^2 with 50 digits."""
    mp = mpmath.mp
    t = mp.mpf(t)
    if isinstance(schedule, LinearBeta):
        low, high = mp.mpf(schedule.beta_min), mp.mpf(schedule.beta_max)
        return mp.exp(-low * t - (high - low) * t**2 / 2)
    if isinstance(schedule, Cosine):
        s = mp.mpf(schedule.s)
        return (mp.cos((t + s) / (1 + s) * mp.pi / 2) / mp.cos(s / (1 + s) * mp.pi / 2)) ** 2
    if isinstance(schedule, Sigmoid):
        start, end, tau = mp.mpf(schedule.start), mp.mpf(schedule.end), mp.mpf(schedule.tau)

        def logistic(u):
            return 1 / (1 + mp.exp(-(start + u * (end - start)) / tau))

        return (logistic(1) - logistic(t)) / (logistic(1) - logistic(0))
    return mp.exp(-2 * mp.mpf(schedule.horizon) * t)


@pytest.mark.parametrize("schedule", PRESERVING[:-1], ids=name)
@pytest.mark.parametrize("t", [1e-12, 1e-7, 1e-3, 0.5, 0.97])
def test_alpha_and_sigma_lose_no_digits(schedule, t):
    with mpmath.workdps(50):
        alpha_bar = exact_alpha_bar(schedule, t)
        alpha, sigma = float(mpmath.sqrt(alpha_bar)), float(mpmath.sqrt(1 - alpha_bar))
    time = torch.tensor(t, dtype=torch.float64)
    # 1e-13: some dozen roundings; 1 - alpha^2 computed plainly would be off by 1e-5 at t = 1e-12
    assert float(schedule.sigma(time)) == pytest.approx(sigma, rel=1e-13)
    assert float(schedule.alpha(time)) == pytest.approx(alpha, rel=1e-13)


def test_variance_exploding_and_flow_by_their_formulas():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    schedule = VarianceExploding(0.1, 5)
    torch.testing.assert_close(schedule.sigma(t) ** 2, 0.1**2 * ((5 / 0.1) ** (2 * t) - 1), rtol=1e-12, atol=1e-15)
    assert torch.equal(schedule.alpha(t), torch.ones_like(t))
    assert torch.equal(Flow().alpha(t), 1 - t)
    assert torch.equal(Flow().sigma(t), t)


@pytest.mark.parametrize("schedule", ALL, ids=name)
def test_shape_and_type_follow_the_times(schedule):
    for t in (torch.tensor(0.5), torch.full((3,), 0.5), torch.full((2, 3), 0.5, dtype=torch.float64)):
        for f in (schedule.alpha, schedule.sigma, schedule.log_snr, schedule.drift, schedule.diffusion_squared):
            assert f(t).shape == t.shape
            assert f(t).dtype == t.dtype


def test_sub_variance_preserving_by_its_formulas():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    schedule, parent = SubVariancePreserving(0.5, 8), LinearBeta(0.5, 8)
    torch.testing.assert_close(schedule.alpha(t), parent.alpha(t), rtol=0, atol=0)
    torch.testing.assert_close(schedule.sigma(t), parent.sigma(t) ** 2, rtol=1e-14, atol=0)
    assert bool((schedule.sigma(t)[1:] < parent.sigma(t)[1:]).all()), "less noise than its parent at every t"
    torch.testing.assert_close(schedule.diffusion_squared(t), parent.beta(t) * (1 - parent.alpha(t) ** 4))
    assert not isinstance(schedule, VariancePreserving)


@pytest.mark.parametrize("schedule", [SubVariancePreserving(), LinearBeta(), VarianceExploding(0.1, 5)], ids=name)
def test_the_variance_is_the_integral_of_what_g_puts_in(schedule):
    # sigma(t)^2 = alpha(t)^2 times the integral of g^2 / alpha^2: the solution of dx = f x dt + g dW, by quadrature
    edges = torch.linspace(0, 0.7, 20_001, dtype=torch.float64)
    middle = (edges[1:] + edges[:-1]) / 2
    integral = (schedule.diffusion_squared(middle) / schedule.alpha(middle) ** 2 * edges.diff()).sum()
    variance = schedule.alpha(edges[-1]) ** 2 * integral
    assert float(variance) == pytest.approx(float(schedule.sigma(edges[-1]) ** 2), rel=1e-6)  # cells of 3.5e-5


# DDPM's chain


def test_the_betas_of_ddpm():
    betas = linear_betas()
    assert betas.shape == (1000,)
    assert betas.dtype == torch.float64
    assert (float(betas[0]), float(betas[-1])) == (1e-4, 0.02)
    torch.testing.assert_close(
        betas.diff(), torch.full((999,), (0.02 - 1e-4) / 999, dtype=torch.float64), rtol=1e-9, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_chain_is_reproduced_at_every_step(dtype):
    betas = linear_betas()
    alpha_bar = torch.cumprod(1 - betas, 0)
    t = torch.arange(1, 1001).to(dtype) / 1000
    # 1e-12: a product and a sum of logarithms of 1000 terms round differently; in float32 log alpha = -5 costs 5 x 6e-8
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    torch.testing.assert_close(CHAIN.alpha(t).double() ** 2, alpha_bar, rtol=tolerance, atol=0)
    rate = -1000 * torch.log1p(-betas)
    torch.testing.assert_close(CHAIN.beta(t).double(), rate, rtol=tolerance, atol=0)  # the knot has its own step's rate
    assert CHAIN.steps == 1000
    assert CHAIN.t_min == 1 / 1000


def test_between_two_knots_log_alpha_is_linear():
    chain = Schedule.from_betas([0.1, 0.3])
    t = torch.tensor([0.25, 0.75], dtype=torch.float64)
    wanted = torch.tensor([0.9**0.5, 0.9 * 0.7**0.5], dtype=torch.float64).sqrt()
    torch.testing.assert_close(chain.alpha(t), wanted, rtol=1e-14, atol=0)


def test_the_paper_chain_tends_to_the_linear_beta_schedule():
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    limit = LinearBeta(0.1, 20.0)
    errors = []
    for steps in (1000, 2000, 4000):
        chain = Schedule.from_betas(linear_betas(steps, 0.1 / steps, 20 / steps))
        errors.append(float((chain.alpha(t) - limit.alpha(t)).abs().max()))
    # the difference of the two is of order 1 / T: it halves when T doubles, within the next order's 10 %
    assert errors[0] < 0.01
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.1)
    ends = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(limit.beta(ends), torch.tensor([0.1, 10.05, 20.0], dtype=torch.float64))


# time grids


@pytest.mark.parametrize("schedule", ALL, ids=name)
@pytest.mark.parametrize("spacing", ["uniform", "log_snr", "edm"])
@pytest.mark.parametrize("steps", [1, 2, 25])
def test_a_grid_falls_from_t_max_to_0(schedule, spacing, steps):
    grid = time_grid(schedule, steps, spacing)
    assert grid.shape == (steps + 1,)
    assert grid.dtype == torch.float64
    assert bool((grid.diff() < 0).all())
    # the chain is flat within 1e-7 of a knot, so there the search ends a little early
    assert float(grid[0]) == pytest.approx(schedule.t_max, abs=2e-7 if schedule is CHAIN else 1e-12)
    assert grid[-1] == 0


def test_the_uniform_grid_is_uniform():
    grid = time_grid(Cosine(), 5)
    torch.testing.assert_close(grid, 0.995 * torch.arange(5, -1, -1, dtype=torch.float64) / 5)


@pytest.mark.parametrize("schedule", [s for s in ALL if s is not CHAIN], ids=name)
def test_the_log_snr_grid_is_uniform_in_log_snr(schedule):
    log_snr = schedule.log_snr(time_grid(schedule, 9, "log_snr")[:-1])
    steps = log_snr.diff()
    torch.testing.assert_close(steps, steps.mean().expand(8), rtol=1e-6, atol=1e-6)  # times rounded to 2^-53
    t_min = torch.tensor(schedule.t_min, dtype=torch.float64)
    assert float(log_snr[-1]) == pytest.approx(float(schedule.log_snr(t_min)), abs=1e-6)


def test_a_time_is_found_from_its_log_snr():
    t = torch.tensor([0.01, 0.3, 0.99], dtype=torch.float64)
    torch.testing.assert_close(time_at_log_snr(LinearBeta(), LinearBeta().log_snr(t)), t, rtol=1e-12, atol=1e-14)


# names and bad arguments


@pytest.mark.parametrize("known", [n for n in SCHEDULES if n != "DiscreteBetas"])
def test_schedules_are_found_by_name(known):
    assert make_schedule(known) == SCHEDULES[known]()


def test_arguments_reach_the_schedule_and_lists_become_tuples():
    assert make_schedule("LinearBeta", beta_min=1, beta_max=2) == LinearBeta(1, 2)
    assert make_schedule("DiscreteBetas", betas=[0.1, 0.2]) == Schedule.from_betas([0.1, 0.2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Schedule.from_betas([0.1, 1.0]), r"\[0, 1\), got 1.0"),
        (lambda: Schedule.from_betas([-0.1]), r"\[0, 1\), got -0.1"),
        (lambda: Schedule.from_betas([float("nan")]), r"\[0, 1\), got nan"),
        (lambda: Schedule.from_betas([]), "non-empty"),
        (lambda: LinearBeta(-1, 2), "got -1 and 2"),
        (lambda: LinearBeta(3, 2), "got 3 and 2"),
        (lambda: LinearBeta(0, 0), "beta_max > 0"),
        (lambda: SubVariancePreserving(3, 2), "got 3 and 2"),
        (lambda: Cosine(1.0), r"\[0, 1\), got 1.0"),
        (lambda: Cosine(-0.1), "got -0.1"),
        (lambda: Sigmoid(3, -3), "start < end"),
        (lambda: Sigmoid(tau=0), "tau > 0"),
        (lambda: OrnsteinUhlenbeck(0), "positive, got 0"),
        (lambda: VarianceExploding(0, 1), "got 0 and 1"),
        (lambda: VarianceExploding(2, 1), "got 2 and 1"),
        (lambda: linear_betas(0), "at least 1 step, got 0"),
        (lambda: time_grid(Cosine(), 0), "at least 1 step, got 0"),
        (lambda: time_grid(Cosine(), 5, "karras"), "got 'karras'"),
        (lambda: make_schedule("Linear"), "unknown schedule 'Linear'; known: LinearBeta"),
        (lambda: make_schedule("DiscreteBetas"), "betas"),
        (lambda: make_schedule("Cosine", beta=1), "beta"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_times_beyond_the_usual_ends_are_found_when_asked_for():
    t = torch.tensor([0.3, 0.998], dtype=torch.float64)
    torch.testing.assert_close(time_at_log_snr(Cosine(), Cosine().log_snr(t), ends=(0.1, 1.0)), t)
    assert float(time_at_log_snr(Cosine(), Cosine().log_snr(t))[1]) == pytest.approx(Cosine().t_max)
