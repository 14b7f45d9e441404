"""Exact denoisers: data whose score is known in closed form at every noise level. The oracles of text and tests."""

from __future__ import annotations

from collections.abc import Callable
from math import log, pi

import torch
from torch import Tensor

from diffusion_edu.denoisers import DenoiserFunction, check_labels
from diffusion_edu.process import Prediction, check_floating, check_times, expand_to, normal_like
from diffusion_edu.schedules import Schedule


def check_points(x: Tensor, dim: int) -> None:
    """Raise ValueError unless `x` has shape (N, dim) and is floating-point."""
    if x.ndim != 2 or x.shape[1] != dim:
        raise ValueError(f"need points (N, {dim}), got {tuple(x.shape)}")
    check_floating(x, "points")


class GaussianMixture:
    """sum_k weights_k N(means_k, stds_k^2 I) in `dim` dimensions.

    means: (K, dim); stds: (K,) or a number, > 0; weights: (K,), positive, normalised here, or None for equal ones.
    Raises ValueError for shapes that disagree or values that make no distribution.
    """

    def __init__(self, means: Tensor, stds: Tensor | float, weights: Tensor | None = None) -> None:
        if means.ndim != 2 or len(means) == 0:
            raise ValueError(f"means must have shape (components, dim), got {tuple(means.shape)}")
        check_floating(means, "means")
        stds = torch.as_tensor(stds, dtype=means.dtype)
        stds = stds.expand(len(means)) if stds.ndim == 0 else stds
        weights = torch.ones_like(stds) if weights is None else torch.as_tensor(weights, dtype=means.dtype)
        shapes = {tuple(stds.shape), tuple(weights.shape), (len(means),)}
        if len(shapes) > 1 or not bool((weights > 0).all()) or not bool((stds > 0).all()):
            raise ValueError(f"need {len(means)} positive weights and stds, got {weights.tolist()} and {stds.tolist()}")
        self.means, self.stds, self.weights = means, stds, weights / weights.sum()

    @property
    def dim(self) -> int:
        """Number of coordinates of a point."""
        return self.means.shape[1]

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n points, (n, dim)."""
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.dim, generator=generator, dtype=self.means.dtype)
        return self.means[k] + self.stds[k, None] * noise

    def component_log_densities(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """log of weights_k N(x; alpha means_k, alpha^2 stds_k^2 + sigma^2), (N, K); alpha, sigma: () or (N,)."""
        check_points(x, self.dim)
        alpha, sigma = alpha.to(x.dtype).reshape(-1, 1), sigma.to(x.dtype).reshape(-1, 1)
        variance = alpha**2 * self.stds**2 + sigma**2  # (N or 1, K)
        distance = (x[:, None] - alpha[:, :, None] * self.means).square().sum(2)  # (N, K)
        return self.weights.log() - distance / (2 * variance) - self.dim / 2 * (2 * pi * variance).log()

    def log_density(self, x: Tensor, schedule: Schedule | None = None, t: Tensor | None = None) -> Tensor:
        """log q_t(x) in nats, (N,), for x (N, dim); without a schedule that of the data itself."""
        alpha, sigma = self.coefficients(x, schedule, t)
        return self.component_log_densities(x, alpha, sigma).logsumexp(1)

    def score(self, x: Tensor, schedule: Schedule | None = None, t: Tensor | None = None) -> Tensor:
        """Gradient of log q_t at x, (N, dim)."""
        alpha, sigma = self.coefficients(x, schedule, t)
        responsibility = self.component_log_densities(x, alpha, sigma).softmax(1)  # (N, K)
        alpha, sigma = alpha.to(x.dtype).reshape(-1, 1), sigma.to(x.dtype).reshape(-1, 1)
        variance = alpha**2 * self.stds**2 + sigma**2
        pull = (alpha[:, :, None] * self.means - x[:, None]) / variance[:, :, None]  # (N, K, dim)
        return (responsibility[:, :, None] * pull).sum(1)

    def denoiser(self, schedule: Schedule, classes: Tensor | None = None) -> DenoiserFunction:
        """The exact denoiser (x_t, t, y=None) -> Prediction of this mixture under `schedule`.

        It answers E[x_0 | x_t]. classes: (K,) int64, the class 0 ... C - 1 of each component, or None for one class each.
        With labels y (N,) the data are the components of class y alone; y = C, the null class, means all of them, as
        without labels. Its `num_classes` is C.
        """
        classes = self.component_classes(classes)
        num_classes = int(classes.max()) + 1

        def denoise(x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Prediction:
            check_times(t, x_t)
            check_labels(y, x_t, num_classes)
            alpha, sigma = (
                schedule.alpha(t).to(x_t.dtype).reshape(-1, 1),
                schedule.sigma(t).to(x_t.dtype).reshape(-1, 1),
            )
            log_density = self.component_log_densities(x_t, alpha, sigma)
            if y is not None:
                asked = y[:, None]
                log_density = log_density.masked_fill((classes != asked) & (asked < num_classes), -torch.inf)
            responsibility = log_density.softmax(1)  # (N, K)
            variance = alpha**2 * self.stds**2 + sigma**2
            # the sum over components of means + alpha stds^2 / variance (x_t - alpha means), without an (N, K, dim)
            pull = (responsibility * alpha * self.stds**2 / variance).sum(1, keepdim=True)
            x0 = (responsibility * sigma**2 / variance) @ self.means + pull * x_t
            return Prediction(schedule, x_t, t, x0, "x0")

        denoise.schedule, denoise.num_classes = schedule, num_classes
        return denoise

    def classifier(
        self, schedule: Schedule, classes: Tensor | None = None
    ) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """The exact noise-aware classifier: (x_t, t, y) -> log p(y | x_t) in nats, (N,). classes: as for `denoiser`.

        It raises ValueError for other labels than 0 ... C - 1: "no class" has no probability.
        """
        classes = self.component_classes(classes)
        num_classes = int(classes.max()) + 1

        def log_p_y(x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
            check_times(t, x_t)
            check_labels(y, x_t, num_classes, null=False)
            log_density = self.component_log_densities(x_t, schedule.alpha(t), schedule.sigma(t))
            return log_density.masked_fill(classes != y[:, None], -torch.inf).logsumexp(1) - log_density.logsumexp(1)

        return log_p_y

    def component_classes(self, classes: Tensor | None) -> Tensor:
        """The class of each component, (K,) int64; ValueError unless they are 0 ... C - 1, none of them empty."""
        if classes is None:
            return torch.arange(len(self.means), device=self.means.device)
        known = sorted(set(classes.flatten().tolist()))
        if classes.shape != self.weights.shape or known != list(range(len(known))):
            raise ValueError(
                f"need a class 0, 1, ... for each of {len(self.means)} components, none left out, got {classes.tolist()}"
            )
        return classes.to(self.means.device)

    @staticmethod
    def coefficients(x: Tensor, schedule: Schedule | None, t: Tensor | None) -> tuple[Tensor, Tensor]:
        """alpha and sigma at t, or 1 and 0 for the data itself."""
        if (schedule is None) != (t is None):
            raise ValueError("give both schedule and t, or neither")
        if schedule is None or t is None:
            return torch.ones((), dtype=x.dtype), torch.zeros((), dtype=x.dtype)
        check_times(t, x)
        return schedule.alpha(t), schedule.sigma(t)


def empirical_denoiser(data: Tensor, schedule: Schedule) -> DenoiserFunction:
    """The exact denoiser of a finite data set: E[x_0 | x_t] is a softmax-weighted mean of its M points.

    data: (M, ...). This is what a network with unlimited capacity would learn: it reproduces its training set.
    """
    flat = data.flatten(1)
    squares = flat.square().sum(1)

    def denoise(x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Prediction:
        check_times(t, x_t)
        if y is not None:
            raise ValueError("the denoiser of a data set knows no classes: give it the images of one class, and no y")
        if x_t.shape[1:] != data.shape[1:]:
            raise ValueError(
                f"need points like the data, (N, {', '.join(map(str, data.shape[1:]))}), got {tuple(x_t.shape)}"
            )
        alpha, sigma = expand_to(schedule.alpha(t), x_t.flatten(1)), expand_to(schedule.sigma(t), x_t.flatten(1))
        # -|x_t - alpha x_i|^2 / (2 sigma^2) without |x_t|^2, which is the same for every i
        logits = (alpha * (x_t.flatten(1) @ flat.T) - alpha**2 / 2 * squares) / sigma**2
        return Prediction(schedule, x_t, t, (logits.softmax(1) @ flat).reshape(x_t.shape), "x0")

    denoise.schedule = schedule
    return denoise


def standard_normal_log_density(x: Tensor) -> Tensor:
    """log N(x; 0, I) in nats, (N,), for x (N, ...)."""
    flat = x.flatten(1)
    return -flat.square().sum(1) / 2 - flat.shape[1] / 2 * log(2 * pi)


# --- latent variables -------------------------------------------------------------------------------


class LinearGaussian:
    """The latent model p(z) = N(0, I), p(x | z) = N(weight z + bias, noise^2 I): everything about it has a formula.

    weight: (d, m); bias: (d,); noise: a number > 0. With the weight that maximises the likelihood it is probabilistic PCA
    (Tipping & Bishop 1999). Raises ValueError for shapes that disagree or a noise that is not positive.
    """

    def __init__(self, weight: Tensor, bias: Tensor, noise: float) -> None:
        if weight.ndim != 2 or bias.shape != weight.shape[:1]:
            raise ValueError(f"need weight (d, m) and bias (d,), got {tuple(weight.shape)} and {tuple(bias.shape)}")
        if not noise > 0:
            raise ValueError(f"noise must be positive, got {noise}")
        self.weight, self.bias, self.noise = weight, bias, noise

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """n pairs: z (n, m) from the prior, x (n, d) given z."""
        z = normal_like(self.weight.new_empty(n, self.weight.shape[1]), generator)
        mean = z @ self.weight.T + self.bias
        return z, mean + self.noise * normal_like(mean, generator)

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (N,), for x (N, d): a Gaussian of covariance weight weight^T + noise^2 I."""
        covariance = self.weight @ self.weight.T + self.noise**2 * torch.eye(len(self.bias)).to(self.weight)
        return torch.distributions.MultivariateNormal(self.bias, covariance).log_prob(x)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (N, m) and covariance (m, m), the same for every x, of p(z | x); x: (N, d), ValueError for another width."""
        check_points(x, len(self.bias))
        precision = torch.eye(self.weight.shape[1]).to(self.weight) + self.weight.T @ self.weight / self.noise**2
        covariance = torch.linalg.inv(precision)
        return (x - self.bias) @ self.weight @ covariance / self.noise**2, covariance

    def elbo_terms(self, x: Tensor, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """E_q log p(x | z), (N,), and KL(q || N(0, I)), (N,), in nats, for q = N(mean, covariance).

        x: (N, d); mean: (N, m) or (m,); covariance: (m, m), symmetric and positive. Raises ValueError for others.
        """
        check_points(x, len(self.bias))
        rounding = 1e-5 * float(covariance.abs().max())
        symmetric = torch.allclose(covariance, covariance.T, atol=rounding)
        if not symmetric or bool(torch.linalg.cholesky_ex(covariance).info):
            raise ValueError(f"a covariance must be symmetric and positive, got {covariance.tolist()}")
        error = (x - mean @ self.weight.T - self.bias).square().sum(1)
        spread = torch.trace(self.weight @ covariance @ self.weight.T)
        constant = len(self.bias) / 2 * log(2 * pi * self.noise**2)
        kl = kl_of_gaussians(mean, covariance, torch.zeros_like(mean), torch.eye(len(covariance)).to(covariance))
        return -(error + spread) / (2 * self.noise**2) - constant, kl.expand(len(x))

    def elbo(self, x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
        """The ELBO in nats, (N,), of x under q = N(mean, covariance); arguments as of `elbo_terms`."""
        reconstruction, kl = self.elbo_terms(x, mean, covariance)
        return reconstruction - kl


def kl_of_gaussians(mean_q: Tensor, covariance_q: Tensor, mean_p: Tensor, covariance_p: Tensor) -> Tensor:
    """KL(N(mean_q, covariance_q) || N(mean_p, covariance_p)) in nats, (N,) or ().

    means: (N, m) or (m,), both alike; covariances: (m, m), symmetric and positive, shared by all N.
    """
    precision = torch.linalg.inv(covariance_p)
    gap = mean_q - mean_p
    distance = ((gap @ precision) * gap).sum(-1)
    shape = torch.trace(precision @ covariance_q) - len(covariance_q)
    return (distance + shape + torch.logdet(covariance_p) - torch.logdet(covariance_q)) / 2
