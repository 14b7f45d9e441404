"""The film of a real training run, for the book: `python -m benchmarks.training_film --dataset mnist --minutes 10`.

Every option but --out and --samples is one of `python -m diffusion_edu train`, which is run with them; a run that was
stopped goes on. Then `evaluate` judges samples of the trained network. Writes `data/measured/training_film.npz` (frames)
and `training_film.json` (log, command, machine, judgement), which the widget TrainingFilm and `book/training.md` show.
"""

import argparse
import csv
import shlex
import sys
from pathlib import Path

from diffusion_edu import __main__ as cli
from diffusion_edu.checkpoints import read_manifest, write_atomically, write_json

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "data" / "measured" / "training_film.json"
LOG = {"step": int, "loss": float, "rate": float, "seconds": float}


def read_log(path: Path) -> dict[str, list]:
    """The columns of a run's log.csv."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {name: [kind(row[name]) for row in rows] for name, kind in LOG.items()}


def gather(run: Path, command: list[str], out: Path | None = None) -> None:
    """Write what a finished run, trained by `train` with the options `command` and evaluated, left in its folder.

    out: the table, OUT if None.
    """
    out = out or OUT
    manifest = read_manifest(run)
    facts = {
        "command": shlex.join(["python", "-m", "diffusion_edu", "train", *command]),
        "dataset": manifest["dataset"]["name"],
        "parameters": manifest["parameters"],
        "training": manifest["training"],
        "seconds": manifest["wall_seconds"],
        "judged": manifest["metrics"][-1],
        "machine": manifest["machine"],
        "log": read_log(run / "log.csv"),
    }
    write_atomically(out.with_suffix(".npz"), (run / "film.npz").read_bytes())
    write_json(out, facts)
    print(f"wrote {out} and {out.with_suffix('.npz').name}")


def main(arguments: list[str] | None = None) -> None:
    """Train, judge, and gather the film."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=ROOT / "runs" / "film", help="folder of the run")
    options.add_argument("--samples", type=int, default=10_000, help="to be judged")
    given, of_train = options.parse_known_args(arguments)
    run = str(given.out)
    of_evaluate = ["--checkpoint", run, "--samples", str(given.samples)]
    for command in (["train", *of_train, "--out", run, "--samples", "0"], ["evaluate", *of_evaluate]):
        if status := cli.main(command):
            sys.exit(status)
    gather(given.out, of_train)


if __name__ == "__main__":
    main()
