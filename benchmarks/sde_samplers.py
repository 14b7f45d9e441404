"""SDE samplers of equal cost on the committed MNIST network, measured: `python benchmarks/sde_samplers.py`.

Writes data/measured/sde_samplers.json, which the chapter `book/sde.md` shows. About ten minutes on one core.
"""

import argparse
from functools import partial
from pathlib import Path

import torch

from diffusion_edu import checkpoints, data, metrics
from diffusion_edu.samplers import ancestral, euler_maruyama, predictor_corrector, probability_flow, sample
from diffusion_edu.schedules import time_grid

FOLDER = Path(__file__).resolve().parents[1] / "data" / "checkpoints"
# name: sampler, evaluations of a run of K steps
SAMPLERS = {
    "Euler-Maruyama": (euler_maruyama, lambda k: k),
    "predictor-corrector": (partial(predictor_corrector, snr=0.16), lambda k: 2 * k - 1),
    "ancestral": (ancestral, lambda k: k),
    "Heun (ODE)": (probability_flow, lambda k: 2 * k - 1),
}


def main() -> None:
    """Draw the same number of digits with each sampler, at two budgets, and write down how good they are."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--samples", type=int, default=500)
    options.add_argument("--seed", type=int, default=0)
    options = options.parse_args()
    denoiser = checkpoints.load(FOLDER / "mnist-unet")
    classifier, judge = checkpoints.load_network(FOLDER / "mnist-classifier")
    train, test = data.load("mnist", "train"), data.load("mnist", "test")
    y, rows = torch.arange(options.samples) % 10, []
    real = metrics.RealImages(classifier, train, test, y)
    for budget in (25, 49):
        for name, (sampler, cost) in SAMPLERS.items():
            steps = budget if cost(2) == 2 else (budget + 1) // 2
            g = torch.Generator().manual_seed(options.seed)
            x_T = torch.randn(len(y), 1, 28, 28, generator=g)
            extra = {} if sampler is probability_flow else {"generator": g}
            ts = time_grid(denoiser.schedule, steps, "log_snr")
            x = torch.cat(
                [
                    sample(sampler(denoiser, a, ts, y=b, **extra))
                    for a, b in zip(x_T.split(250), y.split(250), strict=True)
                ]
            )
            measured = real.measure(x)
            rows.append({"sampler": name, "steps": steps, "evaluations": cost(steps), **measured})
            print(rows[-1], flush=True)
    facts = {"checkpoint": denoiser.manifest["sha256"], "classifier": judge["sha256"], "seed": options.seed}
    facts |= {"grid": "log_snr", "snr": 0.16, "rows": rows}
    checkpoints.write_json(FOLDER.parent / "measured" / "sde_samplers.json", facts)


if __name__ == "__main__":
    main()
