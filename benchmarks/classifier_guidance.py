"""Guided digits of the committed MNIST network, measured: `python benchmarks/classifier_guidance.py`.

Classifier guidance of the unconditional network at scales 0 ... 5.5, by the noise-aware classifier and by one that only saw
clean digits, and classifier-free guidance on intervals of the log-SNR. Writes data/measured/classifier_guidance.json and
classifier_guidance.npz, row by row: run it again and it goes on where it stopped. About ten minutes on one core.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from diffusion_edu import checkpoints, data, metrics
from diffusion_edu.guidance import classifier_free, classifier_guided, on_interval
from diffusion_edu.samplers import ddim, sample
from diffusion_edu.schedules import time_grid

ROOT = Path(__file__).resolve().parents[1] / "data"
OUT = ROOT / "measured" / "classifier_guidance.json"
SCALES = (0.0, 0.5, 1.0, 2.5, 4.0, 5.5)
INTERVALS = ((None, None), (None, -2.0), (-2.0, 3.0), (3.0, None))  # of log-SNR; None: no limit
ROWS = [{"guide": "none", "w": 1.0, "low": None, "high": None}]
ROWS += [{"guide": "free", "w": 4.0, "low": low, "high": high} for low, high in INTERVALS]
ROWS += [{"guide": "noisy", "w": w, "low": None, "high": None} for w in SCALES]
ROWS += [{"guide": "clean", "w": w, "low": None, "high": None} for w in (5.5,)]


def guided(denoiser, row):
    """The denoiser that a row asks for."""
    if row["guide"] == "none":
        return denoiser
    if row["guide"] == "free":
        limits = {name: row[name] for name in ("low", "high") if row[name] is not None}
        return on_interval(classifier_free(denoiser, row["w"]), denoiser, **limits)
    if row["guide"] == "noisy":
        net, _ = checkpoints.load_network(ROOT / "checkpoints" / "mnist-noisy-classifier")
        return classifier_guided(denoiser, net.log_p_y, row["w"])
    net, _ = checkpoints.load_network(ROOT / "checkpoints" / "mnist-classifier")

    def log_p_y(x_t, t, y):  # the same network at every noise level: it was only shown clean digits
        return net(x_t).log_softmax(1).gather(1, y[:, None])[:, 0]

    return classifier_guided(denoiser, log_p_y, row["w"])


def spread(features, y):
    """Mean distance between two digits of one class, in the judge's features, and its standard error over classes."""
    means = [torch.pdist(features[y == c].double()).mean() for c in y.unique()]
    return metrics.mean_and_error(torch.stack(means))


def measure(judge, x, y, reference):
    """Accuracy, spread, precision and recall of digits x asked for as y."""
    features, seen = metrics.judge(judge, x)
    precision, recall = metrics.precision_recall(reference, features)
    return {
        **metrics.accuracy(seen, y),
        "spread": spread(features, y),
        "precision": precision,
        "recall": recall,
    }


def main() -> None:
    """Measure every row that is not written yet."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--samples", type=int, default=200)
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--guides", nargs="+", default=["none", "free", "noisy", "clean"])
    options = options.parse_args()
    denoiser = checkpoints.load(ROOT / "checkpoints" / "mnist-unet")
    judge, judge_manifest = checkpoints.load_network(ROOT / "checkpoints" / "mnist-classifier")
    y, test = torch.arange(options.samples) % 10, data.load("mnist", "test")
    first = [i for c in range(10) for i in (test.labels == c).nonzero()[: options.samples // 10, 0].tolist()]
    rest = sorted(set(range(len(test.images))) - set(first))[: 5 * options.samples]
    reference, _ = metrics.judge(judge, data.to_float(test.images[rest]))
    facts = {"samples": options.samples, "steps": options.steps, "seed": options.seed, "sampler": "ddim"}
    facts |= {"checkpoint": denoiser.manifest["sha256"], "judge": judge_manifest["sha256"], "reference": len(rest)}
    facts["real"] = measure(judge, data.to_float(test.images[first]), test.labels[first], reference)
    done = json.loads(OUT.read_text()) if OUT.exists() else {"rows": []}
    digits = dict(np.load(OUT.with_suffix(".npz"))) if OUT.exists() else {}
    rows = done["rows"] if {k: done.get(k) for k in facts} == facts else []
    ts, shape = time_grid(denoiser.schedule, options.steps), (options.samples, 1, 28, 28)
    for row in tqdm(ROWS, unit="row"):
        if row["guide"] not in options.guides or any(all(r[k] == row[k] for k in row) for r in rows):
            continue
        x_T, walker = torch.randn(shape, generator=torch.Generator().manual_seed(options.seed)), guided(denoiser, row)
        parts = [sample(ddim(walker, a, ts, y=b)) for a, b in zip(x_T.split(50), y.split(50), strict=True)]
        x = torch.cat(parts)
        measured = measure(judge, x, y, reference)
        if row["guide"] == "clean":  # the judge is the guide here: let the other network read the digits too
            other, _ = checkpoints.load_network(ROOT / "checkpoints" / "mnist-noisy-classifier")
            with torch.no_grad():
                seen = other(x, torch.tensor(denoiser.schedule.t_min)).argmax(1)
            measured["accuracy_other"] = float((seen == y).double().mean())
        rows.append(row | measured)
        digits["_".join(str(value) for value in row.values())] = data.to_uint8(x[:10, 0]).numpy()
        checkpoints.write_arrays(OUT.with_suffix(".npz"), **digits)
        checkpoints.write_json(OUT, facts | {"rows": rows})


if __name__ == "__main__":
    main()
