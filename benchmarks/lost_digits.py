"""At which noise a digit is lost: real ones, noised up to t and drawn from there: `python -m benchmarks.lost_digits`.

Writes `data/measured/lost_digits.json`, which the chapter on training shows. The network is told each test digit's class and
begins in between, at q(x_t | x_0), where all that is coarser than the noise is still right; the last row begins with noise
alone. What the classifier then reads otherwise was lost between t and 0. About a quarter of an hour on one core.
"""

import argparse
from pathlib import Path
from time import perf_counter

import torch
from tqdm import tqdm

from diffusion_edu import __main__ as cli
from diffusion_edu import checkpoints, data, metrics
from diffusion_edu.guidance import sdedit

OUT = Path(__file__).resolve().parents[1] / "data" / "measured" / "lost_digits.json"
TIMES = (0.25, 0.4, 0.55, 0.7, 0.85)
STEPS = 25  # from t = 1; as many fewer as the way is shorter


def main(arguments: list[str] | None = None) -> None:
    """Draw from every time and from noise; write how many are read as what they are."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--checkpoint", type=Path, default=cli.CHECKPOINTS / "mnist-unet-long")
    options.add_argument("--samples", type=int, default=5000)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--out", type=Path, default=OUT)
    given, started = options.parse_args(arguments), perf_counter()
    torch.set_num_threads(given.threads)
    denoiser = checkpoints.load(given.checkpoint)
    classifier, digest = cli.load_judge("mnist", None, torch.device("cpu"))
    test = data.load("mnist", "test")
    which = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[: given.samples]
    digits, labels = data.to_float(test.images[which]), test.labels[which]
    g = torch.Generator().manual_seed(0)

    def draw(t: float) -> torch.Tensor:
        steps, parts = round(STEPS * t), zip(digits.split(cli.BATCH), labels.split(cli.BATCH), strict=True)
        return torch.cat([sdedit(denoiser, x, t, y=y, generator=g, steps=steps) for x, y in tqdm(parts, desc=f"{t}")])

    drawn = {0.0: digits} | {t: draw(t) for t in TIMES}
    drawn[1.0] = cli.draw(denoiser, labels, "ancestral", STEPS, 1.0, 0)
    rows = [{"t": t, **metrics.accuracy(metrics.judge(classifier, x)[1], labels)} for t, x in drawn.items()]
    facts = {"checkpoint": denoiser.manifest["sha256"], "classifier": digest, "samples": len(labels), "steps": STEPS}
    checkpoints.write_json(given.out, facts | {"rows": rows, "seconds": perf_counter() - started})
    print("\n".join(map(str, rows)))


if __name__ == "__main__":
    main()
