"""Exercises of the chapter `book/score.md`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, log, sqrt

import torch
from torch import Tensor

from diffusion_edu.exercises import Exercise, Slip


def _numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The target of denoising score matching


def dsm_target(sigma: float, eps: Tensor) -> Tensor:
    """What the score network is asked for at x + sigma eps."""
    return -eps / sigma


DSM_TARGET = Exercise(
    name="score-dsm-target",
    question="The vector that a score network is asked for at x + sigma eps, from sigma and eps.",
    answer=dsm_target,
    cases=((0.3, _numbers(3, 2, seed=0)), (1.7, _numbers(3, 2, seed=1)), (0.05, _numbers(1, 4, seed=2))),
    slips=(
        Slip(
            "sign",
            lambda sigma, eps: eps / sigma,
            "the arrow must point back to the data, against the noise. With +eps / sigma the network learns minus the "
            "score, at the same loss, and the sampler flies off.",
        ),
        Slip(
            "sigma squared",
            lambda sigma, eps: -eps / sigma**2,
            "-(x~ - x) / sigma^2 is right, but x~ - x is sigma eps: one sigma cancels. Is your eps of unit variance?",
        ),
        Slip(
            "sign and square",
            lambda sigma, eps: eps / sigma**2,
            "two slips: the sign, and a sigma that cancels when the noise is written as sigma eps.",
        ),
        Slip(
            "noise itself",
            lambda sigma, eps: eps,
            "that is the target of a noise network. Its answer is turned into a score by -1 / sigma.",
        ),
        Slip(
            "multiplied",
            lambda sigma, eps: -sigma * eps,
            "you multiply by sigma. A narrow Gaussian is steep: its score grows when sigma shrinks.",
        ),
    ),
)


# The implicit objective of a linear model


def implicit_linear(a: float, b: float, mean: float, variance: float, d: int) -> float:
    """E[|s|^2 / 2 + div s] for s(x) = b - a x in each of d coordinates with the given mean and variance."""
    return d * ((b**2 - 2 * a * b * mean + a**2 * (variance + mean**2)) / 2 - a)


IMPLICIT_LINEAR = Exercise(
    name="score-implicit-linear",
    question=(
        "Implicit loss of s(x) = b - a x (each coordinate), for d independent "
        "coordinates of this mean and variance."
    ),
    answer=implicit_linear,
    cases=((0.7, 0.2, 0.5, 1.3, 2), (1.5, -0.4, -0.3, 0.6, 784), (0.1, 1.1, 2.0, 0.2, 3)),
    slips=(
        Slip(
            "missing half",
            lambda a, b, mean, variance, d: d * (b**2 - 2 * a * b * mean + a**2 * (variance + mean**2) - a),
            "the half in front of the squared length is missing. It comes with the "
            "cross term's 2 from opening the square.",
        ),
        Slip(
            "sign of the divergence",
            lambda a, b, mean, variance, d: d * ((b**2 - 2 * a * b * mean + a**2 * (variance + mean**2)) / 2 + a),
            "the derivative of b - a x is -a. A good model converges on the data: its divergence is negative.",
        ),
        Slip(
            "one coordinate of the divergence",
            lambda a, b, mean, variance, d: (
                d * (b**2 - 2 * a * b * mean + a**2 * (variance + mean**2)) / 2 - a
            ),
            "the divergence is the sum of d derivatives, one for each coordinate: d times -a.",
        ),
        Slip(
            "gradient for divergence",
            lambda a, b, mean, variance, d: d * ((b**2 - 2 * a * b * mean + a**2 * (variance + mean**2)) / 2 - a * d),
            "you add up all entries as if each output had slope -a in each input. "
            "Only the diagonal of the Jacobian counts.",
        ),
        Slip(
            "missing square",
            lambda a, b, mean, variance, d: d * ((b - a * mean) / 2 - a),
            "you average s, not its square: |s|^2 / 2.",
        ),
        Slip(
            "mean forgotten",
            lambda a, b, mean, variance, d: d * ((b**2 + a**2 * variance) / 2 - a),
            "E[x^2] is variance + mean^2, and E[x] is the mean: they are not 0 here.",
        ),
        Slip(
            "explicit loss",
            lambda a, b, mean, variance, d: (
                d * ((b - mean / variance) ** 2 - 2 * (b - mean / variance) * (a - 1 / variance) * mean
                + (a - 1 / variance) ** 2 * (variance + mean**2)) / 2
            ),
            "that is the explicit loss, which knows the data's true score. Asked is the implicit one: it is lower by a "
            "constant, and negative for good models.",
        ),
    ),
)  # fmt: skip


# One slice


def one_slice(A: Tensor, b: Tensor, x: Tensor, v: Tensor) -> Tensor:
    """Sliced loss at x, for s(x) = A x + b and one projection v."""
    s = A @ x + b
    return (v @ s) ** 2 / 2 + v @ A @ v


def _slice_case(seed: int, d: int, signs: bool) -> tuple[Tensor, ...]:
    v = _numbers(d, seed=seed + 3)
    return _numbers(d, d, seed=seed), _numbers(d, seed=seed + 1), _numbers(d, seed=seed + 2), v.sign() if signs else v


ONE_SLICE = Exercise(
    name="score-one-slice",
    question="Sliced score matching at x for the model s(x) = A x + b and one projection v with E v v^T = I.",
    answer=one_slice,
    cases=(_slice_case(10, 2, False), _slice_case(20, 5, True), _slice_case(30, 3, False)),
    slips=(
        Slip(
            "missing half",
            lambda A, b, x, v: (v @ (A @ x + b)) ** 2 + v @ A @ v,
            "the half in front of (v . s)^2 is missing.",
        ),
        Slip(
            "missing square",
            lambda A, b, x, v: v @ (A @ x + b) / 2 + v @ A @ v,
            "the projected score v . s must be squared.",
        ),
        Slip(
            "length not projected",
            lambda A, b, x, v: (A @ x + b).square().sum() / 2 + v @ A @ v,
            "a known variant (less noisy, in fact): it keeps |s|^2. Asked is the plain "
            "sliced loss, where both terms see only v.",
        ),
        Slip(
            "whole trace",
            lambda A, b, x, v: (v @ (A @ x + b)) ** 2 / 2 + A.trace(),
            "that is the exact divergence: d backward passes. The slice replaces it by v^T A v, one pass.",
        ),
        Slip(
            "unit vector",
            lambda A, b, x, v: ((v @ (A @ x + b)) ** 2 / 2 + v @ A @ v) / v.square().sum(),
            "with unit vectors E v v^T = I / d, and the estimate comes out d times too small.",
        ),
        Slip(
            "sign",
            lambda A, b, x, v: (v @ (A @ x + b)) ** 2 / 2 - v @ A @ v,
            "the divergence enters with a plus; the minus from the integration by parts meets that of the cross term.",
        ),
        Slip(
            "sum of entries",
            lambda A, b, x, v: (v @ (A @ x + b)) ** 2 / 2 + A.sum(),
            "that is the sum of all entries of the Jacobian. The projection weighs them: v^T A v.",
        ),
    ),
)


# Integration by parts on an interval


def uniform_fit(low: float, high: float) -> tuple[float, float]:
    """Slope and intercept that the implicit loss gives to a linear model, for uniform data on [low, high]."""
    variance = (high - low) ** 2 / 12
    return -1 / variance, (low + high) / 2 / variance


UNIFORM_FIT = Exercise(
    name="score-uniform",
    question=(
        "(slope, intercept) that minimise the implicit loss of s(x) = slope x + "
        "intercept on uniform data in [low, high]."
    ),
    answer=uniform_fit,
    cases=((0.0, 1.0), (-1.0, 1.0), (2.0, 5.0)),
    slips=(
        Slip(
            "the truth",
            lambda low, high: (0.0, 0.0),
            "that is the true score, and the explicit loss would find it. The "
            "implicit loss misses the boundary term, and "
            "prefers another line.",
        ),
        Slip(
            "no intercept",
            lambda low, high: (-3 * (high - low) / (high**3 - low**3), 0.0),
            "you left the intercept out. Set both derivatives to zero.",
        ),
        Slip(
            "sign",
            lambda low, high: (12 / (high - low) ** 2, -6 * (low + high) / (high - low) ** 2),
            "the sign: the divergence is rewarded when it is negative, so the slope is negative.",
        ),
        Slip(
            "width squared for variance",
            lambda low, high: (-1 / (high - low) ** 2, (low + high) / 2 / (high - low) ** 2),
            "the variance of a uniform number is its width squared over 12.",
        ),
        Slip(
            "missing half",
            lambda low, high: (-6 / (high - low) ** 2, 3 * (low + high) / (high - low) ** 2),
            "you minimised |s|^2 + div s. The half makes the answer twice as steep.",
        ),
        Slip(
            "slope for the mean",
            lambda low, high: (-12 / (high - low) ** 2, (low + high) / 2),
            "the line crosses zero at the mean: the intercept is minus the slope times the mean.",
        ),
    ),
)


# Tweedie


def tweedie(alpha: float, sigma: float, x_t: float, score: float, slope: float) -> tuple[float, float]:
    """E[x_0 | x_t] and Var[x_0 | x_t] from the score at x_t and its derivative."""
    return (x_t + sigma**2 * score) / alpha, sigma**2 / alpha**2 * (1 + sigma**2 * slope)


TWEEDIE = Exercise(
    name="score-tweedie",
    question="(mean, variance) of x_0 given x_t, on the line, from alpha, sigma, x_t, the score and its slope.",
    answer=tweedie,
    cases=((0.8, 0.6, 0.5, -0.7, -0.9), (0.3, sqrt(0.91), -1.1, 0.8, -0.6), (1.0, 2.0, 1.5, -0.3, -0.2)),
    slips=(
        Slip(
            "sigma for sigma squared",
            lambda alpha, sigma, x_t, score, slope: (
                (x_t + sigma * score) / alpha, sigma**2 / alpha**2 * (1 + sigma * slope),
            ),
            "you use sigma where its square belongs. The score is a slope, one over a "
            "length; sigma^2 times it is a length.",
        ),
        Slip(
            "sign",
            lambda alpha, sigma, x_t, score, slope: (
                (x_t - sigma**2 * score) / alpha, sigma**2 / alpha**2 * (1 - sigma**2 * slope),
            ),
            "the signs: the score points towards the data, so the mean goes *along* it, and a summit (negative slope) "
            "means *less* doubt.",
        ),
        Slip(
            "sigma once in the mean",
            lambda alpha, sigma, x_t, score, slope: (
                (x_t + sigma * score) / alpha, sigma**2 / alpha**2 * (1 + sigma**2 * slope),
            ),
            "the variance is right. In the mean, too, the score comes with sigma squared.",
        ),
        Slip(
            "no alpha",
            lambda alpha, sigma, x_t, score, slope: (x_t + sigma**2 * score, sigma**2 * (1 + sigma**2 * slope)),
            "that is mean and variance of alpha x_0. Divide by alpha and by alpha squared.",
        ),
        Slip(
            "alpha once",
            lambda alpha, sigma, x_t, score, slope: (
                (x_t + sigma**2 * score) / alpha, sigma**2 / alpha * (1 + sigma**2 * slope),
            ),
            "the mean is right. A variance is divided by the square of alpha.",
        ),
        Slip(
            "noise of the score",
            lambda alpha, sigma, x_t, score, slope: (
                (x_t + sigma**2 * score) / alpha, sigma**2 / alpha**2,
            ),
            "the mean is right. sigma^2 / alpha^2 is the doubt without any knowledge of "
            "the data; the slope says what they add.",
        ),
        Slip(
            "standard deviation",
            lambda alpha, sigma, x_t, score, slope: (
                (x_t + sigma**2 * score) / alpha, sigma / alpha * sqrt(1 + sigma**2 * slope),
            ),
            "the mean is right. The second number is the standard deviation; asked is the variance.",
        ),
    ),
)  # fmt: skip


# Denoiser to score


def score_from_denoiser(sigma: float, u: float, D: float) -> float:
    """Score of x_0 + sigma eps at u, from the denoiser's answer D there."""
    return (D - u) / sigma**2


FROM_DENOISER = Exercise(
    name="score-from-denoiser",
    question="The score of x_0 + sigma eps at u (no alpha), from the denoiser's answer D.",
    answer=score_from_denoiser,
    cases=((0.5, 1.2, 0.7), (2.0, -3.0, -0.4), (0.1, 0.33, 0.31)),
    slips=(
        Slip(
            "sign",
            lambda sigma, u, D: (u - D) / sigma**2,
            "the score points from the noisy point to the clean guess: D - u.",
        ),
        Slip(
            "first power",
            lambda sigma, u, D: (D - u) / sigma,
            "that is minus the noise estimate. One more division by sigma makes it a score.",
        ),
        Slip(
            "inverted",
            lambda sigma, u, D: sigma**2 * (u - D),
            "you solved D = u - s / sigma^2, a form that one set of slides has. Tweedie: D = u + sigma^2 s.",
        ),
        Slip(
            "only the difference",
            lambda sigma, u, D: D - u,
            "D - u has the score's direction, not its length: divide by the variance.",
        ),
        Slip(
            "root of the level",
            lambda sigma, u, D: (D - u) / sqrt(sigma),
            "the variance of the noise is sigma squared, not the root of sigma.",
        ),
    ),
)


# Dropping the scale


def drop_alpha(alpha: float, d: int, log_density: float, score: float) -> tuple[float, float]:
    """log q_t(x) and one coordinate of its score, from those of x_0 + (sigma / alpha) eps at x / alpha."""
    return log_density - d * log(alpha), score / alpha


DROP_ALPHA = Exercise(
    name="score-drop-alpha",
    question=(
        "(log density, score coordinate) of x_t in d dimensions, from those of x_t / alpha at the stretched point."
    ),
    answer=drop_alpha,
    cases=((0.5, 2, -1.3, 0.8), (0.1, 20, -30.0, -0.4), (0.9, 3, 0.7, 1.5)),
    slips=(
        Slip(
            "one dimension",
            lambda alpha, d, log_density, score: (log_density - log(alpha), score / alpha),
            "every coordinate is stretched: the volume changes by alpha to the power d.",
        ),
        Slip(
            "wrong direction",
            lambda alpha, d, log_density, score: (log_density + d * log(alpha), score * alpha),
            "x_t is x_t / alpha, *shrunk* by alpha: the density rises, by alpha^-d, and the slopes get steeper.",
        ),
        Slip(
            "score untouched",
            lambda alpha, d, log_density, score: (log_density - d * log(alpha), score),
            "the density is right. The score is a derivative in x, and the chain rule leaves 1 / alpha.",
        ),
        Slip(
            "score with alpha to the d",
            lambda alpha, d, log_density, score: (log_density - d * log(alpha), score * alpha**-d),
            "the constant alpha^-d vanishes in the gradient of a logarithm. Only "
            "the inner derivative 1 / alpha remains.",
        ),
        Slip(
            "no Jacobian",
            lambda alpha, d, log_density, score: (log_density, score / alpha),
            "the score is right. A density also changes with the volume.",
        ),
    ),
)


# The floor of the random-time loss


def time_floor(t_min: float, t_max: float) -> float:
    """Integral over [t_min, t_max] of the least score loss, for N(0, 1) data under the Ornstein-Uhlenbeck process."""
    return log((1 - exp(-2 * t_max)) / (1 - exp(-2 * t_min))) / 2


TIME_FLOOR = Exercise(
    name="score-time-floor",
    question=(
        "Integral from t_min to t_max of E(score + eps / sigma)^2 at the best "
        "score: N(0, 1) data, sigma^2 = 1 - e^(-2 t)."
    ),
    answer=time_floor,
    cases=((1e-2, 10.0), (1e-4, 10.0), (0.5, 1.0)),
    slips=(
        Slip(
            "zero",
            lambda t_min, t_max: 0.0,
            "a perfect score does not make the loss 0: eps is not a function of x_t. "
            "Zero it is only for a single data point.",
        ),
        Slip(
            "missing half",
            lambda t_min, t_max: log((1 - exp(-2 * t_max)) / (1 - exp(-2 * t_min))),
            "the antiderivative of 1 / (e^(2t) - 1) is log(1 - e^(-2t)) / 2: mind the inner derivative.",
        ),
        Slip(
            "noise alone",
            lambda t_min, t_max: log((exp(2 * t_max) - 1) / (exp(2 * t_min) - 1)) / 2,
            "that is the integral of 1 / sigma^2. Subtract the mean square of the true score, 1.",
        ),
        Slip(
            "sign",
            lambda t_min, t_max: -log((1 - exp(-2 * t_max)) / (1 - exp(-2 * t_min))) / 2,
            "a mean of squares is not negative: the bounds are exchanged.",
        ),
        Slip(
            "weighted",
            lambda t_min, t_max: (exp(-2 * t_min) - exp(-2 * t_max)) / 2,
            "that is the floor with the weight sigma^2, which stays finite. Asked is the loss without it.",
        ),
        Slip(
            "clock",
            lambda t_min, t_max: log((1 - exp(-t_max)) / (1 - exp(-t_min))),
            "sigma^2 = 1 - e^(-2 t): you dropped the 2.",
        ),
    ),
)


# Langevin


def langevin_move(x: Tensor, score: Tensor, eta: float, z: Tensor) -> Tensor:
    """One step whose noise has variance eta."""
    return x + eta / 2 * score + sqrt(eta) * z


def _move_case(seed: int, eta: float) -> tuple:
    return _numbers(3, 2, seed=seed), _numbers(3, 2, seed=seed + 1), eta, _numbers(3, 2, seed=seed + 2)


LANGEVIN_MOVE = Exercise(
    name="score-langevin-step",
    question="One Langevin step from x, with the noise's variance eta, from the score at x and standard normal z.",
    answer=langevin_move,
    cases=(_move_case(40, 0.1), _move_case(50, 0.01), _move_case(60, 1.5)),
    slips=(
        Slip(
            "mixed clocks, too hot",
            lambda x, score, eta, z: x + eta / 2 * score + sqrt(2 * eta) * z,
            "sqrt(2 eta) belongs to the drift eta * score. With eta / 2 you sample at twice the temperature: "
            "N(0, 1) comes out with variance 2.",
        ),
        Slip(
            "mixed clocks, too cold",
            lambda x, score, eta, z: x + eta * score + sqrt(eta) * z,
            "the drift eta * score belongs to sqrt(2 eta). With sqrt(eta) you sample at half the temperature: "
            "N(0, 1) comes out with variance 1/2.",
        ),
        Slip(
            "the other clock",
            lambda x, score, eta, z: x + eta * score + sqrt(2 * eta) * z,
            "a right Langevin step, but one of size 2 eta: its noise has the variance 2 eta.",
        ),
        Slip(
            "variance for standard deviation",
            lambda x, score, eta, z: x + eta / 2 * score + eta * z,
            "you scale z by the variance. A finer step makes this worse: the spread goes to 0.",
        ),
        Slip(
            "no noise",
            lambda x, score, eta, z: x + eta / 2 * score,
            "that is gradient ascent. It finds modes and draws no samples.",
        ),
        Slip(
            "sign",
            lambda x, score, eta, z: x - eta / 2 * score + sqrt(eta) * z,
            "you walk against the arrows. The energy goes down where the density goes up: minus belongs to grad E.",
        ),
    ),
)


def stationary_variance(eta: float, c: float) -> float:
    """Variance that Langevin with step eta settles at, on the target N(0, c^2)."""
    return c**2 / (1 - eta / (4 * c**2))


STATIONARY_VARIANCE = Exercise(
    name="score-langevin-variance",
    question="Stationary variance of x + (eta / 2) s(x) + sqrt(eta) z on the target N(0, c^2).",
    answer=stationary_variance,
    cases=((0.1, 1.0), (0.5, 0.7), (2.0, 1.5), (0.01, 0.3)),
    slips=(
        Slip(
            "no bias",
            lambda eta, c: c**2,
            "that is the limit of small steps. Solve V = (1 - eta / (2 c^2))^2 V + eta for the finite one.",
        ),
        Slip(
            "unit width",
            lambda eta, c: c**2 / (1 - eta / 4),
            "you took the formula for c = 1. What counts is the step measured in units of c^2.",
        ),
        Slip(
            "sign",
            lambda eta, c: c**2 / (1 + eta / (4 * c**2)),
            "the discrete walk is too wide, not too narrow: 1 - (1 - a)^2 is 2 a - a^2.",
        ),
        Slip(
            "half for quarter",
            lambda eta, c: c**2 / (1 - eta / (2 * c**2)),
            "1 - (1 - a)^2 = 2 a (1 - a / 2) with a = eta / (2 c^2): a quarter, not a half.",
        ),
        Slip(
            "factor not squared",
            lambda eta, c: 2 * c**2,
            "you solved V = (1 - a) V + eta. A factor of x is squared in its variance.",
        ),
    ),
)


# Find the bug


Model = Callable[[Tensor, Tensor], Tensor]


def denoiser_loss(model: Model, x0: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Sum over the batch of |model(alpha x0 + sigma z, sigma) - x0|^2: a denoiser's loss."""
    return (model(alpha * x0 + sigma * z, sigma) - x0).square().sum()


def _model(x: Tensor, sigma: Tensor) -> Tensor:
    """Some denoiser that listens to its noise level."""
    return x / (1 + sigma**2) + 0.1 * torch.sin(x)


def _batch(seed: int, alpha: Callable[[Tensor], Tensor]) -> tuple:
    x0, z = _numbers(4, 3, seed=seed), _numbers(4, 3, seed=seed + 1)
    sigma = torch.tensor([[0.2], [0.5], [0.9], [0.99]], dtype=torch.float64)
    return _model, x0, z, alpha(sigma), sigma


TRAINING_LISTING = Exercise(
    name="score-training-listing",
    question="Loss of a denoising network on one batch: x0, z standard normal, alpha and sigma of each row (N, 1).",
    answer=denoiser_loss,
    cases=(_batch(70, lambda sigma: (1 - sigma**2).sqrt()), _batch(80, lambda sigma: 1 - sigma)),
    slips=(
        Slip(
            "clean input",
            lambda model, x0, z, alpha, sigma: (model(x0, sigma) - x0).square().sum(),
            "the network is shown the clean batch. It learns to copy, and the corrupted batch is never used.",
        ),
        Slip(
            "as found",
            lambda model, x0, z, alpha, sigma: (model(x0, sigma) - z).square().sum(),
            "two bugs are left: the network is shown the clean batch, and a denoiser is compared with the noise.",
        ),
        Slip(
            "compared with noise",
            lambda model, x0, z, alpha, sigma: (model(alpha * x0 + sigma * z, sigma) - z).square().sum(),
            "the network is a denoiser, compared with the noise. Compare with the clean batch.",
        ),
        Slip(
            "one noise for all times",
            lambda model, x0, z, alpha, sigma: (model(alpha * x0 + z, sigma) - x0).square().sum(),
            "the noise does not know the time: scale it by sigma.",
        ),
        Slip(
            "square of the sum",
            lambda model, x0, z, alpha, sigma: (model(alpha * x0 + sigma * z, sigma) - x0).sum() ** 2,
            "errors of opposite sign cancel before they are squared: square each, then add.",
        ),
        Slip(
            "unsquared",
            lambda model, x0, z, alpha, sigma: (model(alpha * x0 + sigma * z, sigma) - x0).sum(),
            "the square is lost: `**2.sum()` does not even parse. A sum of signed "
            "errors can be made as negative as you like.",
        ),
        Slip(
            "no scale",
            lambda model, x0, z, alpha, sigma: (model(x0 + sigma * z, sigma) - x0).square().sum(),
            "the signal is not scaled by alpha. That is right only for alpha = 1.",
        ),
    ),
)


def sgd_step(theta: float, x0: Tensor, eps: Tensor, alpha: float, sigma: float, rate: float) -> float:
    """theta after one step of gradient descent on the mean of (s(x_t) + eps / sigma)^2, s(x) = -theta x."""
    x_t = alpha * x0 + sigma * eps
    return theta - rate * float((2 * (eps / sigma - theta * x_t) * -x_t).mean())


def _sgd_with(target: Callable[[Tensor, float], Tensor], direction: float) -> Callable[..., float]:
    """The same step, for the mean of (s(x_t) - target)^2."""

    def step(theta: float, x0: Tensor, eps: Tensor, alpha: float, sigma: float, rate: float) -> float:
        x_t = alpha * x0 + sigma * eps
        return theta - direction * rate * float((2 * (-theta * x_t - target(eps, sigma)) * -x_t).mean())

    return step


SGD_STEP = Exercise(
    name="score-sgd-step",
    question=(
        "theta after one gradient step (given rate) on mean((s(x_t) + eps / sigma)^2) for the model s(x) = -theta x."
    ),
    answer=sgd_step,
    cases=tuple(
        (theta, _numbers(6, seed=s), _numbers(6, seed=s + 1), alpha, 0.6, rate)
        for theta, s, alpha, rate in ((0.5, 90, 0.8, 0.1), (1.4, 92, 0.4, 0.01))
    ),
    slips=(
        Slip(
            "uphill",
            _sgd_with(lambda eps, sigma: -eps / sigma, -1),
            "you add the gradient: the loss goes up. Descent subtracts.",
        ),
        Slip(
            "as found",
            _sgd_with(lambda eps, sigma: sigma**2 * eps, -1),
            "two bugs are left: the target sigma^2 eps, which is -eps / sigma, and the gradient is added.",
        ),
        Slip(
            "multiplied by the variance",
            _sgd_with(lambda eps, sigma: sigma**2 * eps, 1),
            "the target is -eps / sigma: minus, and divided. sigma^2 eps has both wrong.",
        ),
        Slip(
            "sign of the target",
            _sgd_with(lambda eps, sigma: eps / sigma, 1),
            "the target is +eps / sigma: theta walks to minus the right value.",
        ),
        Slip(
            "divided by the variance",
            _sgd_with(lambda eps, sigma: -eps / sigma**2, 1),
            "one sigma too many: that form is for noise that carries its sigma already.",
        ),
    ),
)


Score = Callable[[float, float], float]


def reverse_walk(score: Score, horizon: float, steps: Sequence[float], y: float, zs: Sequence[float]) -> float:
    """Euler-Maruyama for dY = (Y + 2 score(T - t, Y)) dt + sqrt 2 dB, t from 0."""
    t = 0.0
    for step, z in zip(steps, zs, strict=True):
        y = y + step * (y + 2 * score(horizon - t, y)) + sqrt(2 * step) * z
        t = t + step
    return y


def _walk_with(clock: Callable[[float, float], float], pull: float, spread: float, moves: bool, fixed: bool = False):
    """The same walk with another clock, factor of the score, factor of the noise's variance, or a time that rests."""

    def walk(score: Score, horizon: float, steps: Sequence[float], y: float, zs: Sequence[float]) -> float:
        t = 0.0
        for step, z in zip(steps, zs, strict=True):
            y = y + step * (y + pull * score(clock(horizon, t), y)) + (spread * step) ** (1 if fixed else 0.5) * z
            t = t + step if moves else t
        return y

    return walk


def _toy_score(t: float, x: float) -> float:
    """Exact score of data N(0.5, 0.2^2) under the Ornstein-Uhlenbeck process."""
    return -(x - 0.5 * exp(-t)) / (0.04 * exp(-2 * t) + 1 - exp(-2 * t))


SAMPLING_LISTING = Exercise(
    name="score-sampling-listing",
    question=(
        "End of Euler-Maruyama for dY = (Y + 2 score(T - t, Y)) dt + sqrt 2 dB; "
        "score(t, x) is that of the forward time t."
    ),
    answer=reverse_walk,
    cases=(
        (_toy_score, 2.0, (0.5, 0.3, 0.1), 0.4, (0.3, -1.2, 0.7)),
        (_toy_score, 1.0, (0.2, 0.2, 0.2, 0.1), -1.1, (0.9, 0.1, -0.4, 1.3)),
    ),
    slips=(
        Slip(
            "time never moves",
            _walk_with(lambda T, t: T - t, 2, 2, False),
            "the clock stands still: every step asks for the score at the noisiest time. Advance t.",
        ),
        Slip(
            "forward clock",
            _walk_with(lambda T, t: t, 2, 2, True),
            "the score is asked for at t, but the walk runs backwards: it starts in noise, at T. Ask at T - t.",
        ),
        Slip(
            "score once",
            _walk_with(lambda T, t: T - t, 1, 2, True),
            "the factor 2 of the score is missing. Half of it goes with the "
            "deterministic flow, the other pays for the noise.",
        ),
        Slip(
            "noise of one",
            _walk_with(lambda T, t: T - t, 2, 1, True),
            "the noise is sqrt(step) z; this equation has sqrt 2 dB, so sqrt(2 step) z.",
        ),
        Slip(
            "variance for standard deviation",
            _walk_with(lambda T, t: T - t, 2, 2, True, fixed=True),
            "you scale z by 2 step, the variance. Take the root.",
        ),
    ),
)

EXERCISES: tuple[Exercise, ...] = (
    DSM_TARGET,
    IMPLICIT_LINEAR,
    ONE_SLICE,
    UNIFORM_FIT,
    TWEEDIE,
    FROM_DENOISER,
    DROP_ALPHA,
    TIME_FLOOR,
    LANGEVIN_MOVE,
    STATIONARY_VARIANCE,
    TRAINING_LISTING,
    SGD_STEP,
    SAMPLING_LISTING,
)
