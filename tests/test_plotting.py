"""Figure helpers: the pixels of a grid, what is drawn on given axes, files."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch

from diffusion_edu import plotting
from diffusion_edu.training import Record


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def levels(*values):
    """One 1 x 1 image for each value in [-1, 1]."""
    return torch.tensor(values).reshape(-1, 1, 1, 1)


def test_a_grid_is_filled_row_by_row_with_white_gaps():
    picture = plotting.image_grid(levels(-1.0, 0.0, 1.0, -1.0), columns=2, gap=1)
    assert picture.dtype == torch.uint8
    assert picture.tolist() == [[0, 255, 128], [255, 255, 255], [255, 255, 0]]


def test_colours_come_last():
    images = torch.stack([torch.tensor([1.0, -1.0, -1.0]), torch.tensor([-1.0, -1.0, 1.0])])[:, :, None, None]
    picture = plotting.image_grid(images, columns=2, gap=1)
    assert picture.shape == (1, 3, 3)
    assert picture[0].tolist() == [[255, 0, 0], [255, 255, 255], [0, 0, 255]]


def test_a_grid_that_is_not_full_is_refused():
    with pytest.raises(ValueError, match="3 images do not fill rows of 2"):
        plotting.image_grid(levels(0.0, 0.0, 0.0), columns=2)


def test_images_are_drawn_on_the_given_axes(ax):
    assert plotting.show_images(ax, levels(-1.0, 1.0), columns=2) is ax
    assert ax.images[0].get_array().tolist() == [[0, 255, 255, 255]]
    assert ax.images[0].get_clim() == (0, 255)
    assert not ax.axison


def test_a_table_of_images_clips_and_labels(ax):
    plotting.image_table(ax, [levels(-3.0, 3.0), levels(0.0, 0.0)], titles=("a", "b"), labels=("one", "two"))
    assert ax.images[0].get_array()[0].tolist() == [0, 255, 255, 255]
    assert [text.get_text() for text in ax.texts] == ["a", "b", "one", "two"]


@pytest.mark.parametrize("n", [1, 5, 40])
def test_a_loss_curve_and_its_running_mean(ax, n):
    losses = [float(k) for k in range(1, n + 1)]
    plotting.loss_curve(ax, list(range(n)), losses)
    raw, smooth = (line.get_ydata().tolist() for line in ax.lines)
    window = max(1, n // 20)
    assert raw == losses
    assert smooth == pytest.approx([sum(losses[k : k + window]) / window for k in range(n - window + 1)])
    assert ax.get_yscale() == "log"


def test_pictures_are_written(tmp_path):
    plotting.save_loss_curve(tmp_path / "loss.png", [Record(20, 0.5, 1e-3, 1.0), Record(40, 0.4, 1e-3, 2.0)])
    assert plt.imread(tmp_path / "loss.png").shape[:2] == (420, 720)
    plotting.save_image_grid(tmp_path / "deep" / "grid.png", levels(-1.0, 1.0), columns=2, zoom=3)
    picture = plt.imread(tmp_path / "deep" / "grid.png")
    assert picture.shape[:2] == (3, 12)
    assert picture[0, :, 0].tolist() == [0.0] * 3 + [1.0] * 9


def test_paths_stand_over_their_band(ax):
    paths = torch.randn(5, 11, generator=torch.Generator().manual_seed(0))
    mean, std = paths.mean(0), paths.std(0)
    assert plotting.paths_in_band(ax, paths, mean, std) is ax
    drawn = [torch.as_tensor(line.get_ydata()) for line in ax.lines]
    for wanted in (mean, mean + 2 * std, mean - 2 * std, paths[4]):
        assert any(torch.equal(line, wanted) for line in drawn)


def test_a_density_with_points(ax):
    grid = torch.linspace(-1, 1, 20)
    log_density = -(grid[:, None] ** 2 + grid**2)
    plotting.density_and_points(ax, grid, log_density, torch.zeros(3, 2), "t = 0")
    assert ax.get_title() == "t = 0"
    assert len(ax.lines[0].get_xdata()) == 3
    assert ax.get_xlim() == ax.get_ylim() == (-1, 1)


def test_the_style_is_the_books(monkeypatch):
    with matplotlib.rc_context():
        plotting.use_style()
        assert plt.rcParams["axes.prop_cycle"].by_key()["color"] == list(plotting.COLOURS)


def test_arrows_keep_their_direction_and_the_long_ones_are_shortened(ax):
    points = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]], dtype=torch.float64)
    vectors = torch.tensor([[3.0, 4.0], [0.0, -50.0], [0.0, 0.0]], dtype=torch.float64)
    assert plotting.score_arrows(ax, points, vectors) is ax
    arrows = ax.collections[0]
    assert arrows.get_offsets().tolist() == points.tolist()
    lengths = torch.tensor([6.0, 51.0, 1.0], dtype=torch.float64).log()
    drawn = torch.stack([torch.as_tensor(arrows.U), torch.as_tensor(arrows.V)], 1)
    torch.testing.assert_close(drawn.norm(dim=1), lengths)
    torch.testing.assert_close(drawn[0] / drawn[0].norm(), torch.tensor([0.6, 0.8], dtype=torch.float64))
