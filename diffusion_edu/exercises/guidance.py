"""Exercises of the chapter `book/guidance.md`."""

from __future__ import annotations

from math import exp, log, sqrt

from diffusion_edu.exercises import Exercise, Slip

# Guided noise by a classifier

EPS = Exercise(
    name="guidance-eps",
    question="Guided eps from eps_hat, the gradient g of log p(y | x_t) in x_t, sigma_t and the scale w.",
    answer=lambda eps_hat, g, sigma, w: eps_hat - w * sigma * g,
    cases=((0.5, 0.8, 0.6, 2.0), (-1.0, 0.3, 0.9, 1.0), (0.2, -1.5, 0.3, 5.5), (0.7, 0.4, 0.5, 0.0)),
    slips=(
        Slip(
            "sign",
            lambda eps_hat, g, sigma, w: eps_hat + w * sigma * g,
            "you flee the class. The score gets + w g, and eps is minus sigma times the score.",
        ),
        Slip(
            "no sigma",
            lambda eps_hat, g, sigma, w: eps_hat - w * g,
            "sigma_t is missing: the gradient belongs to the score, and eps = -sigma_t score.",
        ),
        Slip(
            "sigma squared",
            lambda eps_hat, g, sigma, w: eps_hat - w * sigma**2 * g,
            "sigma_t squared is 1 - alpha_bar. On eps it is its root, sqrt(1 - alpha_bar) = sigma_t.",
        ),
        Slip(
            "divided by sigma",
            lambda eps_hat, g, sigma, w: eps_hat - w * g / sigma,
            "you divided by sigma_t: that turns eps into a score. Here a score's gradient becomes eps: multiply.",
        ),
        Slip(
            "1 + w",
            lambda eps_hat, g, sigma, w: eps_hat - (1 + w) * sigma * g,
            "w = 0 must leave eps_hat as it is. A classifier's scale counts from 0, the 1 + s is of classifier-free papers.",
        ),
        Slip(
            "scaled model too",
            lambda eps_hat, g, sigma, w: (1 - w) * eps_hat - w * sigma * g,
            "1 - w belongs in front of the unconditional score when the other term is a conditional score. "
            "Here it is a classifier's gradient, and the model's score keeps its weight 1.",
        ),
    ),
)


# Guided image by a classifier

X0 = Exercise(
    name="guidance-x0",
    question="Guided x0 from x0_hat, the gradient g of log p(y | x_t) in x_t, alpha_t, sigma_t and the scale w.",
    answer=lambda x0_hat, g, alpha, sigma, w: x0_hat + w * sigma**2 / alpha * g,
    cases=((0.5, 0.8, 0.8, 0.6, 2.0), (-1.0, 0.3, 0.3, 0.95, 1.0), (0.2, -1.5, 0.9, 0.4, 3.0)),
    slips=(
        Slip(
            "sign",
            lambda x0_hat, g, alpha, sigma, w: x0_hat - w * sigma**2 / alpha * g,
            "the minus is for eps. x0 = (x_t + sigma^2 score) / alpha grows with the score.",
        ),
        Slip(
            "the push of eps",
            lambda x0_hat, g, alpha, sigma, w: x0_hat - w * sigma * g,
            "that is the push on eps. What eps loses, x0 gains, times sigma / alpha.",
        ),
        Slip(
            "no alpha",
            lambda x0_hat, g, alpha, sigma, w: x0_hat + w * sigma**2 * g,
            "alpha_t x0 moves by sigma^2 w g; divide by alpha_t.",
        ),
        Slip(
            "sigma for sigma squared",
            lambda x0_hat, g, alpha, sigma, w: x0_hat + w * sigma / alpha * g,
            "one sigma_t turns the score into eps, a second one turns eps into x0: sigma_t squared.",
        ),
        Slip(
            "bare gradient",
            lambda x0_hat, g, alpha, sigma, w: x0_hat + w * g,
            "the gradient is a push on the score. On x0 it has the factor sigma^2 / alpha.",
        ),
    ),
)


# Classifier-free, in this book's w


CFG = Exercise(
    name="guidance-weight",
    question="Guided eps from eps_null, eps_y and the CFG paper's weight s, in which 0 is plain conditional.",
    answer=lambda eps_null, eps_y, s: (1 + s) * eps_y - s * eps_null,
    cases=((0.5, 1.1, 2.0), (-0.3, 0.4, 1.0), (1.0, 0.2, 0.5), (0.4, -0.6, 0.0)),
    slips=(
        Slip(
            "w for s",
            lambda eps_null, eps_y, s: (1 - s) * eps_null + s * eps_y,
            "that is this book's w, in which 1 is plain conditional. In the CFG paper 0 is: w = 1 + s.",
        ),
        Slip(
            "exchanged",
            lambda eps_null, eps_y, s: (1 + s) * eps_null - s * eps_y,
            "conditional and unconditional are exchanged: you push away from y.",
        ),
        Slip(
            "starts from null",
            lambda eps_null, eps_y, s: (1 + s) * (eps_y - eps_null),
            "the estimate itself is missing. The weights of the two must sum to 1.",
        ),
        Slip(
            "sum of weights",
            lambda eps_null, eps_y, s: (1 + s) * eps_y + s * eps_null,
            "your weights sum to 1 + 2 s. They must sum to 1: where the two agree, guidance does nothing.",
        ),
        Slip(
            "one step too far",
            lambda eps_null, eps_y, s: (2 + s) * eps_y - (1 + s) * eps_null,
            "1 was added twice: w = 1 + s, and eps_y has the weight w.",
        ),
    ),
)


# The implicit classifier

IMPLICIT = Exercise(
    name="guidance-implicit",
    question="Gradient of log p(y | x_t) in x_t from eps_null, eps_y and alpha_bar_t, variance preserving.",
    answer=lambda eps_null, eps_y, alpha_bar: (eps_null - eps_y) / sqrt(1 - alpha_bar),
    cases=((0.5, 1.1, 0.36), (-0.3, 0.4, 0.9), (1.0, 0.2, 0.05)),
    slips=(
        Slip(
            "no sqrt(1 - alpha_bar)",
            lambda eps_null, eps_y, alpha_bar: eps_null - eps_y,
            "sqrt(1 - alpha_bar) is missing: a difference of eps is -sigma_t times the gradient.",
        ),
        Slip(
            "sign",
            lambda eps_null, eps_y, alpha_bar: (eps_y - eps_null) / sqrt(1 - alpha_bar),
            "the sign: the score is minus eps over sigma, and the conditional score comes first.",
        ),
        Slip(
            "multiplied",
            lambda eps_null, eps_y, alpha_bar: (eps_null - eps_y) * sqrt(1 - alpha_bar),
            "you multiplied by sigma_t. From eps to a score one divides.",
        ),
        Slip(
            "variance for deviation",
            lambda eps_null, eps_y, alpha_bar: (eps_null - eps_y) / (1 - alpha_bar),
            "1 - alpha_bar is the variance of the noise; divide by its deviation.",
        ),
        Slip(
            "signal for noise",
            lambda eps_null, eps_y, alpha_bar: (eps_null - eps_y) / sqrt(alpha_bar),
            "sqrt(alpha_bar) is the signal's coefficient. The noise has sqrt(1 - alpha_bar).",
        ),
    ),
)


# The gradient itself: two lumps at -1 and 1


def logistic_gradient(alpha: float, variance: float, x_t: float) -> float:
    """d/dx log p(y = +1 | x_t) for two equal lumps of noisy variance `variance` at -alpha and alpha."""
    return 2 * alpha / variance / (1 + exp(2 * alpha * x_t / variance))


GRADIENT = Exercise(
    name="guidance-gradient",
    question="Derivative in x_t of log p(y = +1 | x_t), for lumps at -1 and 1 of deviation c: from alpha, sigma, c and x_t.",
    answer=lambda alpha, sigma, c, x_t: logistic_gradient(alpha, alpha**2 * c**2 + sigma**2, x_t),
    cases=((0.8, 0.6, 0.5, 0.3), (0.95, 0.3, 0.5, -0.9), (0.4, 0.9, 0.2, 1.5), (0.7, 0.7, 0.3, 0.0)),
    slips=(
        Slip(
            "clean classifier",
            lambda alpha, sigma, c, x_t: logistic_gradient(1, c**2, x_t),
            "that is the classifier of clean data. At x_t the lumps lie at -alpha and alpha, and noise has widened them.",
        ),
        Slip(
            "probability",
            lambda alpha, sigma, c, x_t: (
                logistic_gradient(alpha, alpha**2 * c**2 + sigma**2, x_t)
                / (1 + exp(-2 * alpha * x_t / (alpha**2 * c**2 + sigma**2)))
            ),
            "that is the derivative of the probability. Bayes' rule for scores has that of its logarithm: divide by p.",
        ),
        Slip(
            "score of the lump",
            lambda alpha, sigma, c, x_t: (alpha - x_t) / (alpha**2 * c**2 + sigma**2),
            "that is the conditional score. Subtract the unconditional one.",
        ),
        Slip(
            "other class",
            lambda alpha, sigma, c, x_t: -logistic_gradient(alpha, alpha**2 * c**2 + sigma**2, -x_t),
            "that leads to the lump at -1.",
        ),
        Slip(
            "noise only",
            lambda alpha, sigma, c, x_t: logistic_gradient(alpha, sigma**2, x_t),
            "the lumps have a width of their own: the variance of x_t in a lump is alpha^2 c^2 + sigma^2.",
        ),
        Slip(
            "log-odds",
            lambda alpha, sigma, c, x_t: 2 * alpha / (alpha**2 * c**2 + sigma**2),
            "that is the derivative of the log-odds. Of log p it is that times 1 - p.",
        ),
    ),
)


# The mean shift of a step, on eps

SHIFT = Exercise(
    name="guidance-shift",
    question=(
        "Guided eps of the mean shift, from eps_hat, the gradient g at the mean, beta_k, alpha_bar_k, "
        "the variance var of the reverse step, and w."
    ),
    answer=lambda eps_hat, g, beta, bar, var, w: eps_hat - w * var / beta * sqrt((1 - bar) * (1 - beta)) * g,
    cases=((0.5, 0.8, 0.1, 0.45, 0.1, 2.0), (-1.0, 0.3, 0.3, 0.2, 0.25, 1.0), (0.2, -1.5, 0.05, 0.9, 0.03, 3.0)),
    slips=(
        Slip(
            "variance beta",
            lambda eps_hat, g, beta, bar, var, w: eps_hat - w * sqrt((1 - bar) * (1 - beta)) * g,
            "you took the large variance, var = beta. With another one the factor var / beta stays.",
        ),
        Slip(
            "deviation for variance",
            lambda eps_hat, g, beta, bar, var, w: eps_hat - w * sqrt(var) / beta * sqrt((1 - bar) * (1 - beta)) * g,
            "the mean moves by w times the variance of the step times g, not by its deviation.",
        ),
        Slip(
            "no 1 - beta",
            lambda eps_hat, g, beta, bar, var, w: eps_hat - w * var / beta * sqrt(1 - bar) * g,
            "the mean is divided by sqrt(1 - beta), so eps must be moved that much less.",
        ),
        Slip(
            "no sqrt(1 - alpha_bar)",
            lambda eps_hat, g, beta, bar, var, w: eps_hat - w * var / beta * sqrt(1 - beta) * g,
            "sqrt(1 - alpha_bar) is missing: the mean holds beta / sqrt(1 - alpha_bar) times eps.",
        ),
        Slip(
            "sign",
            lambda eps_hat, g, beta, bar, var, w: eps_hat + w * var / beta * sqrt((1 - bar) * (1 - beta)) * g,
            "eps stands with a minus in the mean: to move the mean by + w var g, eps must fall.",
        ),
        Slip(
            "shift of the mean",
            lambda eps_hat, g, beta, bar, var, w: eps_hat - w * var * g,
            "w var g is the shift of the mean. Which change of eps moves the mean that much?",
        ),
    ),
)


# What the guided ODE draws

VARIANCE = Exercise(
    name="guidance-variance",
    question="Variance of what the guided ODE draws, from v_null and v_y of the two centred Gaussian laws, and w.",
    answer=lambda v_null, v_y, w: v_null ** (1 - w) * v_y**w,
    cases=((4.0, 1.0, 2.0), (2.0, 0.5, 3.0), (9.0, 4.0, 0.5), (3.0, 2.0, 1.5)),
    slips=(
        Slip(
            "tilt",
            lambda v_null, v_y, w: 1 / ((1 - w) / v_null + w / v_y),
            "that is the tilted density's variance. The score at time t is guided with the noisy variances, "
            "and the ODE integrates over all of them.",
        ),
        Slip(
            "mixture of variances",
            lambda v_null, v_y, w: (1 - w) * v_null + w * v_y,
            "you mixed the variances. For v_null = 4, v_y = 1, w = 2 that would be -2.",
        ),
        Slip(
            "conditional",
            lambda v_null, v_y, w: v_y,
            "that is w = 1. A larger w narrows the law.",
        ),
        Slip(
            "deviation",
            lambda v_null, v_y, w: v_null ** ((1 - w) / 2) * v_y ** (w / 2),
            "that is the deviation. The variance is its square.",
        ),
        Slip(
            "1 + w",
            lambda v_null, v_y, w: v_null**-w * v_y ** (1 + w),
            "you used 1 + w for w: at w = 1 the variance must be v_y.",
        ),
        Slip(
            "exchanged",
            lambda v_null, v_y, w: v_null**w * v_y ** (1 - w),
            "the two laws are exchanged: at w = 1 the variance must be v_y.",
        ),
    ),
)


# The interval

INTERVAL = Exercise(
    name="guidance-interval",
    question=(
        "Variance of the guided ODE when guidance acts for log-SNR between low and high only, and w = 1 elsewhere: "
        "from v_null, v_y, w, low, high."
    ),
    answer=lambda v_null, v_y, w, low, high: (
        v_y * ((v_y + exp(-high)) * (v_null + exp(-low)) / ((v_null + exp(-high)) * (v_y + exp(-low)))) ** (w - 1)
    ),
    cases=((4.0, 1.0, 2.0, -1.0, 1.0), (2.0, 0.5, 3.0, -3.0, 0.5), (9.0, 4.0, 1.5, 0.0, log(5))),
    slips=(
        Slip(
            "everywhere",
            lambda v_null, v_y, w, low, high: v_null ** (1 - w) * v_y**w,
            "that is guidance everywhere. Outside the interval the plain conditional score is followed.",
        ),
        Slip(
            "nothing outside",
            lambda v_null, v_y, w, low, high: (
                v_y * ((v_y + exp(-high)) * (v_null + exp(-low)) / ((v_null + exp(-high)) * (v_y + exp(-low)))) ** w
            ),
            "inside, the extra over w = 1 has the exponent w - 1; with w the plain conditional part is counted twice.",
        ),
        Slip(
            "sign of the log-SNR",
            lambda v_null, v_y, w, low, high: (
                v_y * ((v_y + exp(low)) * (v_null + exp(high)) / ((v_null + exp(low)) * (v_y + exp(high)))) ** (w - 1)
            ),
            "tau = sigma^2 / alpha^2 is exp(-log-SNR): the high log-SNR is the low noise.",
        ),
        Slip(
            "upside down",
            lambda v_null, v_y, w, low, high: (
                v_y
                * ((v_y + exp(-high)) * (v_null + exp(-low)) / ((v_null + exp(-high)) * (v_y + exp(-low)))) ** (1 - w)
            ),
            "the bracket stands upside down: guidance with w > 1 narrows the law.",
        ),
        Slip(
            "deviation",
            lambda v_null, v_y, w, low, high: (
                v_y
                * ((v_y + exp(-high)) * (v_null + exp(-low)) / ((v_null + exp(-high)) * (v_y + exp(-low))))
                ** ((w - 1) / 2)
            ),
            "that is how a deviation is narrowed. A variance is narrowed by the square.",
        ),
    ),
)

EXERCISES = (EPS, X0, CFG, IMPLICIT, GRADIENT, SHIFT, VARIANCE, INTERVAL)
