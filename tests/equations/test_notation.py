"""The equations of `book/notation.md`: translations between conventions, and the off-by-one that each invites."""

from math import pi, sqrt

import numpy as np
import pytest
import sympy as sp
import torch

from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.process import Prediction, q_sample
from diffusion_edu.schedules import Cosine, Flow, LinearBeta, OrnsteinUhlenbeck, Sigmoid, VarianceExploding
from tests.equations import equation

ALL = [LinearBeta(), Cosine(), Sigmoid(), OrnsteinUhlenbeck(), VarianceExploding(), Flow()]
TIMES = torch.tensor([0.05, 0.4, 0.9], dtype=torch.float64)


def noised(schedule):
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    return x0, eps, q_sample(schedule, x0, TIMES, eps), schedule.alpha(TIMES)[:, None], schedule.sigma(TIMES)[:, None]


@equation("eq-noise-level", method="exact", tolerance="1e-12 relative (float64 rounding)")
@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_edm_noise_level(schedule):
    x0, eps, x_t, alpha, sigma = noised(schedule)
    level = (-schedule.log_snr(TIMES) / 2).exp()[:, None]
    torch.testing.assert_close(level, sigma / alpha, rtol=1e-12, atol=0)
    torch.testing.assert_close(x_t / alpha, x0 + level * eps, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(x_t / alpha, x0 + level**2 * eps, rtol=1e-3)  # a variance for the deviation


@equation("eq-flow-time", method="exact", tolerance="1e-12 (float64 rounding)")
@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_every_schedule_on_the_straight_line(schedule):
    x0, eps, x_t, alpha, sigma = noised(schedule)
    u = sigma / (alpha + sigma)
    torch.testing.assert_close(x_t / (alpha + sigma), (1 - u) * x0 + u * eps, rtol=0, atol=1e-12)
    torch.testing.assert_close(q_sample(Flow(), x0, u[:, 0], eps), x_t / (alpha + sigma), rtol=0, atol=1e-12)
    assert not torch.allclose(x_t / (alpha + sigma), u * x0 + (1 - u) * eps, rtol=1e-3)  # their time in our formula


@equation("eq-flow-direction", method="symbolic", tolerance="0")
def test_direction_of_the_flow():
    u, tau, x0, eps = sp.symbols("u tau x_0 epsilon")
    line = (1 - u) * x0 + u * eps
    assert sp.simplify(sp.diff(line, u) - (eps - x0)) == 0
    assert sp.simplify(sp.diff(line.subs(u, 1 - tau), tau) - (x0 - eps)) == 0


@equation("eq-flow-direction", method="exact", tolerance="1e-12 (float64 rounding)")
def test_velocity_of_the_package():
    x0, eps, x_t, _, _ = noised(Flow())
    velocity = Prediction(Flow(), x_t, TIMES, x0, "x0").velocity
    torch.testing.assert_close(velocity, eps - x0, rtol=0, atol=1e-12)
    assert not torch.allclose(velocity, x0 - eps, rtol=1e-3)


@equation("eq-guidance-weight", method="exact", tolerance="1e-6 (central difference of log q(y | x), h = 1e-5)")
@pytest.mark.parametrize("w", [0.0, 1.0, 3.0])
def test_three_forms_of_guidance(w):
    """Two classes N(-1, .5²), N(1, .5²) with weights .3, .7; the classifier is Bayes' rule on the noised classes."""

    def double(values):
        return torch.tensor(values, dtype=torch.float64)

    schedule, t = LinearBeta(), double(0.2)
    mixture = GaussianMixture(double([[-1.0], [1.0]]), double([0.5, 0.5]), double([0.3, 0.7]))
    denoiser, x = mixture.denoiser(schedule), double([[-0.4], [0.1], [1.3]])
    plain, given = denoiser(x, t).score, denoiser(x, t, torch.ones(3, dtype=torch.long)).score
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))

    def log_classifier(z: np.ndarray) -> np.ndarray:
        std = sqrt((0.5 * alpha) ** 2 + sigma**2)
        joint = [
            p * np.exp(-(((z - alpha * m) / std) ** 2) / 2) / (std * sqrt(2 * pi)) for m, p in ((-1, 0.3), (1, 0.7))
        ]
        return np.log(joint[1] / (joint[0] + joint[1]))

    h = 1e-5
    gradient = torch.as_tensor((log_classifier(x.numpy() + h) - log_classifier(x.numpy() - h)) / (2 * h))
    first, second, third = (1 - w) * plain + w * given, given + (w - 1) * (given - plain), plain + w * gradient
    torch.testing.assert_close(first, second, rtol=0, atol=1e-12)
    torch.testing.assert_close(first, third, rtol=0, atol=1e-6)
    assert not torch.allclose(first, given + w * (given - plain), atol=1e-2)  # their weight in our formula
