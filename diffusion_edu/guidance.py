"""Guidance: wrappers around a denoiser that are denoisers again."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_edu.denoisers import Denoiser, DenoiserFunction
from diffusion_edu.process import Prediction


def classifier_free(denoiser: Denoiser, w: float) -> DenoiserFunction:
    """Classifier-free guidance: score = (1 - w) score(x_t) + w score(x_t | y), in one network call of twice the batch.

    w: 1 is plain conditional sampling, 0 unconditional, above 1 away from "any digit" towards y (Ho & Salimans 2022,
    Eq. 6, whose own weight is w - 1). The sum is clipped like the denoiser's own answer.
    Raises ValueError when called without labels.
    """

    def guided(x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Prediction:
        if y is None:
            raise ValueError("classifier-free guidance needs labels y, got None")
        times = t if t.ndim == 0 else torch.cat([t, t])
        both = denoiser.raw(torch.cat([x_t, x_t]), times, torch.cat([torch.full_like(y, denoiser.net.num_classes), y]))
        null, conditional = both.x0.chunk(2)
        x0 = null + w * (conditional - null)
        x0 = x0 if denoiser.clip is None else x0.clamp(*denoiser.clip)
        return Prediction(denoiser.schedule, x_t, t, x0, "x0")

    guided.schedule, guided.clip = denoiser.schedule, denoiser.clip
    return denoiser if w == 1 else guided
