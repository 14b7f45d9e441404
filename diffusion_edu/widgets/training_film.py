"""A training run as a film: what the same noises become after more and more steps, above the loss."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
from matplotlib.figure import Figure
from PIL import Image

from diffusion_edu.film import DRAWERS, read_film
from diffusion_edu.plotting import COLOURS
from diffusion_edu.training import TrainConfig
from diffusion_edu.widgets.base import StaticFigure, Widget, check_range, to_base64
from diffusion_edu.widgets.guidance_surface import sprite_sheet

COLUMNS = ("step", "loss", "rate", "minutes")


def load_film(file: Path) -> tuple[list[dict[str, float]], list[int], np.ndarray, float]:
    """What `benchmarks.training_film` wrote: records, the frames' steps, frames, and where the average has its centre.

    Records have COLUMNS. Frames are uint8 (frames, 2, classes, H, W), or with a last axis for the colours, by DRAWERS. The
    centre is a share of the steps so far. Raises ValueError when film and log do not agree.
    """
    facts = json.loads(file.read_text(encoding="utf-8"))
    log, film = facts["log"], read_film(file.with_suffix(".npz"))
    rows = zip(log["step"], log["loss"], log["rate"], log["seconds"], strict=True)
    records = [{"step": k, "loss": loss, "rate": rate, "minutes": s / 60} for k, loss, rate, s in rows]
    steps, frames = [step for step, _ in film], np.stack([frame for _, frame in film])
    if not set(steps) <= set(log["step"]):
        raise ValueError(f"{file.name} needs frames of steps that its log has, got {steps}")
    frames = frames[:, :, :, 0] if frames.shape[3] == 1 else np.moveaxis(frames, 3, 5)
    return records, steps, frames, centre(facts["training"]["ema"])


def centre(ema: float) -> float:
    """Mean place of the weights in an average of relative width `ema`, as a share of the steps so far; 1 for none."""
    power = TrainConfig(ema=ema).ema_power if ema else np.inf
    return float(1 / (1 + 1 / power))


def colour_sheet(frames: np.ndarray) -> bytes:
    """The colour frames (frames, 2, n, H, W, 3) as one JPEG: two rows of n images for each frame."""
    f, rows, n, height, width, _ = frames.shape
    content = io.BytesIO()
    sheet = frames.transpose(0, 1, 3, 2, 4, 5).reshape(f * rows * height, n * width, 3)
    Image.fromarray(sheet).save(content, "JPEG", quality=82)
    return content.getvalue()


class TrainingFilm(Widget):
    """A slider over the frames: ten images by the average and by the weights, the loss curve, rate and minutes.

    Arguments as `load_film` gives them. Traits: `frame`, the number of the frame shown; `noun`, what the images are. Raises
    ValueError for a frame that there is none of, or images that do not fit the steps.
    """

    frame = traitlets.Int(0).tag(sync=True)
    steps = traitlets.List(help="step of each frame").tag(sync=True)
    records = traitlets.List(help="[step, loss, rate, minutes] of each record").tag(sync=True)
    centre = traitlets.Float(help="where the average has its centre, as a share of the steps so far").tag(sync=True)
    noun = traitlets.Unicode("digits").tag(sync=True)
    sprites = traitlets.Unicode(help="PNG, of colours JPEG, in base64: two rows of images a frame").tag(sync=True)
    size = traitlets.List(help="images in a row, height and width of one").tag(sync=True)

    def __init__(
        self,
        records: Sequence[Mapping[str, float]],
        steps: Sequence[int],
        frames: np.ndarray,
        centre: float,
        **traits: Any,
    ) -> None:
        grey = frames.ndim == 5
        fits = frames.shape[:2] == (len(steps), len(DRAWERS)) and (grey or frames.shape[5:] == (3,))
        if frames.dtype != np.uint8 or not fits:
            wanted = f"({len(steps)}, 2, n, H, W) or with three colours at the end"
            raise ValueError(f"need frames uint8 {wanted}, got {frames.dtype} {frames.shape}")
        super().__init__(
            steps=list(steps),
            records=[[round(record[name], 6) for name in COLUMNS] for record in records],
            centre=centre,
            sprites=to_base64(sprite_sheet(frames) if grey else colour_sheet(frames)),
            size=list(frames.shape[2:5]),
            **{"frame": len(steps) // 2} | traits,
        )
        self.frames = frames

    @traitlets.validate("frame")
    def _one_of_them(self, proposal: Any) -> int:
        return int(check_range("frame", proposal.value, 0, len(self.steps) - 1))

    def record(self) -> dict[str, float]:
        """The record of the shown frame."""
        return dict(zip(COLUMNS, next(r for r in self.records if r[0] == self.steps[self.frame]), strict=True))

    def static_figure(self) -> StaticFigure:
        """Draw the average's images at five frames above the loss curve."""
        figure = Figure(figsize=(7.4, 3.9))
        films, curve = figure.subplots(2, 1, height_ratios=(3, 2))
        chosen = np.unique(np.linspace(0, len(self.steps) - 1, 5).round().astype(int))
        rows = self.frames[chosen, 0]
        films.imshow(np.vstack([np.hstack(row) for row in rows]), cmap="gray", vmin=0, vmax=255, aspect="equal")
        height = self.size[1]
        films.set_yticks([height * (i + 0.5) for i in range(len(rows))], [f"step {self.steps[i]:,}" for i in chosen])
        films.set(xticks=[])
        films.grid(False)
        films.tick_params(length=0)
        step, loss = zip(*(record[:2] for record in self.records), strict=True)
        curve.plot(step, loss, lw=1.2)
        shown = self.record()
        curve.plot(shown["step"], shown["loss"], "o", color=COLOURS[1])
        curve.set(xscale="log", yscale="log", xlabel="optimizer step", ylabel="loss")
        return StaticFigure(figure, self.alt())

    def alt(self) -> str:
        """What the static figure shows, with the numbers of the chosen frame."""
        now = self.record()
        return (
            f"{self.noun.capitalize()} drawn from the same noises after {self.steps[0]:,} to {self.steps[-1]:,} training "
            f"steps, and the loss over the steps on logarithmic axes. Marked: step {now['step']:,.0f}, after "
            f"{now['minutes']:.1f} minutes, with loss {now['loss']:.3f} and learning rate {now['rate']:.2g}."
        )
