"""The bound of a diffusion chain as an area: its three terms, and what each step costs."""

from __future__ import annotations

from math import log, pi
from typing import Any

import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_edu.plotting import COLOURS
from diffusion_edu.widgets.base import StaticFigure, Widget, check_range

SPREAD = 0.2  # the data: two lumps at -1 and 1 of this deviation
SCHEDULES = {"even": "Even in log-SNR", "cosine": "Cosine", "linear": "Linear β", "flow": "Flow"}
LIMITS = {"steps": (1, 1000), "high": (2, 10), "low": (-10, 1)}
GRID = torch.linspace(-9, 9, 721, dtype=torch.float64)


class BoundExplorer(Widget):
    """Prior, diffusion and reconstruction of a chain with the exact denoiser, for data of two lumps on a line.

    steps: of the chain, 1 ... 1000; high, low: log-SNR at its ends, in [2, 10] and [-10, 1]; schedule: one of
    SCHEDULES, stretched between these ends. Raises ValueError for other values.
    """

    steps = traitlets.Int(10).tag(sync=True)
    high = traitlets.Float(7.0).tag(sync=True)
    low = traitlets.Float(-7.0).tag(sync=True)
    schedule = traitlets.Unicode("even").tag(sync=True)

    @traitlets.validate(*LIMITS)
    def _inside_limits(self, proposal: Any) -> float:
        return check_range(proposal.trait.name, proposal.value, *LIMITS[proposal.trait.name])

    @traitlets.validate("schedule")
    def _known_schedule(self, proposal: Any) -> str:
        if proposal.value not in SCHEDULES:
            raise ValueError(f"unknown schedule {proposal.value!r}; known: {', '.join(SCHEDULES)}")
        return proposal.value

    def static_figure(self) -> StaticFigure:
        """Draw the steps' costs over the continuous curve, and the terms beside it."""
        figure = Figure(figsize=(7.4, 3.0))
        left, right = figure.subplots(1, 2)
        u = torch.linspace(0, 1, 241, dtype=torch.float64)
        edges = torch.linspace(0, 1, self.steps + 1, dtype=torch.float64)
        costs = step_costs(self.schedule, self.steps, self.low, self.high) * self.steps
        left.stairs(costs.clamp(max=17), edges, fill=True, color=COLOURS[1], alpha=0.35, label="steps")
        left.plot(u, cost_curve(self.schedule, self.low, self.high, u), color=COLOURS[0], label="continuous time")
        left.set(xlabel="time, from data to noise", ylabel="nats a unit of time", xlim=(0, 1), ylim=(0, 16))
        left.legend()
        found = terms(self.schedule, self.steps, self.low, self.high)
        start = 0.0
        for row, (name, colour) in enumerate(
            zip(("prior", "diffusion", "reconstruction"), (COLOURS[2], COLOURS[0], COLOURS[1]), strict=True)
        ):
            right.barh(row, found[name], left=start, color=colour)
            start += found[name]
        right.barh(3, start, color=COLOURS[5])
        right.axvline(entropy(), color="#1f2328", ls=":", lw=1.2)
        right.set_yticks(range(4), ["prior", "diffusion", "reconstruction", "total"])
        right.set(xlabel="nats (dotted: the truth)", xlim=(-1, 8))
        right.invert_yaxis()
        return StaticFigure(figure, self.alt(found))

    def alt(self, found: dict[str, float]) -> str:
        """What the static figure shows, with its numbers."""
        return (
            f"Cost of each of {self.steps} steps as a staircase over the smooth curve of continuous time. "
            f"Prior {found['prior']:.2f}, diffusion {found['diffusion']:.2f}, reconstruction {found['reconstruction']:.2f}, "
            f"total {found['total']:.2f} nats; the truth is {entropy():.2f}."
        )


def lumps(x: Tensor, a: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """log-density and score at x where the lumps lie at -a and a with variance v; broadcasts."""
    exponents = torch.stack([-((x - a) ** 2) / (2 * v), -((x + a) ** 2) / (2 * v)])
    log_density = exponents.logsumexp(0) - log(2) - (2 * pi * v).log() / 2
    return log_density, (a * (a * x / v).tanh() - x) / v


def eps_error(log_snr: Tensor) -> Tensor:
    """E|eps - eps_hat|^2 of the exact denoiser at each log-SNR (n,): 1 - sigma^2 E score^2, by quadrature."""
    alpha2, sigma2 = log_snr.sigmoid()[:, None], (-log_snr).sigmoid()[:, None]
    log_density, score = lumps(GRID, alpha2.sqrt(), alpha2 * SPREAD**2 + sigma2)
    return 1 - sigma2[:, 0] * (log_density.exp() * score**2).sum(1) * (GRID[1] - GRID[0])


def entropy() -> float:
    """Entropy of the data in nats."""
    one = torch.ones((), dtype=torch.float64)
    log_density, _ = lumps(GRID, one, one * SPREAD**2)
    return -float((log_density.exp() * log_density).sum() * (GRID[1] - GRID[0]))


def log_snr_at(schedule: str, low: float, high: float, u: Tensor) -> Tensor:
    """log-SNR at u in [0, 1], from high to low, in the schedule's own time."""
    ends = torch.tensor([high, low], dtype=torch.float64)
    if schedule == "even":
        return high + (low - high) * u
    if schedule == "cosine":
        time, back = 2 / pi * (-ends / 2).exp().atan(), lambda t: -2 * (pi * t / 2).tan().log()
    elif schedule == "flow":
        time, back = (-ends / 2).sigmoid(), lambda t: 2 * ((1 - t) / t).log()
    else:  # -log alpha^2 = 0.1 t + 9.95 t^2
        depth = torch.nn.functional.softplus(-ends)
        time = 2 * depth / (0.1 + (0.01 + 39.8 * depth).sqrt())
        back = lambda t: -torch.expm1(t * (0.1 + 9.95 * t)).log()  # noqa: E731
    return back(time[0] + (time[1] - time[0]) * u)


def step_costs(schedule: str, steps: int, low: float, high: float) -> Tensor:
    """Nats of each step, (steps,), from the data's end to the noise's."""
    levels = log_snr_at(schedule, low, high, torch.linspace(0, 1, steps + 1, dtype=torch.float64))
    return torch.expm1(levels[:-1] - levels[1:]) / 2 * eps_error(levels[1:])


def cost_curve(schedule: str, low: float, high: float, u: Tensor) -> Tensor:
    """Nats a unit of u in continuous time at u (n,), evenly spaced from 0 to 1."""
    half = float(u[1] - u[0]) / 2
    left, right = (u - half).clamp(min=0), (u + half).clamp(max=1)
    fall = (log_snr_at(schedule, low, high, left) - log_snr_at(schedule, low, high, right)) / (right - left)
    return fall / 2 * eps_error(log_snr_at(schedule, low, high, u))


def terms(schedule: str, steps: int, low: float, high: float) -> dict[str, float]:
    """The three terms and their total, in nats, averaged over the data."""
    alpha2, sigma2 = (torch.tensor([low, -low], dtype=torch.float64).sigmoid()).tolist()
    prior = (alpha2 * (1 + SPREAD**2) + sigma2 - 1 - log(sigma2)) / 2
    reconstruction = (log(2 * pi) + 1 - high) / 2
    diffusion = float(step_costs(schedule, steps, low, high).sum())
    total = prior + diffusion + reconstruction
    return {"prior": prior, "diffusion": diffusion, "reconstruction": reconstruction, "total": total}
