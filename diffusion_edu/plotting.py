"""Every figure helper of the book. A helper draws on the Axes it is given and returns it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_edu.data import to_uint8

# Mid-tones: readable on the light plate that the book puts behind figures, and apart from each other in grey.
COLOURS = ("#2f6db3", "#d9822b", "#3d9970", "#8a5fb5", "#c0504d", "#6b7280")


def use_style() -> None:
    """Set matplotlib to the book's look: sizes for a 7.4-inch column, quiet axes, the palette COLOURS."""
    plt.rcParams.update(
        {
            "figure.figsize": (7.4, 3.0),
            "figure.dpi": 150,
            "savefig.dpi": 150,
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "font.size": 10,
            "axes.titlesize": 10,
            "axes.labelsize": 10,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.fontsize": 9,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": "#6b7280",
            "axes.prop_cycle": cycler(color=COLOURS),
            "axes.grid": True,
            "grid.color": "#e5e7eb",
            "grid.linewidth": 0.7,
        }
    )


def image_grid(images: Tensor, columns: int, gap: int = 2) -> Tensor:
    """Tile images (N, C, H, W) in [-1, 1] row by row into one picture (rows, width) or (rows, width, 3), uint8.

    The gaps are white. Raises ValueError unless N is a multiple of `columns`, and for a gap below 0.
    """
    if len(images) % columns:
        raise ValueError(f"{len(images)} images do not fill rows of {columns}")
    if gap < 0:
        raise ValueError(f"gap must be at least 0, got {gap}")
    padded = torch.nn.functional.pad(to_uint8(images), (0, gap, 0, gap), value=255)
    rows = [torch.cat(list(row), dim=2) for row in padded.split(columns)]
    whole = torch.cat(rows, dim=1)
    picture = whole[:, : whole.shape[1] - gap, : whole.shape[2] - gap]
    return picture[0] if len(picture) == 1 else picture.permute(1, 2, 0)


def show_images(ax: Axes, images: Tensor, columns: int, gap: int = 2) -> Axes:
    """Draw images (N, C, H, W) in [-1, 1] as a grid without axes."""
    ax.imshow(image_grid(images, columns, gap), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ax.axis("off")
    return ax


def loss_curve(ax: Axes, steps: Sequence[float], losses: Sequence[float]) -> Axes:
    """Draw the training loss against the step, faint, and its running mean over 5 % of the run, on a log scale."""
    window = max(1, len(losses) // 20)
    values = torch.tensor(losses, dtype=torch.float64)
    ax.plot(steps, losses, alpha=0.3, lw=1)
    if len(losses) >= window:
        ax.plot(steps[window - 1 :], values.unfold(0, window, 1).mean(1), color=ax.lines[-1].get_color())
    ax.set(xlabel="optimizer step", ylabel="loss", yscale="log")
    return ax


def save_loss_curve(path: str | Path, log: Sequence) -> None:
    """Write the loss curve of a run's records as a PNG file."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    loss_curve(figure.subplots(), [r.step for r in log], [r.loss for r in log])
    figure.savefig(path, dpi=120)


def save_image_grid(path: str | Path, images: Tensor, columns: int, zoom: int = 2) -> None:
    """Write images (N, C, H, W) in [-1, 1] as one PNG file, each pixel `zoom` pixels wide."""
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"pictures are written as .png, got {path}")
    picture = image_grid(images, columns).repeat_interleave(zoom, 0).repeat_interleave(zoom, 1)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    plt.imsave(path, picture.numpy(), cmap="gray" if picture.ndim == 2 else None, vmin=0, vmax=255)


# forward


def image_table(ax: Axes, rows: Sequence[Tensor], titles: Sequence[str] = (), labels: Sequence[str] = ()) -> Axes:
    """Draw rows of images, each (columns, 1, H, W), values outside [-1, 1] clipped.

    `titles` stand over the columns, `labels` at the left of the rows.
    """
    gap, (height, width) = 2, rows[0].shape[-2:]
    show_images(ax, torch.cat(list(rows)).clamp(-1, 1), columns=len(rows[0]), gap=gap)
    for number, title in enumerate(titles):
        ax.text(number * (width + gap) + width / 2, -3, title, ha="center", va="bottom", fontsize=9)
    for number, label in enumerate(labels):
        ax.text(-4, number * (height + gap) + height / 2, label, ha="right", va="center", fontsize=9)
    return ax


def paths_in_band(ax: Axes, paths: Tensor, mean: Tensor, std: Tensor, shown: int = 60) -> Axes:
    """Draw random paths (N, steps) against the step, over a band of mean +- 2 std, each (steps,)."""
    steps = range(len(mean))
    ax.plot(steps, paths[:shown].T, color=COLOURS[5], lw=0.5, alpha=0.35)
    ax.plot(steps, paths[:3].T, color=COLOURS[0], lw=0.9, alpha=0.9)
    ax.plot(steps, mean, color=COLOURS[1], label="mean, closed form")
    for sign in (-2, 2):
        ax.plot(steps, mean + sign * std, color=COLOURS[1], lw=1.2, ls="--")
    ax.lines[-1].set_label("mean ± 2 std")
    ax.set(xlabel="step k", ylabel=r"$x_k$", xlim=(0, len(mean) - 1))
    ax.legend(loc="upper left", ncols=2)
    return ax


def density_and_points(ax: Axes, grid: Tensor, log_density: Tensor, points: Tensor, title: str) -> Axes:
    """Draw a density in the plane as filled contours, with points (N, 2) on it.

    grid: (n,), the ticks of both axes; log_density: (n, n), rows along y.
    """
    density = log_density.exp()
    levels = torch.linspace(0, float(density.max()), 9)[1:].tolist()
    ax.contourf(grid, grid, density, levels=[levels[0] / 8, *levels], cmap="Blues", alpha=0.75, extend="max")
    ax.plot(*points.T, ".", ms=2.2, color=COLOURS[1], alpha=0.75, mew=0)
    ends = (float(grid[0]), float(grid[-1]))
    ax.set(title=title, xlim=ends, ylim=ends, aspect="equal")
    ax.axis("off")
    return ax


# score


def score_arrows(ax: Axes, points: Tensor, vectors: Tensor, colour: str = COLOURS[0]) -> Axes:
    """Draw vectors (N, 2) at points (N, 2) as arrows; the longest are shortened, so that the short ones stay visible."""
    lengths = vectors.norm(dim=1, keepdim=True)
    shown = vectors / lengths.clamp(min=1e-12) * (1 + lengths).log()
    ax.quiver(*points.T, *shown.T, color=colour, angles="xy", width=0.0045, headwidth=4, headlength=4.5, alpha=0.85)
    return ax


# elbo


def level_bars(ax: Axes, edges: Sequence[float], bits: Sequence[float], errors: Sequence[float]) -> Axes:
    """Draw the bits charged between neighbouring log-SNRs `edges` (n + 1) as n bars with error lines."""
    edges = torch.as_tensor(edges, dtype=torch.float64)
    widths = edges[1:] - edges[:-1]
    ax.bar(edges[:-1], bits, widths * 0.9, align="edge", color=COLOURS[0], alpha=0.8)
    ax.errorbar(edges[:-1] + widths * 0.45, bits, errors, fmt="none", ecolor=COLOURS[1], lw=1.2)
    ax.set(
        xlabel="log-SNR λ (left: noise, right: data)", ylabel="bits a pixel", xlim=(float(edges[0]), float(edges[-1]))
    )
    ax.grid(axis="x", visible=False)
    return ax


def staircase(ax: Axes, x: Tensor, curve: Tensor, edges: Tensor, heights: Tensor) -> Axes:
    """Draw a falling curve with the area below it, and the upper staircase of `heights` (n) between `edges` (n + 1)."""
    ax.stairs(heights, edges, fill=True, color=COLOURS[1], alpha=0.25, label="a chain of steps pays")
    ax.stairs(heights, edges, color=COLOURS[1], lw=1)
    ax.fill_between(x, curve, color=COLOURS[0], alpha=0.35, lw=0)
    ax.plot(x, curve, color=COLOURS[0], label="continuous time pays")
    ax.set(ylim=(0, None), xlim=(float(edges[0]), float(edges[-1])))
    return ax


# --- fast


def frontier(ax: Axes, curves: dict[str, Sequence[Sequence[float]]], floor: tuple[float, float] | None = None) -> Axes:
    """Draw a figure of merit against evaluations, both logarithmic: for each name rows (evaluations, value[, error]).

    floor: mean and standard deviation of what real data get, as a band. A name without rows is not drawn, but keeps its
    colour. Where the colours run out, the lines are dashed.
    """
    for number, (name, rows) in enumerate(curves.items()):
        if not rows:
            continue
        x, y, *error = zip(*sorted(rows), strict=True)
        colour, marker = COLOURS[number % len(COLOURS)], "os^DvPXh"[number % 8]
        style = {"color": colour, "marker": marker, "ls": "-" if number < len(COLOURS) else "--"}
        ax.errorbar(x, y, error[0] if error else None, ms=4, lw=1.3, elinewidth=0.8, label=name, **style)
    if floor is not None:
        ax.axhspan(floor[0] - floor[1], floor[0] + floor[1], color=COLOURS[5], alpha=0.25, lw=0, label="real data")
    ax.set(xscale="log", yscale="log", xlabel="evaluations of the denoiser")
    ticks = [4, 5, 10, 20, 50, 100, 200]
    ax.set_xticks(ticks, [str(t) for t in ticks])
    ax.minorticks_off()
    return ax


# --- steering


def curves_by_method(ax: Axes, rows: Sequence[dict], key: str, x: str = "t") -> Axes:
    """Draw rows[...][key], a pair of mean and standard error, over rows[...][x], one curve for each row["method"]."""
    for method, colour in zip(dict.fromkeys(row["method"] for row in rows), cycle(COLOURS), strict=False):
        some = [row for row in rows if row["method"] == method]
        means, errors = zip(*(row[key] for row in some), strict=True)
        ax.errorbar([row[x] for row in some], means, errors, fmt="o-", ms=4, color=colour, label=method)
    ax.set(xlabel="how far to noise, L")
    return ax
