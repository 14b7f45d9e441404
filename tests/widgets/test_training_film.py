"""The film of a training run: its files, what is refused, where the average stands, and the same in JavaScript."""

import base64
import io
import json
from math import log
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT

widgets = pytest.importorskip("diffusion_edu.widgets", reason="anywidget is not installed: widgets were not tested")
from diffusion_edu.widgets.training_film import centre, load_film  # noqa: E402

NAME, PAGE, SLIDER = "TrainingFilm", "book/training.html", "training steps"
STEPS, SHOWN = [20, 40, 160], [20, 160]
LOG = {"step": STEPS, "loss": [0.8, 0.4, 0.2], "rate": [5e-4, 2e-3, 0.0], "seconds": [12.0, 24.0, 96.0]}


def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (len(SHOWN), 2, 10, 28, 28), dtype=np.uint8)


def records() -> list[dict]:
    return [
        {"step": k, "loss": loss, "rate": rate, "minutes": s / 60}
        for k, loss, rate, s in zip(*LOG.values(), strict=True)
    ]


def example() -> "widgets.TrainingFilm":
    return widgets.TrainingFilm(records(), SHOWN, frames(), 0.9)


def write(folder: Path, steps: list[int], images: np.ndarray) -> Path:
    (folder / "film.json").write_text(json.dumps({"log": LOG, "training": {"ema": 0.05}}))
    np.savez(folder / "film.npz", steps=np.array(steps), images=images)
    return folder / "film.json"


def test_a_film_and_its_log_are_read(tmp_path: Path):
    found, steps, pictures, place = load_film(write(tmp_path, SHOWN, frames()[:, :, :, None]))
    assert (found, steps) == (records(), SHOWN)
    assert np.array_equal(pictures, frames())
    assert place == centre(0.05)
    with pytest.raises(ValueError, match=r"film.json needs frames of steps that its log has.*\[20, 50\]"):
        load_film(write(tmp_path, [20, 50], frames()[:, :, :, None]))


def test_colours_come_last_and_reach_the_sheet(tmp_path: Path):
    smooth = np.linspace(0, 255, 28 * 28).reshape(28, 28)
    coloured = np.stack([smooth, smooth.T, 255 - smooth])  # as a JPEG likes it
    images = np.broadcast_to(coloured, (len(SHOWN), 2, 10, 3, 28, 28)).astype(np.uint8)
    images[1] //= 2
    found, steps, pictures, place = load_film(write(tmp_path, SHOWN, images))
    assert np.array_equal(pictures[1, 0, 3, :, :, 2], images[1, 0, 3, 2])
    film = widgets.TrainingFilm(found, steps, pictures, place, noun="photographs")
    sheet = Image.open(io.BytesIO(base64.b64decode(film.sprites)))
    assert (sheet.format, sheet.mode, film.size) == ("JPEG", "RGB", [10, 28, 28])
    assert film.sprites.startswith("/9j/")  # by which the page knows it
    cut = np.array(sheet).astype(int).reshape(len(SHOWN), 2, 28, 10, 28, 3).transpose(0, 1, 3, 2, 4, 5)
    assert np.abs(cut - pictures).mean() < 8  # JPEG merges the colours of neighbours; exchanged ones would differ by 60
    assert film.static_figure().alt.startswith("Photographs drawn from the same noises")


@pytest.mark.parametrize(
    ("name", "size", "most"), [("training_film", (28, 28), 300_000), ("cifar10_film", (32, 32, 3), 900_000)]
)
def test_the_measured_films_are_read(name: str, size: tuple[int, ...], most: int):
    found, steps, pictures, place = load_film(ROOT / "data" / "measured" / f"{name}.json")
    assert pictures.shape == (len(steps), 2, 10, *size)
    assert steps[-1] == found[-1]["step"] and 0.5 < place < 1
    assert (ROOT / "data" / "measured" / f"{name}.npz").stat().st_size < most
    assert len(widgets.TrainingFilm(found, steps, pictures, place).sprites) < 400_000


def test_the_centre_is_the_mean_of_the_averages_weights():
    power = 1 / (1 / centre(0.1) - 1)
    places = (np.arange(10_000) + 0.5) / 10_000
    weights = power * places ** (power - 1) / 10_000
    mean = (weights * places).sum()
    assert mean == pytest.approx(centre(0.1), abs=1e-6)
    assert ((weights * (places - mean) ** 2).sum()) ** 0.5 == pytest.approx(0.1, abs=1e-5)
    assert centre(0) == 1


def test_the_sheet_has_two_rows_a_frame():
    sheet = np.array(Image.open(io.BytesIO(base64.b64decode(example().sprites))).convert("L")).astype(int)
    cut = sheet.reshape(len(SHOWN), 2, 28, 10, 28).transpose(0, 1, 3, 2, 4)
    assert np.abs(cut - frames()).max() <= 9  # half of one of 16 levels


@pytest.mark.parametrize(
    ("images", "traits", "message"),
    [
        (frames()[:1], {}, r"need frames uint8 \(2, 2, n, H, W\) or .*, got uint8 \(1, 2, 10, 28, 28\)"),
        (frames().astype(float), {}, "got float64"),
        (frames()[..., None].repeat(4, 5), {}, "with three colours at the end"),
        (frames(), {"frame": 2}, r"frame must lie in \[0, 1\], got 2"),
    ],
)
def test_what_makes_no_sense_is_refused(images: np.ndarray, traits: dict, message: str):
    with pytest.raises(ValueError, match=message):
        widgets.TrainingFilm(records(), SHOWN, images, 0.9, **traits)


def test_the_alt_text_gives_the_frames_numbers():
    film = example()
    film.frame = 0
    assert "step 20, after 0.2 minutes, with loss 0.800 and learning rate 0.0005" in film.alt()


def fixture_for_javascript() -> dict:
    film = example()
    places = [log(step / STEPS[0]) / log(STEPS[-1] / STEPS[0]) for step in STEPS]
    found = [list(film.record().values()) for film.frame in range(len(SHOWN))]
    return {"records": film.records, "steps": STEPS, "places": places, "shown": SHOWN, "found": found}
