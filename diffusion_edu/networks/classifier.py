"""Classifiers: the frozen eyes with which samples are judged, of digits and of photographs, and one for noisy digits."""

from __future__ import annotations

from torch import Tensor, nn

from diffusion_edu.denoisers import check_labels
from diffusion_edu.networks.unet import FourierTime


class Classifier(nn.Module):
    """Images (N, 1, 28, 28) in [-1, 1] -> logits (N, 10); `features` gives the (N, 128) activations before them."""

    def __init__(self, width: int = 32, features: int = 128, num_classes: int = 10) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.body = nn.Sequential(
            conv(1, width, size=5, stride=2),  # 14 x 14
            conv(width, 2 * width), nn.MaxPool2d(2),  # 7 x 7
            conv(2 * width, 4 * width), nn.MaxPool2d(2), nn.Flatten(),  # 3 x 3
            nn.Linear(36 * width, features), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(features, num_classes))

    def features(self, x: Tensor) -> Tensor:
        """Activations (N, 128) in front of the last layer, in which distances between sample sets are measured."""
        if x.ndim != 4 or x.shape[1:] != (1, 28, 28):
            raise ValueError(f"need images (N, 1, 28, 28), got {tuple(x.shape)}")
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class PhotoClassifier(nn.Module):
    """Images (N, 3, 32, 32) in [-1, 1] -> logits (N, 10); `features` gives the (N, 8 width) activations before them.

    Ten convolutions, six of them in three residual blocks, and one linear layer. A map is pooled before it is normalised,
    so most of its values need no more work. Source: the blocks of He et al. 2016, in a network as shallow as Page 2018
    (DAWNBench) found to be enough for 94 %.
    """

    def __init__(self, width: int = 32, num_classes: int = 10) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.body = nn.Sequential(
            conv(3, width),  # 32 x 32
            conv(width, 2 * width, pool=2), TwoConvs(2 * width),  # 16 x 16
            conv(2 * width, 8 * width, pool=2), TwoConvs(8 * width),  # 8 x 8
            conv(8 * width, 8 * width, pool=2), TwoConvs(8 * width),  # 4 x 4
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(8 * width, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Activations (N, 8 width) in front of the last layer: means over the 4 x 4 places of the last feature map.

        In evaluation also over the image and its mirror, which training shows equally often.
        """
        if x.ndim != 4 or x.shape[1:] != (3, 32, 32):
            raise ValueError(f"need images (N, 3, 32, 32), got {tuple(x.shape)}")
        return self.body(x) if self.training else (self.body(x) + self.body(x.flip(3))) / 2

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class TwoConvs(nn.Module):
    """x + two convolutions of x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(conv(width, width), conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def conv(width_in: int, width_out: int, size: int = 3, stride: int = 1, pool: int = 1) -> nn.Sequential:
    """Convolution, maximum over `pool` x `pool` places, batch norm, ReLU; sides are divided by `stride` and `pool`."""
    layers = [nn.Conv2d(width_in, width_out, size, stride, padding=size // 2, bias=False)]
    layers += [nn.MaxPool2d(pool)] if pool > 1 else []
    return nn.Sequential(*layers, nn.BatchNorm2d(width_out), nn.ReLU())


class NoisyClassifier(nn.Module):
    """Noisy images x_t (N, 1, 28, 28) and their times t (N,) in [0, 1] -> logits (N, 10) of p(y | x_t).

    Three strided convolutions, the time as a scale and a shift after each; smooth, since guidance follows its gradient.
    """

    def __init__(self, width: int = 32, features: int = 128, num_classes: int = 10, embedding: int = 64) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.embed_time = nn.Sequential(FourierTime(embedding), nn.Linear(embedding, embedding), nn.SiLU())
        self.layers = nn.ModuleList(
            [
                TimedConv(1, width, 5, embedding),  # 14 x 14
                TimedConv(width, 2 * width, 3, embedding),  # 7 x 7
                TimedConv(2 * width, 4 * width, 3, embedding),  # 4 x 4
            ]
        )
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(64 * width, features), nn.SiLU(), nn.Dropout(0.1), nn.Linear(features, num_classes)
        )

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        if x_t.ndim != 4 or x_t.shape[1:] != (1, 28, 28):
            raise ValueError(f"need images (N, 1, 28, 28), got {tuple(x_t.shape)}")
        emb = self.embed_time(t.to(x_t.dtype).expand(len(x_t)))
        for layer in self.layers:
            x_t = layer(x_t, emb)
        return self.head(x_t)

    def log_p_y(self, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """log p(y | x_t) in nats, (N,), for labels y (N,) in 0 ... num_classes - 1; ValueError for others."""
        check_labels(y, x_t, self.num_classes, null=False)
        return self(x_t, t).log_softmax(1).gather(1, y[:, None])[:, 0]


class TimedConv(nn.Module):
    """Strided convolution, group norm, a scale and a shift from the time's embedding, SiLU; halves height and width."""

    def __init__(self, width_in: int, width_out: int, size: int, embedding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width_out, size, stride=2, padding=size // 2, bias=False)
        self.norm = nn.GroupNorm(8, width_out, affine=False)
        self.modulate = nn.Linear(embedding, 2 * width_out)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.modulate(emb)[:, :, None, None].chunk(2, dim=1)
        return nn.functional.silu(self.norm(self.conv(x)) * (1 + scale) + shift)
