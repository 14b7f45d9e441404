"""Exercises of the chapter `book/evaluate.md`."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

from diffusion_edu.exercises import Exercise, Slip

# Fréchet distance of two Gaussians on a line

FRECHET = Exercise(
    name="evaluate-frechet",
    question="Fréchet distance of N(m1, s1^2) and N(m2, s2^2).",
    answer=lambda m1, s1, m2, s2: (m1 - m2) ** 2 + (s1 - s2) ** 2,
    cases=((0.0, 1.0, 1.0, 2.0), (-0.5, 0.3, 0.7, 1.1), (2.0, 1.5, 2.0, 0.4)),
    slips=(
        Slip(
            "variances",
            lambda m1, s1, m2, s2: (m1 - m2) ** 2 + (s1**2 - s2**2) ** 2,
            "you compare variances. The cross term is the root of the product: standard deviations are compared.",
        ),
        Slip(
            "no root",
            lambda m1, s1, m2, s2: (m1 - m2) ** 2 + s1**2 + s2**2 - 2 * s1**2 * s2**2,
            "the cross term has lost its matrix root: s1^2 s2^2 for s1 s2. For equal laws the distance is then not 0.",
        ),
        Slip(
            "square root",
            lambda m1, s1, m2, s2: sqrt((m1 - m2) ** 2 + (s1 - s2) ** 2),
            "that is W2 itself. What is reported as the Fréchet distance is its square.",
        ),
        Slip(
            "mean not squared",
            lambda m1, s1, m2, s2: abs(m1 - m2) + (s1 - s2) ** 2,
            "the gap of the means enters squared, like everything else: check the units.",
        ),
        Slip(
            "spread forgotten",
            lambda m1, s1, m2, s2: (m1 - m2) ** 2,
            "the spreads are missing: two laws with one mean can be far apart.",
        ),
    ),
)

# The floor of white features

FLOOR = Exercise(
    name="evaluate-floor",
    question="Mean Fréchet distance of n white Gaussian features, D of them with variance scale, against m others.",
    answer=lambda D, scale, n, m: scale * D * (D + 5) / 4 * (1 / n + 1 / m),
    cases=((2, 1.0, 100, 1000), (128, 0.5, 2000, 10_000), (10, 3.0, 500, 500)),
    slips=(
        Slip(
            "reference without chance",
            lambda D, scale, n, m: scale * D * (D + 5) / 4 / n,
            "the reference is a finite set too: its 1 / m is missing.",
        ),
        Slip(
            "means only",
            lambda D, scale, n, m: scale * D * (1 / n + 1 / m),
            "that is the share of the means. The covariance, with its D (D + 1) / 2 numbers, adds D (D + 1) / 4.",
        ),
        Slip(
            "covariance only",
            lambda D, scale, n, m: scale * D * (D + 1) / 4 * (1 / n + 1 / m),
            "that is the share of the covariance. The means add D.",
        ),
        Slip(
            "one over the sum",
            lambda D, scale, n, m: scale * D * (D + 5) / 4 / (n + m),
            "chance of two independent sets adds: 1 / n + 1 / m, not 1 / (n + m).",
        ),
        Slip(
            "scale squared",
            lambda D, scale, n, m: scale**2 * D * (D + 5) / 4 * (1 / n + 1 / m),
            "the distance has the units of a variance: scale enters once.",
        ),
    ),
)

# Inception score


def inception(p: Tensor) -> Tensor:
    """exp of the mean KL to the average."""
    return torch.xlogy(p, p / p.mean(0)).sum(1).mean().exp()


def probabilities(n: int, k: int, seed: int) -> Tensor:
    """Rows that sum to 1."""
    g = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(n, k, generator=g, dtype=torch.float64)).softmax(1)


SCORE = Exercise(
    name="evaluate-inception",
    question="Inception score of class probabilities (N, K).",
    answer=inception,
    cases=tuple((probabilities(n, k, seed),) for n, k, seed in ((6, 3, 0), (20, 5, 1), (9, 10, 2))),
    slips=(
        Slip(
            "no exponential",
            lambda p: inception(p).log(),
            "that is the information in nats. The score is its exponential, between 1 and K.",
        ),
        Slip(
            "KL the wrong way",
            lambda p: (p.mean(0) * (p.mean(0) / p).log()).sum(1).mean().exp(),
            "the divergence is the other way round: from p(y | x) to the average, weighted by p(y | x).",
        ),
        Slip(
            "exponential inside",
            lambda p: (p * (p / p.mean(0)).log()).sum(1).exp().mean(),
            "you average the exponentials. The mean over images is taken first, then the exponential.",
        ),
        Slip(
            "entropy of the average",
            lambda p: (-(p.mean(0) * p.mean(0).log()).sum()).exp(),
            "that is variety alone. The doubt about each image, the mean of H(y | x), is to be taken off.",
        ),
        Slip(
            "uniform average",
            lambda p: (p * (p * p.shape[1]).log()).sum(1).mean().exp(),
            "you compare with the uniform distribution, not with the average of the samples: a model that draws one "
            "class would get full marks.",
        ),
        Slip(
            "base 2",
            lambda p: 2 ** inception(p).log(),
            "two to the power of nats. Take natural logarithms and exp, or base 2 in both places.",
        ),
    ),
)

# The kernel distance


def kid(kxx: Tensor, kyy: Tensor, kxy: Tensor) -> Tensor:
    """Unbiased squared MMD from matrices of kernel values."""
    n, m = kxy.shape
    return (kxx.sum() - kxx.trace()) / (n * (n - 1)) + (kyy.sum() - kyy.trace()) / (m * (m - 1)) - 2 * kxy.mean()


def kernels(n: int, m: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices of the cubic kernel between n and m points."""
    g = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(size, 3, generator=g, dtype=torch.float64) for size in (n, m))
    return tuple((a @ b.T / 3 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))


KERNEL = Exercise(
    name="evaluate-kernel",
    question="Unbiased squared MMD from the three matrices of kernel values.",
    answer=kid,
    cases=(kernels(4, 4, 0), kernels(5, 3, 1), kernels(6, 9, 2)),
    slips=(
        Slip(
            "diagonal",
            lambda kxx, kyy, kxy: kxx.mean() + kyy.mean() - 2 * kxy.mean(),
            "the diagonals are still in: a point compared with itself is no pair of independent points. The biased form.",
        ),
        Slip(
            "n squared",
            lambda kxx, kyy, kxy: (
                (kxx.sum() - kxx.trace()) / len(kxx) ** 2 + (kyy.sum() - kyy.trace()) / len(kyy) ** 2 - 2 * kxy.mean()
            ),
            "the diagonals are gone from the sums but not from the counts: n (n - 1) pairs are left.",
        ),
        Slip(
            "factor 2",
            lambda kxx, kyy, kxy: kid(kxx, kyy, kxy) + kxy.mean(),
            "the mixed term needs its factor 2: it comes from a square.",
        ),
        Slip(
            "sign",
            lambda kxx, kyy, kxy: kid(kxx, kyy, kxy) + 4 * kxy.mean(),
            "the mixed term has the wrong sign: what the two sets share makes the distance smaller.",
        ),
        Slip(
            "negative cut",
            lambda kxx, kyy, kxy: kid(kxx, kyy, kxy).clamp(min=0),
            "you cut negative values off. An unbiased estimate must be allowed to be negative; cut, it is biased again.",
        ),
        Slip(
            "root",
            lambda kxx, kyy, kxy: kid(kxx, kyy, kxy).abs().sqrt(),
            "the squared distance is asked for; its root is not estimated without bias.",
        ),
    ),
)

# Recall


def recall(real: Tensor, fake: Tensor, k: int) -> Tensor:
    """Share of real points in the balls of the fake ones."""
    radii = torch.cdist(fake, fake).sort(1).values[:, k]
    return (torch.cdist(real, fake) <= radii).any(1).double().mean()


def precision(real: Tensor, fake: Tensor, k: int) -> Tensor:
    """Share of fake points in the balls of the real ones."""
    return recall(fake, real, k)


def own_ball(real: Tensor, fake: Tensor, k: int) -> Tensor:
    """The radius of the point that is judged."""
    radii = torch.cdist(real, real).sort(1).values[:, k]
    return (torch.cdist(real, fake) <= radii[:, None]).any(1).double().mean()


def two_sets(n: int, m: int, seed: int) -> tuple[Tensor, Tensor]:
    """A wide set of n and a narrow, shifted one of m points in the plane."""
    g = torch.Generator().manual_seed(seed)
    real, fake = (torch.randn(size, 2, generator=g, dtype=torch.float64) for size in (n, m))
    return real, 0.6 * fake + 0.4


RECALL = Exercise(
    name="evaluate-recall",
    question="Recall of fake points (M, D) for real points (N, D), with k neighbours.",
    answer=recall,
    cases=((*two_sets(40, 30, 0), 3), (*two_sets(25, 60, 1), 1), (*two_sets(60, 50, 2), 5)),
    slips=(
        Slip("precision", precision, "that is precision: which of the fake points lie among the real ones."),
        Slip(
            "own ball",
            own_ball,
            "you use the radius of the point that is judged. The balls belong to the fake points; otherwise a lonely real "
            "point, with its large ball, finds itself covered.",
        ),
        Slip(
            "itself a neighbour",
            lambda real, fake, k: (
                (torch.cdist(real, fake) <= torch.cdist(fake, fake).sort(1).values[:, k - 1]).any(1).double().mean()
            ),
            "you count the point itself as its first neighbour: your balls reach to neighbour k - 1.",
        ),
        Slip(
            "all balls",
            lambda real, fake, k: (
                (torch.cdist(real, fake) <= torch.cdist(fake, fake).sort(1).values[:, k]).all(1).double().mean()
            ),
            "one ball that holds the point is enough; you ask for all of them.",
        ),
        Slip(
            "share of pairs",
            lambda real, fake, k: (
                (torch.cdist(real, fake) <= torch.cdist(fake, fake).sort(1).values[:, k]).double().mean()
            ),
            "you average over pairs. Ask of each real point whether any ball holds it, then average.",
        ),
    ),
)

# Coverage of a perfect model


def perfect(n: int, m: int, k: int) -> float:
    """1 - prod_i (n - i) / (n + m - i)."""
    empty = 1.0
    for i in range(1, k + 1):
        empty *= (n - i) / (n + m - i)
    return 1 - empty


COVERAGE = Exercise(
    name="evaluate-coverage",
    question="Expected coverage when both sets come from one law: n real points, m samples, k neighbours.",
    answer=perfect,
    cases=((20, 20, 3), (10, 40, 2), (30, 8, 5)),
    slips=(
        Slip(
            "with replacement",
            lambda n, m, k: 1 - (n / (n + m)) ** k,
            "close, but the neighbours are drawn without replacement, and the point itself is no candidate.",
        ),
        Slip(
            "empty balls",
            lambda n, m, k: 1 - perfect(n, m, k),
            "that is the chance that a ball is empty. Coverage counts the others.",
        ),
        Slip("one neighbour", lambda n, m, k: perfect(n, m, 1), "all k nearest must be real for a ball to be empty."),
        Slip(
            "sets exchanged",
            lambda n, m, k: perfect(m + 1, n - 1, k),
            "the sets are exchanged: the ball is round a real point and is empty of samples.",
        ),
        Slip("limit", lambda n, m, k: 1 - 2.0**-k, "that is the limit for many points, equally many of both."),
    ),
)

# The basic bootstrap interval

BOOTSTRAP = Exercise(
    name="evaluate-bootstrap",
    question="Basic interval (low, high) from a figure and the lower and upper quantile of its resamples.",
    answer=lambda figure, lower, upper: (2 * figure - upper, 2 * figure - lower),
    cases=((1.0, 0.9, 1.6), (0.3, 0.35, 0.5), (0.4, 0.3, 1.1)),
    slips=(
        Slip(
            "percentile",
            lambda figure, lower, upper: (lower, upper),
            "that is the percentile interval: the resamples are biased once more, and you move the wrong way.",
        ),
        Slip(
            "ends exchanged",
            lambda figure, lower, upper: (2 * figure - lower, 2 * figure - upper),
            "reflected, but the ends are exchanged: the upper quantile makes the lower end.",
        ),
        Slip(
            "reflected at the middle",
            lambda figure, lower, upper: (figure - (upper - lower) / 2, figure + (upper - lower) / 2),
            "you laid the width symmetrically round the figure: the bias, which the quantiles show, stays in.",
        ),
        Slip(
            "differences",
            lambda figure, lower, upper: (figure - upper, figure - lower),
            "those are the errors. The interval is the figure plus them.",
        ),
        Slip(
            "cut at 0",
            lambda figure, lower, upper: (max(0.0, 2 * figure - upper), 2 * figure - lower),
            "you cut the lower end at 0. Leave it: a negative end says that 0 is not excluded.",
        ),
    ),
)

# The error of a mean, classes asked for or not


def mean_errors(shares: Tensor, means: Tensor, traces: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Sum of shares times traces over n; with the spread of the means added."""
    within = shares @ traces
    between = shares @ (means - shares @ means).square().sum(1)
    return within / n, (within + between) / n


def classes(shares: tuple[float, ...], seed: int, n: int) -> tuple[Tensor, Tensor, Tensor, int]:
    """A case: shares (K,), means (K, 3), traces (K,) and n."""
    g, k = torch.Generator().manual_seed(seed), len(shares)
    means = 2 * torch.randn(k, 3, generator=g, dtype=torch.float64) + 1
    return torch.tensor(shares, dtype=torch.float64), means, torch.rand(k, generator=g, dtype=torch.float64) + 0.2, n


def round_the_plain_mean(shares: Tensor, means: Tensor, traces: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The classes' spread round a mean that forgets the shares."""
    within = shares @ traces
    return within / n, (within + shares @ (means - means.mean(0)).square().sum(1)) / n


def all_alike(shares: Tensor, means: Tensor, traces: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """As if all classes were equally frequent."""
    return mean_errors(torch.full_like(shares, 1 / len(shares)), means, traces, n)


STRATA = Exercise(
    name="evaluate-strata",
    question="Mean squared error of the mean of n images, classes asked for in their own shares, and drawn at random.",
    answer=mean_errors,
    cases=(classes((0.5, 0.3, 0.2), 0, 100), classes((0.9, 0.1), 1, 20), classes((0.1, 0.2, 0.3, 0.4), 2, 1000)),
    slips=(
        Slip(
            "between forgotten",
            lambda p, m, c, n: (mean_errors(p, m, c, n)[0],) * 2,
            "drawn at random, the classes' counts vary too: the means' own spread is missing in the second.",
        ),
        Slip(
            "exchanged",
            lambda p, m, c, n: mean_errors(p, m, c, n)[::-1],
            "the two are exchanged: what is fixed cannot add to the error.",
        ),
        Slip(
            "all classes alike",
            all_alike,
            "you gave every class the same weight. The common ones count for more.",
        ),
        Slip(
            "round the plain mean",
            round_the_plain_mean,
            "the classes scatter round the mean of all images, in which each class has its share.",
        ),
        Slip(
            "one image",
            lambda p, m, c, n: tuple(n * value for value in mean_errors(p, m, c, n)),
            "that is the spread of one image. The mean of n has an n-th of it.",
        ),
        Slip(
            "between alone",
            lambda p, m, c, n: (mean_errors(p, m, c, n)[0], mean_errors(p, m, c, n)[1] - mean_errors(p, m, c, n)[0]),
            "that is what the classes add. The spread within them does not go away.",
        ),
    ),
)

EXERCISES = (FRECHET, FLOOR, SCORE, KERNEL, RECALL, COVERAGE, BOOTSTRAP, STRATA)
