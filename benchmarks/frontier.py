"""Quality against evaluations for all fast samplers, on the committed MNIST network: `python benchmarks/frontier.py`.

First each sampler's grid of times is chosen at ten evaluations, on other noise (data/measured/frontier_grids.json); then
come the cells of data/measured/frontier.json, which the chapter `book/fast.md` shows. All is done by calls of
`python -m diffusion_edu evaluate --table`, so a stopped run goes on where it was. About two hours on one core.
"""

import json
from pathlib import Path

from diffusion_edu.__main__ import main
from diffusion_edu.schedules import SPACINGS

OUT = Path(__file__).resolve().parents[1] / "data" / "measured" / "frontier.json"
CHOICE = OUT.with_name("frontier_grids.json")
SAMPLERS = "ddim dpm-solver++ ipndm edm edm-churn ancestral analytic predictor-corrector".split()
BUDGETS = ((5, 10, 20), (4, 7, 15), (30, 50), (100,), (200,))  # a run that is stopped early leaves the first ones
SAMPLES = 300
# What the small cells leave open is asked again, of more digits from other noise.
AGAIN = {"budgets": (5, 10), "samples": 2000, "seed": 2, "but": ("predictor-corrector",)}


def evaluate(*arguments: object, table: Path) -> None:
    """Measure what `table` lacks."""
    status = main(
        ["evaluate", "--samples", str(SAMPLES), "--shares", "equal", "--threads", "1"]
        + ["--table", str(table), *map(str, arguments)]
    )
    if status:
        raise SystemExit(status)


def best_grids() -> dict[str, str]:
    """The grid of the lowest Fréchet distance for each sampler, with seed 1."""
    settings = ("--samples", SAMPLES, "--evaluations", 10, "--seed", 1)
    evaluate(*settings, "--sampler", *SAMPLERS, "--grid", *SPACINGS, table=CHOICE)
    rows = sorted(json.loads(CHOICE.read_text())["rows"], key=lambda row: -row["frechet"])
    return {row["sampler"]: row["grid"] for row in rows}


def fill(budgets: tuple[int, ...], samples: int, seed: int = 0, but: tuple[str, ...] = ()) -> None:
    """Measure all samplers, but for some, at these budgets, each on its grid."""
    grids = best_grids()
    for grid in SPACINGS:
        chosen = [sampler for sampler in SAMPLERS if grids[sampler] == grid and sampler not in but]
        if chosen:
            settings = ("--evaluations", *budgets, "--samples", samples, "--seed", seed)
            evaluate(*settings, "--sampler", *chosen, "--grid", grid, table=OUT)


if __name__ == "__main__":
    for budgets in BUDGETS:
        fill(budgets, SAMPLES)
    fill(**AGAIN)
