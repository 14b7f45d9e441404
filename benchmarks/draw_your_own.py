"""What the network makes of three drawings: `python benchmarks/draw_your_own.py`, about two minutes on one core.

Writes data/measured/draw_your_own.json (strokes, distances) and draw_your_own.npz (pictures), which the widget DrawYourOwn
and `book/steering.md` show. Each drawing is noised to 19 times and drawn back without a label, 16 times each; four are kept.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from diffusion_edu import checkpoints, data, metrics
from diffusion_edu.guidance import sdedit
from diffusion_edu.noise import SharedNoise
from diffusion_edu.process import normal_like
from diffusion_edu.samplers import inpaint, sample
from diffusion_edu.schedules import time_grid
from diffusion_edu.widgets.draw_your_own import DRAWN, ERASER, RESAMPLES, distance_to, rasterise

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "data" / "measured" / "draw_your_own.json"
TIMES = [round(0.05 * k, 2) for k in range(1, 20)]
STEPS, DRAWS, REAL = 20, 16, 500  # steps back, results of each drawing and time, real digits for the floor

EXAMPLES = [
    {
        "name": "a hasty three",
        "strokes": [
            [[8.6, 7.4], [12.2, 7.0], [18.5, 6.1]],
            [[18.5, 6.1], [15.3, 9.8], [12.5, 13.2]],
            [[12.5, 13.2], [18.9, 16.3], [19.3, 18.3], [16.9, 22.5], [13.3, 23.3], [8.0, 22.5]],
        ],
        "erased": [[[7, 18], [20, 18]], [[7, 22], [21, 22]], [[7, 25], [20, 25]]],
    },
    {
        "name": "a four or a nine",
        "strokes": [
            [[9.7, 7.3], [9.1, 9.1], [8.7, 10.9], [8.6, 12.6], [9.0, 14.1], [10.0, 15.1], [11.3, 15.7], [13.0, 15.6]]
            + [[14.7, 15.0], [16.2, 13.9], [17.7, 12.6]],
            [[18.6, 7.7], [18.1, 10.1], [17.7, 12.6], [17.4, 15.4], [17.2, 18.3], [17.3, 21.4], [17.5, 24.5]],
        ],
        "erased": [[[8, 5], [20, 5]], [[8, 9], [20, 9]]],
    },
    {
        "name": "a letter A",
        "strokes": [
            [[9.1, 22.2], [11.7, 13.8], [14.4, 5.0]],
            [[14.4, 5.0], [17.1, 13.4], [20.1, 22.2]],
            [[11.2, 15.7], [17.9, 15.3]],
        ],
        "erased": [[[19, 4], [19, 24]], [[23, 4], [23, 24]]],
    },
]


def rms(x: Tensor) -> Tensor:
    """Root mean square over all axes but the first."""
    return x.flatten(1).square().mean(1).sqrt()


def nearest(x: Tensor, real: Tensor) -> Tensor:
    """Root mean square difference of a pixel between each image (N, ...) and the nearest of `real` (M, ...): (N,)."""
    return torch.cdist(x.flatten(1), real.flatten(1)).amin(1) / x[0].numel() ** 0.5


def edits(denoiser: torch.nn.Module, example: dict, real: Tensor) -> tuple[dict, Tensor]:
    """Distances over TIMES, mean and standard error, and the first DRAWN results at each, (T, DRAWN, 28, 28)."""
    x0 = rasterise(example["strokes"]).float().expand(DRAWS, 1, -1, -1) * 2 - 1
    found, kept = {"distance": [], "nearest": []}, []
    for t in tqdm(TIMES, desc=example["name"]):
        drawn = sdedit(denoiser, x0, t, generator=SharedNoise(range(DRAWS)), steps=STEPS)
        found["distance"].append(metrics.mean_and_error(rms(drawn - x0)))
        found["nearest"].append(metrics.mean_and_error(nearest(drawn, real)))
        kept.append(drawn[:DRAWN, 0])
    columns = {
        name: [[round(value, 4) for value in column] for column in zip(*pairs, strict=True)]
        for name, pairs in found.items()
    }
    numbers = {name: mean for name, (mean, _) in columns.items()} | {
        f"{name}_error": error for name, (_, error) in columns.items()
    }
    return numbers, torch.stack(kept)


def fillings(denoiser: torch.nn.Module, example: dict) -> Tensor:
    """The erased part filled in with each of RESAMPLES, (R, DRAWN, 28, 28)."""
    x0 = rasterise(example["strokes"]).float().expand(DRAWN, 1, -1, -1) * 2 - 1
    mask = (distance_to(example["erased"]) > ERASER).float()[None, None]
    ts, kept = time_grid(denoiser.schedule, STEPS), []
    for r in RESAMPLES:
        noise = SharedNoise(range(DRAWN))
        kept.append(
            sample(inpaint(denoiser, normal_like(x0, noise), ts, x0, mask, generator=noise, resamplings=r))[:, 0]
        )
    return torch.stack(kept)


def main() -> None:
    """Measure all, and write the two files."""
    denoiser = checkpoints.load(ROOT / "data/checkpoints/mnist-unet").eval()
    real = data.to_float(data.load("mnist", "train").images)
    fresh = data.to_float(data.load("mnist", "test").images[:REAL])
    results = [edits(denoiser, example, real) for example in EXAMPLES]
    pictures = {
        "noised": torch.stack([pictures for _, pictures in results]),
        "filled": torch.stack([fillings(denoiser, example) for example in EXAMPLES]),
    }
    bytes_of = {name: data.to_uint8(x).numpy() for name, x in pictures.items()}
    checkpoints.write_arrays(OUT.with_suffix(".npz"), **bytes_of)
    facts = {
        "checkpoint": checkpoints.read_manifest(ROOT / "data/checkpoints/mnist-unet")["sha256"],
        "draws": DRAWS,
        "steps": STEPS,
        "times": TIMES,
        "floor": metrics.mean_and_error(nearest(fresh, real)),
        "examples": [example | numbers for example, (numbers, _) in zip(EXAMPLES, results, strict=True)],
    }
    checkpoints.write_json(OUT, facts)


if __name__ == "__main__":
    main()
