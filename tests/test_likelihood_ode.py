"""The probability-flow route to likelihood: densities that are known, directions, probes, dequantisation, bad input."""

from math import log

import pytest
import torch

from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.data import to_float
from diffusion_edu.denoisers import Denoiser
from diffusion_edu.guidance import classifier_free
from diffusion_edu.likelihood import (
    BIN,
    draw_probes,
    encode,
    exact_divergence,
    hutchinson,
    likelihood_grid,
    noise_dequantise,
    ode_log_likelihood,
    ode_log_likelihoods,
)
from diffusion_edu.networks import MLP
from diffusion_edu.samplers import probability_flow, sample
from diffusion_edu.schedules import Cosine, Flow, LinearBeta, VarianceExploding

MIXTURE = GaussianMixture(
    torch.tensor([[-1.2, 0.3], [0.9, 1.0], [0.4, -1.1]], dtype=torch.float64),
    torch.tensor([0.3, 0.4, 0.25], dtype=torch.float64),
    torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64),
)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def points():
    return MIXTURE.sample(12, seeded(0))


def blurred(schedule, points):
    """The mixture's density, blurred by sigma / alpha at t_min."""
    t = torch.tensor(schedule.t_min, dtype=torch.float64)
    level = schedule.sigma(t) / schedule.alpha(t)
    return GaussianMixture(MIXTURE.means, (MIXTURE.stds**2 + level**2).sqrt(), MIXTURE.weights).log_density(points)


@pytest.mark.parametrize("schedule", [LinearBeta(), Cosine(), Flow(), VarianceExploding(0.01, 30)], ids=str)
def test_a_known_density(schedule, points):
    found = ode_log_likelihood(MIXTURE.denoiser(schedule), points, 60, method="rk4")
    # what is left is the prior in the place of q at t_max: its mean is off by alpha times the data
    torch.testing.assert_close(found, blurred(schedule, points), rtol=0, atol=0.03)


@pytest.mark.parametrize(("method", "expected"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_orders_of_the_log_density(method, expected, points):
    denoiser = MIXTURE.denoiser(LinearBeta())
    fine = ode_log_likelihood(denoiser, points, 240, method="rk4")
    counts = {"euler": (80, 160), "heun": (100, 200), "rk4": (40, 80)}[method]
    a, b = (float((ode_log_likelihood(denoiser, points, n, method=method) - fine).abs().mean()) for n in counts)
    assert log(a / b) / log(2) == pytest.approx(expected, abs=0.35)


def test_adaptive_steps_agree_with_fine_ones(points):
    denoiser, ends = MIXTURE.denoiser(LinearBeta()), likelihood_grid(LinearBeta(), 1)
    adaptive = ode_log_likelihoods(denoiser, points, ends, method="DOP853", rtol=1e-8)[0]
    torch.testing.assert_close(adaptive, ode_log_likelihood(denoiser, points, 120, method="rk4"), rtol=0, atol=1e-4)


def test_probes_average_to_the_exact_divergence(points):
    denoiser, ts = MIXTURE.denoiser(LinearBeta()), likelihood_grid(LinearBeta(), 12)
    four = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 2)  # all sign probes of the plane
    probed = ode_log_likelihoods(denoiser, points, ts, probes=four[:, None].expand(4, 12, 2))
    torch.testing.assert_close(probed.mean(0), ode_log_likelihoods(denoiser, points, ts)[0], rtol=1e-10, atol=1e-10)
    one = ode_log_likelihood(denoiser, points, ts, divergence="hutchinson", generator=seeded(1))
    again = ode_log_likelihood(denoiser, points, ts, divergence="hutchinson", generator=seeded(1))
    assert torch.equal(one, again)
    assert float((one - probed.mean(0)).abs().max()) > 0.01


def test_divergence_of_a_field_on_images():
    weight = torch.randn(9, 9, generator=seeded(2), dtype=torch.float64)
    x = torch.randn(4, 1, 3, 3, generator=seeded(3), dtype=torch.float64)

    def field(x):
        return (x.flatten(1) @ weight.T + x.flatten(1) ** 2 / 2).reshape(x.shape)

    value, divergence = exact_divergence(field, x)
    torch.testing.assert_close(divergence, weight.trace() + x.flatten(1).sum(1))
    torch.testing.assert_close(value, field(x))
    _, estimates = hutchinson(field, x, draw_probes(x, 2000, "rademacher", seeded(4)))
    error = estimates.std(0) / 2000**0.5
    assert bool(((estimates.mean(0) - divergence).abs() < 4.5 * error).all())


def test_probes_have_the_moments_they_promise():
    x = torch.zeros(2000, 5)
    signs, normal = draw_probes(x, 3, "rademacher", seeded(5)), draw_probes(x, 3, "gaussian", seeded(5))
    assert signs.shape == normal.shape == (3, 2000, 5)
    assert set(signs.flatten().tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 0.03
    assert float(normal.var()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("method", ["euler", "heun", "rk4"])
def test_there_and_back(method, points):
    denoiser, errors = MIXTURE.denoiser(LinearBeta()), []
    for steps in (20, 40):
        ts = likelihood_grid(LinearBeta(), steps)
        code = encode(denoiser, points, ts, method=method)
        back = sample(probability_flow(denoiser, code, ts.flip(0), method=method))
        errors.append(float((back - points).square().mean().sqrt()))
    assert errors[1] < errors[0] / {"euler": 1.5, "heun": 3, "rk4": 8}[method]


def test_a_network_answers_too():
    torch.manual_seed(0)
    denoiser = Denoiser(MLP(width=16), LinearBeta(), "eps")
    x = torch.randn(3, 2, generator=seeded(6))
    found = ode_log_likelihood(denoiser, x, 6)
    assert found.shape == (3,) and found.dtype == torch.float32 and not found.requires_grad
    alone = ode_log_likelihood(denoiser, x[:1], 6)
    torch.testing.assert_close(found[:1], alone)


def test_dequantising_by_the_process_is_a_bound_and_nearly_tight_for_little_noise():
    values = torch.arange(256, dtype=torch.uint8)
    P = torch.full((256,), 0.2 / 256, dtype=torch.float64)
    P[0] += 0.8
    schedule, draws = Cosine(), values.repeat(60)[:, None]
    gaps = []
    for t in (torch.tensor(5e-3, dtype=torch.float64), torch.tensor(1e-5, dtype=torch.float64)):
        found, nats = noise_dequantise(schedule, draws, t, seeded(7))
        level = float(schedule.sigma(t) / schedule.alpha(t))
        atoms = GaussianMixture(to_float(values).double()[:, None], level, P)  # the density of x_t / alpha
        bound = (atoms.log_density(found.double()) + nats).reshape(60, 256).mean(0)
        gaps.append(float((P * (P.log() - bound)).sum()))
    assert gaps[0] > gaps[1] > -0.02  # Monte Carlo
    assert gaps[1] < 0.02
    assert BIN == 2 / 255


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d, x: ode_log_likelihood(d, x, torch.tensor([0.9, 0.1])), "increases strictly"),
        (lambda d, x: ode_log_likelihood(d, x, torch.tensor([0.0, 0.9])), r"within \(0, 1\]"),
        (lambda d, x: ode_log_likelihood(d, x, 0), "at least 1 step, got 0"),
        (lambda d, x: ode_log_likelihood(d, x, 4, divergence="trace"), '"exact" or "hutchinson", got \'trace\''),
        (lambda d, x: ode_log_likelihood(d, x, 4, method="midpoint"), "got 'midpoint'"),
        (lambda d, x: hutchinson(lambda x: x, x, x), r"probes \(K, 12, 2\), got \(12, 2\)"),
        (lambda d, x: draw_probes(x, 1, "uniform"), "got 'uniform'"),
        (lambda d, x: draw_probes(x, 0), "at least 1 probe, got 0"),
        (lambda d, x: encode(d, x, torch.tensor([0.5])), "increases strictly"),
    ],
)
def test_bad_input_is_refused(call, message, points):
    with pytest.raises(ValueError, match=message):
        call(MIXTURE.denoiser(LinearBeta()), points)


def test_a_clipped_denoiser_has_no_density():
    denoiser = Denoiser(MLP(width=8), LinearBeta(), "eps", clip=(-1, 1))
    for call in (ode_log_likelihood, lambda d, x, n: encode(d, x, likelihood_grid(d.schedule, n))):
        with pytest.raises(ValueError, match="denoiser.clip = None"):
            call(denoiser, torch.zeros(2, 2), 4)


def test_stored_images_are_no_points():
    images, ts = torch.zeros(2, 2, dtype=torch.uint8), likelihood_grid(LinearBeta(), 4)
    for route in (ode_log_likelihoods, encode):
        with pytest.raises(ValueError, match="dequantise`, got torch.uint8"):
            route(MIXTURE.denoiser(LinearBeta()), images, ts)


def test_a_clipped_denoiser_does_not_hide_behind_guidance():
    denoiser = Denoiser(MLP(dim=2, width=8, depth=1, num_classes=3), Cosine(), clip=(-1, 1))
    with pytest.raises(ValueError, match="clipped"):
        encode(classifier_free(denoiser, 2.0), torch.zeros(2, 2), likelihood_grid(Cosine(), 4), y=torch.zeros(2).long())


def test_noise_dequantisation_with_a_time_for_each_image():
    images, t = torch.arange(16, dtype=torch.uint8).reshape(4, 4) * 16, torch.tensor([1e-3, 0.01, 0.1, 0.3])
    points, nats = noise_dequantise(Cosine(), images, t, seeded(0))
    level = Cosine().sigma(t) / Cosine().alpha(t)
    noise = torch.randn(4, 4, generator=seeded(0))
    torch.testing.assert_close(points, to_float(images) + level[:, None] * noise)
    # far above a grey value's width the sum over values is an integral where no end is near: -log BIN a pixel
    inner = noise_dequantise(Cosine(), torch.full((1, 3), 128, dtype=torch.uint8), t[2], seeded(0))[1]
    assert float(inner) == pytest.approx(3 * log(BIN), abs=1e-4)
    assert nats.shape == (4,)


def test_no_probe_is_no_estimate():
    with pytest.raises(ValueError, match="need probes"):
        hutchinson(lambda x: x, torch.zeros(2, 2), torch.zeros(0, 2, 2))


@pytest.mark.parametrize("y", [None, 1], ids=["all", "one component"])
def test_a_late_start_changes_the_scale_and_labels_choose_the_law(points, y):
    schedule, ts = LinearBeta(), torch.linspace(0.3, 1, 81, dtype=torch.float64)
    level = schedule.sigma(ts[0]) / schedule.alpha(ts[0])
    chosen = slice(None) if y is None else slice(y, y + 1)
    stds = (MIXTURE.stds[chosen] ** 2 + level**2).sqrt()
    wanted = GaussianMixture(MIXTURE.means[chosen], stds, MIXTURE.weights[chosen]).log_density(points)
    labels = None if y is None else torch.full((len(points),), y)
    found = ode_log_likelihood(MIXTURE.denoiser(schedule), points, ts, y=labels, method="rk4")
    # the prior in the place of q at t = 1, as above; without d log alpha the gap would be about 1
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.05)


def test_a_likelihood_grid_may_end_earlier():
    grid = likelihood_grid(Cosine(), 4, 0.5)
    assert grid.shape == (5,) and float(grid[0]) == Cosine().t_min and float(grid[-1]) == 0.5
    gaps = Cosine().log_snr(grid).diff()
    torch.testing.assert_close(gaps, gaps[:1].expand(4))
    for t in (0.0, Cosine().t_min, 1.0):
        with pytest.raises(ValueError, match="t must lie above"):
            likelihood_grid(Cosine(), 4, t)
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        likelihood_grid(Cosine(), 0, 0.5)
