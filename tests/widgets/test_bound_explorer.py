"""The bound explorer: what it refuses, its terms against the package, and its mathematics in JavaScript."""

import pytest
import torch

from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.likelihood import elbo
from diffusion_edu.schedules import Cosine, Flow, LinearBeta, Schedule, time_at_log_snr
from tests.widgets import Parts

widgets = pytest.importorskip("diffusion_edu.widgets", reason="anywidget is not installed: widgets were not tested")
from diffusion_edu.widgets import bound_explorer as bound  # noqa: E402

NAME, PAGE, SLIDER = "BoundExplorer", "book/elbo.html", "number of steps"
CASES = [("even", 10, -7.0, 7.0), ("cosine", 1, -10.0, 2.0), ("linear", 50, -4.0, 10.0), ("flow", 300, 1.0, 5.5)]


def example() -> "widgets.BoundExplorer":
    return widgets.BoundExplorer()


def test_state_follows_python():
    explorer = example()
    explorer.steps, explorer.schedule = 300, "flow"
    assert (explorer.state()["steps"], explorer.state()["schedule"]) == (300, "flow")
    assert "each of 300 steps" in Parts(explorer.to_html()).picture["alt"]


@pytest.mark.parametrize(
    ("trait", "value", "message"),
    [
        ("steps", 0, r"steps must lie in \[1, 1000\], got 0"),
        ("high", 11.0, r"high must lie in \[2, 10\], got 11"),
        ("low", 3.0, r"low must lie in \[-10, 1\], got 3"),
        ("schedule", "wavy", "unknown schedule 'wavy'; known: even, cosine"),
    ],
)
def test_what_makes_no_sense_is_refused(trait: str, value: object, message: str):
    with pytest.raises(ValueError, match=message):
        widgets.BoundExplorer(**{trait: value})


@pytest.mark.parametrize(("name", "schedule"), [("cosine", Cosine(0.0)), ("linear", LinearBeta()), ("flow", Flow())])
def test_schedules_are_the_package_s(name: str, schedule: Schedule):
    u = torch.linspace(0, 1, 11, dtype=torch.float64)
    first, last = time_at_log_snr(schedule, torch.tensor([5.0, -5.0], dtype=torch.float64), ends=(1e-6, 1 - 1e-6))
    wanted = schedule.log_snr(first + (last - first) * u)
    torch.testing.assert_close(bound.log_snr_at(name, -5.0, 5.0, u), wanted, rtol=1e-9, atol=1e-9)


def test_terms_are_those_of_the_package():
    schedule, g = LinearBeta(), torch.Generator().manual_seed(0)
    data = GaussianMixture(torch.tensor([[-1.0], [1.0]], dtype=torch.float64), bound.SPREAD)
    levels = bound.log_snr_at("linear", -5.0, 5.0, torch.linspace(1, 0, 13, dtype=torch.float64))
    ts = time_at_log_snr(schedule, levels, ends=(1e-6, 1.0))
    found = elbo(data.denoiser(schedule), data.sample(40_000, g), ts, generator=g)
    for name, value in bound.terms("linear", 12, -5.0, 5.0).items():
        drawn = getattr(found, name)
        assert abs(float(drawn.mean()) - value) < 4 * float(drawn.std()) / 200 + 1e-9, name


def test_in_the_limit_schedules_agree_and_reach_the_truth():
    totals = {name: bound.terms(name, 1000, -10.0, 10.0)["total"] for name in bound.SCHEDULES}
    gaps = {name: total - bound.entropy() for name, total in totals.items()}
    assert min(gaps.values()) > 0
    assert max(gaps.values()) < 1 and gaps["even"] < 0.05
    for name, gap in gaps.items():  # half the steps, twice the gap: nothing but the steps is missing
        half = bound.terms(name, 500, -10.0, 10.0)["total"] - bound.entropy()
        assert 1.8 < half / gap < 3, name


def fixture_for_javascript() -> dict:
    """Return errors, log-SNRs, step costs and terms, as Python computes them."""
    levels = torch.linspace(-10, 10, 41, dtype=torch.float64)
    u = torch.linspace(0, 1, 11, dtype=torch.float64)
    return {
        "spread": bound.SPREAD,
        "entropy": bound.entropy(),
        "schedules": bound.SCHEDULES,
        "limits": bound.LIMITS,
        "levels": levels.tolist(),
        "errors": bound.eps_error(levels).tolist(),
        "u": u.tolist(),
        "curve_u": torch.linspace(0, 1, 241, dtype=torch.float64).tolist(),
        "cases": [
            {
                "schedule": name,
                "steps": steps,
                "low": low,
                "high": high,
                "log_snr": bound.log_snr_at(name, low, high, u).tolist(),
                "costs": bound.step_costs(name, steps, low, high).tolist(),
                "terms": bound.terms(name, steps, low, high),
                "curve": bound.cost_curve(name, low, high, torch.linspace(0, 1, 241, dtype=torch.float64)).tolist(),
            }
            for name, steps, low, high in CASES
        ],
    }
