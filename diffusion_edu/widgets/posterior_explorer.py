"""The posterior q(x_s | x_t, x_0) on a line: two bells, their product, and where it balances."""

from __future__ import annotations

from typing import Any

import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffusion_edu.plotting import COLOURS
from diffusion_edu.process import posterior, transition
from diffusion_edu.schedules import Cosine
from diffusion_edu.widgets.base import StaticFigure, Widget, check_range

REACH = 4.0  # the picture shows [-REACH, REACH]
NAMES = ("from $x_0$: $q(x_s|x_0)$", "from $x_t$: $q(x_t|x_s)$ in $x_s$", "together: $q(x_s|x_t,x_0)$")


class PosteriorExplorer(Widget):
    """Sliders for two times, s < t, and for x_t and x_0; the cosine schedule.

    t in [0.01, 0.98], s in [0, 0.97], x_t and x_0 in [-3, 3]. Raises ValueError outside, or unless s < t.
    """

    t = traitlets.Float(0.6, help="the noisier time").tag(sync=True)
    s = traitlets.Float(0.4, help="the earlier time").tag(sync=True)
    x_t = traitlets.Float(1.5, help="the noisy value").tag(sync=True)
    x_0 = traitlets.Float(-0.8, help="the clean value").tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        if self.s >= self.t:
            raise ValueError(f"need s < t, got s = {self.s:g} and t = {self.t:g}")

    @traitlets.validate("t", "s", "x_t", "x_0")
    def _in_range(self, proposal: Any) -> float:
        low, high = {"t": (0.01, 0.98), "s": (0, 0.97)}.get(proposal.trait.name, (-3, 3))
        return check_range(proposal.trait.name, proposal.value, low, high)

    def bells(self) -> list[tuple[float, float]]:
        """Mean and deviation of what x_0 says of x_s, of what x_t says of it, and of both together."""
        t, s, x_t, x_0 = torch.tensor([self.t, self.s, self.x_t, self.x_0], dtype=torch.float64)
        alpha, variance = transition(Cosine(), t, s)
        mean, std = posterior(Cosine(), x_0[None], x_t[None], t, s)
        pairs = (
            (Cosine().alpha(s) * x_0, Cosine().sigma(s)),
            (x_t / alpha, variance.sqrt() / alpha),
            (mean[0], std),
        )
        return [(float(m), float(d)) for m, d in pairs]

    def weights(self) -> tuple[float, float]:
        """The weights of x_t and of x_0 in the posterior's mean."""
        t, s, one, zero = torch.tensor([self.t, self.s, 1.0, 0.0], dtype=torch.float64)
        of_x_t, _ = posterior(Cosine(), zero[None], one[None], t, s)
        of_x_0, _ = posterior(Cosine(), one[None], zero[None], t, s)
        return float(of_x_t), float(of_x_0)

    def variances(self) -> tuple[float, float]:
        """The small variance of a step back, the posterior's, and the large one, of the step forward."""
        t, s = torch.tensor([self.t, self.s], dtype=torch.float64)
        return self.bells()[2][1] ** 2, float(transition(Cosine(), t, s)[1])

    def static_figure(self) -> StaticFigure:
        """Draw the three bells over the lever."""
        figure = Figure(figsize=(7.4, 3.625))
        chart, lever = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        self.draw_bells(chart)
        self.draw_lever(lever)
        return StaticFigure(figure, self.alt())

    def draw_bells(self, ax: Axes) -> None:
        """Draw each bell, scaled to the same height."""
        x = torch.linspace(-REACH, REACH, 801, dtype=torch.float64)
        for (mean, std), name, colour in zip(self.bells(), NAMES, (COLOURS[1], COLOURS[0], COLOURS[2]), strict=True):
            bell = (-(((x - mean) / max(std, 0.01)) ** 2) / 2).exp()
            ax.plot(x, bell, color=colour, lw=2.4 if name == NAMES[2] else 1.4, label=name)
        ax.set(yticks=[], ylim=(0, 1.1), title=f"A step back from t = {self.t:.2f} to s = {self.s:.2f}")
        ax.legend(loc="upper left", fontsize=8)

    def draw_lever(self, ax: Axes) -> None:
        """Draw the two centres as weights on a beam, and the mean as what it balances on."""
        (left, _), (right, _), (mean, _) = self.bells()
        share = self.share()
        ax.plot([left, right], [0, 0], color=COLOURS[5], lw=2)
        for place, part, colour in ((left, share, COLOURS[1]), (right, 1 - share, COLOURS[0])):
            ax.plot(place, 0, "o", ms=4 + 18 * part**0.5, color=colour)
        ax.plot(mean, -0.55, "^", ms=11, color=COLOURS[2])
        ax.set(xlim=(-REACH, REACH), ylim=(-1, 1), yticks=[], xlabel="$x_s$")

    def share(self) -> float:
        """The share of x_0 in the precision of the posterior; 1 at s = 0."""
        prior, both = self.bells()[0][1], self.bells()[2][1]
        return 1.0 if prior == 0 else (both / prior) ** 2

    def alt(self) -> str:
        """What the static figure shows, with its numbers."""
        (mean, std), (of_x_t, of_x_0), (small, large) = self.bells()[2], self.weights(), self.variances()
        return (
            f"Three bells over x_s for a step back from t = {self.t:.2f} to s = {self.s:.2f}. x_0 = {self.x_0:.1f} has "
            f"{self.share():.0%} of the precision, x_t = {self.x_t:.1f} the rest. The product has mean {of_x_t:.2f} x_t + "
            f"{of_x_0:.2f} x_0 = {mean:.2f} and deviation {std:.2f}. Its variance, the small one, is {small:.3f}; the large "
            f"one is {large:.3f}. Below, a beam with the two centres as weights, balanced at the mean."
        )
