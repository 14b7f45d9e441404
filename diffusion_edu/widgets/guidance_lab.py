"""A laboratory of guidance: one noise, ten wishes, and the trained network itself, asked by the reader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from diffusion_edu.checkpoints import describe_schedule
from diffusion_edu.data import to_uint8
from diffusion_edu.denoisers import DenoiserFunction
from diffusion_edu.plotting import image_table
from diffusion_edu.widgets.base import StaticFigure, Widget, check_range, grey_png, to_base64
from diffusion_edu.widgets.live import OFFERED, LiveNetwork, trajectory

ALL = 10  # the choice of all ten digits
WEIGHTS = (0, 8)  # ends of the slider
LEVELS = 8  # grey levels of a frame drawn beforehand
COLUMNS = 10


class GuidanceLab(LiveNetwork, Widget):
    """Digits as they are denoised, x_t and x0_hat at every step; a button asks the real network for others.

    denoiser: of the ten digits, (1, H, W) each; it draws the frames that answer before the network does, DDIM with so many
    `evaluations` from the noises `seeds` at each of `weights`, and answers in JupyterLab. digit: 0 ... 9, or 10 for all ten;
    w: any weight in [0, 8]; step: 0 ... evaluations. Raises ValueError for others, or weights that fall.
    """

    digit = traitlets.Int(ALL, help="which digit is asked for; 10: all ten").tag(sync=True)
    w = traitlets.Float(2.0, help="guidance weight, any").tag(sync=True)
    sampler = traitlets.Enum(list(OFFERED), "ddim", help="how the network's answers are used").tag(sync=True)
    evaluations = traitlets.Int(8, help="network evaluations of an image").tag(sync=True)
    seed = traitlets.Int(1, help="which noise; all digits begin from the same").tag(sync=True)
    step = traitlets.Int(3, help="which state of the trajectory is shown").tag(sync=True)
    weights = traitlets.List(help="guidance weights of the frames").tag(sync=True)
    frame_seeds = traitlets.List(help="noises of the frames").tag(sync=True)
    frame_evaluations = traitlets.Int(help="evaluations of the frames").tag(sync=True)
    schedule = traitlets.Dict(help="name and arguments of the noise schedule").tag(sync=True)
    sprites = traitlets.Unicode(help="PNG in base64: x0_hat at each seed, weight, step and digit").tag(sync=True)

    def __init__(
        self,
        denoiser: DenoiserFunction,
        weights: Sequence[float] = (0, 1, 2, 4, 6),
        seeds: Sequence[int] = (1, 2),
        evaluations: int = 8,
        **traits: Any,
    ) -> None:
        weights = [float(w) for w in weights]
        if len(weights) < 2 or sorted(set(weights)) != weights:
            raise ValueError(f"weights must be at least two that increase, got {weights}")
        self.frames = [[estimates(denoiser, w, seed, evaluations) for w in weights] for seed in seeds]
        super().__init__(
            denoiser=denoiser,
            weights=weights,
            frame_seeds=[int(seed) for seed in seeds],
            frame_evaluations=evaluations,
            schedule=describe_schedule(denoiser.schedule),
            sprites=to_base64(sprite_sheet(torch.cat([each.flatten(0, 2) for row in self.frames for each in row]))),
            **{
                "evaluations": evaluations,
                "seed": int(seeds[0]),
                "w": weights[min(2, len(weights) - 1)],
                "step": min(3, evaluations),
                **traits,
            },
        )

    @traitlets.validate("digit", "w", "evaluations", "step")
    def _inside(self, proposal: Any) -> float:
        name = proposal.trait.name
        low, high = {"digit": (0, ALL), "w": WEIGHTS}.get(name, (0, 200))
        return check_range(name, proposal.value, low, high)

    def static_figure(self) -> StaticFigure:
        """Draw the last estimates for the ten wishes, one row for each weight."""
        figure = Figure(figsize=(7.4, 0.625 * len(self.weights) + 0.5))
        rows = [frames[-1].expand(10, -1, -1, -1) for frames in self.frames[0]]
        labels = [f"w = {w:g}" for w in self.weights]
        image_table(figure.subplots(), rows, titles=[str(digit) for digit in range(10)], labels=labels)
        return StaticFigure(figure, self.alt())

    def alt(self) -> str:
        """What the static figure shows."""
        return (
            f"Ten digits, asked for as 0 to 9, all drawn from the same noise in {self.frame_evaluations} steps, at the "
            f"guidance weights {', '.join(f'{w:g}' for w in self.weights)}. At w = 0 all ten are one and the same picture; "
            "the larger w, the more clearly each is the digit that was asked for."
        )


def estimates(denoiser: DenoiserFunction, w: float, seed: int, evaluations: int) -> Tensor:
    """x0_hat of the ten digits at each step, (steps, 10, 1, H, W); at w = 0, where the wish counts nothing, of one."""
    wishes = list(range(10)) if w != 0 else [0]
    request = {"y": wishes, "w": w, "seed": seed, "evaluations": evaluations}
    return torch.stack([shown.x0_hat for shown in trajectory(denoiser, request)][:-1])


def sprite_sheet(images: Tensor) -> bytes:
    """Images (K, H, W) as a PNG of LEVELS greys, ten a row."""
    height, width = images.shape[-2:]
    shown = to_uint8(images)
    shown = torch.cat([shown, shown.new_zeros(-len(shown) % COLUMNS, height, width)])
    sheet = shown.reshape(-1, COLUMNS, height, width).transpose(1, 2).reshape(-1, COLUMNS * width)
    return grey_png(sheet.numpy(), LEVELS)
