"""Losses: what each target asks for, the weights between them, times and dropped labels."""

import pytest
import torch
from torch import nn

from diffusion_edu.denoisers import Denoiser
from diffusion_edu.losses import (
    denoising_loss,
    drop_labels,
    hybrid_loss,
    interpolated_log_variance,
    spread_times,
    target_value,
    variance_loss,
)
from diffusion_edu.process import TARGETS, Prediction, q_sample
from diffusion_edu.schedules import Cosine, Flow, LinearBeta, Schedule, VarianceExploding, linear_betas

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
