"""Exercises of the chapter `book/elbo.md`."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, sqrt

from diffusion_edu.exercises import Exercise, Slip

# The posterior, by completing the square


def posterior_of(a: float, b: float, c: float, d: float, x_t: float, x_0: float) -> tuple[float, float]:
    """Mean and variance of q(x_s | x_t, x_0) from q(x_t | x_s) = N(a x_s, b) and q(x_s | x_0) = N(c x_0, d)."""
    variance = 1 / (a**2 / b + 1 / d)
    return variance * (a * x_t / b + c * x_0 / d), variance


def _mean_with(variance: float, a: float, b: float, c: float, d: float, x_t: float, x_0: float) -> tuple[float, float]:
    return variance * (a * x_t / b + c * x_0 / d), variance


POSTERIOR = Exercise(
    name="elbo-posterior",
    question="Mean and variance of q(x_s | x_t, x_0) from q(x_t | x_s) = N(a x_s, b) and q(x_s | x_0) = N(c x_0, d).",
    answer=posterior_of,
    cases=((0.9, 0.19, 0.8, 0.36, 0.5, -0.4), (0.5, 0.75, 0.3, 0.91, -1.1, 0.7), (1.0, 2.0, 1.0, 0.5, 0.2, 1.5)),
    slips=(
        Slip(
            "variances added",
            lambda a, b, c, d, x_t, x_0: _mean_with(b + a**2 * d, a, b, c, d, x_t, x_0),
            "you add variances: that is the variance of x_t given x_0. In a product of Gaussians the precisions add.",
        ),
        Slip(
            "a for a squared",
            lambda a, b, c, d, x_t, x_0: _mean_with(1 / (a / b + 1 / d), a, b, c, d, x_t, x_0),
            "the coefficient of x_s^2 in (x_t - a x_s)^2 / b is a^2 / b, not a / b.",
        ),
        Slip(
            "missing a",
            lambda a, b, c, d, x_t, x_0: (
                (x_t / b + c * x_0 / d) / (a**2 / b + 1 / d),
                1 / (a**2 / b + 1 / d),
            ),
            "the linear term of (x_t - a x_s)^2 / b is -2 a x_t x_s / b: x_t comes with the factor a.",
        ),
        Slip(
            "precision for variance",
            lambda a, b, c, d, x_t, x_0: (posterior_of(a, b, c, d, x_t, x_0)[0], a**2 / b + 1 / d),
            "your second number is the precision. The variance is its inverse.",
        ),
        Slip(
            "deviation",
            lambda a, b, c, d, x_t, x_0: (posterior_of(a, b, c, d, x_t, x_0)[0], (a**2 / b + 1 / d) ** -0.5),
            "your second number is the standard deviation. Asked for is the variance.",
        ),
        Slip(
            "not normalised",
            lambda a, b, c, d, x_t, x_0: (a * x_t / b + c * x_0 / d, 1 / (a**2 / b + 1 / d)),
            "that is the coefficient of x_s, mean over variance. Multiply by the variance to get the mean.",
        ),
    ),
)


# The telescope


def turned_around(steps: Sequence[float], marginals: Sequence[float]) -> float:
    """Sum over k = 2 ... T of E log q(x_{k-1} | x_k, x_0)."""
    return sum(steps[1:]) + marginals[0] - marginals[-1]


TELESCOPE = Exercise(
    name="elbo-telescope",
    question="Sum over k = 2 ... T of E log q(x_{k-1} | x_k, x_0), from E log q(x_k | x_{k-1}) and E log q(x_k | x_0).",
    answer=turned_around,
    cases=(
        ((-0.5, -0.9, -1.2, -1.3), (-0.5, -1.0, -1.3, -1.4)),
        ((0.8, 0.1, -0.4), (0.8, 0.3, -0.7)),
        ((-0.2, -0.6, -0.7, -0.9, -1.1), (-0.2, -0.5, -0.95, -1.2, -1.35)),
    ),
    slips=(
        Slip(
            "no marginals",
            lambda steps, marginals: sum(steps[1:]),
            "Bayes' rule brings a fraction of marginals with each step. In the sum they cancel, but for two.",
        ),
        Slip(
            "sign of the ends",
            lambda steps, marginals: sum(steps[1:]) - marginals[0] + marginals[-1],
            "the two marginals that survive have the wrong signs: q(x_{k-1} | x_k, x_0) = q(x_k | x_{k-1}) "
            "q(x_{k-1} | x_0) / q(x_k | x_0).",
        ),
        Slip(
            "the first step too",
            lambda steps, marginals: sum(steps) + marginals[0] - marginals[-1],
            "you count the step k = 1, which has no reverse: x_0 given x_0 is certain. The sum starts at k = 2.",
        ),
        Slip(
            "only one end",
            lambda steps, marginals: sum(steps[1:]) - marginals[-1],
            "one of the two surviving marginals is missing: q(x_1 | x_0), the first denominator.",
        ),
        Slip(
            "all marginals",
            lambda steps, marginals: sum(steps[1:]) - sum(marginals[1:]),
            "you subtract every log q(x_k | x_0), but each also comes back as the numerator of the next step.",
        ),
    ),
)


# Two Gaussians


def divergence(d: int, gap: float, v_1: float, v_2: float) -> float:
    """KL(N(m_1, v_1 I) || N(m_2, v_2 I)) in d dimensions, gap = |m_1 - m_2|^2."""
    return (d * v_1 / v_2 - d + d * log(v_2 / v_1) + gap / v_2) / 2


KL = Exercise(
    name="elbo-kl",
    question="KL(N(m_1, v_1 I) || N(m_2, v_2 I)) in d dimensions, in nats, given gap = |m_1 - m_2|^2.",
    answer=divergence,
    cases=((1, 0.5, 0.8, 1.3), (3, 0.0, 0.2, 0.5), (10, 4.0, 2.0, 0.7), (2, 1.0, 1.0, 1.0)),
    slips=(
        Slip(
            "missing half",
            lambda d, gap, v_1, v_2: 2 * divergence(d, gap, v_1, v_2),
            "everything is twice too large: the Gaussian has a factor 1/2 in its exponent, and its root in front.",
        ),
        Slip(
            "wrong variance under the gap",
            lambda d, gap, v_1, v_2: (d * v_1 / v_2 - d + d * log(v_2 / v_1) + gap / v_1) / 2,
            "the distance of the means is measured in the second Gaussian's variance: it is the one whose "
            "density is evaluated there.",
        ),
        Slip(
            "the other direction",
            lambda d, gap, v_1, v_2: divergence(d, gap, v_2, v_1),
            "that is KL(N_2 || N_1). The average is over the first of the two.",
        ),
        Slip(
            "standard deviations in the logarithm",
            lambda d, gap, v_1, v_2: (d * v_1 / v_2 - d + d * log(v_2 / v_1) / 2 + gap / v_2) / 2,
            "the logarithm is halved once too often: the determinant of v I is v^d, and one half stands in front "
            "of everything.",
        ),
        Slip(
            "dimension forgotten",
            lambda d, gap, v_1, v_2: (v_1 / v_2 - 1 + log(v_2 / v_1) + gap / v_2) / 2,
            "trace and determinant grow with the dimension: every coordinate pays.",
        ),
        Slip(
            "no constant",
            lambda d, gap, v_1, v_2: (d * v_1 / v_2 + d * log(v_2 / v_1) + gap / v_2) / 2,
            "for equal Gaussians your divergence is d / 2 instead of 0: the -d of the first quadratic form is missing.",
        ),
        Slip(
            "equal variances assumed",
            lambda d, gap, v_1, v_2: gap / (2 * v_2),
            "that holds for equal variances. Otherwise trace and logarithm add their part.",
        ),
    ),
)


# The three readings


def weight_of_x0(beta: float, bar_s: float) -> float:
    """Factor of |x_0 - x0_hat|^2 in a step's divergence."""
    bar_t = (1 - beta) * bar_s
    return (bar_s / (1 - bar_s) - bar_t / (1 - bar_t)) / 2


X0_WEIGHT = Exercise(
    name="elbo-x0-weight",
    question="Factor of |x_0 - x0_hat|^2 in the divergence of one step, from beta and alpha_bar_s.",
    answer=weight_of_x0,
    cases=((0.02, 0.9), (0.1, 0.5), (0.3, 0.08)),
    slips=(
        Slip(
            "drop of the signal",
            lambda beta, bar_s: (bar_s - (1 - beta) * bar_s) / 2,
            "that is half the drop of alpha_bar. It is the signal-to-noise ratio, alpha_bar / (1 - alpha_bar), "
            "whose drop counts.",
        ),
        Slip(
            "weight of the noise",
            lambda beta, bar_s: (bar_s / (1 - bar_s) / ((1 - beta) * bar_s / (1 - (1 - beta) * bar_s)) - 1) / 2,
            "that is the factor of |eps - eps_hat|^2. An error of x_0 counts SNR(t) times as much.",
        ),
        Slip(
            "missing half",
            lambda beta, bar_s: bar_s / (1 - bar_s) - (1 - beta) * bar_s / (1 - (1 - beta) * bar_s),
            "the half of the Gaussian's exponent is missing.",
        ),
        Slip(
            "large variance",
            lambda beta, bar_s: bar_s * beta / (2 * (1 - (1 - beta) * bar_s) ** 2),
            "you divide by 2 beta. The step's target has the variance beta~ = beta (1 - alpha_bar_s) / (1 - "
            "alpha_bar_t).",
        ),
        Slip(
            "not squared",
            lambda beta, bar_s: sqrt(bar_s) / (2 * (1 - bar_s)),
            "you divide the difference of the means by the variance without squaring it first.",
        ),
    ),
)


def weight_of_eps(beta: float, bar_t: float, variance: float) -> float:
    """Factor of |eps - eps_hat|^2 in a step whose model has this variance."""
    return beta**2 / (2 * variance * (1 - beta) * (1 - bar_t))


EPS_WEIGHT = Exercise(
    name="elbo-eps-weight",
    question="Factor of |eps - eps_hat|^2 in the divergence of one step, for a model of any given variance.",
    answer=weight_of_eps,
    cases=((0.02, 0.88, 0.01), (0.1, 0.45, 0.1), (0.3, 0.05, 0.25)),
    slips=(
        Slip(
            "beta for beta squared",
            lambda beta, bar_t, variance: beta / (2 * variance * (1 - beta) * (1 - bar_t)),
            "the means differ by beta / sqrt((1 - beta)(1 - alpha_bar)) times the error; squared, beta becomes beta^2.",
        ),
        Slip(
            "alpha_bar for alpha",
            lambda beta, bar_t, variance: beta**2 / (2 * variance * bar_t * (1 - bar_t)),
            "you have alpha_bar_t where the paper has alpha_t = 1 - beta_t.",
        ),
        Slip(
            "variance squared",
            lambda beta, bar_t, variance: beta**2 / (2 * variance**2 * (1 - beta) * (1 - bar_t)),
            "the variance stands below once. Its square would come from taking it for a standard deviation.",
        ),
        Slip(
            "no transition",
            lambda beta, bar_t, variance: beta**2 / (2 * variance * (1 - bar_t)),
            "the factor 1 / (1 - beta) is missing: the step also undoes the shrinking by sqrt(1 - beta).",
        ),
        Slip(
            "simple loss",
            lambda beta, bar_t, variance: 1.0,
            "1 is the weight of the simple loss, a choice. The bound's weight depends on the step.",
        ),
    ),
)


def score_constant(alpha: float, sigma: float, c: float) -> float:
    """E |conditional score - marginal score|^2 for data N(0, c^2)."""
    return 1 / sigma**2 - 1 / (alpha**2 * c**2 + sigma**2)


SCORE_CONSTANT = Exercise(
    name="elbo-score-constant",
    question="E |grad log q(x_t | x_0) - grad log q(x_t)|^2 for data N(0, c^2).",
    answer=score_constant,
    cases=((0.8, 0.6, 1.0), (0.3, sqrt(0.91), 0.5), (1.0, 2.0, 3.0)),
    slips=(
        Slip(
            "zero",
            lambda alpha, sigma, c: 0.0,
            "the two scores agree on average given x_t, but not for each x_0. Their mean squared difference is "
            "what is not known about x_0.",
        ),
        Slip(
            "mean square of the conditional score",
            lambda alpha, sigma, c: 1 / sigma**2,
            "that is the mean square of the conditional score alone. The part that x_t explains has to be taken off.",
        ),
        Slip(
            "sum for difference",
            lambda alpha, sigma, c: 1 / sigma**2 + 1 / (alpha**2 * c**2 + sigma**2),
            "the two are not independent: the cross term is -2 E|marginal|^2, which turns the plus into a minus.",
        ),
        Slip(
            "variance of x_0",
            lambda alpha, sigma, c: alpha**2 / sigma**4 * c**2,
            "you use the variance of x_0 before x_t is seen. It is Var[x_0 | x_t] that counts.",
        ),
        Slip(
            "sigma squared for its square",
            lambda alpha, sigma, c: alpha**2 / sigma**2 * c**2 * sigma**2 / (alpha**2 * c**2 + sigma**2),
            "the conditional score is (alpha x_0 - x_t) / sigma^2: its variance has sigma to the fourth below.",
        ),
    ),
)


# Prior, bits


def prior_cost(d: int, energy: float, bar: float) -> float:
    """KL(q(x_T | x_0) || N(0, I)) with alpha_T^2 = bar = 1 - sigma_T^2 and |x_0|^2 = energy."""
    return (bar * energy - d * bar - d * log(1 - bar)) / 2


PRIOR = Exercise(
    name="elbo-prior",
    question="KL(q(x_T | x_0) || N(0, I)) in d dimensions, from energy = |x_0|^2 and bar = alpha_T^2.",
    answer=prior_cost,
    cases=((1, 0.64, 0.3), (784, 700.0, 0.02), (2, 5.0, 0.6)),
    slips=(
        Slip(
            "missing half",
            lambda d, energy, bar: 2 * prior_cost(d, energy, bar),
            "everything is twice too large: the Gaussian has a factor 1/2 in its exponent, and its root in front.",
        ),
        Slip(
            "means only",
            lambda d, energy, bar: bar * energy / 2,
            "that is the means' part. x_T also has less variance than the prior, 1 - bar, and that costs -bar - "
            "log(1 - bar) for each coordinate.",
        ),
        Slip(
            "sign of the logarithm",
            lambda d, energy, bar: (bar * energy - d * bar + d * log(1 - bar)) / 2,
            "the logarithm has the wrong sign: with energy 0 your divergence would be negative.",
        ),
        Slip(
            "alpha for alpha squared",
            lambda d, energy, bar: (sqrt(bar) * energy - d * bar - d * log(1 - bar)) / 2,
            "the mean is alpha x_0, so its square is bar times the energy.",
        ),
        Slip(
            "dimension forgotten",
            lambda d, energy, bar: (bar * energy - bar - log(1 - bar)) / 2,
            "the variance's part is paid by each of the d coordinates.",
        ),
        Slip(
            "missing trace",
            lambda d, energy, bar: (bar * energy - d * log(1 - bar)) / 2,
            "trace minus dimension is d (1 - bar) - d = -d bar. It is missing.",
        ),
    ),
)


def bits(nats: float, d: int) -> float:
    """Bits a dimension of dequantised images in [-1, 1] with 256 grey values, nats = -E log p."""
    return (nats / d - log(2 / 255)) / log(2)


BITS = Exercise(
    name="elbo-bits",
    question="Bits a dimension from -E log p in nats, for dequantised images in [-1, 1] with 256 grey values.",
    answer=bits,
    cases=((-2500.0, 784), (-9000.0, 3072), (120.0, 784)),
    slips=(
        Slip(
            "width forgotten",
            lambda nats, d: nats / d / log(2),
            "that is a density in units of the range [-1, 1]. A grey value is 2 / 255 wide; its logarithm is "
            "missing, 7 bits.",
        ),
        Slip(
            "sign of the width",
            lambda nats, d: (nats / d + log(2 / 255)) / log(2),
            "P = p times width, so -log P = -log p - log(width). A narrow cell must cost more bits.",
        ),
        Slip(
            "nats",
            lambda nats, d: nats / d - log(2 / 255),
            "these are nats. Divide by log 2.",
        ),
        Slip(
            "1 / 256",
            lambda nats, d: (nats / d - log(1 / 256)) / log(2),
            "1 / 256 is the width for pixels scaled to [0, 1). In [-1, 1] neighbouring values are 2 / 255 apart.",
        ),
        Slip(
            "one cell for the image",
            lambda nats, d: (nats - log(2 / 255)) / d / log(2),
            "every one of the d pixels has its cell: the image's cell has the volume width^d.",
        ),
    ),
)


# Learned variance


def hybrid_gradients(d: float, w: float, q: float, log_variance: float, weight: float) -> tuple[float, float]:
    """Derivatives of d^2 + weight KL by d (stopped in the KL) and by the log-variance."""
    return 2 * d, weight * (1 - (q + w**2 * d**2) / exp(log_variance)) / 2


def _by_variance(d: float, w: float, q: float, log_variance: float, weight: float) -> float:
    return hybrid_gradients(d, w, q, log_variance, weight)[1]


HYBRID = Exercise(
    name="elbo-hybrid",
    question="Derivatives of the hybrid loss by the noise error d and by the log-variance, gradient stopped at the mean.",
    answer=hybrid_gradients,
    cases=((0.5, 0.3, 0.02, -3.0, 0.1), (-1.2, 0.1, 0.05, -2.5, 1.0), (0.2, 0.9, 0.3, -0.5, 0.5)),
    slips=(
        Slip(
            "not stopped",
            lambda d, w, q, log_variance, weight: (
                2 * d + weight * w**2 * d / exp(log_variance),
                _by_variance(d, w, q, log_variance, weight),
            ),
            "the divergence reaches the mean: its gradient should be stopped there, so that only the simple loss "
            "teaches it.",
        ),
        Slip(
            "stopped at the variance",
            lambda d, w, q, log_variance, weight: (2 * d + weight * w**2 * d / exp(log_variance), 0.0),
            "you stopped the wrong one. The simple loss does not contain the variance, so the divergence must teach it.",
        ),
        Slip(
            "mean forgotten in the divergence",
            lambda d, w, q, log_variance, weight: (2 * d, weight * (1 - q / exp(log_variance)) / 2),
            "a stopped gradient does not set the value to 0: the error of the mean stays in the divergence, and "
            "the variance must cover it.",
        ),
        Slip(
            "derivative by the variance",
            lambda d, w, q, log_variance, weight: (
                2 * d,
                _by_variance(d, w, q, log_variance, weight) / exp(log_variance),
            ),
            "that is the derivative by the variance. By its logarithm it is the variance times that.",
        ),
        Slip(
            "weight forgotten",
            lambda d, w, q, log_variance, weight: (2 * d, _by_variance(d, w, q, log_variance, 1.0)),
            "the divergence enters with a small weight.",
        ),
    ),
)


def best_variance(beta: float, bar_s: float, uncertainty: float) -> float:
    """The variance that minimises a step's expected divergence, one coordinate."""
    bar_t = (1 - beta) * bar_s
    return beta * (1 - bar_s) / (1 - bar_t) + bar_s * beta**2 / (1 - bar_t) ** 2 * uncertainty


BEST_VARIANCE = Exercise(
    name="elbo-best-variance",
    question="The best variance of a reverse step from beta, alpha_bar_s and Var[x_0 | x_t].",
    answer=best_variance,
    cases=((0.02, 0.9, 0.05), (0.1, 0.5, 0.4), (0.3, 0.08, 0.9), (0.2, 0.7, 0.0)),
    slips=(
        Slip(
            "small variance",
            lambda beta, bar_s, uncertainty: best_variance(beta, bar_s, 0.0),
            "that is the posterior's variance, right if x_0 were known. What is not known about x_0 adds to it.",
        ),
        Slip(
            "large variance",
            lambda beta, bar_s, uncertainty: beta,
            "beta is right for standard normal data. In general the answer depends on Var[x_0 | x_t].",
        ),
        Slip(
            "weight not squared",
            lambda beta, bar_s, uncertainty: (
                best_variance(beta, bar_s, 0.0) + sqrt(bar_s) * beta / (1 - (1 - beta) * bar_s) * uncertainty
            ),
            "a variance scales with the square of the weight of x_0 in the posterior's mean.",
        ),
        Slip(
            "deviation for variance",
            lambda beta, bar_s, uncertainty: (
                best_variance(beta, bar_s, 0.0) + bar_s * beta**2 / (1 - (1 - beta) * bar_s) ** 2 * sqrt(uncertainty)
            ),
            "you add a multiple of the standard deviation of x_0. Variances add.",
        ),
        Slip(
            "no weight",
            lambda beta, bar_s, uncertainty: best_variance(beta, bar_s, 0.0) + uncertainty,
            "x_0 enters the posterior's mean with a small weight. Without it a short step would be as uncertain "
            "as the image.",
        ),
    ),
)

EXERCISES = (
    POSTERIOR,
    TELESCOPE,
    KL,
    X0_WEIGHT,
    EPS_WEIGHT,
    SCORE_CONSTANT,
    PRIOR,
    BITS,
    HYBRID,
    BEST_VARIANCE,
)
