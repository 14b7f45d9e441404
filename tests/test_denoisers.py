"""The denoiser contract: what a network is given, what comes back, and which input is refused."""

import pytest
import torch
from torch import nn

from diffusion_edu.denoisers import Denoiser
from diffusion_edu.process import TARGETS
from diffusion_edu.schedules import Cosine


class Echo(nn.Module):
    """Answers 10 x and remembers what it was asked."""

    num_classes = 3

    def forward(self, x, t, y=None):
        self.asked = (x, t, y)
        return 10 * x


@pytest.mark.parametrize("target", TARGETS)
def test_the_raw_output_is_the_target(target):
    x, t = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1, 0.5, 0.8, 0.9])
    denoiser = Denoiser(Echo(), Cosine(), target)
    prediction, shown = denoiser(x, t), denoiser.net.asked[0]
    assert prediction.target == target
    assert torch.equal(getattr(prediction, target), 10 * shown)
    # only EDM's network sees its input divided by its deviation, that of data with 0.5 and noise together
    deviation = (Cosine().sigma(t) ** 2 + 0.25 * Cosine().alpha(t) ** 2).sqrt()[:, None]
    torch.testing.assert_close(shown, x / deviation if target == "edm" else x)


def test_the_network_gets_one_time_for_each_image_in_the_images_type():
    denoiser, x = Denoiser(Echo(), Cosine()), torch.zeros(4, 2)
    denoiser(x, torch.tensor(0.25, dtype=torch.float64), torch.tensor([0, 1, 2, 3]))
    _, t, y = denoiser.net.asked
    assert torch.equal(t, torch.full((4,), 0.25))
    assert t.dtype == torch.float32
    assert y.tolist() == [0, 1, 2, 3]
    denoiser(x, torch.tensor([0.1, 0.2, 0.3, 0.4]))
    assert torch.equal(denoiser.net.asked[1], torch.tensor([0.1, 0.2, 0.3, 0.4]))
    assert denoiser.net.asked[2] is None


def test_clipping_bounds_x0_and_moves_eps_with_it():
    x, t = torch.linspace(-3, 3, 8).reshape(4, 2), torch.tensor(0.5)
    prediction = Denoiser(Echo(), Cosine(), "x0", clip=(-1, 1))(x, t)
    assert torch.equal(prediction.x0, (10 * x).clamp(-1, 1))
    torch.testing.assert_close(Cosine().alpha(t) * prediction.x0 + Cosine().sigma(t) * prediction.eps, x)


@pytest.mark.parametrize(
    ("t", "y", "message"),
    [
        (torch.tensor(1.1), None, r"\[0, 1\], got 1.1"),
        (torch.zeros(3), None, r"t must have shape \(\) or \(4,\), got \(3,\)"),
        (torch.tensor(0.5), torch.tensor([0, 1, 2, 4]), r"0 ... 2 \(3 = no class\), got 0 to 4"),
        (torch.tensor(0.5), torch.tensor([0, 1, -1, 2]), "got -1 to 2"),
        (torch.tensor(0.5), torch.tensor([0, 1]), r"shape \(4,\), one for each image, got \(2,\)"),
        (torch.tensor(0.5), torch.tensor(1), r"got \(\)"),
    ],
)
def test_bad_times_and_labels_are_refused(t, y, message):
    with pytest.raises(ValueError, match=message):
        Denoiser(Echo(), Cosine())(torch.zeros(4, 2), t, y)


def test_an_unknown_target_is_refused():
    with pytest.raises(ValueError, match="unknown target 'mu'; known: eps, x0, v, score, edm"):
        Denoiser(Echo(), Cosine(), "mu")
