"""Sampling speed beside diffusers and denoising-diffusion-pytorch: a part of `make bench`.

First one network under three loops: ours, diffusers' DDIMScheduler, GaussianDiffusion.ddim_sample. Then each
library's own U-Net of about as many parameters as ours in its own loop. Same batch, same number of evaluations. A
library that is not installed is left out, and said so. Repetitions are interleaved: what is given are ratios to ours.
"""

import argparse
import contextlib
import io
import platform
import sys
import types
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.bench import seconds, spread
from diffusion_edu.denoisers import Denoiser
from diffusion_edu.networks.unet import UNet
from diffusion_edu.samplers import ddim, sample
from diffusion_edu.schedules import Cosine, time_grid

Loop = Callable[[], object]
INSTALL = {
    "diffusers": "pip install diffusers",
    "denoising-diffusion-pytorch": "pip install --no-deps denoising-diffusion-pytorch einops ema-pytorch accelerate",
}


class Called(nn.Module):
    """Our U-Net as the other libraries call theirs: time in steps of a thousand, no class, and their attributes."""

    def __init__(self, net: UNet):
        super().__init__()
        self.net, self.channels, self.out_dim, self.self_condition = net, 1, 1, False

    def forward(self, x: Tensor, t: Tensor, *ignored: object) -> Tensor:
        return self.net(x, t / 1000)


def our_loop(net: UNet, batch: int, steps: int) -> Loop:
    denoiser = Denoiser(net, Cosine(), "v", clip=(-1, 1)).eval()
    ts = time_grid(denoiser.schedule, steps)
    return lambda: sample(ddim(denoiser, torch.randn(batch, 1, 28, 28), ts))


def diffusers_loop(predict: Callable[[Tensor, Tensor], Tensor], batch: int, steps: int) -> Loop:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")

    @torch.no_grad()
    def run() -> Tensor:
        scheduler.set_timesteps(steps)
        x = torch.randn(batch, 1, 28, 28)
        for t in scheduler.timesteps:
            x = scheduler.step(predict(x, t.expand(batch)), t, x).prev_sample
        return x

    return run


def import_denoising_diffusion() -> types.ModuleType:
    """Import it without torchvision and pytorch-fid, which only its training data and its FID need."""
    for name in ("torchvision", "pytorch_fid", "pytorch_fid.fid_score", "pytorch_fid.inception"):
        module = sys.modules.setdefault(name, types.ModuleType(name))
        for part in ("transforms", "utils", "calculate_frechet_distance", "InceptionV3"):
            setattr(module, part, None)
    import denoising_diffusion_pytorch

    return denoising_diffusion_pytorch


def denoising_diffusion_loop(model: nn.Module, batch: int, steps: int) -> Loop:
    library = import_denoising_diffusion()
    arguments = {"image_size": 28, "sampling_timesteps": steps, "objective": "pred_v", "beta_schedule": "cosine"}
    diffusion = library.GaussianDiffusion(model, **arguments).eval()

    def run() -> Tensor:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            return diffusion.sample(batch_size=batch)

    return run


def one_network(batch: int, steps: int) -> dict[str, Loop]:
    """Return the loop of each library around one and the same network."""
    net = UNet().eval()
    loops, called = {"ours": our_loop(net, batch, steps)}, Called(net).eval()
    with contextlib.suppress(ImportError):
        loops["diffusers"] = diffusers_loop(called, batch, steps)
    with contextlib.suppress(ImportError):
        loops["denoising-diffusion-pytorch"] = denoising_diffusion_loop(called, batch, steps)
    return loops


def own_networks(batch: int, steps: int) -> tuple[dict[str, Loop], dict[str, nn.Module]]:
    """Return each library's loop around its own U-Net, and the U-Nets; widths chosen to match our parameter count."""
    nets = {"ours": UNet().eval()}
    loops = {"ours": our_loop(nets["ours"], batch, steps)}
    with contextlib.suppress(ImportError):
        from diffusers import UNet2DModel

        blocks = {"down_block_types": ("DownBlock2D",) * 3, "up_block_types": ("UpBlock2D",) * 3}
        sizes = {"block_out_channels": (16, 40, 80), "layers_per_block": 1, "norm_num_groups": 8}
        net = UNet2DModel(sample_size=28, in_channels=1, out_channels=1, **blocks, **sizes).eval()
        nets["diffusers"] = net
        loops["diffusers"] = diffusers_loop(lambda x, t: nets["diffusers"](x, t).sample, batch, steps)
    with contextlib.suppress(ImportError):
        net = import_denoising_diffusion().Unet(dim=16, dim_mults=(1, 2, 4), channels=1).eval()
        nets["denoising-diffusion-pytorch"] = net
        loops["denoising-diffusion-pytorch"] = denoising_diffusion_loop(net, batch, steps)
    return loops, nets


def compare(loops: dict[str, Loop], repetitions: int) -> dict[str, list[float]]:
    """Return each loop's time over our loop's, in interleaved repetitions after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(repetitions + 1):
        for name, loop in loops.items():
            times[name].append(seconds(loop))
    return {name: [a / b for a, b in zip(each[1:], times["ours"][1:], strict=True)] for name, each in times.items()}


@torch.no_grad()
def size(net: nn.Module) -> str:
    """Return a network's parameters and multiply-adds an image."""
    with FlopCounterMode(display=False) as counter:
        net(torch.randn(1, 1, 28, 28), torch.full((1,), 0.5 if isinstance(net, UNet) else 500))
    parameters = sum(each.numel() for each in net.parameters())
    return f"{parameters / 1e6:.2f} M parameters, {counter.get_total_flops() / 2e6:.0f} M multiply-adds"


def main() -> None:
    """Print both comparisons."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--steps", type=int, default=10)
    options.add_argument("--repetitions", type=int, default=9)
    given = options.parse_args()
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {torch.get_num_threads()} CPU threads")
    print(f"batch {given.batch}, {given.steps} DDIM steps; time over ours, median (quartiles) of {given.repetitions}")
    loops = one_network(given.batch, given.steps)
    for name in INSTALL.keys() - loops.keys():
        print(f"  {name} is not installed and left out: {INSTALL[name]}")
    print("one network, three loops")
    for name, ratios in compare(loops, given.repetitions).items():
        print(f"  {name:28s}{spread(ratios, 'times ours')}", flush=True)
    print("each library's own U-Net")
    loops, nets = own_networks(given.batch, given.steps)
    for name, ratios in compare(loops, given.repetitions).items():
        print(f"  {name:28s}{spread(ratios, 'times ours')}   {size(nets[name])}", flush=True)


if __name__ == "__main__":
    main()
