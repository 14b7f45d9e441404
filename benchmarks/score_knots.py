"""What the committed MNIST network knows at 64 times, on 200 training digits: `python benchmarks/score_knots.py`.

Writes data/measured/score_knots.json: E |eps_hat|^2 / d and E |x_0 - x0_hat|^2 / d, from which the chapter `book/fast.md`
finds the best variances and the best times. Under a minute on one core.
"""

from pathlib import Path

import torch
from tqdm import tqdm

from diffusion_edu import checkpoints, data
from diffusion_edu.process import q_sample
from diffusion_edu.schedules import time_grid

ROOT = Path(__file__).resolve().parents[1]
TIMES, IMAGES = 64, 200


@torch.no_grad()
def main() -> None:
    """Noise the digits to each time, the same noise for all, and ask the network."""
    torch.set_num_threads(1)
    denoiser, train = checkpoints.load(ROOT / "data" / "checkpoints" / "mnist-unet"), data.load("mnist", "train")
    x0, y = data.to_float(train.images[:IMAGES]), train.labels[:IMAGES]
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(3))
    ts, squares, errors = time_grid(denoiser.schedule, TIMES, "log_snr")[:-1], [], []
    for t in tqdm(ts, unit="time"):
        guess = denoiser(q_sample(denoiser.schedule, x0, t.float(), eps), t, y)
        squares.append(float(guess.eps.double().square().mean()))
        errors.append(float((x0 - guess.x0).double().square().mean()))
    found = {"t": ts.tolist(), "eps_square": squares, "x0_error": errors, "images": IMAGES}
    facts = {"checkpoint": denoiser.manifest["sha256"]}
    checkpoints.write_json(ROOT / "data" / "measured" / "score_knots.json", facts | found)


if __name__ == "__main__":
    main()
