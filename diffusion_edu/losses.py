"""Training losses: one number for each example, before any averaging."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_edu.denoisers import Denoiser
from diffusion_edu.process import expand_to, q_sample
from diffusion_edu.schedules import Schedule


def target_value(schedule: Schedule, x0: Tensor, t: Tensor, eps: Tensor, target: str) -> Tensor:
    """What a network with this target is asked for, (N, ...): eps, x0, v = alpha eps - sigma x0, or -eps / sigma."""
    if target == "v":
        return expand_to(schedule.alpha(t), x0) * eps - expand_to(schedule.sigma(t), x0) * x0
    if target == "score":
        return -eps / expand_to(schedule.sigma(t), x0)
    return {"eps": eps, "x0": x0}[target]


def denoising_loss(denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor, y: Tensor | None = None) -> Tensor:
    """Squared error of the denoiser's raw output, averaged over each example's coordinates: (N,), >= 0.

    x0, eps: (N, ...); t: (N,) in (0, 1]; y: (N,) labels or None. With target "eps" this is DDPM's simple loss
    (Ho et al. 2020, Eq. 14); with "v" it is that of Salimans & Ho 2022, which weighs the eps-error by 1 / alpha^2.
    """
    prediction = denoiser.raw(q_sample(denoiser.schedule, x0, t, eps), t, y)
    wanted = target_value(denoiser.schedule, x0, t, eps, denoiser.target)
    return (prediction.value - wanted).square().flatten(1).mean(dim=1)


def spread_times(schedule: Schedule, n: int, generator: torch.Generator | None = None) -> Tensor:
    """n times, float32 (n,), in [t_min, t_max]: one uniform draw in each of n equal cells.

    Together they cover the interval evenly, so the batch loss varies less than with independent times
    (Kingma et al. 2021, App. I.1).
    """
    u = (torch.rand(1, generator=generator) + torch.arange(n) / n) % 1
    return schedule.t_min + (schedule.t_max - schedule.t_min) * u


def drop_labels(y: Tensor, null_class: int, p_null: float, generator: torch.Generator | None = None) -> Tensor:
    """Replace each label by the null class with probability p_null, for classifier-free guidance (Ho & Salimans 2022)."""
    dropped = torch.rand(y.shape, generator=generator) < p_null
    return torch.where(dropped.to(y.device), torch.full_like(y, null_class), y)
