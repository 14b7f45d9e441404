"""Partial noising: its pictures are the committed run's, its numbers are those of the pictures, here and in JavaScript."""

import base64

import numpy as np
import pytest
import torch

from diffusion_edu.metrics import auc
from tests.conftest import ROOT
from tests.widgets import Parts

widgets = pytest.importorskip("diffusion_edu.widgets", reason="anywidget is not installed: widgets were not tested")
from diffusion_edu.widgets.partial_noising import LEVELS, METHODS, VISIBLE, grey  # noqa: E402

NAME, PAGE, SLIDER = "PartialNoising", "book/steering.html", "how far to noise"
MEASURED = ROOT / "data" / "measured"


def example() -> "widgets.PartialNoising":
    return widgets.PartialNoising.from_files(MEASURED)


def fixture_for_javascript() -> dict:
    """Return a few pictures as the state packs them, and what the package measures on them."""
    widget = example()
    cases = [(0, 0, 0), (0, 1, 4), (1, 0, 6), (2, 1, 3), (3, 1, 6), (3, 0, 2)]
    return {
        "bytes": list(base64.b64decode(widget.pixels)[:40]),
        "values": widget.healthy.flatten()[:80].tolist(),
        "methods": list(METHODS),
        "cases": [
            {
                "healthy": widget.healthy[digit].flatten().tolist(),
                "defective": widget.defective[digit].flatten().tolist(),
                "returned": widget.returned[digit, method, place].flatten().tolist(),
                **widget.measure(digit, method, place),
            }
            for digit, method, place in cases
        ],
        "ties": {
            "scores": [0, 0, 1, 0, 2, 0, 1],
            "positive": [True, False, True, False, False, True, False],
            "auc": auc(torch.tensor([0.0, 0, 1, 0, 2, 0, 1]), torch.tensor([1, 0, 1, 0, 0, 1, 0]).bool()),
        },
    }


def test_pictures_are_those_of_the_run():
    widget, packed = example(), np.load(MEASURED / "steering.npz")
    half_a_level = 1 / (LEVELS - 1) + 1 / 255
    for name in ("healthy", "defective", "noised", "returned"):
        stored = torch.from_numpy(packed[name]).double() / 127.5 - 1
        torch.testing.assert_close(getattr(widget, name), stored, atol=half_a_level, rtol=0)
    unpacked = torch.tensor(list(base64.b64decode(widget.pixels)))
    levels = torch.stack([unpacked // LEVELS, unpacked % LEVELS], 1).flatten()
    torch.testing.assert_close(levels[: 28 * 28] * 2.0 / (LEVELS - 1) - 1, widget.healthy[0].flatten().float())
    assert len(levels) == 28 * 28 * len(widget.names) * (2 + 2 * len(METHODS) * len(widget.times))


def test_every_digit_has_a_defect_and_the_rest_is_untouched():
    widget = example()
    wrong = (widget.defective - widget.healthy).abs() > VISIBLE
    counts = wrong.flatten(1).sum(1)
    assert bool((counts >= 3).all()) and bool((counts <= 25).all())
    assert float((widget.defective - widget.healthy)[~wrong].abs().max()) <= VISIBLE


def test_a_perfect_and_a_useless_map():
    healthy = torch.full((1, 4, 4), -1.0)
    defective = healthy.clone()
    defective[0, 1, 1:3] = 1
    returned = torch.stack([torch.stack([healthy[0], defective[0]])] * 2)[None]
    widget = widgets.PartialNoising(healthy, defective, returned, returned, [0.2, 0.8], ["a square"], place=0)
    assert widget.measure(0, 0, 0) == {"auc": 1.0, "inside": 2.0, "outside": 0.0}
    assert widget.measure(0, 1, 1) == {"auc": 0.5, "inside": 0.0, "outside": 0.0}


def test_the_initial_state_teaches():
    widget = example()
    text = Parts(widget.to_html()).picture["alt"]
    found = widget.measure(widget.digit, widget.method, widget.place)
    other = widget.measure(widget.digit, 1 - widget.method, widget.place)
    assert f"AUC {found['auc']:.2f}" in text and f"AUC {other['auc']:.2f}" in text
    assert found["auc"] > 0.85 and found["inside"] > 5 * found["outside"]
    assert abs(found["auc"] - other["auc"]) > 0.05  # the choice of method shows


def test_greys_are_rounded_once():
    x = torch.linspace(-1.5, 1.5, 61)
    assert torch.equal(grey(grey(x)), grey(x))
    assert float((grey(x) - x.clamp(-1, 1)).abs().max()) <= 1 / (LEVELS - 1) + 1e-9


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"place": 7}, r"place must lie in \[0, 6\], got 7"),
        ({"digit": 4}, r"digit must lie in \[0, 3\], got 4"),
        ({"method": -1}, r"method must lie in \[0, 1\], got -1"),
    ],
)
def test_refuses_what_makes_no_sense(traits, message):
    widget = example()
    with pytest.raises(ValueError, match=message):
        widgets.PartialNoising(
            widget.healthy, widget.defective, widget.noised, widget.returned, widget.times, widget.names, **traits
        )


def test_refuses_shapes_that_disagree():
    widget = example()
    with pytest.raises(ValueError, match=r"need noised and returned \(4, 2, 6, 28, 28\)"):
        widgets.PartialNoising(
            widget.healthy, widget.defective, widget.noised, widget.returned, widget.times[:6], widget.names
        )
