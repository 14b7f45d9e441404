"""A small network for points in the plane."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffusion_edu.networks.unet import FourierTime


class MLP(nn.Module):
    """(x_t, t, y) -> a point like x_t, for x_t (N, dim), t (N,) in [0, 1], y (N,) int64 or None for "no class"."""

    def __init__(self, dim: int = 2, width: int = 128, depth: int = 3, num_classes: int = 0) -> None:
        super().__init__()
        self.dim, self.num_classes = dim, num_classes
        self.embed_time = FourierTime(64)
        self.embed_class = nn.Embedding(num_classes + 1, 64)
        layers: list[nn.Module] = [nn.Linear(dim + 64, width), nn.SiLU()]
        for _ in range(depth - 1):
            layers += [nn.Linear(width, width), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Linear(width, dim))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"need points (N, {self.dim}), got {tuple(x.shape)}")
        if y is None:
            y = torch.full_like(t, self.num_classes, dtype=torch.long)
        return self.body(torch.cat([x, self.embed_time(t) + self.embed_class(y)], dim=1))
