"""Judges of samples, judged: their floors against the number of images, and six models side by side.

`python benchmarks/metric_bias.py` writes data/measured/metric_bias.json, which the chapter `book/evaluate.md` shows.
About half an hour on one core. Images and features are kept in _build/judged, so a run that was stopped goes on.
"""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from diffusion_edu import checkpoints, data, metrics
from diffusion_edu.__main__ import draw
from diffusion_edu.networks import Classifier

ROOT = Path(__file__).resolve().parents[1]
FOLDER, KEPT = ROOT / "data" / "checkpoints", ROOT / "_build" / "judged"
N, KNOWN = 1000, 10_000  # images of each model; training images among which copies are sought
SIZES = (50, 100, 200, 500, 1000, 2000, 5000, 10_000)
NETWORK = {
    "ddim-10-w1": ("ddim", 10, 1.0),
    "ancestral-25-w1": ("ancestral", 25, 1.0),
    "ddim-10-w2": ("ddim", 10, 2.0),
}  # name: sampler, steps, guidance weight


def kept(name: str, make: Callable[[], Tensor]) -> Tensor:
    """The tensor of that name in KEPT; made and written there, atomically, if it is absent."""
    path = KEPT / f"{name}.pt"
    if not path.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".tmp")
        torch.save(make(), draft)
        draft.replace(path)
    return torch.load(path)


def wide(classifier: Classifier, images: Tensor) -> Tensor:
    """Activations (N, 1152) two layers below the features."""
    with torch.no_grad():
        return torch.cat([classifier.body[:-2](data.to_float(part)) for part in images.split(500)])


def models(train: data.Dataset) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Name: uint8 images (N, 1, 28, 28), and the labels they were asked for."""
    g = torch.Generator().manual_seed(0)
    later = torch.randperm(len(train) - KNOWN, generator=g) + KNOWN  # none of them among the known ones
    seven = later[train.labels[later] < 7]
    copies = torch.randperm(KNOWN, generator=g)[:100][torch.randint(100, (N,), generator=g)]
    found = {
        name: (train.images[rows[:N]], train.labels[rows[:N]])
        for name, rows in (("real", later), ("dropping", seven), ("copying", copies))
    }
    vae, _ = checkpoints.load_network(FOLDER / "mnist-vae")
    found["blurring"] = (
        kept(f"vae-{N}", lambda: data.to_uint8(vae.sample(N, torch.Generator().manual_seed(0)).mean())),
        None,
    )
    denoiser = checkpoints.load(FOLDER / "mnist-unet")
    y = torch.arange(N) % 10
    for name, (sampler, steps, w) in NETWORK.items():
        parts = [
            kept(f"{name}-{i}", lambda s=sampler, k=steps, w=w, i=i: data.to_uint8(draw(denoiser, y[:250], s, k, w, i)))
            for i in tqdm(range(N // 250), desc=name)
        ]
        found[name] = (torch.cat(parts), y)
    return found


def floors(real: Tensor, reference: Tensor, most: int) -> list[dict]:
    """Fréchet distance of disjoint parts of the real features against the reference, for every size: mean and deviation."""
    rows = []
    for n in [size for size in SIZES if size <= len(real)]:
        values = torch.tensor([metrics.frechet_distance(part, reference) for part in real[: n * most].split(n)])
        row = {"n": n, "parts": len(values), "mean": float(values.mean())}
        rows.append(row | {"deviation": float(values.std()) if len(values) > 1 else None})
    return rows


def other_floors(classifier: Classifier, real: Tensor, reference: metrics.Manifold) -> list[dict]:
    """What real images get from the other judges, for every size up to 5000."""
    rows = []
    for n in tqdm([size for size in SIZES if size <= 5000], desc="floors"):
        parts = list(islice(real.split(n), 10))
        rows.append(
            {"n": n, **metrics.with_floor([metrics.judgements(part, classifier.head, reference) for part in parts])}
        )
    return rows


def by_shares(real: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor) -> dict:
    """What the shares of the classes do to the floor, and to the bootstrap; features and labels of both splits.

    rows: for n real training images drawn at random, in equal shares, or in those of the test split, mean and deviation of
    the Fréchet distance over disjoint parts; spread: bootstrap deviations, plain and within classes, mean over six parts.
    bound: of the distance in equal shares, from the class means; trace: of the test covariance, in all and within classes.
    """
    rows = []
    for n in tqdm(SIZES[2:], desc="shares"):
        for shares, asked in (
            ("drawn", n),
            ("equal", torch.arange(n) % 10),
            ("test", metrics.in_shares(test_labels, n)),
        ):
            parts = list(islice(metrics.part_indices(labels, asked), 30))
            values = torch.tensor([metrics.frechet_distance(real[part], test) for part in parts])
            spreads = [
                [metrics.frechet_spread(real[part], test, y) for y in (None, labels[part])] for part in parts[:6]
            ]
            row = {"shares": shares, "n": n, "parts": len(values), "mean": float(values.mean())}
            row |= {"deviation": float(values.std()), "spread": torch.tensor(spreads).mean(0).tolist()}
            rows.append(row)
    share = torch.bincount(test_labels) / len(test_labels)
    means = torch.stack([test[test_labels == c].double().mean(0) for c in range(10)])
    within = sum(p * test[test_labels == c].double().T.cov(correction=0).trace() for c, p in enumerate(share))
    return {
        "rows": rows,
        "bound": float(((0.1 - share.double()) @ means).square().sum()),
        "trace": [float(test.double().T.cov(correction=0).trace()), float(within)],
        "counts": torch.bincount(test_labels).tolist(),
    }


def judged(
    images: Tensor,
    y: Tensor | None,
    classifier: Classifier,
    reference: metrics.Manifold,
    known: Tensor,
    test: data.Dataset,
    asked: bool,
) -> dict:
    """All that the judges say about uint8 images; asked: whether their classes y were, or came by chance."""
    features, seen = metrics.judge(classifier, data.to_float(images))
    limit, slope = metrics.frechet_limit(
        features, reference.points, generator=torch.Generator().manual_seed(0), y=y if asked else None
    )
    density, coverage = metrics.density_coverage(reference.points, features)
    flat = [each.flatten(1).float() for each in (images, known, test.images)]
    row = {
        "samples": len(images),
        "frechet": metrics.frechet_distance(features, reference.points),
        "frechet_error": metrics.frechet_spread(features, reference.points, y if asked else None),
        "frechet_limit": limit,
        "slope": slope,
        "density": density,
        "coverage": coverage,
        "copied": metrics.copied_share(*flat),
        **metrics.judgements(features, classifier.head, reference),
    }
    if y is None:
        return row | {"accuracy": None, "accuracy_interval": None, "taught": None}
    hits = int((seen == y).sum())
    taught = [metrics.classification_accuracy_score(data.to_float(images), y, test, seed=s) for s in range(3)]
    return row | {
        "accuracy": hits / len(y),
        "accuracy_interval": metrics.share_interval(hits, len(y)),
        "taught": taught,
    }


def main() -> None:
    """Measure, and write down after every step."""
    classifier, judge = checkpoints.load_network(FOLDER / "mnist-classifier")
    train, test = data.load("mnist", "train"), data.load("mnist", "test")
    images = models(train)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(1))
    real = kept("train", lambda: metrics.judge(classifier, data.to_float(train.images[order]))[0])
    features = kept("test", lambda: metrics.judge(classifier, data.to_float(test.images))[0])
    reference = metrics.Manifold(features)
    half = test.images[torch.randperm(len(test), generator=torch.Generator().manual_seed(2))]
    wide_test = wide(classifier, half)
    facts = {
        "classifier": judge["sha256"],
        "network": checkpoints.read_manifest(FOLDER / "mnist-unet")["sha256"],
        "bias": metrics.frechet_bias(features),
        "eigenvalues": torch.linalg.eigvalsh(features.double().T.cov()).flip(0)[:40].tolist(),
        "trace": float(features.double().T.cov().trace()),
        "narrow": floors(real, features, 12),
        "halves": halves(features),
        "others": other_floors(classifier, real, reference),
        "shares": by_shares(real, train.labels[order], features, test.labels),
    }
    facts["wide"] = halves(wide_test, sizes=(100, 200, 500, 1000, 2000, 5000), most=3)
    facts["wide_trace"] = float(wide_test.double().T.cov().trace())
    facts["models"] = {}
    for name, (x, y) in tqdm(images.items(), desc="models"):
        facts["models"][name] = judged(x, y, classifier, reference, train.images[:KNOWN], test, name in NETWORK)
        checkpoints.write_json(ROOT / "data" / "measured" / "metric_bias.json", facts)


def halves(features: Tensor, sizes: tuple[int, ...] = SIZES[:-1], most: int = 6) -> list[dict]:
    """Distances of two disjoint parts of n of the same real images: one law on both sides."""
    rows = []
    for n in [size for size in sizes if size <= len(features) // 2]:
        g, values = torch.Generator().manual_seed(n), []
        for _ in range(most):
            both = features[torch.randperm(len(features), generator=g)[: 2 * n]]
            values.append(metrics.frechet_distance(both[:n], both[n:]))
        values = torch.tensor(values)
        rows.append({"n": n, "mean": float(values.mean()), "deviation": float(values.std()), "parts": most})
    return rows


if __name__ == "__main__":
    main()
