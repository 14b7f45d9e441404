"""The evidence of one observation, its lower bound, and the gap, while you move the approximate posterior."""

from __future__ import annotations

from math import log, pi, sqrt
from typing import Any, NamedTuple

import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_edu.plotting import COLOURS
from diffusion_edu.widgets.base import StaticFigure, Widget, check_range

DECODERS = ("line", "square")  # f(z) = z, and f(z) = z^2
LIMITS = {"mean": (-4, 4), "width": (0.1, 2), "x": (-1, 4), "noise": (0.4, 1.5)}
GRID = torch.linspace(-6, 6, 1201, dtype=torch.float64)  # of z: what lies beyond is below 1e-8


class Terms(NamedTuple):
    """Nats: log p(x), E_q log p(x | z), KL(q || prior) and KL(q || posterior); the first is the second - third + fourth."""

    log_evidence: float
    reconstruction: float
    kl_prior: float
    gap: float


class EvidenceGap(Widget):
    """Sliders for q = N(mean, width^2), the observed x and the decoder's noise; three densities, and log p(x) = ELBO + KL.

    The model is z ~ N(0, 1), x | z ~ N(f(z), noise^2), with f(z) = z ("line") or z^2 ("square"), whose posterior has two
    humps. Raises ValueError for values outside LIMITS or an unknown decoder.
    """

    decoder = traitlets.Unicode("square", help="line: f(z) = z; square: f(z) = z^2").tag(sync=True)
    mean = traitlets.Float(0.5, help="mean of q").tag(sync=True)
    width = traitlets.Float(0.7, help="standard deviation of q").tag(sync=True)
    x = traitlets.Float(2.0, help="the observation").tag(sync=True)
    noise = traitlets.Float(0.6, help="standard deviation of x given z").tag(sync=True)

    @traitlets.validate(*LIMITS)
    def _inside_limits(self, proposal: Any) -> float:
        return check_range(proposal.trait.name, proposal.value, *LIMITS[proposal.trait.name])

    @traitlets.validate("decoder")
    def _known_decoder(self, proposal: Any) -> str:
        if proposal.value not in DECODERS:
            raise ValueError(f"unknown decoder {proposal.value!r}; known: {', '.join(DECODERS)}")
        return proposal.value

    def terms(self) -> Terms:
        """What the bars show, in nats."""
        return terms(self.decoder, self.x, self.noise, self.mean, self.width)

    def static_figure(self) -> StaticFigure:
        """Draw the three densities and the two bars of equal length."""
        figure = Figure(figsize=(7.4, 4.2))
        top, bottom = figure.subplots(2, 1, height_ratios=(2, 1))
        self.draw_densities(top)
        self.draw_bars(bottom)
        return StaticFigure(figure, self.alt())

    def draw_densities(self, ax: Axes) -> None:
        """Draw the prior, the true posterior and q over z."""
        posterior = log_joint(self.decoder, self.x, self.noise) - self.terms().log_evidence
        q = log_normal(GRID, self.mean, self.width).exp()
        ax.plot(GRID, log_normal(GRID, 0, 1).exp(), color=COLOURS[5], ls="--", label="prior p(z)")
        ax.fill_between(GRID, posterior.exp(), color=COLOURS[0], alpha=0.25, lw=0)
        ax.plot(GRID, posterior.exp(), color=COLOURS[0], label="posterior p(z | x)")
        ax.plot(GRID, q, color=COLOURS[1], label="q(z)")
        ax.set(xlim=(-4, 4), ylim=(0, None), xlabel="z")
        ax.legend(loc="upper left")

    def draw_bars(self, ax: Axes) -> None:
        """Draw what q costs, split in two ways, as bars of equal length."""
        found = self.terms()
        bars = (
            (1, -found.reconstruction, found.kl_prior, "−reconstruction", "KL(q‖prior)", COLOURS[2], COLOURS[3]),
            (0, -found.log_evidence, found.gap, "−log p(x)", "gap", COLOURS[5], COLOURS[4]),
        )
        for y, first, second, name, other, colour, other_colour in bars:
            ax.barh(y, first, color=colour, label=f"{name} {first:.2f}")
            ax.barh(y, second, left=first, color=other_colour, label=f"{other} {second:.2f}")
        ax.set(xlabel="nats", yticks=[])
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))

    def alt(self) -> str:
        """What the static figure shows, with its numbers."""
        found = self.terms()
        return (
            f"Prior, posterior and q = N({self.mean:.2f}, {self.width:.2f}²) over z for x = {self.x:.2f}. Two bars of equal "
            f"length: reconstruction cost {-found.reconstruction:.2f} plus KL to the prior {found.kl_prior:.2f}; and "
            f"minus log evidence {-found.log_evidence:.2f} plus the gap {found.gap:.2f} nats."
        )


def log_normal(z: Tensor, mean: float, std: float) -> Tensor:
    """log N(z; mean, std^2)."""
    return -(((z - mean) / std) ** 2) / 2 - log(std * sqrt(2 * pi))


def log_joint(decoder: str, x: float, noise: float) -> Tensor:
    """log p(x, z) on GRID."""
    output = GRID if decoder == "line" else GRID**2
    return log_normal(GRID, 0, 1) + log_normal(output, x, noise)


def terms(decoder: str, x: float, noise: float, mean: float, width: float) -> Terms:
    """The identity's four numbers; the evidence by summation over GRID, the others in closed form."""
    spacing = float(GRID[1] - GRID[0])
    log_evidence = float(log_joint(decoder, x, noise).logsumexp(0)) + log(spacing)
    if decoder == "line":
        error = (x - mean) ** 2 + width**2
    else:  # the fourth moment of a Gaussian
        error = x**2 - 2 * x * (mean**2 + width**2) + mean**4 + 6 * mean**2 * width**2 + 3 * width**4
    reconstruction = -error / (2 * noise**2) - log(noise * sqrt(2 * pi))
    kl_prior = (mean**2 + width**2 - 1) / 2 - log(width)
    return Terms(log_evidence, reconstruction, kl_prior, log_evidence - reconstruction + kl_prior)


def best_q(decoder: str, x: float, noise: float, mean: float) -> tuple[float, float]:
    """Mean and width of the Gaussian with the highest ELBO, on the side of 0 where `mean` is.

    For "square" the ELBO is raised in mean and width by turns; each turn is the root of a quadratic.
    """
    if decoder == "line":
        return x / (1 + noise**2), noise / sqrt(1 + noise**2)
    square, width2 = mean**2, 1.0
    for _ in range(400):
        b = 1 + (6 * square - 2 * x) / noise**2
        width2 = 2 / (b + sqrt(b**2 + 24 / noise**2))  # of 6 w^4 / noise^2 + b w^2 = 1
        square = max(0.0, x - 3 * width2 - noise**2 / 2)
    return (-1 if mean < 0 else 1) * sqrt(square), sqrt(width2)
