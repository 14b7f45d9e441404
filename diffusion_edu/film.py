"""A film of a training run: the same noises, drawn at about sixteen moments by the weight average and by the weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from diffusion_edu.checkpoints import write_arrays
from diffusion_edu.data import to_uint8
from diffusion_edu.denoisers import Denoiser
from diffusion_edu.samplers import ddim, sample
from diffusion_edu.schedules import time_grid
from diffusion_edu.training import Record, Run

DRAWERS = ("average", "weights")  # the order of a frame's two rows
FRAMES, DDIM_STEPS, SEED = 16, 10, 0


def moments(steps: int, log_every: int) -> list[int]:
    """At most FRAMES of a run's records, evenly spaced in the logarithm of the step: the first and the last among them."""
    spread = np.geomspace(min(log_every, steps), steps, FRAMES)
    return sorted({min(steps, log_every * max(1, round(step / log_every))) for step in spread} | {steps})


@torch.no_grad()
def draw_frame(run: Run, shape: tuple[int, ...]) -> np.ndarray:
    """One image of each class from fixed noises, by each of DRAWERS: uint8 (2, classes, C, H, W) for shape (C, H, W).

    By DDIM with DDIM_STEPS steps. The run, and the stream of random numbers, stay as they were.
    """
    was_training = run.denoiser.training
    run.denoiser.eval()
    rows = [to_uint8(draw_digits(net, run.denoiser, shape)) for net in (run.ema.net, run.denoiser.net)]
    run.denoiser.train(was_training)
    return torch.stack(rows).cpu().numpy()


def draw_digits(net: torch.nn.Module, trained: Denoiser, shape: tuple[int, ...]) -> Tensor:
    """One image of each class, (classes, C, H, W) in [-1, 1], by `net` in the place of the network that is `trained`."""
    denoiser = Denoiser(net, trained.schedule, trained.target, clip=(-1, 1)).eval()
    device = next(net.parameters()).device
    noise = torch.randn(net.num_classes, *shape, generator=torch.Generator().manual_seed(SEED)).to(device)
    ts = time_grid(trained.schedule, DDIM_STEPS)
    return sample(ddim(denoiser, noise, ts, y=torch.arange(net.num_classes, device=device)))


def filmed(records: Iterator[Record], run: Run, path: Path, shape: tuple[int, ...]) -> Iterator[Record]:
    """Pass on the records of `fit`; at `moments` add a frame to the film at `path`, an .npz of `steps` and `images`.

    images: uint8 (frames, 2, classes, C, H, W). A continued run keeps the frames up to where it goes on, and draws the later
    ones again. Raises ValueError when the film cannot be read or written.
    """
    wanted, frames = moments(run.config.steps, run.config.log_every), None
    for record in records:
        if frames is None:
            frames = {step: image for step, image in read_film(path) if step < record.step}
        if record.step in wanted:
            frames[record.step] = draw_frame(run, shape)
            write_arrays(path, steps=np.array(list(frames)), images=np.stack(list(frames.values())))
        yield record


def read_film(path: Path) -> list[tuple[int, np.ndarray]]:
    """The steps and frames of the film at `path`, none where there is no file. Raises ValueError for a damaged one."""
    if not path.exists():
        return []
    try:
        with np.load(path) as film:
            return list(zip(film["steps"].tolist(), film["images"], strict=True))
    except (BadZipFile, OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is damaged or no film: {error}") from None
