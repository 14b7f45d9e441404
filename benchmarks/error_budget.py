"""What limits a sampler: draws, steps or the network? `python benchmarks/error_budget.py` writes the figures of ErrorBudget.

Small networks learn the mixture in the plane for 30 to 10,000 steps; each, and the exact denoiser, then draws from the same
noise with 2 to 60 evaluations. Kept is the sliced Wasserstein distance to exact draws, for four seeds (of the network, its
training data, the noise and the reference). Writes data/measured/error_budget.json after each network, so that a stopped
run goes on; about four minutes on one core.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from diffusion_edu import checkpoints
from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.denoisers import Denoiser
from diffusion_edu.losses import denoising_loss, spread_times
from diffusion_edu.metrics import sliced_wasserstein
from diffusion_edu.networks import MLP
from diffusion_edu.process import normal_like, q_sample
from diffusion_edu.samplers import ancestral, ddim, dpm_solver_pp, sample
from diffusion_edu.schedules import Cosine, time_grid

OUT = Path(__file__).resolve().parents[1] / "data" / "measured" / "error_budget.json"
EVALUATIONS = (2, 3, 4, 5, 6, 8, 10, 14, 20, 28, 40, 60)
TRAINING = (30, 100, 300, 1000, 3000, 10_000)  # steps; the exact denoiser is "exact"
SAMPLERS = {
    "DDIM": (ddim, "uniform"),
    "DPM-Solver++(2M)": (dpm_solver_pp, "log_snr"),
    "ancestral": (ancestral, "uniform"),
}
SEEDS, POINTS, LARGER, FLOORS = (
    4,
    4000,
    4,
    10,
)  # the reference is LARGER times as large, so that its own chance counts less
NETWORK = {"width": 64, "depth": 3}
SCHEDULE = Cosine()
MIXTURE = GaussianMixture(
    torch.tensor([[-1.2, 0.3], [0.9, 1.0], [0.4, -1.1]], dtype=torch.float64),
    torch.tensor([0.3, 0.4, 0.25], dtype=torch.float64),
    torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64),
)


def generator(seed: int, purpose: int) -> torch.Generator:
    """A stream of random numbers of its own for each seed and purpose."""
    return torch.Generator().manual_seed(1000 * seed + purpose)


def train(steps: int, seed: int) -> Denoiser:
    """A network that has seen `steps` batches of 256 fresh points, at a rate that falls to 0."""
    torch.manual_seed(seed)
    denoiser, g = Denoiser(MLP(**NETWORK), SCHEDULE, "v"), generator(seed, 1)
    optimizer = torch.optim.Adam(denoiser.parameters(), betas=(0.9, 0.99))
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / steps)
        x0, t = MIXTURE.sample(256, g).float(), spread_times(SCHEDULE, 256, g)
        loss = denoising_loss(denoiser, x0, t, torch.randn(256, 2, generator=g)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return denoiser.requires_grad_(False)


def noise_error(denoiser, seed: int) -> float:
    """Root mean square of eps_hat - E[eps | x_t] over noised data at times even in [t_min, t_max], a coordinate."""
    g = generator(seed, 2)
    x0, t = MIXTURE.sample(20_000, g), spread_times(SCHEDULE, 20_000, g)
    x_t = q_sample(SCHEDULE, x0, t, normal_like(x0, g))
    gap = denoiser(x_t.float(), t).eps - MIXTURE.denoiser(SCHEDULE)(x_t, t).eps
    return float(gap.square().mean().sqrt())


def distance(x: Tensor, seed: int) -> float:
    """Sliced Wasserstein distance of points from the seed's exact draws, of which there are LARGER times as many."""
    reference = MIXTURE.sample(LARGER * POINTS, generator(seed, 3))
    return sliced_wasserstein(x.repeat(LARGER, 1), reference, directions=32, generator=generator(0, 4))


def distances(denoiser, seed: int) -> dict[str, list[float]]:
    """The distance of each sampler's points for each number of evaluations, all from the seed's own noise."""
    found: dict[str, list[float]] = {}
    for name, (sampler, spacing) in SAMPLERS.items():
        found[name] = []
        for steps in EVALUATIONS:
            g = generator(seed, 5)
            x_T = torch.randn(POINTS, 2, generator=g)
            extra = {"generator": g} if name == "ancestral" else {}
            x = sample(sampler(denoiser, x_T, time_grid(SCHEDULE, steps, spacing), **extra))
            found[name].append(round(distance(x, seed), 5))
    return found


def main() -> None:
    """Measure the floor, then every network that is not in the file yet."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    settings = {
        "evaluations": list(EVALUATIONS),
        "training": list(TRAINING),
        "samplers": {name: spacing for name, (_, spacing) in SAMPLERS.items()},
        "seeds": SEEDS,
        "points": POINTS,
        "reference": LARGER * POINTS,
        "network": NETWORK | {"parameters": sum(p.numel() for p in MLP(**NETWORK).parameters())},
    }
    facts = json.loads(OUT.read_text()) if OUT.exists() else {}
    if facts.get("settings") != settings:
        draws = [(seed, generator(seed, 100 + i)) for seed in range(SEEDS) for i in range(FLOORS)]
        floors = [round(distance(MIXTURE.sample(POINTS, g), seed), 5) for seed, g in draws]
        facts = {"settings": settings, "floor": floors, "runs": []}
    done = {(run["training"], run["seed"]) for run in facts["runs"]}
    todo = [(kind, seed) for kind in ("exact", *TRAINING) for seed in range(SEEDS) if (kind, seed) not in done]
    for kind, seed in tqdm(todo, unit="network"):
        denoiser = MIXTURE.denoiser(SCHEDULE) if kind == "exact" else train(kind, seed)
        error = 0.0 if kind == "exact" else round(noise_error(denoiser, seed), 5)
        facts["runs"].append(
            {"training": kind, "seed": seed, "noise_error": error, "distances": distances(denoiser, seed)}
        )
        checkpoints.write_json(OUT, facts)


if __name__ == "__main__":
    main()
