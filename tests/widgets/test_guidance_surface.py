"""The measured surface: cells stand where they belong, digits survive packing, and what is refused."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from tests.widgets import Parts

widgets = pytest.importorskip("diffusion_edu.widgets", reason="anywidget is not installed: widgets were not tested")
from diffusion_edu.metrics import share_error  # noqa: E402
from diffusion_edu.widgets.guidance_surface import best_cell  # noqa: E402

NAME, PAGE, SLIDER = "GuidanceSurface", "book/guidance.html", "guidance weight w"
P, W = [0.02, 0.1, 0.5], [0.0, 1.0, 2.0, 8.0]


def surface() -> dict:
    """Invented numbers, so that each cell is recognised: the lowest Fréchet distance stands at (0.1, 2)."""
    cells = []
    for i, share in enumerate(P):
        for j, weight in enumerate(W):
            cell = {"p_null": share, "w": weight, "samples": 100, "accuracy": 0.5 + 0.1 * j, "accuracy_error": 0.02}
            cell |= {"precision": 0.8, "recall": 0.9 - 0.2 * j, "recall_floor_error": 0.01, "floor": 1.5}
            cells.append(cell | {"frechet": 3 + abs(i - 1) + abs(j - 2), "frechet_error": 0.3, "precision_floor": 0.9})
    return {"p_null": P, "w": W, "cells": cells}


def digits() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (len(P), len(W), 10, 28, 28), dtype=np.uint8)


def example() -> "widgets.GuidanceSurface":
    return widgets.GuidanceSurface(surface(), digits())


def test_cells_stand_where_they_belong():
    found = example()
    assert (found.p_null[found.p_index], found.w[found.w_index]) == (0.1, 2.0)
    assert found.cells["frechet"][2][0] == [6.0, 0.3]
    assert found.cells["precision"][0][0] == [0.8, round(share_error(80, 100), 4)]
    assert found.cells["recall"][1][3] == [pytest.approx(0.3), 0.01]
    assert found.floors == {"precision": 0.9, "frechet": 1.5}
    assert best_cell(P, W, found.cells["frechet"]) == (0.1, 2.0, [3.0, 0.3])


def test_digits_survive_packing():
    sheet = np.array(Image.open(io.BytesIO(base64.b64decode(example().sprites))).convert("L")).astype(int)
    cut = sheet.reshape(len(P), len(W), 28, 10, 28).transpose(0, 1, 3, 2, 4)
    assert np.abs(cut - digits()).max() <= 9  # half of one of 16 levels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, d: (s, d[:2]), r"need digits uint8 \(3, 4, 10, H, W\), got uint8 \(2, 4, 10, 28, 28\)"),
        (lambda s, d: (s, d.astype(float)), "got float64"),
        (lambda s, d: (s | {"cells": s["cells"][:-1]}, d), "no cell for p_null = 0.5 and w = 8"),
        (
            lambda s, d: (s | {"cells": [c | {"frechet": float("nan")} for c in s["cells"]]}, d),
            "frechet must be finite",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        widgets.GuidanceSurface(*change(surface(), digits()))


def test_places_off_the_axes_are_refused():
    with pytest.raises(ValueError, match=r"w_index must lie in \[0, 3\], got 4"):
        example().w_index = 4


def test_the_alternative_text_names_the_best_cell():
    alt = Parts(example().to_html()).picture["alt"]
    assert "3.00 plus or minus 0.30, stands at share 0.1 and weight 2" in alt


def fixture_for_javascript() -> dict:
    found = example()
    return {"p_null": P, "w": W, "cells": found.cells, "best": [1, 2]}
