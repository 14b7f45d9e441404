"""On a CUDA device: training in its number format and compiled, exact resume, evaluation. Skipped where there is none.

It uses nothing of conftest.py, so that `pytest --noconftest -m gpu tests/test_gpu.py` needs torch and pytest alone.
"""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from diffusion_edu import __main__ as cli
from diffusion_edu import checkpoints, data, judges, training
from diffusion_edu.denoisers import Denoiser
from diffusion_edu.networks import PhotoClassifier, UNet
from diffusion_edu.schedules import Cosine

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_twenty_steps_in_bfloat16_compiled(tmp_path):
    """On a GPU both are the defaults."""
    options = [
        "--dataset",
        "mnist",
        "--channels",
        "16",
        "32",
        "--steps",
        "20",
        "--save-every",
        "20",
        "--device",
        "cuda",
        "--samples",
        "0",
    ]
    assert cli.main(["train", "--out", str(tmp_path), *options]) == 0
    manifest = checkpoints.read_manifest(tmp_path)
    assert manifest["training"]["precision"] == "bfloat16" and manifest["training"]["device"].startswith("cuda")
    assert manifest["training"]["compile"] != "off"
    assert 0 < manifest["final_loss"] < 2
    assert all(bool(p.isfinite().all()) for p in checkpoints.load(tmp_path).parameters())


def weights_after(folder, stops, compiled="off", at_once=64):
    """The weights after 20 steps of a small run that was stopped, and continued from its file, at each of `stops`."""
    train = data.load("mnist", "train")
    images, labels = train.images[:2048].cuda(), train.labels[:2048].cuda()
    config = training.TrainConfig(steps=20, batch=64, precision="bfloat16", log_every=5, save_every=5, compile=compiled)
    for stop in (*stops, 20):
        torch.manual_seed(0)
        run = training.Run(Denoiser(UNet(channels=(16, 32)), Cosine(), "v").cuda(), config)
        run.at_once = at_once
        for record in training.fit(run, images, labels, folder / "state.safetensors"):
            if record.step == stop:
                break
    return torch.cat([p.detach().flatten() for p in run.denoiser.parameters()])


@pytest.mark.parametrize("mode", ["off", "default", "reduce-overhead"])
def test_a_run_stopped_twice_ends_where_the_whole_one_does(tmp_path, mode):
    """Exactly, where the card repeats itself; some of its kernels add in any order, and then within that noise."""
    for name in ("a", "b", "stopped"):
        (tmp_path / name).mkdir()
    whole, again = weights_after(tmp_path / "a", (), mode), weights_after(tmp_path / "b", (), mode)
    stopped = weights_after(tmp_path / "stopped", (5, 15), mode)
    noise = float((again - whole).abs().max())
    assert float((stopped - whole).abs().max()) <= 4 * noise  # one repetition tells the noise within such a factor
    assert noise < 1e-2 * float(whole.abs().max())  # else the line above would say nothing


def test_a_batch_in_parts_has_the_whole_one_s_gradient_with_graphs_too(tmp_path):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = weights_after(tmp_path / "whole", ())
    parts = weights_after(tmp_path / "parts", (), "reduce-overhead", at_once=32)
    # bfloat16 rounds to 4e-3, and twenty steps of AdamW move a weight by at most 20e-3: a wrong gradient moves it elsewhere
    assert float((parts - whole).abs().mean()) < 1e-3


def test_evaluation_gives_what_the_cpu_gives(tmp_path, monkeypatch):
    load, found = data.load, []

    def first_thousand(name, split):
        whole = load(name, split)
        return replace(whole, images=whole.images[:1000], labels=whole.labels[:1000])

    monkeypatch.setattr(data, "load", first_thousand)
    for device in ("cuda", "cpu"):
        folder = shutil.copytree(cli.CHECKPOINTS / "mnist-unet", tmp_path / device)
        options = ["--samples", "100", "--steps", "5", "--batch", "100", "--seed", "9", "--device", device]
        assert cli.main(["evaluate", "--checkpoint", str(folder), *options]) == 0
        found.append(json.loads((folder / "manifest.json").read_text())["metrics"][-1])
    gpu, cpu = found
    # the same noise, drawn on the CPU; convolutions in TF32 round to 1e-3, and five steps carry that on
    assert gpu["frechet"] == pytest.approx(cpu["frechet"], rel=0.05)
    assert gpu["floor"] == pytest.approx(cpu["floor"], rel=0.01)
    assert abs(gpu["accuracy"] - cpu["accuracy"]) <= 0.03


def test_the_classifier_of_photographs_trains():
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 60, (512, 3, 32, 32), generator=g, dtype=torch.uint8)
    labels = torch.arange(512) % 2
    images[labels == 1, 0] += 150
    net = PhotoClassifier().cuda()
    losses = [
        v for _, v in judges.fit_photo_classifier(net, images.cuda(), labels.cuda(), epochs=8, batch=64, rate=0.02)
    ]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("route", cli.ROUTES)
def test_likelihood_gives_what_the_cpu_gives(tmp_path, route):
    found = []
    for device in ("cuda", "cpu"):
        folder = shutil.copytree(cli.CHECKPOINTS / "mnist-unet", tmp_path / device)
        options = ["--images", "20", "--steps-ode", "4", "--route", route, "--seed", "9", "--device", device]
        assert cli.main(["likelihood", "--checkpoint", str(folder), *options]) == 0
        found.append(json.loads((folder / "manifest.json").read_text())["likelihood"][-1]["bits_per_dim"])
    # the same noise, drawn on the CPU; convolutions in TF32 round to 1e-3
    assert found[0] == pytest.approx(found[1], rel=0.02)
