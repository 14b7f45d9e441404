"""One data point, four routes to its log-density: exact, the ODE, the ODE with a probe, and the bound."""

from __future__ import annotations

from typing import Any

import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.denoisers import DenoiserFunction
from diffusion_edu.likelihood import likelihood_grid, ode_log_likelihoods
from diffusion_edu.plotting import COLOURS
from diffusion_edu.process import Prediction
from diffusion_edu.samplers import runge_kutta_step
from diffusion_edu.schedules import LinearBeta
from diffusion_edu.widgets.base import StaticFigure, Widget, check_range

STEPS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
CHAIN = 16  # steps of the bound's chain for one of the solver
MOST_ERROR = 0.3
LOWEST, HIGHEST = -8.0, 1.0  # of the axis, in nats
SCHEDULE = LinearBeta()
MIXTURE = GaussianMixture(
    torch.tensor([[-1.2, 0.3], [0.9, 1.0], [0.4, -1.1]], dtype=torch.float64),
    torch.tensor([0.3, 0.4, 0.25], dtype=torch.float64),
    torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64),
)
# the routes and their colours, as in the module (a test compares)
ROUTES = {
    "exact": ("exact density", "#6b7280"),
    "ode": ("ODE, exact divergence", COLOURS[0]),
    "equal": ("ODE, probe (1, 1)", COLOURS[2]),
    "opposite": ("ODE, probe (1, −1)", COLOURS[3]),
    "bound": ("bound (ELBO)", COLOURS[4]),
}


class LikelihoodRoutes(Widget):
    """Sliders for a data point on a line through two lumps, for the solver's steps, and for an error of the score.

    place: along the line, in [0, 1]; steps: of Heun's method, one of `STEPS`, and the bound's chain has `CHAIN` times as
    many; error: size of a smooth error in eps_hat, in [0, MOST_ERROR]. Raises ValueError for anything else.
    """

    place = traitlets.Float(0.55, help="where the data point is, from 0 at the left to 1").tag(sync=True)
    steps = traitlets.Int(6, help="steps of the solver").tag(sync=True)
    error = traitlets.Float(0.0, help="size of the error in eps_hat").tag(sync=True)

    @traitlets.validate("place", "error")
    def _inside(self, proposal: Any) -> float:
        return check_range(proposal.trait.name, proposal.value, 0, MOST_ERROR if proposal.trait.name == "error" else 1)

    @traitlets.validate("steps")
    def _known_steps(self, proposal: Any) -> int:
        if proposal.value not in STEPS:
            raise ValueError(f"steps must be one of {', '.join(map(str, STEPS))}, got {proposal.value}")
        return proposal.value

    def static_figure(self) -> StaticFigure:
        """Draw the flow in the plane and the routes' values at three numbers of steps."""
        figure = Figure(figsize=(7.4, 3.4))
        plane, values = figure.subplots(1, 2, width_ratios=(1, 1.15))
        draw_plane(plane, point(self.place), self.steps, self.error)
        self.draw_values(values)
        return StaticFigure(figure, self.alt())

    def draw_values(self, ax: Axes) -> None:
        """Draw each route's value over the number of steps."""
        shown = [n for n in STEPS if n.bit_count() == 1 and n <= 32]  # powers of two: quick to compute
        found = [routes(self.place, n, self.error) for n in shown]
        for key, (name, colour) in ROUTES.items():
            ax.plot(shown, [each[key] for each in found], "-" if key == "exact" else ".-", color=colour, label=name)
        ax.set(
            xscale="log", xlabel="steps", title="log-density, nats", ylim=(found[0]["exact"] - 5, found[0]["exact"] + 4)
        )
        ax.set_xticks(shown, [str(n) for n in shown])
        ax.minorticks_off()
        ax.legend(fontsize=8)

    def alt(self) -> str:
        """What the static figure shows, with its numbers."""
        few, many = routes(self.place, self.steps, self.error), routes(self.place, 32, self.error)
        return (
            f"Left, three lumps in the plane, and the line along which the ODE carries a data point to its noise. Right, "
            f"its log-density by four routes over the number of steps. Exact: {few['exact']:.2f} nats. With {self.steps} "
            f"steps the ODE says {few['ode']:.2f} and the bound {few['bound']:.2f}; with 32 steps {many['ode']:.2f} and "
            f"{many['bound']:.2f}."
        )


def point(place: float) -> Tensor:
    """The data point at `place`, (1, 2), on a line through the left and the upper right lump."""
    return torch.tensor([[-2.1 + 4.2 * place, 1.4 * place]], dtype=torch.float64)


def wrong_denoiser(error: float) -> DenoiserFunction:
    """The mixture's exact denoiser with `error` times (cos 2 x_2, sin 2 x_1) added to eps_hat."""
    exact = MIXTURE.denoiser(SCHEDULE)

    def denoise(x: Tensor, t: Tensor, y: Tensor | None = None) -> Prediction:
        bend = torch.stack([(2 * x[:, 1]).cos(), (2 * x[:, 0]).sin()], dim=1)
        return Prediction(SCHEDULE, x, t, exact(x, t).eps + error * bend, "eps")

    denoise.schedule = SCHEDULE
    return denoise


def routes(place: float, steps: int, error: float) -> dict[str, float]:
    """log-density in nats by each of `ROUTES` at the data point."""
    x0, denoiser, ts = point(place), wrong_denoiser(error), likelihood_grid(SCHEDULE, steps)
    probes = torch.tensor([[[1.0, 1.0]], [[1.0, -1.0]]], dtype=torch.float64)  # up to a sign, there are no others
    equal, opposite = ode_log_likelihoods(denoiser, x0, ts, probes=probes)[:, 0].tolist()
    return {
        "exact": float(MIXTURE.log_density(x0)),
        "ode": (equal + opposite) / 2,  # with signs in the plane, exactly that with the exact divergence
        "equal": equal,
        "opposite": opposite,
        "bound": bound(denoiser, x0, likelihood_grid(SCHEDULE, CHAIN * steps)),
    }


def bound(denoiser: DenoiserFunction, x0: Tensor, ts: Tensor) -> float:
    """ELBO in nats of the chain with times ts, for one point x0 (1, 2); its average over noise by the trapezoidal rule."""
    ticks = torch.linspace(-4.5, 4.5, 13, dtype=torch.float64)
    eps = torch.cartesian_prod(ticks, ticks)
    weights = (-eps.square().sum(1) / 2).softmax(0)
    alpha, sigma = SCHEDULE.alpha(ts), SCHEDULE.sigma(ts)
    snr = (alpha / sigma) ** 2
    total = ((alpha[-1] * x0).square() + sigma[-1] ** 2 - 1 - 2 * sigma[-1].log()).sum() / 2
    for i in range(1, len(ts)):
        x0_hat = denoiser(alpha[i] * x0 + sigma[i] * eps, ts[i]).x0
        total = total + (snr[i - 1] - snr[i]) / 2 * weights @ (x0 - x0_hat).square().sum(1)
    return -float(total + 1 + (2 * torch.pi / snr[0]).log())


def path(x0: Tensor, steps: int, error: float) -> Tensor:
    """The states along the flow from data x0 (N, 2) to noise, (steps + 1, N, 2)."""
    denoiser, ts = wrong_denoiser(error), likelihood_grid(SCHEDULE, steps)
    states = [SCHEDULE.alpha(ts[0]) * x0]
    for t, s in zip(ts[:-1], ts[1:], strict=True):
        states.append(runge_kutta_step(lambda x, t: denoiser(x, t).velocity, states[-1], t, s))
    return torch.stack(states)


def draw_plane(ax: Axes, x0: Tensor, steps: int, error: float) -> None:
    """Draw the lumps, faint flow lines, and the line of the data point."""
    angle = torch.arange(8, dtype=torch.float64) * torch.pi / 4
    ring = torch.stack([angle.cos(), angle.sin()], dim=1)
    around = (MIXTURE.means[:, None] + 1.3 * MIXTURE.stds[:, None, None] * ring).flatten(0, 1)
    ax.plot(*path(around, 32, error).unbind(2), color=COLOURS[5], lw=0.7, alpha=0.5)
    ax.plot(*path(x0, steps, error)[:, 0].T, "o-", color=COLOURS[0], ms=3)
    ax.plot(*x0.T, "o", color=COLOURS[1], ms=7)
    ax.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", title="from data to noise")
