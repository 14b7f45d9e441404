"""Exercises of the chapter `book/forward.md`."""

from __future__ import annotations

from math import log, sqrt

import torch
from torch import Tensor

from diffusion_edu.exercises import Exercise, Slip
from diffusion_edu.schedules import linear_betas

# merge


def merged_std(a: float, b: float) -> float:
    """Standard deviation of a eps_1 + b eps_2 for independent standard normal eps_1, eps_2."""
    return sqrt(a**2 + b**2)


MERGE = Exercise(
    name="forward-merge",
    question="merge(a, b): the standard deviation of a eps_1 + b eps_2, two independent standard normal noises.",
    answer=merged_std,
    cases=((0.6, 0.35), (1.0, 2.0), (0.0, 0.3)),
    slips=(
        Slip(
            "deviations added",
            lambda a, b: a + b,
            "you added the deviations. Independent noises partly cancel: their variances add, a² + b².",
        ),
        Slip(
            "variance for deviation",
            lambda a, b: a**2 + b**2,
            "that is the variance. The question is the standard deviation, its square root.",
        ),
        Slip(
            "root of the sum of deviations",
            lambda a, b: sqrt(a + b),
            "you took a and b for variances. They multiply the noise, so they are deviations: square them first.",
        ),
        Slip(
            "averaged",
            lambda a, b: sqrt((a**2 + b**2) / 2),
            "you averaged the two variances. Nothing is divided by two: the variances add.",
        ),
        Slip(
            "the same noise subtracted",
            lambda a, b: abs(a - b),
            "that is what one and the same noise with opposite signs would give. Here the two are independent.",
        ),
    ),
)


# closed form


def closed_form(x0: Tensor, eps: Tensor, betas: Tensor, k: int) -> Tensor:
    """x_k = sqrt(alpha_bar_k) x_0 + sqrt(1 - alpha_bar_k) eps; k from 1 to T, betas[0] is beta_1."""
    alpha_bar = (1 - betas[:k]).prod()
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps


def _mix(signal: Tensor, noise: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
    return signal * x0 + noise * eps


def _closed_form_cases() -> tuple:
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    betas = linear_betas(20, 0.01, 0.2)
    return tuple((x0, eps, betas, k) for k in (1, 7, 19))


CLOSED_FORM = Exercise(
    name="forward-closed-form",
    question="noise(x0, eps, betas, k): x_k in one jump; betas[0] is beta_1, k runs from 1.",
    answer=closed_form,
    cases=_closed_form_cases(),
    slips=(
        Slip(
            "alpha for alpha_bar",
            lambda x0, eps, b, k: _mix((1 - b[k - 1]).sqrt(), b[k - 1].sqrt(), x0, eps),
            "you used the last step's 1 - beta_k alone. A jump from x_0 needs the product over all steps up to k.",
        ),
        Slip(
            "one step too many",
            lambda x0, eps, b, k: closed_form(x0, eps, b, k + 1),
            "you took one step too many: beta_1 is betas[0], so k steps are betas[:k].",
        ),
        Slip(
            "one step too few",
            lambda x0, eps, b, k: closed_form(x0, eps, b, k - 1),
            "you took one step too few: the product runs up to and including beta_k, betas[:k].",
        ),
        Slip(
            "variance for deviation",
            lambda x0, eps, b, k: _mix((1 - b[:k]).prod().sqrt(), 1 - (1 - b[:k]).prod(), x0, eps),
            "1 - alpha_bar is the variance of the noise. What multiplies eps is its square root.",
        ),
        Slip(
            "no square root on the signal",
            lambda x0, eps, b, k: _mix((1 - b[:k]).prod(), (1 - (1 - b[:k]).prod()).sqrt(), x0, eps),
            "the signal is multiplied by sqrt(alpha_bar): every step multiplied it by sqrt(1 - beta).",
        ),
        Slip(
            "square roots nowhere",
            lambda x0, eps, b, k: _mix((1 - b[:k]).prod(), 1 - (1 - b[:k]).prod(), x0, eps),
            "both square roots are missing: signal and noise mix by sqrt(alpha_bar) and sqrt(1 - alpha_bar).",
        ),
        Slip(
            "signal kept whole",
            lambda x0, eps, b, k: _mix(torch.ones(()), (1 - (1 - b[:k]).prod()).sqrt(), x0, eps),
            "you left the signal as it was. Each step also shrinks it, by sqrt(1 - beta); else the variance grows.",
        ),
        Slip(
            "betas summed",
            lambda x0, eps, b, k: _mix((1 - b[:k].sum()).sqrt(), b[:k].sum().sqrt(), x0, eps),
            "you summed the betas. Old noise shrinks with the signal, so the kept shares multiply: use a product.",
        ),
    ),
)


# transition


def jump(alpha_s: float, sigma_s: float, alpha_t: float, sigma_t: float) -> tuple[float, float]:
    """alpha_{t|s} and sigma^2_{t|s} of q(x_t | x_s)."""
    ratio = alpha_t / alpha_s
    return ratio, sigma_t**2 - ratio**2 * sigma_s**2


TRANSITION = Exercise(
    name="forward-transition",
    question="jump(alpha_s, sigma_s, alpha_t, sigma_t): the pair (alpha_{t|s}, sigma^2_{t|s}) of q(x_t | x_s).",
    answer=jump,
    # variance preserving, straight (flow), and variance exploding: a formula for one of them must fail
    cases=((0.96, 0.28, 0.6, 0.8), (0.75, 0.25, 0.4, 0.6), (1.0, 0.5, 1.0, 3.0)),
    slips=(
        Slip(
            "variances subtracted",
            lambda a_s, s_s, a_t, s_t: (a_t / a_s, s_t**2 - s_s**2),
            "the noise in x_s shrinks on the way to t: subtract alpha_{t|s}² sigma_s², not sigma_s².",
        ),
        Slip(
            "ratio not squared",
            lambda a_s, s_s, a_t, s_t: (a_t / a_s, s_t**2 - a_t / a_s * s_s**2),
            "a factor on a noise enters its variance squared: alpha_{t|s}² sigma_s².",
        ),
        Slip(
            "only for variance preserving schedules",
            lambda a_s, s_s, a_t, s_t: (a_t / a_s, 1 - (a_t / a_s) ** 2),
            "1 - alpha_{t|s}² is right only where alpha² + sigma² = 1. Some of these cases are no such schedule.",
        ),
        Slip(
            "ratio upside down",
            lambda a_s, s_s, a_t, s_t: (a_s / a_t, s_t**2 - (a_s / a_t) ** 2 * s_s**2),
            "your ratio is upside down: from s to the later t the signal shrinks, by alpha_t / alpha_s.",
        ),
        Slip(
            "product for ratio",
            lambda a_s, s_s, a_t, s_t: (a_t * a_s, s_t**2 - (a_t * a_s) ** 2 * s_s**2),
            "you multiplied. x_s already carries alpha_s; what is missing is the factor alpha_t / alpha_s.",
        ),
        Slip(
            "deviation for variance",
            lambda a_s, s_s, a_t, s_t: (a_t / a_s, sqrt(jump(a_s, s_s, a_t, s_t)[1])),
            "the second number should be the variance; you gave its square root.",
        ),
    ),
)


# the table of alpha_bar


def alpha_bar_table(betas: Tensor) -> Tensor:
    """alpha_bar_0 = 1, alpha_bar_1, ..., alpha_bar_T, shape (T + 1,), from betas of shape (T,)."""
    return torch.cat([betas.new_ones(1), torch.cumprod(1 - betas, 0)])


def _first_factor_twice(betas: Tensor) -> Tensor:
    table = torch.cumprod(1 - torch.cat([betas[:1], betas]), 0)
    table[0] = 1
    return table


ALPHA_BAR = Exercise(
    name="forward-alpha-bar",
    question="table(betas): alpha_bar_0 = 1, alpha_bar_1, ..., alpha_bar_T, one entry more than there are betas.",
    answer=alpha_bar_table,
    cases=((linear_betas(500, 1e-2, 0.02),), (linear_betas(5, 0.1, 0.5),)),
    slips=(
        Slip(
            "first factor twice",
            _first_factor_twice,
            "alpha_bar_1 has one factor too many. Setting entry 0 to 1 after the product does not take it out again.",
        ),
        Slip(
            "first beta lost",
            lambda b: torch.cat([b.new_ones(1), torch.cumprod(1 - torch.cat([b.new_zeros(1), b[1:]]), 0)]),
            "beta_1 is missing: your alpha_bar_1 is still 1.",
        ),
        Slip(
            "no entry for k = 0",
            lambda b: torch.cumprod(1 - b, 0),
            "there is no entry for k = 0. Put alpha_bar_0 = 1 in front, so that table[k] is alpha_bar_k.",
        ),
        Slip(
            "a zero in front",
            lambda b: torch.cat([b.new_zeros(1), torch.cumprod(1 - b, 0)]),
            "alpha_bar_0 is 1, not 0: before the first step the picture is whole.",
        ),
        Slip(
            "betas summed",
            lambda b: torch.cat([b.new_ones(1), 1 - torch.cumsum(b, 0)]),
            "you subtracted the sum of the betas, which soon falls below 0. The kept shares 1 - beta multiply.",
        ),
        Slip(
            "product of the betas",
            lambda b: torch.cat([b.new_ones(1), torch.cumprod(b, 0)]),
            "you multiplied the betas. What is kept at each step is 1 - beta.",
        ),
        Slip(
            "alpha for alpha_bar",
            lambda b: torch.cat([b.new_ones(1), torch.cumprod(1 - b, 0).sqrt()]),
            "that is alpha = sqrt(alpha_bar), the coefficient of x_0. The table should hold its square.",
        ),
        Slip(
            "continuous time",
            lambda b: torch.cat([b.new_ones(1), (-torch.cumsum(b, 0)).exp()]),
            "exp(-sum of betas) is the limit of many small steps. For this chain the product is exact.",
        ),
    ),
)


# log-SNR


def log_snr(alpha: float, sigma: float) -> float:
    """Log signal-to-noise ratio log(alpha^2 / sigma^2)."""
    return 2 * log(alpha / sigma)


LOG_SNR = Exercise(
    name="forward-log-snr",
    question="log_snr(alpha, sigma): the log signal-to-noise ratio of alpha x_0 + sigma eps, for any schedule.",
    answer=log_snr,
    cases=((0.8, 0.6), (0.7, 0.3), (0.9, 2.0)),
    slips=(
        Slip(
            "amplitudes for powers",
            lambda a, s: log(a / s),
            "the ratio is one of powers: square alpha and sigma, which puts a factor 2 before the logarithm.",
        ),
        Slip(
            "upside down",
            lambda a, s: 2 * log(s / a),
            "that is noise over signal (VDM's gamma). The log-SNR has the opposite sign and falls with time.",
        ),
        Slip(
            "no logarithm",
            lambda a, s: (a / s) ** 2,
            "that is the signal-to-noise ratio itself. Take its logarithm.",
        ),
        Slip(
            "decibels",
            lambda a, s: 20 * log(a / s) / log(10),
            "that is the ratio in decibels. Here the natural logarithm is meant, with no factor 10.",
        ),
        Slip(
            "sigma from alpha",
            lambda a, s: log(a**2 / (1 - a**2)),
            "you computed sigma² as 1 - alpha², which holds for variance preserving schedules only. Use sigma.",
        ),
        Slip(
            "alpha taken for alpha_bar",
            lambda a, s: log(a / s**2),
            "the numerator should be alpha². DDPM's alpha_bar is already that square; our alpha is not.",
        ),
    ),
)


# prior KL


def prior_kl(x0: Tensor, alpha_bar: float) -> Tensor:
    """KL from q(x_T | x_0) to N(0, I) in nats per example, (N,), for x0 (N, ...)."""
    per_pixel = alpha_bar * x0.flatten(1) ** 2 - alpha_bar - log(1 - alpha_bar)
    return per_pixel.sum(1) / 2


def _per_pixel(function):
    return lambda x0, ab: function(x0.flatten(1), ab)


def _prior_kl_cases() -> tuple:
    x0 = torch.rand(3, 3, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    return ((x0, 0.048), (x0, 0.5), (x0, 0.2))


PRIOR_KL = Exercise(
    name="forward-prior-kl",
    question="prior_kl(x0, alpha_bar): KL(q(x_T | x_0) || N(0, I)) in nats for each image, shape (N,).",
    answer=prior_kl,
    cases=_prior_kl_cases(),
    slips=(
        Slip(
            "the other direction",
            _per_pixel(lambda x, ab: ((1 + ab * x**2) / (1 - ab) - 1 + log(1 - ab)).sum(1) / 2),
            "you computed KL(N || q). The expectation is over q, where the noised images are.",
        ),
        Slip(
            "per pixel",
            lambda x0, ab: prior_kl(x0, ab) / x0[0].numel(),
            "you averaged over the pixels. Independent pixels' divergences add: sum them.",
        ),
        Slip(
            "mean only",
            _per_pixel(lambda x, ab: ab * (x**2).sum(1) / 2),
            "the mean's part is right, but q's variance 1 - alpha_bar differs from 1 too, and that costs.",
        ),
        Slip(
            "factor one half",
            lambda x0, ab: 2 * prior_kl(x0, ab),
            "everything is twice too large: the Gaussian has a factor 1/2 in its exponent.",
        ),
        Slip(
            "bits",
            lambda x0, ab: prior_kl(x0, ab) / log(2),
            "that is in bits. Nats use the natural logarithm.",
        ),
        Slip(
            "alpha for alpha_bar",
            lambda x0, ab: prior_kl(x0, sqrt(ab)),
            "you put sqrt(alpha_bar) where alpha_bar belongs: mean squared and variance both hold alpha_bar itself.",
        ),
        Slip(
            "sign of the logarithm",
            _per_pixel(lambda x, ab: (ab * x**2 - ab + log(1 - ab)).sum(1) / 2),
            "the logarithm has the wrong sign: as you have it, the divergence is negative.",
        ),
    ),
)


EXERCISES: tuple[Exercise, ...] = (MERGE, CLOSED_FORM, TRANSITION, ALPHA_BAR, LOG_SNR, PRIOR_KL)
