"""A variational autoencoder for grey images whose decoder gives the 256 stored values honest probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from diffusion_edu.data import to_float
from diffusion_edu.likelihood import BIN, LEVELS, gaussian_kl
from diffusion_edu.process import normal_like


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
        if images.ndim != 4 or images.shape[1:] != self.location.shape[1:]:
            raise ValueError(
                f"need images (N, {', '.join(map(str, self.location.shape[1:]))}), got {tuple(images.shape)}"
            )
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
        z = mean + log_std.exp() * normal_like(mean, generator)
        return self.decode(z).log_prob(images), kl_to_prior(mean, log_std)

    def importance_log_weights(self, images: Tensor, samples: int, generator: torch.Generator | None = None) -> Tensor:
        """log p(x | z) p(z) / q(z | x) at `samples` draws z ~ q(z | x), (N, samples); images: uint8 (N, 1, 28, 28)."""
        mean, log_std = (each.repeat_interleave(samples, 0) for each in self.encode(to_float(images)))
        eps = normal_like(mean, generator)
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
        return self.decode(normal_like(self.decoder[0].weight.new_zeros(n, self.latent), generator))


def hidden(size_in: int, width: int) -> list[nn.Module]:
    """Two hidden layers."""
    return [nn.Linear(size_in, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()]


def kl_to_prior(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, 1)) in nats, by coordinate, shaped like `mean` (Kingma & Welling 2014, App. B)."""
    zero = torch.zeros_like(mean)
    return gaussian_kl(mean, 2 * log_std, zero, zero)
