"""Time the U-Net, and what each sampler adds to it: `make bench`.

Absolute times belong to a machine; a sampler's share of the network's time does not, so that is what is given for
samplers. Their own work is timed with a network that answers at once, since a few per cent would drown in the noise
of two long runs. Repetitions of the two are interleaved, so that a busy machine slows both.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from diffusion_edu import samplers, training
from diffusion_edu.denoisers import Denoiser
from diffusion_edu.networks.unet import UNet
from diffusion_edu.schedules import Cosine, time_grid

STEPS = 5
# name, arguments, network evaluations in STEPS steps (Heun: two a step, one in the last)
SAMPLERS: tuple[tuple[str, Callable, dict, int], ...] = (
    ("ancestral", samplers.ancestral, {}, STEPS),
    ("ddim", samplers.ddim, {"eta": 0.0}, STEPS),
    ("euler_maruyama", samplers.euler_maruyama, {}, STEPS),
    ("probability_flow, euler", samplers.probability_flow, {"method": "euler"}, STEPS),
    ("probability_flow, heun", samplers.probability_flow, {"method": "heun"}, 2 * STEPS - 1),
)


def seconds(work: Callable[[], object]) -> float:
    """Return the time that `work` takes, waiting for a GPU to finish where there is one."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def spread(values: list[float], unit: str, scale: float = 1.0) -> str:
    """Return "median (lower to upper quartile)"."""
    low, middle, high = (scale * value for value in statistics.quantiles(values, n=4))
    return f"{middle:8.3f} {unit} ({low:.3f} to {high:.3f})"


class Instant(nn.Module):
    """A network that answers at once, always the same."""

    num_classes = 10

    def __init__(self, x: Tensor):
        super().__init__()
        self.answer = torch.zeros_like(x)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.answer[: len(x)]


class Written(TorchDispatchMode):
    """Counts the bytes of all tensors that operations give back."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):  # noqa: ANN001
        found = function(*arguments, **(keywords or {}))
        if isinstance(found, Tensor):
            self.count += found.numel() * found.element_size()
        return found


def written(work: Callable[[], object]) -> int:
    """Return how many bytes the tensors take that `work` computes."""
    with Written() as mode:
        work()
    return mode.count


@torch.no_grad()
def evaluate(denoiser: Denoiser, x: Tensor, y: Tensor, times: int) -> None:
    """Evaluate the bare network as often as a sampler would."""
    t = torch.full((len(x),), 0.5, device=x.device)
    for _ in range(times):
        denoiser.net(x, t, y)


def network_lines(denoiser: Denoiser, batch: int, repetitions: int, device: str) -> Iterator[str]:
    """Time a forward pass and a training step."""
    x, y = torch.randn(batch, 1, 28, 28, device=device), torch.arange(batch, device=device) % 10
    forward = [seconds(lambda: evaluate(denoiser, x, y, 1)) for _ in range(repetitions + 1)][1:]
    yield f"  forward         {spread(forward, 'ms', 1e3)}"
    images = torch.randint(0, 256, (4 * batch, 1, 28, 28), dtype=torch.uint8, device=device)
    run = training.Run(denoiser, training.TrainConfig(batch=batch))
    labels = torch.arange(4 * batch, device=device) % 10
    step = [seconds(lambda: training.train_step(run, images, labels)) for _ in range(repetitions + 1)][1:]
    yield f"  training step   {spread(step, 'ms', 1e3)}"


def sampler_lines(denoiser: Denoiser, batch: int, repetitions: int, device: str) -> Iterator[str]:
    """Time each sampler's own work, and count the bytes it writes, as a share of its network evaluations."""
    x, y = torch.randn(batch, 1, 28, 28, device=device), torch.arange(batch, device=device) % 10
    ts = time_grid(denoiser.schedule, STEPS).to(device)
    instant = Denoiser(Instant(x), denoiser.schedule, denoiser.target, clip=denoiser.clip)
    for name, sampler, arguments, evaluations in SAMPLERS:

        def run(sampler: Callable = sampler, arguments: dict = arguments) -> Tensor:
            return samplers.sample(sampler(instant, x, ts, y=y, **arguments))

        def network(times: int = evaluations) -> None:
            evaluate(denoiser, x, y, times)

        shares = [seconds(run) / seconds(network) for _ in range(repetitions + 1)][1:]
        bytes_share = written(run) / written(network)
        yield f"  {name:24s}{spread(shares, '% of the network', 100)}, {100 * bytes_share:.1f} % of its bytes"


def main() -> None:
    """Print one line for each thing timed."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--repetitions", type=int, default=7)
    given = options.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    denoiser = Denoiser(UNet(), Cosine(), clip=(-1, 1)).to(device)
    where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    count = sum(parameter.numel() for parameter in denoiser.parameters())
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {where}")
    print(f"U-Net with {count:,} parameters, batch {given.batch}, 28 x 28; median (quartiles) of {given.repetitions}")
    for line in network_lines(denoiser, given.batch, given.repetitions, device):
        print(line, flush=True)
    denoiser.eval()
    print(f"samplers, {STEPS} steps")
    for line in sampler_lines(denoiser, given.batch, given.repetitions, device):
        print(line, flush=True)


if __name__ == "__main__":
    main()
