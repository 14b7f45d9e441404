"""A measured surface, explored: fidelity and variety of guided digits over the weight w and the share of dropped labels."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np
import traitlets
from matplotlib.figure import Figure

from diffusion_edu.metrics import share_error
from diffusion_edu.plotting import COLOURS
from diffusion_edu.widgets.base import StaticFigure, Widget, check_range, grey_png, to_base64

SHARES = ("accuracy", "precision", "recall")
MEASURES = (*SHARES, "frechet")


class GuidanceSurface(Widget):
    """Sliders for w and p_null; ten digits, one of each class, and the curves over w with their error bars.

    surface: {"p_null": [...], "w": [...], "cells": [{"p_null", "w", "samples", "accuracy", "precision", "recall", "frechet",
    their errors and floors}, ...]}, one cell for each pair. digits: uint8 (p_null, w, 10, H, W), from the same ten noises.
    `p_index` and `w_index` count the axes. Raises ValueError for a missing cell or digits of another shape.
    """

    p_index = traitlets.Int(0, help="which share of dropped labels").tag(sync=True)
    w_index = traitlets.Int(0, help="which guidance weight").tag(sync=True)
    p_null = traitlets.List(help="shares of dropped labels").tag(sync=True)
    w = traitlets.List(help="guidance weights").tag(sync=True)
    cells = traitlets.Dict(help="measure -> [p_null][w] -> [value, error]").tag(sync=True)
    floors = traitlets.Dict(help="measure -> what real digits get").tag(sync=True)
    shape = traitlets.List(help="height and width of a digit").tag(sync=True)
    sprites = traitlets.Unicode(help="PNG in base64: a row of ten digits for each p_null and w").tag(sync=True)

    def __init__(self, surface: Mapping[str, Any], digits: np.ndarray, **traits: Any) -> None:
        shares, weights = list(surface["p_null"]), list(surface["w"])
        if digits.ndim != 5 or digits.shape[:3] != (len(shares), len(weights), 10) or digits.dtype != np.uint8:
            raise ValueError(
                f"need digits uint8 ({len(shares)}, {len(weights)}, 10, H, W), got {digits.dtype} {digits.shape}"
            )
        first = surface["cells"][0]
        floors = {name: first.get("floor" if name == "frechet" else f"{name}_floor") for name in MEASURES}
        near = {"p_index": nearest(shares, 0.1), "w_index": nearest(weights, 2.0)}
        super().__init__(
            p_null=shares,
            w=weights,
            cells={name: table(surface, name) for name in MEASURES},
            floors={name: value for name, value in floors.items() if value is not None},
            shape=list(digits.shape[3:]),
            sprites=to_base64(sprite_sheet(digits)),
            **near | traits,
        )

    @traitlets.validate("p_index", "w_index")
    def _known_cell(self, proposal: Any) -> int:
        axis = self.p_null if proposal.trait.name == "p_index" else self.w
        return int(check_range(proposal.trait.name, proposal.value, 0, len(axis) - 1))

    def static_figure(self) -> StaticFigure:
        """Draw each measure over w, one curve for each p_null."""
        figure = Figure(figsize=(7.4, 5.4))
        axes = figure.subplots(2, 2, sharex=True)
        for ax, name in zip(axes.flat, MEASURES, strict=True):
            for i, share in enumerate(self.p_null):
                values, errors = zip(*self.cells[name][i], strict=True)
                label = f"{share:g}" if name == "accuracy" else None
                ax.errorbar(self.w, values, errors, fmt="o-", ms=3, color=COLOURS[i % len(COLOURS)], label=label)
            if name in self.floors:
                ax.axhline(self.floors[name], color=COLOURS[5], ls="--", lw=1)
            ax.set(title=name if name != "frechet" else "Fréchet distance", ylim=(0, None))
        for ax in axes[1]:
            ax.set(xlabel="guidance weight w")
        figure.legend(title="$p_∅$", loc="outside right center")
        return StaticFigure(figure, self.alt())

    def alt(self) -> str:
        """What the static figure shows, with the best cell."""
        share, weight, (value, error) = best_cell(self.p_null, self.w, self.cells["frechet"])
        return (
            f"Accuracy, precision, recall and Fréchet distance over the guidance weight from {self.w[0]:g} to "
            f"{self.w[-1]:g}, one curve for each share of dropped labels from {self.p_null[0]:g} to "
            f"{self.p_null[-1]:g}. The lowest Fréchet distance, {value:.2f} plus or minus {error:.2f}, stands at share "
            f"{share:g} and weight {weight:g}."
        )


def nearest(values: list[float], wanted: float) -> int:
    """Index of the value nearest to the wanted one."""
    return min(range(len(values)), key=lambda i: abs(values[i] - wanted))


def table(surface: Mapping[str, Any], name: str) -> list[list[list[float]]]:
    """[p_null][w] -> [value, standard error] of one measure, rounded to four digits.

    Where a cell gives no error, it is that of a share of its samples; of recall, the deviation between parts of real digits.
    Raises ValueError for a missing cell.
    """
    cells = {(cell["p_null"], cell["w"]): cell for cell in surface["cells"]}
    rows = []
    for share in surface["p_null"]:
        row = []
        for weight in surface["w"]:
            if (share, weight) not in cells:
                raise ValueError(f"no cell for p_null = {share} and w = {weight}")
            row.append([round(float(each), 4) for each in with_error(cells[share, weight], name)])
        rows.append(row)
    return rows


def with_error(cell: Mapping[str, Any], name: str) -> tuple[float, float]:
    """Value and standard error of one measure in one cell."""
    value, error = cell[name], cell.get(f"{name}_error")
    if error is None and name == "recall":
        error = cell.get("recall_floor_error")
    if error is None:
        error = share_error(round(value * cell["samples"]), cell["samples"])
    if not isfinite(value) or not isfinite(error):
        raise ValueError(f"{name} must be finite, got {value} ± {error}")
    return value, error


def best_cell(shares: list[float], weights: list[float], rows: list) -> tuple[float, float, list[float]]:
    """p_null, w and [value, error] where a measure is lowest."""
    i, j = min(((i, j) for i in range(len(shares)) for j in range(len(weights))), key=lambda k: rows[k[0]][k[1]][0])
    return shares[i], weights[j], rows[i][j]


def sprite_sheet(digits: np.ndarray) -> bytes:
    """All digits as one PNG of 16 grey levels; row p W + w holds the ten digits of cell (p, w)."""
    p, w, n, height, width = digits.shape
    return grey_png(digits.transpose(0, 1, 3, 2, 4).reshape(p * w * height, n * width))
