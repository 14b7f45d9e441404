"""Exercises of the chapter `book/latent.md`."""

from __future__ import annotations

from math import log, log2

import torch
from torch import Tensor

from diffusion_edu.exercises import Exercise, Slip


def table(*values: float) -> Tensor:
    """A small table of probabilities."""
    return torch.tensor(values, dtype=torch.float64)


def kl(left: Tensor, right: Tensor) -> Tensor:
    """KL divergence of two tables."""
    return (left * (left / right).log()).sum()


# (p(z), p(x | z) for the x that was seen, q(z))
TABLES = (
    (table(0.5, 0.5), table(0.2, 0.9), table(0.7, 0.3)),
    (table(0.2, 0.3, 0.5), table(0.9, 0.05, 0.3), table(0.3, 0.3, 0.4)),
    (table(0.6, 0.4), table(0.01, 0.4), table(0.1, 0.9)),
)


# The gap


def gap_of_bound(prior: Tensor, likelihood: Tensor, q: Tensor) -> Tensor:
    """log p(x) - ELBO = KL(q || p(z | x))."""
    joint = prior * likelihood
    return kl(q, joint / joint.sum())


GAP = Exercise(
    name="latent-gap",
    question="The gap log p(x) - ELBO for tables p(z), p(x | z) of the x that was seen, and q(z).",
    answer=gap_of_bound,
    cases=TABLES,
    slips=(
        Slip(
            "KL reversed",
            lambda prior, likelihood, q: kl(prior * likelihood / (prior * likelihood).sum(), q),
            "you have KL(posterior || q). The average of the bound is taken under q, so q stands first.",
        ),
        Slip(
            "prior for posterior",
            lambda prior, likelihood, q: kl(q, prior),
            "that is KL(q || prior), a part of the ELBO. The gap compares q with the posterior p(z | x).",
        ),
        Slip(
            "unnormalised posterior",
            lambda prior, likelihood, q: kl(q, prior * likelihood),
            "you left out the division by p(x). What you have is -ELBO itself, not its distance from log p(x).",
        ),
        Slip(
            "Jensen reversed",
            lambda prior, likelihood, q: -gap_of_bound(prior, likelihood, q),
            "a negative gap would put the bound above log p(x). The logarithm is concave: E log <= log E.",
        ),
        Slip(
            "likelihood for posterior",
            lambda prior, likelihood, q: kl(q, likelihood / likelihood.sum()),
            "you normalised the likelihood over z and forgot the prior. Bayes: p(z | x) is proportional to p(x | z) p(z).",
        ),
        Slip(
            "evidence minus reconstruction",
            lambda prior, likelihood, q: (prior * likelihood).sum().log() - (q * likelihood.log()).sum(),
            "you subtracted the reconstruction term alone. The ELBO is the reconstruction less KL(q || prior).",
        ),
    ),
)


# Two terms


def elbo_of_tables(prior: Tensor, likelihood: Tensor, q: Tensor) -> Tensor:
    """E_q log p(x | z) - KL(q || p(z))."""
    return (q * likelihood.log()).sum() - kl(q, prior)


TWO_TERMS = Exercise(
    name="latent-elbo",
    question="The ELBO of tables p(z), p(x | z) of the x that was seen, and q(z).",
    answer=elbo_of_tables,
    cases=TABLES,
    slips=(
        Slip(
            "reconstruction alone",
            lambda prior, likelihood, q: (q * likelihood.log()).sum(),
            "that is the reconstruction term. It can lie above log p(x), so it is no bound: KL(q || prior) must be paid.",
        ),
        Slip(
            "KL added",
            lambda prior, likelihood, q: (q * likelihood.log()).sum() + kl(q, prior),
            "the KL term is a cost: subtract it.",
        ),
        Slip(
            "KL reversed",
            lambda prior, likelihood, q: (q * likelihood.log()).sum() - kl(prior, q),
            "you subtract KL(prior || q). Both terms are averages under q, so it is KL(q || prior).",
        ),
        Slip(
            "logarithm outside",
            lambda prior, likelihood, q: (q * likelihood).sum().log() - kl(q, prior),
            "you took log E p(x | z). The bound holds E log p(x | z): first the logarithm, then the average.",
        ),
        Slip(
            "entropy forgotten",
            lambda prior, likelihood, q: (q * (prior * likelihood).log()).sum(),
            "you averaged log p(x, z) and forgot to divide by q inside the logarithm: the entropy of q is missing.",
        ),
        Slip(
            "evidence",
            lambda prior, likelihood, q: (prior * likelihood).sum().log(),
            "that is log p(x). The ELBO lies below it, by KL(q || posterior), unless q is the posterior.",
        ),
    ),
)


# The divergence of a Gaussian from the prior


def kl_from_prior(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, I)), summed over units."""
    return ((mean.square() + (2 * log_std).exp() - 1) / 2 - log_std).sum()


UNITS = (
    (table(0.5, -1.2, 0.0), table(-0.7, 0.3, -2.0)),
    (table(0.0, 0.0), table(0.4, -0.4)),
    (table(2.0, -0.3, 0.1, 1.0), table(-1.5, -0.2, 0.1, 0.6)),
)

GAUSSIAN_KL = Exercise(
    name="latent-gaussian-kl",
    question="KL(N(mean, diag std^2) || N(0, I)) from the mean and the log standard deviation of each unit.",
    answer=kl_from_prior,
    cases=UNITS,
    slips=(
        Slip(
            "log-variance for log-deviation",
            lambda mean, log_std: ((mean.square() + log_std.exp() - 1 - log_std) / 2).sum(),
            "you read log_std as a log-variance. Here the variance is exp(2 log_std), and its logarithm 2 log_std.",
        ),
        Slip(
            "missing minus d",
            lambda mean, log_std: ((mean.square() + (2 * log_std).exp()) / 2 - log_std).sum(),
            "the -1 of each unit is missing. Check: for mean 0 and deviation 1 the divergence must be 0.",
        ),
        Slip(
            "missing half",
            lambda mean, log_std: (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).sum(),
            "the factor 1/2 is missing.",
        ),
        Slip(
            "missing log-determinant",
            lambda mean, log_std: (mean.square() + (2 * log_std).exp() - 1).sum() / 2,
            "the logarithm of the variance is missing. Without it nothing keeps the variance away from 0, "
            "and a divergence could be negative.",
        ),
        Slip(
            "sign of the log-determinant",
            lambda mean, log_std: ((mean.square() + (2 * log_std).exp() - 1) / 2 + log_std).sum(),
            "the sign of log std is wrong: a narrow q must cost more, not less.",
        ),
        Slip(
            "mean over units",
            lambda mean, log_std: ((mean.square() + (2 * log_std).exp() - 1) / 2 - log_std).mean(),
            "you averaged over the units. Independent units add their divergences.",
        ),
        Slip(
            "KL reversed",
            lambda mean, log_std: (((mean.square() + 1) * (-2 * log_std).exp() - 1) / 2 + log_std).sum(),
            "that is KL(prior || q). The ELBO needs KL(q || prior).",
        ),
    ),
)


# Drawing z so that gradients pass


def draw_latent(mean: Tensor, log_var: Tensor, eps: Tensor) -> Tensor:
    """z = mean + std eps."""
    return mean + (log_var / 2).exp() * eps


DRAW = Exercise(
    name="latent-draw",
    question="A draw z from q = N(mean, var) by way of standard normal eps, when the encoder answers mean and log_var.",
    answer=draw_latent,
    cases=tuple(
        (mean, logs, eps)
        for (mean, logs), eps in zip(
            UNITS, (table(1.0, -0.5, 2.0), table(0.3, 1.1), table(-1.0, 0.2, 0.7, 1.5)), strict=True
        )
    ),
    slips=(
        Slip(
            "variance for standard deviation",
            lambda mean, log_var, eps: mean + log_var.exp() * eps,
            "exp(log_var) is the variance. Noise is scaled by the standard deviation, exp(log_var / 2).",
        ),
        Slip(
            "logarithm as deviation",
            lambda mean, log_var, eps: mean + log_var * eps,
            "log_var is a logarithm, and may be negative. Exponentiate half of it.",
        ),
        Slip(
            "no noise",
            lambda mean, log_var, eps: mean,
            "that is the mean of q, not a draw: the decoder would be trained on latents that q hardly ever gives.",
        ),
        Slip(
            "unit noise",
            lambda mean, log_var, eps: mean + eps,
            "the noise must be scaled by the standard deviation of q.",
        ),
        Slip(
            "mean scaled too",
            lambda mean, log_var, eps: (log_var / 2).exp() * (mean + eps),
            "you scaled the mean as well. Only the noise is scaled: z = mean + std eps.",
        ),
    ),
)


# Two layers


def elbo_of_two_layers(p_2: Tensor, p_1: Tensor, likelihood: Tensor, q_1: Tensor, q_2: Tensor) -> Tensor:
    """ELBO of z_2 -> z_1 -> x under q(z_1) q(z_2 | z_1)."""
    path = q_1[:, None] * q_2  # (z_1, z_2)
    return (path * (likelihood.log()[:, None] + p_1.T.log() + p_2.log() - q_1.log()[:, None] - q_2.log())).sum()


def rows(*values: tuple[float, ...]) -> Tensor:
    """A table of conditional probabilities, one condition a row."""
    return torch.tensor(values, dtype=torch.float64)


# p(z_2), p(z_1 | z_2) a row for each z_2, p(x | z_1), q(z_1 | x), q(z_2 | z_1) a row for each z_1
LAYERS = (
    (table(0.3, 0.7), rows((0.9, 0.1), (0.2, 0.8)), table(0.6, 0.1), table(0.8, 0.2), rows((0.5, 0.5), (0.1, 0.9))),
    (table(0.5, 0.5), rows((0.6, 0.4), (0.3, 0.7)), table(0.05, 0.5), table(0.4, 0.6), rows((0.7, 0.3), (0.2, 0.8))),
)

TWO_LAYERS = Exercise(
    name="latent-two-layers",
    question="The ELBO of a chain z_2 -> z_1 -> x of tables, under q(z_1 | x) q(z_2 | z_1).",
    answer=elbo_of_two_layers,
    cases=LAYERS,
    slips=(
        Slip(
            "encoder of the second layer forgotten",
            lambda p_2, p_1, likelihood, q_1, q_2: (
                q_1[:, None] * q_2 * (likelihood.log()[:, None] + p_1.T.log() + p_2.log() - q_1.log()[:, None])
            ).sum(),
            "log q(z_2 | z_1) is missing below the fraction: every factor of q must be divided by.",
        ),
        Slip(
            "both layers straight from x",
            lambda p_2, p_1, likelihood, q_1, q_2: elbo_of_two_layers(
                p_2, p_1, likelihood, q_1, (q_1 @ q_2).expand_as(q_2)
            ),
            "you drew z_2 from its marginal q(z_2 | x), independently of z_1. The encoder is a chain: z_2 depends on the "
            "z_1 that was drawn.",
        ),
        Slip(
            "table transposed",
            lambda p_2, p_1, likelihood, q_1, q_2: (
                q_1[:, None]
                * q_2
                * (likelihood.log()[:, None] + p_1.log() + p_2.log() - q_1.log()[:, None] - q_2.log())
            ).sum(),
            "the table p(z_1 | z_2) has a row for each z_2, while your sum has a row for each z_1: transpose it.",
        ),
        Slip(
            "middle term forgotten",
            lambda p_2, p_1, likelihood, q_1, q_2: (
                (q_1 * likelihood.log()).sum() - (q_1[:, None] * q_2 * (q_2.log() - p_2.log())).sum()
            ),
            "you have reconstruction and the prior's term; what the middle layer costs, q(z_1 | x) against p(z_1 | z_2), "
            "is missing.",
        ),
        Slip(
            "logarithm outside",
            lambda p_2, p_1, likelihood, q_1, q_2: (p_2 @ p_1 @ likelihood).log(),
            "that is log p(x): you summed over the latents before you took the logarithm.",
        ),
    ),
)


# Bits a dimension


def bits(log_density: float, dims: int) -> float:
    """Bits a dimension of the stored integers from the log-density of pixels in [-1, 1]."""
    return -log_density / dims / log(2) - log2(2 / 255)


BITS = Exercise(
    name="latent-bits",
    question="Bits a dimension of 8-bit integers from the log-density in nats of an image scaled to [-1, 1].",
    answer=bits,
    cases=((2500.0, 784), (-1000.0, 784), (4000.0, 3072)),
    slips=(
        Slip(
            "density for probability",
            lambda log_density, dims: -log_density / dims / log(2),
            "a density is no probability, and may exceed 1. Multiply by the width of a grey value, 2/255, once for each "
            "dimension.",
        ),
        Slip(
            "bins of the range [0, 1]",
            lambda log_density, dims: -log_density / dims / log(2) + log2(255),
            "1/255 is the distance of two grey values in [0, 1]. Here the range [-1, 1] is twice as wide.",
        ),
        Slip(
            "nats",
            lambda log_density, dims: -log_density / dims - log(2 / 255),
            "these are nats. Divide by log 2.",
        ),
        Slip(
            "sign",
            lambda log_density, dims: log_density / dims / log(2) - log2(2 / 255),
            "a code length is minus the log-probability.",
        ),
        Slip(
            "width taken once",
            lambda log_density, dims: (-log_density / log(2) - log2(2 / 255)) / dims,
            "the width of a bin counts once in every dimension, not once for the image.",
        ),
    ),
)


# Collapse


def rate_of_unit(variance: float, noise: float) -> float:
    """Average KL of a unit of the best linear decoder, for data variance in its direction, and the decoder's deviation."""
    return max(0.0, log(variance / noise**2) / 2)


COLLAPSE = Exercise(
    name="latent-collapse",
    question="Nats carried by a unit of the best linear-Gaussian model, from data variance and decoder deviation.",
    answer=rate_of_unit,
    cases=((4.0, 1.0), (0.5, 1.0), (0.3, 0.2), (3.0, 2.0)),
    slips=(
        Slip(
            "deviation for variance",
            lambda variance, noise: max(0.0, log(variance / noise) / 2),
            "you compare a variance with a standard deviation: square the noise.",
        ),
        Slip(
            "missing half",
            lambda variance, noise: max(0.0, log(variance / noise**2)),
            "the factor 1/2 is missing: it is the logarithm of a ratio of deviations.",
        ),
        Slip(
            "no collapse",
            lambda variance, noise: log(variance / noise**2) / 2,
            "below the noise your value is negative. There the best weight is 0 and the unit carries nothing.",
        ),
        Slip(
            "noise counted as signal",
            lambda variance, noise: log(1 + variance / noise**2) / 2,
            "the variance of the data is weight^2 + noise^2: the noise is already in it. "
            "Yours would be right if `variance` were weight^2.",
        ),
    ),
)


# The importance-weighted bound


def weighted_bound(log_weights: Tensor) -> Tensor:
    """log of the average weight of K draws, averaged over repetitions."""
    return (log_weights.logsumexp(1) - log(log_weights.shape[1])).mean()


WEIGHTS = torch.tensor(
    [[-3.0, -1.0, -2.5, -0.2], [-2.0, -2.2, -4.0, -1.1], [-0.5, -6.0, -1.5, -2.0]], dtype=torch.float64
)

WEIGHTED = Exercise(
    name="latent-weighted",
    question="The importance-weighted bound from log-weights (repetitions, K), averaged over the repetitions.",
    answer=weighted_bound,
    cases=((WEIGHTS,), (WEIGHTS[:, :2],), (WEIGHTS[:2] - 900,)),
    slips=(
        Slip(
            "average of logarithms",
            lambda log_weights: log_weights.mean(),
            "that is the ELBO, whatever K: an average of logarithms. Take the logarithm of an average over the K draws.",
        ),
        Slip(
            "sum for mean",
            lambda log_weights: log_weights.logsumexp(1).mean(),
            "you took the logarithm of a sum. Subtract log K, or more draws will seem to make the data more probable.",
        ),
        Slip(
            "best draw",
            lambda log_weights: log_weights.amax(1).mean(),
            "you took the best of the K weights. It is no estimate of p(x): average the weights.",
        ),
        Slip(
            "all in one average",
            lambda log_weights: log_weights.logsumexp((0, 1)) - log(log_weights.numel()),
            "you averaged over repetitions inside the logarithm: that is the bound for repetitions times K draws.",
        ),
        Slip(
            "underflow",
            lambda log_weights: log_weights.exp().mean(1).log().mean(),
            "the formula is right, but exp(-900) is 0 in float64, and log 0 is not a number you want. Use logsumexp.",
        ),
    ),
)


EXERCISES = (GAP, TWO_TERMS, GAUSSIAN_KL, DRAW, TWO_LAYERS, BITS, COLLAPSE, WEIGHTED)
