"""Quality against evaluations for all fast samplers, on the committed MNIST network: `python benchmarks/frontier.py`.

Writes data/measured/frontier.json and frontier.png, which the chapter `book/fast.md` shows, cell by cell: a stopped run
goes on where it was. About an hour on one core. The grid of each sampler is chosen first, on other noise.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from diffusion_edu import checkpoints, data, metrics
from diffusion_edu.likelihood import optimal_variance
from diffusion_edu.process import q_sample
from diffusion_edu.samplers import ancestral, ddim, dpm_solver_pp, edm, multistep, predictor_corrector, sample
from diffusion_edu.schedules import time_grid

FOLDER = Path(__file__).resolve().parents[1] / "data" / "checkpoints"
OUT = FOLDER.parent / "measured" / "frontier.json"
GRIDS = ("uniform", "log_snr", "edm")
BUDGETS = (5, 10, 20, 8, 15, 30, 50)  # a run that is stopped early leaves the first ones
LONG = [("DDIM", 100), ("ancestral", 100), ("DPM-Solver++(2M)", 100), ("DDIM", 200), ("ancestral", 200)]
SHOWN = 6  # digits of each cell that are kept as pictures
# name: sampler, whether it draws noise, evaluations a step
SAMPLERS: dict[str, tuple[Callable, bool, int]] = {
    "DDIM": (ddim, False, 1),
    "DPM-Solver++(2M)": (dpm_solver_pp, False, 1),
    "iPNDM-4": (multistep, False, 1),
    "Heun (EDM)": (edm, False, 2),
    "EDM with churn": (partial(edm, churn=10), True, 2),
    "ancestral": (ancestral, True, 1),
    "Analytic-DPM": (ancestral, True, 1),
    "predictor-corrector": (predictor_corrector, True, 2),
}


def knots(denoiser, images: Tensor, y: Tensor) -> dict[str, list[float]]:
    """E |eps_hat|^2 / d and E |x_0 - x0_hat|^2 / d at 64 times even in the log-SNR, on real images."""
    ts, x0 = time_grid(denoiser.schedule, 64, "log_snr")[:-1], data.to_float(images)
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(3))
    squares, errors = [], []
    for t in tqdm(ts, desc="variances"):
        with torch.no_grad():
            guess = denoiser(q_sample(denoiser.schedule, x0, t.float(), eps), t, y)
        squares.append(float(guess.eps.double().square().mean()))
        errors.append(float((x0 - guess.x0).double().square().mean()))
    return {"t": ts.tolist(), "eps_square": squares, "x0_error": errors, "images": len(x0)}


def variances(schedule, table: dict, ts: Tensor) -> Tensor:
    """Analytic-DPM's variances of the steps of `ts`, with E |eps_hat|^2 / d interpolated between the knots."""
    known = schedule.log_snr(torch.tensor(table["t"], dtype=torch.float64)).numpy()
    wanted = schedule.log_snr(ts[:-1]).numpy()
    squares = torch.tensor(np.interp(wanted, known, table["eps_square"]))
    return optimal_variance(schedule, ts, squares / schedule.sigma(ts[:-1]) ** 2, bound=1.0)


def draw(denoiser, name: str, budget: int, grid: str, y: Tensor, seed: int, table: dict, **extra) -> tuple[Tensor, int]:
    """Digits for the labels y by a sampler within a budget of evaluations, and the evaluations used."""
    sampler, noisy, cost = SAMPLERS[name]
    steps = budget if cost == 1 else (budget + 1) // 2
    ts = time_grid(denoiser.schedule, steps, grid)
    if name == "Analytic-DPM":
        extra["variance"] = variances(denoiser.schedule, table, ts)
    g = torch.Generator().manual_seed(seed)
    x_T = torch.randn(len(y), 1, 28, 28, generator=g).to(memory_format=torch.channels_last)
    extra |= {"generator": g} if noisy else {}
    parts = [sample(sampler(denoiser, a, ts, y=b, **extra)) for a, b in zip(x_T.split(50), y.split(50), strict=True)]
    return torch.cat(parts), steps if cost == 1 else 2 * steps - 1


def save(facts: dict, pictures: dict[str, Tensor]) -> None:
    """Write the figures and one sheet with the first digits of each cell, a row for each."""
    checkpoints.write_json(OUT, facts)
    rows = [pictures[f"{row['sampler']} {row['budget']}"] for row in facts["rows"]]
    if rows:
        buffer = BytesIO()
        Image.fromarray(torch.cat(rows).numpy()).save(buffer, "PNG", optimize=True)
        checkpoints.write_atomically(OUT.with_suffix(".png"), buffer.getvalue())


def load(settings: dict) -> tuple[dict, dict[str, Tensor]]:
    """What an earlier run with the same settings left, or nothing."""
    if not OUT.exists() or not OUT.with_suffix(".png").exists():
        facts = json.loads(OUT.read_text()) if OUT.exists() else {}
        return (facts if facts.get("settings") == settings else {"settings": settings, "rows": []}), {}
    facts = json.loads(OUT.read_text())
    if facts["settings"] != settings:
        return {"settings": settings, "rows": []}, {}
    sheet = torch.from_numpy(np.array(Image.open(OUT.with_suffix(".png")))).split(28)
    return facts, {f"{r['sampler']} {r['budget']}": part for r, part in zip(facts["rows"], sheet, strict=True)}


def main() -> None:
    """Choose grids on other noise, then measure every cell that is not there yet, the cheapest first."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--samples", type=int, default=300)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--choose", type=int, default=100, help="digits on which the grids are chosen")
    options = options.parse_args()
    torch.set_num_threads(1)
    denoiser = checkpoints.load(FOLDER / "mnist-unet")
    denoiser.net.to(memory_format=torch.channels_last)
    classifier, judge = checkpoints.load_network(FOLDER / "mnist-classifier")
    train, test = data.load("mnist", "train"), data.load("mnist", "test")
    settings = vars(options) | {"checkpoint": denoiser.manifest["sha256"], "classifier": judge["sha256"], "churn": 10}
    facts, pictures = load(settings)
    reference, _ = metrics.judge(classifier, data.to_float(test.images))
    if "floor" not in facts:
        parts = [part for part, _ in zip(metrics.real_parts(train, options.samples), range(40), strict=False)]
        judged = [metrics.judge(classifier, data.to_float(p))[0] for p in tqdm(parts, desc="floor")]
        floors = torch.tensor([metrics.frechet_distance(f, reference) for f in judged])
        seen = metrics.judge(classifier, data.to_float(test.images))[1]
        facts |= {"floor": float(floors.mean()), "floor_error": float(floors.std()), "floor_parts": len(floors)}
        facts["real_accuracy"] = float((seen == test.labels).double().mean())
    if "knots" not in facts:
        facts["knots"] = knots(denoiser, train.images[:200], train.labels[:200])
        save(facts, pictures)
    choice = facts.setdefault("choice", [])
    y = torch.arange(options.choose) % 10
    for name in tqdm(SAMPLERS, desc="grids"):
        for grid in GRIDS:
            if any(c["sampler"] == name and c["grid"] == grid for c in choice):
                continue
            x, used = draw(denoiser, name, 10, grid, y, options.seed + 1, facts["knots"])
            choice.append(
                {
                    "sampler": name,
                    "grid": grid,
                    "evaluations": used,
                    **metrics.quality(*metrics.judge(classifier, x.contiguous()), y, reference),
                }
            )
            print(choice[-1], flush=True)
            save(facts, pictures)
    best = {
        name: min((c for c in choice if c["sampler"] == name), key=lambda c: c["frechet"])["grid"] for name in SAMPLERS
    }
    facts["grids"] = best
    y = torch.arange(options.samples) % 10
    cells = [(name, budget) for budget in BUDGETS for name in SAMPLERS] + LONG
    for name, budget in tqdm(cells, desc="cells"):
        if f"{name} {budget}" in pictures:
            continue
        started = perf_counter()
        x, used = draw(denoiser, name, budget, best[name], y, options.seed, facts["knots"])
        row = {
            "sampler": name,
            "budget": budget,
            "evaluations": used,
            **metrics.quality(*metrics.judge(classifier, x.contiguous()), y, reference),
        }
        facts["rows"].append(row | {"seconds": round(perf_counter() - started, 1)})
        pictures[f"{name} {budget}"] = torch.cat(list(data.to_uint8(x[:SHOWN, 0])), dim=1)
        save(facts, pictures)


if __name__ == "__main__":
    main()
