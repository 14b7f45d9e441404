"""Judges: for each data set the frozen classifier in whose features samples are measured, and how it is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_edu.data import to_float
from diffusion_edu.denoisers import check_labels
from diffusion_edu.networks import Classifier, PhotoClassifier
from diffusion_edu.training import find_precision, fit_classifier, one_cycle


def crop_and_flip(images: Tensor, generator: torch.Generator, reach: int = 4) -> Tensor:
    """Images (N, C, H, W) shifted by up to `reach` pixels each way, their rims reflected; half of them mirrored."""
    n, _, height, width = images.shape
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    down, right = torch.randint(2 * reach + 1, (2, n, 1), generator=generator)
    columns = torch.arange(width).expand(n, width)
    columns = right + torch.where(torch.rand(n, 1, generator=generator) < 0.5, columns.flip(1), columns)
    rows, columns = (down + torch.arange(height)).to(images.device), columns.to(images.device)
    which = torch.arange(n, device=images.device)[:, None, None]
    return padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)  # indexing puts C last


def blank(images: Tensor, generator: torch.Generator, size: int = 8) -> Tensor:
    """Images (N, C, H, W) with a grey square of `size` pixels somewhere in each. Source: DeVries & Taylor 2017 (Cutout)."""
    n, _, height, width = images.shape
    top, left = (torch.randint(length - size + 1, (n, 1), generator=generator) for length in (height, width))
    row, column = torch.arange(height) - top, torch.arange(width) - left
    inside = ((row >= 0) & (row < size))[:, None, :, None] & ((column >= 0) & (column < size))[:, None, None, :]
    return images.masked_fill(inside.to(images.device), 0)


def fit_photo_classifier(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    epochs: int = 32,
    batch: int = 512,
    rate: float = 0.4,
    seed: int = 0,
) -> Iterator[tuple[int, float]]:
    """Train a classifier on uint8 images, anew shifted, mirrored and a part blanked in each epoch.

    images, labels: on the network's device; the convolutions compute in bfloat16 where it can. Yields as `one_cycle` does.
    """
    check_labels(labels, images, getattr(net, "num_classes", None), null=False)
    device, generator = images.device, torch.Generator().manual_seed(seed)
    half = find_precision("auto", device) == "bfloat16"
    net.to(memory_format=torch.channels_last)  # the order that fast convolutions want
    optimizer = torch.optim.SGD(net.parameters(), rate, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def loss_of(index: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            logits = net(blank(crop_and_flip(to_float(images[index]), generator), generator))
        return F.cross_entropy(logits.float(), labels[index], label_smoothing=0.1)

    return one_cycle(net, optimizer, loss_of, len(images), epochs, batch, generator)


@dataclass(frozen=True)
class Judge:
    """folder: of its checkpoint; network: its class; fit: its training loop, with the usual epochs and batch.

    halved: whether its weights are rounded to 16 bits, before they are measured, and stored so.
    """

    folder: str
    network: type[nn.Module]
    fit: Callable[..., Iterator[tuple[int, float]]]
    epochs: int
    batch: int
    halved: bool = False


JUDGES = {
    "mnist": Judge("mnist-classifier", Classifier, fit_classifier, epochs=10, batch=128),
    "fashion-mnist": Judge("fashion-mnist-classifier", Classifier, fit_classifier, epochs=10, batch=128),
    "cifar10": Judge("cifar10-classifier", PhotoClassifier, fit_photo_classifier, epochs=32, batch=512, halved=True),
}


def find_judge(dataset: str) -> Judge:
    """The judge of a data set's samples. Raises ValueError for a data set that has none."""
    if dataset not in JUDGES:
        raise ValueError(f"no classifier judges {dataset!r}; those that have one: {', '.join(JUDGES)}")
    return JUDGES[dataset]
