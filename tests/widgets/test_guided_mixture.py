"""Guidance on the line: its ODE is the package's, its closed forms, what it refuses, and its mathematics in JavaScript."""

import pytest
import torch

from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.guidance import classifier_free
from diffusion_edu.samplers import probability_flow, sample
from diffusion_edu.schedules import VarianceExploding, time_grid
from tests.widgets import Parts

widgets = pytest.importorskip("diffusion_edu.widgets", reason="anywidget is not installed: widgets were not tested")
from diffusion_edu.widgets.guided_mixture import (  # noqa: E402
    EXAMPLES,
    GRID,
    LIMITS,
    STARTS,
    end_density,
    guided_ends,
    summary,
    tilted_density,
)

NAME, PAGE, SLIDER = "GuidedMixture", "book/guidance.html", "guidance weight w"


def example() -> "widgets.GuidedMixture":
    return widgets.GuidedMixture()


@pytest.mark.parametrize("w", [0.0, 1.0, 2.0, 5.0, 8.0])
def test_the_pair_ends_at_the_geometric_mean_of_the_variances(w):
    found = summary("pair", w)
    assert found["ode"][1] == pytest.approx(4 ** (1 - w), rel=3e-3)  # starts beyond 4 deviations are left out: 1.1e-3
    assert found["tilt"][1] == pytest.approx(1 / ((1 - w) / 4 + w), rel=1e-4)


def test_guidance_on_an_interval_has_its_closed_form():
    low, high, w = -2.0, 3.0, 3.0
    near, far = torch.tensor([-high, -low]).exp().tolist()  # noise levels squared
    gain = (1 + near) * (4 + far) / ((1 + far) * (4 + near))
    assert summary("pair", w, low, high)["ode"][1] == pytest.approx(gain ** (w - 1), rel=3e-3)


def test_the_ode_is_the_packages():
    lumps = torch.tensor(EXAMPLES["classes"]["whole"], dtype=torch.float64)
    mixture = GaussianMixture(lumps[:, :1], lumps[:, 1], lumps[:, 2])
    schedule = VarianceExploding(sigma_min=2.5e-3, sigma_max=403.0)
    guided = classifier_free(mixture.denoiser(schedule, torch.tensor([0, 1, 1])), 3.0)
    x_T, y = STARTS[:, None] * schedule.sigma(torch.ones((), dtype=torch.float64)), torch.ones(161, dtype=torch.long)
    steps = probability_flow(guided, x_T, time_grid(schedule, 200, "log_snr"), y=y, method="rk4")
    torch.testing.assert_close(sample(steps)[:, 0], guided_ends("classes", 3.0), atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", EXAMPLES)
def test_densities_hold_all_mass(name):
    x, density = end_density(guided_ends(name, 2.5))
    assert float(torch.trapezoid(density, x)) == pytest.approx(1, abs=0.01)
    assert float(tilted_density(name, 2.5).sum() * (GRID[1] - GRID[0])) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"w": 9.0}, r"w must lie in \[0, 8\], got 9"),
        ({"low": -13.0}, r"low must lie in \[-12, 12\], got -13"),
        ({"example": "triple"}, "unknown example 'triple'; known: pair, classes"),
    ],
)
def test_what_makes_no_sense_is_refused(traits, message):
    with pytest.raises(ValueError, match=message):
        widgets.GuidedMixture(**traits)


def test_the_first_picture_teaches():
    alt = Parts(example().to_html()).picture["alt"]
    assert "variance 0.25; the tilted density has 1.14 and 0.57" in alt


def fixture_for_javascript() -> dict:
    """Return ends, tilted density and moments for some states, as Python computes them."""
    states = [("pair", 2.0, -12.0, 12.0), ("pair", 8.0, -3.0, 4.0), ("classes", 0.5, -12.0, 12.0)]
    states.append(("classes", 4.0, -1.0, 12.0))
    return {
        "limits": LIMITS,
        "examples": EXAMPLES,
        "cases": [
            {
                "state": dict(zip(("example", "w", "low", "high"), state, strict=True)),
                "ends": guided_ends(*state).tolist(),
                "tilt": tilted_density(*state[:2]).tolist(),
                "summary": summary(*state),
            }
            for state in states
        ],
    }
