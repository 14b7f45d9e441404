"""One path of the probability-flow ODE on a line: a solver's steps beside the exact curve."""

from __future__ import annotations

from math import log2
from typing import Any, NamedTuple

import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.likelihood import likelihood_grid
from diffusion_edu.plotting import COLOURS
from diffusion_edu.samplers import runge_kutta_step
from diffusion_edu.schedules import LinearBeta
from diffusion_edu.widgets.base import StaticFigure, Widget, check_range
from diffusion_edu.widgets.reverse_family import one_of

SOLVERS = {"Euler": "euler", "Heun": "heun", "RK4": "rk4"}
ORDERS = {"Euler": 1, "Heun": 2, "RK4": 4}  # and, up to order 4, the evaluations of a step
COLOUR = {"Euler": COLOURS[1], "Heun": COLOURS[3], "RK4": COLOURS[2]}
STEPS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
GRIDS = ("uniform", "log_snr")
STARTS = 40  # places of the start: ranks (k + 1/2) / STARTS
EDGE = 2.6
SCHEDULE = LinearBeta()
MIXTURE = GaussianMixture(
    torch.tensor([[-1.3], [1.0]], dtype=torch.float64), 0.22, torch.tensor([0.35, 0.65], dtype=torch.float64)
)


class Slope(NamedTuple):
    """One evaluation of the velocity: the time, the places (STARTS,) where it was asked for, and the answers."""

    t: float
    x: Tensor
    v: Tensor


class SolverSteps(Widget):
    """A path from noise, t = 1, to data, t = t_min, on the schedule LinearBeta() with the exact score of two lumps.

    Traits: `solver`, one of SOLVERS; `steps`, one of STEPS; `grid`, "uniform" in t or "log_snr"; `start` in [0, STARTS):
    the share of the crowd below the path is (start + 1/2) / STARTS; `look`: the step that is enlarged, from 1, and the last
    one where there are fewer. Raises ValueError for any other value.
    """

    solver = traitlets.Unicode("Euler").tag(sync=True)
    steps = traitlets.Int(8).tag(sync=True)
    grid = traitlets.Unicode("uniform").tag(sync=True)
    start = traitlets.Int(14, help="which of the STARTS places at t = 1").tag(sync=True)
    look = traitlets.Int(7, help="the step that is enlarged, from 1").tag(sync=True)

    @traitlets.validate("solver", "steps", "grid")
    def _known(self, proposal: Any) -> Any:
        allowed = {"solver": tuple(SOLVERS), "steps": STEPS, "grid": GRIDS}[proposal.trait.name]
        return one_of(proposal.trait.name, proposal.value, allowed)

    @traitlets.validate("start", "look")
    def _counted(self, proposal: Any) -> int:
        low, high = {"start": (0, STARTS - 1), "look": (1, STEPS[-1])}[proposal.trait.name]
        return int(check_range(proposal.trait.name, proposal.value, low, high))

    def times(self, steps: int | None = None) -> Tensor:
        """steps + 1 falling times from 1 to t_min, even in t or in the log-SNR."""
        if self.grid == "log_snr":
            return likelihood_grid(SCHEDULE, steps or self.steps).flip(0)
        return torch.linspace(1, SCHEDULE.t_min, (steps or self.steps) + 1, dtype=torch.float64)

    def walk(self, solver: str | None = None, steps: int | None = None) -> tuple[Tensor, list[list[Slope]]]:
        """The states (steps + 1, STARTS) of a solver from all starts, and the evaluations of each step."""
        ts, method = self.times(steps), SOLVERS[solver or self.solver]
        denoiser, states, slopes = MIXTURE.denoiser(SCHEDULE), [exact_paths(ts[:1]).T], []
        for t, s in zip(ts[:-1], ts[1:], strict=True):
            slopes.append([])

            def velocity(x: Tensor, u: Tensor) -> Tensor:
                v = denoiser(x, u).velocity
                slopes[-1].append(Slope(float(u), x[:, 0], v[:, 0]))  # noqa: B023 (called within this turn)
                return v

            states.append(runge_kutta_step(velocity, states[-1], t, s, method))
        return torch.cat(states, dim=1).T, slopes

    def errors(self, solver: str | None = None, steps: int | None = None) -> Tensor:
        """Distances of a solver's ends from the exact ones, (STARTS,)."""
        return (self.walk(solver, steps)[0][-1] - exact_paths(self.times(steps)[-1:])[0]).abs()

    def static_figure(self) -> StaticFigure:
        """Draw the path with its tangents, and the errors of all solvers over the number of steps."""
        figure = Figure(figsize=(7.4, 3.4))
        path, chart = figure.subplots(1, 2, width_ratios=(1.25, 1))
        self.draw_path(path)
        shown = [n for n in STEPS if n.bit_count() == 1]  # powers of two: quick to compute
        crowd = {name: [rms(self.errors(name, n)) for n in shown] for name in SOLVERS}
        for name, values in crowd.items():
            label = f"{name}, order {fitted_order(values[-3], values[-1]):.1f}"
            chart.plot(shown, values, "o-", ms=3, color=COLOUR[name], label=label)
        chart.set(xscale="log", yscale="log", xlabel="steps", title=f"error of the end, rms of {STARTS} paths")
        chart.set_xticks(shown, [str(n) for n in shown])
        chart.minorticks_off()
        chart.legend(fontsize=8)
        return StaticFigure(figure, self.alt(crowd))

    def draw_path(self, ax: Axes) -> None:
        """Draw the marginals as a map, the exact path, the solver's polygon, and a tangent for each evaluation."""
        ts, (states, slopes) = self.times(), self.walk()
        fine = torch.linspace(1, SCHEDULE.t_min, 201, dtype=torch.float64)
        space = torch.linspace(-EDGE, EDGE, 201, dtype=torch.float64)
        density = torch.stack([MIXTURE.log_density(space[:, None], SCHEDULE, t).exp() for t in fine], 1)
        ax.pcolormesh(fine, space, density.sqrt(), cmap="Blues", shading="auto", vmax=1.6, rasterized=True)
        for h, (t, x, v) in ((h, slope) for h, step in zip(-ts.diff() / 3, slopes, strict=True) for slope in step):
            ends = [x[self.start] - v[self.start] * h, x[self.start] + v[self.start] * h]
            ax.plot([t - h, t + h], ends, color=COLOURS[4], lw=1.6)
        ax.plot(fine, exact_paths(fine)[:, self.start], "--", color="black", lw=1.2, label="exact")
        label = f"{self.solver}, {self.steps} steps"
        ax.plot(ts, states[:, self.start], "o-", ms=3.5, color=COLOUR[self.solver], label=label)
        ax.set(xlim=(1, 0), ylim=(-EDGE, EDGE), xlabel="time t: noise at the left, data at the right", ylabel="x")
        ax.grid(False)
        ax.legend(fontsize=8, loc="lower left")

    def alt(self, crowd: dict[str, list[float]]) -> str:
        """What the static figure shows, with its numbers."""
        orders = ", ".join(f"{name} {fitted_order(values[-3], values[-1]):.1f}" for name, values in crowd.items())
        return (
            f"Left, a map of the densities of two lumps from noise to data, the exact path of the ODE as a dashed curve, "
            f"and the polygon of {self.solver} with {self.steps} steps, a tangent at each evaluation: its end is off by "
            f"{float(self.errors()[self.start]):.3f}. Right, the error of the end, rms over {STARTS} paths, for "
            f"2 to {STEPS[-1]} steps on logarithmic axes; fitted orders: {orders}."
        )


def exact_paths(ts: Tensor) -> Tensor:
    """The exact paths of all starts at times ts (T,): quantiles of the marginals, (T, STARTS), by bisection.

    On a line the flow keeps ranks: the share of the crowd below a path never changes.
    """
    ranks = (torch.arange(STARTS, dtype=torch.float64) + 0.5) / STARTS
    alpha, sigma = SCHEDULE.alpha(ts)[:, None, None], SCHEDULE.sigma(ts)[:, None, None]
    means, stds = alpha * MIXTURE.means[:, 0], (alpha**2 * MIXTURE.stds**2 + sigma**2).sqrt()
    low, high = (torch.full((len(ts), STARTS), edge, dtype=torch.float64) for edge in (-12.0, 12.0))
    for _ in range(60):
        middle = (low + high) / 2
        below = (MIXTURE.weights * torch.special.ndtr((middle[..., None] - means) / stds)).sum(-1) < ranks
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def rms(values: Tensor) -> float:
    """Root of the mean square."""
    return float(values.square().mean().sqrt())


def fitted_order(few: float, many: float) -> float:
    """The order p of errors ~ 1 / steps^p, from those with 32 and with 128 steps."""
    return log2(few / many) / 2
