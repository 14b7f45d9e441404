"""The command line: a mistake is one line on standard error and exit status 2; and each command does its work."""

import json
import os
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from diffusion_edu import __main__ as cli
from diffusion_edu import checkpoints, data, metrics, training
from diffusion_edu.denoisers import Denoiser
from diffusion_edu.networks import VAE, Classifier, UNet
from diffusion_edu.schedules import Cosine

TINY = {"in_channels": 1, "channels": (8, 8, 8), "num_classes": 10, "embedding": 16}
OPTIONS = ["--steps", "2", "--batch", "8", "--channels", "8", "8", "8", "--patch", "1", "--device", "cpu"]
OPTIONS += ["--samples", "0"]


def small_set(name="mnist", split="train"):
    data._choose(name, data._RECIPES, "data set")
    images = torch.randint(0, 256, (64, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return data.Dataset(name, split, images, torch.arange(64) % 10, tuple("0123456789"))


@pytest.fixture(autouse=True)
def small_data(monkeypatch):
    """Every command gets 64 made-up images; names are still checked."""
    monkeypatch.setattr(data, "load", small_set)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    facts = {"schedule": checkpoints.describe_schedule(Cosine()), "target": "v", "clip": [-1, 1], "metrics": []}
    checkpoints.save(
        folder,
        UNet(**TINY),
        {"class": "UNet", "arguments": TINY},
        dataset={"name": "mnist", "shape": [1, 28, 28]},
        **facts,
    )
    return folder


def complaint(capsys, arguments):
    """The one line that a command with a mistake leaves on standard error."""
    status = cli.main([str(a) for a in arguments])
    output = capsys.readouterr().err.replace("\r", "\n").splitlines()
    lines = [line for line in output if line and "step/s" not in line]  # besides the progress bar
    assert status == 2
    assert len(lines) == 1, lines
    assert "Traceback" not in lines[0]
    return lines[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "imagenet"], "unknown data set 'imagenet', expected one of: mnist"),
        (["--schedule", "Linear"], "unknown schedule 'Linear'; known: LinearBeta"),
        (["--schedule", "DiscreteBetas"], "cannot build schedule DiscreteBetas"),
        (["--target", "noise"], "unknown target 'noise'; known: eps, x0, v, score, edm"),
        (["--weight", "p2"], "weight must be one of simple, min-snr, sigmoid, got 'p2'"),
        (["--optimizer", "sgd"], "optimizer must be one of adamw, muon, got 'sgd'"),
        (["--precision", "float16"], "precision must be one of float32, bfloat16, got 'float16'"),
        (["--compile", "yes"], "compile must be one of off, default, reduce-overhead, max-autotune, got 'yes'"),
        (["--ema", "0.5"], "ema in [0, 0.25], got 0.1, 0.05, 0.5"),
        (["--blocks", "0"], "--blocks must be above 0, got 0"),
        (["--patch", "3"], "divisible by 12, got (8, 1, 28, 28)"),
        (["--device", "abacus"], "unknown or absent device 'abacus'"),
        (["--device", "cpu:x"], "device 'cpu:x' cannot be used: Invalid device string"),
        (["--channels", "12"], "multiples of 8, got (12,)"),
        (["--channels", "-8"], "multiples of 8, got (-8,)"),
        (["--channels", "8", "8", "8", "8"], "divisible by 8, got (8, 1, 28, 28)"),
        (["--steps", "0"], "--steps must be above 0, got 0"),
        (["--steps", "-3"], "--steps must be above 0, got -3"),
        (["--minutes", "0"], "--minutes must be above 0, got 0.0"),
        (["--minutes", "nan"], "--minutes must be above 0, got nan"),
        (["--images", "-1"], "--images must be above 0, got -1"),
        (["--images", "4"], "a batch of 8 needs at least as many images, got 4"),
        (["--batch", "0"], "--batch must be above 0, got 0"),
        (["--threads", "-1"], "--threads must be above 0, got -1"),
        (["--rate", "-1"], "--rate must be above 0, got -1.0"),
        (["--p-null", "1.5"], "p_null"),
        (["--save-every", "30"], "multiple of log_every = 20, got 30"),
        (["--samples", "5"], "--samples must be at least 10, or 0 for none, got 5"),
        (["--samples", "-1"], "--samples must be at least 10, or 0 for none, got -1"),
        (["--samples", "65"], "65 samples need 7 real images of class 4 beside them, of which there are 6"),
    ],
)
def test_mistakes_in_training(capsys, tmp_path, options, message):
    assert message in complaint(capsys, ["train", "--out", tmp_path, *OPTIONS, *options])


def test_a_card_that_cannot_compute_is_done_without_unless_it_was_asked_for(capsys, monkeypatch):
    def broken(*shape, device=None):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with ...")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch, "ones", broken)
    assert cli.find_device("auto") == torch.device("cpu")
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line
        == "cuda cannot be used, the CPU does it: CUDA error: no kernel image is available for execution on the device"
    )
    with pytest.raises(
        ValueError, match=r"device 'cuda:7' cannot be used: CUDA error: no kernel .* on the device; here: cuda"
    ):
        cli.find_device("cuda:7")
    monkeypatch.setenv("WORLD_SIZE", "4")  # of torchrun's processes none may go its own way
    assert str(cli.find_device("auto")) == "cuda"
    monkeypatch.delenv("WORLD_SIZE")

    def full(*shape, device=None):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB")

    monkeypatch.setattr(torch, "ones", full)
    with pytest.raises(ValueError, match="device 'cuda' cannot be used: CUDA out of memory"):
        cli.find_device("auto")  # no reason to train for hours on the CPU
    monkeypatch.setattr(torch, "ones", lambda *shape, device: torch.zeros(1))
    assert (str(cli.find_device("auto")), str(cli.find_device("cuda:1"))) == ("cuda", "cuda:1")


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_gpu_is_set_up_for_speed_or_for_the_same_bits(monkeypatch, deterministic):
    said = []
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", deterministic)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", said.append)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that what stood there, or nothing, comes back
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    cli.set_up_gpu(deterministic)
    assert torch.backends.cudnn.benchmark is not deterministic
    assert said == ([True] if deterministic else [])
    assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) is deterministic


@pytest.mark.parametrize("command", ["train", "sample"])
@pytest.mark.parametrize("below", ["file/out.png", "file/a/b.png"])
def test_an_unwritable_output(capsys, tmp_path, checkpoint, command, below):
    (tmp_path / "file").write_text("no folder")
    options = OPTIONS if command == "train" else ["--checkpoint", checkpoint, "--steps", "1", "--rows", "1"]
    line = complaint(capsys, [command, "--out", tmp_path / below, *options])
    assert str(tmp_path / "file") in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "0"], "--steps must be above 0"),
        (["--rows", "0"], "--rows must be above 0"),
        (["--w", "nan"], "NaN"),
        (["--out", "grid.jpeg"], "written as .png, got grid.jpeg"),
    ],
)
def test_mistakes_in_sampling(capsys, tmp_path, monkeypatch, checkpoint, options, message):
    monkeypatch.chdir(tmp_path)
    assert message in complaint(capsys, ["sample", "--checkpoint", checkpoint, "--steps", "1", "--rows", "1", *options])


@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_a_checkpoint_that_is_not_there(capsys, tmp_path, command):
    assert "no checkpoint at" in complaint(capsys, [command, "--checkpoint", tmp_path / "nothing"])


def test_a_truncated_checkpoint(capsys, tmp_path, checkpoint):
    for name in ("manifest.json", "model.safetensors"):
        content = (checkpoint / name).read_bytes()
        (tmp_path / name).write_bytes(content[:-10] if name.startswith("model") else content)
    assert "has SHA-256" in complaint(capsys, ["sample", "--checkpoint", tmp_path, "--out", tmp_path / "grid.png"])
    assert not (tmp_path / "grid.png").exists()


def test_a_classifier_draws_no_samples(capsys, tmp_path):
    checkpoints.save(tmp_path, Classifier(), {"class": "Classifier", "arguments": {}})
    assert "holds a Classifier, no denoiser" in complaint(capsys, ["sample", "--checkpoint", tmp_path])


def test_mistakes_in_evaluating(capsys, tmp_path, checkpoint):
    assert "at least 10, got 9" in complaint(capsys, ["evaluate", "--checkpoint", checkpoint, "--samples", "9"])
    for name in ("manifest.json", "model.safetensors"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    manifest = checkpoints.read_manifest(tmp_path) | {"dataset": {"name": "cifar10", "shape": [1, 28, 28]}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    wrong = ["evaluate", "--checkpoint", tmp_path, "--judge", cli.CHECKPOINTS / "mnist-classifier"]
    assert "holds a Classifier of mnist, no judge of cifar10" in complaint(capsys, wrong)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"dataset": {"name": "imagenet"}}))
    line = complaint(capsys, ["evaluate", "--checkpoint", tmp_path])
    assert "no classifier judges 'imagenet'; those that have one: mnist, fashion-mnist, cifar10" in line
    both = complaint(capsys, ["evaluate", "--table", tmp_path / "t.json", "--checkpoint", tmp_path, checkpoint])
    assert "need checkpoints of one data set, got imagenet, mnist" in both


def test_a_damaged_state(capsys, tmp_path):
    (tmp_path / "state.safetensors").write_bytes(b"nonsense")
    for more in ([], ["--minutes", "1"]):
        assert "is damaged or no training state" in complaint(capsys, ["train", "--out", tmp_path, *OPTIONS, *more])


def test_a_loss_that_explodes_has_its_own_exit_status(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "denoising_loss", lambda d, x, t, e, y: d.raw(x, t, y).value.mean() * float("nan"))
    assert cli.main(["train", "--out", str(tmp_path), *OPTIONS]) == 3
    assert "not finite at step 2" in capsys.readouterr().err
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["sample", "--help"], ["evaluate", "--help"]])
def test_help(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 0
    assert "usage: python -m diffusion_edu" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["paint"], ["train", "--out", "x", "--steps", "many"]])
def test_usage_errors(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_the_exit_status_reaches_the_shell(tmp_path):
    command = [sys.executable, "-m", "diffusion_edu", "sample", "--checkpoint", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"diffusion_edu sample: no checkpoint at {tmp_path}: manifest.json is missing\n"


# the commands at work


def test_train_then_sample(capsys, tmp_path):
    out = tmp_path / "run"
    more = ["--images", "32", "--p-null", "0.3", "--target", "eps", "--precision", "float32"]
    assert cli.main(["train", "--out", str(out), *OPTIONS, *more]) == 0
    manifest = checkpoints.load(out).manifest
    assert manifest["dataset"] == {
        "name": "mnist", "split": "train", "images": 32, "shape": [1, 28, 28], "sha256": small_set().sha256,
    }  # fmt: skip
    assert {k: manifest["training"][k] for k in ("steps", "batch", "p_null", "seed", "device", "precision")} == {
        "steps": 2, "batch": 8, "p_null": 0.3, "seed": 0, "device": "cpu", "precision": "float32",
    }  # fmt: skip
    assert (manifest["target"], manifest["schedule"]["name"], manifest["metrics"]) == ("eps", "Cosine", [])
    assert sorted(p.name for p in out.iterdir()) == [
        "film.npz", "log.csv", "loss.png", "manifest.json", "model.safetensors", "samples.png", "state.safetensors",
    ]  # fmt: skip
    header, line = (out / "log.csv").read_text().splitlines()
    assert header == "step,loss,rate,seconds"
    assert float(line.split(",")[1]) == pytest.approx(manifest["final_loss"], rel=1e-4)

    state = load_file(out / "state.safetensors")
    net, _ = checkpoints.load_network(out)
    for name, weight in net.state_dict().items():  # the average is what is kept, not the last weights
        assert torch.equal(weight, state[f"ema.net.{name}"])
    assert any(not torch.equal(weight, state[f"net.net.{name}"]) for name, weight in net.state_dict().items())
    assert manifest["machine"]["card"] and manifest["machine"]["versions"]["torch"] == torch.__version__

    grid = tmp_path / "grid.png"
    for sampler in cli.SAMPLERS:
        options = ["--sampler", sampler, "--steps", "2", "--rows", "1", "--w", "2"]
        assert cli.main(["sample", "--checkpoint", str(out), "--out", str(grid), *options]) == 0
        assert plt.imread(grid).shape[:2] == (2 * 28, 2 * (10 * 30 - 2))
        grid.unlink()
    assert "wrote" in capsys.readouterr().out


def test_evaluations_become_the_steps_that_they_pay_for():
    for sampler in cli.SAMPLERS:
        for asked in (5, 8):
            assert asked - 1 <= cli.evaluations(sampler, cli.find_steps(sampler, 25, asked)) <= asked
        assert cli.find_steps(sampler, 7, None) == 7


def test_the_seed_decides_the_samples(checkpoint):
    denoiser, y = checkpoints.load(checkpoint), torch.arange(10)
    a, b, c = (cli.draw(denoiser, y, "ancestral", 2, 1.0, seed) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_minutes_are_turned_into_steps_without_touching_the_weights(monkeypatch, capsys, tmp_path):
    ticks = iter(range(1000))
    monkeypatch.setattr(training, "perf_counter", lambda: 0.1 * next(ticks))
    torch.manual_seed(0)
    run = training.Run(Denoiser(UNet(**TINY), Cosine(), "v"), training.TrainConfig(batch=8))
    before = {k: v.clone() for k, v in run.state().items()}
    dataset, options = small_set(), Namespace(steps=None, minutes=1.0, out=tmp_path)
    # the clock says 0.1 s a step: 600 steps a minute, one less where a rounding falls short
    found = cli.find_steps_to_train(options, run, dataset.images, dataset.labels)
    assert found == pytest.approx(600, abs=1)
    assert f"{found} steps fit into 1 minutes" in capsys.readouterr().out
    options.minutes = 0.001
    assert cli.find_steps_to_train(options, run, dataset.images, dataset.labels) == 100
    assert all(torch.equal(before[k], v) for k, v in run.state().items())
    run.save(tmp_path / "state.safetensors")  # of a run that was started for 4000 steps
    assert cli.find_steps_to_train(options, run, dataset.images, dataset.labels) == 4000
    options.steps = 7
    assert cli.find_steps_to_train(options, run, dataset.images, dataset.labels) == 7


@pytest.fixture
def judge(tmp_path, monkeypatch) -> Path:
    """A small classifier that judges digits in place of the committed one."""
    torch.manual_seed(0)
    network, folder = {"class": "Classifier", "arguments": {"width": 8}}, tmp_path / "mnist-classifier"
    checkpoints.save(folder, Classifier(width=8), network, dataset={"name": "mnist"})
    monkeypatch.setattr(cli, "CHECKPOINTS", tmp_path)
    return folder


def refuse(*arguments):
    """In the place of what must not be called."""
    raise AssertionError("this was not to be done")


def test_training_ends_with_the_figures_that_evaluate_gives(capsys, tmp_path, judge):
    out = tmp_path / "run"
    assert cli.main(["train", "--out", str(out), *OPTIONS, "--seed", "3", "--samples", "20"]) == 0
    assert "frechet " in capsys.readouterr().out
    (trained,) = checkpoints.load(out).manifest["metrics"]
    assert {name: trained[name] for name in ("sampler", "steps", "grid", "w", "seed", "samples")} == {
        "sampler": "ancestral", "steps": 25, "grid": "uniform", "w": 1, "seed": 0, "samples": 20,
    }  # fmt: skip
    assert trained["classifier"] == checkpoints.read_manifest(judge)["sha256"]
    checkpoints.write_json(out / "manifest.json", checkpoints.read_manifest(out) | {"metrics": []})
    assert cli.main(["evaluate", "--checkpoint", str(out), "--samples", "20", "--device", "cpu"]) == 0
    (evaluated,) = checkpoints.read_manifest(out)["metrics"]
    assert trained.pop("seconds") > 0 < evaluated.pop("seconds")
    assert trained == evaluated


def test_training_again_keeps_what_was_measured_on_the_same_weights(tmp_path, judge, monkeypatch):
    out = tmp_path / "run"
    train = ["train", "--out", str(out), *OPTIONS, "--samples"]
    assert cli.main([*train, "20"]) == 0
    more = ["--images", "6", "--draws", "2", "--device", "cpu"]
    assert cli.main(["likelihood", "--checkpoint", str(out), *more]) == 0
    before = checkpoints.read_manifest(out)
    assert len(before["metrics"]) == len(before["likelihood"]) == 1
    with monkeypatch.context() as patch:
        patch.setattr(cli.Cell, "draw", refuse)
        for samples in ("20", "0"):
            assert cli.main([*train, samples]) == 0
            after = checkpoints.read_manifest(out)
            assert (after["metrics"], after["likelihood"]) == (before["metrics"], before["likelihood"])
    assert cli.main([*train, "12"]) == 0  # another number of samples
    assert [figures["samples"] for figures in checkpoints.read_manifest(out)["metrics"]] == [20, 12]
    (out / "state.safetensors").unlink()
    assert cli.main([*train, "0", "--seed", "1"]) == 0  # other weights
    after = checkpoints.read_manifest(out)
    assert after["sha256"] != before["sha256"] and after["metrics"] == [] and "likelihood" not in after


def test_training_may_judge_nothing(tmp_path, judge, monkeypatch):
    monkeypatch.setattr(cli, "load_judge", refuse)
    monkeypatch.setattr(cli.Cell, "draw", refuse)
    assert cli.main(["train", "--out", str(tmp_path / "run"), *OPTIONS, "--samples", "0"]) == 0
    assert checkpoints.read_manifest(tmp_path / "run")["metrics"] == []


def test_too_few_samples_are_refused_before_training(capsys, tmp_path, judge, monkeypatch):
    monkeypatch.setattr(training, "fit", refuse)
    line = complaint(capsys, ["train", "--out", tmp_path / "run", *OPTIONS, "--samples", "5"])
    assert line == "diffusion_edu train: --samples must be at least 10, or 0 for none, got 5"


def test_training_without_a_judge_says_so_in_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "CHECKPOINTS", tmp_path / "nothing")
    assert cli.main(["train", "--out", str(tmp_path / "run"), *OPTIONS, "--samples", "20"]) == 0
    *_, wrote, line = capsys.readouterr().out.splitlines()
    command = f"python -m diffusion_edu train-classifier --dataset mnist --out {tmp_path}/nothing/mnist-classifier"
    assert wrote.startswith("wrote ")
    assert line.startswith("samples are not judged: no classifier of mnist at ") and line.endswith(command)
    assert checkpoints.load(tmp_path / "run").manifest["metrics"] == []


def test_only_the_first_process_writes_and_judges(tmp_path, judge, monkeypatch):
    monkeypatch.setattr(cli.parallel, "rank", lambda: 1)
    for name in ("finish", "judge_trained"):
        monkeypatch.setattr(cli, name, refuse)
    assert cli.main(["train", "--out", str(tmp_path / "run"), *OPTIONS, "--samples", "20"]) == 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("device", "batch"), [("cpu", 50), ("cuda", 500)])
def test_a_gpu_draws_more_samples_at_once(checkpoint, monkeypatch, device, batch):
    drawn = []

    def draw(cell, samples, place):
        drawn.append((cell.batch, samples, place.type))
        raise LookupError

    monkeypatch.setattr(cli, "load_bench", lambda *arguments: cli.Bench(None, "its digest", None, None))
    monkeypatch.setattr(cli.Cell, "draw", draw)
    with pytest.raises(LookupError):
        cli.judge_trained(checkpoint, 20, torch.device(device))
    assert drawn == [(batch, 20, device)]


def test_figures_without_a_grid_or_shares_are_those_of_the_uniform_one_and_equal_ones():
    cell = cli.Cell(Path("model"), "ddim", 5, "uniform", 2.0, 0, 50, "equal")
    old = {"sampler": "ddim", "steps": 5, "w": 2.0, "seed": 0, "samples": 20}
    assert cell.is_in(old, 20) and cell.is_in(old | {"grid": "uniform"}, 20)
    assert not cell.is_in(old, 21) and not cell.is_in(old | {"w": 1.0}, 20)
    assert not cell._replace(grid="edm").is_in(old, 20) and not cell._replace(shares="data").is_in(old, 20)


def test_classes_come_in_the_shares_of_the_test_split_unless_asked_for_equally(checkpoint):
    cell = cli.Cell(checkpoint, "ddim", 5, "uniform", 1.0, 0, 50, "data")
    assert torch.bincount(cell.labels(64)).tolist() == 4 * [7] + 6 * [6]  # as in the made-up test split
    assert cell.labels(20)[:10].tolist() == list(range(10))
    assert cell._replace(shares="equal").labels(25).tolist() == [*range(10), *range(10), *range(5)]


@pytest.fixture
def model(tmp_path, judge, checkpoint) -> Path:
    """A copy of the small checkpoint, with a small classifier to judge its samples."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("manifest.json", "model.safetensors"):
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    return folder


def test_evaluate_writes_into_the_manifest_and_replaces_the_same_settings(model):
    arguments = ["evaluate", "--checkpoint", str(model), "--samples", "20", "--device", "cpu"]
    for options in (["--steps", "2"], ["--steps", "2"], ["--steps", "3", "--sampler", "heun"]):
        assert cli.main([*arguments, *options]) == 0
    first, second = checkpoints.load(model).manifest["metrics"]
    assert (first["steps"], first["evaluations"], first["samples"], first["sampler"]) == (2, 2, 20, "ancestral")
    assert (second["steps"], second["evaluations"], second["sampler"]) == (3, 5, "heun")
    for found in (first, second):
        assert 0 <= found["accuracy"] <= 1
        assert found["frechet"] > 0
        assert found["floor_parts"] == 2  # there are 7 images of class 0, and 3 of 20 are asked for
        assert found["classifier"] == checkpoints.read_manifest(model.with_name("mnist-classifier"))["sha256"]


def test_a_table_holds_every_combination_and_goes_on_where_it_was_stopped(model, monkeypatch):
    table, draw, calls = model.with_name("table.json"), cli.draw, []

    def drawing_fails_the_third_time(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise OSError("no power")
        return draw(*arguments)

    monkeypatch.setattr(cli, "draw", drawing_fails_the_third_time)
    combinations = ["--sampler", "analytic", "edm", "--evaluations", "4", "2", "--w", "0", "2"]
    arguments = ["evaluate", "--checkpoint", str(model), "--samples", "20", "--table", str(table), *combinations]
    assert cli.main(arguments) == 2
    stopped = json.loads(table.read_text())
    assert len(stopped["rows"]) == 2
    assert cli.main(arguments) == 0 and len(calls) == 2 + 1 + 6
    assert cli.main(arguments) == 0 and len(calls) == 9
    whole = json.loads(table.read_text())
    assert whole["rows"][:2] == stopped["rows"] and whole["floors"]["20"]["floor_parts"] == 2
    found = [(row["sampler"], row["steps"], row["evaluations"], row["w"]) for row in whole["rows"]]
    assert found == [
        ("edm", 1, 1, 0), ("edm", 1, 1, 2), ("analytic", 2, 2, 0), ("analytic", 2, 2, 2),
        ("edm", 2, 3, 0), ("edm", 2, 3, 2), ("analytic", 4, 4, 0), ("analytic", 4, 4, 2),
    ]  # fmt: skip
    digits = np.load(table.with_suffix(".npz"))["digits"]
    assert digits.shape == (8, 10, 28, 28) and digits.dtype == np.uint8
    again = draw(checkpoints.load(model), metrics.in_shares(data.load("mnist", "test").labels, 20), "edm", 1, 2.0, 0)
    assert np.array_equal(digits[1], data.to_uint8(again[:10, 0]).numpy())


def test_what_was_drawn_elsewhere_is_judged_as_if_drawn_here(capsys, model, tmp_path):
    there, file = tmp_path / "there", tmp_path / "drawn.npz"
    shutil.copytree(model, there)
    how = ["--steps", "2", "--sampler", "ddim", "--w", "2", "--seed", "3", "--samples", "20"]
    assert cli.main(["sample", "--checkpoint", str(there), "--out", str(file), *how]) == 0
    assert cli.main(["evaluate", "--checkpoint", str(model), *how]) == 0
    before = checkpoints.read_manifest(model)["metrics"][0]
    assert cli.main(["evaluate", "--checkpoint", str(model), "--drawn", str(file)]) == 0
    (after,) = checkpoints.read_manifest(model)["metrics"]  # the same settings: in the place of the other
    del before["seconds"], after["seconds"]
    assert after.keys() == before.keys()
    assert after["accuracy"] == before["accuracy"]
    assert after["frechet"] == pytest.approx(before["frechet"], rel=1e-3)  # pixels were rounded to 1 / 255


def test_mistakes_with_what_was_drawn_elsewhere(capsys, model, tmp_path):
    file, arguments = tmp_path / "drawn.npz", ["evaluate", "--checkpoint", model, "--drawn"]
    assert "drawn.npz is missing, damaged or no file of" in complaint(capsys, [*arguments, file])
    assert cli.main(["sample", "--checkpoint", str(model), "--out", str(file), "--steps", "1", "--samples", "20"]) == 0
    capsys.readouterr()
    table = complaint(capsys, [*arguments, file, "--table", tmp_path / "table.json"])
    assert "go with one combination of settings" in table
    content = file.read_bytes()
    for damaged in (content[:-200], content[:60] + b"????" + content[64:]):
        file.write_bytes(damaged)
        assert "is missing, damaged or" in complaint(capsys, [*arguments, file])
    file.write_bytes(content)
    kept = dict(np.load(file))
    for change in ({"images": kept["images"][:9], "labels": kept["labels"][:9]}, {"labels": kept["labels"][1:]}):
        checkpoints.write_arrays(file, **(kept | change))
        assert "needs at least 10 images, uint8 (N, 1, 28, 28), got" in complaint(capsys, [*arguments, file])
    checkpoints.write_arrays(file, **(kept | {"labels": kept["labels"] - 1}))
    assert "labels must lie in 0 ... 9, got -1 to 8" in complaint(capsys, [*arguments, file])
    file.write_bytes(content)
    manifest = checkpoints.read_manifest(model)
    checkpoints.write_json(model / "manifest.json", manifest | {"sha256": 64 * "0"})
    assert "was drawn from weights" in complaint(capsys, [*arguments, file])


def test_mistakes_in_tables(capsys, model):
    arguments = ["evaluate", "--checkpoint", str(model), "--samples", "20", "--steps", "1"]
    assert "2 combinations of settings need --table" in complaint(capsys, [*arguments, "--w", "1", "2"])
    table = model.with_name("table.json")
    assert cli.main([*arguments, "--table", str(table)]) == 0
    capsys.readouterr()  # the bar
    kept = complaint(capsys, [*arguments, "--table", table, "--keep", "3"])
    assert "keeps 10 digits of a row, not --keep 3" in kept
    shares = complaint(capsys, [*arguments, "--table", table, "--shares", "equal"])
    assert "measured with --shares data; give another --table" in shares
    written = table.read_text()
    table.write_text(written.replace('"shares": "data",\n "c', '"c', 1).replace(' "shares": "data"', ' "x": 0'))
    assert "is of an earlier version, which had other floors" in complaint(capsys, [*arguments, "--table", table])
    table.write_text(written.replace('"classifier": "', '"classifier": "0'))
    assert "measured with another classifier" in complaint(capsys, [*arguments, "--table", table])


def test_precision_is_chosen_by_the_device(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert training.find_precision("auto", cpu) == "bfloat16"
    assert training.find_precision("float32", cpu) == "float32"
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert training.find_precision("auto", cpu) == training.find_precision("auto", torch.device("mps")) == "float32"
    assert training.find_precision("bfloat16", cpu) == "bfloat16"
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert training.find_precision("auto", cpu) == "float32"
    options = cli.parser().parse_args(["train", "--batch", "8"])
    config = cli.train_config(options, cpu)
    assert (config.batch, config.precision, config.compile, config.channels_last) == (8, "float32", "off", False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert training.find_precision("auto", torch.device("cuda")) == "float32"  # a card that would only emulate it
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    config = cli.train_config(options, torch.device("cuda"))
    assert (config.precision, config.compile, config.channels_last) == ("bfloat16", "default", True)
    options = cli.parser().parse_args(["train", "--compile", "reduce-overhead", "--no-channels-last"])
    config = cli.train_config(options, torch.device("cuda"))
    assert (config.compile, config.channels_last) == ("reduce-overhead", False)


@pytest.mark.parametrize("name", training.RECIPES)
def test_every_recipe_names_options_and_builds_a_network_of_at_most_ten_million(name):
    options = cli.parser().parse_args(["train", "--dataset", name])
    recipe = training.RECIPES[name]
    on_gpu = training.recipe(name, torch.device("cuda"))
    assert on_gpu.keys() >= recipe.keys() and training.recipe(name, torch.device("cpu")) == recipe
    assert all(getattr(options, key) in (None, "auto") for key in on_gpu), "an option with a default would win"
    cli.train_config(cli.complete(options, torch.device("cpu")), torch.device("cpu"))  # raises for bad values
    side, values = (32, 3) if name == "cifar10" else (28, 1)
    net = UNet(values, tuple(recipe["channels"]), blocks=recipe["blocks"], patch=recipe["patch"])
    net.check(torch.zeros(1, values, side, side))
    assert sum(p.numel() for p in net.parameters()) <= (10e6 if name == "cifar10" else 1.1e6)


def test_the_recipe_fills_what_no_option_says(tmp_path, monkeypatch):
    small = {"channels": (8, 16), "blocks": 2, "patch": 2, "batch": 8, "rate": 1e-4, "save_every": 20}
    small |= {"optimizer": "adamw", "flips": True, "half": True}
    monkeypatch.setitem(training.RECIPES, "mnist", small)
    monkeypatch.chdir(tmp_path)
    options = ["train", "--steps", "2", "--batch", "4", "--weight", "min-snr", "--target", "edm", "--optimizer", "muon"]
    assert cli.main([*options, "--device", "cpu", "--samples", "0"]) == 0
    manifest = checkpoints.read_manifest("runs/mnist")
    found = {k: manifest["training"][k] for k in ("batch", "rate", "flips", "save_every", "weight", "optimizer")}
    assert found == {
        "batch": 4, "rate": 1e-4, "flips": True, "save_every": 20, "weight": "min-snr", "optimizer": "muon",
    }  # fmt: skip
    arguments = manifest["network"]["arguments"]
    assert (arguments["channels"], arguments["blocks"], arguments["patch"]) == ([8, 16], 2, 2)
    denoiser = checkpoints.load("runs/mnist")
    assert manifest["target"] == denoiser.target == "edm"
    weights = list(denoiser.net.parameters())
    assert all(torch.equal(p, p.half().float()) for p in weights) and weights[0].dtype == torch.float32
    assert manifest["bytes"] < 3 * manifest["parameters"]  # 2 each, and the names


def test_too_little_memory_is_one_line_and_another_exit_status(capsys, tmp_path, monkeypatch):
    def too_large(*arguments):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    monkeypatch.setattr(training, "denoising_loss", too_large)
    assert cli.main(["train", "--out", str(tmp_path), *OPTIONS]) == 3
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "images at a time" in line]
    assert [line.split(" images")[0].split()[-1] for line in lines] == ["4", "2", "1"]


def test_data_that_may_not_be_read_are_one_line(capsys, tmp_path, monkeypatch):
    def forbidden(name, split):
        raise PermissionError(13, "Permission denied", "/data/mnist")

    monkeypatch.setattr(data, "load", forbidden)
    assert "Permission denied: '/data/mnist'" in complaint(capsys, ["train", "--out", tmp_path, *OPTIONS])


def test_bfloat16_trains_on_a_cpu_too(tmp_path):
    assert cli.main(["train", "--out", str(tmp_path), *OPTIONS, "--precision", "bfloat16"]) == 0
    net = checkpoints.load(tmp_path).net
    assert all(p.dtype == torch.float32 for p in net.parameters())


# --- train-vae ---

VAE_OPTIONS = ["--latent", "3", "--width", "8", "--epochs", "2", "--batch", "16", "--device", "cpu"]


def test_train_vae_writes_weights_log_and_measured_terms(capsys, tmp_path, monkeypatch):
    measure = cli.measure_elbo
    monkeypatch.setattr(cli, "measure_elbo", lambda *arguments: measure(*arguments, samples=(1, 4), weighted=3))
    assert cli.main(["train-vae", "--out", str(tmp_path), *VAE_OPTIONS]) == 0
    net, manifest = checkpoints.load_network(tmp_path)
    assert isinstance(net, VAE) and net.latent == 3
    assert {k: manifest["training"][k] for k in ("epochs", "batch", "rate", "seed")} == {
        "epochs": 2, "batch": 16, "rate": 2e-3, "seed": 0,
    }  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv", "manifest.json", "model.safetensors"]
    header, *lines = (tmp_path / "log.csv").read_text().splitlines()
    assert header == "epoch,loss,seconds" and [line.split(",")[0] for line in lines] == ["1", "2"]
    found = manifest["test"]
    assert found["images"] == 64 and len(found["kl_by_unit"]) == 3
    assert found["nats"][0] == pytest.approx(found["reconstruction"][0] - found["kl"][0], abs=1e-6)
    assert "bits_per_dim" in capsys.readouterr().out


def test_the_seed_decides_a_vae(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "measure_elbo", lambda *arguments: {})
    made = []
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert cli.main(["train-vae", "--out", str(tmp_path / name), *VAE_OPTIONS, "--seed", seed]) == 0
        made.append(checkpoints.read_manifest(tmp_path / name)["sha256"])
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--latent", "0"], "--latent must be above 0, got 0"),
        (["--width", "-2"], "--width must be above 0, got -2"),
        (["--epochs", "0"], "--epochs must be above 0, got 0"),
        (["--images", "8"], "a batch of 16 needs at least as many images, got 8"),
        (["--device", "abacus"], "unknown or absent device 'abacus'"),
    ],
)
def test_mistakes_in_training_a_vae(capsys, tmp_path, options, message):
    assert message in complaint(capsys, ["train-vae", "--out", tmp_path, *VAE_OPTIONS, *options])


def test_a_vae_that_cannot_be_written_is_refused_at_once(capsys, tmp_path):
    (tmp_path / "file").write_text("no folder")
    assert str(tmp_path / "file") in complaint(capsys, ["train-vae", "--out", tmp_path / "file" / "x", *VAE_OPTIONS])


def test_a_vae_is_no_denoiser(capsys, tmp_path):
    checkpoints.save(tmp_path, VAE(2, 8), {"class": "VAE", "arguments": {"latent": 2, "width": 8}})
    assert "holds a VAE, no denoiser" in complaint(capsys, ["sample", "--checkpoint", tmp_path])


def copied(checkpoint: Path, folder: Path) -> Path:
    """A checkpoint's two files in a folder of their own."""
    folder.mkdir()
    for name in ("manifest.json", "model.safetensors"):
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    return folder


def test_likelihood_writes_the_bound_s_terms_and_replaces_the_same_settings(tmp_path, checkpoint):
    folder = copied(checkpoint, tmp_path / "model")
    arguments = ["likelihood", "--checkpoint", str(folder), "--images", "6", "--draws", "3", "--device", "cpu"]
    for options in ([], [], ["--conditional"]):
        assert cli.main([*arguments, *options]) == 0
    plain, told = checkpoints.read_manifest(folder)["likelihood"]
    assert (plain["route"], plain["images"], plain["conditional"], told["conditional"]) == ("elbo", 6, False, True)
    for found in (plain, told):
        assert found["bits_per_dim"][0] == pytest.approx(
            sum(found[k][0] for k in ("prior", "diffusion", "reconstruction"))
        )
        assert sum(found["levels"]["bits"]) == pytest.approx(found["diffusion"][0])
        assert found["bits_per_dim"][0] > 0 < found["bits_per_dim"][1]
        assert len(found["levels"]["log_snr"]) == 21


def test_train_variance_writes_a_head_and_what_it_saves(tmp_path, checkpoint):
    arguments = ["train-variance", "--checkpoint", str(checkpoint), "--steps", "3", "--batch", "4", "--images", "4"]
    heads = []
    for out in ("a", "b"):
        assert cli.main([*arguments, "--draws", "2", "--out", str(tmp_path / out), "--device", "cpu"]) == 0
        heads.append(checkpoints.load_network(tmp_path / out))
    (head, manifest), (again, _) = heads
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in head.state_dict().items())
    assert manifest["denoiser"] == checkpoints.read_manifest(checkpoint)["sha256"]
    assert [m["steps"] for m in manifest["metrics"]] == [10, 25, 50, 100]
    for m in manifest["metrics"]:
        assert m["saved"][0] == pytest.approx(m["small"][0] - m["learned"][0])


def test_the_ode_route_writes_bits_into_the_manifest(tmp_path, checkpoint):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("manifest.json", "model.safetensors"):
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    arguments = ["likelihood", "--route", "ode", "--checkpoint", str(folder), "--images", "3", "--device", "cpu"]
    arguments += ["--steps-ode", "2", "--probes", "2"]
    for options in ([], [], ["--conditional"]):
        assert cli.main([*arguments, *options]) == 0
    plain, told = checkpoints.read_manifest(folder)["likelihood"]
    assert (plain["route"], plain["images"], plain["conditional"], plain["evaluations"]) == ("ode", 3, False, 8)
    assert [row["steps"] for row in plain["convergence"]] == [4, 8, 16, 32]
    assert told["conditional"]
    for entry in (plain, told):
        assert entry["bits_per_dim"][1] > 0 and entry["noised"][1] > 0 and entry["probe_spread"] >= 0
        assert entry["noised"] != entry["bits_per_dim"]


def test_mistakes_in_the_ode_route(capsys, checkpoint):
    line = ["likelihood", "--route", "ode", "--checkpoint", checkpoint, "--steps-ode", "0"]
    assert "--steps-ode must be above 0, got 0" in complaint(capsys, line)
    line = ["likelihood", "--checkpoint", checkpoint, "--images", "1"]
    assert "--images must be at least 2, for a standard error, got 1" in complaint(capsys, line)


# --- train-noisy-classifier ---

NOISY_OPTIONS = ["train-noisy-classifier", "--epochs", "1", "--batch", "16"]


def test_train_noisy_classifier_writes_weights_and_accuracy_by_level(capsys, tmp_path):
    assert cli.main([*NOISY_OPTIONS, "--out", str(tmp_path)]) == 0
    net, manifest = checkpoints.load_network(tmp_path)
    assert manifest["network"]["class"] == type(net).__name__ == "NoisyClassifier"
    assert manifest["training"]["batch"] == 16 and manifest["noise"]["name"] == "Cosine"
    levels = manifest["levels"]
    assert len(levels) == 11 and [row["t"] for row in levels] == sorted(row["t"] for row in levels)
    assert all(0 <= row["accuracy"] <= 1 and row["log_p"] < 0 for row in levels)
    assert "accuracy_error" in capsys.readouterr().out


def test_mistakes_in_training_a_noisy_classifier(capsys, tmp_path):
    wrong = [*NOISY_OPTIONS, "--out", tmp_path, "--images", "8"]
    assert "a batch of 16 needs at least as many images, got 8" in complaint(capsys, wrong)
