"""Likelihood routes: what it refuses, what its numbers do, and its mathematics in JavaScript against the package's."""

import pytest
import torch

from diffusion_edu.likelihood import likelihood_grid, ode_log_likelihood
from tests.widgets import Parts

widgets = pytest.importorskip("diffusion_edu.widgets", reason="anywidget is not installed: widgets were not tested")
from diffusion_edu.widgets.likelihood_routes import (  # noqa: E402
    MIXTURE,
    ROUTES,
    SCHEDULE,
    STEPS,
    path,
    point,
    routes,
    wrong_denoiser,
)

NAME, PAGE, SLIDER = "LikelihoodRoutes", "book/ode.html", "steps"
CASES = [(0.55, 6, 0.0), (0.2, 2, 0.0), (0.9, 24, 0.1), (0.4, 64, 0.3), (0.0, 12, 0.02)]


def example() -> "widgets.LikelihoodRoutes":
    return widgets.LikelihoodRoutes()


def fixture_for_javascript() -> dict:
    """Return the routes' values, the flow's end and the grid, as the package computes them."""
    cases = [
        {"place": p, "steps": n, "error": e, "routes": routes(p, n, e), "end": path(point(p), n, e)[-1, 0].tolist()}
        for p, n, e in CASES
    ]
    ts = likelihood_grid(SCHEDULE, 7)
    x = torch.tensor([[0.3, -0.4]], dtype=torch.float64)
    return {
        "cases": cases,
        "grid": ts.tolist(),
        "noise": wrong_denoiser(0.2)(x, ts[3]).eps[0].tolist(),
        "velocity": wrong_denoiser(0.2)(x, ts[3]).velocity[0].tolist(),
        "steps": list(STEPS),
        "looks": [[key, name, colour] for key, (name, colour) in ROUTES.items()],
    }


@pytest.mark.parametrize("place", [0.1, 0.3, 0.55, 0.8])
def test_with_the_exact_score_all_routes_meet(place):
    fine, ts = routes(place, 64, 0.0), likelihood_grid(SCHEDULE, 64)
    assert fine["exact"] == pytest.approx(float(MIXTURE.log_density(point(place))), abs=1e-12)
    assert fine["ode"] == pytest.approx(fine["exact"], abs=0.03)  # Heun with 64 steps, and the blur at t_min
    by_exact_divergence = float(ode_log_likelihood(wrong_denoiser(0.0), point(place), ts))
    assert fine["ode"] == pytest.approx(by_exact_divergence, abs=1e-9)
    assert fine["equal"] != pytest.approx(fine["opposite"], abs=1e-3)
    gaps = [routes(place, n, 0.0)["bound"] - fine["exact"] for n in (8, 16, 32)]
    assert all(gap < 0 for gap in gaps)
    assert gaps[1] / gaps[0] == pytest.approx(0.5, abs=0.06)  # the price of Gaussian steps is of first order
    assert gaps[2] / gaps[1] == pytest.approx(0.5, abs=0.03)


def test_the_initial_state_teaches():
    widget = example()
    first = routes(widget.place, widget.steps, widget.error)
    assert 0.1 < abs(first["ode"] - first["exact"]) < 3  # visible
    assert first["bound"] < first["exact"] - 0.3
    assert f"{first['ode']:.2f}" in Parts(widget.to_html()).picture["alt"]


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"place": 1.2}, r"place must lie in \[0, 1\], got 1.2"),
        ({"error": 0.5}, r"error must lie in \[0, 0.3\], got 0.5"),
        ({"steps": 5}, "steps must be one of 2, 3, 4"),
    ],
)
def test_refuses_what_makes_no_sense(traits, message):
    with pytest.raises(ValueError, match=message):
        widgets.LikelihoodRoutes(**traits)
