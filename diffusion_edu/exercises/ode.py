"""Exercises of the chapter `book/ode.md`."""

from __future__ import annotations

from math import log, log2, pi, sqrt

import torch
from torch import Tensor

from diffusion_edu.exercises import Exercise, Slip

# The velocity of the probability-flow ODE


def velocity(x: float, f: float, g2: float, score: float) -> float:
    """f x - g^2 score / 2."""
    return f * x - g2 * score / 2


VELOCITY = Exercise(
    name="ode-velocity",
    question="Velocity of the probability-flow ODE from x, f, g squared and the score.",
    answer=velocity,
    cases=((0.7, -0.5, 1.0, -0.4), (-1.2, -5.0, 10.0, 1.1), (0.3, 0.0, 4.0, 2.0)),
    slips=(
        Slip(
            "whole score",
            lambda x, f, g2, score: f * x - g2 * score,
            "that is the drift of the reverse SDE. Without its noise half the score is enough, and the whole one "
            "shrinks every lump.",
        ),
        Slip(
            "sign",
            lambda x, f, g2, score: f * x + g2 * score / 2,
            "diffusion moves the crowd downhill, away from where it is dense: minus the score. "
            "Time may fall, but the velocity does not change its sign for that.",
        ),
        Slip(
            "g for g squared",
            lambda x, f, g2, score: f * x - sqrt(g2) * score / 2,
            "you use g. The Fokker-Planck equation has the variance of the noise: g squared.",
        ),
        Slip("no drift", lambda x, f, g2, score: -g2 * score / 2, "the drift f x is missing."),
        Slip(
            "all halved",
            lambda x, f, g2, score: (f * x - g2 * score) / 2,
            "only the term of the noise is halved, not the drift.",
        ),
        Slip(
            "f for f x",
            lambda x, f, g2, score: f - g2 * score / 2,
            "f is a rate: the drift at x is f times x.",
        ),
    ),
)


# The exact flow of Gaussian data


def carried(x0: float, c: float, alpha: float, sigma: float) -> float:
    """x_t for data N(0, c^2)."""
    return x0 * sqrt(alpha**2 * c**2 + sigma**2) / c


GAUSSIAN_MAP = Exercise(
    name="ode-gaussian-map",
    question="Where the ODE carries x_0 when the data are N(0, c^2).",
    answer=carried,
    cases=((0.8, 0.5, 0.8, 0.6), (-1.3, 2.0, 0.3, 0.954), (0.2, 0.7, 1.0, 3.0)),
    slips=(
        Slip(
            "mean of q(x_t | x_0)",
            lambda x0, c, alpha, sigma: alpha * x0,
            "alpha x_0 is where x_0 goes on average when noise is added. The ODE also spreads: it keeps x_t / s_t.",
        ),
        Slip(
            "variance ratio",
            lambda x0, c, alpha, sigma: x0 * (alpha**2 * c**2 + sigma**2) / c**2,
            "you scale by the ratio of the variances. Places scale with standard deviations: take the root.",
        ),
        Slip(
            "inverse",
            lambda x0, c, alpha, sigma: x0 * c / sqrt(alpha**2 * c**2 + sigma**2),
            "that is the way back, from noise to data.",
        ),
        Slip(
            "data of variance 1",
            lambda x0, c, alpha, sigma: x0 * sqrt(alpha**2 + sigma**2),
            "that holds for c = 1. The data's deviation belongs into s_t, and below it.",
        ),
        Slip(
            "not divided by c",
            lambda x0, c, alpha, sigma: x0 * sqrt(alpha**2 * c**2 + sigma**2),
            "at t = 0 your formula gives c x_0 instead of x_0: divide by s_0 = c.",
        ),
        Slip(
            "one noise for all",
            lambda x0, c, alpha, sigma: alpha * x0 + sigma,
            "that is one draw of the SDE's marginal, with noise 1 for everybody. The ODE has no noise.",
        ),
    ),
)


# A step of Heun's method for dx/dt = -a t x


def heun_step(x: float, t: float, s: float, a: float) -> float:
    """One step of Heun's method from t to s."""
    first = -a * t * x
    last = -a * s * (x + (s - t) * first)
    return x + (s - t) * (first + last) / 2


HEUN = Exercise(
    name="ode-heun",
    question="One step of Heun's method from t to s for dx/dt = -a t x.",
    answer=heun_step,
    cases=((1.0, 0.8, 0.5, 2.0), (-0.7, 0.4, 0.3, 5.0), (2.0, 0.2, 0.6, 1.5)),
    slips=(
        Slip(
            "end slope at the old point",
            lambda x, t, s, a: x + (s - t) * (-a * t * x - a * s * x) / 2,
            "your second slope is taken at the old point. It belongs to the tried end, x + h k_1, at time s. "
            "The mistake costs the second order.",
        ),
        Slip(
            "end slope at the old time",
            lambda x, t, s, a: x + (s - t) * (-a * t * x - a * t * (x - (s - t) * a * t * x)) / 2,
            "your second slope is taken at the tried end, but at the old time t. It belongs to s.",
        ),
        Slip(
            "no half",
            lambda x, t, s, a: x + (s - t) * (-a * t * x - a * s * (x - (s - t) * a * t * x)),
            "you add the two slopes. The step follows their average.",
        ),
        Slip(
            "wrong sign of the step",
            lambda x, t, s, a: x - (s - t) * (-a * t * x - a * s * (x + (s - t) * a * t * x)) / 2,
            "your step goes the other way: h = s - t, which is negative when time falls.",
        ),
        Slip(
            "minus",
            lambda x, t, s, a: 2 * x - heun_step(x, t, s, a),
            "h = s - t has its sign already, and your minus turns the last step round once more: add it.",
        ),
        Slip(
            "euler",
            lambda x, t, s, a: x - (s - t) * a * t * x,
            "that is Euler's step: order 1.",
        ),
        Slip(
            "started from the tried end",
            lambda x, t, s, a: x - (s - t) * a * t * x + (s - t) * (-a * t * x - a * s * (x - (s - t) * a * t * x)) / 2,
            "you add the average slope to the tried end. The tried end only serves to find a slope; the step starts at x.",
        ),
    ),
)


# The log-density of one point


def log_density(x_T: Tensor, integral: float) -> Tensor:
    """log N(x_T; 0, I) + integral, in nats."""
    return -(x_T**2).sum() / 2 - len(x_T) / 2 * log(2 * pi) + integral


def codes(*values: float) -> Tensor:
    """A point, float64."""
    return torch.tensor(values, dtype=torch.float64)


LOG_DENSITY = Exercise(
    name="ode-log-density",
    question="log p(x_0) in nats from the code x_T, (d,), and the integral of the divergence from 0 to T.",
    answer=log_density,
    cases=((codes(0.3, -1.2), 2.1), (codes(0.5), -0.4), (codes(1.0, 0.2, -0.6, 0.1), 5.0)),
    slips=(
        Slip(
            "sign of the divergence",
            lambda x_T, integral: -(x_T**2).sum() / 2 - len(x_T) / 2 * log(2 * pi) - integral,
            "you subtract the integral. Along the flow the log-density falls by it, so the data's is higher: "
            "log q_0(x_0) = log q_T(x_T) + integral.",
        ),
        Slip(
            "no normaliser",
            lambda x_T, integral: -(x_T**2).sum() / 2 + integral,
            "the prior's normaliser is missing, (d / 2) log(2 pi): 1.33 bits a dimension for nothing.",
        ),
        Slip(
            "normaliser of one dimension",
            lambda x_T, integral: -(x_T**2).sum() / 2 - log(2 * pi) / 2 + integral,
            "you normalise one coordinate. There are d of them.",
        ),
        Slip(
            "missing half",
            lambda x_T, integral: -(x_T**2).sum() - len(x_T) / 2 * log(2 * pi) + integral,
            "the half of the Gaussian's exponent is missing.",
        ),
        Slip(
            "mean for sum",
            lambda x_T, integral: -(x_T**2).mean() / 2 - log(2 * pi) / 2 + integral,
            "you average over the coordinates of x_T. Log-densities of independent coordinates add; "
            "dividing by d comes last, and then for all terms.",
        ),
        Slip(
            "prior alone",
            lambda x_T, integral: -(x_T**2).sum() / 2 - len(x_T) / 2 * log(2 * pi),
            "that is the density of the code. The flow changed it on the way.",
        ),
    ),
)


# Bits a dimension


def bits(nats: float, d: int) -> float:
    """Bits a dimension for 8-bit data in [-1, 1]."""
    return -nats / d / log(2) + log2(127.5)


BITS = Exercise(
    name="ode-bits",
    question="Bits a dimension from a log-density in nats in d dimensions, for 8-bit data scaled to [-1, 1].",
    answer=bits,
    cases=((2500.0, 784), (-300.0, 3072), (10.0, 2)),
    slips=(
        Slip(
            "nats",
            lambda nats, d: -nats / d + log(127.5),
            "that is in nats. Divide by log 2.",
        ),
        Slip(
            "no bin",
            lambda nats, d: -nats / d / log(2),
            "a density is no probability: the width of a bin is missing, log2(127.5) bits.",
        ),
        Slip(
            "sign of the bin",
            lambda nats, d: -nats / d / log(2) - log2(127.5),
            "P = p times 2 / 255, and minus the logarithm of 2 / 255 is plus log2(127.5).",
        ),
        Slip(
            "data in [0, 1]",
            lambda nats, d: -nats / d / log(2) + log2(255),
            "log2(255) belongs to data in [0, 1]. On [-1, 1] a bin is twice as wide: one bit less.",
        ),
        Slip(
            "eight bits",
            lambda nats, d: -nats / d / log(2) + 8,
            "8 = log2(256) belongs to data scaled to [0, 1) by 1 / 256. Here a bin is 2 / 255 wide.",
        ),
        Slip(
            "seven bits",
            lambda nats, d: -nats / d / log(2) + 7,
            "7 = log2(128) belongs to bins of 2 / 256. From -1 to 1 in 255 steps, a bin is 2 / 255 wide: 0.0057 bits less.",
        ),
        Slip(
            "not a dimension",
            lambda nats, d: -nats / log(2) + d * log2(127.5),
            "that is for the whole image. Divide by d.",
        ),
        Slip(
            "sign of the density",
            lambda nats, d: nats / d / log(2) + log2(127.5),
            "a likelier image costs fewer bits: minus the log-density.",
        ),
        Slip(
            "logarithm upside down",
            lambda nats, d: -nats / d * log(2) + log2(127.5),
            "you multiply by log 2. One nat is 1 / log 2 = 1.44 bits.",
        ),
    ),
)


# Hutchinson's estimate


def one_probe(J: Tensor, z: Tensor) -> Tensor:
    """z^T J z."""
    return z @ (J @ z)


SKEW = torch.tensor([[1.0, 2.0, 0.0], [-0.5, 3.0, 1.0], [0.7, 0.0, -1.0]], dtype=torch.float64)
FLAT = torch.tensor([[0.5, -1.0], [2.0, 0.3]], dtype=torch.float64)
SIGNS, SIGNS_2 = codes(1.0, -1.0, 1.0), codes(-1.0, 1.0)
NORMAL = codes(0.4, -1.7, 0.9)

HUTCHINSON = Exercise(
    name="ode-hutchinson",
    question="Hutchinson's estimate of the trace of J (d, d) from one probe z (d,).",
    answer=one_probe,
    cases=((SKEW, SIGNS), (FLAT, SIGNS_2), (SKEW, NORMAL)),
    slips=(
        Slip(
            "squared product",
            lambda J, z: (J @ z) @ (J @ z),
            "that estimates the squared Frobenius norm of J. The probe stands on both sides of J: z . (J z).",
        ),
        Slip(
            "no Jacobian",
            lambda J, z: z @ z,
            "z . z estimates d, the trace of the identity. The Jacobian is missing.",
        ),
        Slip(
            "divided by d",
            lambda J, z: z @ (J @ z) / len(z),
            "a trace is a sum over the diagonal, not a mean: do not divide by d.",
        ),
        Slip(
            "sum of J z",
            lambda J, z: (J @ z).sum(),
            "the product with z on the left is missing: you sum J z, whose mean is 0.",
        ),
        Slip(
            "diagonal only",
            lambda J, z: J.diagonal().sum(),
            "that is the trace itself. It is what we cannot afford: it takes d backward passes.",
        ),
    ),
)


# The variance of a probe


def probe_variance(J: Tensor) -> Tensor:
    """2 sum over i != j of A_ij^2, A the symmetric part."""
    A = (J + J.T) / 2
    return 2 * ((A**2).sum() - (A.diagonal() ** 2).sum())


PROBE_VARIANCE = Exercise(
    name="ode-probe-variance",
    question="Variance of z^T J z over probes of independent signs, for any matrix J.",
    answer=probe_variance,
    cases=((SKEW,), (FLAT,), (SKEW @ SKEW.T,)),
    slips=(
        Slip(
            "not symmetrised",
            lambda J: 2 * ((J**2).sum() - (J.diagonal() ** 2).sum()),
            "you use J itself. z^T J z sees only its symmetric part: a pair (i, j) has J_ij + J_ji.",
        ),
        Slip(
            "Gaussian probes",
            lambda J: 2 * (((J + J.T) / 2) ** 2).sum(),
            "that is for Gaussian probes. The square of a sign is 1 without noise, so the diagonal contributes nothing.",
        ),
        Slip(
            "no factor 2",
            lambda J: (((J + J.T) / 2) ** 2).sum() - (((J + J.T) / 2).diagonal() ** 2).sum(),
            "each pair appears twice in z^T A z, as 2 A_ij z_i z_j, with variance 4 A_ij^2; there are half as many pairs.",
        ),
        Slip(
            "J and Gaussian",
            lambda J: 2 * (J**2).sum(),
            "two things: only the symmetric part of J enters, and with signs the diagonal has no noise.",
        ),
        Slip(
            "standard deviation",
            lambda J: probe_variance(J).sqrt(),
            "that is the standard deviation. Asked for is the variance.",
        ),
    ),
)


# Which way the determinant goes

DECODE = Exercise(
    name="ode-decode",
    question="log p(x_0) from log N(x_T) and L = log |det dx_0 / dx_T| of the decoder.",
    answer=lambda log_prior, L: log_prior - L,
    cases=((-2.0, 1.5), (-5.0, -3.0), (-1100.0, -4000.0)),
    slips=(
        Slip(
            "sign",
            lambda log_prior, L: log_prior + L,
            "you add L. A decoder that spreads, L > 0, thins the crowd out: the density falls. "
            "The plus sign belongs to the encoder's determinant.",
        ),
        Slip(
            "forgotten",
            lambda log_prior, L: log_prior,
            "the density of the code is not that of the sample: volumes changed on the way.",
        ),
        Slip(
            "half",
            lambda log_prior, L: log_prior - L / 2,
            "there is no half: that belongs to the determinant of a covariance, which is the square of a map's.",
        ),
    ),
)


EXERCISES: tuple[Exercise, ...] = (
    VELOCITY,
    GAUSSIAN_MAP,
    HEUN,
    LOG_DENSITY,
    BITS,
    HUTCHINSON,
    PROBE_VARIANCE,
    DECODE,
)
