"""Two lumps on a line, a model of them that you bend, and what seven judges say about it."""

from __future__ import annotations

from math import exp, log, pi, sqrt
from typing import Any

import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_edu.plotting import COLOURS
from diffusion_edu.widgets.base import StaticFigure, Widget, check_range

DATA = {"apart": 1.0, "spread": 0.35, "share": 0.5}
LIMITS = {"apart": (0, 2), "spread": (0.1, 1.4), "share": (0, 1)}
SIZES = (20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
KEPT = 0.95  # mass of the region that counts as a law's support
GRID = torch.linspace(-8, 8, 1601, dtype=torch.float64)
SPACING = 0.01
LEVELS = (torch.arange(400, dtype=torch.float64) + 0.5) / 400  # of the quantiles that W2 compares


class MetricExplorer(Widget):
    """Sliders for a model of two lumps at -apart and apart, their spread, the right one's share, and the number of images.

    The data are the same with DATA's values. Everything is computed from the densities, so there is no noise in it but the
    Fréchet distance's bias, which is shown. Raises ValueError for values outside LIMITS or a size that is not in SIZES.
    """

    apart = traitlets.Float(0.0, help="half the distance between the lumps").tag(sync=True)
    spread = traitlets.Float(1.06, help="standard deviation of a lump").tag(sync=True)
    share = traitlets.Float(0.5, help="share of the right lump").tag(sync=True)
    n = traitlets.Int(10_000, help="number of images of which the Fréchet distance is taken").tag(sync=True)

    @traitlets.validate(*LIMITS)
    def _inside_limits(self, proposal: Any) -> float:
        return check_range(proposal.trait.name, proposal.value, *LIMITS[proposal.trait.name])

    @traitlets.validate("n")
    def _known_size(self, proposal: Any) -> int:
        if proposal.value not in SIZES:
            raise ValueError(f"n must be one of {', '.join(map(str, SIZES))}, got {proposal.value}")
        return proposal.value

    def verdicts(self) -> dict[str, float]:
        """What the judges say, by name."""
        return verdicts(self.apart, self.spread, self.share, self.n)

    def static_figure(self) -> StaticFigure:
        """Draw both densities, and the verdicts beside those of the data themselves."""
        figure = Figure(figsize=(7.4, 3.2))
        left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
        self.draw_densities(left)
        self.draw_verdicts(right)
        return StaticFigure(figure, self.alt())

    def draw_densities(self, ax: Axes) -> None:
        """Draw the data's density and the model's."""
        data, model = density(**DATA), density(self.apart, self.spread, self.share)
        ax.fill_between(GRID, data, color=COLOURS[0], alpha=0.25, lw=0)
        ax.plot(GRID, data, color=COLOURS[0], label="data")
        ax.plot(GRID, model, color=COLOURS[1], label="model")
        ax.set(xlim=(-3, 3), ylim=(0, None), xlabel="x")
        ax.legend(loc="upper right")

    def draw_verdicts(self, ax: Axes) -> None:
        """Write the verdicts as a table."""
        found, floor = self.verdicts(), verdicts(**DATA, n=self.n)
        cells = [[f"{found[name]:.3f}", f"{floor[name]:.3f}"] for name in NAMES]
        table = ax.table(
            cells, rowLabels=list(NAMES.values()), colLabels=["model", "data"], loc="center", edges="horizontal"
        )
        table.auto_set_column_width([0, 1])
        table.scale(0.6, 1.4)
        ax.axis("off")

    def alt(self) -> str:
        """What the static figure shows, with its numbers."""
        found = self.verdicts()
        told = ", ".join(f"{NAMES[name]} {found[name]:.3f}" for name in NAMES)
        return f"Density of the data, two lumps at -1 and 1, and of a model on top of it. The judges say: {told}."


NAMES = {
    "kl": "log-likelihood lost",
    "wasserstein": "Wasserstein W2",
    "frechet": "Fréchet distance",
    "kernel": "kernel distance",
    "precision": "precision",
    "recall": "recall",
    "inception": "Inception score",
}


def density(apart: float, spread: float, share: float) -> Tensor:
    """(1 - share) N(-apart, spread^2) + share N(apart, spread^2) on GRID."""
    left, right = ((-(((GRID - place) / spread) ** 2) / 2).exp() for place in (-apart, apart))
    return ((1 - share) * left + share * right) / (spread * sqrt(2 * pi))


def raw_moments(apart: float, spread: float, share: float) -> tuple[float, float, float, float]:
    """E x, E x^2, E x^3 and E x^4 of the two lumps."""
    tilt, a2, v = 2 * share - 1, apart**2, spread**2
    return tilt * apart, a2 + v, tilt * apart * (a2 + 3 * v), a2**2 + 6 * a2 * v + 3 * v**2


def spread_of_variance(m1: float, m2: float, m3: float, m4: float) -> tuple[float, float]:
    """Variance V, and the fourth central moment less V^2."""
    variance = m2 - m1**2
    return variance, m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4 - variance**2


def quantiles(p: Tensor) -> Tensor:
    """Where the distribution function reaches LEVELS, by straight lines between the grid's points."""
    total = (p * SPACING).cumsum(0)
    right = torch.searchsorted(total, LEVELS).clamp(1, len(GRID) - 1)
    below, above = total[right - 1], total[right]
    return GRID[right - 1] + SPACING * (LEVELS - below) / (above - below).clamp(min=1e-300)


def support(p: Tensor) -> Tensor:
    """The smallest region that holds KEPT of the mass, as a mask; equal densities are taken together."""
    ordered = p.sort(descending=True).values
    last = int((ordered.cumsum(0) * SPACING < KEPT).sum())
    return p >= ordered[min(last, len(p) - 1)] * (1 - 1e-9)


def verdicts(apart: float, spread: float, share: float, n: int) -> dict[str, float]:
    """The judges' numbers by name. Fréchet: expected from n images against the law of the data, to order 1 / n."""
    p, q = density(**DATA), density(apart, spread, share)
    m, m_data = raw_moments(apart, spread, share), raw_moments(**DATA)
    (variance, fourth), (v_data, _) = spread_of_variance(*m), spread_of_variance(*m_data)
    std, gap = sqrt(variance), sqrt(variance) - sqrt(v_data)
    bias = variance + fourth / (4 * variance) - gap * fourth / (4 * std**3)
    right = 1 / (1 + (-2 * DATA["apart"] / DATA["spread"] ** 2 * GRID).exp())  # p(right lump | x) under the data
    marginal = float((q * right).sum() * SPACING)
    entropy = -(right.xlogy(right) + (1 - right).xlogy(1 - right))
    return {
        "kl": float((p * ((p + 1e-300).log() - (q + 1e-300).log())).sum() * SPACING),
        "wasserstein": float((quantiles(p) - quantiles(q)).square().mean().sqrt()),
        "frechet": (m[0] - m_data[0]) ** 2 + gap**2 + bias / n,
        "frechet_limit": (m[0] - m_data[0]) ** 2 + gap**2,
        "kernel": sum(w * (a - b) ** 2 for w, a, b in zip((3, 3, 1), m[:3], m_data[:3], strict=True)),
        "precision": float((q * support(p)).sum() * SPACING),
        "recall": float((p * support(q)).sum() * SPACING),
        "inception": exp(binary_entropy(marginal) - float((q * entropy).sum() * SPACING)),
    }


def binary_entropy(p: float) -> float:
    """Entropy of a coin in nats."""
    return -sum(x * log(x) for x in (p, 1 - p) if x > 0)
