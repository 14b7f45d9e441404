"""Fidelity and diversity over guidance weight w and null probability p_null: `python benchmarks/guidance_surface.py`.

Six small U-Nets that differ in p_null only (data/checkpoints/mnist-p-null-*; `--train` makes them) draw the same digits
from the same noise at nine weights. Writes data/measured/guidance_surface.json and, for the slider in the chapter
"Guidance", data/measured/guidance_digits.npz. Drawn images are kept in runs/guidance_surface, so that a run that was
stopped goes on; about 45 minutes on one core, and ten more for each network to be trained.
"""

import argparse
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from diffusion_edu import __main__ as command_line
from diffusion_edu import checkpoints, data, metrics

ROOT = Path(__file__).resolve().parents[1]
P_NULL = (0.02, 0.05, 0.1, 0.2, 0.5, 0.8)
WEIGHTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
TRAINING = "train --dataset mnist --steps 2000 --batch 64 --channels 8 24 48 --seed 0 --threads 1"


def checkpoint(p_null: float) -> Path:
    """Return the folder of the network that was trained with that null probability."""
    return ROOT / "data" / "checkpoints" / f"mnist-p-null-{p_null:g}"


def draw(p_null: float, w: float, samples: int, steps: int, cache: Path) -> Tensor:
    """Return uint8 images (samples, 1, 28, 28), classes 0 to 9 in turn, drawn now or by an earlier run."""
    denoiser = checkpoints.load(checkpoint(p_null))
    name = f"{denoiser.manifest['sha256'][:12]}-w{w:g}-n{samples}-k{steps}.npy"
    if not (cache / name).exists():
        images = command_line.draw(denoiser, torch.arange(samples) % 10, "ddim", steps, w, seed=0, batch=100)
        content = BytesIO()
        np.save(content, data.to_uint8(images).numpy())
        checkpoints.write_atomically(cache / name, content.getvalue())
    return torch.from_numpy(np.load(cache / name))


def main() -> None:
    """Train what is missing, if asked; draw every cell; measure them all; write the two files."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--samples", type=int, default=500, help="images a cell, a multiple of 10")
    options.add_argument("--steps", type=int, default=15, help="DDIM steps, each one call for condition and null")
    options.add_argument("--train", action="store_true", help="train the networks that are not there")
    options.add_argument("--p-null", type=float, nargs="*", default=P_NULL, help="draw for these only")
    options = options.parse_args()
    cache = ROOT / "runs" / "guidance_surface"
    for p_null in options.p_null:
        if options.train and not (checkpoint(p_null) / "manifest.json").exists():
            command_line.main([*TRAINING.split(), "--p-null", f"{p_null:g}", "--out", str(checkpoint(p_null))])
    cells = [(p_null, w) for p_null in options.p_null for w in WEIGHTS]
    images = {cell: draw(*cell, options.samples, options.steps, cache) for cell in tqdm(cells, unit="cell")}
    if tuple(options.p_null) == P_NULL:
        write(images, options.samples, options.steps)


def write(images: dict[tuple[float, float], Tensor], samples: int, steps: int) -> None:
    """Measure the images of every cell and write the table and the digits."""
    classifier, judge = checkpoints.load_network(ROOT / "data" / "checkpoints" / "mnist-classifier")
    train, test = data.load("mnist", "train"), data.load("mnist", "test")
    real, y, cells = metrics.RealImages(classifier, train, test, samples), torch.arange(samples) % 10, []
    for (p_null, w), drawn in tqdm(images.items(), unit="cell"):
        cells.append({"p_null": p_null, "w": w, **real.measure(data.to_float(drawn), y)})
    manifest = checkpoints.read_manifest(checkpoint(0.1))
    facts = {
        "samples": samples,
        "evaluations": steps,
        "sampler": "ddim",
        "seed": 0,
        "network": manifest["network"] | {"parameters": manifest["parameters"]},
        "training": TRAINING,
        "checkpoints": {f"{p:g}": checkpoints.read_manifest(checkpoint(p))["sha256"] for p in P_NULL},
        "classifier": judge["sha256"],
    }
    table = {"settings": facts, "p_null": P_NULL, "w": WEIGHTS, "cells": cells}
    checkpoints.write_json(ROOT / "data" / "measured" / "guidance_surface.json", table)
    digits = np.stack([images[cell][:10, 0].numpy() for cell in images])
    content = BytesIO()
    np.savez_compressed(content, digits=digits.reshape(len(P_NULL), len(WEIGHTS), 10, 28, 28))
    checkpoints.write_atomically(ROOT / "data" / "measured" / "guidance_digits.npz", content.getvalue())


if __name__ == "__main__":
    main()
