"""What a part of the U-Net is worth: `python -m benchmarks.unet_ablation` trains a small one without it, about ten minutes.

Every row is trained on MNIST from scratch, with three seeds, and so measured: the v-loss on 500 test images, over all
times and in three thirds of them. Writes `data/measured/unet_ablation.json`, row by row: run it again and it goes on.
"""

import json
from contextlib import ExitStack
from pathlib import Path

import torch

from diffusion_edu import data, training
from diffusion_edu.checkpoints import write_json
from diffusion_edu.denoisers import Denoiser
from diffusion_edu.losses import denoising_loss, spread_times
from diffusion_edu.machine import describe
from diffusion_edu.networks import UNet
from diffusion_edu.networks.unet import without
from diffusion_edu.schedules import Cosine

OUT = Path(__file__).resolve().parents[1] / "data" / "measured" / "unet_ablation.json"
PARTS = ("nothing", "attention", "time", "skip 2", "skip 1", "skip 0", "skips")
CHANNELS, STEPS, BATCH, RATE, SEEDS, TESTED = (8, 16, 32), 300, 32, 4e-3, (0, 1, 2), 500


@torch.no_grad()
def test_losses(denoiser: Denoiser, images: torch.Tensor, y: torch.Tensor) -> list[float]:
    """The mean loss of images (N, 1, H, W) in [-1, 1] at times spread over all, and over each third of them."""
    generator = torch.Generator().manual_seed(0)
    t = spread_times(denoiser.schedule, len(images), generator).sort().values
    eps = torch.randn(images.shape, generator=generator)
    parts = [denoising_loss(denoiser, *part) for part in zip(*(x.split(250) for x in (images, t, eps, y)), strict=True)]
    losses = torch.cat(parts)
    return [float(part.mean()) for part in (losses, *losses.tensor_split(3))]


def measure(part: str, seed: int, train: data.Dataset, test: data.Dataset) -> dict:
    """One row: a network that never had the part."""
    torch.manual_seed(seed)
    net = UNet(channels=CHANNELS)
    config = training.TrainConfig(steps=STEPS, batch=BATCH, rate=RATE, seed=seed)
    run = training.Run(Denoiser(net, Cosine(), "v"), config)
    images, y = data.to_float(test.images[:TESTED]), test.labels[:TESTED]
    with ExitStack() as stack:
        for twin in (net, run.ema.net) if part != "nothing" else ():
            stack.enter_context(without(twin, part))
        for _ in training.fit(run, train.images, train.labels):
            pass
        losses = test_losses(run.ema, images, y)
    return {"part": part, "seed": seed, "loss": losses[0], "thirds": losses[1:]}


def main() -> None:
    """Fill the table row by row."""
    settings = {"channels": CHANNELS, "steps": STEPS, "batch": BATCH, "rate": RATE, "target": "v", "tested": TESTED}
    table = json.loads(OUT.read_text()) if OUT.exists() else {"settings": settings, "rows": []}
    train, test = data.load("mnist", "train"), data.load("mnist", "test")
    for seed in SEEDS:
        for part in PARTS:
            if any((row["part"], row["seed"]) == (part, seed) for row in table["rows"]):
                continue
            table["rows"].append(measure(part, seed, train, test))
            write_json(OUT, table | {"machine": describe(torch.device("cpu"))})
            print(table["rows"][-1], flush=True)


if __name__ == "__main__":
    main()
