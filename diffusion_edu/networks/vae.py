"""A variational autoencoder for grey images whose decoder gives the 256 stored values honest probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from diffusion_edu.data import to_float
from diffusion_edu.likelihood import BIN, LEVELS, bits_per_dim


@dataclass(frozen=True)
class PixelLogistic:
    """Independent pixels, each a logistic law cut into the 256 bins of the stored values; the end bins are open.

    location, log_scale: (N, C, H, W) in units of the range [-1, 1]. A probability of integers, no density.
    Source: the likelihood of Salimans et al. 2017 (PixelCNN++), Eq. 2, with one component.
    """

    location: Tensor
    log_scale: Tensor

    def log_prob(self, images: Tensor) -> Tensor:
        """log P(image) in nats, (N,), summed over pixels; images: uint8 (N, C, H, W).

        A bin (l, u) holds sigmoid(u) - sigmoid(l) = sigmoid(u) sigmoid(-l) (1 - e^(l - u)): no digits are lost.
        """
        width = BIN * (-self.log_scale).exp()  # of a bin, in units of the scale
        centre = (to_float(images) - self.location) * (-self.log_scale).exp()
        below_top, above_bottom = images < LEVELS - 1, images > 0
        log_p = below_top * logsigmoid(centre + width / 2) + above_bottom * logsigmoid(width / 2 - centre)
        log_p = log_p + (below_top & above_bottom) * torch.log(-torch.expm1(-width))
        return log_p.flatten(1).sum(1)

    def mean(self) -> Tensor:
        """Mean of the stored values, in [-1, 1], shaped like `location`."""
        edges = -1 + BIN * (torch.arange(LEVELS - 1, device=self.location.device) + 0.5)
        above = torch.sigmoid((self.location[..., None] - edges) * (-self.log_scale).exp()[..., None])
        return -1 + BIN * above.sum(-1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw of every pixel, in [-1, 1], on the 256 stored values."""
        device = self.location.device if generator is None else generator.device
        u = torch.rand(self.location.shape, generator=generator, device=device).to(self.location.device)
        x = self.location + self.log_scale.exp() * torch.logit(u, eps=1e-6)
        return ((x + 1) / BIN).round().clamp(0, LEVELS - 1) * BIN - 1


class VAE(nn.Module):
    """Images (N, 1, 28, 28) <-> latent vectors (N, latent), by two small MLPs (Kingma & Welling 2014).

    The prior of the latent is N(0, I), its approximate posterior a Gaussian with independent coordinates, and the decoder
    a `PixelLogistic` whose location and scale depend on the latent.
    """

    def __init__(self, latent: int = 2, width: int = 128) -> None:
        super().__init__()
        self.latent = latent
        self.encoder = nn.Sequential(nn.Flatten(), *hidden(784, width), nn.Linear(width, 2 * latent))
        self.decoder = nn.Sequential(*hidden(latent, width), nn.Linear(width, 2 * 784))
        with torch.no_grad():  # begin with pixels nobody knows: black, plus or minus a quarter of the range
            self.decoder[-1].bias[:784] = -1.0
            self.decoder[-1].bias[784:] = -1.0

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of q(z | x), (N, latent) each, for images x in [-1, 1]."""
        if x.ndim != 4 or x.shape[1:] != (1, 28, 28):
            raise ValueError(f"need images (N, 1, 28, 28), got {tuple(x.shape)}")
        mean, log_std = self.encoder(x).chunk(2, dim=1)
        return mean, log_std

    def decode(self, z: Tensor) -> PixelLogistic:
        """p(x | z), for z (N, latent)."""
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise ValueError(f"need latent vectors (N, {self.latent}), got {tuple(z.shape)}")
        location, log_scale = self.decoder(z).reshape(len(z), 2, 1, 28, 28).unbind(1)
        return PixelLogistic(location, log_scale.clamp(min=-7))

    def elbo_terms(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Reconstruction log p(x | z) at one draw of z, (N,), and KL(q(z | x) || N(0, I)) by unit, (N, latent), in nats.

        images: uint8 (N, 1, 28, 28). The ELBO of an image is the first minus the sum of the second.
        """
        mean, log_std = self.encode(to_float(images))
        z = mean + log_std.exp() * standard_normal(mean, generator)
        return self.decode(z).log_prob(images), gaussian_kl(mean, log_std)

    def importance_log_weights(self, images: Tensor, samples: int, generator: torch.Generator | None = None) -> Tensor:
        """log p(x | z) p(z) / q(z | x) at `samples` draws z ~ q(z | x), (N, samples); images: uint8 (N, 1, 28, 28)."""
        mean, log_std = (each.repeat_interleave(samples, 0) for each in self.encode(to_float(images)))
        eps = standard_normal(mean, generator)
        z = mean + log_std.exp() * eps
        log_p = self.decode(z).log_prob(images.repeat_interleave(samples, 0))
        log_ratio = (-z.square() / 2 + eps.square() / 2 + log_std).sum(1)  # log p(z) - log q(z | x)
        return (log_p + log_ratio).reshape(len(images), samples)

    def importance_log_likelihood(
        self, images: Tensor, samples: int = 100, generator: torch.Generator | None = None
    ) -> Tensor:
        """Importance-weighted bound of log p(x) in nats, (N,), from below; tight for many samples (Burda et al. 2016)."""
        return self.importance_log_weights(images, samples, generator).logsumexp(1) - log(samples)

    def sample(self, n: int, generator: torch.Generator | None = None) -> PixelLogistic:
        """p(x | z) at n draws of z from the prior; `sample()` of it draws pixels, `mean()` is the picture without noise."""
        return self.decode(standard_normal(self.decoder[0].weight.new_zeros(n, self.latent), generator))


def hidden(size_in: int, width: int) -> list[nn.Module]:
    """Two hidden layers."""
    return [nn.Linear(size_in, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()]


def gaussian_kl(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, 1)) in nats, by coordinate, shaped like `mean` (Kingma & Welling 2014, App. B)."""
    return (mean.square() + (2 * log_std).exp() - 1) / 2 - log_std


def standard_normal(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise of the shape, type and device of `like`; the generator may live on another device."""
    device = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, device=device, dtype=like.dtype).to(like.device)


@torch.no_grad()
def measure_elbo(
    net: VAE,
    images: Tensor,
    generator: torch.Generator | None = None,
    samples: tuple[int, ...] = (1, 10, 100, 1000),
    weighted: int = 1000,
) -> dict[str, Any]:
    """The ELBO of uint8 images in nats and bits a dimension, term by term, each with its standard error over images.

    The importance-weighted bounds of the first `weighted` images follow, one for each number of `samples`: each is averaged
    over as many disjoint groups as the largest number holds.
    """
    parts = [net.elbo_terms(part, generator) for part in images.split(500)]
    reconstruction, kl = (torch.cat(each).double() for each in zip(*parts, strict=True))
    elbo = reconstruction - kl.sum(1)
    log_weights = [net.importance_log_weights(part, max(samples), generator) for part in images[:weighted].split(10)]
    log_weights = torch.cat(log_weights).double()
    bounds = []
    for k in samples:
        groups = log_weights[:, : max(samples) // k * k].reshape(len(log_weights), -1, k)
        bounds.append({"samples": k} | nats_and_bits((groups.logsumexp(2) - log(k)).mean(1)))
    return {
        "images": len(images),
        **nats_and_bits(elbo),
        "reconstruction": mean_and_error(reconstruction),
        "kl": mean_and_error(kl.sum(1)),
        "kl_by_unit": kl.mean(0).tolist(),
        "weighted_images": len(log_weights),
        "weighted": bounds,
    }


def mean_and_error(values: Tensor) -> list[float]:
    """Mean of (N,) values and its standard error."""
    return [float(values.mean()), float(values.std() / len(values) ** 0.5)]


def nats_and_bits(log_p: Tensor, dims: int = 784) -> dict[str, list[float]]:
    """Mean and standard error of log-probabilities (N,) in nats, and of bits a dimension."""
    return {"nats": mean_and_error(log_p), "bits_per_dim": mean_and_error(bits_per_dim(-log_p, dims, width=1))}
