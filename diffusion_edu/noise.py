"""Random numbers that Python and a page in a browser draw alike: counted, not remembered.

torch's own generator cannot be had in a browser. This one is mulberry32, whose k-th number is a hash of seed and k, so
that numpy draws a whole array at once, and Box and Muller's rule. `widgets/sampling.mjs` holds the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

STEP = 0x6D2B79F5
WORD = 0xFFFFFFFF


def uniforms(seed: int, count: int, start: int = 0) -> np.ndarray:
    """Numbers `start` ... `start + count - 1` of mulberry32's stream of that seed: float64 (count,) in [0, 1).

    seed: a whole number from 0 to 2^32 - 1. Source: T. Ettinger's mulberry32, in the public domain.
    """
    check_seed(seed)
    word, step, mask = (np.uint64(each) for each in (seed, STEP, WORD))
    counted = np.arange(start + 1, start + count + 1, dtype=np.uint64)
    state = (word + step * counted) & mask  # overflow wraps at 2^64, a multiple of 2^32
    z = ((state ^ (state >> np.uint64(15))) * (state | np.uint64(1))) & mask
    z ^= (z + (((z ^ (z >> np.uint64(7))) * (z | np.uint64(61))) & mask)) & mask
    return (z ^ (z >> np.uint64(14))).astype(np.float64) / 2.0**32


def check_seed(seed: int) -> None:
    """Raise ValueError unless `seed` is a whole number from 0 to 2^32 - 1."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed <= WORD:
        raise ValueError(f"a seed is a whole number from 0 to 2^32 - 1, got {seed!r}")


def normals(seed: int, count: int, start: int = 0) -> np.ndarray:
    """Numbers `start` ... of a stream of standard normals: float64 (count,), `start` and `count` even.

    Two uniform numbers u, v give two normal ones, r cos(2 pi v) and r sin(2 pi v) with r^2 = -2 log(1 - u) (Box & Muller
    1958); 1 - u is never 0. Raises ValueError for a start or count that would split a pair.
    """
    if start % 2 or count % 2:
        raise ValueError(f"normal numbers come in pairs: start and count must be even, got {start} and {count}")
    u, v = uniforms(seed, count, start).reshape(-1, 2).T
    radius, angle = np.sqrt(-2 * np.log(1 - u)), 2 * np.pi * v
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()


class SharedNoise(torch.Generator):
    """A generator for the package's samplers whose numbers a page draws too: one stream for each image of the batch.

    seeds: one for each of the N images; equal seeds are equal noise. `process.normal_like` asks it for noise (N, ...), with
    an even number of values an image. Each draw goes on where the last one ended.
    """

    def __new__(cls, seeds: Sequence[int]) -> SharedNoise:
        return super().__new__(cls)

    def __init__(self, seeds: Sequence[int]) -> None:
        for seed in seeds:
            check_seed(seed)
        self.seeds, self.drawn = [int(seed) for seed in seeds], 0

    def normal(self, shape: Sequence[int]) -> Tensor:
        """The next standard normal numbers, float64 of that shape; ValueError unless there is one row for each seed."""
        if shape[0] != len(self.seeds):
            raise ValueError(f"this noise has streams for {len(self.seeds)} images, asked for shape {tuple(shape)}")
        count = int(np.prod(shape[1:]))
        rows = {seed: normals(seed, count, self.drawn) for seed in dict.fromkeys(self.seeds)}
        self.drawn += count
        return torch.from_numpy(np.stack([rows[seed] for seed in self.seeds])).reshape(tuple(shape))
