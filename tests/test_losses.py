"""Losses: what each target asks for, the weights between them, times and dropped labels."""

import pytest
import torch
from torch import nn

from diffusion_edu.denoisers import Denoiser
from diffusion_edu.losses import (
    denoising_loss,
    denoising_score_matching,
    drop_labels,
    explicit_score_matching,
    hybrid_loss,
    implicit_score_matching,
    interpolated_log_variance,
    loss_weight,
    sliced_score_matching,
    spread_times,
    target_value,
    variance_loss,
)
from diffusion_edu.process import TARGETS, Prediction, q_sample
from diffusion_edu.schedules import Cosine, Flow, LinearBeta, Schedule, VarianceExploding, derivative, linear_betas

SCHEDULES = [LinearBeta(), Cosine(), Flow(), VarianceExploding(0.1, 5)]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Constant(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, t, y=None):
        return self.answer.expand_as(x)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("target", TARGETS)
def test_the_wanted_value_is_that_face_of_the_true_noise(schedule, target):
    x0, eps, t = normal(3, 2), normal(3, 2, seed=1), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    truth = Prediction(schedule, q_sample(schedule, x0, t, eps), t, eps)
    wanted = target_value(schedule, x0, t, eps, target)
    torch.testing.assert_close(wanted, getattr(truth, target), rtol=1e-10, atol=1e-10)
    denoiser = Denoiser(Constant(wanted), schedule, target)
    torch.testing.assert_close(denoising_loss(denoiser, x0, t, eps), torch.zeros(3, dtype=torch.float64))


def test_the_simple_loss_by_hand():
    x0, eps, t = normal(3, 1, 2, 2), normal(3, 1, 2, 2, seed=1), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    loss = denoising_loss(Denoiser(Constant(torch.tensor(0.5)), Cosine()), x0, t, eps)
    assert loss.shape == (3,)
    for i in range(3):
        assert float(loss[i]) == pytest.approx(float(((0.5 - eps[i]) ** 2).mean()))


def test_the_v_loss_weighs_the_error_in_eps_by_1_over_alpha_squared():
    x0, eps, t = normal(3, 2), normal(3, 2, seed=1), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    schedule, eps_hat = Cosine(), normal(3, 2, seed=2)
    x_t = q_sample(schedule, x0, t, eps)
    v_hat = Prediction(schedule, x_t, t, eps_hat).v
    loss = denoising_loss(Denoiser(Constant(v_hat), schedule, "v"), x0, t, eps)
    simple = denoising_loss(Denoiser(Constant(eps_hat), schedule, "eps"), x0, t, eps)
    torch.testing.assert_close(loss, simple / schedule.alpha(t) ** 2)


# weights


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_a_weight_asks_the_same_of_x0_whatever_the_target(schedule):
    """The weighted losses of one and the same belief about x_0, told as each target in turn, against the papers' forms."""
    x0, eps, guess = normal(4, 2), normal(4, 2, seed=1), normal(4, 2, seed=2)
    t = torch.tensor([0.1, 0.4, 0.7, 0.9], dtype=torch.float64)
    snr, speed = schedule.log_snr(t).exp(), -derivative(schedule.log_snr, t)
    x_t = q_sample(schedule, x0, t, eps)
    belief = Prediction(schedule, x_t, t, guess, "x0")
    error_x0, error_eps = (each.square().mean(1) for each in (guess - x0, belief.eps - eps))
    wanted = {
        "min-snr": snr.minimum(torch.tensor(5.0)) * error_x0,
        "sigmoid": speed / (1 + (schedule.log_snr(t) - 2).exp()) * error_eps,
    }
    for target in TARGETS:
        loss = denoising_loss(Denoiser(Constant(getattr(belief, target)), schedule, target), x0, t, eps)
        assert torch.equal(loss_weight(schedule, t, target), torch.ones(4, dtype=torch.float64))
        for weight, value in wanted.items():
            torch.testing.assert_close(loss * loss_weight(schedule, t, target, weight), value, rtol=1e-7, atol=0)


def test_min_snr_as_hang_and_others_list_it():
    t, schedule = torch.tensor([0.05, 0.2, 0.5, 0.9], dtype=torch.float64), Cosine()
    snr = schedule.log_snr(t).exp()
    assert bool((snr > 5).any() and (snr < 5).any())
    small = snr.clamp(max=5)
    for target, wanted in (("x0", small), ("eps", small / snr), ("v", small / (snr + 1))):
        torch.testing.assert_close(loss_weight(schedule, t, target, "min-snr"), wanted)


def test_an_unknown_weight_is_refused():
    with pytest.raises(ValueError, match="unknown weight 'p2'; known: simple, min-snr, sigmoid"):
        loss_weight(Cosine(), torch.tensor([0.5]), "v", "p2")


def test_edm_asks_for_a_value_of_unit_variance_at_every_level():
    """For data of deviation 0.5, which is what its coefficients are made for (Karras et al. 2022, App. B.6)."""
    x0, eps, schedule = 0.5 * normal(100_000, 1), normal(100_000, 1, seed=1), VarianceExploding(0.1, 5)
    for t in (0.05, 0.5, 0.95):
        wanted = target_value(schedule, x0, torch.full((100_000,), t, dtype=torch.float64), eps, "edm")
        assert float(wanted.var()) == pytest.approx(1, abs=5 * (2 / 100_000) ** 0.5)  # five errors of a variance


def test_the_loss_is_that_of_the_raw_output_not_of_the_clipped():
    x0, eps, t = normal(3, 2), normal(3, 2, seed=1), torch.full((3,), 0.5, dtype=torch.float64)
    clipped = Denoiser(Constant(torch.tensor(3.0)), Cosine(), "eps", clip=(-1, 1))
    loss = denoising_loss(clipped, x0, t, eps)
    torch.testing.assert_close(loss, (3 - eps).square().mean(1))


def test_the_labels_reach_the_network():
    class Labels(nn.Module):
        def forward(self, x, t, y=None):
            return y[:, None].expand_as(x).double()

    eps, y = torch.zeros(3, 2, dtype=torch.float64), torch.tensor([1, 2, 3])
    loss = denoising_loss(Denoiser(Labels(), Cosine()), normal(3, 2), torch.full((3,), 0.5), eps, y)
    assert loss.tolist() == [1, 4, 9]


@pytest.mark.parametrize("schedule", [*SCHEDULES, Schedule.from_betas(linear_betas())], ids=lambda s: type(s).__name__)
def test_training_times_lie_one_in_each_cell(schedule):
    for seed in range(20):
        t = spread_times(schedule, 16, torch.Generator().manual_seed(seed))
        assert t.shape == (16,)
        assert t.dtype == torch.float32
        u = (t.double() - schedule.t_min) / (schedule.t_max - schedule.t_min)
        assert float(u.min()) >= -1e-6
        assert float(u.max()) <= 1 + 1e-6
        gaps = u.sort().values.diff()
        torch.testing.assert_close(gaps, torch.full((15,), 1 / 16, dtype=torch.float64), rtol=0, atol=1e-5)


def test_each_training_time_is_uniform():
    g = torch.Generator().manual_seed(0)
    first = torch.stack([spread_times(LinearBeta(), 4, g)[2] for _ in range(4000)])
    low, high = LinearBeta.t_min, LinearBeta.t_max
    # five standard errors of the mean of a uniform number, (high - low) / sqrt(12)
    assert float(first.mean()) == pytest.approx((low + high) / 2, abs=5 * (high - low) / (12 * 4000) ** 0.5)
    assert float(first.std()) == pytest.approx((high - low) / 12**0.5, rel=0.05)


def test_labels_are_dropped_as_often_as_asked():
    y = torch.arange(10).repeat(2000)
    dropped = drop_labels(y, 10, 0.1, torch.Generator().manual_seed(0))
    changed = dropped != y
    assert bool((dropped[changed] == 10).all())
    # five standard errors of a binomial share
    assert float(changed.double().mean()) == pytest.approx(0.1, abs=5 * (0.09 / 20_000) ** 0.5)
    assert torch.equal(drop_labels(y, 10, 0.0), y)
    assert bool((drop_labels(y, 10, 1.0) == 10).all())


# score matching


def linear_model(a: float, d: int):
    """s(x) = -a x, and what the losses average to on N(0, c^2 I) data, in closed form."""

    def implicit(c2: float) -> float:
        return d * (a**2 * c2 / 2 - a)

    return (lambda x: -a * x), implicit


SCORE_LOSSES = {
    "explicit": lambda f, x: explicit_score_matching(f, lambda z: -z, x),
    "implicit": implicit_score_matching,
    "sliced": lambda f, x: sliced_score_matching(f, x, torch.ones(2, *x.shape, dtype=x.dtype)),
    "denoising": lambda f, x: denoising_score_matching(f, x, 0.5, torch.ones_like(x)),
}


@pytest.mark.parametrize("shape", [(6, 3), (6, 1, 2, 2)])
def test_score_losses_point_by_point(shape):
    x, eps, v = normal(*shape), normal(*shape, seed=1), normal(2, *shape, seed=2)
    d, flat = x[0].numel(), x.flatten(1)
    score, _ = linear_model(0.7, d)
    squares = flat.square().sum(1)
    torch.testing.assert_close(explicit_score_matching(score, lambda z: -z, x), 0.3**2 * squares / 2)
    torch.testing.assert_close(implicit_score_matching(score, x), 0.49 * squares / 2 - 0.7 * d)
    along, lengths = (v.flatten(2) * flat).sum(2), v.flatten(2).square().sum(2)
    torch.testing.assert_close(sliced_score_matching(score, x, v), (0.49 * along**2 / 2 - 0.7 * lengths).mean(0))
    gap = -0.7 * (x + 0.5 * eps) + eps / 0.5
    torch.testing.assert_close(denoising_score_matching(score, x, 0.5, eps), gap.flatten(1).square().sum(1) / 2)


def test_score_losses_of_gaussian_data_and_the_linear_minimiser():
    c2, n, sigma = 0.64, 100_000, 0.5
    x, eps = 0.8 * normal(n, 2), normal(n, 2, seed=1)
    signs = normal(1, n, 2, seed=2).sign()

    def agree(losses, wanted):
        losses = losses.detach()
        assert abs(float(losses.mean()) - wanted) < 4 * float(losses.std()) / n**0.5 + 1e-12

    for a in (0.5, 1 / c2, 2.5):
        score, implicit = linear_model(a, 2)
        agree(implicit_score_matching(score, x), implicit(c2))
        agree(sliced_score_matching(score, x, signs), implicit(c2))
        agree(explicit_score_matching(score, lambda z: -z / c2, x), c2 * (a - 1 / c2) ** 2)
        agree(denoising_score_matching(score, x, sigma, eps), a**2 * (c2 + sigma**2) - 2 * a + 1 / sigma**2)
    a = torch.linspace(0.1, 4, 3901, dtype=torch.float64)  # where each parabola is lowest
    assert float(a[(a**2 * c2 / 2 - a).argmin()]) == pytest.approx(1 / c2, abs=1e-3)
    assert float(a[(a**2 * (c2 + sigma**2) - 2 * a).argmin()]) == pytest.approx(1 / (c2 + sigma**2), abs=1e-3)


def test_one_data_point_at_zero_has_the_score_minus_x_over_sigma_squared():
    x, eps = torch.zeros(5, 3, dtype=torch.float64), normal(5, 3)
    for sigma in (0.3, torch.linspace(0.1, 2, 5, dtype=torch.float64)):
        square = torch.as_tensor(sigma, dtype=torch.float64).reshape(-1, 1) ** 2
        loss = denoising_score_matching(lambda z, square=square: -z / square, x, sigma, eps)
        torch.testing.assert_close(loss, torch.zeros(5, dtype=torch.float64), atol=1e-25, rtol=0)
        assert float(denoising_score_matching(lambda z, square=square: z / square, x, sigma, eps).min()) > 0.1


def test_all_sign_vectors_together_are_the_exact_divergence():
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x = normal(4, 3)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    sliced = sliced_score_matching(net, x, signs[:, None].expand(8, 4, 3))
    torch.testing.assert_close(sliced, implicit_score_matching(net, x))


@pytest.mark.parametrize("name", SCORE_LOSSES)
def test_score_losses_reach_the_parameters_and_leave_the_data_alone(name):
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    x = normal(4, 2)
    loss = SCORE_LOSSES[name](net, x)
    assert loss.shape == (4,)
    assert loss.dtype == torch.float64
    loss.mean().backward()
    # the divergence does not see the last bias; every weight is seen
    assert all(float(p.grad.abs().max()) > 0 for p in net.parameters())
    assert not x.requires_grad


@pytest.mark.parametrize("name", SCORE_LOSSES)
def test_scores_of_another_shape_are_refused(name):
    with pytest.raises(ValueError, match=r"a score has the shape of x, \(4, 2\), got \(4, 1\)"):
        SCORE_LOSSES[name](lambda z: z[:, :1], normal(4, 2))
    with pytest.raises(ValueError, match=r"batch of points \(N, ...\), got shape \(4,\)"):
        SCORE_LOSSES[name](lambda z: z, normal(4))


def test_score_losses_refuse_bad_input():
    x = normal(4, 2)
    for sigma in (0.0, -1.0, float("nan"), torch.tensor([0.1, 0.2, 0.0, 0.4])):
        with pytest.raises(ValueError, match="sigma must be positive"):
            denoising_score_matching(lambda z: z, x, sigma, x)
    with pytest.raises(ValueError, match="one for each of 4 points"):
        denoising_score_matching(lambda z: z, x, torch.ones(3), x)
    with pytest.raises(ValueError, match=r"eps must have the shape of x, \(4, 2\), got \(3, 2\)"):
        denoising_score_matching(lambda z: z, x, 0.1, x[:3])
    for wrong in (x, normal(0, 4, 2), normal(2, 4, 3)):
        with pytest.raises(ValueError, match=r"projections must have shape \(K, 4, 2\)"):
            sliced_score_matching(lambda z: z, x, wrong)


def test_a_constant_score_has_no_divergence():
    x = normal(4, 3)
    torch.testing.assert_close(implicit_score_matching(torch.ones_like, x), torch.full((4,), 1.5, dtype=torch.float64))
    sliced = sliced_score_matching(torch.ones_like, x, torch.ones(1, 4, 3, dtype=torch.float64))
    torch.testing.assert_close(sliced, torch.full((4,), 4.5, dtype=torch.float64))


# --- learned variance ---------------------------------------------------------------------------------


def test_interpolated_variance_ends_at_the_two_of_ddpm():
    chain = Schedule.from_betas(linear_betas(100))
    t, s = torch.tensor([0.5, 0.9], dtype=torch.float64), torch.tensor([0.49, 0.89], dtype=torch.float64)
    beta = linear_betas(100)[[49, 89]]
    tilde = beta * chain.sigma(s) ** 2 / chain.sigma(t) ** 2
    for v, wanted in ((0.0, tilde), (1.0, beta), (0.5, (beta * tilde).sqrt())):
        found = interpolated_log_variance(chain, torch.full((2, 3), v, dtype=torch.float64), t, s).exp()
        torch.testing.assert_close(found, wanted[:, None].expand(2, 3))


def test_variance_loss_is_least_at_the_optimum_and_leaves_the_mean_alone():
    schedule, t, s = Cosine(), torch.tensor(0.5, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    x0, eps = normal(2000, 1), normal(2000, 1, seed=1)
    x_t = q_sample(schedule, x0, t, eps)
    guess = (schedule.alpha(t) * x_t).requires_grad_(True)  # the exact one for N(0, 1)
    prediction = Prediction(schedule, x_t, t, guess, "x0")
    v = torch.full((2000, 1), 0.4, dtype=torch.float64, requires_grad=True)
    loss = hybrid_loss(prediction, x0, eps, s, v).sum()
    simple = (eps - prediction.eps).square().sum()
    torch.testing.assert_close(*(torch.autograd.grad(each, guess, retain_graph=True)[0] for each in (loss, simple)))
    assert float(torch.autograd.grad(loss, v)[0].abs().max()) > 0
    # for N(0, 1) data the best variance is beta, v = 1
    losses = [
        float(variance_loss(prediction, x0, s, torch.full_like(v, value)).mean()) for value in (0.0, 0.8, 1.0, 1.2)
    ]
    assert min(losses) == losses[2]
