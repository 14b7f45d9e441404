"""The score field: arrows of a noisy mixture, and walkers that follow them by Langevin dynamics."""

from __future__ import annotations

from math import hypot, sqrt
from typing import Any

import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.plotting import COLOURS, density_and_points, score_arrows
from diffusion_edu.samplers import langevin, sample
from diffusion_edu.widgets.base import StaticFigure, Widget, check_range

REACH = 3.0  # the picture shows [-REACH, REACH]^2
SIGMAS = (0.05, 3.0)  # range of the noise level
SIZES = (0.02, 5.0)  # range of the step, in units of the thinnest lump's variance
MOST_WALKERS, MOST_LUMPS = 600, 5
LETTERS = "ABCDE"


class ScoreField(Widget):
    """The score field of a mixture in the plane at a noise level, with walkers on it.

    mixture: K <= 5 lumps in two dimensions. start: (N, 2), where the N <= 600 walkers begin. sigma: noise level added to the
    data, in SIGMAS. size: Langevin's step, as a multiple of the thinnest lump's variance at this level, in SIZES. steps: how
    many steps they have made before the reader comes, at this level and size. noise: whether walkers are shaken. annealed:
    whether the level falls by itself.
    Raises ValueError for anything else.
    """

    means = traitlets.List(help="centres of the lumps").tag(sync=True)
    stds = traitlets.List(help="widths of the lumps").tag(sync=True)
    weights = traitlets.List(help="weights of the lumps").tag(sync=True)
    start = traitlets.List(help="where the walkers begin").tag(sync=True)
    walkers = traitlets.List(help="where they are after `steps` steps").tag(sync=True)
    steps = traitlets.Int(help="steps made before the reader comes").tag(sync=True)
    sigma = traitlets.Float(0.1, help="noise level").tag(sync=True)
    size = traitlets.Float(0.5, help="step, in units of the thinnest lump's variance").tag(sync=True)
    noise = traitlets.Bool(True, help="whether walkers are shaken").tag(sync=True)
    annealed = traitlets.Bool(False, help="whether the noise level falls by itself").tag(sync=True)
    seed = traitlets.Int(1, help="seed of the walkers' noise in the browser").tag(sync=True)

    def __init__(
        self,
        mixture: GaussianMixture,
        start: Tensor,
        sigma: float = 0.1,
        steps: int = 60,
        generator: torch.Generator | None = None,
        **traits: Any,
    ) -> None:
        check_field(mixture, start, steps)
        super().__init__(
            means=rounded(mixture.means),
            stds=rounded(mixture.stds),
            weights=rounded(mixture.weights),
            start=rounded(start),
            steps=steps,
            sigma=sigma,
            **traits,
        )
        self.walkers = rounded(self.walked(generator))

    @traitlets.validate("sigma", "size")
    def _in_range(self, proposal: Any) -> float:
        low, high = SIGMAS if proposal.trait.name == "sigma" else SIZES
        return check_range(proposal.trait.name, proposal.value, low, high)

    def noisy(self) -> GaussianMixture:
        """The mixture at the present noise level."""
        double = {"dtype": torch.float64}
        stds = torch.tensor([hypot(std, self.sigma) for std in self.stds], **double)
        return GaussianMixture(torch.tensor(self.means, **double), stds, torch.tensor(self.weights, **double))

    def step(self) -> float:
        """Langevin's eta: `size` times the variance of the thinnest lump at the present noise level."""
        return self.size * (min(self.stds) ** 2 + self.sigma**2)

    def walked(self, generator: torch.Generator | None) -> Tensor:
        """The walkers (N, 2) after `steps` Langevin steps from the start."""
        start = torch.tensor(self.start, dtype=torch.float64)
        if self.steps == 0:
            return start
        return sample(langevin(self.noisy().score, start, self.step(), self.steps, generator, self.noise))

    def shares(self) -> list[float]:
        """Share of the walkers nearest to each lump's centre."""
        distances = torch.cdist(torch.tensor(self.walkers), torch.tensor(self.means))
        return (distances.argmin(1).bincount(minlength=len(self.means)).double() / len(self.walkers)).tolist()

    def static_figure(self) -> StaticFigure:
        """Draw arrows and walkers, and the shares beside the weights."""
        figure = Figure(figsize=(7.4, 4.2))
        field, bars = figure.subplots(1, 2, width_ratios=(2.2, 1))
        self.draw_field(field)
        self.draw_shares(bars)
        return StaticFigure(figure, self.alt())

    def draw_field(self, ax: Axes) -> None:
        """Draw the noisy density, its score as arrows, and the walkers."""
        law, ticks = self.noisy(), torch.linspace(-REACH, REACH, 91, dtype=torch.float64)
        plane = torch.cartesian_prod(ticks, ticks).flip(1)
        walkers = torch.tensor(self.walkers)
        density_and_points(ax, ticks, law.log_density(plane).reshape(91, 91), walkers, f"noise level {self.sigma:g}")
        coarse = torch.cartesian_prod(ticks[3::7], ticks[3::7])
        score_arrows(ax, coarse, law.score(coarse), COLOURS[5])
        for letter, mean in zip(LETTERS, self.means, strict=False):
            ax.text(*mean, letter, ha="center", va="center", weight="bold")

    def draw_shares(self, ax: Axes) -> None:
        """Draw each lump's share of the walkers, and its weight with one standard error."""
        letters = list(LETTERS[: len(self.weights)])
        ax.bar(letters, self.shares(), color=COLOURS[1], alpha=0.75, label="share of the walkers")
        errors = [sqrt(w * (1 - w) / len(self.walkers)) for w in self.weights]
        ax.errorbar(letters, self.weights, errors, fmt="_", ms=26, color=COLOURS[0], label="weight ± 1 s.e.")
        ax.set(ylim=(0, 1.25), title=f"after {self.steps} steps")
        ax.legend(loc="upper right")

    def alt(self) -> str:
        """What the static figure shows, with its numbers."""
        lumps = ", ".join(
            f"{letter} {100 * share:.0f} % (weight {100 * weight:.0f} %)"
            for letter, share, weight in zip(LETTERS, self.shares(), self.weights, strict=False)
        )
        return (
            f"Arrows of the score of {len(self.means)} lumps at noise level {self.sigma:g}, and {len(self.walkers)} walkers "
            f"after {self.steps} Langevin steps from one place. Shares of the walkers: {lumps}."
        )


def check_field(mixture: GaussianMixture, start: Tensor, steps: int) -> None:
    """Raise ValueError unless mixture, start and steps are ones that the widget can show."""
    if mixture.dim != 2 or len(mixture.means) > MOST_LUMPS:
        raise ValueError(
            f"need at most {MOST_LUMPS} lumps in the plane, got {len(mixture.means)} in {mixture.dim} dimensions"
        )
    if start.ndim != 2 or start.shape[1] != 2 or not 1 <= len(start) <= MOST_WALKERS:
        raise ValueError(f"start must have shape (1 to {MOST_WALKERS}, 2), got {tuple(start.shape)}")
    if not bool(start.isfinite().all()):
        raise ValueError("start must be finite")
    if not 0 <= steps <= 10_000:
        raise ValueError(f"steps must lie in [0, 10000], got {steps}")


def rounded(values: Tensor) -> list:
    """Numbers with four digits after the point, as nested lists: a page need not carry more."""
    return (values.double() * 1e4).round().div(1e4).tolist()
