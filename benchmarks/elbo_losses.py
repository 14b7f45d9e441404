"""Train one small network under the simple loss and under the bound: `python benchmarks/elbo_losses.py`.

The data are the book's mixture in the plane, so the bound's excess over the truth is known up to sampling error. Writes
data/measured/elbo_losses.json: for each seed the excess in nats and the distance of samples, with the floor.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.checkpoints import write_json
from diffusion_edu.denoisers import Denoiser
from diffusion_edu.likelihood import elbo
from diffusion_edu.metrics import sliced_wasserstein
from diffusion_edu.networks import MLP
from diffusion_edu.process import q_sample
from diffusion_edu.samplers import ancestral, sample
from diffusion_edu.schedules import Cosine, time_at_log_snr, time_grid

SCHEDULE, STEPS, POINTS, SEEDS = Cosine(), 1200, 4000, (0, 1, 2, 3)
MIXTURE = GaussianMixture(
    torch.tensor([[-1.2, 0.3], [0.9, 1.0], [0.4, -1.1]], dtype=torch.float64),
    torch.tensor([0.3, 0.4, 0.25]),
    weights=torch.tensor([0.2, 0.5, 0.3]),
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uniform_time(u: Tensor) -> Tensor:
    """Times of the simple loss."""
    return SCHEDULE.t_min + (SCHEDULE.t_max - SCHEDULE.t_min) * u


def uniform_log_snr(u: Tensor) -> Tensor:
    """Times of the bound: even in the log-SNR, where its weight is flat."""
    high, low = SCHEDULE.log_snr(torch.tensor([SCHEDULE.t_min, SCHEDULE.t_max], dtype=torch.float64))
    return time_at_log_snr(SCHEDULE, low + (high - low) * u.double()).float()


def train(times: Callable[[Tensor], Tensor], seed: int) -> Denoiser:
    """The same small network, data and noise; only the noise levels differ."""
    torch.manual_seed(seed)
    model, g = Denoiser(MLP(dim=2, width=64, depth=2), SCHEDULE, "eps"), seeded(100 + seed)
    optimizer = torch.optim.Adam(model.parameters())
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / STEPS)
        x0, eps = MIXTURE.sample(256, g).float(), torch.randn(256, 2, generator=g)
        t = times(torch.rand(256, generator=g))
        loss = (eps - model(q_sample(SCHEDULE, x0, t, eps), t).eps).square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def measure(model: Denoiser) -> dict[str, float]:
    """Excess of the bound over that of the exact denoiser on the same noise, and distance of samples from the data."""
    points = MIXTURE.sample(POINTS, seeded(1)).float()
    ours, best = (elbo(d, points, generator=seeded(5), draws=16).total for d in (model, MIXTURE.denoiser(SCHEDULE)))
    noise, ts = torch.randn(POINTS, 2, generator=seeded(6)), time_grid(SCHEDULE, 100, "log_snr").float()
    x = sample(ancestral(model, noise, ts, generator=seeded(7))).double()
    distance = sliced_wasserstein(MIXTURE.sample(POINTS, seeded(2)), x, generator=seeded(4))
    return {"excess": float((ours - best).mean()), "distance": distance}


def main() -> None:
    left, right = MIXTURE.sample(POINTS, seeded(2)), MIXTURE.sample(POINTS, seeded(3))
    found = {
        name: [measure(train(times, seed)) for seed in SEEDS]
        for name, times in (("simple", uniform_time), ("bound", uniform_log_snr))
    }
    floor = sliced_wasserstein(left, right, generator=seeded(4))
    content = {"steps": STEPS, "points": POINTS, "seeds": list(SEEDS), "floor": floor, **found}
    write_json(Path(__file__).resolve().parents[1] / "data/measured/elbo_losses.json", content)
    print(content)


if __name__ == "__main__":
    main()
