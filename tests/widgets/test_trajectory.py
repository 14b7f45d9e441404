"""The trajectory: its frames are the run, its distances are measured from the end."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_edu.analytic import empirical_denoiser
from diffusion_edu.data import load, to_float
from diffusion_edu.samplers import ancestral, ddim
from diffusion_edu.schedules import LinearBeta, time_grid
from tests.widgets import Parts

widgets = pytest.importorskip("diffusion_edu.widgets", reason="anywidget is not installed: widgets were not tested")

NAME, PAGE, SLIDER = "Trajectory", "book/denoising.html", "time"


def run() -> list:
    """Return a run of 40 steps for ten images, with the exact denoiser of forty digits."""
    digits = to_float(load("mnist", "test").images[:40])
    schedule, generator = LinearBeta(), torch.Generator().manual_seed(0)
    x_T = torch.randn(10, 1, 28, 28, generator=generator)
    return list(ancestral(empirical_denoiser(digits, schedule), x_T, time_grid(schedule, 40), generator=generator))


def example() -> "widgets.Trajectory":
    return widgets.Trajectory(run(), labels=range(10))


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    return to_float(load("mnist", "test").images[:40])


@pytest.fixture(scope="module")
def steps() -> list:
    return run()


@pytest.fixture
def trajectory(steps: list) -> "widgets.Trajectory":
    return widgets.Trajectory(steps, labels=range(10))


def test_text_in_the_state_cannot_end_the_script(steps: list):
    evil = ['</script><img src=x onerror="alert(1)">', "<!--", "&amp;\u2028", *"3456789"]
    parts = Parts(widgets.Trajectory(steps, labels=evil).to_html())
    assert json.loads(parts.scripts["edu-state"])["labels"] == evil
    assert "onerror" not in parts.picture
    assert parts.picture["alt"].count("</script>") == 1, "the alternative text says it as text"


def unpacked(trajectory) -> torch.Tensor:
    """Return the frames of a sprite sheet as the module cuts them: (F, 2, N, H, W) in [-1, 1]."""
    sheet = Image.open(io.BytesIO(base64.b64decode(trajectory.sprites))).convert("L")
    height, width = trajectory.shape
    pixels = to_float(torch.from_numpy(np.array(sheet)))
    return pixels.reshape(len(trajectory.times), 2, height, len(trajectory.labels), width).permute(0, 1, 3, 2, 4)


def test_frames_are_the_run(trajectory, steps: list):
    frames = unpacked(trajectory)
    first, last = steps[0].prediction, steps[-1].x
    half_a_level = 1 / 15 + 1 / 255  # 16 levels over [-1, 1], rounded, and the rounding to 8 bits before
    for found, expected in [
        (frames[0, 0], first.x_t),
        (frames[0, 1], first.x0),
        (frames[-1, 0], last),
        (frames[-1, 1], last),
    ]:
        torch.testing.assert_close(found, expected[:, 0].clamp(-1, 1), atol=half_a_level, rtol=0)


def test_times_fall_to_zero_and_start_where_the_picture_is_decided(trajectory):
    assert len(trajectory.times) == 33
    assert (trajectory.times[0], trajectory.times[-1], trajectory.log_snrs[-1]) == (1.0, 0.0, None)
    assert trajectory.times == sorted(trajectory.times, reverse=True)
    assert abs(trajectory.log_snrs[trajectory.time_index] + 2) < 0.5  # the grid of 33 times is that fine there


def test_distances_are_measured_from_the_end(trajectory, steps: list):
    end, first = steps[-1].x, steps[0].prediction
    for found, expected in [(trajectory.distances, first.x0 - end), (trajectory.state_distances, first.x_t - end)]:
        assert found[0] == pytest.approx(float(expected.square().mean().sqrt()), abs=1e-5)  # rounded to 5 digits
        assert found[-1] == 0


def test_short_runs_keep_every_step(steps: list):
    schedule = LinearBeta()
    x_T = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    data = steps[-1].x
    short_run = list(ddim(empirical_denoiser(data, schedule), x_T, time_grid(schedule, 3)))
    short = widgets.Trajectory(short_run)
    assert len(short.times) == 4
    assert short.labels == ["image 1", "image 2"]


def test_observers_hear_of_time(trajectory):
    heard = []
    trajectory.observe(lambda change: heard.append(change.new), "time_index")
    trajectory.time_index = 3
    assert heard == [3]


@pytest.mark.parametrize("index", [-1, 33])
def test_trajectory_refuses_times_it_has_not(trajectory, index: int):
    with pytest.raises(ValueError, match=rf"time_index must lie in \[0, 32\], got {index}"):
        trajectory.time_index = index


def test_trajectory_refuses_what_is_no_whole_run(steps: list):
    for wrong, message in [([], "got none"), (steps[:-1], "down to t = 0")]:
        with pytest.raises(ValueError, match=message):
            widgets.Trajectory(wrong)
    with pytest.raises(ValueError, match="one label for each of 10 images, got 3"):
        widgets.Trajectory(steps, labels=[1, 2, 3])
    with pytest.raises(ValueError, match="frames must be at least 2, got 1"):
        widgets.Trajectory(steps, frames=1)


def test_trajectory_refuses_coloured_images(digits: torch.Tensor):
    schedule, coloured = LinearBeta(), digits.repeat(1, 3, 1, 1)
    short_run = list(ddim(empirical_denoiser(coloured, schedule), torch.randn(2, 3, 28, 28), time_grid(schedule, 2)))
    with pytest.raises(ValueError, match=r"grey images \(N, 1, H, W\), got \(2, 3, 28, 28\)"):
        widgets.Trajectory(short_run)
