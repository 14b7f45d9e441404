"""Likelihood: how many nats, or bits a dimension, a model needs for data it has not seen.

Two routes: the evidence lower bound, term by term, and the probability-flow ODE. For images both bound the same number,
the probability of the integers that are stored: continuous densities are made comparable by dequantisation.
"""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

from diffusion_edu.data import to_float

LEVELS = 256  # grey values of a stored pixel
BIN = 2 / (LEVELS - 1)  # width of one grey value in the range [-1, 1] of `to_float`


def dequantise(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Stored pixels, uint8 (N, ...), as float32 points drawn uniformly from the bin of width BIN around each value.

    Then log P(image) >= E log p(x) + d log BIN for any density p: Jensen's inequality (Theis et al. 2016, Sec. 3.1).
    """
    device = images.device if generator is None else generator.device
    u = torch.rand(images.shape, generator=generator, device=device).to(images.device)
    return to_float(images) + BIN * (u - 0.5)


def bits_per_dim(nats: Tensor, dims: int, width: float = BIN) -> Tensor:
    """Bits a dimension from -log p(x) in nats of points in `dims` dimensions, each the bin's `width` wide.

    For a probability of the stored integers (no density) the width is 1.
    """
    return (nats / dims - log(width)) / log(2)


# --- the evidence lower bound -----------------------------------------------------------------------


# --- the probability-flow ODE -----------------------------------------------------------------------
