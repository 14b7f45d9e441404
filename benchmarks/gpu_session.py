"""Everything that wants a GPU, in one command, most valuable first: `python -m benchmarks.gpu_session runs/gpu results`.

Made for a card that is at hand for a quarter of an hour, on a machine without internet. Each step has its own limit of
seconds; one that fails or is late is noted and the next begins. After each, everything made so far is in `results`:
`session.json` (what ran, for how long, how it ended, and where) and one archive in pieces of 15 MB, `results.tar.00` and so
on; `cat results.tar.* | tar x` unpacks them. States of unfinished runs and the ledger's networks stay in `runs/gpu` alone:
the same command goes on with them, and skips what was done, also with another folder for the results.

    step          what it leaves                                                                 limit, s
    smoke         outcome of the tests marked `gpu`                                                   240
    throughput    images a second, FLOP utilisation, idle share, peak memory                          200
    mnist         a U-Net, 60 s of training, and 10,000 samples of it                                 130
    cifar10       a U-Net, 4 minutes of training, 10,000 samples, bits a dimension, a grid            480
    ledger        one change at a time, 24 s a run, one seed, as far as the time reaches              600
    peers         other libraries for 2 minutes each, and steps of their networks of our size         900

Samples are judged later, where there is time and no GPU: `evaluate --checkpoint FOLDER/NAME --drawn
FOLDER/NAME/ancestral.npz`. Then `--publish FOLDER` puts the networks of the unpacked archive among the project's
checkpoints, and CIFAR-10's film beside the measured tables.

`--only` picks steps, `--seconds` is the end of all: steps that cannot start before it are left out. `--cifar="--batch 256"`
and `--mnist=…` are recipes, options of `train`; `--ledger="--rows target ema"` chooses rows. `--dry-run` shows the commands;
`--device cpu`, with small figures, rehearses them.

CIFAR-10 must be in the data cache (`DIFFUSION_EDU_CACHE`). Where it must be brought along in small loads: `--pack FOLDER`
writes the six batches, losslessly pressed, in pieces of at most `--piece` MB, FOLDER/cifar10.00 and so on, each of which can
travel alone, in any order; `--unpack FOLDER` rebuilds the batches in the cache, once all pieces are there, and checks their
hashes. Put FOLDER where git ignores it (`runs/`): the images are not ours to pass on.
"""

import argparse
import io
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from time import perf_counter
from typing import IO, NamedTuple

import numpy as np
import torch

from benchmarks import training_film
from diffusion_edu import __main__ as cli
from diffusion_edu import checkpoints, data, judges
from diffusion_edu.machine import describe

PIECE = 15_000_000
BATCHES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
PUBLISHED = {
    "mnist-unet": "mnist-unet-gpu",
    "cifar10-unet": "cifar10-unet",
}  # name in the archive -> name among the checkpoints
FILM = training_film.OUT.with_name("cifar10_film.json")
LEFT_OUT = ("state.safetensors", "ledger-runs")  # files and folders that stay on the machine


class Step(NamedTuple):
    """limit: seconds for all of its commands, which are arguments of python."""

    name: str
    limit: float
    commands: list[list[str]]


def throughput_options(given: argparse.Namespace) -> list[str]:
    """What is timed: both recipes, and MNIST's, whose steps are short, without its kernels captured in a graph."""
    mnist = f"--dataset mnist {given.mnist}".strip()
    return [mnist, f"{mnist} --compile default", f"--dataset cifar10 {given.cifar}".strip()]


def steps(given: argparse.Namespace) -> list[Step]:
    """All steps in order of value, writing below the first folder."""
    names = ("mnist-unet", "cifar10-unet", "ledger-runs", "tables")
    mnist, cifar, runs, tables = (shlex.quote(str(given.work / name)) for name in names)
    edu, on = "-m diffusion_edu", f"--device {given.device}"
    train = f"{edu} train {on} --samples 0 --dataset"
    draw = f"{edu} sample {on} --samples {given.samples} --batch 1000 --checkpoint"
    texts = {
        "smoke": (
            240,
            "-m pytest -v --tb=short -m gpu -p no:cacheprovider --noconftest tests/test_gpu.py tests/test_training.py",
        ),
        "throughput": (
            200,
            f"-m benchmarks.throughput {on} --out {tables}/throughput.json "
            + " ".join(f"--train {shlex.quote(text)}" for text in throughput_options(given)),
        ),
        "mnist": (
            130,
            f"{train} mnist --minutes {given.mnist_minutes:g} --out {mnist} {given.mnist}",
            f"{draw} {mnist} --out {mnist}/ancestral.npz",
        ),
        "cifar10": (
            480,
            f"{train} cifar10 --minutes {given.cifar_minutes:g} --out {cifar} {given.cifar}",
            f"{draw} {cifar} --evaluations 50 --out {cifar}/ancestral.npz",
            f"{edu} likelihood {on} --checkpoint {cifar} --images 10000",
            f"{edu} sample {on} --checkpoint {cifar} --w 2 --evaluations 50 --rows 8 --batch 80 --out {cifar}/grid.png",
        ),
        "ledger": (
            600,
            f"-m benchmarks.training_ledger {on} --minutes 0.4 --seeds 0 --rounds 5 --batch 1000 --runs {runs} "
            f"--base={shlex.quote(given.mnist)} --out {tables}/training_ledger.json {given.ledger}",
        ),
        "peers": (
            900,
            f"-m benchmarks.peers_training {on} --minutes 2 --samples 2000 --evaluations 50 "
            f"--options={shlex.quote(given.mnist)} --out {tables}/peers_training.json {given.peers}",
            f"-m benchmarks.matched_throughput {on} --batch 512 --out {tables}/matched_throughput.json",
        ),
    }
    return [Step(name, limit, [shlex.split(each) for each in commands]) for name, (limit, *commands) in texts.items()]


def run(command: list[str], out: IO[str], seconds: float) -> int | None:
    """Exit status of python with these arguments, None when it was not done in time and was ended, its children too."""
    print(f"$ python {shlex.join(command)}", file=out, flush=True)
    with subprocess.Popen([sys.executable, *command], stdout=out, stderr=out, start_new_session=True) as process:
        try:
            return process.wait(max(seconds, 0.1))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # a session of its own is a group of its own
            return None


def perform(step: Step, log: Path, seconds: float) -> dict[str, object]:
    """Run a step's commands one after the other, for at most so many seconds; how it went."""
    started, status = perf_counter(), 0
    with open(log, "a") as out:
        for command in step.commands:
            status = run(command, out, seconds - (perf_counter() - started))
            if status != 0:
                break
    outcome = {0: "done", None: f"stopped after {seconds:.0f} s"}.get(status, f"exit status {status}")
    return {"step": step.name, "outcome": outcome, "seconds": round(perf_counter() - started, 1)}


def write_pieces(folder: Path, name: str, content: bytes, size: int) -> None:
    """Write bytes as name.00, name.01 … of at most `size` bytes; pieces of an earlier, longer content go."""
    parts = [content[i : i + size] for i in range(0, len(content), size)]
    for number, part in enumerate(parts):
        checkpoints.write_atomically(folder / f"{name}.{number:02}", part)
    for number in range(len(parts), 100):
        (folder / f"{name}.{number:02}").unlink(missing_ok=True)


def read_pieces(folder: Path, name: str) -> bytes:
    """What `write_pieces` wrote. Raises ValueError when there is nothing."""
    parts = sorted(folder.glob(f"{name}.[0-9][0-9]"))
    if not parts:
        raise ValueError(f"{folder} holds no {name}.00")
    return b"".join(part.read_bytes() for part in parts)


def gather(work: Path, results: Path, account: dict[str, object]) -> None:
    """Write the session's account to both folders, and everything below `work` but LEFT_OUT into the archive."""
    checkpoints.write_json(work / "session.json", account)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for path in sorted(p for p in work.rglob("*") if p.is_file() and not set(p.parts) & set(LEFT_OUT)):
            tar.add(path, arcname=str(path.relative_to(work)))
    write_pieces(results, "results.tar", content.getvalue(), PIECE)
    checkpoints.write_json(results / "session.json", account)


def publish(folder: Path, checkpoint_folder: Path = cli.CHECKPOINTS, film: Path = FILM) -> None:
    """Take over the networks of an unpacked archive, their manifests, and the film of CIFAR-10's.

    Raises ValueError, with nothing written, where a network is missing, or was not judged by the committed judge.
    """
    manifests = {name: checkpoints.load_network(folder / name)[1] for name in PUBLISHED}
    for name in PUBLISHED:
        judge = judges.find_judge(manifests[name]["dataset"]["name"]).folder
        digest = checkpoints.read_manifest(cli.CHECKPOINTS / judge)["sha256"]
        if not any(figures["classifier"] == digest for figures in manifests[name]["metrics"][-1:]):
            raise ValueError(f"{folder / name} must be judged by the classifier {digest[:12]}… last, by `evaluate`")
    for name, place in PUBLISHED.items():
        for file in ("model.safetensors", "log.csv", "loss.png", "samples.png"):
            if (folder / name / file).exists():
                checkpoints.write_atomically(checkpoint_folder / place / file, (folder / name / file).read_bytes())
        checkpoints.write_json(checkpoint_folder / place / "manifest.json", manifests[name])
        print(f"wrote {checkpoint_folder / place}")
    training_film.gather(folder / "cifar10-unet", train_options(folder / "cifar10.log"), film)


def train_options(log: Path) -> list[str]:
    """The options of the last `train` in a step's log, without device, folder and number of samples."""
    line = [line for line in log.read_text().splitlines() if line.startswith("$ ") and " train " in line][-1]
    words = shlex.split(line.split(" train ", 1)[1])
    for name in {"--device", "--out", "--samples"} & set(words):
        at = words.index(name)
        del words[at : at + 2]
    return words


def mosaic(images: np.ndarray) -> np.ndarray:
    """n^2 images (n^2, 3, 32, 32) as one picture (32 n, 32 n, 3), row by row."""
    n = math.isqrt(len(images))
    return images.reshape(n, n, 3, 32, 32).transpose(0, 3, 1, 4, 2).reshape(n * 32, n * 32, 3)


def tiles(picture: np.ndarray) -> np.ndarray:
    """The inverse of `mosaic`."""
    n = len(picture) // 32
    return picture.reshape(n, 32, n, 32, 3).transpose(0, 2, 4, 1, 3).reshape(n * n, 3, 32, 32)


def pack(folder: Path, piece: int) -> None:
    """Press the cached CIFAR-10 losslessly (WebP) into pieces of at most `piece` bytes."""
    from PIL import Image  # comes with matplotlib

    data.load("cifar10", "test")  # fetches what is missing
    arrays = {}
    for name in BATCHES:
        images, labels = data.read_cifar(data.folder_of("cifar10") / name)
        picture = io.BytesIO()
        Image.fromarray(mosaic(images)).save(
            picture, "WEBP", lossless=True, quality=20, method=0
        )  # 5 % larger than with more effort, ten times as fast
        arrays[name] = np.frombuffer(picture.getvalue(), np.uint8)
        arrays[name + ".labels"] = labels
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_pieces(folder, "cifar10", content.getvalue(), piece)


def unpack(folder: Path) -> None:
    """Rebuild the batches in the data cache from all pieces, and let the package check their hashes."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    arrays = np.load(io.BytesIO(read_pieces(folder, "cifar10")))
    for name in BATCHES:
        images = tiles(np.asarray(Image.open(io.BytesIO(arrays[name].tobytes())).convert("RGB"))).reshape(-1, 3072)
        records = np.concatenate([arrays[name + ".labels"][:, None], images], axis=1)
        checkpoints.write_atomically(data.folder_of("cifar10") / name, records.tobytes())
    for split in ("train", "test"):
        print(f"CIFAR-10 {split}: {len(data.load('cifar10', split))} images")


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("work", type=Path, nargs="?", help="folder for runs, logs and tables")
    options.add_argument("results", type=Path, nargs="?", help="folder for the archive and session.json")
    options.add_argument("--only", nargs="+", help="names of steps")
    options.add_argument("--seconds", type=float, default=570, help="the end of all")
    options.add_argument("--mnist", default="", help="options of `train` for MNIST, in one string")
    options.add_argument("--mnist-minutes", type=float, default=1)
    options.add_argument("--cifar", default="", help="options of `train` for CIFAR-10, in one string")
    options.add_argument("--cifar-minutes", type=float, default=4)
    options.add_argument("--ledger", default="", help="options of the ledger, such as its --rows, in one string")
    options.add_argument("--peers", default="", help="options of the comparison with other libraries, in one string")
    options.add_argument("--samples", type=int, default=10_000, help="drawn from each network to be measured")
    options.add_argument("--device", default="cuda", help="cpu to rehearse")
    options.add_argument("--dry-run", action="store_true", help="show the commands and stop")
    options.add_argument("--pack", type=Path, metavar="FOLDER")
    options.add_argument("--unpack", type=Path, metavar="FOLDER")
    options.add_argument("--publish", type=Path, metavar="FOLDER")
    options.add_argument("--piece", type=float, default=28, help="MB of a piece of --pack (default 28: four pieces)")
    return options


def session(given: argparse.Namespace) -> None:
    """Run the steps that are asked for and not yet done, and gather after each."""
    started = perf_counter()
    given.work.mkdir(parents=True, exist_ok=True)
    account = given.work / "session.json"
    done = json.loads(account.read_text())["steps"] if account.exists() else []
    finished = {entry["step"] for entry in done if entry["outcome"] == "done"}
    place = describe(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    for step in steps(given):
        left = given.seconds - (perf_counter() - started)
        if step.name in finished or (given.only and step.name not in given.only) or left < 20:
            continue
        entry = perform(step, given.work / f"{step.name}.log", min(step.limit, left))
        done.append(entry)
        gather(given.work, given.results, place | {"steps": done})
        print(json.dumps(entry), flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Pack, unpack, publish, show, or run."""
    given = parser().parse_args(arguments)
    if given.pack or given.unpack:
        pack(given.pack, int(given.piece * 1e6)) if given.pack else unpack(given.unpack)
        return 0
    if given.publish:
        publish(given.publish)
        return 0
    if given.work is None or given.results is None:
        parser().error("two folders are needed: for the work and for the results")
    if given.dry_run:
        for step in steps(given):
            print(f"{step.name} ({step.limit:g} s)", *(f"  python {shlex.join(c)}" for c in step.commands), sep="\n")
        return 0
    session(given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
