"""A compact class-conditional U-Net, to be read from top to bottom.

An image goes down a ladder of resolutions and up again. On each rung residual blocks look at it; on the way up each
rung also sees what the same rung saw on the way down. Time and class enter every block as a scale and a shift.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class UNet(nn.Module):
    """(x_t, t, y) -> an image like x_t.

    x_t: (N, in_channels, H, W) with H and W divisible by patch 2^(len(channels) - 1); t: (N,) in [0, 1];
    y: (N,) int64 in 0 ... num_classes, where num_classes is the null class ("no class"), or None for all null.
    channels: width of each resolution, the finest first. blocks: residual blocks a resolution on each way. patch: squares of
    patch x patch pixels are folded into channels first, so that the finest resolution has that many fewer pixels.
    attention: whether the coarsest resolution attends to itself. Source: Ho et al. 2020, App. B, made small.
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: tuple[int, ...] = (16, 48, 96),
        blocks: int = 1,
        num_classes: int = 10,
        embedding: int = 128,
        attention: bool = True,
        dropout: float = 0.0,
        patch: int = 1,
    ) -> None:
        super().__init__()
        if patch < 1 or blocks < 1:
            raise ValueError(f"patch and blocks must be at least 1, got {patch} and {blocks}")
        if len(channels) < 1 or any(width < 8 or width % 8 for width in channels):
            raise ValueError(f"channels must be a non-empty tuple of multiples of 8, got {tuple(channels)}")
        self.num_classes, self.in_channels, self.factor = num_classes, in_channels, patch * 2 ** (len(channels) - 1)
        self.fold = nn.PixelUnshuffle(patch) if patch > 1 else nn.Identity()
        self.unfold = nn.PixelShuffle(patch) if patch > 1 else nn.Identity()
        values = in_channels * patch**2
        self.embed_time = nn.Sequential(
            FourierTime(embedding), nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.embed_class = nn.Embedding(num_classes + 1, embedding)
        self.enter = nn.Conv2d(values, channels[0], 3, padding=1)
        self.down = build_down(channels, blocks, embedding, dropout)
        self.before = ResidualBlock(channels[-1], channels[-1], embedding, dropout)
        self.attend = Attention(channels[-1]) if attention else nn.Identity()
        self.after = ResidualBlock(channels[-1], channels[-1], embedding, dropout)
        self.up = build_up(channels, blocks, embedding, dropout)
        self.leave = nn.Sequential(
            nn.GroupNorm(8, channels[0]), nn.SiLU(), zero(nn.Conv2d(channels[0], values, 3, padding=1))
        )

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        self.check(x)
        if y is None:
            y = torch.full_like(t, self.num_classes, dtype=torch.long)
        emb = F.silu(self.embed_time(t) + self.embed_class(y))

        h, skips = self.enter(self.fold(x)), []
        for layer in self.down:
            h = layer(h, emb)
            if isinstance(layer, ResidualBlock):
                skips.append(h)
        h = self.after(self.attend(self.before(h, emb)), emb)
        for layer in self.up:
            if isinstance(layer, ResidualBlock):
                h = torch.cat([h, skips.pop()], dim=1)
            h = layer(h, emb)
        return self.unfold(self.leave(h))

    def check(self, x: Tensor) -> None:
        """Raise ValueError unless `x` is (N, in_channels, H, W) with sides the ladder can halve."""
        if x.ndim != 4 or x.shape[1] != self.in_channels or x.shape[2] % self.factor or x.shape[3] % self.factor:
            raise ValueError(
                f"need images (N, {self.in_channels}, H, W) with H and W divisible by {self.factor}, got {tuple(x.shape)}"
            )


def build_down(channels: tuple[int, ...], blocks: int, embedding: int, dropout: float) -> nn.ModuleList:
    """The way down: on each level `blocks` residual blocks, and a halving between two levels."""
    layers, width = nn.ModuleList(), channels[0]
    for level, out in enumerate(channels):
        if level > 0:
            layers.append(Downsample(width))
        for _ in range(blocks):
            layers.append(ResidualBlock(width, out, embedding, dropout))
            width = out
    return layers


def build_up(channels: tuple[int, ...], blocks: int, embedding: int, dropout: float) -> nn.ModuleList:
    """The way up: as many blocks, each of which also takes what its twin on the way down made."""
    layers, width = nn.ModuleList(), channels[-1]
    for level, out in reversed(list(enumerate(channels))):
        for _ in range(blocks):
            layers.append(ResidualBlock(width + out, out, embedding, dropout))
            width = out
        if level > 0:
            layers.append(Upsample())
    return layers


class FourierTime(nn.Module):
    """Time in [0, 1] as sines and cosines of `size` / 2 frequencies between 1 and 1000 radians."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.linspace(0, log(1000), size // 2).exp(), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        angles = t[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)  # (N, size)


class ResidualBlock(nn.Module):
    """x + f(x; time, class): two convolutions, the second's input scaled and shifted by the embedding."""

    def __init__(self, width_in: int, width_out: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, width_in), nn.SiLU(), nn.Conv2d(width_in, width_out, 3, padding=1))
        self.modulate = nn.Linear(embedding, 2 * width_out)
        self.norm = nn.GroupNorm(8, width_out, affine=False)
        self.second = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), zero(nn.Conv2d(width_out, width_out, 3, padding=1)))
        self.shortcut = nn.Identity() if width_in == width_out else nn.Conv2d(width_in, width_out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.modulate(emb)[:, :, None, None].chunk(2, dim=1)  # (N, width_out, 1, 1) each
        h = self.norm(self.first(x)) * (1 + scale) + shift
        return self.shortcut(x) + self.second(h)


class Attention(nn.Module):
    """x + self-attention over all positions of the feature map, one head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.query_key_value = nn.Conv2d(width, 3 * width, 1)
        self.out = zero(nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        flat = self.query_key_value(self.norm(x)).flatten(2).transpose(1, 2)  # (N, H W, 3 width)
        q, k, v = flat.unsqueeze(1).chunk(3, dim=3)  # (N, 1 head, H W, width): the form that ONNX knows
        mixed = F.scaled_dot_product_attention(q, k, v).squeeze(1)
        return x + self.out(mixed.transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    """Halve height and width by a strided convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """Double height and width by repeating each pixel.

    Not by `F.interpolate`: compiled for a CPU in bfloat16, torch 2.13 passes nothing back through that one here.
    """

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x[:, :, :, None, :, None].expand(n, c, h, 2, w, 2).reshape(n, c, 2 * h, 2 * w)


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    """Start a layer at 0, so that a residual block starts as the identity."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


@contextmanager
def without(net: UNet, part: str) -> Iterator[UNet]:
    """The network, as long as the context lasts, with one part silenced; also while it is trained.

    part: "time" (it is always told 0.5), "attention", "skips", or "skip k" for those of the k-th resolution, 0 the finest
    (the joined channels are 0). Raises ValueError for another part.
    """
    by_level = skip_readers(net)
    levels = {f"skip {k}": readers for k, readers in enumerate(by_level)} | {"skips": sum(by_level, [])}
    if part == "time":
        hooks = [net.embed_time.register_forward_pre_hook(lambda _, given: (torch.full_like(given[0], 0.5),))]
    elif part == "attention":
        hooks = [net.attend.register_forward_hook(lambda _, given, out: given[0])]
    elif part in levels:
        hooks = [block.register_forward_pre_hook(forget_skip) for block in levels[part]]
    else:
        raise ValueError(f"part must be one of time, attention, {', '.join(levels)}, got {part!r}")
    try:
        yield net
    finally:
        for hook in hooks:
            hook.remove()


def skip_readers(net: UNet) -> list[list[ResidualBlock]]:
    """The blocks that read skips, of each resolution, the finest first."""
    levels: list[list[ResidualBlock]] = [[]]
    for layer in net.up:
        if isinstance(layer, Upsample):
            levels.insert(0, [])
        else:
            levels[0].append(layer)
    return levels


def forget_skip(block: ResidualBlock, given: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The block's input with zeros for the skip: the last channels, as many as the block gives."""
    joined, emb = given
    width = block.modulate.out_features // 2
    return torch.cat([joined[:, :-width], torch.zeros_like(joined[:, -width:])], dim=1), emb
