"""A trained network behind a widget: in JupyterLab torch answers what a Web Worker answers on the built site.

A widget's module asks, `model.send({id, op: "sample", ...})`, and hears `model.on("msg:custom", (content, buffers) => ...)`.

    id            a number or text, new for each request; it comes back in every reply
    y             1 to 10 classes; the number of classes itself stands for "no class"
    w             guidance weight, 1 (default) is plain conditional
    sampler       "ddim" (default), "ancestral", "dpm-solver++" (2M) or "edm" (Heun's method)
    evaluations   network evaluations of an image, 1 to 200 (default 20): as many steps as they allow
    grid          "uniform" (default), "log_snr" or "edm"
    seed          0 (default) to 2^32 - 1: all images begin from this one noise; or a list with a seed for each
    start         {image, t}: begin from this image, noised to t, instead of from noise
    keep          {image, mask}: the image is kept where mask is 1 and drawn where it is 0; sampler "ancestral"
    resamples     with keep: how often each step is taken (default 1); the steps are evaluations // resamples

An image is a plain list of H W numbers in [-1, 1], row by row, for all, or of N H W. `{op: "cancel", id}` ends a request,
and so does a new one of the same widget; what was cancelled is heard of no more. The replies carry the id and a kind:

    progress      loaded, total: bytes of runtime and network, on the site only; total is null where it is not known
    step          step, of, t, ms, and two buffers [x_t, x0_hat] of N H W bytes, 0 (-1) to 255 (1): the state at time t and
                  what the denoiser makes of it, for step 0 ... of. At the last, t = 0, both are the finished images
    done          after the last step
    error         message: one sentence for the reader

The noise is `noise.SharedNoise`, so both answerers give the same images. On the site `book/_static/widget-host.js` passes
the messages to `network-worker.mjs`, and `sampling.mjs` does what this file and the samplers do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion_edu import samplers
from diffusion_edu.data import to_uint8
from diffusion_edu.denoisers import DenoiserFunction
from diffusion_edu.guidance import classifier_free, count_classes
from diffusion_edu.noise import WORD, SharedNoise
from diffusion_edu.process import normal_like, q_sample
from diffusion_edu.samplers import Step
from diffusion_edu.schedules import SPACINGS, time_grid

OFFERED = ("ddim", "ancestral", "dpm-solver++", "edm")  # the samplers that the page has, too
MOST_IMAGES, MOST_EVALUATIONS = 10, 200
NO_NETWORK = "There is no network behind this widget: give it one, with the argument denoiser=."


class Shown(NamedTuple):
    """State x_t (N, C, H, W) at time t, and the denoiser's estimate of x_0; step 0 ... of."""

    step: int
    of: int
    t: float
    x_t: Tensor
    x0_hat: Tensor


class Request(NamedTuple):
    """A widget's question, checked; see the head of this file."""

    y: Tensor
    w: float
    sampler: str
    steps: int
    grid: str
    seeds: list[int]
    start: tuple[Tensor, float] | None
    keep: tuple[Tensor, Tensor] | None
    resamples: int


def is_whole(value: object, low: int, high: int) -> bool:
    """Whether `value` is an int in [low, high]."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def check(good: bool, name: str, value: object, allowed: str) -> None:
    """Raise ValueError that names the field of a request, unless `good`."""
    if not good:
        raise ValueError(f"{name} must be {allowed}, got {value!r}")


def spread(values: object, name: str, shape: tuple[int, ...]) -> Tensor:
    """Numbers of one image for all, or of one for each, as a tensor of `shape` (N, C, H, W); ValueError for others."""
    size = torch.Size(shape[1:]).numel()
    found = torch.tensor(values if isinstance(values, list) else [], dtype=torch.get_default_dtype())
    if found.numel() not in (size, shape[0] * size):
        raise ValueError(f"{name} must hold {size} numbers, or {size} for each image, got {found.numel()}")
    return found.reshape(-1, *shape[1:]).expand(shape)


def read_request(content: Mapping[str, Any], denoiser: DenoiserFunction, shape: tuple[int, ...]) -> Request:
    """The request in a message's content; shape: (C, H, W) of an image. ValueError, one sentence, where it has no sense."""
    values = {"w": 1, "evaluations": 20, "grid": "uniform", "seed": 0, "resamples": 1, "y": None, **content}
    y, w, evaluations, seed, resamples = (values[name] for name in ("y", "w", "evaluations", "seed", "resamples"))
    keep, start = values.get("keep"), values.get("start")
    sampler = values.get("sampler") or ("ancestral" if keep else "ddim")
    classes, schedule = count_classes(denoiser), denoiser.schedule
    known = isinstance(y, list) and 1 <= len(y) <= MOST_IMAGES and all(is_whole(c, 0, classes) for c in y)
    check(known, "y", y, f"1 to {MOST_IMAGES} classes from 0 to {classes}")
    check(isinstance(w, (int, float)) and -20 <= w <= 20, "w", w, "a number from -20 to 20")
    check(sampler in OFFERED, "sampler", sampler, ", ".join(OFFERED))
    check(not keep or sampler == "ancestral", "sampler", sampler, "ancestral where a part is kept")
    check(values["grid"] in SPACINGS, "grid", values["grid"], "uniform, log_snr or edm")
    whole = f"a whole number from 1 to {MOST_EVALUATIONS}"
    check(is_whole(evaluations, 1, MOST_EVALUATIONS), "evaluations", evaluations, whole)
    check(is_whole(resamples, 1, evaluations), "resamples", resamples, "a whole number from 1 to the evaluations")
    seeds = seed if isinstance(seed, list) else [seed] * len(y)
    fitting = len(seeds) == len(y) and all(is_whole(each, 0, WORD) for each in seeds)
    check(fitting, "seed", seed, "a whole number from 0 to 2^32 - 1, or one for each image")
    batch = (len(y), *shape)
    if start:
        inside = isinstance(start["t"], (int, float)) and schedule.t_min < start["t"] <= schedule.t_max
        check(inside, "start.t", start["t"], f"a time from {schedule.t_min:g} to {schedule.t_max:g}")
        start = spread(start["image"], "image", batch), float(start["t"])
    if keep:
        keep = spread(keep["image"], "image", batch), spread(keep["mask"], "mask", batch)
    steps = samplers.steps_within(sampler, evaluations) // (resamples if keep else 1)
    return Request(torch.tensor(y), float(w), sampler, steps, values["grid"], seeds, start, keep, resamples)


def trajectory(
    denoiser: DenoiserFunction, content: Mapping[str, Any], shape: tuple[int, ...] = (1, 28, 28)
) -> Iterator[Shown]:
    """The states of a request, one after the other, with the package's samplers; content: see the head of this file.

    denoiser: with classes. shape: (C, H, W) of one image. Raises ValueError, one sentence, for a request without sense.
    """
    request = read_request(content, denoiser, shape)
    noise = SharedNoise(request.seeds)
    schedule, start = denoiser.schedule, request.start
    x = normal_like(torch.empty(len(request.y), *shape), noise)
    if start is not None:
        x = q_sample(schedule, start[0], torch.tensor(start[1], dtype=torch.float64), x)
    ts = time_grid(schedule, request.steps, request.grid, start[1] if start else None)
    guided = classifier_free(denoiser, request.w)
    if request.keep is not None:
        steps = samplers.inpaint(
            guided, x, ts, *request.keep, y=request.y, generator=noise, resamplings=request.resamples
        )
    else:
        generator = {"generator": noise} if request.sampler in samplers.NEEDS_GENERATOR else {}
        steps = samplers.SAMPLERS[request.sampler](guided, x, ts, y=request.y, **generator)
    return states(steps, ts)


def states(steps: Iterator[Step], ts: Tensor) -> Iterator[Shown]:
    """What a sampler on the grid `ts` (K + 1,) saw: K states with their estimates, and the finished images."""
    count, step = len(ts) - 1, None
    for number, step in enumerate(steps):
        yield Shown(number, count, float(ts[number]), step.prediction.x_t, step.prediction.x0)
    yield Shown(count, count, 0.0, step.x, step.x)


class LiveNetwork:
    """Mixin of a widget (before `Widget`): answers its module's requests with a denoiser, in the kernel.

    denoiser: one with classes, such as `checkpoints.load` gives; None: requests are answered by an error that says so.
    image_shape: (C, H, W) of its images. Between two steps the kernel is free to hear a cancellation.
    """

    def __init__(
        self,
        *arguments: Any,
        denoiser: DenoiserFunction | None = None,
        image_shape: tuple[int, ...] = (1, 28, 28),
        **traits: Any,
    ) -> None:
        super().__init__(*arguments, **traits)
        self.denoiser, self.image_shape, self.latest = denoiser, image_shape, None
        self.on_msg(self.hear)

    def hear(self, widget: Any, content: Mapping[str, Any], buffers: list) -> None:
        """Take a message of the widget's module."""
        if content.get("op") == "cancel" and content.get("id") == self.latest:
            self.latest = None
        elif content.get("op") == "sample":
            self.latest = content.get("id")
            work = self.answer(content)
            try:
                self.work = asyncio.get_running_loop().create_task(work)  # kept: a loop forgets tasks that nobody holds
            except RuntimeError:  # no kernel around: a test, or a script
                asyncio.run(work)

    async def answer(self, content: Mapping[str, Any]) -> None:
        """Reply with the states of a request, one message each, until it is finished or no longer the latest."""
        key = content.get("id")
        try:
            if self.denoiser is None:
                raise ValueError(NO_NETWORK)
            started = perf_counter()
            for shown in trajectory(self.denoiser, content, self.image_shape):
                if self.latest != key:
                    return
                ms = round(1000 * (perf_counter() - started), 1)
                head = {"step": shown.step, "of": shown.of, "t": shown.t} | (
                    {"ms": ms} if shown.step < shown.of else {}
                )
                self.send({"id": key, "kind": "step", **head}, [to_bytes(shown.x_t), to_bytes(shown.x0_hat)])
                await asyncio.sleep(0)
                started = perf_counter()
            self.send({"id": key, "kind": "done"})
        except (ValueError, KeyError, TypeError) as error:
            self.send({"id": key, "kind": "error", "message": str(error)})


def to_bytes(images: Tensor) -> bytes:
    """Images in [-1, 1] as bytes, one a pixel."""
    return to_uint8(images).cpu().numpy().tobytes()
