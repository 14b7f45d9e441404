"""Exercises of the chapter `book/sde.md`."""

from __future__ import annotations

from math import exp, sqrt

from diffusion_edu.exercises import Exercise, Slip

# One step forward


def forward_step(f: float, g: float, h: float, x: float, z: float) -> float:
    """x after an Euler-Maruyama step of length h of dx = f x dt + g dW, with a standard normal z."""
    return x + f * x * h + g * sqrt(h) * z


FORWARD_STEP = Exercise(
    name="sde-step",
    question="One Euler-Maruyama step of dx = f x dt + g dW over a time h, from x and a standard normal z.",
    answer=forward_step,
    cases=((-0.5, 1.2, 0.01, 0.7, -0.4), (-2.0, 0.6, 0.1, -1.1, 1.3), (0.0, 3.0, 0.04, 0.2, 0.9)),
    slips=(
        Slip(
            "h for its root",
            lambda f, g, h, x, z: x + f * x * h + g * h * z,
            "you scale the noise by h. An increment of W has the variance h, so its deviation is the root. "
            "With h the noise of all steps together vanishes as the steps shrink.",
        ),
        Slip(
            "root on the drift",
            lambda f, g, h, x, z: x + (f * x + g * z) * sqrt(h),
            "you scale the drift by the root of h. Only the noise grows like a root; the drift is a speed, times h.",
        ),
        Slip(
            "drift and diffusion exchanged",
            lambda f, g, h, x, z: x + g * x * h + f * sqrt(h) * z,
            "f and g are exchanged: f moves the mean and goes with dt, g spreads and goes with dW.",
        ),
        Slip(
            "variance for standard deviation",
            lambda f, g, h, x, z: x + f * x * h + g**2 * sqrt(h) * z,
            "you scale the noise by g squared. g squared h is the variance of the step, and z has variance 1.",
        ),
        Slip(
            "drift without x",
            lambda f, g, h, x, z: x + f * h + g * sqrt(h) * z,
            "the drift is f x, a pull in proportion to where you are. Yours is the constant f.",
        ),
    ),
)


# The variance of an Ornstein-Uhlenbeck process


def ou_variance(theta: float, g: float, t: float, v_0: float) -> float:
    """Variance at t of dx = -theta x dt + g dW that starts with variance v_0."""
    return exp(-2 * theta * t) * v_0 + g**2 / (2 * theta) * (1 - exp(-2 * theta * t))


OU_VARIANCE = Exercise(
    name="sde-variance",
    question="Variance at t of dx = -theta x dt + g dW that starts with variance v_0.",
    answer=ou_variance,
    cases=((1.0, sqrt(2), 0.7, 0.3), (0.5, 1.2, 2.0, 4.0), (3.0, 0.4, 0.1, 1.0)),
    slips=(
        Slip(
            "exponent not doubled",
            lambda theta, g, t, v_0: exp(-theta * t) * v_0 + g**2 / theta * (1 - exp(-theta * t)),
            "that solves V' = -theta V + g^2. The deviation decays at the rate theta, the variance at twice that.",
        ),
        Slip(
            "exponent doubled too early",
            lambda theta, g, t, v_0: exp(-2 * theta * t) * v_0 + g**2 / (4 * theta) * (1 - exp(-4 * theta * t)),
            "the integrand is e^{-theta (t - s)}, and the isometry squares it once: 2 theta in the exponent, not 4 theta.",
        ),
        Slip(
            "noise only",
            lambda theta, g, t, v_0: g**2 / (2 * theta) * (1 - exp(-2 * theta * t)),
            "that is the variance for a start at a fixed point. The start has a variance of its own, which fades.",
        ),
        Slip(
            "no forgetting of noise",
            lambda theta, g, t, v_0: exp(-2 * theta * t) * v_0 + g**2 * t,
            "you add g^2 t, as for Brownian motion. Old noise is pulled towards 0, too.",
        ),
        Slip(
            "start counted linearly",
            lambda theta, g, t, v_0: exp(-theta * t) * v_0 + g**2 / (2 * theta) * (1 - exp(-2 * theta * t)),
            "the start is multiplied by e^{-theta t}, so its variance by the square of that.",
        ),
    ),
)


# The diffusion that belongs to a schedule


def diffusion_squared(alpha: float, d_alpha: float, sigma: float, d_sigma: float) -> float:
    """g^2 from alpha, sigma and their derivatives in time."""
    return 2 * sigma * d_sigma - 2 * d_alpha / alpha * sigma**2


DIFFUSION = Exercise(
    name="sde-diffusion",
    question="g^2 at one time, from alpha, its derivative, sigma and its derivative, for any schedule.",
    answer=diffusion_squared,
    cases=((0.8, -0.5, 0.36, 0.9), (1.0, 0.0, 2.0, 3.0), (0.5, -1.0, 0.5, 1.0), (0.3, -1.2, 0.91, 0.2)),
    slips=(
        Slip(
            "forgotten drift",
            lambda a, da, s, ds: 2 * s * ds,
            "that is the growth of sigma squared. While it grows, the drift shrinks the old noise, and g^2 must make up for "
            "it: - 2 f sigma^2. Without it only variance exploding comes out right.",
        ),
        Slip(
            "sign",
            lambda a, da, s, ds: 2 * s * ds + 2 * da / a * s**2,
            "the sign of f: it is negative, and what the drift takes away must be added: - 2 f sigma^2.",
        ),
        Slip(
            "variance preserving only",
            lambda a, da, s, ds: -2 * da / a,
            "g^2 = -2 f = beta holds where alpha^2 + sigma^2 = 1. Sub-VP, VE and flow want the whole formula.",
        ),
        Slip(
            "no logarithm",
            lambda a, da, s, ds: 2 * s * ds - 2 * da * s**2,
            "f is the derivative of log alpha: divide alpha' by alpha.",
        ),
        Slip(
            "derivative of sigma, squared",
            lambda a, da, s, ds: ds**2 - 2 * da / a * s**2,
            "you square the derivative of sigma. Needed is the derivative of sigma squared, 2 sigma sigma'.",
        ),
    ),
)


# One step back


def reverse_step(f: float, g: float, h: float, x: float, score: float, z: float) -> float:
    """x after a step from t to t - h of the reverse SDE."""
    return x - h * (f * x - g**2 * score) + g * sqrt(h) * z


REVERSE_STEP = Exercise(
    name="sde-reverse-step",
    question="One Euler-Maruyama step of the reverse SDE from t to t - h (h > 0), not the last one.",
    answer=reverse_step,
    cases=((-0.5, 1.2, 0.01, 0.7, -0.8, 0.4), (-2.0, 0.6, 0.1, -1.1, 0.5, -1.3), (0.0, 3.0, 0.04, 0.2, -0.3, 0.9)),
    slips=(
        Slip(
            "sign of the score",
            lambda f, g, h, x, score, z: x - h * (f * x + g**2 * score) + g * sqrt(h) * z,
            "the score has the wrong sign: you walk away from the data. Backwards in time, + h g^2 score.",
        ),
        Slip(
            "clock not turned",
            lambda f, g, h, x, score, z: x + h * (f * x - g**2 * score) + g * sqrt(h) * z,
            "the bracket is right, but time runs backwards: dt = -h.",
        ),
        Slip(
            "half of the ODE",
            lambda f, g, h, x, score, z: x - h * (f * x - g**2 * score / 2) + g * sqrt(h) * z,
            "half the score belongs to the ODE, which adds no noise. With noise you need all of it, "
            "or the samples come out too wide.",
        ),
        Slip(
            "g for g squared",
            lambda f, g, h, x, score, z: x - h * (f * x - g * score) + g * sqrt(h) * z,
            "the score is multiplied by g squared, a variance per time; by g only the noise.",
        ),
        Slip(
            "g squared missing",
            lambda f, g, h, x, score, z: x - h * (f * x - score) + g * sqrt(h) * z,
            "the factor g squared of the score is missing.",
        ),
        Slip(
            "h for its root",
            lambda f, g, h, x, score, z: x - h * (f * x - g**2 * score) + g * h * z,
            "you scale the noise by h, its deviation is g sqrt(h).",
        ),
        Slip(
            "no noise",
            lambda f, g, h, x, score, z: x - h * (f * x - g**2 * score),
            "the noise is missing. Full score without noise shrinks the law: samples end too narrow.",
        ),
    ),
)


# The family of reverse processes


def family_drift(f: float, g: float, noise: float, x: float, score: float) -> float:
    """Coefficient of dt, in time t, of the reverse process with `noise` times the noise of the reverse SDE."""
    return f * x - (1 + noise**2) / 2 * g**2 * score


FAMILY = Exercise(
    name="sde-family",
    question="The drift (coefficient of dt) of the reverse process with noise lambda g that has the marginals q_t.",
    answer=family_drift,
    cases=((-0.5, 1.2, 0.5, 0.7, -0.8), (-2.0, 0.6, 2.0, -1.1, 0.5), (0.0, 3.0, 0.0, 0.2, -0.3)),
    slips=(
        Slip(
            "lambda for its square",
            lambda f, g, n, x, score: f * x - (1 + n) / 2 * g**2 * score,
            "noise enters the law by its variance: lambda squared. Your formula is right at 0 and at 1 only.",
        ),
        Slip(
            "always Anderson",
            lambda f, g, n, x, score: f * x - g**2 * score,
            "that is the drift for lambda = 1 whatever the noise. Less noise wants less score.",
        ),
        Slip(
            "always the ODE",
            lambda f, g, n, x, score: f * x - g**2 * score / 2,
            "that is the drift for lambda = 0. Noise spreads the law; more score must hold it together.",
        ),
        Slip(
            "running forward",
            lambda f, g, n, x, score: f * x - (1 - n**2) / 2 * g**2 * score,
            "that is the process with these marginals that runs forward in time. "
            "Backwards the noise counts with the other sign.",
        ),
        Slip(
            "forgotten half",
            lambda f, g, n, x, score: f * x - (1 + n**2) * g**2 * score,
            "the half is missing: at lambda = 1 the factor must be 1.",
        ),
        Slip(
            "noise scaled only",
            lambda f, g, n, x, score: f * x - n**2 * g**2 * score,
            "without noise you would have no score at all, and the ODE needs half of it.",
        ),
    ),
)


# What a wrong score costs


def path_kl_rate(g2: float, gap2: float) -> float:
    """KL divergence per unit of time between two reverse SDEs whose scores differ by a mean square of gap2."""
    return g2 * gap2 / 2


GIRSANOV = Exercise(
    name="sde-girsanov",
    question="Path KL per unit of time of two reverse SDEs, from g^2 and the mean squared difference of their scores.",
    answer=path_kl_rate,
    cases=((2.0, 0.3), (0.5, 1.7), (9.0, 0.04)),
    slips=(
        Slip(
            "factor g^2 forgotten",
            lambda g2, gap2: gap2 / 2,
            "neither the drift's g^2 nor the noise's variance is in it. The drift is off by g^2 times the score's error, "
            "and the noise has the variance g^2: g^4 / g^2 stays. For the Ornstein-Uhlenbeck process, with g^2 = 2, you are "
            "off by 2.",
        ),
        Slip(
            "missing half",
            lambda g2, gap2: g2 * gap2,
            "the half of the Gaussian's exponent is missing.",
        ),
        Slip(
            "not divided by the variance",
            lambda g2, gap2: g2**2 * gap2 / 2,
            "that is half the squared error of the drift. A KL divergence of Gaussians divides it by their variance, g^2 h.",
        ),
        Slip(
            "divided twice",
            lambda g2, gap2: gap2 / (2 * g2),
            "you divided by g^2, but forgot that the drift holds g^2 times the score.",
        ),
        Slip(
            "deviation for variance",
            lambda g2, gap2: g2**1.5 * gap2 / 2,
            "a KL divergence of Gaussians divides by the variance, not by the deviation.",
        ),
    ),
)


# Repair a listing


def repaired_step(beta: float, alpha_bar: float, x: float, eps_hat: float, z: float, last: bool) -> float:
    """x_{k-1} from x_k in the discretisation of the reverse SDE that the listing wants."""
    score = -eps_hat / sqrt(1 - alpha_bar)
    mean = (2 - sqrt(1 - beta)) * x + beta * score
    return mean if last else mean + sqrt(beta) * z


def _listing(beta: float, alpha_bar: float, x: float, eps_hat: float, z: float, last: bool) -> float:
    g = -eps_hat
    mean = (2 - sqrt(1 - beta)) * x + 0.5 * beta * g
    return mean if last else mean + 2 * sqrt(beta) * (0.05 * abs(z) / abs(g)) ** 2 * z


REPAIR = Exercise(
    name="sde-repair",
    question="Repair the listing: one step of the reverse SDE of a DDPM chain from the predicted noise.",
    answer=repaired_step,
    cases=(
        (0.02, 0.5, 0.7, -0.4, 1.1, False),
        (0.1, 0.08, -1.2, 0.9, -0.6, False),
        (0.001, 0.999, 0.3, 0.8, 0.5, True),
    ),
    slips=(
        Slip(
            "the listing",
            _listing,
            "that is the listing as found. Three things are wrong: the score is not -eps, the factor of the score is not "
            "beta / 2, and the noise of a step is not scaled by a ratio of norms.",
        ),
        Slip(
            "noise for score",
            lambda b, ab, x, e, z, last: (2 - sqrt(1 - b)) * x - b * e + (0 if last else sqrt(b) * z),
            "score = -eps / sqrt(1 - alpha_bar). Early in sampling the root is near 1 and nobody notices; "
            "near the data the score is many times larger than eps.",
        ),
        Slip(
            "half of the ODE",
            lambda b, ab, x, e, z, last: (
                (2 - sqrt(1 - b)) * x - b / 2 * e / sqrt(1 - ab) + (0 if last else sqrt(b) * z)
            ),
            "half the score is for the ODE. With the noise sqrt(beta) z the factor is beta.",
        ),
        Slip(
            "noise twice",
            lambda b, ab, x, e, z, last: (
                (2 - sqrt(1 - b)) * x - b * e / sqrt(1 - ab) + (0 if last else 2 * sqrt(b) * z)
            ),
            "the noise has twice its deviation. A step adds the variance beta.",
        ),
        Slip(
            "beta for its root",
            lambda b, ab, x, e, z, last: (2 - sqrt(1 - b)) * x - b * e / sqrt(1 - ab) + (0 if last else b * z),
            "the noise has the deviation sqrt(beta), not beta.",
        ),
        Slip(
            "noise at the last step",
            lambda b, ab, x, e, z, last: (2 - sqrt(1 - b)) * x - b * e / sqrt(1 - ab) + sqrt(b) * z,
            "the last step must add no noise: nobody will remove it.",
        ),
    ),
)


EXERCISES = (FORWARD_STEP, OU_VARIANCE, DIFFUSION, REVERSE_STEP, FAMILY, GIRSANOV, REPAIR)
