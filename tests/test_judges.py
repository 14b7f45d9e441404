"""The classifiers that judge samples: how photographs are varied, and a CIFAR-10 checkpoint measured from end to end."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from diffusion_edu import __main__ as cli
from diffusion_edu import checkpoints, data, judges
from diffusion_edu.networks import PhotoClassifier, UNet
from diffusion_edu.schedules import Cosine
from tests.test_metrics import write_torchscript

TINY = {"in_channels": 3, "channels": (8, 8), "num_classes": 10, "embedding": 16}


def small_set(name="cifar10", split="train"):
    """40 made-up photographs, other ones in the test split."""
    seed = ("train", "test").index(split)
    images = torch.randint(0, 256, (40, 3, 32, 32), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return data.Dataset(name, split, images, torch.arange(40) % 10, tuple("0123456789"))


class Eye(nn.Module):
    """Stands in for Inception."""

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return img.float().mean(dim=3).flatten(1)[:, ::8]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a judge that saw two batches, and a tiny denoiser of colour images."""
    folder, patch = tmp_path_factory.mktemp("cifar"), pytest.MonkeyPatch()
    patch.setattr(data, "load", small_set)
    options = ["--dataset", "cifar10", "--epochs", "1", "--batch", "16", "--images", "32", "--device", "cpu"]
    assert cli.main(["train-classifier", "--out", str(folder / "cifar10-classifier"), *options]) == 0
    patch.undo()
    torch.manual_seed(0)
    facts = {"schedule": checkpoints.describe_schedule(Cosine()), "target": "v", "clip": [-1, 1], "metrics": []}
    dataset = {"name": "cifar10", "shape": [3, 32, 32]}
    checkpoints.save(folder / "model", UNet(**TINY), {"class": "UNet", "arguments": TINY}, dataset=dataset, **facts)
    return folder


@pytest.fixture
def folder(trained, monkeypatch):
    monkeypatch.setattr(data, "load", small_set)
    monkeypatch.setattr(cli, "CHECKPOINTS", trained)
    return trained


def test_every_data_set_has_a_judge_that_checkpoints_know():
    assert judges.JUDGES.keys() == data._RECIPES.keys()
    assert all(judge.network.__name__ in checkpoints.NETWORKS for judge in judges.JUDGES.values())
    with pytest.raises(ValueError, match="no classifier judges 'imagenet'; those that have one: mnist, fashion-mnist"):
        judges.find_judge("imagenet")


def test_crops_are_windows_of_the_reflected_image_some_of_them_mirrored():
    image = torch.arange(3 * 6 * 6.0).reshape(1, 3, 6, 6)
    found = judges.crop_and_flip(image.repeat(400, 1, 1, 1), torch.Generator().manual_seed(0), reach=1)
    padded = nn.functional.pad(image, (1, 1, 1, 1), mode="reflect")[0]
    windows = [padded[:, i : i + 6, j : j + 6] for i in range(3) for j in range(3)]
    allowed = [w for window in windows for w in (window, window.flip(2))]
    counts = [sum(torch.equal(one, other) for one in found) for other in allowed]
    assert found.shape == (400, 3, 6, 6) and sum(counts) == 400
    assert min(counts) > 400 / 18 - 4 * (400 / 18) ** 0.5  # each as often as the others, within four deviations


def test_a_square_of_each_image_is_blanked_each_place_as_often_as_another():
    images = torch.ones(2000, 3, 9, 10)
    found = judges.blank(images, torch.Generator().manual_seed(0), size=8)
    gone = found[:, 0] == 0
    assert torch.equal(found, images * ~gone[:, None])  # the same square in all channels, nothing else touched
    corners = [(int(one.any(1).nonzero()[0]), int(one.any(0).nonzero()[0])) for one in gone]
    assert all(one[i : i + 8, j : j + 8].all() and one.sum() == 64 for one, (i, j) in zip(gone, corners, strict=True))
    counts = [corners.count((i, j)) for i in range(2) for j in range(3)]
    assert sum(counts) == 2000 and min(counts) > 2000 / 6 - 4 * (2000 / 6) ** 0.5  # within four deviations


def test_a_classifier_of_photographs_learns_what_shifts_and_mirrors_leave():
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 60, (64, 3, 32, 32), generator=g, dtype=torch.uint8)
    labels = torch.arange(64) % 2
    images[labels == 1, 0] += 150  # the second class is red
    torch.manual_seed(0)
    net = PhotoClassifier(width=8)
    losses = [loss for _, loss in judges.fit_photo_classifier(net, images, labels, epochs=6, batch=32, rate=0.05)]
    assert losses[-1] < 0.6 * losses[0]
    net.eval()
    assert float((net(data.to_float(images)).argmax(1) == labels).double().mean()) == 1


def test_train_classifier_stores_half_weights_and_measures_those(folder):
    net, manifest = checkpoints.load_network(folder / "cifar10-classifier")
    assert manifest["network"] == {"class": "PhotoClassifier", "arguments": {}}
    assert manifest["dataset"] | {"sha256": None} == {"name": "cifar10", "split": "train", "images": 32, "sha256": None}
    assert {k: manifest["training"][k] for k in ("epochs", "batch", "seed")} == {"epochs": 1, "batch": 16, "seed": 0}
    assert manifest["bytes"] < 2.1 * manifest["parameters"] and manifest["test_images"] == 40
    header, line = (folder / "cifar10-classifier" / "log.csv").read_text().splitlines()
    assert header == "epoch,loss,seconds" and line.startswith("1,") and float(line.split(",")[1]) > 0
    assert all(torch.equal(p, p.half().float()) and p.dtype == torch.float32 for p in net.parameters())
    test = small_set(split="test")
    seen = net(data.to_float(test.images)).argmax(1)
    assert manifest["test_accuracy"] == float((seen == test.labels).double().mean())


def test_a_cifar_checkpoint_is_measured_from_end_to_end(folder, tmp_path):
    write_torchscript(Eye(), tmp_path / "eye.pt")
    arguments = [
        "evaluate",
        "--checkpoint",
        str(folder / "model"),
        "--samples",
        "10",
        "--steps",
        "2",
        "--device",
        "cpu",
    ]
    assert cli.main([*arguments, "--features", str(tmp_path / "eye.pt"), "--reference", "test"]) == 0
    (found,) = checkpoints.read_manifest(folder / "model")["metrics"]
    assert found["classifier"] == checkpoints.read_manifest(folder / "cifar10-classifier")["sha256"]
    assert found["floor_parts"] == 4 and found["frechet"] > 0 and 0 <= found["accuracy"] <= 1
    features = found["features"]
    assert (features["file"], features["reference"], features["reference_images"]) == ("eye.pt", "test", 40)
    assert features["floor_images"] == 10 and features["frechet"] > 0 and len(features["sha256"]) == 64

    table = tmp_path / "table.json"
    assert cli.main([*arguments, "--table", str(table), "--keep", "3"]) == 0
    (row,) = json.loads(table.read_text())["rows"]
    assert row["frechet"] == pytest.approx(found["frechet"], rel=1e-6)
    assert np.load(table.with_suffix(".npz"))["digits"].shape == (1, 3, 3, 32, 32)


def test_mistakes_with_judges(folder, capsys, tmp_path, monkeypatch):
    def complaint(*arguments):
        assert cli.main([str(a) for a in arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    evaluate = ["evaluate", "--checkpoint", folder / "model", "--samples", 10, "--steps", 1]
    missing = complaint(*evaluate, "--judge", tmp_path)
    assert f"no classifier of cifar10 at {tmp_path}; train it: python -m diffusion_edu train-classifier" in missing
    assert "holds a UNet of cifar10, no judge of cifar10" in complaint(*evaluate, "--judge", folder / "model")
    assert "no feature network at" in complaint(*evaluate, "--features", tmp_path / "inception.pt")
    both = complaint(*evaluate, "--features", tmp_path / "inception.pt", "--table", tmp_path / "t.json")
    assert "--features and --drawn go with one combination of settings" in both
    train = ["train-classifier", "--out", tmp_path / "c", "--dataset"]
    assert "no classifier judges 'imagenet'" in complaint(*train, "imagenet")
    assert "a batch of 512 needs at least as many images, got 40" in complaint(*train, "cifar10")
    assert "--batch must be above 0" in complaint(*train, "cifar10", "--batch", 0)
