"""Several processes that train as one, each with its own GPU and its share of every batch.

`torchrun --nproc-per-node N -m diffusion_edu train ...` starts them. All hold the same weights and draw the same random
numbers; they add their gradients before each step, so that N processes do what one would. Alone, nothing here has an effect.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def start(device: torch.device) -> torch.device:
    """Join the processes that torchrun started, if it did; return the device that is this process's own.

    Raises ValueError when there are more of them than GPUs.
    """
    if "WORLD_SIZE" not in os.environ or dist.is_initialized():
        return device
    if device.type == "cuda":
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        if here > torch.cuda.device_count():
            raise ValueError(f"{here} processes need as many GPUs, here are {torch.cuda.device_count()}")
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def stop() -> None:
    """Leave the other processes."""
    if size() > 1:
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process; 0 is the one that writes and prints."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def total(value: Tensor) -> Tensor:
    """The sum of `value` over all processes, on each of them."""
    if size() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its sum over all processes, in one message."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if size() > 1 and gradients:
        summed = total(torch.cat([g.flatten() for g in gradients]))
        parts = summed.split([g.numel() for g in gradients])
        torch._foreach_copy_(gradients, [part.view(g.shape) for part, g in zip(parts, gradients, strict=True)])


def first_says(value: int, device: torch.device) -> int:
    """The value that process 0 holds."""
    return int(total(torch.tensor(int(value) if rank() == 0 else 0, device=device)))  # a bool has another size
