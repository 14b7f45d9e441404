"""Samplers with the exact score of a mixture in the plane, at equal numbers of evaluations."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.plotting import COLOURS
from diffusion_edu.process import normal_like
from diffusion_edu.samplers import ancestral, ddim, dpm_solver_pp, edm, multistep, sample
from diffusion_edu.schedules import SPACINGS, Cosine, time_grid
from diffusion_edu.widgets.base import StaticFigure, Widget, check_range
from diffusion_edu.widgets.reverse_family import one_of

SAMPLERS = {
    "DDIM": ddim,
    "Heun": edm,
    "iPNDM-4": multistep,
    "DPM-Solver++(2M)": dpm_solver_pp,
    "ancestral": ancestral,
}
LIMITS = (4, 50)
EDGE, PATHS, POINTS = 2.6, 8, 200
COMPONENTS = {"means": [[-1.2, 0.3], [0.9, 1.0], [0.4, -1.1]], "stds": [0.3, 0.4, 0.25], "weights": [0.2, 0.5, 0.3]}


class SamplerRace(Widget):
    """The mixture of the book, sampled with its exact score on the schedule Cosine().

    Traits: `sampler`, one of SAMPLERS; `evaluations` of the denoiser, 4 ... 50 (Heun takes the odd number at or below);
    `grid`, one of SPACINGS. Raises ValueError for any other value.
    """

    sampler = traitlets.Unicode("DDIM").tag(sync=True)
    evaluations = traitlets.Int(8).tag(sync=True)
    grid = traitlets.Unicode("uniform").tag(sync=True)
    means = traitlets.List(COMPONENTS["means"]).tag(sync=True)
    stds = traitlets.List(COMPONENTS["stds"]).tag(sync=True)
    weights = traitlets.List(COMPONENTS["weights"]).tag(sync=True)

    @traitlets.validate("sampler")
    def _known_sampler(self, proposal: Any) -> str:
        return one_of("sampler", proposal.value, tuple(SAMPLERS))

    @traitlets.validate("grid")
    def _known_grid(self, proposal: Any) -> str:
        return one_of("grid", proposal.value, SPACINGS)

    @traitlets.validate("evaluations")
    def _enough_evaluations(self, proposal: Any) -> int:
        return int(check_range("evaluations", proposal.value, *LIMITS))

    def mixture(self) -> GaussianMixture:
        """The law of the data."""
        means, stds, weights = (torch.tensor(v, dtype=torch.float64) for v in (self.means, self.stds, self.weights))
        return GaussianMixture(means, stds, weights)

    def walk(self, x: Tensor, name: str, evaluations: int, seed: int = 1) -> list[Tensor]:
        """The states, from x (N, 2) on, of a sampler with so many evaluations on the chosen grid."""
        steps = (evaluations + 1) // 2 if name == "Heun" else evaluations
        rule = SAMPLERS[name]
        if name == "ancestral":
            rule = partial(ancestral, generator=torch.Generator().manual_seed(seed))
        ts = time_grid(Cosine(), steps, self.grid)
        return [x, *(step.x for step in rule(self.mixture().denoiser(Cosine()), x, ts))]

    def exact(self, x: Tensor) -> Tensor:
        """The ends of the probability-flow ODE from x (N, 2), by a fine multistep solution."""
        return sample(dpm_solver_pp(self.mixture().denoiser(Cosine()), x, time_grid(Cosine(), 400, "log_snr")))

    def error(self, x: Tensor, name: str, evaluations: int) -> float:
        """Mean distance of a sampler's ends from the ODE's."""
        return float((self.walk(x, name, evaluations)[-1] - self.exact(x)).norm(dim=1).mean())

    def static_figure(self) -> StaticFigure:
        """Draw the walks over the data's density, and all errors against evaluations."""
        figure = Figure(figsize=(7.4, 3.4))
        plane, chart = figure.subplots(1, 2)
        x = normal_like(torch.zeros(POINTS, 2, dtype=torch.float64), torch.Generator().manual_seed(0))
        self.draw_walks(plane, x[:PATHS])
        ends = self.exact(x)
        counts = (5, 9, 15, 25, 49)
        for number, name in enumerate(list(SAMPLERS)[:-1]):
            errors = [float((self.walk(x, name, n)[-1] - ends).norm(dim=1).mean()) for n in counts]
            chart.plot(counts, errors, "o-", ms=3, color=COLOURS[number], label=name)
        chart.set(xscale="log", yscale="log", xlabel="evaluations", ylabel="mean error of the end")
        chart.set_xticks(counts, [str(n) for n in counts])
        chart.minorticks_off()
        chart.legend(fontsize=8)
        return StaticFigure(figure, self.alt())

    def draw_walks(self, ax: Axes, x: Tensor) -> None:
        """Draw the states of a few walks, and the exact ends, over the density."""
        space = torch.linspace(-EDGE, EDGE, 80, dtype=torch.float64)
        plane = torch.cartesian_prod(space, space)
        density = self.mixture().log_density(plane).exp().reshape(80, 80).T
        ax.contourf(space, space, density, levels=8, cmap="Blues", alpha=0.8)
        path = torch.stack(self.walk(x, self.sampler, self.evaluations))
        ax.plot(path[:, :, 0], path[:, :, 1], "o-", ms=2, lw=0.9, color=COLOURS[1])
        ax.plot(*self.exact(x).T, "x", ms=6, color="black")
        ax.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), aspect="equal", title=f"{self.sampler}, {self.evaluations}")

    def alt(self) -> str:
        """What the static figure shows."""
        return (
            f"Left, {PATHS} walks of {self.sampler} with {self.evaluations} evaluations on the grid {self.grid}, from noise "
            "into three lumps; crosses mark the exact ends. Right, the mean error of four solvers against evaluations from "
            "5 to 49, on logarithmic axes: all fall, DDIM slowest at the end."
        )
