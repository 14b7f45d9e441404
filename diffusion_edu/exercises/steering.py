"""Exercises of the chapter `book/steering.md`."""

from __future__ import annotations

from math import exp, sqrt

import torch
from torch import Tensor

from diffusion_edu.exercises import Exercise, Slip

# (alpha, sigma) at a noisier time t and a less noisy s
LEVELS = ((0.5, sqrt(0.75), 0.7, sqrt(0.51)), (0.2, sqrt(0.96), 0.6, 0.8), (0.9, sqrt(0.19), 0.97, sqrt(1 - 0.97**2)))


# The gradient goes through the network


def steered_score(alpha: float, sigma: float, c: float, s: float, y: float, x_t: float) -> float:
    """score - d loss(x0_hat(x_t)) / d x_t for data N(0, c^2) and loss (x_0 - y)^2 / (2 s^2)."""
    total = alpha**2 * c**2 + sigma**2
    jacobian = alpha * c**2 / total
    return -x_t / total - jacobian * (jacobian * x_t - y) / s**2


def _score_parts(alpha: float, sigma: float, c: float, x_t: float) -> tuple[float, float, float]:
    """Score, Jacobian and guess."""
    total = alpha**2 * c**2 + sigma**2
    jacobian = alpha * c**2 / total
    return -x_t / total, jacobian, jacobian * x_t


def _score_slip(change):
    def answer(alpha: float, sigma: float, c: float, s: float, y: float, x_t: float) -> float:
        score, jacobian, guess = _score_parts(alpha, sigma, c, x_t)
        return change(score, jacobian, (guess - y) / s**2, alpha, sigma, s)

    return answer


SCORE = Exercise(
    name="steering-score",
    question="The steered score for data N(0, c^2), loss (x_0 - y)^2 / (2 s^2) and scale 1.",
    answer=steered_score,
    cases=((0.8, 0.6, 0.7, 0.5, 1.0, 0.4), (0.3, sqrt(0.91), 1.5, 0.8, -0.6, 1.1), (0.95, 0.31, 0.5, 0.3, 0.2, -0.7)),
    slips=(
        Slip(
            "gradient in x0_hat",
            _score_slip(lambda score, jacobian, g, alpha, sigma, s: score - g),
            "that is the gradient with respect to x0_hat. The sampler moves x_t: the chain rule adds the Jacobian "
            "d x0_hat / d x_t, the backward pass through the network.",
        ),
        Slip(
            "sign",
            _score_slip(lambda score, jacobian, g, alpha, sigma, s: score + jacobian * g),
            "you climb the loss. The score of exp(-loss) is minus the loss's gradient.",
        ),
        Slip(
            "Jacobian 1 / alpha",
            _score_slip(lambda score, jacobian, g, alpha, sigma, s: score - g / alpha),
            "1 / alpha is the slope of x0_hat = (x_t - sigma eps) / alpha with eps held fixed. But the guessed noise "
            "depends on x_t as well.",
        ),
        Slip(
            "eps convention",
            _score_slip(lambda score, jacobian, g, alpha, sigma, s: score - sigma * jacobian * g),
            "the factor sigma belongs to the noise estimate, eps + sigma gradient. The score has the gradient alone.",
        ),
        Slip(
            "error for its square",
            _score_slip(lambda score, jacobian, g, alpha, sigma, s: score - jacobian * g * s),
            "you divide by s. A Gaussian's exponent has the variance below it.",
        ),
        Slip(
            "no guidance",
            _score_slip(lambda score, jacobian, g, alpha, sigma, s: score),
            "that is the score without any wish.",
        ),
    ),
)


# The right gain


def spread(alpha: float, sigma: float, c: float) -> float:
    """Variance of x_0 given x_t for data N(0, c^2)."""
    return c**2 * sigma**2 / (alpha**2 * c**2 + sigma**2)


GAIN = Exercise(
    name="steering-gain",
    question="Factor K of the exact correction x0_hat + K (y - x0_hat), for data N(0, c^2) measured with error s.",
    answer=lambda alpha, sigma, c, s: spread(alpha, sigma, c) / (spread(alpha, sigma, c) + s**2),
    cases=((0.8, 0.6, 0.7, 0.5), (0.3, sqrt(0.91), 1.5, 0.4), (0.95, 0.31, 0.5, 0.3)),
    slips=(
        Slip(
            "the shortcut",
            lambda alpha, sigma, c, s: spread(alpha, sigma, c) / s**2,
            "that is the shortcut's gain, as if the guess were certain. Where it exceeds 1 the guess overshoots the "
            "measurement. The tolerance is C + s^2.",
        ),
        Slip(
            "prior's gain",
            lambda alpha, sigma, c, s: c**2 / (c**2 + s**2),
            "that is the gain before x_t has been seen. The variance that counts is that of x_0 given x_t.",
        ),
        Slip(
            "weights exchanged",
            lambda alpha, sigma, c, s: s**2 / (spread(alpha, sigma, c) + s**2),
            "that is the weight of the guess. A precise measurement, s to 0, must get the weight 1.",
        ),
        Slip(
            "data of unit scale",
            lambda alpha, sigma, c, s: spread(alpha, sigma, 1.0) / (spread(alpha, sigma, 1.0) + s**2),
            "that is right for data of deviation 1, the isotropic rule. Here they have c.",
        ),
        Slip(
            "deviations for variances",
            lambda alpha, sigma, c, s: sqrt(spread(alpha, sigma, c)) / (sqrt(spread(alpha, sigma, c)) + s),
            "variances add, deviations do not.",
        ),
    ),
)


# One step of inpainting


def _merge_arguments() -> tuple[tuple, ...]:
    g = torch.Generator().manual_seed(0)
    x_s, x0, z = torch.randn(3, 6, generator=g, dtype=torch.float64)
    mask = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    return tuple((x_s, x0, mask, z, *level) for level in LEVELS[:2]) + ((x_s, x0, mask, z, *LEVELS[2][:2], 1.0, 0.0),)


MERGE = Exercise(
    name="steering-merge",
    question="Write the known pixels (m = 1) into the state x_s, noised to its level; the last case is s = 0.",
    answer=lambda x_s, x0, m, z, a_t, s_t, a_s, s_s: m * (a_s * x0 + s_s * z) + (1 - m) * x_s,
    cases=_merge_arguments(),
    slips=(
        Slip(
            "old level",
            lambda x_s, x0, m, z, a_t, s_t, a_s, s_s: m * (a_t * x0 + s_t * z) + (1 - m) * x_s,
            "you noise the known pixels to the time t that the step has left. The state is at s now, and at s = 0 the "
            "known part must be clean.",
        ),
        Slip(
            "not noised",
            lambda x_s, x0, m, z, a_t, s_t, a_s, s_s: m * x0 + (1 - m) * x_s,
            "you write clean pixels into a noisy state. The network has never seen such a mixture.",
        ),
        Slip(
            "mask exchanged",
            lambda x_s, x0, m, z, a_t, s_t, a_s, s_s: (1 - m) * (a_s * x0 + s_s * z) + m * x_s,
            "the mask is exchanged: you keep what should be filled, and fill what is known.",
        ),
        Slip(
            "variance for deviation",
            lambda x_s, x0, m, z, a_t, s_t, a_s, s_s: m * (a_s * x0 + s_s**2 * z) + (1 - m) * x_s,
            "you scale z by the variance. N(mean, sigma^2) is drawn as mean + sigma z. The line is printed so in one paper.",
        ),
        Slip(
            "signal not scaled",
            lambda x_s, x0, m, z, a_t, s_t, a_s, s_s: m * (x0 + s_s * z) + (1 - m) * x_s,
            "the known pixels must fade as the image does: alpha_s x_0.",
        ),
        Slip(
            "sum of both",
            lambda x_s, x0, m, z, a_t, s_t, a_s, s_s: m * (a_s * x0 + s_s * z) + x_s,
            "the old values of the known pixels are still in: multiply x_s by 1 - m.",
        ),
    ),
)


# Resampling


def renoised(x_s: float, z: float, a_t: float, s_t: float, a_s: float, s_s: float) -> float:
    """From time s back up to time t."""
    ratio = a_t / a_s
    return ratio * x_s + sqrt(s_t**2 - ratio**2 * s_s**2) * z


RENOISE = Exercise(
    name="steering-renoise",
    question="Noise x_s back up from time s to the noisier time t.",
    answer=renoised,
    cases=((0.6, -0.9, *LEVELS[0]), (-1.2, 0.4, *LEVELS[1]), (0.3, 1.3, 0.5, 2.0, 0.9, 0.7)),
    slips=(
        Slip(
            "as if x_s were clean",
            lambda x_s, z, a_t, s_t, a_s, s_s: a_t * x_s + s_t * z,
            "that is the noising of a clean image. x_s is noisy already: only the part from s to t is missing, "
            "alpha_t / alpha_s and what is left of the variance.",
        ),
        Slip(
            "no fresh noise",
            lambda x_s, z, a_t, s_t, a_s, s_s: a_t / a_s * x_s,
            "resampling without fresh noise repeats the same step. And the state has less noise than the time says.",
        ),
        Slip(
            "no re-noising",
            lambda x_s, z, a_t, s_t, a_s, s_s: x_s,
            "you step again from x_s without going back to t: the network is told a noise level that is not there.",
        ),
        Slip(
            "difference of variances",
            lambda x_s, z, a_t, s_t, a_s, s_s: a_t / a_s * x_s + sqrt(s_t**2 - s_s**2) * z,
            "the noise in x_s shrinks with the signal: subtract (alpha_t / alpha_s)^2 sigma_s^2.",
        ),
        Slip(
            "variance for deviation",
            lambda x_s, z, a_t, s_t, a_s, s_s: a_t / a_s * x_s + (s_t**2 - (a_t / a_s) ** 2 * s_s**2) * z,
            "the fresh noise is scaled by a variance: take the root.",
        ),
    ),
)


# How sure the shortcut is

VARIANCE = Exercise(
    name="steering-variance",
    question="Variance of the shortcut's samples, data N(0, 1), measurement error s, scale w, reverse SDE, small steps.",
    answer=lambda s, w: s**2 / (2 * w) * (1 - exp(-2 * w / s**2)),
    cases=((0.5, 1.0), (1.0, 0.5), (0.8, 2.0)),
    slips=(
        Slip(
            "the truth",
            lambda s, w: s**2 / (1 + s**2),
            "that is the variance of the true posterior. The shortcut misses it: it ignores how uncertain the guess is.",
        ),
        Slip(
            "the ODE's",
            lambda s, w: exp(-w / s**2),
            "that is what the probability-flow ODE gives. The field is no exact score, so the two samplers differ.",
        ),
        Slip(
            "scale forgotten",
            lambda s, w: s**2 / 2 * (1 - exp(-2 / s**2)),
            "that is the case w = 1. A scale w makes the measurement look more precise, s^2 / w for s^2.",
        ),
        Slip(
            "scale upside down",
            lambda s, w: s**2 * w / 2 * (1 - exp(-2 / (s**2 * w))),
            "a larger scale must make the samples narrower: s^2 / w, not s^2 w.",
        ),
        Slip(
            "noise ignored",
            lambda s, w: s**2 / w * (1 - exp(-2 * w / s**2)),
            "a factor of 2 is missing: in the reverse SDE the pull towards y is twice that of the ODE.",
        ),
    ),
)


# The area under the curve


def _areas() -> tuple[tuple[Tensor, Tensor], ...]:
    g = torch.Generator().manual_seed(1)
    scores = torch.randn(12, generator=g, dtype=torch.float64)
    labels = torch.arange(12) % 3 == 0
    tied = torch.tensor([0.0, 0.0, 1.0, 0.0, 2.0, 0.0, 1.0], dtype=torch.float64)
    return (scores + labels, labels), (tied, torch.tensor([True, False, True, False, False, True, False]))


def area(d: Tensor, defect: Tensor) -> Tensor:
    """Chance that a defective pixel scores higher, ties counted half."""
    gap = d[defect][:, None] - d[~defect]
    return ((gap > 0).double() + (gap == 0).double() / 2).mean()


AUC = Exercise(
    name="steering-auc",
    question="AUC of scores d for the labels `defect`; the second case has ties.",
    answer=area,
    cases=_areas(),
    slips=(
        Slip(
            "ties lost",
            lambda d, defect: (d[defect][:, None] > d[~defect]).double().mean(),
            "ties count for nothing here. A map of zeros would get 0, worse than guessing: count a tie half.",
        ),
        Slip(
            "ties won",
            lambda d, defect: (d[defect][:, None] >= d[~defect]).double().mean(),
            "ties count as won here. A map of zeros would be perfect: count a tie half.",
        ),
        Slip(
            "labels exchanged",
            lambda d, defect: area(d, ~defect),
            "the labels are exchanged: you count how often a healthy pixel scores higher. A good map gets an AUC near 0 so.",
        ),
        Slip(
            "accuracy",
            lambda d, defect: ((d > d.mean()) == defect).double().mean(),
            "that is the accuracy at one threshold. The area looks at all of them, and does not mind that defects are rare.",
        ),
        Slip(
            "difference of means",
            lambda d, defect: d[defect].mean() - d[~defect].mean(),
            "that is a difference of means: it depends on the scores' scale, and the area does not.",
        ),
    ),
)


# There and back

RETURN = Exercise(
    name="steering-return",
    question="Where x0 comes back to when it is encoded along the ODE up to t and decoded unguided; data N(0, 1), VP.",
    answer=lambda x0, alpha, sigma, z: x0,
    cases=((0.7, 0.8, 0.6, -0.4), (-1.1, 0.3, sqrt(0.91), 0.8), (0.2, 0.6, 0.8, 1.5)),
    slips=(
        Slip(
            "random noising",
            lambda x0, alpha, sigma, z: alpha * x0 + sigma * z,
            "that is noised with z, and the return depends on z. Encoding draws nothing: it follows the ODE, and the ODE "
            "leads back where it came from.",
        ),
        Slip(
            "best guess",
            lambda x0, alpha, sigma, z: alpha * (alpha * x0 + sigma * z),
            "that is the denoiser's guess from a noised x0: neither a sample nor a return.",
        ),
        Slip(
            "signal only",
            lambda x0, alpha, sigma, z: alpha * x0,
            "the signal fades along the way up, but what the ODE takes away it gives back on the way down.",
        ),
        Slip(
            "a fresh sample",
            lambda x0, alpha, sigma, z: z,
            "that is a new draw from the data. The code of x0 remembers x0.",
        ),
    ),
)

EXERCISES: tuple[Exercise, ...] = (SCORE, GAIN, MERGE, RENOISE, VARIANCE, AUC, RETURN)
