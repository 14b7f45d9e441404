"""Three dynamics over one marginal: the forward SDE, its reversal, and every reverse process between and beyond."""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.plotting import COLOURS
from diffusion_edu.process import Prediction, normal_like
from diffusion_edu.samplers import euler_maruyama
from diffusion_edu.schedules import LinearBeta
from diffusion_edu.widgets.base import StaticFigure, Widget, check_range

DIRECTIONS = ("reverse", "forward")
STEPS = (5, 10, 20, 40, 80, 160, 320)
LIMITS = {"noise": (0, 2), "error": (-0.5, 0.5)}
EDGE = 3.4  # the picture shows space from -EDGE to EDGE
CELLS = 680  # cells of the grid on which distances are computed
PATHS, SHOWN = 400, 16  # particles, and those whose paths are drawn
COMPONENTS = {"means": [-1.4, 0.1, 1.3], "stds": [0.25, 0.15, 0.3], "weights": [0.35, 0.2, 0.45]}


class ReverseFamily(Widget):
    """A mixture on the line, and paths of dx = (f x - (1 + noise^2) / 2 g^2 score) dt + noise g dW, run backwards.

    Traits: `noise` in [0, 2] (0 is the ODE, 1 Anderson's reversal), `steps` one of STEPS, `error` in [-0.5, 0.5]: the
    score is multiplied by 1 + error; `direction`: "reverse" or "forward". The module runs 400 paths on the schedule
    LinearBeta() and reuses one Brownian motion for all settings. Raises ValueError for any other value.
    """

    direction = traitlets.Unicode("reverse").tag(sync=True)
    noise = traitlets.Float(1.0).tag(sync=True)
    steps = traitlets.Int(160).tag(sync=True)
    error = traitlets.Float(0.0).tag(sync=True)
    means = traitlets.List(COMPONENTS["means"], help="of the data's components").tag(sync=True)
    stds = traitlets.List(COMPONENTS["stds"]).tag(sync=True)
    weights = traitlets.List(COMPONENTS["weights"]).tag(sync=True)

    @traitlets.validate(*LIMITS)
    def _inside_limits(self, proposal: Any) -> float:
        return check_range(proposal.trait.name, proposal.value, *LIMITS[proposal.trait.name])

    @traitlets.validate("steps")
    def _known_steps(self, proposal: Any) -> int:
        return one_of("steps", proposal.value, STEPS)

    @traitlets.validate("direction")
    def _known_direction(self, proposal: Any) -> str:
        return one_of("direction", proposal.value, DIRECTIONS)

    def mixture(self) -> GaussianMixture:
        """The law of the data."""
        means, stds, weights = (torch.tensor(v, dtype=torch.float64) for v in (self.means, self.stds, self.weights))
        return GaussianMixture(means[:, None], stds, weights)

    def paths(self, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Times (steps + 1,) in the order of the walk, and positions (steps + 1, PATHS)."""
        generator, mixture = torch.Generator().manual_seed(seed), self.mixture()
        ts = torch.linspace(1, 0, self.steps + 1, dtype=torch.float64)
        if self.direction == "reverse":
            start = normal_like(torch.zeros(PATHS, 1, dtype=torch.float64), generator)
            denoiser = scaled_score(mixture, 1 + self.error)
            walk = [step.x for step in euler_maruyama(denoiser, start, ts, generator=generator, noise=self.noise)]
            return ts, torch.stack([start, *walk])[:, :, 0]
        schedule, ts = LinearBeta(), ts.flip(0)
        x = mixture.sample(PATHS, generator)
        walk = [x]
        for t, u in zip(ts[:-1], ts[1:], strict=True):
            f, g2 = schedule.drift(t), schedule.diffusion_squared(t)
            x = x + (u - t) * f * x + (g2 * (u - t)).sqrt() * normal_like(x, generator)
            walk.append(x)
        return ts, torch.stack(walk)[:, :, 0]

    def static_figure(self) -> StaticFigure:
        """Draw the paths over the marginal densities, and the histogram of where they arrive."""
        figure = Figure(figsize=(7.4, 3.2))
        main, end = figure.subplots(1, 2, width_ratios=(5, 1), sharey=True)
        ts, paths = self.paths()
        self.draw_paths(main, ts, paths)
        self.draw_end(end, ts[-1], paths[-1])
        return StaticFigure(figure, self.alt(ts[-1], paths[-1]))

    def draw_paths(self, ax: Axes, ts: Tensor, paths: Tensor) -> None:
        """Draw the density of the marginals as a map, and some paths over it; noise at the left, data at the right."""
        space, times = space_grid(), torch.linspace(1, 0, 121, dtype=torch.float64)
        density = torch.stack([self.mixture().log_density(space[:, None], LinearBeta(), t).exp() for t in times], 1)
        ax.pcolormesh(times, space, density.sqrt(), cmap="Blues", shading="auto", vmax=1.3, rasterized=True)
        ax.plot(ts, paths[:, :SHOWN], color=COLOURS[1], lw=0.8)
        ax.set(xlim=(1, 0), ylim=(-EDGE, EDGE), xlabel="time t: noise at the left, data at the right", ylabel="x")

    def draw_end(self, ax: Axes, t: Tensor, x: Tensor) -> None:
        """Draw the histogram of the arrivals x (PATHS,) beside the exact density at `t`."""
        space = space_grid()
        ax.hist(x.clamp(-EDGE, EDGE), bins=40, density=True, orientation="horizontal", color=COLOURS[1], alpha=0.6)
        ax.plot(self.mixture().log_density(space[:, None], LinearBeta(), t).exp(), space, color=COLOURS[0])
        ax.set(title=f"t = {float(t):g}", xticks=[])

    def alt(self, t: Tensor, x: Tensor) -> str:
        """What the static figure shows, with its numbers."""
        names = {0.0: "the ODE", 1.0: "the reverse SDE"}
        name = names.get(self.noise, f"a reverse process with noise {self.noise:g}")
        dynamics = "the forward SDE" if self.direction == "forward" else name
        law = self.mixture().log_density(space_grid()[:, None], LinearBeta(), t).exp()
        return (
            f"{SHOWN} paths of {dynamics} in {self.steps} steps, score error {self.error:+.0%}, over a map of the densities "
            f"at all times: one broad lump at t = 1 divides into three at t = 0. At the right, where {PATHS} paths arrive: "
            f"distance {distance(x, law):.3f} to the exact law, {expected_distance(law, PATHS):.3f} expected by chance."
        )


def one_of(name: str, value: Any, allowed: tuple) -> Any:
    """`value`, if it is one of those allowed; otherwise ValueError."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, got {value}")
    return value


def scaled_score(mixture: GaussianMixture, factor: float):
    """The exact denoiser of `mixture` on LinearBeta(), its score multiplied by `factor`."""
    schedule = LinearBeta()

    def denoise(x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Prediction:
        return Prediction(schedule, x_t, t, factor * mixture.score(x_t, schedule, t), "score")

    return denoise


def space_grid() -> Tensor:
    """CELLS + 1 points from -EDGE to EDGE."""
    return torch.linspace(-EDGE, EDGE, CELLS + 1, dtype=torch.float64)


def cumulative(density: Tensor) -> Tensor:
    """Distribution function on `space_grid` of a density on it, by the trapezoidal rule, normalised to end at 1."""
    steps = torch.cat([density.new_zeros(1), (density[1:] + density[:-1]) / 2])
    return steps.cumsum(0) / steps.sum()


def distance(x: Tensor, density: Tensor) -> float:
    """1-Wasserstein distance of points (N,) from a density on `space_grid`: the area between distribution functions."""
    inside = x.double().clamp(-EDGE, EDGE).sort().values
    empirical = torch.searchsorted(inside, space_grid(), right=True).double() / len(x)
    gap = (empirical - cumulative(density)).abs() * (2 * EDGE / CELLS)
    return float(gap.sum() - (gap[0] + gap[-1]) / 2)


def expected_distance(density: Tensor, n: int) -> float:
    """The distance that n independent draws of the density itself have on average, for large n.

    At each point the gap of the distribution functions is nearly normal with variance F (1 - F) / n.
    """
    law = cumulative(density)
    return sqrt(2 / (pi * n)) * float((law * (1 - law)).clamp(min=0).sqrt().sum()) * 2 * EDGE / CELLS
