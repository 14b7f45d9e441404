"""The steps of a solver: what is refused, the exact paths, orders, and the mathematics in JavaScript."""

import pytest
import torch

from diffusion_edu.samplers import adaptive_flow

widgets = pytest.importorskip("diffusion_edu.widgets", reason="anywidget is not installed: widgets were not tested")
from diffusion_edu.widgets.solver_steps import (  # noqa: E402
    GRIDS,
    MIXTURE,
    ORDERS,
    SCHEDULE,
    SOLVERS,
    STEPS,
    exact_paths,
    fitted_order,
    rms,
)

NAME, PAGE, SLIDER = "SolverSteps", "book/ode.html", "steps"


def example() -> "widgets.SolverSteps":
    return widgets.SolverSteps()


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"solver": "Verlet"}, "solver must be one of Euler, Heun, RK4, got Verlet"),
        ({"steps": 5}, "steps must be one of 2, 3, 4, 6"),
        ({"grid": "edm"}, "grid must be one of uniform, log_snr, got edm"),
        ({"start": 40}, r"start must lie in \[0, 39\], got 40"),
        ({"look": 0}, r"look must lie in \[1, 128\], got 0"),
    ],
)
def test_what_makes_no_sense_is_refused(traits: dict, message: str):
    with pytest.raises(ValueError, match=message):
        widgets.SolverSteps(**traits)


def test_quantiles_are_the_paths_of_the_ode():
    ends = exact_paths(torch.tensor([1.0, SCHEDULE.t_min], dtype=torch.float64))
    found, _ = adaptive_flow(
        MIXTURE.denoiser(SCHEDULE), ends[0][:, None], 1.0, SCHEDULE.t_min, rtol=1e-9, atol=1e-9, solver="DOP853"
    )
    assert float((found[:, 0] - ends[1]).abs().max()) < 1e-5  # errors of 1e-9 a step grow between the lumps


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_crowds_error_falls_with_the_solvers_order(solver: str):
    found = example()
    order = fitted_order(*(rms(found.errors(solver, n)) for n in (32, 128)))
    assert abs(order - ORDERS[solver]) < 0.5  # steps of 1/32 are not short yet for all paths


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_step_asks_as_often_as_its_order(solver: str):
    _, slopes = example().walk(solver, 4)
    assert [len(step) for step in slopes] == [ORDERS[solver]] * 4


def test_the_alternative_text_has_the_error():
    found = example()
    alt = found.static_figure().alt
    assert f"off by {float(found.errors()[found.start]):.3f}" in alt
    assert "fitted orders: Euler 1.0" in alt


def fixture_for_javascript() -> dict:
    found, walks = example(), []
    for found.grid in GRIDS:
        for solver in SOLVERS:
            states, slopes = found.walk(solver, 6)
            asked = [[[a.t, float(a.x[14]), float(a.v[14])] for a in step] for step in slopes]
            crowd = {str(n): rms(found.errors(solver, n)) for n in (4, 32)}
            walks.append(
                {"grid": found.grid, "solver": solver, "states": states[:, 14].tolist(), "asked": asked, "crowd": crowd}
            )
    ts = torch.tensor([1.0, 0.3, SCHEDULE.t_min], dtype=torch.float64)
    return {
        "solvers": list(SOLVERS),
        "orders": ORDERS,
        "steps": list(STEPS),
        "t": ts.tolist(),
        "exact": exact_paths(ts).tolist(),
        "walks": walks,
    }
