"""Fidelity and diversity over guidance weight w and null probability p_null: `python benchmarks/guidance_surface.py`.

Six small U-Nets that differ in p_null only (data/checkpoints/mnist-p-null-*; `--train` makes them) draw the same digits
from the same noise at nine weights: one `python -m diffusion_edu evaluate --table runs/guidance_surface.json ...`, which
goes on where it was stopped; about 45 minutes on one core, and ten more for each network to be trained. From that table
come data/measured/guidance_surface.json and, for the slider in the chapter "Guidance", guidance_digits.npz.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from diffusion_edu import checkpoints
from diffusion_edu.__main__ import main as command_line

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "runs" / "guidance_surface.json"
P_NULL = (0.02, 0.05, 0.1, 0.2, 0.5, 0.8)
WEIGHTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
TRAINING = (
    "train --dataset mnist --steps 2000 --batch 64 --channels 8 24 48 --patch 1 "
    "--optimizer adamw --rate 2e-3 --seed 0 --threads 1"
)
DRAWING = {"samples": 500, "evaluations": 15, "sampler": "ddim", "seed": 0, "shares": "equal"}


def checkpoint(p_null: float) -> Path:
    """Return the folder of the network that was trained with that null probability."""
    return ROOT / "data" / "checkpoints" / f"mnist-p-null-{p_null:g}"


def run(arguments: list[object]) -> None:
    """Run one command of the package; leave with its status if it fails."""
    if status := command_line([str(argument) for argument in arguments]):
        raise SystemExit(status)


def main() -> None:
    """Train what is missing, if asked; measure what the table lacks; write the two files."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--train", action="store_true", help="train the networks that are not there")
    options = options.parse_args()
    for p_null in P_NULL:
        if options.train and not (checkpoint(p_null) / "manifest.json").exists():
            run([*TRAINING.split(), "--p-null", p_null, "--out", checkpoint(p_null), "--samples", 0])
    drawing = [part for name, value in DRAWING.items() for part in (f"--{name}", value)]
    networks = [checkpoint(p_null) for p_null in P_NULL]
    run(["evaluate", "--table", TABLE, *drawing, "--w", *WEIGHTS, "--checkpoint", *networks, "--threads", 1])
    write(json.loads(TABLE.read_text()), np.load(TABLE.with_suffix(".npz"))["digits"])


def write(table: dict, digits: np.ndarray) -> None:
    """Put the table's rows in order, those of a network together, with how all was made; and the digits likewise."""
    order = {(f"mnist-p-null-{p:g}", w): (p, w) for p in P_NULL for w in WEIGHTS}
    rows = {(row["name"], row["w"]): i for i, row in enumerate(table["rows"])}
    measured = [k for k in table["rows"][0] if k in ("samples",) or k.startswith(("accuracy", "frechet", "ratio"))]
    measured += [k for k in table["rows"][0] if k.startswith(("precision", "recall", "kernel", "inception"))]
    floors = table["floors"][str(DRAWING["samples"])]
    cells = [
        {"p_null": p, "w": w} | {k: table["rows"][rows[key]][k] for k in measured} | floors
        for key, (p, w) in order.items()
    ]
    manifest = checkpoints.read_manifest(checkpoint(P_NULL[0]))
    facts = DRAWING | {
        "network": manifest["network"] | {"parameters": manifest["parameters"]},
        "training": TRAINING,
        "checkpoints": {f"{p:g}": checkpoints.read_manifest(checkpoint(p))["sha256"] for p in P_NULL},
        "classifier": table["classifier"],
    }
    surface = {"settings": facts, "p_null": P_NULL, "w": WEIGHTS, "cells": cells}
    checkpoints.write_json(ROOT / "data" / "measured" / "guidance_surface.json", surface)
    ordered = digits[[rows[key] for key in order]]
    ordered = ordered.reshape(len(P_NULL), len(WEIGHTS), *ordered.shape[1:])
    checkpoints.write_arrays(ROOT / "data" / "measured" / "guidance_digits.npz", digits=ordered)


if __name__ == "__main__":
    main()
