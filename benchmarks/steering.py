"""Steering the committed MNIST network, measured: `python benchmarks/steering.py`.

Writes data/measured/steering.json and steering.npz (a few small pictures), which `book/steering.md` shows: anomaly maps by
partial noising, class changes, inpainting, and guidance by an unrelated classifier. About half an hour on one core. Each
finished row is kept in the JSON: started again, the script goes on from there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, max_pool2d
from tqdm import tqdm

from diffusion_edu import checkpoints, data, metrics
from diffusion_edu.denoisers import DenoiserFunction
from diffusion_edu.guidance import classifier_free, classifier_guided, encode_to, loss_guided, return_from
from diffusion_edu.process import Prediction, q_sample
from diffusion_edu.samplers import ancestral, inpaint, sample
from diffusion_edu.schedules import time_grid

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "data" / "measured" / "steering.json"
TIMES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.96)  # how far to noise
KINDS = ("gap", "spot")
W, HEUN = 3.0, 8  # guidance weight of the way back, steps each way
SHOWN = 2  # pictures kept of each kind of defect


def generator(seed: int) -> torch.Generator:
    """A stream of random numbers of its own."""
    return torch.Generator().manual_seed(seed)


def share(hits: Tensor) -> list[float]:
    """Share of hits (N,) bool, and its standard error."""
    return [float(hits.double().mean()), metrics.share_error(int(hits.sum()), len(hits))]


class Bench:
    """Networks, judges and digits, and the rows found so far."""

    def __init__(self, images: int) -> None:
        self.denoiser = checkpoints.load(ROOT / "data/checkpoints/mnist-unet").eval()
        self.free = deepcopy(self.denoiser)
        self.free.clip = None  # encoding needs what the network itself says
        classifier, self.facts = checkpoints.load_network(ROOT / "data/checkpoints/mnist-classifier")
        self.classifier = classifier.eval()
        train, test = data.load("mnist", "train"), data.load("mnist", "test")
        self.neighbours = data.to_float(train.images).flatten(1), train.labels.long()
        self.x0, self.y = data.to_float(test.images[:images]), test.labels[:images].long()
        self.fours = data.to_float(test.images[test.labels == 4][:images])
        self.found = json.loads(OUT.read_text()) if OUT.exists() else {}
        if self.found.setdefault("images", images) != images:
            raise ValueError(f"{OUT} holds rows for {self.found['images']} images, asked for {images}: remove it first")
        self.found["checkpoint"] = checkpoints.read_manifest(ROOT / "data/checkpoints/mnist-unet")["sha256"]

    def rows(self, table: str, tasks: dict[str, Callable[[], dict]]) -> None:
        """Run the tasks of a table that are not done, and write each result down at once."""
        done = self.found.setdefault(table, {})
        for name, task in tqdm(tasks.items(), desc=table):
            if name not in done:
                done[name] = task()
                checkpoints.write_json(OUT, self.found)

    def guide(self, x: Tensor) -> Tensor:
        """Classes (N,) that the frozen classifier sees."""
        return metrics.judge(self.classifier, x)[1]

    def judge(self, x: Tensor, k: int = 5) -> Tensor:
        """Classes (N,) of the k nearest training images by vote: a judge that no gradient has ever passed through."""
        images, labels = self.neighbours
        nearest = torch.cdist(x.flatten(1), images).topk(k, largest=False).indices
        return labels[nearest].mode(1).values


# --- defects ------------------------------------------------------------------------------------------


def defective(x0: Tensor, kind: str, seed: int = 1) -> Tensor:
    """Digits (N, 1, 28, 28) with a defect each: a gap of 5 x 5 in the stroke, or a spot of 3 x 3 beside it."""
    g, out = generator(seed), x0.clone()
    for picture in out[:, 0]:
        if kind == "gap":
            allowed = (picture > 0.5).nonzero()
        else:
            far = max_pool2d((picture > -0.5).float()[None, None], 7, 1, 3)[0, 0] == 0
            allowed = far[3:-3, 3:-3].nonzero() + 3
        r, c = allowed[torch.randint(len(allowed), (1,), generator=g)][0].tolist()
        if kind == "gap":
            picture[max(r - 2, 0) : r + 3, max(c - 2, 0) : c + 3] = -1
        else:
            picture[r - 1 : r + 2, c - 1 : c + 2] = 1
    return out


def anomalies(bench: Bench) -> None:
    """AUC of the difference map, and how much changes in and outside the defect, by method and by how far."""
    n, pictures, tasks = len(bench.x0), {}, {}
    eps = torch.randn(bench.x0.shape, generator=generator(2))

    def run(kind: str, method: str, t: float, w: float) -> dict:
        bad = defective(bench.x0, kind)
        wrong = (bad - bench.x0).abs() > 0.2
        if method == "encoded":
            x_t = encode_to(bench.free, bad, t, steps=HEUN)
        else:
            x_t = q_sample(bench.free.schedule, bad, torch.tensor(t), eps)
        back = return_from(classifier_free(bench.free, w), x_t, t, y=bench.y, steps=HEUN)
        change = (bad - back).abs()
        pictures[kind, method, t, w] = x_t[:SHOWN, 0], back[:SHOWN, 0]
        each = torch.tensor([metrics.auc(change[i], wrong[i]) for i in range(n)])
        inside = torch.stack([change[i][wrong[i]].mean() for i in range(n)])
        outside = torch.stack([change[i][~wrong[i]].mean() for i in range(n)])
        facts = {"kind": kind, "method": method, "t": t, "w": w}
        shown = {"shown_auc": each[:SHOWN].tolist()} if w == W else {}
        return (
            facts
            | shown
            | {
                "auc": metrics.mean_and_error(each),
                "inside": metrics.mean_and_error(inside),
                "outside": metrics.mean_and_error(outside),
            }
        )

    settings = [(k, m, t, W) for k in KINDS for m in ("encoded", "noised") for t in TIMES]
    settings += [(k, m, t, 1.0) for k in KINDS for m in ("encoded", "noised") for t in (0.5, 0.8, 0.96)]
    for setting in settings:
        tasks["{} {} {} w={:g}".format(*setting)] = lambda setting=setting: run(*setting)
    if not OUT.with_suffix(".npz").exists():
        bench.found.pop("anomaly", None)  # the pictures come from the same runs
    bench.rows("anomaly", tasks)
    if len(pictures) == len(tasks):  # a run that only fills in missing rows has too few
        save_pictures(bench, pictures)


def save_pictures(bench: Bench, pictures: dict) -> None:
    """Keep a few digits of each kind, uint8: healthy, defective (E, 28, 28), noised and returned (E, 2, T, 28, 28)."""
    bad = torch.cat([defective(bench.x0, kind)[:SHOWN, 0] for kind in KINDS])

    def stack(part: int) -> Tensor:
        per_kind = [
            torch.stack([torch.stack([pictures[k, m, t, W][part] for t in TIMES], 1) for m in ("encoded", "noised")], 1)
            for k in KINDS
        ]
        return torch.cat(per_kind)

    arrays = {
        "healthy": bench.x0[:SHOWN, 0].repeat(len(KINDS), 1, 1),
        "defective": bad,
        "noised": stack(0),
        "returned": stack(1),
    }
    names = [f"{label} with a {kind}" for kind in KINDS for label in bench.y[:SHOWN].tolist()]
    bench.found["pictures"] = {"times": TIMES, "names": names}
    checkpoints.write_json(OUT, bench.found)
    checkpoints.write_arrays(OUT.with_suffix(".npz"), **{k: data.to_uint8(v).numpy() for k, v in arrays.items()})


# --- class changes ------------------------------------------------------------------------------------


def changes(bench: Bench) -> None:
    """Fours brought back as nines: how many a judge reads as nines, and how many pixels' worth of ink moved."""
    x0, tasks = bench.fours, {}
    four, nine = (torch.full((len(x0),), c) for c in (4, 9))
    eps = torch.randn(x0.shape, generator=generator(3))

    def run(method: str, t: float) -> dict:
        if method == "encoded":
            x_t = encode_to(bench.free, x0, t, y=four, steps=HEUN)
        else:
            x_t = q_sample(bench.free.schedule, x0, torch.tensor(t), eps)
        back = return_from(classifier_free(bench.free, W), x_t, t, y=nine, steps=HEUN)
        return {
            "method": method,
            "t": t,
            "judge": share(bench.judge(back) == nine),
            "guide": share(bench.guide(back) == nine),
            "change": metrics.mean_and_error((back - x0).abs().flatten(1).mean(1)),
        }

    for method in ("encoded", "noised"):
        for t in TIMES[2:]:
            tasks[f"{method} {t}"] = lambda method=method, t=t: run(method, t)
    bench.rows("change", tasks)


# --- inpainting ---------------------------------------------------------------------------------------


def top_half() -> Tensor:
    """1 in the 14 rows that are known."""
    mask = torch.zeros(1, 1, 28, 28)
    mask[..., :14, :] = 1
    return mask


def inpainting(bench: Bench, steps: int = 25) -> None:
    """Digits whose lower half is hidden: the share that two judges read as the true digit, by method."""
    x0, mask, tasks = bench.x0, top_half(), {}
    x_T = torch.randn(x0.shape, generator=generator(4))
    ts = time_grid(bench.denoiser.schedule, steps)

    def run(draw: Callable[[], Tensor], evaluations: int) -> dict:
        x = draw()
        return {
            "evaluations": evaluations,
            "classifier": share(bench.guide(x) == bench.y),
            "judge": share(bench.judge(x) == bench.y),
            "known": metrics.mean_and_error(((x - x0).abs() * mask).flatten(1).sum(1) / mask.sum()),
            "seam": metrics.mean_and_error((x[..., 13, :] - x[..., 14, :]).abs().flatten(1).mean(1)),
        }

    def replaced(r: int) -> Tensor:
        return sample(inpaint(bench.denoiser, x_T, ts, x0, mask, generator=generator(5), resamplings=r))

    def guided(scale) -> Tensor:
        def loss(x: Tensor) -> Tensor:
            return ((x - x0) * mask).square().flatten(1).sum(1) / 2

        return sample(ancestral(loss_guided(bench.denoiser, loss, scale), x_T, ts, generator=generator(5)))

    schedule = bench.denoiser.schedule
    tasks["the true digits"] = lambda: run(lambda: x0, 0)
    tasks["grey below"] = lambda: run(lambda: torch.where(mask == 1, x0, -1.0), 0)
    for r in (1, 2, 5, 10):
        tasks[f"replacement, r = {r}"] = lambda r=r: run(lambda: replaced(r), steps * r)
    pigdm = lambda t: 1 / (schedule.sigma(t) ** 2 + 0.1**2)  # noqa: E731
    tasks["gradient, C = r² I"] = lambda: run(lambda: guided(pigdm), steps)
    tasks["gradient, fixed scale 1"] = lambda: run(lambda: guided(1.0), steps)
    bench.rows("inpainting", tasks)


# --- an unrelated classifier --------------------------------------------------------------------------


def without_jacobian(denoiser, loss, scale: float) -> DenoiserFunction:
    """The mistake: the gradient with respect to x0_hat, used as if it were one with respect to x_t."""

    def guided(x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Prediction:
        prediction = denoiser.raw(x_t, t, y)
        with torch.enable_grad():
            x0 = prediction.x0.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(loss(x0).sum(), x0)
        shifted = prediction.x0 - scale * prediction.sigma**2 / prediction.alpha * gradient
        return prediction.with_x0(shifted.clamp(*denoiser.clip))

    guided.schedule, guided.clip = denoiser.schedule, denoiser.clip
    return guided


def classifier(bench: Bench, steps: int = 25) -> None:
    """Digits on request from the unlabelled network and a classifier that has never seen noise."""
    n, tasks = len(bench.x0), {}
    wanted = torch.arange(n) % 10
    x_T = torch.randn(bench.x0.shape, generator=generator(6))
    ts = time_grid(bench.denoiser.schedule, steps)

    def loss(x: Tensor) -> Tensor:
        return cross_entropy(bench.classifier(x), wanted, reduction="none")

    # the classifier asked about x_t itself, which it has never seen the like of
    asked = classifier_guided(bench.denoiser, lambda x_t, t, y: -loss(x_t), 3.0)

    def run(guided: DenoiserFunction, r: int = 1, y: Tensor | None = None) -> dict:
        nothing = torch.zeros(1, 1, 28, 28)
        x = sample(inpaint(guided, x_T, ts, x_T, nothing, y=y, generator=generator(7), resamplings=r))
        return {
            "evaluations": steps * r,
            "guide": share(bench.guide(x) == wanted),
            "judge": share(bench.judge(x) == wanted),
            "loss": metrics.mean_and_error(loss(x).detach()),
        }

    tasks["no guidance"] = lambda: run(bench.denoiser)
    tasks["trained with labels"] = lambda: run(bench.denoiser, y=wanted)
    for scale in (3.0, 10.0, 30.0):
        tasks[f"through x0_hat, scale {scale:g}"] = lambda s=scale: run(loss_guided(bench.denoiser, loss, s))
    tasks["through x0_hat, scale 3, r = 4"] = lambda: run(loss_guided(bench.denoiser, loss, 3.0), 4)
    for scale in (0.3, 3.0):
        tasks[f"no Jacobian, scale {scale:g}"] = lambda s=scale: run(without_jacobian(bench.denoiser, loss, s))
    tasks["classifier of x_t, scale 3"] = lambda: run(asked, y=wanted)
    bench.rows("classifier", tasks)


TABLES = {"anomalies": anomalies, "inpainting": inpainting, "changes": changes, "classifier": classifier}


def main() -> None:
    """Measure what is missing, and write it down."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=int, default=64)
    options.add_argument("--only", nargs="*", default=list(TABLES), choices=TABLES)
    options = options.parse_args()
    torch.set_num_threads(1)
    bench = Bench(options.images)
    for name in options.only:
        TABLES[name](bench)


if __name__ == "__main__":
    main()
