"""The measured frontier, explored: what each sampler draws with so many evaluations, and whether the figures can tell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import hypot
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffusion_edu.plotting import COLOURS, frontier
from diffusion_edu.widgets.base import StaticFigure, Widget, to_base64
from diffusion_edu.widgets.guidance_surface import sprite_sheet
from diffusion_edu.widgets.reverse_family import one_of

NUMBERS = ("frechet", "frechet_error", "accuracy", "accuracy_error", "floor", "floor_error")
SIDE, SHOWN = 28, 6  # pixels of a digit's side, and digits of a cell
# What the command line calls a sampler, and what the field does.
NAMES = {
    "ddim": "DDIM",
    "dpm-solver++": "DPM-Solver++(2M)",
    "ipndm": "iPNDM-4",
    "edm": "Heun (EDM)",
    "edm-churn": "EDM with churn",
    "ancestral": "ancestral",
    "analytic": "Analytic-DPM",
    "predictor-corrector": "predictor-corrector",
}
CLEAR = 3.0  # combined standard errors from which on a difference counts: the best is picked from many


def load_frontier(file: Path) -> tuple[list[dict[str, Any]], np.ndarray]:
    """The cells of a measured frontier and their digits, uint8 (cells, SHOWN, SIDE, SIDE).

    file: a table of `python -m diffusion_edu evaluate --table`; where there are several sizes of cells, the smallest counts.
    A cell has `sampler`, as NAMES has it, `grid`, `evaluations`, `samples` and NUMBERS. Raises ValueError when table and
    digits do not agree.
    """
    table, digits = json.loads(file.read_text(encoding="utf-8")), np.load(file.with_suffix(".npz"))["digits"]
    if len(digits) != len(table["rows"]):
        raise ValueError(f"{file.name} has {len(table['rows'])} rows, and {len(digits)} rows of digits beside it")
    size = min(map(int, table["floors"]))
    chosen = [i for i, row in enumerate(table["rows"]) if row["samples"] == size]
    cells = []
    for row in (table["rows"][i] | table["floors"][str(size)] for i in chosen):
        known = {name: row[name] for name in ("grid", "evaluations", "samples")}
        cells.append({"sampler": NAMES[row["sampler"]]} | known | {name: round(row[name], 4) for name in NUMBERS})
    return cells, digits[chosen, :SHOWN]


class SamplerFrontier(Widget):
    """Radio buttons for the sampler and a slider for the evaluations; the cell's digits, its point, and a verdict.

    cells, digits: as `load_frontier` gives them. Traits: `sampler`, one of those measured; `evaluations`: the cell with the
    nearest number is shown. Raises ValueError for another sampler, evaluations below 1, or digits that do not fit the cells.
    """

    sampler = traitlets.Unicode().tag(sync=True)
    evaluations = traitlets.Int(10).tag(sync=True)
    cells = traitlets.List(help="by sampler, then by evaluations").tag(sync=True)
    sprites = traitlets.Unicode(help="PNG in base64: a row of digits for each cell").tag(sync=True)
    shown = traitlets.Int(help="digits in a row").tag(sync=True)

    def __init__(self, cells: Sequence[Mapping[str, Any]], digits: np.ndarray, **traits: Any) -> None:
        if (
            not len(cells)
            or digits.dtype != np.uint8
            or digits.shape[0] != len(cells)
            or digits.shape[2:] != (SIDE, SIDE)
        ):
            raise ValueError(f"need digits uint8 ({len(cells)}, n, {SIDE}, {SIDE}), got {digits.dtype} {digits.shape}")
        names = list(dict.fromkeys(cell["sampler"] for cell in cells))
        order = sorted(range(len(cells)), key=lambda i: (names.index(cells[i]["sampler"]), cells[i]["evaluations"]))
        super().__init__(
            cells=[dict(cells[i]) for i in order],
            sprites=to_base64(sprite_sheet(digits[order][:, None])),
            shown=digits.shape[1],
            **{"sampler": names[0]} | traits,
        )

    @traitlets.validate("sampler")
    def _measured(self, proposal: Any) -> str:
        return one_of("sampler", proposal.value, tuple(self.rows()))

    @traitlets.validate("evaluations")
    def _some(self, proposal: Any) -> int:
        if proposal.value < 1:
            raise ValueError(f"evaluations must be at least 1, got {proposal.value}")
        return proposal.value

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """The cells of each sampler, by evaluations."""
        found: dict[str, list[dict[str, Any]]] = {}
        for cell in self.cells:
            found.setdefault(cell["sampler"], []).append(cell)
        return found

    def cell(self) -> dict[str, Any]:
        """The chosen cell: the sampler's with the nearest number of evaluations, and of two the smaller."""
        return min(self.rows()[self.sampler], key=lambda cell: abs(cell["evaluations"] - self.evaluations))

    def static_figure(self) -> StaticFigure:
        """Draw all samplers' curves with the chosen cell marked."""
        figure = Figure(figsize=(7.4, 3.5))
        self.draw_curves(figure.subplots())
        return StaticFigure(figure, self.alt())

    def draw_curves(self, ax: Axes) -> None:
        """Draw each sampler's curve with its errors, the floor, and a ring at the chosen cell."""
        columns = ("evaluations", "frechet", "frechet_error")
        curves = {name: [[row[key] for key in columns] for row in rows] for name, rows in self.rows().items()}
        chosen = self.cell()
        frontier(ax, curves, (chosen["floor"], chosen["floor_error"]))
        ax.plot(chosen["evaluations"], chosen["frechet"], "o", ms=11, mfc="none", mec=COLOURS[3], mew=2)
        low, high = limits(self.cells)
        steps = ladder(low, high)
        ax.set(ylabel="Fréchet distance", ylim=(low, high))
        ax.set_yticks(steps, [f"{step:g}" for step in steps])
        ax.minorticks_off()
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)

    def alt(self) -> str:
        """What the static figure shows, and the verdict on the chosen cell."""
        cell, best = self.cell(), best_cell(self.cells)
        told = "can" if apart(cell, best) > CLEAR else "cannot"
        return (
            f"Fréchet distance of the digits of {len(self.rows())} samplers against evaluations, on logarithmic axes, cut "
            f"off at {limits(self.cells)[1]:g}, and a band for real digits. Marked: {cell['sampler']} with "
            f"{cell['evaluations']} evaluations, {cell['frechet']:.1f} plus or minus {cell['frechet_error']:.1f}. It {told} "
            f"be told from the lowest, {best['sampler']} with {best['evaluations']}, {best['frechet']:.1f} plus or minus "
            f"{best['frechet_error']:.1f}."
        )


def ladder(low: float, high: float) -> list[float]:
    """The numbers 1, 2, 5, 10, ..., and 0.5, 0.2, ..., in [low, high], down to 0.001."""
    steps = [float(f"{digit}e{power}") for power in range(-3, 6) for digit in (1, 2, 5)]
    return [step for step in steps if low <= step <= high]


def limits(cells: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """What the axis of distances shows: from below the lowest cell and the floor up to forty times that."""
    lowest = min(min(cell["frechet"], cell["floor"] - cell["floor_error"]) for cell in cells)
    low = ladder(1e-3, max(0.9 * lowest, 1e-2))[-1]
    return low, ladder(40 * low, 100 * low)[0]


def best_cell(cells: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The cell with the lowest Fréchet distance."""
    return min(cells, key=lambda cell: cell["frechet"])


def apart(left: Mapping[str, Any], right: Mapping[str, Any]) -> float:
    """Difference of two cells' Fréchet distances in combined standard errors: 0 for a cell and itself."""
    return abs(left["frechet"] - right["frechet"]) / hypot(left["frechet_error"], right["frechet_error"])
