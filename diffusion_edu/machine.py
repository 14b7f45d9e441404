"""What a measurement says about where it was made: card or processor, driver, versions."""

import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import diffusion_edu


def processor() -> str:
    """Name of the processor, as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def driver() -> str | None:
    """Version of the NVIDIA driver; None where it cannot be asked."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()[0]
    except (OSError, IndexError, subprocess.SubprocessError):
        return None


def describe(device: torch.device) -> dict[str, Any]:
    """Device, card, driver (None on a CPU), CPU threads and versions."""
    gpu = device.type == "cuda"
    return {
        "device": device.type,
        "card": torch.cuda.get_device_name(device) if gpu else processor(),
        "driver": driver() if gpu else None,
        "threads": torch.get_num_threads(),
        "versions": {
            "diffusion_edu": diffusion_edu.__version__,
            "torch": torch.__version__,
            "cuda": torch.version.cuda if gpu else None,
            "python": platform.python_version(),
        },
    }
