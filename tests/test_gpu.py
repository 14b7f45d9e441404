"""On a CUDA device: training in its number format and compiled, exact resume, evaluation. Skipped where there is none.

It uses nothing of conftest.py, so that `pytest --noconftest -m gpu tests/test_gpu.py` needs torch and pytest alone.
"""

import json
import os
import shutil
from dataclasses import replace

import pytest
import torch

from diffusion_edu import __main__ as cli
from diffusion_edu import checkpoints, data, judges, training
from diffusion_edu.denoisers import Denoiser
from diffusion_edu.networks import PhotoClassifier, UNet
from diffusion_edu.schedules import Cosine

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS looks once, at its first product

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(autouse=True)
def compile_anew():
    """As a process of its own would: a second shape would else be compiled for all shapes at once."""
    torch.compiler.reset()


def test_twenty_steps_of_the_recipe(tmp_path):
    """Muon, channels_last, bfloat16 and a graph, which are the defaults; with a network that compiles sooner."""
    torch._dynamo.utils.counters.clear()
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
    ]
    options += ["--samples", "0"]
    assert cli.main(["train", "--out", str(tmp_path), *options]) == 0
    manifest = checkpoints.read_manifest(tmp_path)
    assert manifest["training"]["precision"] == "bfloat16" and manifest["training"]["device"].startswith("cuda")
    assert (manifest["training"]["compile"], manifest["training"]["optimizer"]) == ("reduce-overhead", "muon")
    assert torch._dynamo.utils.counters["inductor"]["cudagraph_skips"] == 0
    assert 0 < manifest["final_loss"] < 2
    assert all(bool(p.isfinite().all()) for p in checkpoints.load(tmp_path).parameters())


def new_run(compiled):
    """A small run from always the same weights."""
    torch.manual_seed(0)
    config = training.TrainConfig(steps=20, batch=64, precision="bfloat16", log_every=5, save_every=5, compile=compiled)
    return training.Run(Denoiser(UNet(channels=(16, 32)), Cosine(), "v").cuda(), config)


def weights_after(folder, stops, compiled):
    """The weights after 20 steps of a small run that was stopped, and continued from its file, at each of `stops`."""
    train = data.load("mnist", "train")
    images, labels = train.images[:2048].cuda(), train.labels[:2048].cuda()
    for stop in (*stops, 20):
        run = new_run(compiled)
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
    noise = float((again - whole).abs().mean())
    # one repetition tells the mean noise within such a factor; 1e-5 where a rounding flips in one of the two alone
    assert float((stopped - whole).abs().mean()) <= 1e-5 + 4 * noise
    assert noise < 5e-4  # twenty steps move a weight by up to 1e-2: else the line above would say nothing


def gradient(compiled, at_once, steps):
    """The gradient of one batch, as it is after so many steps' gradients of it."""
    run = new_run(compiled)
    run.at_once = at_once
    g = torch.Generator().manual_seed(1)
    noise, t, labels = torch.randn(2, 64, 1, 28, 28, generator=g), torch.rand(64, generator=g), torch.arange(64) % 10
    for _ in range(steps):
        run.denoiser.zero_grad(set_to_none=True)
        training.gradients(run, tuple(part.cuda() for part in (noise[0], t, noise[1], labels)))
    return torch.cat([p.grad.flatten() for p in run.denoiser.parameters() if p.grad is not None]).clone()


@pytest.mark.parametrize(("mode", "at_once"), [("off", 32), ("reduce-overhead", 64), ("reduce-overhead", 32)])
def test_parts_and_graphs_have_the_gradient_of_the_whole_batch(mode, at_once):
    """Four times, since a graph is recorded in the second and replayed after it."""
    whole, found = gradient("off", 64, 1), gradient(mode, at_once, 4)
    # bfloat16 rounds to 4e-3, and a layer after layer adds up to some of these; one part in two would be off by its half
    assert float((found - whole).norm() / whole.norm()) < 3e-2


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
def test_likelihood_gives_what_the_cpu_gives(tmp_path, monkeypatch, route):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # four steps are far from converged, and sensitive
    found = []
    for device in ("cuda", "cpu"):
        folder = shutil.copytree(cli.CHECKPOINTS / "mnist-unet", tmp_path / device)
        options = [
            "--images",
            "4",
            "--probes",
            "1",
            "--steps-ode",
            "4",
            "--route",
            route,
            "--seed",
            "9",
            "--device",
            device,
        ]
        assert cli.main(["likelihood", "--checkpoint", str(folder), *options]) == 0
        found.append(json.loads((folder / "manifest.json").read_text())["likelihood"][-1]["bits_per_dim"][0])
    assert found[0] == pytest.approx(found[1], rel=0.02)  # the same noise, drawn on the CPU
