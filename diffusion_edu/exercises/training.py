"""Exercises of the chapter `book/training.md`."""

from __future__ import annotations

from math import sqrt

from torch import Tensor, tensor

from diffusion_edu.exercises import Exercise, Slip

# Operations of a convolution


def flops(c_in: int, c_out: int, side: int, k: int) -> int:
    """2 k^2 c_in c_out side^2."""
    return 2 * k**2 * c_in * c_out * side**2


FLOPS = Exercise(
    name="training-flops",
    question="FLOPs of a k x k convolution from c_in to c_out channels whose output is side x side pixels, one image.",
    answer=flops,
    cases=((16, 48, 14, 3), (1, 16, 28, 3), (96, 32, 7, 1)),
    slips=(
        Slip(
            "multiply-adds",
            lambda a, b, s, k: flops(a, b, s, k) // 2,
            "you count multiply-adds. A multiplication and an addition are two operations, and cards are rated in those.",
        ),
        Slip(
            "parameters",
            lambda a, b, s, k: a * b * k**2,
            "those are its weights. Each of them is used at every pixel.",
        ),
        Slip(
            "one channel in",
            lambda a, b, s, k: 2 * k**2 * b * s**2,
            "every output looks at all input channels: a factor c_in is missing.",
        ),
        Slip(
            "row of the kernel",
            lambda a, b, s, k: 2 * k * a * b * s**2,
            "a kernel has k times k places, not k.",
        ),
        Slip(
            "forward and backward",
            lambda a, b, s, k: 3 * flops(a, b, s, k),
            "that is a training step. Asked for is the convolution itself, forward.",
        ),
    ),
)


# EDM's coefficients


def precondition(alpha: float, sigma: float, d: float) -> tuple[float, float, float]:
    """c_in, c_skip and c_out of x0_hat = c_skip x_t + c_out F(c_in x_t)."""
    spread = sqrt(alpha**2 * d**2 + sigma**2)
    return 1 / spread, alpha * d**2 / spread**2, sigma * d / spread


PRECONDITION = Exercise(
    name="training-precondition",
    question="c_in, c_skip and c_out of x0_hat = c_skip x_t + c_out F(c_in x_t), for data of deviation d.",
    answer=precondition,
    cases=((0.6, 0.8, 0.5), (1.0, 3.0, 0.5), (0.9, 0.1, 1.5)),
    slips=(
        Slip(
            "input as it is",
            lambda a, s, d: (1.0, *precondition(a, s, d)[1:]),
            "you forget c_in: the network would see inputs whose size depends on the noise level.",
        ),
        Slip(
            "unit data",
            lambda a, s, d: precondition(a, s, 1.0),
            "that is for data of deviation 1.",
        ),
        Slip(
            "alpha of 1",
            lambda a, s, d: precondition(1.0, s, d),
            "those are the paper's, for x = x_0 + sigma eps. Here the data come multiplied by alpha.",
        ),
        Slip(
            "variances",
            lambda a, s, d: (
                1 / (a**2 * d**2 + s**2),
                precondition(a, s, d)[1],
                precondition(a, s, d)[2] ** 2,
            ),
            "c_in and c_out scale amplitudes: take the roots of those variances.",
        ),
        Slip(
            "skip and out exchanged",
            lambda a, s, d: (precondition(a, s, d)[0], precondition(a, s, d)[2], precondition(a, s, d)[1]),
            "c_skip and c_out have changed places. Near the data c_skip tends to 1 / alpha and c_out to 0.",
        ),
    ),
)


# A weight for another target


def on_eps(snr: float, gamma: float) -> float:
    """min(SNR, gamma) / SNR."""
    return min(snr, gamma) / snr


MIN_SNR = Exercise(
    name="training-min-snr",
    question="The factor of the squared error of *eps* with which the error of x_0 counts min(SNR, gamma) times.",
    answer=on_eps,
    cases=((0.1, 5.0), (4.0, 5.0), (80.0, 5.0), (30.0, 1.0)),
    slips=(
        Slip(
            "for x_0",
            min,
            "that is the factor of the error of x_0. The error of eps is SNR times as large: divide by it.",
        ),
        Slip(
            "multiplied",
            lambda snr, gamma: min(snr, gamma) * snr,
            "the error of eps is already SNR times that of x_0. Divide, or it counts twice.",
        ),
        Slip(
            "for v",
            lambda snr, gamma: min(snr, gamma) / (snr + 1),
            "that is the factor for v, whose error is SNR + 1 times that of x_0.",
        ),
        Slip(
            "max for min",
            lambda snr, gamma: max(snr, gamma) / snr,
            "the weight is cut off from above: the easy, nearly clean levels must not drown the others.",
        ),
        Slip("none", lambda snr, gamma: 1.0, "that is the simple loss, which min-SNR changes above gamma."),
    ),
)


# The average


def average(value: float, weight: float, decay: float) -> float:
    """decay value + (1 - decay) weight."""
    return decay * value + (1 - decay) * weight


EMA = Exercise(
    name="training-ema",
    question="An average after one more step, from its present value, the new weight, and the decay (such as 0.999).",
    answer=average,
    cases=((1.0, 3.0, 0.999), (-2.0, 0.5, 0.9), (0.0, 1.0, 0.99)),
    slips=(
        Slip(
            "exchanged",
            lambda value, weight, decay: average(value, weight, 1 - decay),
            "decay and 1 - decay have changed places: that average forgets everything but the last step.",
        ),
        Slip(
            "sum",
            lambda value, weight, decay: decay * value + weight,
            "the two factors must add up to 1, or the average grows.",
        ),
        Slip("no averaging", lambda value, weight, decay: weight, "that are the weights themselves."),
        Slip(
            "lerp the other way",
            lambda value, weight, decay: weight + (1 - decay) * (weight - value),
            "you step past the new weight. Go from the average a share 1 - decay of the way to it.",
        ),
    ),
)


# More cards


def combine(gradients: Tensor, images: Tensor) -> Tensor:
    """Gradient of the mean loss over all images, from each card's mean gradient."""
    return (gradients * images[:, None]).sum(0) / images.sum()


THREE, TWO = (
    tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 0.5]]),
    tensor([[1.0, -4.0], [2.0, 0.3]]),
)
COMBINE = Exercise(
    name="training-cards",
    question="Gradient of the mean loss of a whole batch, from each card's gradient of its own mean loss, (cards, n), "
    "and its number of images, (cards,).",
    answer=combine,
    cases=((THREE, tensor([32.0, 16.0, 16.0])), (TWO, tensor([9.0, 3.0])), (TWO, tensor([5.0, 5.0]))),
    slips=(
        Slip(
            "sum",
            lambda g, n: g.sum(0),
            "you add the cards' gradients. With each more card the step would grow: a mean of the losses needs a mean.",
        ),
        Slip(
            "mean of means",
            lambda g, n: g.mean(0),
            "right for equal shares only. A card with fewer images must count less.",
        ),
        Slip(
            "sum of losses",
            lambda g, n: (g * n[:, None]).sum(0),
            "that is the gradient of the *sum* of the losses. Divide by the number of images.",
        ),
        Slip(
            "divided by cards",
            lambda g, n: (g * n[:, None]).sum(0) / len(n),
            "divide by the number of images, not of cards.",
        ),
    ),
)


# In two halves


def accumulated(losses: Tensor, parts: int) -> Tensor:
    """The numbers whose gradients add up to that of the mean loss: the mean of each part over `parts`."""
    return losses.reshape(parts, -1).mean(1) / parts


LOSSES = tensor([1.0, 2.0, 4.0, 0.5, 3.0, 1.5])
ACCUMULATE = Exercise(
    name="training-accumulate",
    question="A batch does not fit and comes in `parts` equal parts, one backward pass each, gradients added. The loss "
    "whose backward pass is run for each part, (parts,), from the images' losses, (N,).",
    answer=accumulated,
    cases=((LOSSES, 2), (LOSSES, 3), (tensor([2.0, 5.0, 1.0, 7.0]), 2)),
    slips=(
        Slip(
            "not scaled",
            lambda losses, parts: losses.reshape(parts, -1).mean(1),
            "backward adds gradients up: `parts` means give `parts` times the gradient. Divide by the number of parts.",
        ),
        Slip(
            "sums",
            lambda losses, parts: losses.reshape(parts, -1).sum(1),
            "those are sums. Their gradients add up to N times that of the mean.",
        ),
        Slip(
            "divided twice",
            lambda losses, parts: losses.reshape(parts, -1).mean(1) / len(losses),
            "the mean has already divided by the part's size: only the number of parts is left.",
        ),
        Slip(
            "interleaved",
            lambda losses, parts: losses.reshape(-1, parts).mean(0) / parts,
            "the parts are consecutive slices of the batch, not every second image.",
        ),
    ),
)


EXERCISES: tuple[Exercise, ...] = (FLOPS, PRECONDITION, MIN_SNR, EMA, COMBINE, ACCUMULATE)
