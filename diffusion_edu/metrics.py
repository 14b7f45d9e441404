"""How good are samples? Every figure comes with the value that real images get, at the same number of images,
and of the same classes, where classes are asked for.

Distances are measured in the features of the project's own frozen classifier of the data set (`judges`), against the test
split; `feature_distance` measures in the features of any other network, so in Inception's for the standard FID.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from math import exp, log, sqrt
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diffusion_edu.data import Dataset, to_float, to_uint8
from diffusion_edu.denoisers import check_labels
from diffusion_edu.likelihood import bits_per_dim
from diffusion_edu.networks import VAE, Classifier
from diffusion_edu.process import check_floating, normal_like


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D) of features (N, D), float64. Raises ValueError for fewer than two rows."""
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"need at least two feature vectors, (N, D), got {tuple(features.shape)}")
    dim = features.shape[1]
    return features.double().mean(0), features.double().T.cov().reshape(dim, dim)  # one feature: a number otherwise


def frechet_distance(left: Tensor, right: Tensor) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) between the Gaussians fitted to two feature sets (N, D), (M, D).

    Source: Dowson & Landau 1982; as a sample metric Heusel et al. 2017, Eq. 6. Grows with 1 / N for equal sets.
    """
    (m1, c1), (m2, c2) = moments(left), moments(right)
    values, vectors = torch.linalg.eigh(c1)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ c2 @ root).clamp(min=0).sqrt().sum()
    return float((m1 - m2).square().sum() + c1.trace() + c2.trace() - 2 * cross)


def frechet_spread(features: Tensor, reference: Tensor, y: Tensor | None = None) -> float:
    """Standard deviation of the Fréchet distance over ten bootstrap resamples of `features` (N, D), always the same ten.

    y: the classes (N,) that were asked for. They are no chance, so each resample has as many of every class as they have;
    only where a class has a single image, which alone could not vary, are all resampled alike.
    """
    n, g = len(features), torch.Generator().manual_seed(0)
    if y is not None:
        check_classes(y, features)
        y = None if (torch.bincount(y) == 1).any() else y
    order = torch.arange(n) if y is None else y.argsort(stable=True)  # the rows of a class side by side
    sizes = torch.tensor([n]) if y is None else torch.bincount(y)
    first, size = (each.repeat_interleave(sizes) for each in (sizes.cumsum(0) - sizes, sizes))
    resampled = [features[order[first + (torch.rand(n, generator=g) * size).long()]] for _ in range(10)]
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
def judge(classifier: nn.Module, images: Tensor, batch: int = 500) -> tuple[Tensor, Tensor]:
    """Features (N, D), where the classifier is, and predicted classes (N,) of float images (N, C, H, W) in [-1, 1]."""
    device, was_training = next(classifier.parameters(), images).device, classifier.training
    classifier.eval()  # else it drops features, and learns from what it judges
    features = torch.cat([classifier.features(chunk.to(device)) for chunk in images.split(batch)])
    classes = classifier.head(features).argmax(1).to(images.device)
    classifier.train(was_training)
    return features, classes


def check_classes(y: Tensor, x: Tensor | None = None) -> None:
    """Raise ValueError unless `y` holds classes, whole numbers from 0 on: of each row of x, or of one image or more."""
    check_labels(y, y if x is None else x, None)
    if len(y) < 1 or int(y.min()) < 0:
        raise ValueError(f"need classes from 0 on, of one image or more, got {y[:10].tolist()}")


def turns(labels: Tensor) -> Tensor:
    """How often the class of each of `labels` (N,) has come before: int64 (N,)."""
    return nn.functional.one_hot(labels.long()).cumsum(0).gather(1, labels.long()[:, None])[:, 0] - 1


def in_shares(labels: Tensor, n: int) -> Tensor:
    """n labels (n,) in the shares that `labels` (N,) have: of each class less than one more or fewer.

    The classes take turns, 0 1 2 ... 0 1 2 ..., and where the rarest are used up the others go on. Raises ValueError for
    n < 1.
    """
    check_classes(labels)
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    chosen = labels.sort().values[(2 * torch.arange(n) + 1) * len(labels) // (2 * n)]
    return chosen[turns(chosen).argsort(stable=True)]


def real_parts(train: Dataset, asked: Tensor | int, seed: int = 0) -> Iterator[Tensor]:
    """Disjoint random parts of n training images each, as uint8, as many as there are.

    asked: n, or labels (n,): then each part has as many images of every class as there are among them. Raises ValueError
    where the training split is too small for one part.
    """
    for part in part_indices(train.labels, asked, seed):
        yield train.images[part]


def part_indices(labels: Tensor, asked: Tensor | int, seed: int = 0) -> Iterator[Tensor]:
    """The same by their places, int64 (n,), among images of these labels (N,)."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    if isinstance(asked, int):
        if not 1 <= asked <= len(labels):
            raise ValueError(
                f"{asked} samples need 1 or more, and as many real images, of which there are {len(labels)}"
            )
        part, count = torch.arange(len(labels)) // asked, len(labels) // asked
    else:
        check_classes(asked)
        here, classes = labels[order], 1 + int(max(labels.max(), asked.max()))
        wanted, there = (torch.bincount(y, minlength=classes) for y in (asked, here))
        part = turns(here) // wanted.clamp(min=1)[here]
        part[wanted[here] == 0] = len(labels)  # in none
        scarce = int((there / wanted).nan_to_num(torch.inf).argmin())
        count = int(there[scarce] // wanted[scarce])
        if count == 0:
            needed = f"{int(wanted[scarce])} real images of class {scarce}"
            raise ValueError(f"{len(asked)} samples need {needed} beside them, of which there are {int(there[scarce])}")
    for k in range(count):
        yield order[part == k]


def share_error(hits: int, n: int) -> float:
    """Standard error of a share of `hits` in n, with two successes and two failures added (Agresti & Coull 1998).

    The plain sqrt(p (1 - p) / n) would claim certainty where all n are hits.
    """
    p = (hits + 2) / (n + 4)
    return sqrt(p * (1 - p) / (n + 4))


def accuracy(seen: Tensor, y: Tensor) -> dict[str, float]:
    """Share of images whose class `seen` (N,) is the one asked for, y (N,), and its standard error (`share_error`)."""
    if seen.shape != y.shape:
        raise ValueError(f"need a label for each image, {tuple(seen.shape)}, got {tuple(y.shape)}")
    hits = int((seen == y).sum())
    return {"accuracy": hits / len(y), "accuracy_error": share_error(hits, len(y))}


def quality(features: Tensor, seen: Tensor, y: Tensor | None, reference: Tensor) -> dict[str, float]:
    """Fréchet distance of features (N, D) to a reference (M, D) with `frechet_spread`; with a y before it the `accuracy`."""
    return ({} if y is None else accuracy(seen, y)) | {
        "frechet": frechet_distance(features, reference),
        "frechet_error": frechet_spread(features, reference, y),
    }


def measure_samples(
    classifier: nn.Module, x: Tensor, y: Tensor, train: Dataset, test: Dataset, parts: int = 10
) -> dict[str, Any]:
    """Class-conditional samples x (N, C, H, W) in [-1, 1], asked for as y (N,), by every judge; each with its floor.

    For several sets of samples of the same y make one `RealImages` and let it `measure` them: the floors are the same.
    """
    return RealImages(classifier, train, test, y, parts).measure(x)


class RealImages:
    """The test split that samples are held against, and what as many real training images get beside it: the floors.

    asked: the labels (n,) that the samples are asked for, or their number n where nothing is asked for; the real images
    have the same (`real_parts`). floors: of the Fréchet distance as `floor`, mean over the disjoint parts of n training
    images; of the `judgements` as `..._floor`, over at most `parts` of them; each with `..._error`, the deviation between
    parts.
    """

    def __init__(
        self,
        classifier: nn.Module,
        train: Dataset,
        test: Dataset,
        asked: Tensor | int,
        parts: int = 10,
        floors: dict[str, Any] | None = None,
    ) -> None:
        self.classifier, self.asked = classifier, asked
        self.reference = Manifold(judge(classifier, to_float(test.images))[0])
        if floors is not None:  # an earlier run measured them
            self.floors = floors
            return
        real = [judge(classifier, to_float(part))[0] for part in real_parts(train, asked)]
        distances = torch.tensor([frechet_distance(part, self.reference.points) for part in real])
        self.floors = {
            "floor": float(distances.mean()),
            "floor_error": float(distances.std()) if len(distances) > 1 else None,
            "floor_parts": len(distances),
            **with_floor([judgements(part, classifier.head, self.reference) for part in real[:parts]]),
        }

    def measure(self, x: Tensor) -> dict[str, Any]:
        """Judge n samples x (n, C, H, W) in [-1, 1], those that were asked for; ValueError for another number.

        `accuracy`, where labels were asked for; frechet: against the test split, with the standard deviation over
        bootstrap resamples; ratio: to its floor. Then the `judgements`, and the floors.
        """
        y, n = (None, self.asked) if isinstance(self.asked, int) else (self.asked, len(self.asked))
        if len(x) != n:
            raise ValueError(f"the floors are those of {n} images, got {len(x)} samples")
        features, seen = judge(self.classifier, x)
        found = quality(features, seen, y, self.reference.points)
        return {
            "samples": n,
            **found,
            "ratio": found["frechet"] / self.floors["floor"],
            **judgements(features, self.classifier.head, self.reference),
            **self.floors,
        }


# --- evaluation: precision and recall, kernel distance, inception score, what samples teach, n -> infinity --------------


def squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """|left_i - right_j|^2, (N, M), for points (N, D) and (M, D), by one matrix product; rounding below 0 is cut."""
    check_floating(left, "points")
    check_floating(right, "points")
    product = left @ right.T
    return (left.square().sum(1)[:, None] + right.square().sum(1) - 2 * product).clamp(min=0)


class Manifold:
    """Points (N, D), each with a ball that reaches to its k-th nearest other point: a guess at where a law has mass.

    Distances are taken `chunk` rows at a time. Source: Kynkäänniemi et al. 2019, Section 3; k = 3 is theirs.
    Raises ValueError unless 1 <= k < N.
    """

    def __init__(self, points: Tensor, k: int = 3, chunk: int = 1000) -> None:
        if points.ndim != 2 or not 1 <= k < len(points):
            raise ValueError(f"need more than k = {k} >= 1 points (N, D), got {tuple(points.shape)}")
        self.points, self.k, self.chunk = points, k, chunk
        nearest = [squared_distances(part, points).topk(k + 1, largest=False).values for part in points.split(chunk)]
        self.squared_radii = torch.cat(nearest)[:, k]  # the nearest of all is the point itself

    def counts(self, others: Tensor) -> tuple[Tensor, Tensor]:
        """In how many balls each of others (M, D) lies, (M,), and how many of them each ball holds, (N,)."""
        inside = [squared_distances(part, self.points) <= self.squared_radii for part in others.split(self.chunk)]
        return torch.cat([part.sum(1) for part in inside]), torch.stack([part.sum(0) for part in inside]).sum(0)

    def share_inside(self, others: Tensor) -> float:
        """Share of others (M, D) that lie in at least one ball."""
        return float((self.counts(others)[0] > 0).double().mean())


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Share of fake points inside the real manifold, and of real points inside the fake one; features (N, D), (M, D).

    Source: Kynkäänniemi et al. 2019, Eqs. 1 and 2. Two draws of one law do not reach 1: give that floor beside them.
    """
    return Manifold(real, k).share_inside(fake), Manifold(fake, k).share_inside(real)


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[float, float]:
    """Mean number of real balls around a fake point over k, and share of real balls that hold a fake point.

    For two draws of one law, without ties, density is 1 on average and coverage is `expected_coverage`, whatever the law.
    Source: Naeem et al. 2020, Eqs. 3 and 4.
    """
    around, held = Manifold(real, k).counts(fake)
    return float(around.double().mean() / k), float((held > 0).double().mean())


def expected_coverage(real: int, fake: int, k: int = 5) -> float:
    """Coverage on average when both draws, of sizes `real` and `fake`, come from one law without ties.

    Source: Naeem et al. 2020, Section 3.3.
    """
    return 1 - exp(sum(log(real - i) - log(real + fake - i) for i in range(1, k + 1)))


def unbiased_mmd(left: Tensor, right: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x . y / D + 1)^3 between (N, D) and (M, D).

    It can be negative. Source: Gretton et al. 2012, Eq. 3; kernel of Bińkowski et al. 2018, Section 4.
    """
    left, right, dim = left.double(), right.double(), left.shape[1]

    def within(points: Tensor) -> Tensor:
        kernel, n = (points @ points.T / dim + 1) ** 3, len(points)
        return (kernel.sum() - kernel.diagonal().sum()) / (n * (n - 1))

    return float(within(left) + within(right) - 2 * ((left @ right.T / dim + 1) ** 3).mean())


def kernel_distance(left: Tensor, right: Tensor, blocks: int = 10) -> tuple[float, float]:
    """Kernel distance between features (N, D), (M, D): mean of `unbiased_mmd` over disjoint blocks, and its error.

    Each set is shuffled, always alike, and cut into `blocks` equal parts. Raises ValueError for blocks of one point.
    """
    if blocks < 2 or min(len(left), len(right)) < 2 * blocks:
        raise ValueError(f"{blocks} blocks need two points each and a second block, got {len(left)} and {len(right)}")
    g = torch.Generator().manual_seed(0)
    shuffled = (points[torch.randperm(len(points), generator=g).to(points.device)] for points in (left, right))
    pairs = zip(*(points.split(len(points) // blocks)[:blocks] for points in shuffled), strict=True)
    values = torch.tensor([unbiased_mmd(a, b) for a, b in pairs], dtype=torch.float64)
    return float(values.mean()), float(values.std() / sqrt(blocks))


def inception_score(probabilities: Tensor, splits: int = 10) -> tuple[float, float]:
    """exp of the mean KL(p(y | x) || p(y)) over images, from class probabilities (N, K): mean and deviation over splits.

    Between 1 and K. p(y) is the mean within a split. The images are shuffled, always alike: in splits of images that are
    ordered by class, or whose classes repeat with the splits' period, p(y) would be one class. Source: Salimans et al. 2016;
    the splits are their code's. Raises ValueError for rows that do not sum to 1, or fewer images than splits.
    """
    if probabilities.ndim != 2 or not bool(((probabilities.sum(1) - 1).abs() < 1e-3).all()):
        raise ValueError(f"need rows of class probabilities (N, K) that sum to 1, got {tuple(probabilities.shape)}")
    if not 1 <= splits <= len(probabilities):
        raise ValueError(f"splits must be in 1 to the {len(probabilities)} images, got {splits}")
    order = torch.randperm(len(probabilities), generator=torch.Generator().manual_seed(0)).to(probabilities.device)
    scores = []
    for rows in order.tensor_split(splits):
        p = probabilities[rows].double()
        scores.append((p.xlogy(p) - p.xlogy(p.mean(0))).sum(1).mean().exp())
    scores = torch.stack(scores)
    return float(scores.mean()), float(scores.std()) if splits > 1 else 0.0


@torch.no_grad()
def judgements(features: Tensor, head: nn.Module, reference: Manifold) -> dict[str, float]:
    """Precision, recall, kernel distance and Inception score of features (N, D) before the judge's last layer `head`."""
    blocks = min(10, len(features) // 2)
    kernel, kernel_error = kernel_distance(features, reference.points, blocks)
    score, score_error = inception_score(head(features).softmax(1), min(10, len(features)))
    return {
        "precision": reference.share_inside(features),
        "recall": Manifold(features, reference.k).share_inside(reference.points),
        "kernel": kernel,
        "kernel_error": kernel_error,
        "inception": score,
        "inception_error": score_error,
    }


def with_floor(rows: list[dict[str, float]]) -> dict[str, float | None]:
    """Mean of what several parts of real images got, as `..._floor`, and the deviation between them."""
    found: dict[str, float | None] = {}
    for name in ("precision", "recall", "kernel", "inception"):
        values = torch.tensor([row[name] for row in rows], dtype=torch.float64)
        found[f"{name}_floor"] = float(values.mean())
        found[f"{name}_floor_error"] = float(values.std()) if len(rows) > 1 else None
    return found


def frechet_bias(features: Tensor, tolerance: float = 1e-4) -> float:
    """The c of E F = c / n + c / m + smaller terms: what the Fréchet distance of two draws of one law is, not 0.

    features (N, D): a large draw of the law. With coordinates u along the eigenvectors of the covariance, eigenvalues l,
    c = sum_i l_i + sum_ij Var(u_i u_j) / (l_i + l_j) / 2. Eigenvalues below `tolerance` times the largest are left out:
    there the expansion, which wants l larger than its own error, does not hold.
    """
    mean, covariance = moments(features)
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > tolerance * values[-1]
    values, u = values[kept], (features.double() - mean) @ vectors[:, kept]
    squares = (u.square().T @ u.square()) / len(u) - torch.diag(values) ** 2
    return float(values.sum() + (squares / (values[:, None] + values)).sum() / 2)


def frechet_limit(
    features: Tensor,
    reference: Tensor,
    sizes: int = 8,
    draws: int = 4,
    generator: torch.Generator | None = None,
    y: Tensor | None = None,
) -> tuple[float, float]:
    """Fréchet distance of features (N, D) for N -> infinity, and the slope in 1 / n, by a straight line in 1 / n.

    The line goes through distances of random subsets of `sizes` sizes between N / 8 and N, evenly spaced in 1 / n. y: the
    classes (N,) that were asked for, whose shares the subsets keep: else they would vary more than the whole. The bias of
    the finite reference (M, D) stays. Source: Chong & Forsyth 2020, Section 4 (who add quasi-random samples).
    """
    total = len(features)
    if total < 16 or sizes < 2:
        raise ValueError(f"need 16 features and two sizes, got {total} and {sizes}")
    inverse, distances = [], []
    for one_over_n in torch.linspace(1 / total, 8 / total, sizes, dtype=torch.float64).tolist():
        n = round(1 / one_over_n)
        for _ in range(draws if n < total else 1):
            if y is None:
                rows = torch.randperm(total, generator=generator)[:n]
            else:
                rows = next(part_indices(y, in_shares(y, n), int(torch.randint(2**31, (), generator=generator))))
            subset = features[rows.to(features.device)]
            inverse.append([1.0, 1 / n])
            distances.append(frechet_distance(subset, reference))
    design, wanted = torch.tensor(inverse).double(), torch.tensor(distances).double()
    limit, slope = torch.linalg.lstsq(design, wanted[:, None]).solution[:, 0].tolist()
    return limit, slope


class Bootstrap(NamedTuple):
    """A statistic, its estimated bias and deviation, and the interval between quantiles, corrected for the bias."""

    value: float
    bias: float
    deviation: float
    low: float
    high: float


def bootstrap(
    statistic: Callable[[Tensor], float],
    sample: Tensor,
    resamples: int = 200,
    level: float = 0.95,
    generator: torch.Generator | None = None,
) -> Bootstrap:
    """Resample rows of sample (N, ...) with replacement; the basic interval 2 value - quantiles.

    A biased statistic is biased once more on resamples: the percentile interval then lies on the wrong side of the value,
    the basic one takes the bias off. Source: Davison & Hinkley 1997, Section 5.2. ValueError for a level outside (0, 1).
    """
    if not 0 < level < 1 or resamples < 2:
        raise ValueError(f"need a level in (0, 1) and two resamples, got {level} and {resamples}")
    value, n = statistic(sample), len(sample)
    rows = (torch.randint(n, (n,), generator=generator).to(sample.device) for _ in range(resamples))
    again = torch.tensor([statistic(sample[row]) for row in rows], dtype=torch.float64)
    low, high = again.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2]).double()).tolist()
    return Bootstrap(value, float(again.mean()) - value, float(again.std()), 2 * value - high, 2 * value - low)


def share_interval(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval for a share of which `hits` in n were seen: all p with |hits / n - p| <= z sqrt(p (1 - p) / n).

    Source: Wilson 1927. It stays within [0, 1], and has a length where all n are hits.
    """
    if not 0 <= hits <= n or n < 1:
        raise ValueError(f"need 0 <= hits <= n and n >= 1, got {hits} and {n}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, centre = hits / n, (hits + z**2 / 2) / (n + z**2)
    half = z / (1 + z**2 / n) * sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (centre - half if hits else 0.0), (centre + half if hits < n else 1.0)  # at the ends without rounding


class Ratio(NamedTuple):
    """How many times the baseline's value, and the ends of its interval."""

    value: float
    low: float
    high: float


def compare_rows(baseline: list[float], rows: dict[str, list[float]], level: float = 0.95) -> dict[str, Ratio]:
    """Each row's value over the baseline's (geometric means), with intervals that all hold at once with probability `level`.

    One positive value for each seed, at least two for the baseline. Logarithms are taken as normal, with one deviation for
    all rows that is estimated from all together; Student's t at a level shared among the rows (Bonferroni) does the rest.
    Raises ValueError for other values.
    """
    from scipy.stats import t as student  # lazily: half a second

    groups = [baseline, *rows.values()]
    if len(baseline) < 2 or not rows or not all(groups) or min(map(min, groups)) <= 0:
        raise ValueError(
            f"need positive values, two or more for the baseline and one or more for each row, got {groups}"
        )
    logs = [[log(value) for value in group] for group in groups]
    means, free = [sum(group) / len(group) for group in logs], sum(len(group) - 1 for group in logs)
    squares = sum((value - mean) ** 2 for group, mean in zip(logs, means, strict=True) for value in group)
    reach = student.ppf(1 - (1 - level) / (2 * len(rows)), free) * sqrt(squares / free)
    found = {}
    for name, group, mean in zip(rows, logs[1:], means[1:], strict=True):
        half = reach * sqrt(1 / len(group) + 1 / len(baseline))
        found[name] = Ratio(*(exp(mean - means[0] + shift) for shift in (0, -half, half)))
    return found


def classification_accuracy_score(
    images: Tensor, labels: Tensor, test: Dataset, epochs: int = 10, batch: int = 64, seed: int = 0
) -> float:
    """Accuracy on real test images of a new small classifier that is trained on images (N, 1, 28, 28) in [-1, 1] alone.

    labels: (N,), what the images were asked to be. Compare with as many real training images. Source: Ravuri & Vinyals 2019.
    """
    if len(images) != len(labels) or len(images) < batch:
        raise ValueError(f"need a label for each of at least {batch} images, got {len(images)} and {len(labels)}")
    g, devices = torch.Generator().manual_seed(seed), [images.device] if images.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)  # first weights and dropout
        net = Classifier(width=16).to(images.device)
        optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
        for _ in range(epochs):
            order = torch.randperm(len(images), generator=g).to(images.device)
            for rows in order.split(batch)[: len(images) // batch]:  # batch norm wants full batches
                loss = nn.functional.cross_entropy(net(images[rows]), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    net.eval()
    _, seen = judge(net, to_float(test.images).to(images.device))
    return float((seen.cpu() == test.labels).double().mean())


def copied_share(samples: Tensor, train: Tensor, fresh: Tensor, chunk: int = 1000) -> float:
    """Share of samples (N, D) whose nearest neighbour among train and fresh, both (M, D), is one of train.

    One half for a law that has not seen its training points one by one; more for copies. Ties count half.
    Raises ValueError for sets of unequal size. Source: the idea of Meehan et al. 2020.
    """
    if train.shape != fresh.shape:
        raise ValueError(f"need equally many train and fresh points, got {tuple(train.shape)} and {tuple(fresh.shape)}")
    total = 0.0
    for part in samples.split(chunk):
        a, b = (squared_distances(part, points).min(1).values for points in (train, fresh))
        total += float((a < b).double().sum() + (a == b).double().sum() / 2)
    return total / len(samples)


# --- the features of another network ------------------------------------------------------------------

Extractor = Callable[[Tensor], Tensor]  # uint8 images (N, 3, H, W) -> features (N, D)


def load_extractor(path: Path | str, device: torch.device | str = "cpu") -> Extractor:
    """The network of a TorchScript file as an `Extractor`, such as StyleGAN's `inception-2015-12-05.pt`, on a device.

    A network whose forward has an argument `return_features` is asked for them. Raises ValueError for a file that is
    missing or no TorchScript.
    """
    if not Path(path).is_file():
        raise ValueError(f"no feature network at {path}, expected a TorchScript file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # torch prefers newer formats; Inception comes in this one
            net = torch.jit.load(str(path), map_location=device).eval()
    except RuntimeError as error:
        raise ValueError(f"{path} is no TorchScript file: {str(error).splitlines()[0]}") from None
    if any(argument.name == "return_features" for argument in net.forward.schema.arguments):
        net = partial(net, return_features=True)
    return lambda images: net(images.to(device))


@torch.no_grad()
def extract(extractor: Extractor, images: Tensor, batch: int = 100) -> Tensor:
    """Features (N, D) of uint8 images (N, C, H, W), C = 1 or 3; a grey image is given as equal red, green and blue.

    Raises ValueError for other images, and for features that are not finite or not one row for each image.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"need uint8 images (N, 1 or 3, H, W), got {images.dtype} {tuple(images.shape)}")
    parts = []
    for chunk in images.split(batch):
        found = extractor(chunk.expand(-1, 3, -1, -1))
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(chunk):
            came = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"the feature network must give (N, D) for N = {len(chunk)} images, gave {came}")
        if not bool(found.isfinite().all()):
            raise ValueError("the feature network gave numbers that are not finite")
        parts.append(found.float())
    return torch.cat(parts)


def feature_distance(extractor: Extractor, x: Tensor, y: Tensor, reference: Dataset, other: Dataset) -> dict[str, Any]:
    """Fréchet distance between samples x (N, C, H, W) in [-1, 1] and all images of one split, in another network's features.

    y: the classes (N,) that were asked for. reference: that split, named in the answer; other: the second split, of which N
    images of these classes (or as many as there are, in their shares) give the floor. With Inception's features and 50,000
    samples this is the FID (Heusel et al. 2017). With fewer samples than features a covariance is singular and the bias
    large: look at the floor. Raises ValueError where the other split has not two such images.
    """
    check_classes(y, x)
    classes = 1 + int(max(y.max(), other.labels.max()))
    wanted, there = (torch.bincount(labels, minlength=classes) for labels in (y, other.labels))
    count = int(min(1.0, float((there / wanted)[wanted > 0].min())) * len(y))
    if count < 2:
        raise ValueError(f"the {other.split} split has too few images of the classes asked for to measure a floor")
    held_out = extract(extractor, next(real_parts(other, in_shares(y, count))))
    real, features = extract(extractor, reference.images), extract(extractor, to_uint8(x))
    return {
        "reference": reference.split,
        "reference_images": len(reference),
        "samples": len(x),
        "frechet": frechet_distance(features, real),
        "frechet_error": frechet_spread(features, real, y),
        "floor": frechet_distance(held_out, real),
        "floor_images": len(held_out),
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
