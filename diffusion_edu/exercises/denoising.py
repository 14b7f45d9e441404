"""Exercises of the chapter `book/denoising.md`."""

from __future__ import annotations

from math import exp, sqrt, tanh

from diffusion_edu.exercises import Exercise, Slip

# (beta, alpha_bar_t, alpha_bar_s) with alpha_bar_t = (1 - beta) alpha_bar_s: one step of a chain, early, midway, late
CHAIN = ((0.02, 0.98 * 0.9, 0.9), (0.1, 0.9 * 0.5, 0.5), (0.3, 0.7 * 0.08, 0.08))
LAST = (0.05, 0.95, 1.0)  # the step that ends at the data


# The best guess of two points


def two_points_guess(alpha: float, sigma: float, x_t: float) -> float:
    """E[x_0 | x_t] for data that is -1 or 1 with equal odds."""
    return tanh(alpha * x_t / sigma**2)


TWO_POINTS = Exercise(
    name="denoising-two-points",
    question="Best guess of x_0, in squared error, from x_t = alpha x_0 + sigma eps when x_0 is -1 or 1.",
    answer=two_points_guess,
    cases=((0.8, 0.6, 0.5), (0.5, 0.866, -0.3), (0.1, 0.995, 1.7), (0.95, 0.312, 0.02)),
    slips=(
        Slip(
            "sign",
            lambda alpha, sigma, x_t: 1.0 if x_t > 0 else -1.0,
            "that is the likelier of the two points. Squared error is smallest for the mean, "
            "which lies between them as long as there is doubt.",
        ),
        Slip(
            "division by alpha",
            lambda alpha, sigma, x_t: x_t / alpha,
            "x_t / alpha is x_0 if the noise had been 0. It ignores that x_0 can only be -1 or 1, "
            "and it explodes when alpha is small.",
        ),
        Slip(
            "sigma for sigma squared",
            lambda alpha, sigma, x_t: tanh(alpha * x_t / sigma),
            "you divide by sigma. The exponent of a Gaussian has its variance below: sigma squared.",
        ),
        Slip(
            "probability for mean",
            lambda alpha, sigma, x_t: 1 / (1 + exp(-2 * alpha * x_t / sigma**2)),
            "that is the probability of the point 1. The mean is p - (1 - p) = 2 p - 1.",
        ),
        Slip(
            "half the log-odds",
            lambda alpha, sigma, x_t: tanh(2 * alpha * x_t / sigma**2),
            "the log-odds are 2 alpha x_t / sigma^2, and 2 p - 1 is the tanh of half the log-odds.",
        ),
        Slip(
            "prior mean",
            lambda alpha, sigma, x_t: 0.0,
            "0 is the best guess before x_t is seen. Weigh the two points by how well they explain x_t.",
        ),
    ),
)


# The posterior


def posterior_mean(beta: float, bar_t: float, bar_s: float, x_t: float, x_0: float) -> float:
    """Mean of q(x_{k-1} | x_k, x_0) on DDPM's chain."""
    return sqrt(1 - beta) * (1 - bar_s) / (1 - bar_t) * x_t + sqrt(bar_s) * beta / (1 - bar_t) * x_0


POSTERIOR_MEAN = Exercise(
    name="denoising-posterior-mean",
    question="Mean of q(x_{k-1} | x_k, x_0) from beta, alpha_bar_t, alpha_bar_s, x_t and x_0.",
    answer=posterior_mean,
    cases=tuple((*step, 0.7, -0.4) for step in CHAIN) + ((*CHAIN[1], -1.2, 0.9),),
    slips=(
        Slip(
            "alpha_bar for alpha",
            lambda beta, bar_t, bar_s, x_t, x_0: (
                sqrt(1 - beta) * (1 - bar_s) / (1 - bar_t) * x_t + sqrt(bar_s) * (1 - bar_t) / (1 - bar_t) * x_0
            ),
            "the weight of x_0 has 1 - alpha_bar_t on top, where the noise of this one step belongs: beta. "
            "A bar more, printed in several lecture notes.",
        ),
        Slip(
            "missing roots",
            lambda beta, bar_t, bar_s, x_t, x_0: (
                (1 - beta) * (1 - bar_s) / (1 - bar_t) * x_t + bar_s * beta / (1 - bar_t) * x_0
            ),
            "you use 1 - beta and alpha_bar_s for their square roots. Signals scale by alpha, variances by alpha squared.",
        ),
        Slip(
            "weights exchanged",
            lambda beta, bar_t, bar_s, x_t, x_0: (
                sqrt(1 - beta) * (1 - bar_s) / (1 - bar_t) * x_0 + sqrt(bar_s) * beta / (1 - bar_t) * x_t
            ),
            "the two weights are exchanged. When beta is small the mean must stay close to x_t, not to x_0.",
        ),
        Slip(
            "bar_t for bar_s",
            lambda beta, bar_t, bar_s, x_t, x_0: sqrt(1 - beta) * x_t + sqrt(bar_t) * beta / (1 - bar_t) * x_0,
            "you use alpha_bar_t where alpha_bar_s belongs: an index off by one. Check: at s = 0 the mean must be x_0.",
        ),
        Slip(
            "forgotten transition",
            lambda beta, bar_t, bar_s, x_t, x_0: (
                (1 - bar_s) / (1 - bar_t) * x_t + sqrt(bar_s) * beta / (1 - bar_t) * x_0
            ),
            "the factor sqrt(1 - beta) of x_t is missing: x_t is a shrunken copy of x_s, and the likelihood knows it.",
        ),
    ),
)


# From the noise to the clean image


def clean_from_noise(alpha: float, sigma: float, x_t: float, eps_hat: float) -> float:
    """x0_hat from eps_hat."""
    return (x_t - sigma * eps_hat) / alpha


NOISE_CASES = ((0.8, 0.6, 0.5, -0.3), (0.3, sqrt(0.91), -1.1, 0.4), (1.0, 3.0, 2.5, 1.2))

X0_HAT = Exercise(
    name="denoising-x0-hat",
    question="x0_hat from x_t and eps_hat, for any alpha and sigma.",
    answer=clean_from_noise,
    cases=NOISE_CASES,
    slips=(
        Slip(
            "variance for standard deviation",
            lambda alpha, sigma, x_t, eps_hat: (x_t - sigma**2 * eps_hat) / alpha,
            "you subtract sigma squared times eps. x_t holds sigma eps: the standard deviation scales, not the variance.",
        ),
        Slip(
            "no division by alpha",
            lambda alpha, sigma, x_t, eps_hat: x_t - sigma * eps_hat,
            "that is alpha x_0: the noise is gone, the image is still faded. Divide by alpha.",
        ),
        Slip(
            "sign",
            lambda alpha, sigma, x_t, eps_hat: (x_t + sigma * eps_hat) / alpha,
            "you add the noise a second time. Solve x_t = alpha x_0 + sigma eps for x_0.",
        ),
        Slip(
            "score formula",
            lambda alpha, sigma, x_t, eps_hat: (x_t + sigma**2 * eps_hat) / alpha,
            "that is Tweedie's formula with eps_hat in the place of the score. score = -eps / sigma.",
        ),
        Slip(
            "division by alpha squared",
            lambda alpha, sigma, x_t, eps_hat: (x_t - sigma * eps_hat) / alpha**2,
            "you divide by alpha squared: alpha_bar for its root.",
        ),
    ),
)


# What one step of the bound costs


def kl_weight(snr_t: float, snr_s: float) -> float:
    """Factor of |eps - eps_hat|^2 in the KL divergence of a step from t to s."""
    return (snr_s / snr_t - 1) / 2


KL_WEIGHT = Exercise(
    name="denoising-kl-weight",
    question="Factor of |eps - eps_hat|^2 in the bound's term for the step t to s, from alpha^2 / sigma^2 at both.",
    answer=kl_weight,
    cases=((0.5, 0.6), (0.01, 0.013), (20.0, 90.0)),
    slips=(
        Slip(
            "weight of x_0",
            lambda snr_t, snr_s: (snr_s - snr_t) / 2,
            "that is the factor of |x_0 - x0_hat|^2. An error in eps is alpha / sigma times that in x_0: divide by snr_t.",
        ),
        Slip(
            "missing half",
            lambda snr_t, snr_s: snr_s / snr_t - 1,
            "the half of the Gaussian's exponent is missing.",
        ),
        Slip(
            "sign",
            lambda snr_t, snr_s: (snr_t / snr_s - 1) / 2,
            "your factor is negative, and a KL divergence is not. The ratio is upside down: snr_s > snr_t.",
        ),
        Slip(
            "simple loss",
            lambda snr_t, snr_s: 1.0,
            "1 is the factor of the simple loss. It is a choice, not what the bound says.",
        ),
        Slip(
            "amplitudes for powers",
            lambda snr_t, snr_s: (sqrt(snr_s / snr_t) - 1) / 2,
            "a signal-to-noise ratio is one of powers, alpha^2 / sigma^2; you took the root.",
        ),
    ),
)


# One step of the sampler


def ancestral_step(beta: float, bar_t: float, bar_s: float, x_t: float, eps_hat: float, z: float) -> float:
    """x_{k-1} from x_k, the predicted noise and fresh noise z, with the posterior's variance."""
    mean = (x_t - beta / sqrt(1 - bar_t) * eps_hat) / sqrt(1 - beta)
    return mean + sqrt(beta * (1 - bar_s) / (1 - bar_t)) * z


def _step_mean(beta: float, bar_t: float, x_t: float, eps_hat: float) -> float:
    return (x_t - beta / sqrt(1 - bar_t) * eps_hat) / sqrt(1 - beta)


ANCESTRAL_STEP = Exercise(
    name="denoising-step",
    question="One ancestral step of DDPM with the posterior's variance; the last case is the step to the data.",
    answer=ancestral_step,
    cases=tuple((*step, 0.7, -0.4, 1.1) for step in CHAIN) + ((*LAST, 0.3, 0.8, -0.9),),
    slips=(
        Slip(
            "variance for standard deviation",
            lambda beta, bar_t, bar_s, x_t, eps_hat, z: (
                _step_mean(beta, bar_t, x_t, eps_hat) + beta * (1 - bar_s) / (1 - bar_t) * z
            ),
            "you scale the fresh noise by the variance. z has variance 1, so it is scaled by the standard deviation: "
            "take the root. With small betas your samples would all but stop varying.",
        ),
        Slip(
            "beta for sqrt(beta)",
            lambda beta, bar_t, bar_s, x_t, eps_hat, z: (
                _step_mean(beta, bar_t, x_t, eps_hat) + (beta * z if bar_s < 1 else 0)
            ),
            "you scale the fresh noise by beta: a variance where a standard deviation belongs.",
        ),
        Slip(
            "beta in every step",
            lambda beta, bar_t, bar_s, x_t, eps_hat, z: _step_mean(beta, bar_t, x_t, eps_hat) + beta * z,
            "you scale the fresh noise by beta, a variance where a standard deviation belongs, and add it in the last "
            "step too. The posterior's standard deviation is 0 there.",
        ),
        Slip(
            "noise at the last step",
            lambda beta, bar_t, bar_s, x_t, eps_hat, z: _step_mean(beta, bar_t, x_t, eps_hat) + sqrt(beta) * z,
            "you add sqrt(beta) z in every step, the last one too: the finished image gets a coat of noise. "
            "The posterior's standard deviation is 0 there.",
        ),
        Slip(
            "large variance",
            lambda beta, bar_t, bar_s, x_t, eps_hat, z: (
                _step_mean(beta, bar_t, x_t, eps_hat) + (sqrt(beta) * z if bar_s < 1 else 0)
            ),
            "sqrt(beta) is the other variance that DDPM allows, the large one. Asked for is the posterior's.",
        ),
        Slip(
            "alpha_bar in the mean",
            lambda beta, bar_t, bar_s, x_t, eps_hat, z: (
                (x_t - (1 - bar_t) / sqrt(1 - bar_t) * eps_hat) / sqrt(1 - beta)
                + sqrt(beta * (1 - bar_s) / (1 - bar_t)) * z
            ),
            "your mean subtracts all the noise at once, (1 - alpha_bar_t) for beta. One step removes one step's share.",
        ),
        Slip(
            "no fresh noise",
            lambda beta, bar_t, bar_s, x_t, eps_hat, z: _step_mean(beta, bar_t, x_t, eps_hat),
            "that is the mean. A step is a draw from a distribution: without fresh noise the spread is lost.",
        ),
        Slip(
            "sign",
            lambda beta, bar_t, bar_s, x_t, eps_hat, z: (
                (x_t + beta / sqrt(1 - bar_t) * eps_hat) / sqrt(1 - beta) + sqrt(beta * (1 - bar_s) / (1 - bar_t)) * z
            ),
            "you add the predicted noise. Going back means taking it away.",
        ),
    ),
)


# What the sampler makes of Gaussian data


def next_variance(gain: float, weight_t: float, weight_0: float, std: float, variance: float) -> float:
    """Variance after a step to mean weight_t x_t + weight_0 x0_hat, x0_hat = gain x_t, and fresh noise std z."""
    return (weight_t + weight_0 * gain) ** 2 * variance + std**2


GAUSSIAN_VARIANCE = Exercise(
    name="denoising-variance",
    question="Variance of x_s, when x_t has the given variance and x_s = weight_t x_t + weight_0 gain x_t + std z.",
    answer=next_variance,
    cases=((0.4, 0.9, 0.08, 0.2, 0.7), (0.1, 0.5, 0.4, 0.6, 1.0), (0.8, 0.0, 1.0, 0.0, 0.3)),
    slips=(
        Slip(
            "independent parts",
            lambda gain, weight_t, weight_0, std, variance: (weight_t**2 + (weight_0 * gain) ** 2) * variance + std**2,
            "you add the variances of weight_t x_t and weight_0 x0_hat as if they were independent. "
            "Both are multiples of the same x_t: add the factors first, then square.",
        ),
        Slip(
            "factor not squared",
            lambda gain, weight_t, weight_0, std, variance: (weight_t + weight_0 * gain) * variance + std**2,
            "a factor c of x_t is a factor c squared of its variance.",
        ),
        Slip(
            "standard deviation added",
            lambda gain, weight_t, weight_0, std, variance: (weight_t + weight_0 * gain) ** 2 * variance + std,
            "you add the standard deviation of the fresh noise to a variance. Square it.",
        ),
        Slip(
            "fresh noise forgotten",
            lambda gain, weight_t, weight_0, std, variance: (weight_t + weight_0 * gain) ** 2 * variance,
            "the fresh noise std z is missing.",
        ),
    ),
)

EXERCISES: tuple[Exercise, ...] = (
    TWO_POINTS,
    POSTERIOR_MEAN,
    X0_HAT,
    KL_WEIGHT,
    ANCESTRAL_STEP,
    GAUSSIAN_VARIANCE,
)
