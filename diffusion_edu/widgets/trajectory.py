"""Sampling, watched: what a sampler held at each time, and what the denoiser believed it would become."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_edu.data import to_uint8
from diffusion_edu.plotting import COLOURS, image_table
from diffusion_edu.samplers import Step
from diffusion_edu.widgets.base import StaticFigure, Widget, check_range, grey_png, to_base64

MOST_IMAGES = 20
SHOWN = 5  # times in the static figure


class Trajectory(Widget):
    """A slider over a sampling run: x_t above, the estimate x0_hat below, and how far both are from the end.

    steps: what a sampler yielded, all of it; grey images (N, 1, H, W) with N <= 20. labels: (N,), what was asked for,
    or None. frames: how many of the times are kept, the first and the last (t = 0, the finished images) among them.
    `time_index` counts frames in sampling order; it starts where log-SNR is nearest to -2, when x_t is still noise.
    Raises ValueError for anything else.
    """

    time_index = traitlets.Int(0, help="which frame is shown").tag(sync=True)
    times = traitlets.List(help="t of each frame, decreasing").tag(sync=True)
    log_snrs = traitlets.List(help="log signal-to-noise ratio of each frame, None where it is infinite").tag(sync=True)
    distances = traitlets.List(help="root mean square of x0_hat - x_end in each frame").tag(sync=True)
    state_distances = traitlets.List(help="root mean square of x_t - x_end in each frame").tag(sync=True)
    labels = traitlets.List(help="what was asked for, as texts").tag(sync=True)
    shape = traitlets.List(help="height and width of an image").tag(sync=True)
    sprites = traitlets.Unicode(help="PNG in base64: a pair of rows, x_t and x0_hat, for each frame").tag(sync=True)

    def __init__(
        self, steps: Sequence[Step], labels: Tensor | Sequence | None = None, frames: int = 33, **traits: Any
    ) -> None:
        steps = list(steps)
        check_steps(steps, frames)
        self.x, self.x0_hat, ts, log_snr = kept_frames(steps, frames)  # (F, N, 1, H, W) twice, (F,) twice
        end = self.x[-1]
        super().__init__(
            times=[round(t, 6) for t in ts.tolist()],
            log_snrs=[round(value, 4) if abs(value) < torch.inf else None for value in log_snr.tolist()],
            distances=root_mean_squares(self.x0_hat - end),
            state_distances=root_mean_squares(self.x - end),
            labels=label_texts(labels, len(end)),
            shape=list(end.shape[-2:]),
            sprites=to_base64(sprite_sheet(self.x, self.x0_hat)),
            **{"time_index": int((log_snr + 2).abs().argmin()), **traits},
        )

    @traitlets.validate("time_index")
    def _known_frame(self, proposal: Any) -> int:
        return int(check_range("time_index", proposal.value, 0, len(self.x) - 1))

    def static_figure(self) -> StaticFigure:
        """Draw x_t and x0_hat at a few times, and the distances over all of them."""
        figure = Figure(figsize=(7.4, 6.4))
        pictures, chart = figure.subfigures(2, 1, height_ratios=(3.4, 1))
        self.draw_table(pictures.subplots())
        self.draw_distances(chart.subplots())
        return StaticFigure(figure, self.alt())

    def draw_table(self, ax: Axes) -> None:
        """Draw x_t and, under it, x0_hat at `SHOWN` of the frames, one image a column."""
        shown = torch.linspace(0, len(self.x) - 1, SHOWN).round().long().unique().tolist()
        rows = [images for frame in shown for images in (self.x[frame], self.x0_hat[frame])]
        labels = [text for frame in shown for text in (f"t = {self.times[frame]:.2f}:  $x_t$", r"$\hat x_0$")]
        image_table(ax, rows, titles=self.labels, labels=labels)

    def draw_distances(self, ax: Axes) -> None:
        """Draw how far x_t and x0_hat are from the finished images, over sampling time."""
        ax.plot(self.times, self.state_distances, color=COLOURS[5], ls="--", label="$x_t$")
        ax.plot(self.times, self.distances, color=COLOURS[0], label=r"$\hat x_0$")
        ax.set(xlabel="time t", title="Distance to the finished image (root mean square)", ylim=(0, None))
        ax.invert_xaxis()
        ax.legend()

    def alt(self) -> str:
        """What the static figure shows, with its numbers."""
        half = next(i for i, distance in enumerate(self.distances) if distance <= self.distances[0] / 2)
        return (
            f"{len(self.labels)} images ({', '.join(self.labels)}) being sampled from t = {self.times[0]:.2f} to "
            f"t = {self.times[-1]:.2f}: the noisy states, under each the denoiser's estimate of the finished image. The "
            f"estimate's distance to the finished images has halved at t = {self.times[half]:.2f}."
        )


def check_steps(steps: Sequence[Step], frames: int) -> None:
    """Raise ValueError unless the steps are those of a run over grey images that ends at t = 0."""
    if frames < 2:
        raise ValueError(f"frames must be at least 2, got {frames}")
    if not steps:
        raise ValueError("steps must be what a sampler yielded, got none")
    shape = tuple(steps[-1].x.shape)
    if len(shape) != 4 or shape[1] != 1 or not 1 <= shape[0] <= MOST_IMAGES:
        raise ValueError(f"need 1 to {MOST_IMAGES} grey images (N, 1, H, W), got {shape}")
    if float(steps[-1].t) != 0:
        raise ValueError(f"need all the steps of a run, down to t = 0; the last one is at t = {float(steps[-1].t):.4g}")


def kept_frames(steps: Sequence[Step], frames: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x_t and x0_hat, (F, N, 1, H, W) each, t and log-SNR, (F,) each, at F <= `frames` times of a run.

    At t = 0 the finished images stand for both.
    """
    kept = torch.linspace(0, len(steps), min(frames, len(steps) + 1)).round().long().tolist()
    predictions = [steps[k].prediction for k in kept[:-1]]
    end, schedule = steps[-1].x, predictions[0].schedule
    ts = torch.stack(
        [prediction.t.double().cpu() for prediction in predictions] + [torch.zeros((), dtype=torch.float64)]
    )
    x = torch.stack([prediction.x_t for prediction in predictions] + [end])
    x0_hat = torch.stack([prediction.x0 for prediction in predictions] + [end])
    return x.float().cpu(), x0_hat.float().cpu(), ts, schedule.log_snr(ts)


def root_mean_squares(difference: Tensor) -> list[float]:
    """Root mean square over all but the first axis."""
    return [round(value, 5) for value in difference.flatten(1).square().mean(1).sqrt().tolist()]


def label_texts(labels: Tensor | Sequence | None, count: int) -> list[str]:
    """One text for each image; ValueError when their number differs."""
    if labels is None:
        return [f"image {number}" for number in range(1, count + 1)]
    texts = [str(label) for label in (labels.tolist() if isinstance(labels, Tensor) else labels)]
    if len(texts) != count:
        raise ValueError(f"need one label for each of {count} images, got {len(texts)}")
    return texts


def sprite_sheet(x: Tensor, x0_hat: Tensor) -> bytes:
    """All frames as one PNG of 16 grey levels; frame f fills rows 2 f H (x_t) to 2 (f + 1) H (x0_hat below it)."""
    pairs = torch.stack([x, x0_hat], dim=1)[:, :, :, 0]  # (F, 2, N, H, W)
    sheet = pairs.permute(0, 1, 3, 2, 4).flatten(3).flatten(0, 2)  # (F 2 H, N W)
    return grey_png(to_uint8(sheet).numpy())
