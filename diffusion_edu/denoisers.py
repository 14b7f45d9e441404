"""The one contract of the package: a denoiser is called as (x_t, t, y) and answers a Prediction.

An exact score, a trained network and a guided mixture of two calls all look alike to a sampler.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffusion_edu.process import TARGETS, Prediction, check_times, expand_to, input_spread
from diffusion_edu.schedules import Schedule, within_reach

DenoiserFunction = Callable[..., Prediction]


class Denoiser(nn.Module):
    """A network, the schedule it was trained on, and the quantity it predicts.

    net: (x_t, t, y) -> (N, ...) like x_t. target: "eps", "x0", "v", "score" or "edm", which also shows the network
    x_t / `input_spread` instead of x_t. clip: range of x_0 to which estimates are clipped, (-1, 1) for images, None for
    none. Training uses the raw output, sampling the clipped one.
    """

    def __init__(
        self, net: nn.Module, schedule: Schedule, target: str = "eps", clip: tuple[float, float] | None = None
    ) -> None:
        super().__init__()
        if target not in TARGETS:
            raise ValueError(f"unknown target {target!r}; known: {', '.join(TARGETS)}")
        self.net, self.schedule, self.target, self.clip = net, schedule, target, clip

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Prediction:
        """Predict for x_t (N, ...) at t, () or (N,) in [0, 1], given labels y (N,) int64, or None for no class."""
        prediction = self.raw(x_t, t, y)
        return prediction if self.clip is None else prediction.with_x0(prediction.x0.clamp(*self.clip))

    def raw(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Prediction:
        """The same without clipping: what the network itself says, and what the training loss judges."""
        check_times(t, x_t)
        check_labels(y, x_t, getattr(self.net, "num_classes", None))
        times = torch.as_tensor(t, dtype=x_t.dtype, device=x_t.device).expand(x_t.shape[0])
        shown = x_t / expand_to(input_spread(self.schedule, t), x_t) if self.target == "edm" else x_t
        return Prediction(self.schedule, x_t, t, self.net(shown, times, y), self.target)


def check_labels(y: Tensor | None, x: Tensor, num_classes: int | None, null: bool = True) -> None:
    """Raise ValueError unless `y` is None or holds one class, a whole number, for each of the N rows of `x`.

    Allowed are 0 ... num_classes - 1, and with `null` num_classes itself, which stands for "no class"; values are read on a
    CPU only.
    """
    if y is None:
        return
    if not isinstance(y, Tensor) or y.is_floating_point() or y.dtype == torch.bool:
        raise ValueError(f"labels must be a tensor of whole numbers, got {getattr(y, 'dtype', repr(y))}")
    if y.shape != x.shape[:1]:
        raise ValueError(f"labels must have shape ({x.shape[0]},), one for each image, got {tuple(y.shape)}")
    if num_classes is None or not within_reach(y):
        return
    if bool(((y < 0) | (y >= num_classes + null)).any()):
        no_class = f" ({num_classes} = no class)" if null else ""
        raise ValueError(f"labels must lie in 0 ... {num_classes - 1}{no_class}, got {int(y.min())} to {int(y.max())}")
