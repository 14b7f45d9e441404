"""A digit with a known defect, noised part of the way and guided back: what comes back, and the map of what changed."""

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
from diffusion_edu.metrics import auc
from diffusion_edu.plotting import COLOURS, image_table
from diffusion_edu.widgets.base import StaticFigure, Widget, check_range, to_base64

METHODS = ("encoded", "noised")
LEVELS = 16  # grey levels of a pixel: 4 bits
VISIBLE = 0.2  # a pixel is defective where it differs by more from the healthy one


class PartialNoising(Widget):
    """A slider for how far a defective digit is noised, and choices of the digit and of the way of noising.

    healthy, defective: (E, H, W) in [-1, 1], an even number of pixels; noised, returned: (E, 2, T, H, W), for METHODS and
    the T increasing `times`; names: a text for each digit. Values are kept in LEVELS greys, and all numbers shown are of
    those. place, digit, method: what is shown, 0-based. Raises ValueError for shapes that disagree or places out of range.
    """

    place = traitlets.Int(4, help="which of the times is shown").tag(sync=True)
    digit = traitlets.Int(0, help="which digit is shown").tag(sync=True)
    method = traitlets.Int(1, help="0: encoded along the ODE, 1: noised with fresh noise").tag(sync=True)
    times = traitlets.List(help="how far to noise").tag(sync=True)
    names = traitlets.List(help="what each digit is").tag(sync=True)
    shape = traitlets.List(help="height and width").tag(sync=True)
    pixels = traitlets.Unicode(
        help="base64, two pixels a byte: healthy, defective, noised, returned; high nibble first"
    ).tag(sync=True)

    def __init__(
        self,
        healthy: Tensor,
        defective: Tensor,
        noised: Tensor,
        returned: Tensor,
        times: Sequence[float],
        names: Sequence[str],
        **traits: Any,
    ) -> None:
        wanted = (len(names), len(METHODS), len(times), *healthy.shape[1:])
        if noised.shape != wanted or returned.shape != wanted or defective.shape != healthy.shape:
            raise ValueError(
                f"need noised and returned {wanted} and defective {tuple(healthy.shape)}, got {tuple(noised.shape)}, "
                f"{tuple(returned.shape)} and {tuple(defective.shape)}"
            )
        self.healthy, self.defective, self.noised, self.returned = map(grey, (healthy, defective, noised, returned))
        levels = torch.cat([part.flatten() for part in (self.healthy, self.defective, self.noised, self.returned)])
        nibbles = ((levels + 1) * (LEVELS - 1) / 2).round().to(torch.uint8).reshape(-1, 2)
        super().__init__(
            times=[float(t) for t in times],
            names=list(names),
            shape=list(healthy.shape[1:]),
            pixels=to_base64((nibbles[:, 0] * LEVELS + nibbles[:, 1]).numpy().tobytes()),
            **traits,
        )

    @classmethod
    def from_files(cls, folder: Path) -> PartialNoising:
        """The widget on what `benchmarks/steering.py` wrote into `folder`."""
        packed = np.load(folder / "steering.npz")
        parts = [to_float(torch.from_numpy(packed[name])) for name in ("healthy", "defective", "noised", "returned")]
        facts = json.loads((folder / "steering.json").read_text())["pictures"]
        return cls(*parts, times=facts["times"], names=facts["names"])

    @traitlets.validate("place", "digit", "method")
    def _inside(self, proposal: Any) -> int:
        count = {"place": self.returned.shape[2], "digit": len(self.healthy), "method": len(METHODS)}
        return int(check_range(proposal.trait.name, proposal.value, 0, count[proposal.trait.name] - 1))

    def measure(self, digit: int, method: int, place: int) -> dict[str, float]:
        """AUC of the difference map, and mean change of a pixel inside and outside the defect."""
        wrong = (self.defective[digit] - self.healthy[digit]).abs() > VISIBLE
        change = (self.defective[digit] - self.returned[digit, method, place]).abs()
        return {
            "auc": auc(change, wrong),
            "inside": float(change[wrong].double().mean()),
            "outside": float(change[~wrong].double().mean()),
        }

    def static_figure(self) -> StaticFigure:
        """Draw the chosen digit's returns and maps at some of the times, for both ways of noising, and the AUC."""
        figure = Figure(figsize=(7.4, 6.25))
        pictures, chart = figure.subfigures(2, 1, height_ratios=(2.9, 1))
        shown = torch.linspace(0, len(self.times) - 1, 6).round().long()
        bad, rows, labels = self.defective[self.digit], [], []
        for number, method in enumerate(METHODS):
            back = self.returned[self.digit, number, shown]
            rows += [with_first(bad, self.noised[self.digit, number, shown]), with_first(bad, back)]
            truth = (bad - self.healthy[self.digit]).abs() - 1
            rows += [with_first(truth, (bad - back).abs() - 1)]
            labels += [f"{method} to L", "brought back", "difference"]
        titles = ["defect"] + [f"L = {self.times[i]:.2f}" for i in shown]
        image_table(pictures.subplots(), rows, titles=titles, labels=labels)
        ax = chart.subplots()
        for number, (method, colour) in enumerate(zip(METHODS, COLOURS, strict=False)):
            values = [self.measure(self.digit, number, place)["auc"] for place in range(len(self.times))]
            ax.plot(self.times, values, "o-", ms=4, color=colour, label=method)
        ax.axhline(0.5, color=COLOURS[5], ls="--", lw=1)
        ax.set(xlabel="how far to noise, L", title="AUC of this digit's difference map", ylim=(0, 1.02))
        ax.legend(ncols=2)
        return StaticFigure(figure, self.alt())

    def alt(self) -> str:
        """What the static figure shows, with its numbers."""
        found = [self.measure(self.digit, number, self.place) for number in range(len(METHODS))]
        texts = [
            f"{method}: AUC {each['auc']:.2f}, change {each['inside']:.2f} in the defect and {each['outside']:.2f} outside"
            for method, each in zip(METHODS, found, strict=True)
        ]
        return (
            f"A {self.names[self.digit]}, noised part of the way by two methods, brought back by a guided network, and the "
            f"difference. At L = {self.times[self.place]:.2f}, {'; '.join(texts)}."
        )


def grey(x: Tensor) -> Tensor:
    """Values in [-1, 1], clipped and rounded to LEVELS greys."""
    return ((x.double().clamp(-1, 1) + 1) * (LEVELS - 1) / 2).round() * 2 / (LEVELS - 1) - 1


def with_first(first: Tensor, images: Tensor) -> Tensor:
    """Images (N, H, W) after a first one (H, W), with a channel axis: (N + 1, 1, H, W)."""
    return torch.cat([first[None], images])[:, None]
