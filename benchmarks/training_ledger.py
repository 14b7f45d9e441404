"""One change at a time: what each choice in the training recipe is worth at equal minutes, over several seeds.

`python -m benchmarks.training_ledger --dataset mnist --minutes 2` trains with every row of `changes` by the command
`python -m diffusion_edu train … --steps`, measures the samples as `evaluate` does, and writes
`data/measured/training_ledger.json` after each run, so it can be stopped at any moment and goes on at the first run that is
missing. First comes every row with the first seed, then with the second. A row that equals the baseline (its options are
the defaults) is not trained again: it says `same_as`. A row that this build's `train` refuses says why, under `refused`,
and is tried again at the next call.

Minutes are those of a machine whose speed does not waver. The step of the data set's recipe is timed once, which says how
many steps its minutes hold. A row's step is timed in turn with the recipe's, and the row gets the recipe's steps over the
median ratio. So a machine that is slower for a while takes longer, but trains no row less. Both are kept under `paces`. What
is done once, such as compiling, is not counted.
"""

import argparse
import contextlib
import io
import json
import shlex
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from benchmarks.tables import write_table
from benchmarks.throughput import build, made_up, train_options, wait
from diffusion_edu import __main__ as cli
from diffusion_edu import checkpoints, training
from diffusion_edu.machine import describe

OUT = Path(__file__).resolve().parents[1] / "data" / "measured" / "training_ledger.json"
RUNS = Path(__file__).resolve().parents[1] / "runs" / "ledger"
MEASURED = ("samples", "accuracy", "accuracy_error", "frechet", "frechet_error", "ratio", "precision", "recall")


def changes(dataset: str, device: torch.device) -> dict[str, list[str]]:
    """Name of each row -> the options of `train` in which it differs from the baseline, the data set's recipe."""
    recipe = training.recipe(dataset, device)
    widths = [[8 * max(1, round(factor * width / 8)) for width in recipe["channels"]] for factor in (0.5, 0.75, 1.5)]
    choices = {
        "target": ("eps", "v", "x0", "edm"),
        "weight": ("simple", "min-snr", "sigmoid"),
        "schedule": ("Cosine", "LinearBeta", "Flow"),
        "ema": ("0", "0.02", "0.05", "0.1", "0.2"),
        "optimizer": ("adamw", "muon"),
        "precision": ("float32", "bfloat16"),
        "compile": ("off", "default", "reduce-overhead"),
        "batch": [str(round(recipe["batch"] * factor)) for factor in (0.25, 0.5, 2, 4)],
        "rate": [f"{recipe['rate'] * factor:g}" for factor in (0.25, 0.5, 2, 4)],
        "blocks": ("1", "2", "3"),
        "patch": ("1", "2"),
        "channels": [" ".join(map(str, width)) for width in widths],
    }
    rows = {
        f"{option} {value}": [f"--{option}", *value.split()] for option, values in choices.items() for value in values
    }
    other, factor = ("adamw", 0.2) if recipe["optimizer"] == "muon" else ("muon", 5)  # Muon's rates are the higher ones
    rate = f"{recipe['rate'] * factor:g}"
    return {"baseline": []} | rows | {f"optimizer {other} rate {rate}": ["--optimizer", other, "--rate", rate]}


def train_command(dataset: str, steps: int, seed: int, device: str, out: Path, options: list[str]) -> list[str]:
    """Arguments of `python -m diffusion_edu` that train one row."""
    fixed = ["--dataset", dataset, "--steps", str(steps), "--seed", str(seed), "--device", device]
    fixed += ["--samples", "0"]  # `judge` does it
    return ["train", *fixed, "--out", str(out), *options]


def understand(command: list[str]) -> tuple[argparse.Namespace | None, str]:
    """The options as `train` reads them, or None and why it does not know them."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return cli.parser().parse_args(command), ""
    except SystemExit:
        return None, said.getvalue().strip().splitlines()[-1].split("error: ")[-1]


def settings(command: list[str], device: torch.device) -> tuple | None:
    """All that decides about a run, but for its length, as `train` finds it; None where it refuses."""
    if understand(command)[0] is None:
        return None
    options = train_options(command[1:], device)
    network = (tuple(options.channels), options.blocks, options.patch, options.schedule, options.target)
    try:
        return network, cli.train_config(options, device)
    except ValueError:  # `train` says it better
        return None


def equal_rows(rows: dict[str, list[str]], base: list[str], device: torch.device) -> set[str]:
    """Names of the rows, besides the baseline itself, that change nothing."""
    plain = settings(base, device)
    return {name for name, options in rows.items() if options and settings([*base, *options], device) == plain}


def time_steps(run: training.Run, images: Tensor, labels: Tensor, count: int) -> float:
    """Seconds a step, over `count` steps of training."""
    started = wait(images.device)
    losses = [training.train_step(run, images, labels) for _ in range(count)]
    training.mean_loss(run, losses)
    return (wait(images.device) - started) / count


def find_pace(dataset: str, options: list[str], device: torch.device, rounds: int) -> dict[str, Any]:
    """Seconds a step of the recipe, and how many times as long one with options takes: median, quartiles over the turns.

    Where the quartiles are 10 % apart or more, something else was running: it is measured again, up to three times.
    """
    runs = []
    for some in ([], options):
        given = train_options(["--dataset", dataset, *some], device)
        cli.set_up_gpu(given.deterministic)
        count = 64 if device.type == "cuda" else 4  # batches; each epoch begins with shuffling its order
        runs.append((build(given, device), *made_up(given, count * given.batch, device)))
    with torch._dynamo.config.patch(automatic_dynamic_shapes=False):  # the second is not to be compiled for all sizes
        for each in runs:
            time_steps(*each, 3)  # compiles and warms up
        turn = [(*each, max(1, round(0.5 / time_steps(*each, 2)))) for each in runs]  # of half a second each
        found = []
        while len(found) < 3 and not (found and steadiest(found)["spread"] < 0.1):
            turns = [[time_steps(*each) for each in turn] for _ in range(rounds)]
            low, ratio, high = statistics.quantiles([row / plain for plain, row in turns], n=4)
            seconds = statistics.median(plain for plain, _ in turns)
            found.append({"base_seconds": seconds, "ratio": ratio, "quartiles": [low, high], "spread": high / low - 1})
    return steadiest(found)


def steadiest(paces: list[dict[str, Any]]) -> dict[str, Any]:
    """The pace whose quartiles lie closest together."""
    return min(paces, key=lambda pace: pace["spread"])


def run(command: list[str]) -> tuple[float, str]:
    """Train in a process of its own; seconds it took, and its last words if it was refused (exit status not 0)."""
    started = perf_counter()
    done = subprocess.run([sys.executable, "-m", "diffusion_edu", *command], stderr=subprocess.PIPE, text=True)
    words = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.strip()]
    return perf_counter() - started, "" if done.returncode == 0 else (words or [f"exit status {done.returncode}"])[-1]


def judge(folder: Path, judged: Path, given: argparse.Namespace) -> dict[str, Any]:
    """The figures of one trained network, by `evaluate --table`, which keeps the floors."""
    arguments = ["evaluate", "--checkpoint", str(folder), "--table", str(judged), "--samples", str(given.samples)]
    arguments += ["--sampler", given.sampler, "--evaluations", str(given.evaluations), "--grid", given.grid]
    arguments += ["--device", given.device, "--batch", str(given.batch), "--shares", "equal"]
    if cli.main(arguments + (["--judge", str(given.judge)] if given.judge else [])):
        raise SystemExit(1)  # `evaluate` said why
    table = json.loads(judged.read_text())
    row = next(r for r in reversed(table["rows"]) if r["checkpoint"] == cli.sha256_of(folder))
    floors = table["floors"][str(given.samples)]
    found = {name: row[name] for name in MEASURED}
    how = {name: row[name] for name in ("sampler", "evaluations", "grid", "shares")} | {
        "classifier": table["classifier"]
    }
    return found | {"floor": floors["floor"], "floor_error": floors["floor_error"]} | how


def fill(key: dict[str, Any], steps: int, options: list[str], given: argparse.Namespace) -> dict[str, Any]:
    """Train and measure one row with one seed."""
    folder = given.runs / f"{key['dataset']}-{key['minutes']:g}-{key['row'].replace(' ', '-')}-{key['seed']}"
    task = (key["dataset"], steps, key["seed"], given.device)
    command = train_command(*task, folder, options)
    anywhere = train_command(*task, Path("runs", folder.name), options)  # where it lay is nobody's business
    shown = {"command": shlex.join(["python", "-m", "diffusion_edu", *anywhere])}
    known, reason = understand(command)
    if known is None:
        return shown | {"refused": f"this build's `train` does not know it: {reason}"}
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped: its minutes would not be these
    seconds, reason = run(command)
    if reason:
        return shown | {"refused": reason}
    manifest = checkpoints.read_manifest(folder)
    training = manifest["training"]
    found = {
        "steps": training["steps"],
        "images_seen": training["steps"] * training["batch"],
        "parameters": manifest["parameters"],
        "loss": manifest["final_loss"],
        "train_seconds": manifest["wall_seconds"],
        "wall_seconds": seconds,
        **judge(folder, given.runs / f"judged-{key['dataset']}.json", given),
    }
    (folder / "state.safetensors").unlink(missing_ok=True)  # three times the weights, and no longer of use
    return shown | found


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Row -> mean Fréchet distance over its seeds, deviation between them (None for one) and their number, best first."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if "frechet" in row:
            found.setdefault(row["row"], []).append(row["frechet"])
    means = {
        name: {
            "frechet": statistics.mean(values),
            "deviation": statistics.stdev(values) if len(values) > 1 else None,
            "seeds": len(values),
        }
        for name, values in found.items()
    }
    return dict(sorted(means.items(), key=lambda item: item[1]["frechet"]))


def matches(row: dict[str, Any], key: dict[str, Any]) -> bool:
    """Whether a row has all values of `key`."""
    return all(row[k] == v for k, v in key.items())


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--dataset", default="mnist", choices=list(training.RECIPES))
    options.add_argument("--minutes", type=float, default=2, help="of training, for each run")
    options.add_argument(
        "--rows", nargs="+", help="names of rows, or their first words (default: all; --list shows them)"
    )
    options.add_argument("--list", action="store_true", help="show the rows and stop")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument(
        "--rounds", type=int, default=15, help="turns in which a row's step is timed with the recipe's"
    )
    options.add_argument("--device", default="auto")
    options.add_argument("--base", default="", help="options of `train` for all rows, in one string")
    options.add_argument("--samples", type=int, default=5000)
    options.add_argument("--sampler", default="ancestral", choices=list(cli.SAMPLERS))
    options.add_argument("--evaluations", type=int, default=25)
    options.add_argument("--grid", default="uniform", choices=cli.SPACINGS)
    options.add_argument("--batch", type=int, default=cli.BATCH, help="images drawn at once")
    options.add_argument("--judge", type=Path, help="folder of the classifier that judges")
    options.add_argument("--runs", type=Path, default=RUNS, help="folder for the trained networks")
    options.add_argument("--out", type=Path, default=OUT)
    return options


def chosen(rows: dict[str, list[str]], names: list[str] | None) -> dict[str, list[str]]:
    """The rows of these names or first words, all for None. Raises SystemExit for a name that none has."""
    for name in names or []:
        if not any(name in (row, row.split()[0]) for row in rows):
            raise SystemExit(f"unknown row {name!r}; known: {', '.join(rows)}")
    return {row: o for row, o in rows.items() if names is None or row in names or row.split()[0] in names}


def main(arguments: list[str] | None = None) -> None:
    """Fill the ledger run by run."""
    given = parser().parse_args(arguments)
    if given.rounds < 2:
        raise SystemExit(f"--rounds must be at least 2, got {given.rounds}")
    device = cli.find_device(given.device)
    given.device = str(device)  # what `train` shall use, or refuse: never another
    rows = chosen(changes(given.dataset, device), given.rows)
    if given.list:
        print("\n".join(f"{name:24} {shlex.join(options)}" for name, options in rows.items()))
        return
    table = json.loads(given.out.read_text()) if given.out.exists() else {"rows": []}
    place, base = describe(device), shlex.split(given.base)
    start = train_command(given.dataset, 1, 0, given.device, given.runs, base)
    same = equal_rows(rows, start, device)
    here = {"dataset": given.dataset, "base": given.base, "card": place["card"]}
    shared = here | {"minutes": given.minutes}
    paces = table.setdefault("paces", [])

    def steps_of(name: str, options: list[str], of: str = given.base) -> int:
        """How many steps fit into the row's minutes; times the row, with the base `of`, where the table does not know it."""
        asked = {"row": name} | here | {"base": of}
        if not any(matches(pace, asked) for pace in paces):
            paces.append(asked | find_pace(given.dataset, [*shlex.split(of), *options], device, given.rounds))
            write_table(given.out, table)
            torch.compiler.reset()  # the networks that were timed, whose memory `train` may want
            if place["device"] == "cuda":
                torch.cuda.empty_cache()
        pace = next(pace for pace in paces if matches(pace, asked))
        if name == "baseline" and not of:
            return round(60 * given.minutes / pace["base_seconds"])
        return max(1, round(steps_of("baseline", [], "") / pace["ratio"]))

    for seed in given.seeds:
        for name, options in rows.items():
            key = {"row": name, "seed": seed} | shared
            old = [row for row in table["rows"] if matches(row, key)]
            if any("refused" not in row for row in old):
                continue
            if name in same:
                found = {"same_as": "baseline"}
            else:
                try:
                    steps = steps_of(name, options) if settings([*start, *options], device) else 1
                except (ValueError, MemoryError):
                    steps = 1  # `train` says it better
                found = fill(key, steps, [*base, *options], given)
            table["rows"] = [row for row in table["rows"] if row not in old] + [key | place | found]
            write_table(given.out, table)
            print(f"{name}, seed {seed}: {found.get('frechet', found.get('refused', 'as the baseline'))}", flush=True)
            if place["device"] == "cuda":
                torch.cuda.empty_cache()  # what judged this run; the next is trained in another process
    for name, found in summary([row for row in table["rows"] if matches(row, shared)]).items():
        print(f"{name:24} {found}")


if __name__ == "__main__":
    main()
