"""The measured frontier: its table, what is refused, verdicts, and the same in JavaScript."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT

widgets = pytest.importorskip("diffusion_edu.widgets", reason="anywidget is not installed: widgets were not tested")
from diffusion_edu.widgets.sampler_frontier import CLEAR, SHOWN, apart, best_cell, limits, load_frontier  # noqa: E402

NAME, PAGE, SLIDER = "SamplerFrontier", "book/fast.html", "evaluations"
ROW = {"accuracy": 0.9, "accuracy_error": 0.02, "frechet_error": 0.3}
CELLS = [("A", 5, 9.0), ("A", 10, 2.0), ("A", 50, 1.4), ("B", 9, 1.2), ("B", 49, 5.0)]
COMMON = {"samples": 300, "floor": 1.0, "floor_error": 0.2}


def cells() -> list[dict]:
    """Invented numbers: the lowest distance stands at B, 9."""
    return [ROW | COMMON | {"sampler": s, "grid": "uniform", "evaluations": n, "frechet": f} for s, n, f in CELLS]


def digits() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (len(CELLS), SHOWN, 28, 28), dtype=np.uint8)


def example() -> "widgets.SamplerFrontier":
    return widgets.SamplerFrontier(cells()[::-1], digits()[::-1])


def test_the_smallest_cells_of_a_table_are_read_with_their_floor(tmp_path: Path):
    rows = [ROW | {"sampler": "ddim", "grid": "edm", "evaluations": n, "samples": 300, "frechet": 2.0} for n in (5, 9)]
    floors = {"300": {"floor": 1.0, "floor_error": 0.2}, "2000": {"floor": 0.3, "floor_error": 0.1}}
    table = {"floors": floors, "rows": [rows[0], rows[1] | {"samples": 2000}, rows[1]]}
    (tmp_path / "f.json").write_text(json.dumps(table))
    np.savez(tmp_path / "f.npz", digits=digits()[:3])
    found, pictures = load_frontier(tmp_path / "f.json")
    assert found == [row | floors["300"] | {"sampler": "DDIM"} for row in rows]
    assert np.array_equal(pictures, digits()[[0, 2]])
    np.savez(tmp_path / "f.npz", digits=digits()[:2])
    with pytest.raises(ValueError, match="f.json has 3 rows, and 2 rows of digits"):
        load_frontier(tmp_path / "f.json")


def test_the_measured_file_is_read():
    found, pictures = load_frontier(ROOT / "data" / "measured" / "frontier.json")
    assert pictures.shape == (len(found), SHOWN, 28, 28)
    assert {"DDIM", "ancestral", "Heun (EDM)"} <= {cell["sampler"] for cell in found}


def test_cells_and_digits_are_in_order():
    found = example()
    assert [(c["sampler"], c["evaluations"]) for c in found.cells] == [
        ("B", 9),
        ("B", 49),
        ("A", 5),
        ("A", 10),
        ("A", 50),
    ]
    sheet = np.array(Image.open(io.BytesIO(base64.b64decode(found.sprites))).convert("L")).astype(int)
    cut = sheet.reshape(len(CELLS), 28, SHOWN, 28).transpose(0, 2, 1, 3)
    assert np.abs(cut - digits()[[3, 4, 0, 1, 2]]).max() <= 9  # half of one of 16 levels


@pytest.mark.parametrize(
    ("arguments", "traits", "message"),
    [
        ((cells(), digits()[:4]), {}, r"need digits uint8 \(5, n, 28, 28\), got uint8 \(4, 6, 28, 28\)"),
        ((cells(), digits().astype(float)), {}, "got float64"),
        ((cells(), digits()), {"sampler": "C"}, "sampler must be one of A, B, got C"),
        ((cells(), digits()), {"evaluations": 0}, "evaluations must be at least 1, got 0"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: tuple, traits: dict, message: str):
    with pytest.raises(ValueError, match=message):
        widgets.SamplerFrontier(*arguments, **traits)


def test_the_verdict_needs_two_combined_errors():
    five, ten, fifty, best, _ = cells()
    assert best_cell(cells()) == best
    assert apart(fifty, best) < CLEAR < apart(five, best)
    assert apart(ten, best) == pytest.approx(0.8 / np.hypot(0.3, 0.3))
    assert "A with 10 evaluations, 2.0 plus or minus 0.3. It cannot be told from the lowest, B with 9" in (
        widgets.SamplerFrontier(cells(), digits()).alt()
    )


def fixture_for_javascript() -> dict:
    found, places = example(), []
    for found.sampler in ("A", "B"):
        for found.evaluations in (1, 7, 8, 29, 30, 200):
            places.append([found.sampler, found.evaluations, found.cells.index(found.cell())])
    return {
        "cells": found.cells,
        "places": places,
        "best": found.cells.index(best_cell(found.cells)),
        "limits": limits(found.cells),
    }
