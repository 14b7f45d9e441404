"""Draw your own: strokes become pixels as MNIST's do, and are noised and filled in alike here, in JavaScript, in the run."""

import base64
import json

import numpy as np
import pytest
import torch

from diffusion_edu import data
from diffusion_edu.checkpoints import load
from diffusion_edu.guidance import sdedit
from diffusion_edu.noise import SharedNoise, normals
from diffusion_edu.process import q_sample
from diffusion_edu.samplers import inpaint, sample
from diffusion_edu.schedules import Cosine, time_grid
from tests.conftest import ROOT
from tests.widgets import Parts

widgets = pytest.importorskip("diffusion_edu.widgets", reason="anywidget is not installed: widgets were not tested")
from diffusion_edu.widgets.draw_your_own import (  # noqa: E402
    DRAWN,
    ERASER,
    MODES,
    RESAMPLES,
    distance_to,
    rasterise,
)
from diffusion_edu.widgets.partial_noising import LEVELS  # noqa: E402

NAME, PAGE, SLIDER = "DrawYourOwn", "book/steering.html", "strength"
MEASURED = ROOT / "data" / "measured"
SCRIBBLE = [[[3.5, 4.0], [9.25, 7.5], [9.25, 22.0]], [[20.0, 20.0]], [[27.9, 0.0], [27.9, 28.0]]]


def example(**traits) -> "widgets.DrawYourOwn":
    return widgets.DrawYourOwn.from_files(MEASURED, **traits)


def seam(image: torch.Tensor, mask: torch.Tensor) -> float:
    """Return the mean jump between neighbours (28, 28) of which one is kept and one is not."""
    jumps = []
    for axis in (0, 1):
        apart = mask.diff(dim=axis) != 0
        jumps.append(image.diff(dim=axis)[apart].abs())
    return float(torch.cat(jumps).mean())


def fixture_for_javascript() -> dict:
    """Return strokes and their pixels, noises and distances."""
    widget = example(seed=2**31 + 5, place=11)
    x0, mask, results = widget.drawing.double(), widget.mask.double(), widget.noised[0, 9].double()
    pairs = [(results[i] - results[j]).square().mean().sqrt() for i in range(DRAWN) for j in range(i)]
    return {
        "modes": list(MODES),
        "resamples": list(RESAMPLES),
        "drawings": [
            {
                "strokes": strokes,
                "distance": distance_to(strokes).flatten().tolist(),
                "image": (2 * rasterise(strokes) - 1).flatten().tolist(),
                "mask": (distance_to(strokes) > ERASER).double().flatten().tolist(),
            }
            for strokes in [SCRIBBLE, widget.strokes, widget.examples[1]["strokes"]]
        ],
        "noise": {"seed": widget.seed, "values": normals(widget.seed, 784).tolist()},
        "noised": {
            "t": widget.times[11],
            "x0": x0.flatten().tolist(),
            "x_t": widget.noise()[0].flatten().tolist(),
        },
        "schedule": [
            [t, float(Cosine().alpha(time)), float(Cosine().sigma(time))]
            for time in torch.tensor([0.001, 0.05, 0.4, 0.7, 0.95, 0.995], dtype=torch.float64)
            for t in [float(time)]
        ],
        "results": results.flatten(1).tolist(),
        "far": float((results - x0[0]).square().mean((1, 2)).sqrt().mean()),
        "apart": float(torch.stack(pairs).mean()),
        "mask": mask.flatten().tolist(),
        "jump": seam(results[0], mask[0, 0]),
        "erased": float(((x0 + 1) * (1 - mask)).sum() / (x0 + 1).sum()),
    }


# --- strokes --------------------------------------------------------------------------------------


def test_ink_is_full_on_the_stroke_and_soft_at_its_edge():
    ink = rasterise([[[4.0, 14.5], [24.0, 14.5]]])
    across = torch.tensor([0, 5 / 6, 1, 5 / 6, 0], dtype=torch.float64)
    torch.testing.assert_close(ink[12:17, 14], across, atol=1e-12, rtol=0)
    edge = 0.5 + (1.4 - 1.5) / 1.2  # a centre one and a half cells beside the stroke
    torch.testing.assert_close(rasterise([[[4.0, 14], [24, 14]]])[12, 14].item(), edge, atol=1e-12, rtol=0)
    assert ink[14, 0] == 0 and ink[14, 3] > 0  # the end is round
    assert rasterise([]).sum() == 0 and rasterise([[[14.0, 14.0]]]).sum() > 5  # a stroke of one point is a dot


def test_a_stroke_is_as_wide_as_those_of_mnist():
    train = data.load("mnist", "train")
    ones = train.images[train.labels == 1][:2000].reshape(-1, 28, 28).double() / 255
    drawn = rasterise([[[14.5, 5.9], [14.5, 23.1]]])  # 20 cells long with its round ends
    widths = ones.sum((1, 2)) / (ones > 0.5).any(2).sum(1)
    width = drawn.sum() / (drawn > 0.5).any(1).sum()
    assert widths.quantile(0.25) < width < widths.quantile(0.75)


def test_examples_lie_as_mnist_lays_its_digits():
    place = torch.arange(28.0).double() + 0.5
    for each in example().examples:
        ink = rasterise(each["strokes"])
        rows, columns = (float((ink.sum(axis) * place).sum() / ink.sum()) for axis in (1, 0))
        assert abs(rows - 14.5) < 0.15 and abs(columns - 14.5) < 0.15  # strokes are kept to tenths of a cell
        assert 19 <= (ink > 0.5).any(1).sum() <= 20
        assert 0.25 < float((ink * (distance_to(each["erased"]) <= ERASER)).sum() / ink.sum()) < 0.75


# --- the run --------------------------------------------------------------------------------------


def test_pictures_are_those_of_the_run():
    widget, packed = example(), np.load(MEASURED / "draw_your_own.npz")
    half_a_level = 1 / (LEVELS - 1) + 1 / 255
    for name in ("noised", "filled"):
        stored = torch.from_numpy(packed[name]).double() / 127.5 - 1
        torch.testing.assert_close(getattr(widget, name), stored, atol=half_a_level, rtol=0)
    unpacked = torch.tensor(list(base64.b64decode(widget.pixels)))
    levels = torch.stack([unpacked // LEVELS, unpacked % LEVELS], 1).flatten()
    torch.testing.assert_close(levels[: 28 * 28] * 2.0 / (LEVELS - 1) - 1, widget.noised[0, 0, 0].flatten().float())
    assert len(levels) == 784 * DRAWN * len(widget.examples) * (len(widget.times) + len(RESAMPLES))


def test_the_committed_run_is_the_packages_own():
    """Two results and one filling again, from the drawing that the widget shows; float32 on another machine: 4 of 255."""
    widget, packed = example(), np.load(MEASURED / "draw_your_own.npz")
    denoiser = load(ROOT / "data/checkpoints/mnist-unet").eval()
    x0 = widget.drawing.expand(2, -1, -1, -1)
    again = sdedit(denoiser, x0, widget.times[4], generator=SharedNoise([0, 1]), steps=20)
    there = torch.from_numpy(packed["noised"][0, 4, :2]).float() / 127.5 - 1
    torch.testing.assert_close(again[:, 0], there, atol=4 / 255, rtol=0)
    x_T = torch.from_numpy(normals(0, 784)).float().reshape(1, 1, 28, 28)
    noise = SharedNoise([0])
    noise.normal((1, 1, 28, 28))  # x_T itself
    steps = inpaint(denoiser, x_T, time_grid(denoiser.schedule, 20), x0[:1], widget.mask, generator=noise)
    filled = sample(steps)
    assert torch.equal(filled * widget.mask, x0[:1] * widget.mask)
    there = torch.from_numpy(packed["filled"][0, 0, 0]).float() / 127.5 - 1
    torch.testing.assert_close(filled[0, 0], there, atol=4 / 255, rtol=0)


def test_distances_are_those_of_the_pictures():
    """Four of 32 results: their mean lies within three standard errors of four of the mean of all."""
    widget, facts = example(), json.loads((MEASURED / "draw_your_own.json").read_text())
    for number, each in enumerate(facts["examples"]):
        x0 = 2 * rasterise(each["strokes"]) - 1
        shown = (widget.noised[number] - x0).square().mean((2, 3)).sqrt().mean(1)
        allowed = 3 * torch.tensor(each["distance_error"]).double() * (facts["draws"] / DRAWN) ** 0.5 + 0.01
        assert ((shown - torch.tensor(each["distance"]).double()).abs() < allowed).all()
        assert each["distance"][0] < 0.15 and each["distance"][-1] > 0.6


# --- the widget -----------------------------------------------------------------------------------


def test_what_is_noised_is_q_sample_of_the_drawing():
    widget = example(seed=3, place=10)
    t = torch.tensor(widget.times[10], dtype=torch.float64)
    eps = torch.from_numpy(normals(4, 784)).reshape(1, 28, 28)
    wanted = q_sample(Cosine(), widget.drawing[0].double(), t, eps)
    torch.testing.assert_close(widget.noise()[1], wanted, atol=1e-12, rtol=0)


def test_a_drawing_from_python_is_no_example():
    widget = example()
    assert widget.example() == 0
    widget.strokes = SCRIBBLE
    assert widget.example() is None
    assert float(widget.drawing.max()) == 1 and float(widget.drawing.min()) == -1
    widget.static_figure()  # shows an example in its place


def test_the_initial_state_teaches():
    widget = example()
    facts, text = widget.examples[0], Parts(widget.to_html()).picture["alt"]
    assert f"{facts['distance'][widget.place]:.2f} from the drawing" in text and f"{widget.floor:.2f} away" in text
    assert facts["distance"][0] < facts["distance"][widget.place] < facts["distance"][-1]


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"place": 19}, r"place must lie in \[0, 18\], got 19"),
        ({"mode": 2}, r"mode must lie in \[0, 1\], got 2"),
        ({"label": 11}, r"label must lie in \[0, 10\], got 11"),
        ({"repeats": 2}, r"repeats must lie in \[0, 1\], got 2"),
        ({"seed": -1}, r"seed must lie in \[0, "),
        ({"w": -0.5}, r"w must lie in \[0, 10\], got -0.5"),
        ({"strokes": [[[1, 2, 3]]]}, r"a point of strokes is \[column, row\], got \[1, 2, 3\]"),
    ],
)
def test_refuses_what_makes_no_sense(traits, message):
    with pytest.raises(ValueError, match=message):
        example(**traits)


def test_refuses_shapes_that_disagree():
    widget = example()
    with pytest.raises(ValueError, match=r"need noised \(3, 5, 4, 28, 28\)"):
        widgets.DrawYourOwn(widget.examples, widget.noised, widget.filled, widget.times[:5], widget.floor)
