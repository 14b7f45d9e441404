"""Checkpoints: what is written comes back, and nothing damaged or mismatched is accepted."""

import hashlib
import json
import os

import pytest
import torch

from diffusion_edu import __main__ as cli
from diffusion_edu import checkpoints, judges
from diffusion_edu.networks import MLP, UNet
from diffusion_edu.schedules import LinearBeta, Schedule, linear_betas

NETWORK = {"class": "UNet", "arguments": {"channels": [8, 16], "num_classes": 3, "embedding": 16}}
SCHEDULE = LinearBeta(0.2, 15.0)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    net = checkpoints.build_network(NETWORK)
    torch.nn.init.normal_(net.leave[2].weight)
    facts = {"schedule": checkpoints.describe_schedule(SCHEDULE), "target": "v", "clip": [-1, 1], "seed": 7}
    checkpoints.save(tmp_path / "a", net, NETWORK, **facts)
    return tmp_path / "a"


def change_manifest(folder, **facts):
    manifest = checkpoints.read_manifest(folder) | facts
    (folder / "manifest.json").write_text(json.dumps(manifest))


def resign(folder):
    """Make the manifest's hash that of the file, as someone would who damaged both."""
    change_manifest(folder, sha256=hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest())


def test_a_denoiser_comes_back_whole(folder):
    torch.manual_seed(0)
    net = checkpoints.build_network(NETWORK)
    torch.nn.init.normal_(net.leave[2].weight)
    denoiser = checkpoints.load(folder)
    for name, value in net.state_dict().items():
        assert torch.equal(denoiser.net.state_dict()[name], value)
    assert denoiser.schedule == SCHEDULE
    assert (denoiser.target, denoiser.clip, denoiser.training) == ("v", (-1, 1), False)
    assert not any(p.requires_grad for p in denoiser.parameters())
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    prediction = denoiser(x, torch.tensor(0.5), torch.tensor([0, 3]))
    assert torch.equal(prediction.x0, denoiser.raw(x, torch.tensor(0.5), torch.tensor([0, 3])).x0.clamp(-1, 1))


def test_a_manifest_keeps_what_it_knows_better_of_the_same_weights_only(folder):
    change_manifest(folder, metrics=[1], seed=8, likelihood=[2])
    net, _ = checkpoints.load_network(folder)
    made = checkpoints.save(folder, net, NETWORK, keep=("metrics", "likelihood", "absent"), metrics=[], seed=9)
    assert made == checkpoints.read_manifest(folder)
    assert (made["metrics"], made["likelihood"], made["seed"], "absent" in made) == ([1], [2], 9, False)
    assert "likelihood" not in checkpoints.save(folder, net, NETWORK, keep=("metrics",), metrics=[])
    net.leave[2].weight.data += 1
    assert checkpoints.save(folder, net, NETWORK, keep=("metrics",), metrics=[])["metrics"] == []
    (folder / "manifest.json").write_text("no JSON")
    assert checkpoints.save(folder, net, NETWORK, keep=("metrics",), metrics=[3])["metrics"] == [3]


def test_the_manifest_says_what_it_is(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    content = (folder / "model.safetensors").read_bytes()
    assert manifest["sha256"] == hashlib.sha256(content).hexdigest()
    assert manifest["bytes"] == len(content)
    assert manifest["network"] == NETWORK
    assert manifest["parameters"] == sum(p.numel() for p in checkpoints.build_network(NETWORK).parameters())
    assert manifest["seed"] == 7
    assert set(manifest["versions"]) == {"diffusion_edu", "torch", "python"}
    assert checkpoints.load(folder).manifest == manifest


@pytest.mark.parametrize("schedule", [SCHEDULE, Schedule.from_betas(linear_betas(10))], ids=lambda s: type(s).__name__)
def test_every_schedule_comes_back_from_a_manifest(folder, schedule):
    change_manifest(folder, schedule=checkpoints.describe_schedule(schedule))
    assert checkpoints.load(folder).schedule == schedule


def test_a_network_of_points_and_one_that_is_no_denoiser(tmp_path):
    network = {"class": "MLP", "arguments": {"width": 8}}
    checkpoints.save(tmp_path, MLP(width=8), network)
    assert isinstance(checkpoints.load_network(tmp_path)[0], MLP)
    with pytest.raises(ValueError, match="holds a MLP, no denoiser"):
        checkpoints.load(tmp_path)


def refusal(folder):
    with pytest.raises(ValueError) as caught:
        checkpoints.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_files(folder):
    assert "no checkpoint at" in refusal(folder / "elsewhere")
    assert "manifest.json is missing" in refusal(folder / "model.safetensors")  # a file, where a folder should be
    (folder / "model.safetensors").unlink()
    assert "model.safetensors is missing" in refusal(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("", "is not valid JSON"),
        ("[]", "names no network"),
        ('{"a": 1}', "names no network"),
    ],
)
def test_manifests_that_are_none(folder, text, message):
    (folder / "manifest.json").write_text(text)
    assert message in refusal(folder)


def test_a_manifest_in_another_encoding_of_bytes(folder):
    (folder / "manifest.json").write_bytes(b"\xff\xfe\x00")
    assert "is not valid JSON" in refusal(folder)


def test_weights_that_are_not_the_manifests(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "has SHA-256" in refusal(folder)


@pytest.mark.parametrize("kept", [0, 5, 100, -4])
def test_truncated_weights(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert "has SHA-256" in refusal(folder)
    resign(folder)
    assert "is damaged" in refusal(folder)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            {"class": "UNet", "arguments": {"channels": [8, 24], "num_classes": 3, "embedding": 16}},
            "another architecture",
        ),
        (
            {"class": "UNet", "arguments": {"channels": [8, 16, 16], "num_classes": 3, "embedding": 16}},
            "another architecture",
        ),
        ({"class": "MLP", "arguments": {}}, "another architecture than MLP"),
        ({"class": "Transformer", "arguments": {}}, "unknown network 'Transformer'; known: UNet"),
        ({"class": "UNet"}, "cannot build a UNet"),
        ({"class": "UNet", "arguments": {"depth": 3}}, "cannot build a UNet"),
    ],
)
def test_another_architecture(folder, network, message):
    change_manifest(folder, network=network)
    assert message in refusal(folder)


def test_an_unknown_schedule_or_target(folder):
    change_manifest(folder, schedule={"name": "Linear"})
    assert "unknown schedule 'Linear'" in refusal(folder)
    change_manifest(folder, schedule={"name": "Cosine", "horizon": 2})
    assert "cannot build schedule Cosine" in refusal(folder)
    change_manifest(folder, schedule={"name": "Cosine"}, target="noise")
    assert "unknown target 'noise'" in refusal(folder)


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch, failure, call):
    path = tmp_path / "file"
    checkpoints.write_atomically(path, b"old")

    def fail(*_):
        raise failure

    monkeypatch.setattr(os, call, fail)
    with pytest.raises((ValueError, KeyboardInterrupt)) as caught:
        checkpoints.write_atomically(path, b"new")
    if isinstance(failure, OSError):
        assert str(caught.value) == f"cannot write {path}: No space left on device"
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_write_replaces_whole_and_makes_its_folder(tmp_path):
    path = tmp_path / "deep" / "file"
    for content in (b"long old content", b"new"):
        checkpoints.write_atomically(path, content)
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["file"]


def test_the_new_content_is_whole_before_it_is_moved(tmp_path, monkeypatch):
    seen, replace = [], os.replace

    def watched(source, target):
        seen.append(open(source, "rb").read())
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    checkpoints.write_atomically(tmp_path / "file", b"content")
    assert seen == [b"content"]


@pytest.mark.parametrize("below", ["file", "file/folder"])
def test_an_unwritable_folder(tmp_path, below):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ValueError, match="cannot write .*model.safetensors: "):
        checkpoints.save(tmp_path / below, UNet(channels=(8,)), NETWORK)


# those that the book shows

COMMITTED = sorted(path for path in cli.CHECKPOINTS.iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_a_committed_network_loads_and_is_small_enough(folder):
    net, manifest = checkpoints.load_network(folder)
    assert sum(p.numel() for p in net.parameters()) == manifest["parameters"]
    assert all(bool(p.isfinite().all()) for p in net.parameters())
    assert manifest["bytes"] < 16e6  # else it would be stored in pieces
    photos = "cifar10" in folder.name
    assert manifest["parameters"] < (10e6 if photos else 1.2e6)


def judged():
    """Folders of the committed networks whose samples were judged."""
    found = {folder: checkpoints.read_manifest(folder).get("metrics", []) for folder in COMMITTED}
    return [folder for folder, figures in found.items() if any("frechet" in each for each in figures)]


@pytest.mark.parametrize("folder", judged(), ids=lambda folder: folder.name)
def test_a_committed_network_was_judged_by_the_committed_judge(folder):
    manifest = checkpoints.read_manifest(folder)
    judge = checkpoints.read_manifest(cli.CHECKPOINTS / judges.find_judge(manifest["dataset"]["name"]).folder)
    assert {figures["classifier"] for figures in manifest["metrics"]} == {judge["sha256"]}


def test_the_judges_know_what_they_judge():
    """What the book promises of them: of ten thousand test images as many are read rightly."""
    for name, least in (("mnist-classifier", 0.99), ("cifar10-classifier", 0.94)):
        manifest = checkpoints.read_manifest(cli.CHECKPOINTS / name)
        assert manifest["test_images"] == 10_000 and manifest["test_accuracy"] >= least, name
