"""The frozen MNIST classifier: the eye with which samples are judged."""

from __future__ import annotations

from torch import Tensor, nn


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


def conv(width_in: int, width_out: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU; height and width are divided by `stride`."""
    layer = nn.Conv2d(width_in, width_out, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(width_out), nn.ReLU())
