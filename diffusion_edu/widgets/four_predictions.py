"""The four things that a network may predict, in the plane, all from one posterior mean: their arrows, and their sizes."""

from __future__ import annotations

from typing import Any

import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.plotting import COLOURS, density_and_points, score_arrows
from diffusion_edu.process import Prediction, q_sample
from diffusion_edu.schedules import Cosine
from diffusion_edu.widgets.base import StaticFigure, Widget, check_range

REACH = 3.0  # the picture shows [-REACH, REACH]^2
TITLES = {"eps": r"$\hat\varepsilon$", "x0": r"$\hat x_0 - x_t$", "score": "score", "v": r"$\hat v$"}
TIMES = torch.arange(1, 100, dtype=torch.float64) / 100
MOST_LUMPS = 5
POINTS = 2000  # noised data over which a typical length is taken


class FourPredictions(Widget):
    """Noise, data, score and v as an exact denoiser predicts them at a time and a point; the cosine schedule.

    mixture: at most 5 lumps in the plane. generator: of the noised data whose typical lengths are drawn. t in [0.01, 0.99];
    x and y in [-3, 3], the point x_t. Raises ValueError for anything else.
    """

    t = traitlets.Float(0.35, help="time").tag(sync=True)
    x = traitlets.Float(-0.2, help="first coordinate of x_t").tag(sync=True)
    y = traitlets.Float(0.7, help="second coordinate of x_t").tag(sync=True)
    means = traitlets.List(help="centres of the lumps").tag(sync=True)
    stds = traitlets.List(help="widths of the lumps").tag(sync=True)
    weights = traitlets.List(help="weights of the lumps").tag(sync=True)
    lengths = traitlets.Dict(help="root mean square length of each prediction at the 99 times").tag(sync=True)

    def __init__(self, mixture: GaussianMixture, generator: torch.Generator | None = None, **traits: Any) -> None:
        if mixture.dim != 2 or len(mixture.means) > MOST_LUMPS:
            raise ValueError(
                f"need at most {MOST_LUMPS} lumps in the plane, got {len(mixture.means)} in {mixture.dim} dimensions"
            )
        self.mixture = GaussianMixture(mixture.means.double(), mixture.stds.double(), mixture.weights.double())
        super().__init__(
            means=self.mixture.means.tolist(),
            stds=self.mixture.stds.tolist(),
            weights=self.mixture.weights.tolist(),
            lengths=typical_lengths(self.mixture, generator),
            **traits,
        )

    @traitlets.validate("t", "x", "y")
    def _in_range(self, proposal: Any) -> float:
        low, high = (0.01, 0.99) if proposal.trait.name == "t" else (-REACH, REACH)
        return check_range(proposal.trait.name, proposal.value, low, high)

    def predictions(self, points: Tensor) -> Prediction:
        """What the exact denoiser answers at points (N, 2) and the present time."""
        return self.mixture.denoiser(Cosine())(points, torch.tensor(self.t, dtype=torch.float64))

    def static_figure(self) -> StaticFigure:
        """Draw the four fields over the curves of typical length and of the error that a conversion makes."""
        figure = Figure(figsize=(7.4, 4.625))
        top, below = figure.subfigures(2, 1, height_ratios=(1, 1.15))
        for ax, name in zip(top.subplots(1, 4), TITLES, strict=True):
            self.draw_field(ax, name)
        left, right = below.subplots(1, 2)
        for (name, title), colour in zip(TITLES.items(), COLOURS, strict=False):
            left.semilogy(TIMES, self.lengths[name], color=colour, label=title.replace(" - x_t", ""))
            right.semilogy(TIMES, error_in_x0(TIMES)[name], color=colour)
        left.set(title="Typical length", xlabel="time t", ylim=(0.01, 100))
        right.set(title=r"Error of $\hat x_0$ from an error of 1", xlabel="time t", ylim=(0.01, 100))
        for ax in (left, right):
            ax.axvline(self.t, color=COLOURS[5], lw=0.8, ls=":")
        left.legend(ncols=2, fontsize=8)
        return StaticFigure(figure, self.alt())

    def draw_field(self, ax: Axes, name: str) -> None:
        """Draw the density of x_t, one prediction's arrows on it, and the point."""
        ticks = torch.linspace(-REACH, REACH, 61, dtype=torch.float64)
        plane, coarse = torch.cartesian_prod(ticks, ticks).flip(1), torch.cartesian_prod(ticks[3::9], ticks[3::9])
        t = torch.tensor(self.t, dtype=torch.float64)
        density = self.mixture.log_density(plane, Cosine(), t).reshape(61, 61)
        density_and_points(ax, ticks, density, torch.zeros(0, 2), TITLES[name])
        score_arrows(ax, coarse, vector(self.predictions(coarse), name), COLOURS[list(TITLES).index(name)])
        ax.plot(self.x, self.y, "o", ms=4, color="#1f2328")

    def alt(self) -> str:
        """What the static figure shows, with its numbers."""
        here = self.predictions(torch.tensor([[self.x, self.y]], dtype=torch.float64))
        sizes = ", ".join(f"{name} {float(vector(here, name).norm()):.2f}" for name in TITLES)
        x0 = ", ".join(f"{value:.2f}" for value in here.x0[0].tolist())
        now = error_in_x0(torch.tensor(self.t, dtype=torch.float64))
        errors = ", ".join(f"{name} {float(value):.2f}" for name, value in now.items())
        return (
            f"Four fields of arrows at t = {self.t:.2f}: predicted noise, the way to the predicted data, the score, and v. "
            f"At x_t = ({self.x:.1f}, {self.y:.1f}) the predicted data point is ({x0}), and the lengths are {sizes}. Below, "
            f"typical lengths over time, and what an error of 1 in each prediction does to the data point: {errors}."
        )


def vector(prediction: Prediction, name: str) -> Tensor:
    """The arrow that is drawn: a prediction, but for the data the way from x_t to it."""
    return prediction.x0 - prediction.x_t if name == "x0" else getattr(prediction, name)


def typical_lengths(mixture: GaussianMixture, generator: torch.Generator | None) -> dict[str, list[float]]:
    """Root mean square length of each prediction over noised data, at TIMES."""
    x0 = mixture.sample(POINTS, generator)
    eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    denoiser, lengths = mixture.denoiser(Cosine()), {name: [] for name in TITLES}
    for t in TIMES:
        answer = denoiser(q_sample(Cosine(), x0, t, eps), t)
        for name in TITLES:
            lengths[name].append(round(float(getattr(answer, name).square().sum(1).mean().sqrt()), 5))
    return lengths


def error_in_x0(t: Tensor) -> dict[str, Tensor]:
    """How far x0_hat is off when a prediction is off by 1, at times `t`, for a schedule that preserves variance."""
    alpha, sigma = Cosine().alpha(t), Cosine().sigma(t)
    return {"eps": sigma / alpha, "x0": torch.ones_like(t), "score": sigma**2 / alpha, "v": sigma}
