"""How good are samples? Every figure comes with the value that real images get, at the same number of images.

All distances are measured in the features of the project's own frozen MNIST classifier, against the test split.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log, sqrt
from typing import Any

import torch
from torch import Tensor

from diffusion_edu.data import Dataset, to_float
from diffusion_edu.likelihood import bits_per_dim
from diffusion_edu.networks import VAE, Classifier
from diffusion_edu.process import normal_like


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D) of features (N, D), float64. Raises ValueError for fewer than two rows."""
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"need at least two feature vectors, (N, D), got {tuple(features.shape)}")
    return features.double().mean(0), features.double().T.cov()


def frechet_distance(left: Tensor, right: Tensor) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) between the Gaussians fitted to two feature sets (N, D), (M, D).

    Source: Dowson & Landau 1982; as a sample metric Heusel et al. 2017, Eq. 6. Grows with 1 / N for equal sets.
    """
    (m1, c1), (m2, c2) = moments(left), moments(right)
    values, vectors = torch.linalg.eigh(c1)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ c2 @ root).clamp(min=0).sqrt().sum()
    return float((m1 - m2).square().sum() + c1.trace() + c2.trace() - 2 * cross)


def frechet_spread(features: Tensor, reference: Tensor) -> float:
    """Standard deviation of the Fréchet distance over ten bootstrap resamples of `features` (N, D), always the same ten."""
    g = torch.Generator().manual_seed(0)
    resampled = [features[torch.randint(len(features), (len(features),), generator=g)] for _ in range(10)]
    return float(torch.tensor([frechet_distance(part, reference) for part in resampled]).std())


def sliced_wasserstein(
    left: Tensor, right: Tensor, directions: int = 100, generator: torch.Generator | None = None
) -> float:
    """Root mean square, over random directions, of the 2-Wasserstein distance between projections of two point sets.

    left, right: (N, D), equally many. In one dimension the distance is that of the sorted points, exactly. Two draws of
    N points from one law have a distance above 0: give that floor beside every figure. Source: Bonneel et al. 2015.
    Raises ValueError for shapes that disagree.
    """
    if left.shape != right.shape or left.ndim != 2:
        raise ValueError(f"need two equally large point sets (N, D), got {tuple(left.shape)} and {tuple(right.shape)}")
    axes = normal_like(left.new_empty(left.shape[1], directions, dtype=torch.float64), generator)
    axes = axes / axes.norm(dim=0)
    gaps = (left.double() @ axes).sort(0).values - (right.double() @ axes).sort(0).values
    return float(gaps.square().mean().sqrt())


@torch.no_grad()
def judge(classifier: Classifier, images: Tensor, batch: int = 500) -> tuple[Tensor, Tensor]:
    """Features (N, D) and predicted classes (N,) of float images (N, 1, 28, 28) in [-1, 1]."""
    parts = [classifier.features(chunk) for chunk in images.split(batch)]
    features = torch.cat(parts)
    return features, classifier.head(features).argmax(1)


def real_parts(train: Dataset, n: int, seed: int = 0) -> Iterator[Tensor]:
    """Disjoint random parts of n training images each, as uint8, as many as there are; ValueError for none."""
    if n > len(train):
        raise ValueError(f"{n} samples need as many real images beside them, got {len(train)}")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    for part in order[: len(order) // n * n].split(n):
        yield train.images[part]


def share_error(hits: int, n: int) -> float:
    """Standard error of a share of `hits` in n, with two successes and two failures added (Agresti & Coull 1998).

    The plain sqrt(p (1 - p) / n) would claim certainty where all n are hits.
    """
    p = (hits + 2) / (n + 4)
    return sqrt(p * (1 - p) / (n + 4))


def measure_samples(classifier: Classifier, x: Tensor, y: Tensor, train: Dataset, test: Dataset) -> dict[str, Any]:
    """Accuracy and Fréchet distance of class-conditional samples x (N, 1, 28, 28) in [-1, 1], asked for as y (N,).

    accuracy: share that the classifier sees as asked, with its standard error (`share_error`). frechet: against the test
    split, with the standard deviation over bootstrap resamples. floor: the same distance for disjoint parts of n
    real training images, mean and standard deviation; ratio: frechet / floor.
    """
    features, seen = judge(classifier, x)
    reference, _ = judge(classifier, to_float(test.images))
    floors = torch.tensor(
        [frechet_distance(judge(classifier, to_float(p))[0], reference) for p in real_parts(train, len(x))]
    )
    accuracy, frechet = float((seen == y).double().mean()), frechet_distance(features, reference)
    return {
        "samples": len(x),
        "accuracy": accuracy,
        "accuracy_error": share_error(int((seen == y).sum()), len(x)),
        "frechet": frechet,
        "frechet_error": frechet_spread(features, reference),
        "floor": float(floors.mean()),
        "floor_error": float(floors.std()) if len(floors) > 1 else None,
        "floor_parts": len(floors),
        "ratio": frechet / float(floors.mean()),
    }


# --- likelihood --------------------------------------------------------------------------------------


def mean_and_error(values: Tensor) -> list[float]:
    """Mean of one number an image, (N,), and its standard error."""
    return [float(values.mean()), float(values.std() / len(values) ** 0.5)]


def nats_and_bits(log_p: Tensor, dims: int = 784) -> dict[str, list[float]]:
    """Mean and standard error of log-probabilities (N,) in nats, and of bits a dimension."""
    return {"nats": mean_and_error(log_p), "bits_per_dim": mean_and_error(bits_per_dim(-log_p, dims, width=1))}


@torch.no_grad()
def measure_elbo(
    net: VAE,
    images: Tensor,
    generator: torch.Generator | None = None,
    samples: tuple[int, ...] = (1, 10, 100, 1000),
    weighted: int = 1000,
) -> dict[str, Any]:
    """The ELBO of uint8 images in nats and bits a dimension, term by term, each with its standard error over images.

    The importance-weighted bounds of the first `weighted` images follow, one for each number of `samples`: each is averaged
    over as many disjoint groups as the largest number holds.
    """
    parts = [net.elbo_terms(part, generator) for part in images.split(500)]
    reconstruction, kl = (torch.cat(each).double() for each in zip(*parts, strict=True))
    elbo = reconstruction - kl.sum(1)
    log_weights = [net.importance_log_weights(part, max(samples), generator) for part in images[:weighted].split(10)]
    log_weights = torch.cat(log_weights).double()
    bounds = []
    for k in samples:
        groups = log_weights[:, : max(samples) // k * k].reshape(len(log_weights), -1, k)
        bounds.append({"samples": k} | nats_and_bits((groups.logsumexp(2) - log(k)).mean(1)))
    return {
        "images": len(images),
        **nats_and_bits(elbo),
        "reconstruction": mean_and_error(reconstruction),
        "kl": mean_and_error(kl.sum(1)),
        "kl_by_unit": kl.mean(0).tolist(),
        "weighted_images": len(log_weights),
        "weighted": bounds,
    }


# --- localisation -------------------------------------------------------------------------------------


def auc(scores: Tensor, positive: Tensor) -> float:
    """Chance that a positive gets a higher score than a negative, ties counted half: the area under the ROC curve.

    scores: (N,) or any shape; positive: bool, alike. 0.5 is guessing. Source: Mann & Whitney 1947; Hanley & McNeil 1982.
    Raises ValueError for shapes that disagree, labels that are not bool, scores that are not finite, or a missing kind.
    """
    if scores.shape != positive.shape or positive.dtype != torch.bool:
        raise ValueError(
            f"need scores and bool labels alike, got {tuple(scores.shape)}, {tuple(positive.shape)} {positive.dtype}"
        )
    if not bool(scores.isfinite().all()) or not bool(positive.any()) or bool(positive.all()):
        raise ValueError("need finite scores, at least one positive and one negative")
    negatives, found = scores[~positive].double().sort().values, scores[positive].double()
    below = torch.searchsorted(negatives, found) + torch.searchsorted(negatives, found, right=True)
    return float(below.double().mean() / (2 * len(negatives)))
