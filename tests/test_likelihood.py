"""The bound: closed forms, limits, true bounds for images, and what it refuses."""

from math import log, pi, sqrt

import pytest
import torch

from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.data import to_float
from diffusion_edu.denoisers import Denoiser
from diffusion_edu.likelihood import (
    BIN,
    best_trajectory,
    bits_per_dim,
    chain_costs,
    decoder_nats,
    dequantise,
    elbo,
    gaussian_kl,
    optimal_variance,
    prior_nats,
    score_norms,
    spread_uniform,
    step_kl,
)
from diffusion_edu.process import Prediction, posterior, q_sample, transition
from diffusion_edu.schedules import Cosine, Flow, LinearBeta, Schedule, VarianceExploding, linear_betas, time_grid

F64 = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixture() -> GaussianMixture:
    means = torch.tensor([[-1.2, 0.3], [0.9, 1.0], [0.4, -1.1]], dtype=F64)
    return GaussianMixture(means, torch.tensor([0.3, 0.4, 0.25]), weights=torch.tensor([0.2, 0.5, 0.3]))


def within(values: torch.Tensor, wanted: float, errors: float = 4) -> bool:
    return abs(float(values.mean()) - wanted) < errors * float(values.std()) / sqrt(len(values))


# --- dequantisation -----------------------------------------------------------------------------------


def test_dequantised_points_stay_in_their_cell():
    images = torch.tensor([[0, 1, 128, 255]], dtype=torch.uint8)
    points = dequantise(images.expand(500, 4), seeded())
    gap = (points - (images / 127.5 - 1)) / BIN
    assert float(gap.abs().max()) <= 0.5 + 1e-4
    assert float(gap.var()) == pytest.approx(1 / 12, rel=0.1)
    assert torch.equal(points, dequantise(images.expand(500, 4), seeded()))


def test_a_uniform_density_over_all_cells_costs_eight_bits():
    nats = torch.tensor(784 * log(256 * BIN))
    assert float(bits_per_dim(nats, 784)) == pytest.approx(8)
    assert float(bits_per_dim(torch.tensor(784 * log(256)), 784, 1)) == pytest.approx(8)


# --- the bound on points ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [None, 1.0])
@pytest.mark.parametrize(
    "schedule", [Cosine(), LinearBeta(), Flow(), VarianceExploding(0.01, 50)], ids=lambda s: type(s).__name__
)
def test_continuous_time_with_the_exact_denoiser_reaches_the_density(schedule, scale):
    x0 = mixture().sample(3000, seeded())
    found = elbo(mixture().denoiser(schedule), x0, generator=seeded(1), draws=16, scale=scale)
    gap = found.total + mixture().log_density(x0)
    # the widest prior and the finest first state still differ a little from their limits
    assert abs(float(gap.mean())) < 4 * float(gap.std()) / sqrt(len(gap)) + 0.02
    assert found.t.shape == found.costs.shape == (3000, 16)
    assert float(found.t.min()) >= schedule.t_min and float(found.t.max()) <= schedule.t_max


@pytest.mark.parametrize("schedule", [Cosine(), LinearBeta(), Flow()], ids=lambda s: type(s).__name__)
def test_finite_chains_are_bounds_and_improve(schedule):
    x0, gaps = mixture().sample(1500, seeded()), []
    for steps in (6, 12, 40):
        found = elbo(mixture().denoiser(schedule), x0, time_grid(schedule, steps, "log_snr")[:-1], generator=seeded(1))
        gap = found.total + mixture().log_density(x0)
        assert float(gap.mean()) > 4 * float(gap.std()) / sqrt(len(gap))
        gaps.append(float(gap.mean()))
    assert gaps[0] > gaps[1] > gaps[2]


def test_a_wrong_denoiser_pays():
    x0, schedule = mixture().sample(2000, seeded()), LinearBeta()
    other = GaussianMixture(mixture().means + 0.3, mixture().stds, mixture().weights)
    right = elbo(mixture().denoiser(schedule), x0, generator=seeded(1)).total
    wrong = elbo(other.denoiser(schedule), x0, generator=seeded(1)).total
    assert float((wrong - right).mean()) > 4 * float((wrong - right).std()) / sqrt(2000)


def test_gaussian_data_in_closed_form():
    c, schedule = 0.6, LinearBeta()
    data = GaussianMixture(torch.zeros(1, 1, dtype=F64), c)
    ts = time_grid(schedule, 9, "log_snr")[:-1]
    found = elbo(data.denoiser(schedule), data.sample(40_000, seeded()), ts, generator=seeded(1))
    snr = schedule.log_snr(ts).exp()
    diffusion = ((snr[1:] - snr[:-1]) * c**2 / (1 + c**2 * snr[:-1])).sum() / 2
    assert within(found.diffusion, float(diffusion))
    assert not within(found.diffusion, 2 * float(diffusion), 40)
    assert within(found.reconstruction, 0.5 * log(2 * pi * 2.718281828459045 / float(snr[-1])))
    alpha2, sigma2 = float(schedule.alpha(ts[0])) ** 2, float(schedule.sigma(ts[0])) ** 2
    assert float(found.prior.mean()) == pytest.approx(
        (alpha2 * c**2 + sigma2 - 1 - log(sigma2)) / 2, rel=0.05, abs=1e-6
    )


def test_a_few_drawn_steps_have_the_mean_of_all():
    schedule, x0 = Cosine(), mixture().sample(8000, seeded())
    ts = time_grid(schedule, 20, "log_snr")[:-1]
    whole = elbo(mixture().denoiser(schedule), x0, ts, generator=seeded(1)).diffusion
    some = elbo(mixture().denoiser(schedule), x0, ts, generator=seeded(2), draws=3)
    assert some.costs.shape == (8000, 3)
    error = sqrt(float(whole.var() + some.diffusion.var()) / 8000)
    assert abs(float(whole.mean() - some.diffusion.mean())) < 4 * error


def test_the_bound_is_deterministic_and_conditional():
    schedule, x0 = Cosine(), mixture().sample(200, seeded())
    denoiser, y = mixture().denoiser(schedule), torch.ones(200, dtype=torch.long)
    first, second = (elbo(denoiser, x0, generator=seeded(1)).total for _ in range(2))
    assert torch.equal(first, second)
    one = GaussianMixture(mixture().means[1:2], mixture().stds[1:2])
    told = elbo(
        denoiser, one.sample(2000, seeded(3)), y=torch.ones(2000, dtype=torch.long), generator=seeded(1), draws=16
    )
    truth = -one.log_density(one.sample(2000, seeded(3)))
    assert within(told.total - truth, 0.0)
    assert len(y) == 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ts": torch.tensor([0.9, 0.5, 0.0])}, r"decrease strictly within \(0, 1\], got \[0.9, 0.5, 0.0\]"),
        ({"ts": torch.tensor([0.1, 0.5])}, "decrease strictly"),
        ({"ts": torch.tensor([0.5])}, "decrease strictly"),
        ({"ends": (0.1, 0.9)}, "decrease strictly"),
        ({"draws": 0}, "draws must be at least 1, got 0"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        elbo(mixture().denoiser(Cosine()), mixture().sample(4, seeded()), **arguments)


# --- images ------------------------------------------------------------------------------------------------


class Constant(torch.nn.Module):
    def forward(self, x, t, y=None):
        return torch.full_like(x, -1.0)


def test_the_decoder_s_probabilities_sum_to_one():
    denoiser, t = Denoiser(Constant(), Cosine(), "x0"), torch.tensor(0.05)
    greys = torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1)
    nats = decoder_nats(denoiser, greys, t, torch.zeros(256, 1, 1, 1), None, 0.5)
    assert float((-nats).exp().sum()) == pytest.approx(1, abs=1e-5)
    # without a network the centre follows the image, and a fine first state says which it was
    sharp = decoder_nats(denoiser, greys, torch.tensor(1e-5), torch.randn(256, 1, 1, 1, generator=seeded()))
    assert float(sharp.max()) < 0.1


def test_images_of_one_grey_value_cost_nothing_but_the_decoder():
    denoiser, images = Denoiser(Constant(), Cosine(), "x0"), torch.zeros(6, 1, 4, 4, dtype=torch.uint8)
    found = elbo(denoiser, images, generator=seeded(), draws=2, scale=0.1)
    assert float(found.diffusion.max()) < 1e-6
    assert float(found.total.max()) < 0.1
    assert float(found.total.min()) >= 0
    assert found.total.dtype == F64


# --- parts ---------------------------------------------------------------------------------------------------


def test_prior_of_ddpm_s_chain_and_of_a_short_one():
    x0 = torch.rand(5, 1, 28, 28, generator=seeded()) * 2 - 1
    t = torch.tensor(1.0)
    long, short = (prior_nats(Schedule.from_betas(linear_betas(n)), x0, t) for n in (1000, 300))
    assert float(long.max()) < 0.1 < 1 < float(short.min())
    alpha, sigma = Cosine().alpha(torch.tensor(0.5)), Cosine().sigma(torch.tensor(0.5))
    left = torch.distributions.Normal(alpha * x0, sigma)
    wanted = torch.distributions.kl_divergence(left, torch.distributions.Normal(0.0, 1.0)).flatten(1).sum(1)
    torch.testing.assert_close(prior_nats(Cosine(), x0, torch.tensor(0.5)).float(), wanted, rtol=1e-4, atol=1e-3)


def test_gaussian_kl_against_torch():
    m1, m2, l1, l2 = torch.randn(4, 50, generator=seeded(), dtype=F64)
    left, right = (torch.distributions.Normal(m, (v / 2).exp()) for m, v in ((m1, l1), (m2, l2)))
    torch.testing.assert_close(gaussian_kl(m1, l1, m2, l2), torch.distributions.kl_divergence(left, right))


def test_step_kl_with_the_posterior_s_variance_is_half_the_drop_of_snr():
    schedule, t, s = Cosine(), torch.tensor([0.5, 0.8], dtype=F64), torch.tensor([0.4, 0.75], dtype=F64)
    x0, eps = torch.randn(2, 2, 3, generator=seeded(), dtype=F64)
    x_t = q_sample(schedule, x0, t, eps)
    guess = Prediction(schedule, x_t, t, x0 + 0.3, "x0")
    _, std = posterior(schedule, x0, x_t, t, s)
    drop = (schedule.log_snr(s).exp() - schedule.log_snr(t).exp()) / 2
    torch.testing.assert_close(step_kl(guess, x0, s, 2 * std.log()[:, None]).sum(1), drop * 3 * 0.3**2)
    large = transition(schedule, t, s)[1].log()[:, None]
    assert bool((step_kl(Prediction(schedule, x_t, t, x0, "x0"), x0, s, large) > 0).all())


def test_spread_uniform_fills_its_cells():
    u = spread_uniform(10, 4, seeded())
    assert u.shape == (10, 4)
    assert torch.equal((u * 4).long(), torch.arange(4).expand(10, 4))
    assert torch.equal(((u * 40).long() % 40).flatten().sort().values, torch.arange(40))


@pytest.mark.parametrize("images", [False, True], ids=["points", "images"])
@pytest.mark.parametrize("scale", [None, 0.7])
def test_the_decoder_takes_a_time_for_each_row(images, scale):
    denoiser, t = Denoiser(Constant(), Cosine(), "x0"), torch.tensor([0.01, 0.1, 0.3, 0.5])
    x0 = torch.arange(16, dtype=torch.uint8).reshape(4, 4) * 16  # as many rows as columns: no slip can hide
    x0 = x0 if images else to_float(x0)
    eps = torch.randn(4, 4, generator=seeded())
    rows = [decoder_nats(denoiser, x0[i : i + 1], t[i], eps[i : i + 1], None, scale) for i in range(4)]
    torch.testing.assert_close(decoder_nats(denoiser, x0, t, eps, None, scale), torch.cat(rows), rtol=1e-6, atol=1e-6)


def test_labels_reach_every_term_of_the_bound():
    denoiser, y = mixture().denoiser(Cosine()), torch.tensor([0, 1, 2, 1, 0])
    asked = []

    def listening(x_t, t, y=None):
        asked.append(y)
        return denoiser(x_t, t, y)

    listening.schedule = denoiser.schedule
    elbo(listening, mixture().sample(5, seeded()), y=y, generator=seeded(1), draws=3, scale=1.0)
    assert len(asked) == 4 and all(each is y for each in asked)


def test_more_mistakes_are_named():
    denoiser, points = mixture().denoiser(Cosine()), torch.zeros(2, 2)
    with pytest.raises(ValueError, match="scale must be above 0, or None, got 0"):
        elbo(denoiser, points, scale=0.0)
    with pytest.raises(ValueError, match="floating-point points or uint8 images, got torch.int64"):
        elbo(denoiser, points.long())
    with pytest.raises(ValueError, match="give ts or ends, not both"):
        elbo(denoiser, points, torch.tensor([0.9, 0.1]), ends=(0.9, 0.1))
    with pytest.raises(ValueError, match="decrease strictly"):
        elbo(denoiser, points, ends=(0.1, 0.9))


def test_the_decoder_s_bell_has_the_width_that_it_says():
    denoiser, t = Denoiser(Constant(), Cosine(), "x0"), torch.tensor(0.3, dtype=F64)
    greys = torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1)
    p = (-decoder_nats(denoiser, greys, t, torch.zeros(256, 1, 1, 1), None, 0.2)).exp()
    # half a bell over the values from the centre, -1, on: E x^2 is its variance
    deviation = 0.2 * float(Cosine().sigma(t) / Cosine().alpha(t))
    square = float((p * (to_float(greys).flatten() + 1) ** 2).sum())
    assert sqrt(square) == pytest.approx(deviation, rel=0.05)  # the first value counts whole: half a bin too much


# the best variance and the best times


def test_optimal_variance_lies_between_its_bounds_and_is_clipped():
    ts = time_grid(Cosine(), 6)
    t, s = ts[:-1], ts[1:]
    own = transition(Cosine(), t, s)[1] * Cosine().sigma(s) ** 2 / Cosine().sigma(t) ** 2
    weight = Cosine().alpha(s) * transition(Cosine(), t, s)[1] / Cosine().sigma(t) ** 2
    certain = optimal_variance(Cosine(), ts, 2 / Cosine().sigma(t) ** 2)  # a norm that no score can have
    torch.testing.assert_close(certain, own)
    most = (Cosine().sigma(t) ** 2 / Cosine().alpha(t) ** 2).clamp(max=0.25)  # nothing known about eps, nor about x_0
    torch.testing.assert_close(optimal_variance(Cosine(), ts, torch.zeros(6), bound=0.25), own + weight**2 * most)


def test_score_norms_use_the_labels_and_the_generator():
    denoiser = GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), 0.3).denoiser(Cosine())
    x0, ts = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.tensor([0.9, 0.5])
    y = torch.tensor([0, 1])

    def norms(labels, seed=0):
        return score_norms(denoiser, x0, ts, labels, torch.Generator().manual_seed(seed))

    assert torch.equal(norms(y), norms(y)) and not torch.equal(norms(y), norms(y, 1))
    assert not torch.equal(norms(y), norms(None))


def test_score_norms_have_one_noise_for_all_times_and_the_range_of_stored_images():
    shown = []

    def denoiser(x, t, y=None):
        shown.append((x, t))
        return Prediction(Cosine(), x, t, x, "score")

    denoiser.schedule = Cosine()
    images, ts = torch.randint(0, 256, (3, 1, 2, 2), dtype=torch.uint8), torch.tensor([0.8, 0.4])
    score_norms(denoiser, images, ts)
    noises = [(x - Cosine().alpha(t) * to_float(images)) / Cosine().sigma(t) for x, t in shown]
    torch.testing.assert_close(noises[0], noises[1])


def test_costs_belong_to_the_time_that_a_step_starts_from_and_standing_still_is_no_step():
    ts, errors = torch.tensor([0.9, 0.5, 0.2]), torch.tensor([3.0, 2.0, 1.0])
    snr = Cosine().log_snr(ts.double()).exp()
    for variance in ("small", "optimal"):
        costs = chain_costs(Cosine(), ts, errors, 2, variance)
        assert costs.isinf().tolist() == [[True, False, False], [True, True, False], [True, True, True]]
        assert float(costs[0, 2] - costs[0, 1]) > 0
    assert float(chain_costs(Cosine(), ts, errors, 2)[1, 2]) == pytest.approx(2.0 * float(snr[2] - snr[1]) / 2)


def test_a_way_with_every_state_costs_what_it_costs():
    costs = torch.tensor([[torch.inf, 1, 5], [torch.inf, torch.inf, 1], [torch.inf] * 3])
    for steps, states, cost in ((1, [0, 2], 5.0), (2, [0, 1, 2], 2.0)):
        found, total = best_trajectory(costs, steps)
        assert found.tolist() == states and float(total) == cost


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optimal_variance(Cosine(), torch.tensor([0.5, 0.1]), torch.ones(2)), "each of the 1 steps"),
        (
            lambda: optimal_variance(Cosine(), torch.tensor([0.5, 0.1]), torch.ones(1), bound=0.0),
            "bound must be above 0",
        ),
        (lambda: chain_costs(Cosine(), torch.tensor([0.5, 0.1]), torch.ones(2), 2, "large"), "got 'large'"),
        (lambda: best_trajectory(torch.ones(3, 3), 3), r"more than 3 states, got \(3, 3\)"),
        (lambda: best_trajectory(torch.ones(3, 2), 1), r"square matrix"),
        (lambda: best_trajectory(torch.full((3, 3), torch.inf), 2), "no way of 2 steps"),
    ],
)
def test_bad_chains_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
