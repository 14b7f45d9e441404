"""Classifier-free guidance: the scores add up as written, in one call of the network."""

import pytest
import torch
from torch import nn

from diffusion_edu.denoisers import Denoiser
from diffusion_edu.guidance import classifier_free
from diffusion_edu.schedules import Cosine


class Net(nn.Module):
    """Answers 0.1 x + (class + 1) / 10 + t and counts its calls."""

    num_classes, calls = 3, 0

    def forward(self, x, t, y=None):
        self.calls += 1
        return 0.1 * x + (y[:, None] + 1) / 10 + t[:, None]


@pytest.fixture
def denoiser():
    return Denoiser(Net(), Cosine(), "eps")


X = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 0])
NULL = torch.full((4,), 3)


@pytest.mark.parametrize("w", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("t", [torch.tensor(0.4), torch.tensor([0.2, 0.4, 0.6, 0.8])])
def test_the_guided_score_is_the_weighted_sum(denoiser, w, t):
    t = t.double()
    guided = classifier_free(denoiser, w)(X, t, Y)
    null, conditional = denoiser(X, t, NULL), denoiser(X, t, Y)
    for face in ("score", "eps", "x0", "v"):
        wanted = (1 - w) * getattr(null, face) + w * getattr(conditional, face)
        torch.testing.assert_close(getattr(guided, face), wanted, rtol=1e-9, atol=1e-9)


def test_the_two_estimates_are_added_before_the_sum_is_clipped():
    clipped = Denoiser(Net(), Cosine(), "eps", clip=(-0.6, 0.6))
    t = torch.tensor(0.4).double()
    null, conditional = clipped.raw(X, t, NULL).x0, clipped.raw(X, t, Y).x0
    wanted = (null + 2 * (conditional - null)).clamp(-0.6, 0.6)
    torch.testing.assert_close(classifier_free(clipped, 2.0)(X, t, Y).x0, wanted, rtol=1e-9, atol=1e-9)
    added_late = null.clamp(-0.6, 0.6) + 2 * (conditional.clamp(-0.6, 0.6) - null.clamp(-0.6, 0.6))
    assert (wanted - added_late.clamp(-0.6, 0.6)).abs().max() > 0.01  # the order matters here


def test_one_call_of_the_network_for_both(denoiser):
    classifier_free(denoiser, 2.0)(X, torch.tensor(0.4), Y)
    assert denoiser.net.calls == 1


def test_without_guidance_it_is_the_denoiser_itself(denoiser):
    assert classifier_free(denoiser, 1.0) is denoiser


def test_the_result_is_clipped_like_the_denoisers():
    clipped = Denoiser(Net(), Cosine(), "eps", clip=(-1, 1))
    assert float(classifier_free(clipped, 50.0)(X, torch.tensor(0.9), Y).x0.abs().max()) <= 1


def test_labels_are_needed_and_checked(denoiser):
    with pytest.raises(ValueError, match="needs labels y, got None"):
        classifier_free(denoiser, 2.0)(X, torch.tensor(0.4))
    with pytest.raises(ValueError, match="0 ... 2"):
        classifier_free(denoiser, 2.0)(X, torch.tensor(0.4), torch.tensor([0, 1, 2, 7]))
