"""What guidance makes of an exact law on the line: where the guided ODE ends, and the tilted density."""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_edu.plotting import COLOURS
from diffusion_edu.widgets.base import StaticFigure, Widget, check_range

# (mean, deviation, weight) of each lump: of the whole law, and of the part that is asked for
EXAMPLES = {
    "pair": {"whole": [(0, 2, 1)], "wanted": [(1, 1, 1)]},
    "classes": {
        "whole": [(-1, 0.5, 0.5), (0.2, 0.4, 0.25), (2, 0.4, 0.25)],
        "wanted": [(0.2, 0.4, 0.5), (2, 0.4, 0.5)],
    },
}
LIMIT = 12  # of the log-SNR: the ODE is solved from -12 to 12
STEPS_PER_UNIT = 10
STARTS = torch.linspace(-4, 4, 161, dtype=torch.float64)  # standard normal start of each particle
GRID = torch.linspace(-10, 11, 1051, dtype=torch.float64)  # of x, for densities; -4 to 5 is shown
LIMITS = {"w": (0, 8), "low": (-LIMIT, LIMIT), "high": (-LIMIT, LIMIT)}


class GuidedMixture(Widget):
    """Sliders for the guidance weight w and for the log-SNRs between which it acts; three densities and their moments.

    example: "pair", N(0, 4) with the part N(1, 1), or "classes", three lumps of which two are asked for. Outside
    [low, high] the plain conditional law is followed (w = 1). Raises ValueError outside LIMITS or for low > high.
    """

    example = traitlets.Unicode("pair", help="pair: one Gaussian in another; classes: two of three lumps").tag(
        sync=True
    )
    w = traitlets.Float(2.0, help="guidance weight; 1 is plain conditional").tag(sync=True)
    low = traitlets.Float(-float(LIMIT), help="guidance acts from this log-SNR").tag(sync=True)
    high = traitlets.Float(float(LIMIT), help="to this one").tag(sync=True)

    @traitlets.validate("w", "low", "high")
    def _inside_limits(self, proposal: Any) -> float:
        return check_range(proposal.trait.name, proposal.value, *LIMITS[proposal.trait.name])

    @traitlets.validate("example")
    def _known_example(self, proposal: Any) -> str:
        if proposal.value not in EXAMPLES:
            raise ValueError(f"unknown example {proposal.value!r}; known: {', '.join(EXAMPLES)}")
        return proposal.value

    def summary(self) -> dict[str, tuple[float, float]]:
        """Mean and variance of where the guided ODE ends, of the tilted density and of the part asked for."""
        return summary(self.example, self.w, self.low, self.high)

    def static_figure(self) -> StaticFigure:
        """Draw the end of the guided ODE, the tilted density and the part asked for."""
        figure = Figure(figsize=(7.4, 3))
        ax = figure.subplots()
        ends = guided_ends(self.example, self.w, self.low, self.high)
        wanted = log_density(EXAMPLES[self.example]["wanted"], GRID).exp()
        ax.fill_between(*end_density(ends), color=COLOURS[0], alpha=0.35, lw=0, label="end of the guided ODE")
        ax.plot(GRID, tilted_density(self.example, self.w), color=COLOURS[1], label="tilted, p(x) p(y|x)$^w$")
        ax.plot(GRID, wanted, "--", color=COLOURS[5], label="asked for, p(x|y)")
        ax.set(xlabel="x", xlim=(-4, 5), ylim=(0, None), title=f"w = {self.w:g}")
        ax.legend()
        return StaticFigure(figure, self.alt())

    def alt(self) -> str:
        """What the static figure shows, with its numbers."""
        found = self.summary()
        return (
            f"Three densities on a line for guidance weight {self.w:g}. The guided ODE ends with mean {found['ode'][0]:.2f} "
            f"and variance {found['ode'][1]:.2f}; the tilted density has {found['tilt'][0]:.2f} and {found['tilt'][1]:.2f}; "
            f"the conditional one {found['wanted'][0]:.2f} and {found['wanted'][1]:.2f}."
        )


def log_density(lumps: list[tuple[float, float, float]], x: Tensor, noise: float = 0.0) -> Tensor:
    """log density at x (N,) of Gaussian lumps (mean, deviation, weight), each widened by `noise`."""
    mean, std, weight = torch.tensor(lumps, dtype=torch.float64).T
    variance = std**2 + noise**2
    return (weight.log() - (x[:, None] - mean) ** 2 / (2 * variance) - (2 * pi * variance).log() / 2).logsumexp(1)


def estimate(lumps: list[tuple[float, float, float]], z: Tensor, noise: float) -> Tensor:
    """E[x_0 | z] for z = x_0 + noise eps, (N,)."""
    mean, std, weight = torch.tensor(lumps, dtype=torch.float64).T
    variance = std**2 + noise**2
    share = (weight.log() - (z[:, None] - mean) ** 2 / (2 * variance) - variance.log() / 2).softmax(1)
    return (share * (mean + std**2 / variance * (z[:, None] - mean))).sum(1)


def guided_ends(example: str, w: float, low: float = -LIMIT, high: float = LIMIT) -> Tensor:
    """Where the guided probability-flow ODE leads the particles STARTS, (161,).

    In z = x_t / alpha and the log-SNR it reads dz = -(z - x0_hat) / 2 dlog_snr, for every schedule. Runge-Kutta of order 4.
    """
    lumps, count = EXAMPLES[example], 2 * LIMIT * STEPS_PER_UNIT
    h, z = 1 / STEPS_PER_UNIT, STARTS * torch.tensor(LIMIT / 2, dtype=torch.float64).exp()

    def slope(z: Tensor, log_snr: float, weight: float) -> Tensor:
        noise = float(torch.tensor(-log_snr / 2, dtype=torch.float64).exp())
        null, wanted = estimate(lumps["whole"], z, noise), estimate(lumps["wanted"], z, noise)
        return -(z - null - weight * (wanted - null)) / 2

    for k in range(count):
        log_snr = -LIMIT + k * h
        weight = w if low <= log_snr + h / 2 <= high else 1.0
        k1 = slope(z, log_snr, weight)
        k2 = slope(z + h / 2 * k1, log_snr + h / 2, weight)
        k3 = slope(z + h / 2 * k2, log_snr + h / 2, weight)
        z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(z + h * k3, log_snr + h, weight))
    return z


def end_density(ends: Tensor) -> tuple[Tensor, Tensor]:
    """Places (159,) and density (159,) of the law that the increasing map STARTS -> ends makes of N(0, 1)."""
    bell = (-(STARTS[1:-1] ** 2) / 2).exp() / sqrt(2 * pi)
    return ends[1:-1], bell * (STARTS[2:] - STARTS[:-2]) / (ends[2:] - ends[:-2])


def tilted_density(example: str, w: float) -> Tensor:
    """The density proportional to p(x)^(1 - w) p(x | y)^w, on GRID."""
    lumps = EXAMPLES[example]
    log_tilt = (1 - w) * log_density(lumps["whole"], GRID) + w * log_density(lumps["wanted"], GRID)
    return log_tilt.softmax(0) / (GRID[1] - GRID[0])


def summary(example: str, w: float, low: float = -LIMIT, high: float = LIMIT) -> dict[str, tuple[float, float]]:
    """Mean and variance of the guided ODE's end ("ode"), the tilted density ("tilt") and the part asked for ("wanted")."""
    tilt, wanted = tilted_density(example, w), log_density(EXAMPLES[example]["wanted"], GRID).exp()
    return {
        "ode": moments(guided_ends(example, w, low, high), (-(STARTS**2) / 2).exp()),
        "tilt": moments(GRID, tilt),
        "wanted": moments(GRID, wanted),
    }


def moments(x: Tensor, weights: Tensor) -> tuple[float, float]:
    """Mean and variance of x (N,) under weights (N,), normalised here."""
    share = weights / weights.sum()
    mean = (share * x).sum()
    return float(mean), float((share * (x - mean) ** 2).sum())
