"""Noise schedules side by side: their curves, and one real image noised under each of them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from textwrap import fill
from typing import Any

import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_edu.data import to_float, to_uint8
from diffusion_edu.plotting import COLOURS, show_images
from diffusion_edu.process import q_sample
from diffusion_edu.schedules import Cosine, Flow, OrnsteinUhlenbeck, Schedule, Sigmoid, VarianceExploding, linear_betas
from diffusion_edu.widgets.base import StaticFigure, Widget, check_range, to_base64

# the families in the order of plotting.COLOURS; names, colours and dashes as in the module (a test compares)
FAMILIES = {
    "linear": ("Linear β", "-"),
    "cosine": ("Cosine", (0, (7, 3))),
    "sigmoid": ("Sigmoid", (0, (2, 3))),
    "ou": ("Ornstein-Uhlenbeck", (0, (9, 3, 2, 3))),
    "flow": ("Flow", (0, (12, 4))),
    "ve": ("Variance exploding", (0, (4, 2))),
}
LIMITS = {
    "t": (0, 1),
    "beta_min": (0, 1),
    "beta_max": (0, 1),
    "steps": (1, 4000),
    "cosine_s": (0, 0.5),
    "sigmoid_tau": (0.3, 3),
    "horizon": (0.5, 10),
    "sigma_max": (1, 100),
}


class ScheduleExplorer(Widget):
    """Six schedules, one image: sliders for the time and for the parameters of the chosen family.

    x0: one square grey image in [-1, 1], (28, 28) or with leading axes of length 1; eps: standard normal, the same
    shape; traits: initial values, all in `LIMITS`. `beta_min` and `beta_max` are the first and last noise variance of
    a chain of `steps` steps (DDPM's by default), read at t = k / steps. Raises ValueError for other shapes or values.
    """

    family = traitlets.Unicode("linear", help="which family is chosen").tag(sync=True)
    t = traitlets.Float(0.5).tag(sync=True)
    beta_min = traitlets.Float(1e-4).tag(sync=True)
    beta_max = traitlets.Float(0.02).tag(sync=True)
    steps = traitlets.Int(1000).tag(sync=True)
    cosine_s = traitlets.Float(0.008).tag(sync=True)
    sigmoid_tau = traitlets.Float(1.0).tag(sync=True)
    horizon = traitlets.Float(5.0).tag(sync=True)
    sigma_max = traitlets.Float(50.0).tag(sync=True)
    digit = traitlets.Unicode(help="x0 as uint8, in base64").tag(sync=True)
    noise = traitlets.Unicode(help="eps as little-endian float32, in base64").tag(sync=True)

    def __init__(self, x0: Tensor, eps: Tensor, **traits: Any) -> None:
        pixels = to_uint8(square(x0, "x0"))
        noise = square(eps, "eps").float().numpy().astype("<f4")
        if noise.shape != tuple(pixels.shape):
            raise ValueError(f"eps must have the shape of x0, {tuple(x0.shape)}, got {tuple(eps.shape)}")
        digit = to_base64(pixels.numpy().tobytes())
        super().__init__(digit=digit, noise=to_base64(noise.tobytes()), **traits)

    @traitlets.validate(*LIMITS)
    def _inside_limits(self, proposal: Any) -> float:
        name = proposal.trait.name
        return check_range(name, proposal.value, *LIMITS[name], below=name.startswith("beta"))

    @traitlets.validate("family")
    def _known_family(self, proposal: Any) -> str:
        if proposal.value not in FAMILIES:
            raise ValueError(f"unknown family {proposal.value!r}; known: {', '.join(FAMILIES)}")
        return proposal.value

    def schedules(self) -> dict[str, Schedule]:
        """The six schedules under the present parameters."""
        return {
            "linear": Schedule.from_betas(linear_betas(self.steps, self.beta_min, self.beta_max)),
            "cosine": Cosine(self.cosine_s),
            "sigmoid": Sigmoid(tau=self.sigmoid_tau),
            "ou": OrnsteinUhlenbeck(self.horizon),
            "flow": Flow(),
            "ve": VarianceExploding(sigma_max=self.sigma_max),
        }

    def static_figure(self) -> StaticFigure:
        """Draw the six noised images over the two sets of curves."""
        figure = Figure(figsize=(7.4, 4.0))
        tiles, charts = figure.subfigures(2, 1, height_ratios=(1, 1.7))
        for ax, (name, _), colour, image in zip(
            tiles.subplots(1, 6), FAMILIES.values(), COLOURS, self.noised(), strict=True
        ):
            show_images(ax, image, columns=1).set_title(fill(name, 10), fontsize=8, fontweight="bold", color=colour)
        for ax, curves in zip(charts.subplots(1, 2), (signal_share, Schedule.log_snr), strict=True):
            self.draw_curves(ax, curves)
        charts.axes[0].set(title="Signal share α² / (α² + σ²)", xlabel="time t", ylim=(0, 1.02))
        charts.axes[1].set(title="Log signal-to-noise ratio", xlabel="time t", ylim=(-14, 14))
        return StaticFigure(figure, self.alt())

    def noised(self) -> list[Tensor]:
        """The image at t under each schedule, (1, 1, side, side); the variance-exploding one over its spread."""
        side = int(len(base64.b64decode(self.digit)) ** 0.5)
        x0 = to_float(decoded(self.digit, torch.uint8).reshape(1, 1, side, side))
        eps = decoded(self.noise, torch.float32).reshape(1, 1, side, side)
        t = torch.tensor(self.t)
        spreads = [torch.hypot(s.alpha(t), s.sigma(t)).clamp(min=1) for s in self.schedules().values()]
        states = [q_sample(s, x0, t, eps) for s in self.schedules().values()]
        return [state / spread for state, spread in zip(states, spreads, strict=True)]

    def draw_curves(self, ax: Axes, curve: Callable[[Schedule, Tensor], Tensor]) -> None:
        """Draw `curve(schedule, t)` over t for the six schedules, the chosen one strong, and mark the present t."""
        ts = torch.linspace(0, 1, 201, dtype=torch.float64)
        for (name, (_, dash)), colour, schedule in zip(
            FAMILIES.items(), COLOURS, self.schedules().values(), strict=True
        ):
            chosen = name == self.family
            ax.plot(
                ts.numpy(),
                curve(schedule, ts).numpy(),
                color=colour,
                ls=dash,
                lw=2.6 if chosen else 1.2,
                alpha=1 if chosen else 0.6,
            )
        ax.axvline(self.t, color="#1f2328", lw=0.8, ls=":")
        ax.set_xlim(0, 1)

    def alt(self) -> str:
        """What the static figure shows, with its numbers."""
        t = torch.tensor(self.t, dtype=torch.float64)
        shares = [f"{FAMILIES[name][0]} {float(signal_share(s, t)):.1%}" for name, s in self.schedules().items()]
        return (
            f"One image noised at t = {self.t:.2f} under six schedules, above their curves over t. "
            f"Share of the signal in the variance: {', '.join(shares)}."
        )


def square(x: Tensor, name: str) -> Tensor:
    """A single square grey image as (side, side); ValueError for anything else."""
    if x.ndim < 2 or x.shape[-1] != x.shape[-2] or x.numel() != x.shape[-1] ** 2:
        raise ValueError(f"{name} must be one square grey image, such as (28, 28), got {tuple(x.shape)}")
    if not bool(x.isfinite().all()):
        raise ValueError(f"{name} must be finite, got {int((~x.isfinite()).sum())} values that are not")
    return x.detach().cpu().reshape(x.shape[-2:])


def signal_share(schedule: Schedule, t: Tensor) -> Tensor:
    """alpha^2 / (alpha^2 + sigma^2) at `t`, in [0, 1]; alpha^2 where variance is preserved."""
    return schedule.alpha(t) ** 2 / (schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2)


def decoded(text: str, dtype: torch.dtype) -> Tensor:
    """The numbers that a state holds in base64, flat."""
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=dtype)
