"""A small network beside a trained denoiser: where is the next step's variance between its two bounds?"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class VarianceHead(nn.Module):
    """(x_t, x0_hat, log_snr_t, log_snr_s) -> v like x_t, where 0 means the posterior's variance and 1 the large one.

    x_t, x0_hat: (N, in_channels, H, W); log_snr_t < log_snr_s: (N,), at the step's two ends. Three convolutions; the two
    numbers scale and shift what lies between them. Starts at v = 0.
    """

    def __init__(self, in_channels: int = 1, width: int = 24) -> None:
        super().__init__()
        self.first = nn.Conv2d(2 * in_channels, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, in_channels, 3, padding=1)
        self.embed = nn.Sequential(nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 4 * width))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x_t: Tensor, x0_hat: Tensor, log_snr_t: Tensor, log_snr_s: Tensor) -> Tensor:
        ends = torch.stack([log_snr_t / 10, log_snr_s / 10, (log_snr_s - log_snr_t).log()], 1).to(x_t.dtype)
        scale, shift, scale_2, shift_2 = self.embed(ends)[:, :, None, None].chunk(4, dim=1)  # (N, width, 1, 1) each
        h = nn.functional.silu(self.first(torch.cat([x_t, x0_hat], 1)) * (1 + scale) + shift)
        h = nn.functional.silu(self.second(h) * (1 + scale_2) + shift_2)
        return self.last(h)
