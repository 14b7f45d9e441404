"""Exercises of the chapter `book/fast.md`."""

from __future__ import annotations

from math import exp, log, log1p, sqrt

from diffusion_edu.exercises import Exercise, Slip

# The noise that a step of the family keeps


def kept(sigma_s: float, fresh: float) -> float:
    """sqrt(sigma_s^2 - fresh^2)."""
    return sqrt(sigma_s**2 - fresh**2)


KEPT = Exercise(
    name="fast-kept",
    question="Factor of eps_hat in a step to noise sigma_s that draws fresh noise of deviation `fresh`.",
    answer=kept,
    cases=((0.8, 0.3), (0.5, 0.1), (0.9, 0.85)),
    slips=(
        Slip(
            "root over one term",
            lambda sigma_s, fresh: sigma_s - fresh**2,
            "the root belongs over the whole difference. As it stands a deviation and a variance are subtracted.",
        ),
        Slip(
            "difference of deviations",
            lambda sigma_s, fresh: sigma_s - fresh,
            "independent noises add their variances, not their deviations.",
        ),
        Slip("variance", lambda sigma_s, fresh: sigma_s**2 - fresh**2, "that is the variance: take its root."),
        Slip(
            "nothing subtracted",
            lambda sigma_s, fresh: sigma_s,
            "the fresh noise comes on top of that: x_s would be too noisy.",
        ),
        Slip("sum", lambda sigma_s, fresh: sqrt(sigma_s**2 + fresh**2), "what is drawn anew is no longer kept: minus."),
    ),
)


# eta


def fresh_noise(alpha_t: float, sigma_t: float, alpha_s: float, sigma_s: float, eta: float) -> float:
    """eta sigma_s sigma_{t|s} / sigma_t."""
    return eta * sigma_s * sqrt(sigma_t**2 - (alpha_t / alpha_s) ** 2 * sigma_s**2) / sigma_t


ETA = Exercise(
    name="fast-eta",
    question="Deviation of the fresh noise of DDIM with eta, from alpha_t, sigma_t, alpha_s, sigma_s and eta.",
    answer=fresh_noise,
    cases=((0.6, 0.8, 0.8, 0.6, 1.0), (0.28, 0.96, 0.8, 0.6, 0.5), (0.5, 2.0, 0.9, 0.7, 0.25)),
    slips=(
        Slip(
            "eta on the variance",
            lambda a, b, c, d, eta: fresh_noise(a, b, c, d, 1) * sqrt(eta),
            "you multiply the variance by eta. By convention eta multiplies the deviation.",
        ),
        Slip(
            "variance",
            lambda a, b, c, d, eta: eta * fresh_noise(a, b, c, d, 1) ** 2,
            "the noise is multiplied by a deviation, not by a variance.",
        ),
        Slip(
            "large",
            lambda a, b, c, d, eta: eta * sqrt(b**2 - (a / c) ** 2 * d**2),
            "that is the noise of the forward step. The posterior's deviation has the factor sigma_s / sigma_t.",
        ),
        Slip(
            "alpha for its square",
            lambda a, b, c, d, eta: eta * d * sqrt(b**2 - (a / c) * d**2) / b,
            "the ratio alpha_t / alpha_s must be squared: variances scale with the square.",
        ),
        Slip(
            "ratio upside down",
            lambda a, b, c, d, eta: eta * b * sqrt(b**2 - (a / c) ** 2 * d**2) / d,
            "sigma_s / sigma_t, not its inverse: the noise must vanish for s = 0.",
        ),
    ),
)


# The implied forward step


def on_x0(alpha_t: float, sigma_t: float, alpha_s: float, sigma_s: float, fresh: float) -> float:
    """alpha_t - alpha_s sigma_t sqrt(sigma_s^2 - fresh^2) / sigma_s^2."""
    return alpha_t - alpha_s * sigma_t * sqrt(sigma_s**2 - fresh**2) / sigma_s**2


IMPLIED = Exercise(
    name="fast-implied",
    question="Coefficient of x_0 in the mean of q(x_t | x_s, x_0), for the member with fresh noise `fresh`.",
    answer=on_x0,
    cases=((0.6, 0.8, 0.8, 0.6, 0.0), (0.5**0.5, 0.5**0.5, 0.8**0.5, 0.2**0.5, 0.2), (0.3, 1.5, 0.9, 0.5, 0.3)),
    slips=(
        Slip(
            "Markov",
            lambda a, b, c, d, fresh: 0.0,
            "zero is right for the posterior's own variance only. Every other member knows x_0.",
        ),
        Slip(
            "no x_s",
            lambda a, b, c, d, fresh: a,
            "x_s enters as x_s - alpha_s x_0: that takes a part of x_0 away again.",
        ),
        Slip("sign", lambda a, b, c, d, fresh: -on_x0(a, b, c, d, fresh), "the sign is the other way round."),
        Slip(
            "sigma_s once",
            lambda a, b, c, d, fresh: a - c * b * sqrt(d**2 - fresh**2) / d,
            "divide by sigma_s squared: precisions are inverse variances.",
        ),
        Slip(
            "deterministic",
            lambda a, b, c, d, fresh: a - c * b / d,
            "that is the member without fresh noise, whatever `fresh` is.",
        ),
    ),
)


# Churn

CHURN = Exercise(
    name="fast-churn",
    question="Deviation of the noise that lifts the noise level from `low` to `high`.",
    answer=lambda low, high: sqrt(high**2 - low**2),
    cases=((1.0, 1.1), (0.5, 0.7), (3.0, 4.0)),
    slips=(
        Slip(
            "difference",
            lambda low, high: high - low,
            "variances add, deviations do not: the noise would be far too weak.",
        ),
        Slip("variance", lambda low, high: high**2 - low**2, "that is the variance of the noise: take its root."),
        Slip(
            "full level",
            lambda low, high: high,
            "the noise that is already there counts too: the level would be higher than asked.",
        ),
        Slip(
            "root of the difference",
            lambda low, high: sqrt(high - low),
            "square the levels before you subtract them.",
        ),
    ),
)


# Heun in the noise level


def heun(x: float, level: float, next_level: float, c: float) -> float:
    """One Heun step for slope x level / (c^2 + level^2): Gaussian data of deviation c."""
    h, first = next_level - level, x * level / (c**2 + level**2)
    second = (x + h * first) * next_level / (c**2 + next_level**2)
    return x + h * (first + second) / 2


def states_averaged(x: float, level: float, next_level: float, c: float) -> float:
    """The mean of the trial point and a point reached from it by another whole step."""
    h, first = next_level - level, x * level / (c**2 + level**2)
    trial = x + h * first
    return (trial + trial + h * trial * next_level / (c**2 + next_level**2)) / 2


HEUN = Exercise(
    name="fast-heun",
    question="Heun's step for x / alpha from one noise level to the next; data N(0, c^2), whose eps_hat you know.",
    answer=heun,
    cases=((1.5, 2.0, 1.2, 0.5), (-0.7, 1.0, 0.3, 0.8), (4.0, 5.0, 2.0, 1.0)),
    slips=(
        Slip(
            "Euler",
            lambda x, a, b, c: x + (b - a) * x * a / (c**2 + a**2),
            "that is Euler's step, DDIM. Heun looks at the slope at its end as well.",
        ),
        Slip(
            "states averaged",
            states_averaged,
            "you average the trial point with a second step from it. Average the two slopes, from the same start.",
        ),
        Slip(
            "second slope at the old point",
            lambda x, a, b, c: x + (b - a) * (x * a / (c**2 + a**2) + x * b / (c**2 + b**2)) / 2,
            "the second slope belongs to the trial point, not to the old one: the order is lost.",
        ),
        Slip(
            "slopes added",
            lambda x, a, b, c: x + 2 * (heun(x, a, b, c) - x),
            "the two slopes are averaged, not added.",
        ),
        Slip(
            "sign of the step",
            lambda x, a, b, c: heun(x, a, 2 * a - b, c),
            "the noise level falls: the step is next_level - level, below zero.",
        ),
        Slip(
            "minus",
            lambda x, a, b, c: 2 * x - heun(x, a, b, c),
            "next_level - level is negative already, and your minus turns the last step round once more: add it.",
        ),
    ),
)


# Adams-Bashforth


def second_order(now: float, before: float, step: float, step_before: float) -> float:
    """Mean of a linear function over the step ahead."""
    return now + step / (2 * step_before) * (now - before)


ADAMS = Exercise(
    name="fast-multistep",
    question="Mean slope over the step ahead, of length `step`, from the slopes now and a step `step_before` ago.",
    answer=second_order,
    cases=((1.0, 0.4, 0.5, 0.5), (2.0, 3.0, 0.2, 0.5), (-1.0, 0.5, 0.9, 0.3)),
    slips=(
        Slip(
            "even steps",
            lambda now, before, step, step_before: 1.5 * now - 0.5 * before,
            "those weights are for even steps. Here the two lengths differ.",
        ),
        Slip(
            "oldest first",
            lambda now, before, step, step_before: second_order(before, now, step, step_before),
            "the two slopes have changed places: the newest has the large weight.",
        ),
        Slip(
            "ratio upside down",
            lambda now, before, step, step_before: now + step_before / (2 * step) * (now - before),
            "extrapolate over half the step *ahead*, at the rate of change over the step *behind*.",
        ),
        Slip(
            "end of the step",
            lambda now, before, step, step_before: now + step / step_before * (now - before),
            "that is the slope at the end of the step. Its mean is the one in the middle.",
        ),
        Slip(
            "sign",
            lambda now, before, step, step_before: second_order(now, 2 * now - before, step, step_before),
            "extrapolate forwards: away from the old slope, not back to it.",
        ),
    ),
)


# DPM-Solver++


def exponential_step(x: float, x0: float, alpha_t: float, sigma_t: float, alpha_s: float, sigma_s: float) -> float:
    """sigma_s / sigma_t x - alpha_s (e^-h - 1) x0, h the rise of log(alpha / sigma)."""
    h = log(alpha_s / sigma_s) - log(alpha_t / sigma_t)
    return sigma_s / sigma_t * x - alpha_s * (exp(-h) - 1) * x0


EXPONENTIAL = Exercise(
    name="fast-exponential",
    question="First-order DPM-Solver++ step from x and x0_hat, with alpha_t, sigma_t, alpha_s, sigma_s.",
    answer=exponential_step,
    cases=((1.2, 0.5, 0.6, 0.8, 0.8, 0.6), (-0.4, 0.9, 0.28, 0.96, 0.8, 0.6), (2.0, -1.0, 1.0, 3.0, 0.9, 1.0)),
    slips=(
        Slip(
            "sign of h",
            lambda x, x0, a, b, c, d: d / b * x - c * (exp(log(c / d) - log(a / b)) - 1) * x0,
            "h must be positive in e^-h: the log-SNR rises while sampling. With the other sign the guess is pushed away.",
        ),
        Slip(
            "full log-SNR",
            lambda x, x0, a, b, c, d: d / b * x - c * (exp(-2 * (log(c / d) - log(a / b))) - 1) * x0,
            "here lambda is log(alpha / sigma), half the log-SNR.",
        ),
        Slip(
            "linearised",
            lambda x, x0, a, b, c, d: d / b * x + c * (log(c / d) - log(a / b)) * x0,
            "you put h for 1 - e^-h: the integral of the exponential is known exactly.",
        ),
        Slip(
            "alpha of the old time",
            lambda x, x0, a, b, c, d: d / b * x - a * (exp(-(log(c / d) - log(a / b))) - 1) * x0,
            "sigma_s e^lambda_s is alpha at the *new* time.",
        ),
        Slip(
            "alpha ratio",
            lambda x, x0, a, b, c, d: c / a * x - c * (exp(-(log(c / d) - log(a / b))) - 1) * x0,
            "x / sigma is the variable here, so x gets the factor sigma_s / sigma_t. The ratio of the alphas goes with eps.",
        ),
    ),
)


# Analytic-DPM


def best_variance(alpha_t: float, sigma_t: float, alpha_s: float, sigma_s: float, norm: float) -> float:
    """The optimal variance from E |score|^2 / d."""
    fresh = sigma_t**2 - (alpha_t / alpha_s) ** 2 * sigma_s**2
    own = fresh * sigma_s**2 / sigma_t**2
    return own + (fresh * alpha_s / (alpha_t * sigma_t)) ** 2 * (1 - sigma_t**2 * norm)


ANALYTIC = Exercise(
    name="fast-analytic",
    question="The best variance of a step, from alpha_t, sigma_t, alpha_s, sigma_s and E |score|^2 / d.",
    answer=best_variance,
    cases=((0.6, 0.8, 0.8, 0.6, 1.1), (0.28, 0.96, 0.8, 0.6, 0.8), (0.5, 2.0, 0.9, 0.7, 0.2)),
    slips=(
        Slip(
            "small",
            lambda a, b, c, d, norm: best_variance(a, b, c, d, 1 / b**2),
            "that is the posterior's variance: it leaves out what is not known about x_0.",
        ),
        Slip(
            "plus",
            lambda a, b, c, d, norm: best_variance(a, b, c, d, -norm),
            "the score's norm is *subtracted*: what the score explains is no longer in doubt.",
        ),
        Slip(
            "sigma once",
            lambda a, b, c, d, norm: best_variance(a, b, c, d, norm / b),
            "the norm of the score is multiplied by sigma_t squared: that makes it the norm of eps.",
        ),
        Slip(
            "weight not squared",
            lambda a, b, c, d, norm: (
                best_variance(a, b, c, d, 1 / b**2) + (b**2 - (a / c) ** 2 * d**2) * c / (a * b) * (1 - b**2 * norm)
            ),
            "a variance scales with the square of the weight.",
        ),
        Slip(
            "deviation",
            lambda a, b, c, d, norm: sqrt(best_variance(a, b, c, d, norm)),
            "that is the deviation. Asked for is the variance.",
        ),
    ),
)


# The price of a step


def price(snr_t: float, snr_s: float, error: float, d: int) -> float:
    """(d / 2) log(1 + (SNR_s - SNR_t) m / d)."""
    return d / 2 * log1p((snr_s - snr_t) * error / d)


PRICE = Exercise(
    name="fast-price",
    question="Nats of a step with the best variance, from both SNRs, m = E |x_0 - x0_hat|^2 and the dimension d.",
    answer=price,
    cases=((0.5, 2.0, 3.0, 2), (4.0, 30.0, 10.0, 784), (0.1, 0.4, 1.0, 1)),
    slips=(
        Slip(
            "small variance",
            lambda a, b, m, d: (b - a) * m / 2,
            "that is the price with the posterior's variance. The best one makes a logarithm of it.",
        ),
        Slip("no half", lambda a, b, m, d: 2 * price(a, b, m, d), "the logarithm of a *deviation* counts: one half."),
        Slip(
            "no d",
            lambda a, b, m, d: price(a, b, m / d, 1),
            "that is for one coordinate: there are d of them.",
        ),
        Slip(
            "error not divided",
            lambda a, b, m, d: d / 2 * log1p((b - a) * m),
            "m is summed over the coordinates: inside the logarithm stands the mean, m / d.",
        ),
        Slip(
            "ratio",
            lambda a, b, m, d: d / 2 * log1p((b / a - 1) * m / d),
            "the ratio of the SNRs goes with the error of eps. For x_0 it is their difference.",
        ),
    ),
)


EXERCISES: tuple[Exercise, ...] = (KEPT, ETA, IMPLIED, CHURN, HEUN, ADAMS, EXPONENTIAL, ANALYTIC, PRICE)
