"""The error budget: its parts add up, what is refused, and its arithmetic in JavaScript."""

import json

import pytest

from tests.conftest import ROOT

widgets = pytest.importorskip("diffusion_edu.widgets", reason="anywidget is not installed: widgets were not tested")
from diffusion_edu.widgets.error_budget import PARTS, split_evenly  # noqa: E402

NAME, PAGE, SLIDER = "ErrorBudget", "book/fast.html", "evaluations"


def measured() -> dict:
    return json.loads((ROOT / "data" / "measured" / "error_budget.json").read_text())


def example() -> "widgets.ErrorBudget":
    return widgets.ErrorBudget(measured())


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"sampler": "Heun"}, r"sampler must be one of DDIM, DPM-Solver\+\+\(2M\), ancestral, got Heun"),
        ({"evaluations": 7}, "evaluations must be one of 2, 3, 4, 5, 6, 8, 10"),
        ({"training": 31}, "training must be one of 30, 100, 300, 1000, 3000, 10000, 0, got 31"),
    ],
)
def test_what_was_not_measured_is_refused(traits: dict, message: str):
    with pytest.raises(ValueError, match=message):
        widgets.ErrorBudget(measured(), **traits)


def test_a_missing_run_is_named():
    facts = measured()
    facts["runs"] = [run for run in facts["runs"] if (run["training"], run["seed"]) != (300, 2)]
    with pytest.raises(ValueError, match="no run for training = 300 and seed = 2"):
        widgets.ErrorBudget(facts)
    with pytest.raises(ValueError, match="same number of floors for each of 3 seeds, got 4"):
        split_evenly([1.0] * 4, 3)


def test_the_parts_add_up():
    found = example()
    for training in found.trained:
        parts = found.split(10, training)
        assert sum(parts[name].value for name in PARTS) == pytest.approx(parts["total"].value, abs=1e-12)
    assert found.split(10, 0)["network"] == (0, 0)


def test_what_the_chapter_says_of_the_measurement():
    """More steps do not help the short training; more training does not help few steps."""
    found = example()
    poor, good = found.split(10, 300), found.split(10, 10_000)
    assert poor["network"].value > 5 * abs(poor["more steps"].value)
    assert good["steps"].value > 3 * abs(good["network"].value)


def fixture_for_javascript() -> dict:
    found, cells = example(), []
    for sampler, evaluations, training in (("DDIM", 10, 300), ("ancestral", 60, 30), ("DPM-Solver++(2M)", 4, 0)):
        found.sampler = sampler
        parts = {name: part._asdict() for name, part in found.split(evaluations, training).items()}
        cells.append({"cell": {"sampler": sampler, "evaluations": evaluations, "training": training}, "parts": parts})
    data = {name: getattr(found, name) for name in ("counts", "trained", "distances", "floors")}
    return {"data": data, "cells": cells, "colours": PARTS}
