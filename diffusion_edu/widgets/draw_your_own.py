"""A drawing of the reader's own, noised and made a digit by the network, or erased in part and filled in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_edu.data import to_float
from diffusion_edu.noise import SharedNoise
from diffusion_edu.plotting import COLOURS, image_table
from diffusion_edu.process import normal_like, q_sample
from diffusion_edu.schedules import Cosine
from diffusion_edu.widgets.base import StaticFigure, Widget, check_range, to_base64
from diffusion_edu.widgets.live import LiveNetwork
from diffusion_edu.widgets.partial_noising import LEVELS, grey

SIZE = 28  # cells a side
PEN, EDGE, ERASER = 1.4, 1.2, 2.6  # radius of a stroke, width of its soft edge, radius of the eraser, all in cells
MODES = ("noise and denoise", "erase and fill in")
RESAMPLES = (1, 5)  # how often the network visits each step of a filling
DRAWN = 4  # results side by side, from the seeds seed ... seed + 3
NO_CLASS = 10

Strokes = Sequence[Sequence[Sequence[float]]]


class DrawYourOwn(LiveNetwork, Widget):
    """A canvas of 28 x 28 cells, a slider for how far the drawing is noised, and what the network makes of it.

    examples: for each a dict: name, `strokes` and `erased`, and over the T `times` the mean `distance` of its results
    to the drawing and to the `nearest` real digit, root mean squares of a pixel. noised: (E, T, 4, 28, 28), results in
    [-1, 1], and filled: (E, R, 4, 28, 28), those for the erased part with RESAMPLES; all without a label, from the seeds
    0 ... 3. floor: `nearest` of real digits. strokes, erased: what is drawn and erased now, see `distance_to`. mode, place,
    repeats: which of MODES, `times`, RESAMPLES. denoiser: see `LiveNetwork`.
    Raises ValueError for shapes that disagree and settings out of range.
    """

    mode = traitlets.Int(0, help="which of MODES").tag(sync=True)
    place = traitlets.Int(0, help="which of the times the drawing is noised to").tag(sync=True)
    label = traitlets.Int(NO_CLASS, help="class asked for, 10 for none").tag(sync=True)
    w = traitlets.Float(2.0, help="guidance weight, where a class is asked for").tag(sync=True)
    repeats = traitlets.Int(0, help="which of RESAMPLES").tag(sync=True)
    seed = traitlets.Int(0, help="seed of the first of the four noises").tag(sync=True)
    strokes = traitlets.List(help="what is drawn: strokes of [column, row]").tag(sync=True)
    erased = traitlets.List(help="what is erased: strokes of [column, row]").tag(sync=True)
    times = traitlets.List(help="how far to noise").tag(sync=True)
    examples = traitlets.List(help="drawings to begin with, and what was measured on them").tag(sync=True)
    floor = traitlets.Float(help="distance of a real digit to the nearest other one").tag(sync=True)
    pixels = traitlets.Unicode(help="base64, two pixels a byte: noised, filled; high nibble first").tag(sync=True)

    def __init__(
        self,
        examples: Sequence[dict[str, Any]],
        noised: Tensor,
        filled: Tensor,
        times: Sequence[float],
        floor: float,
        **traits: Any,
    ) -> None:
        count, picture = len(examples), (DRAWN, SIZE, SIZE)
        wanted = (count, len(times), *picture), (count, len(RESAMPLES), *picture)
        if (noised.shape, filled.shape) != wanted:
            raise ValueError(
                f"need noised {wanted[0]} and filled {wanted[1]}, got {tuple(noised.shape)} and {tuple(filled.shape)}"
            )
        self.noised, self.filled = grey(noised), grey(filled)
        levels = torch.cat([self.noised.flatten(), self.filled.flatten()])
        nibbles = ((levels + 1) * (LEVELS - 1) / 2).round().to(torch.uint8).reshape(-1, 2)
        first = {"strokes": examples[0]["strokes"], "erased": examples[0]["erased"], "place": 3 * len(times) // 4}
        super().__init__(
            times=[float(t) for t in times],
            examples=[dict(each) for each in examples],
            floor=float(floor),
            pixels=to_base64((nibbles[:, 0] * LEVELS + nibbles[:, 1]).numpy().tobytes()),
            **(first | traits),
        )

    @classmethod
    def from_files(cls, folder: Path, **traits: Any) -> DrawYourOwn:
        """The widget on what `benchmarks/draw_your_own.py` wrote into `folder`."""
        packed = np.load(folder / "draw_your_own.npz")
        parts = [to_float(torch.from_numpy(packed[name])) for name in ("noised", "filled")]
        facts = json.loads((folder / "draw_your_own.json").read_text())
        return cls(facts["examples"], *parts, facts["times"], facts["floor"][0], **traits)

    @traitlets.validate("mode", "place", "label", "repeats", "w", "seed")
    def _inside(self, proposal: Any) -> float:
        high = {
            "mode": len(MODES) - 1,
            "place": max(len(self.times) - 1, 0),
            "label": NO_CLASS,
            "repeats": len(RESAMPLES) - 1,
            "w": 10,
            "seed": 2**32 - DRAWN,
        }
        return check_range(proposal.trait.name, proposal.value, 0, high[proposal.trait.name])

    @traitlets.validate("strokes", "erased")
    def _points(self, proposal: Any) -> list:
        for point in (point for stroke in proposal.value for point in stroke):
            if len(point) != 2:
                raise ValueError(f"a point of {proposal.trait.name} is [column, row], got {point}")
        return proposal.value

    @property
    def drawing(self) -> Tensor:
        """What is drawn now, (1, 1, 28, 28) float32 in [-1, 1]: what the network is shown."""
        return rasterise(self.strokes).float()[None, None] * 2 - 1

    @property
    def mask(self) -> Tensor:
        """1 where the drawing is kept and 0 where it is erased, (1, 1, 28, 28) float32."""
        return (distance_to(self.erased) > ERASER).float()[None, None]

    @property
    def noises(self) -> list[int]:
        """The seeds of the four results."""
        return [self.seed + number for number in range(DRAWN)]

    def noise(self) -> Tensor:
        """The drawing noised to the chosen time with each of the four noises, (4, 1, 28, 28)."""
        x0 = self.drawing.double().expand(DRAWN, -1, -1, -1)
        t = torch.tensor(self.times[self.place], dtype=torch.float64)
        return q_sample(Cosine(), x0, t, normal_like(x0, SharedNoise(self.noises)))

    def example(self) -> int | None:
        """Which example is drawn now; None for a drawing of the reader's own."""
        found = [i for i, each in enumerate(self.examples) if each["strokes"] == self.strokes]
        return found[0] if found else None

    def static_figure(self) -> StaticFigure:
        """Draw an example's results at six of the times, its filling, and its distances, as no network answers in print."""
        number = self.example() or 0
        facts, shown = self.examples[number], torch.linspace(0, len(self.times) - 1, 6).round().long()
        figure = Figure(figsize=(7.4, 6.2))
        pictures, chart = figure.subfigures(2, 1, height_ratios=(2.6, 1))
        x0, kept = rasterise(facts["strokes"]) * 2 - 1, distance_to(facts["erased"]) > ERASER
        rows = [torch.cat([x0[None], self.noised[number, shown, seed]])[:, None] for seed in range(3)]
        erased = torch.where(kept, x0, -0.4)
        rows.append(
            torch.cat([erased[None], torch.ones(1, SIZE, SIZE), self.filled[number, -1], torch.ones(1, SIZE, SIZE)])[
                :, None
            ]
        )
        titles = ["drawing"] + [f"L = {self.times[i]:.2f}" for i in shown]
        image_table(pictures.subplots(), rows, titles=titles, labels=["noise 0", "noise 1", "noise 2", "filled in"])
        ax = chart.subplots()
        ax.plot(self.times, facts["distance"], "o-", ms=3, color=COLOURS[0], label="to the drawing")
        ax.plot(self.times, facts["nearest"], "o-", ms=3, color=COLOURS[1], label="to the nearest real digit")
        ax.axhline(self.floor, color=COLOURS[5], ls="--", lw=1, label="a real digit to the nearest other one")
        ax.set(
            xlabel="how far to noise, L", title="distance of the results (root mean square of a pixel)", ylim=(0, None)
        )
        ax.legend(fontsize=8)
        return StaticFigure(figure, self.alt(number))

    def alt(self, number: int) -> str:
        """What the static figure shows of an example, with its numbers at the first, the chosen and the last time."""
        facts = self.examples[number]
        texts = [
            f"noised to L = {self.times[i]:.2f} they are {facts['distance'][i]:.2f} from the drawing and "
            f"{facts['nearest'][i]:.2f} from the nearest real digit"
            for i in (0, self.place, len(self.times) - 1)
        ]
        return (
            f"A drawing, {facts['name']}, and what the network makes of it from three noises. As root mean squares of a "
            f"pixel, {'; '.join(texts)}. For a real digit the nearest other one is {self.floor:.2f} away. Below, the "
            "drawing with a part erased, and four fillings."
        )


# --- strokes ------------------------------------------------------------------------------------------


def distance_to(strokes: Strokes) -> Tensor:
    """Distance in cells of the centre of each of the 28 x 28 cells to the nearest stroke, float64; infinite without any.

    strokes: lists of [column, row] in cells from the upper left corner; a stroke of one point is a dot.
    """
    centres = torch.arange(SIZE, dtype=torch.float64) + 0.5
    cells = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1).reshape(-1, 1, 2)
    ends = [[a, b] for stroke in strokes for a, b in zip(stroke, [*stroke[1:], stroke[-1]], strict=True)]
    if not ends:
        return torch.full((SIZE, SIZE), torch.inf, dtype=torch.float64)
    start, end = torch.tensor(ends, dtype=torch.float64).unbind(1)
    along = end - start
    share = ((cells - start) * along).sum(-1) / along.square().sum(-1).clamp(min=1e-12)
    gap = cells - start - share.clamp(0, 1)[..., None] * along
    return gap.norm(dim=-1).amin(1).reshape(SIZE, SIZE)


def rasterise(strokes: Strokes) -> Tensor:
    """Ink of the strokes in each cell, (28, 28) float64 in [0, 1]: full on the stroke, falling off over EDGE cells beside.

    PEN and EDGE give strokes as wide and as soft as the median of MNIST's ones.
    """
    return (0.5 + (PEN - distance_to(strokes)) / EDGE).clamp(0, 1)
