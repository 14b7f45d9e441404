"""Checkpoints: weights in safetensors, and beside them a manifest that says what they are and how they came about.

A checkpoint is a folder with `model.safetensors` and `manifest.json`. The manifest carries the SHA-256 of the weights;
`load` refuses a pair that does not match. Files are written under another name first and then moved into place.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

import diffusion_edu
from diffusion_edu.denoisers import Denoiser
from diffusion_edu.networks import MLP, VAE, Classifier, NoisyClassifier, PhotoClassifier, UNet, VarianceHead
from diffusion_edu.schedules import Schedule, make_schedule

NETWORKS = {c.__name__: c for c in (UNet, MLP, Classifier, PhotoClassifier, NoisyClassifier, VAE, VarianceHead)}


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that at every moment either the old or the new content is there, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with suppress(OSError):  # it is not there after a success, nor where no folder could be made
            temporary.unlink()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as indented JSON, atomically."""
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays by name as compressed .npz, atomically."""
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_atomically(path, content.getvalue())


def save(
    folder: str | Path, net: nn.Module, network: Mapping[str, Any], keep: Iterable[str] = (), **facts: Any
) -> dict[str, Any]:
    """Write `net`'s weights and its manifest to `folder`; return the manifest.

    network: {"class": one of NETWORKS, "arguments": its keyword arguments}. facts: whatever else the manifest shall
    say (schedule, target, data set, training, metrics). keep: names of facts that a manifest of the very same weights,
    if `folder` has one, knows better. Raises ValueError when the folder cannot be written, or a fact not put into JSON.
    """
    weights = save_bytes({name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()})
    digest = hashlib.sha256(weights).hexdigest()
    facts |= facts_of_same(folder, digest, keep)
    manifest = {
        "network": dict(network),
        "parameters": sum(p.numel() for p in net.parameters()),
        **facts,
        "versions": {
            "diffusion_edu": diffusion_edu.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "bytes": len(weights),
        "sha256": digest,
    }
    try:
        json.dumps(manifest)
    except TypeError as error:  # before the old weights are gone
        raise ValueError(f"a manifest holds numbers, strings, lists and dictionaries: {error}") from None
    write_atomically(Path(folder) / "model.safetensors", weights)
    write_json(Path(folder) / "manifest.json", manifest)
    return manifest


def facts_of_same(folder: str | Path, digest: str, names: Iterable[str]) -> dict[str, Any]:
    """The facts of these names in a folder's manifest, if there is one and its weights have this SHA-256."""
    try:
        manifest = read_manifest(folder)
    except ValueError:
        return {}
    return {name: manifest[name] for name in names if name in manifest and manifest.get("sha256") == digest}


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a checkpoint folder. Raises ValueError when it is missing or no JSON object."""
    path = Path(folder) / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"no checkpoint at {folder}: manifest.json is missing") from None
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("network"), dict):
        raise ValueError(f"{path} is no checkpoint's manifest: it names no network")
    return manifest


def load_network(folder: str | Path, device: str | torch.device = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """Network in evaluation mode, without gradients, and its manifest.

    Raises ValueError when files are missing or truncated, when the weights' SHA-256 is not the manifest's, or when
    they do not fit the network that the manifest names.
    """
    manifest = read_manifest(folder)
    path = Path(folder) / "model.safetensors"
    if not path.exists():
        raise ValueError(f"no checkpoint at {folder}: model.safetensors is missing")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != manifest.get("sha256"):
        raise ValueError(f"{path} has SHA-256 {found[:12]}…, its manifest says {str(manifest.get('sha256'))[:12]}…")
    net = build_network(manifest["network"])
    fill(net, load_tensors(content, path), path)
    return net.to(device).eval().requires_grad_(False), manifest


def load_tensors(content: bytes, path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file's content; ValueError names `path` when it is damaged."""
    try:
        return load_bytes(content)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from None


def build_network(network: Mapping[str, Any]) -> nn.Module:
    """Fresh network from a manifest's {"class": ..., "arguments": ...}."""
    if network.get("class") not in NETWORKS:
        raise ValueError(f"unknown network {network.get('class')!r}; known: {', '.join(NETWORKS)}")
    try:
        return NETWORKS[network["class"]](**network["arguments"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"cannot build a {network['class']} with {network.get('arguments')}: {error}") from None


def fill(net: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load `weights` into `net`; ValueError when names or shapes belong to another architecture."""
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ValueError(f"{path} belongs to another architecture than {type(net).__name__}: {reason}") from None


def load(folder: str | Path, device: str | torch.device = "cpu") -> Denoiser:
    """Trained denoiser from a checkpoint folder: x_0 clipped to [-1, 1] for images; `.manifest` holds its manifest."""
    net, manifest = load_network(folder, device)
    if "schedule" not in manifest or "target" not in manifest:
        raise ValueError(
            f"{folder} holds a {manifest['network']['class']}, no denoiser: its manifest names no schedule"
        )
    clip = tuple(manifest["clip"]) if manifest.get("clip") else None
    denoiser = Denoiser(net, make_schedule(**manifest["schedule"]), manifest["target"], clip)
    denoiser.manifest = manifest
    return denoiser.eval()


def export_onnx(folder: str | Path, path: str | Path) -> int:
    """Write the denoiser of a checkpoint folder as one ONNX file, see `export.to_onnx`; return its bytes.

    Raises ValueError when there is no class-conditional denoiser in the folder, for a path that cannot be written, or
    without the extra `export`.
    """
    from diffusion_edu.export import to_onnx

    denoiser = load(folder)
    if not getattr(denoiser.net, "num_classes", None) or "shape" not in denoiser.manifest.get("dataset", {}):
        raise ValueError(f"{folder} holds no denoiser with classes whose images have a known shape")
    facts = {
        "schedule": describe_schedule(denoiser.schedule),
        "target": denoiser.target,
        "clip": denoiser.clip,
        "num_classes": denoiser.net.num_classes,
        "shape": denoiser.manifest["dataset"]["shape"],
        "sha256": denoiser.manifest["sha256"],
    }
    content = to_onnx(denoiser.net, facts["shape"], facts)
    write_atomically(Path(path), content)
    return len(content)


def load_onnx(path: str | Path, threads: int = 0) -> Denoiser:
    """Denoiser from an ONNX file that `export_onnx` wrote: the same answers as the checkpoint's, without gradients.

    threads: CPU threads of ONNX Runtime, 0 for its own choice. Raises ValueError for a file that is missing or damaged.
    """
    from diffusion_edu.export import OnnxNetwork

    net = OnnxNetwork(path, threads)
    clip = tuple(net.facts["clip"]) if net.facts["clip"] else None
    denoiser = Denoiser(net, make_schedule(**net.facts["schedule"]), net.facts["target"], clip)
    denoiser.manifest = {"dataset": {"shape": list(net.shape)}, **net.facts}
    return denoiser.eval()


def describe_schedule(schedule: Schedule) -> dict[str, Any]:
    """Keyword arguments from which `make_schedule` builds this schedule again."""
    return {"name": type(schedule).__name__, **asdict(schedule)}
