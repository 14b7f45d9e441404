"""Conventions side by side: a formula in a paper's letters and in ours, with its code, and the numbers that both give."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_edu.conventions import GUIDANCE_TIME, QUANTITIES, SOURCES, Row, Source, evaluate, names, their_names
from diffusion_edu.plotting import COLOURS
from diffusion_edu.schedules import LinearBeta
from diffusion_edu.widgets.base import StaticFigure, Widget, check_range
from diffusion_edu.widgets.mathml import to_mathml

TIMES = torch.arange(1, 100, dtype=torch.float64) / 100
WEIGHTS = torch.arange(17, dtype=torch.float64) / 2


class ConventionTranslator(Widget):
    """Formula, code and number of a quantity in a source and here, with a slider for time, or for the guidance weight.

    source, quantity: keys of `conventions.SOURCES` and `QUANTITIES`, a pair that exists; t in [0.01, 0.99]; w in [0, 8]. The
    numbers are what the shown lines gave when the widget was made, at all `TIMES` or `WEIGHTS`. ValueError for others.
    """

    source = traitlets.Unicode("flow", help="whose letters are shown").tag(sync=True)
    quantity = traitlets.Unicode("marginal", help="what is translated").tag(sync=True)
    t = traitlets.Float(0.4, help="our time").tag(sync=True)
    w = traitlets.Float(3.0, help="our guidance weight").tag(sync=True)
    guidance_time = traitlets.Float(GUIDANCE_TIME, help="where guidance is computed").tag(sync=True)
    quantities = traitlets.List(help="key and name of each quantity").tag(sync=True)
    ours = traitlets.Dict(help="our coefficients at each time, and the weights").tag(sync=True)
    sources = traitlets.Dict(help="formulas, lines of code and numbers of each source").tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        schedule = LinearBeta()
        ours = {"times": TIMES, "signal": schedule.alpha(TIMES), "noise": schedule.sigma(TIMES), "weights": WEIGHTS}
        super().__init__(
            quantities=[list(pair) for pair in QUANTITIES.items()],
            ours={name: short(values, 8) for name, values in ours.items()},
            sources=translated(),
            **traits,
        )
        if self.quantity not in SOURCES[self.source].rows:
            raise ValueError(f"{SOURCES[self.source].name} has no formula for {self.quantity!r}")

    @traitlets.validate("source", "quantity")
    def _known(self, proposal: Any) -> str:
        known = SOURCES if proposal.trait.name == "source" else QUANTITIES
        if proposal.value not in known:
            raise ValueError(f"unknown {proposal.trait.name} {proposal.value!r}; known: {', '.join(known)}")
        return proposal.value

    @traitlets.validate("t", "w")
    def _in_range(self, proposal: Any) -> float:
        low, high = (0.01, 0.99) if proposal.trait.name == "t" else (0, 8)
        return check_range(proposal.trait.name, proposal.value, low, high)

    def place(self) -> int:
        """Which of the numbers counts now: that of t, or that of w when guidance is shown."""
        return round(2 * self.w) if self.quantity == "guidance" else round(100 * self.t) - 1

    def values(self) -> tuple[float, float]:
        """What their line gives, and what ours gives."""
        row = self.sources[self.source]["rows"][self.quantity]
        return row["theirs"]["values"][self.place()], row["ours"]["values"][self.place()]

    def static_figure(self) -> StaticFigure:
        """Draw both formulas with their code and numbers, over the table of all sources."""
        figure = Figure(figsize=(7.4, 5.4))
        top, below = figure.subfigures(2, 1, height_ratios=(1, 1.8))
        source, row = SOURCES[self.source], SOURCES[self.source].rows[self.quantity]
        top.suptitle(f"{source.name}: {QUANTITIES[self.quantity]}", fontsize=11)
        sides = ((row.theirs, row.their_code, COLOURS[1]), (row.ours, row.our_code, COLOURS[0]))
        for ax, side, value, title in zip(
            top.subplots(1, 2),
            sides,
            self.values(),
            (f"{capital(source.short)} writes", "This book writes"),
            strict=True,
        ):
            draw_side(ax, title, *side, value)
        self.draw_table(below.subplots())
        return StaticFigure(figure, self.alt())

    def draw_table(self, ax: Axes) -> None:
        """Draw the same noise level, or the same guidance, in all sources."""
        head, rows = self.table()
        ax.axis("off")
        drawn = ax.table(rows, colLabels=head, loc="center", cellLoc="left", edges="horizontal")
        drawn.auto_set_font_size(False)
        drawn.set_fontsize(9)
        for cell in drawn.get_celld().values():
            cell.set_linewidth(0.4)
        drawn.auto_set_column_width(list(range(len(head))))

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows of the table under the formulas."""
        if self.quantity == "guidance":
            rows = [
                [capital(each["short"]), each["weight"].format(f"{each['weights'][self.place()]:g}")]
                for each in self.guided()
            ]
            return ["source", "the same strength"], [["This book", f"w = {self.w:g}"], *rows]
        i, ours = self.place(), self.ours
        rows = [["This book", f"t = {self.t:.2f}", *coefficients(ours["signal"][i], ours["noise"][i])]]
        for each in self.sources.values():
            clock = each["clock"].format(f"{each['times'][i]:.{each['digits']}f}")
            rows.append([capital(each["short"]), clock, *coefficients(each["signal"][i], each["noise"][i])])
        return ["source", "the same noise level", "signal ×", "noise ×", "log-SNR"], rows

    def guided(self) -> list[dict]:
        """The sources that write guidance."""
        return [each for each in self.sources.values() if each["weight"]]

    def alt(self) -> str:
        """What the static figure shows, with its numbers."""
        source, row = SOURCES[self.source], SOURCES[self.source].rows[self.quantity]
        theirs, ours = self.values()
        return (
            f"{QUANTITIES[self.quantity]} in two notations. {source.name}: {row.theirs}, computed by {row.their_code}, "
            f"which gives {theirs:g}. This book: {row.ours}, computed by {row.our_code}, which gives {ours:g}. Table: "
            + "; ".join(", ".join(cells) for cells in self.table()[1])
            + "."
        )


def translated() -> dict[str, dict]:
    """All sources with their formulas as MathML, their lines of code, and what these gave."""
    at_times, n = names(TIMES), len(TIMES)
    at_weights = [names(torch.tensor([GUIDANCE_TIME], dtype=torch.float64), float(w)) for w in WEIGHTS]
    pages = {}
    for key, source in SOURCES.items():
        known, guided = their_names(source, at_times), [their_names(source, each) for each in at_weights]
        pages[key] = {
            **{name: getattr(source, name) for name in ("short", "name", "clock", "digits", "beyond", "mind")},
            "letters": [list(pair) for pair in source.letters.items()],
            "times": short(evaluate(source.time, known, n)),
            "signal": short(evaluate(source.signal, known, n), 8),
            "noise": short(evaluate(source.noise, known, n), 8),
            "weight": source.weight and source.weight[0],
            "weights": short(over(guided, source.weight[1])) if source.weight else [],
            "rows": {
                quantity: both_sides(
                    source, row, (guided, at_weights) if quantity == "guidance" else ([known], [at_times])
                )
                for quantity, row in source.rows.items()
            },
        }
    return pages


def both_sides(source: Source, row: Row, known: tuple[list[dict], list[dict]]) -> dict[str, dict]:
    """A row's two formulas as MathML, with their lines and numbers."""
    theirs, ours = known
    return {
        "theirs": {
            "formula": to_mathml(row.theirs),
            "code": row.their_code,
            "values": short(over(theirs, row.their_code)),
        },
        "ours": {"formula": to_mathml(row.ours), "code": row.our_code, "values": short(over(ours, row.our_code))},
    }


def over(known: list[dict], line: str) -> Tensor:
    """What a line gives under each of several sets of names, one after the other."""
    return torch.cat([evaluate(line, each, len(each["y"])) for each in known])


def short(values: Tensor, digits: int = 5) -> list[float]:
    """Numbers with so many significant digits."""
    return [float(f"{value:.{digits}g}") for value in values.tolist()]


def capital(text: str) -> str:
    """A source's short name at the head of a line."""
    return text[0].upper() + text[1:]


def coefficients(signal: float, noise: float) -> list[str]:
    """Signal, noise and the log signal-to-noise ratio that follows, as texts."""
    ratio = 2 * float(torch.tensor(signal / noise, dtype=torch.float64).log())
    return [f"{signal:.3g}", f"{noise:.3g}", f"{ratio:.2f}"]


def draw_side(ax: Axes, title: str, formula: str, code: str, colour: str, value: float) -> None:
    """Draw a formula over the line that computes it and the number that this gives."""
    ax.axis("off")
    ax.set_title(title, loc="left", color=colour, fontsize=10)
    formulas = formula.split(r", \quad")
    for number, part in enumerate(formulas):
        ax.text(
            0,
            0.8 - 0.25 * number,
            f"${part}$",
            transform=ax.transAxes,
            fontsize=10 if len(part) < 90 else 8,
            va="center",
        )
    lines = "\n".join(wrap(code, 46, break_long_words=False))
    ax.text(
        0, 0.58 - 0.25 * (len(formulas) - 1), lines, transform=ax.transAxes, family="monospace", fontsize=7.5, va="top"
    )
    ax.text(0, 0, f"= {value:g}", transform=ax.transAxes, fontweight="bold", color=colour, va="bottom")
