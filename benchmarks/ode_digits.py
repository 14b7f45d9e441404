"""Discretisation on digits: the same noise, fewer steps, and how far the digits move. `python benchmarks/ode_digits.py`.

Writes `data/measured/ode_digits.json`, which `book/ode.md` shows: for each sampler and number of steps the distance to the
fine solution of the probability-flow ODE (root mean square of a pixel), the share read as asked, and the Fréchet distance.
"""

import argparse
import json
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from diffusion_edu import checkpoints, data, metrics
from diffusion_edu.samplers import ancestral, ddim, probability_flow, sample
from diffusion_edu.schedules import time_grid

ROOT = Path(__file__).parents[1]
FINE = 24  # Heun steps
RUNS = [
    *(("Heun", partial(probability_flow, method="heun"), n, 2 * n - 1) for n in (3, 5, 8, 13)),
    *(("DDIM", ddim, n, n) for n in (5, 10, 20)),
    *(("ancestral", ancestral, n, n) for n in (5, 10, 20)),
]


def main() -> None:
    """Run all samplers from the same noise and write the measurements."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=int, default=200)
    count, started = options.parse_args().images, perf_counter()
    torch.set_num_threads(1)
    denoiser = checkpoints.load(ROOT / "data/checkpoints/mnist-unet")
    judge, _ = checkpoints.load_network(ROOT / "data/checkpoints/mnist-classifier")
    reference, _ = metrics.judge(judge, data.to_float(data.load("mnist", "test").images))
    y = torch.arange(count) % 10
    x_T = torch.randn(count, 1, 28, 28, generator=torch.Generator().manual_seed(0))

    def draw(sampler, steps: int) -> Tensor:
        extra = {"generator": torch.Generator().manual_seed(1)} if sampler is ancestral else {}
        return sample(sampler(denoiser, x_T, time_grid(denoiser.schedule, steps), y=y, **extra))

    fine = draw(RUNS[0][1], FINE)
    rows = [
        {
            "sampler": "Heun",
            "steps": FINE,
            "evaluations": 2 * FINE - 1,
            **metrics.quality(*metrics.judge(judge, fine), y, reference),
        }
    ]
    for name, sampler, steps, evaluations in RUNS:
        x = draw(sampler, steps)
        row = {"sampler": name, "steps": steps, "evaluations": evaluations}
        if sampler is not ancestral:  # it has noise of its own, and no fine solution
            row["distance"] = float((x - fine).square().mean().sqrt())
        rows.append(row | metrics.quality(*metrics.judge(judge, x), y, reference))
        print(rows[-1], flush=True)
    parts = islice(metrics.real_parts(data.load("mnist", "train"), y), 20)
    floors = torch.tensor(
        [metrics.frechet_distance(metrics.judge(judge, data.to_float(p))[0], reference) for p in parts]
    )
    checkpoints.write_json(
        ROOT / "data/measured/ode_digits.json",
        {
            "images": count,
            "seed": 0,
            "checkpoint": checkpoints.read_manifest(ROOT / "data/checkpoints/mnist-unet")["sha256"],
            "floor": float(floors.mean()),
            "floor_error": float(floors.std()),
            "rows": rows,
            "seconds": perf_counter() - started,
        },
    )
    print(json.dumps(rows[0]))


if __name__ == "__main__":
    main()
