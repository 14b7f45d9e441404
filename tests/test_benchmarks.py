"""The measuring scripts: they go on where they were stopped, refuse in words, and compute what they say."""

import argparse
import io
import json
import sys
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import gpu_session, lost_digits, matched_throughput, peers_training, tables, throughput, training_ledger
from diffusion_edu import checkpoints, data, machine, training
from diffusion_edu.networks import Classifier, UNet
from diffusion_edu.schedules import Cosine
from tests.test_cli import TINY, small_set

CPU = torch.device("cpu")

# --- throughput ---


def test_overlapping_kernels_are_busy_once():
    assert throughput.busy_seconds([(5, 7), (0, 2), (1, 3), (1.5, 1.75)]) == 5
    assert throughput.busy_seconds([]) == 0


def test_idle_is_what_no_kernel_fills():
    def event(start, end, device, annotation=False):
        span = argparse.Namespace(start=start, end=end)
        return argparse.Namespace(time_range=span, device_type=device, is_user_annotation=annotation)

    cuda, cpu = throughput.DeviceType.CUDA, throughput.DeviceType.CPU
    events = [event(0, 3e5, cuda), event(2e5, 5e5, cuda), event(0, 1e6, cpu), event(0, 9e5, cuda, annotation=True)]
    found = argparse.Namespace(events=lambda: events)
    assert throughput.idle_share(found, 1.0) == pytest.approx(0.5)  # microseconds
    assert throughput.idle_share(argparse.Namespace(events=list), 1.0) is None


def test_a_row_of_throughput_on_a_cpu(tmp_path, monkeypatch, capsys):
    out = tmp_path / "throughput.json"
    monkeypatch.setattr(throughput, "ceilings", lambda device: {"matrix_tflops": 0.5, "copy_gb_per_s": 2.0})
    options = ["--device", "cpu", "--window", "1", "--windows", "2", "--out", str(out)]
    throughput.main([*options, "--train", "--dataset cifar10 --batch 2 --channels 8 8"])
    table = json.loads(out.read_text())
    (row,) = table["rows"]
    assert table["gpu_rows"] is None and "none is an estimate" in table["gpu_note"]
    assert (row["dataset"], row["batch"], row["idle_share"], row["peak_memory_mb"]) == ("cifar10", 2, None, None)
    assert row["driver"] is None and row["versions"]["torch"] == torch.__version__
    rate, roof = row["images_per_second"], row["ceilings"]
    assert row["quartiles"][0] <= rate <= row["quartiles"][1] and rate > 0
    assert row["matrix_share"] == pytest.approx(rate * row["model_flops_per_image"] / 1e12 / roof["matrix_tflops"])
    assert row["copy_share"] == pytest.approx(rate * row["bytes_per_image"] / 1e9 / roof["copy_gb_per_s"])


def test_counted_flops_are_those_of_convolutions_and_attention():
    options = throughput.train_options(["--channels", "16", "--patch", "1"], CPU)
    net, flops = throughput.build(options, torch.device("cpu")).denoiser.net, []
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda conv, _, out: flops.append(2 * conv.weight.numel() * out[0, 0].numel()))
    net(torch.zeros(1, 1, 28, 28), torch.tensor([0.5]))
    attention = 2 * 2 * 784**2 * 16  # two products of 784 x 784 with 16 channels
    # backward costs twice the forward, attention up to 2.5 times where it multiplies again; 2 %: linear layers, and the
    # first layer, which needs no gradient of the images
    found = throughput.count_step(options, batch=2)["model_flops_per_image"]
    muon = throughput.train_options(["--channels", "16", "--patch", "1", "--optimizer", "muon"], CPU)
    assert throughput.count_step(muon, batch=2)["model_flops_per_image"] == found  # the model's, not the optimizer's
    assert 0.98 * 3 * (sum(flops) + attention) <= found <= 1.02 * (3 * sum(flops) + 3.5 * attention)


def test_ceilings_are_work_over_time(monkeypatch):
    seconds = iter([0.5, 0.25])
    monkeypatch.setattr(throughput, "fastest", lambda work, device: (work(), next(seconds))[1])
    found = throughput.ceilings(torch.device("cpu"))
    assert found["matrix_tflops"] == 2 * 1024**3 / 0.5 / 1e12 and found["copy_gb_per_s"] == 2 * 2**26 / 0.25 / 1e9
    precision = training.find_precision("auto", torch.device("cpu"))
    assert (found["matrix"], found["copy"]) == (f"1024 x 1024, {precision}", "64 MiB, bytes read and written")


# --- the ledger ---


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    """A ledger whose timing, training and judging are made up, and its options; `calls` lists what was trained."""
    calls = []

    def find_pace(dataset, options, device, rounds):
        return {"base_seconds": 0.02, "ratio": 1.25 if options else 1.01, "quartiles": [1.0, 1.5]}

    monkeypatch.setattr(training_ledger, "find_pace", find_pace)

    def run(command):
        calls.append(command)
        if "--optimizer" in command and "lion" in command:
            return 1.0, "optimizer must be one of adamw, muon"
        folder = training_ledger.Path(command[command.index("--out") + 1])
        facts = {"training": {"steps": 10, "batch": 4}, "final_loss": 0.5, "wall_seconds": 2.0}
        checkpoints.save(folder, torch.nn.Linear(2, 1), {"class": "MLP", "arguments": {}}, **facts)
        return 3.0, ""

    monkeypatch.setattr(training_ledger, "run", run)
    monkeypatch.setattr(training_ledger, "judge", lambda folder, *rest: {"frechet": float(len(calls))})
    monkeypatch.setattr(
        training_ledger,
        "changes",
        lambda dataset, device: {
            "baseline": [],
            "target v": ["--target", "v"],  # the default
            "target eps": ["--target", "eps"],
            "magic 1": ["--magic", "1"],
        },
    )
    out = tmp_path / "ledger.json"
    options = ["--out", str(out), "--runs", str(tmp_path / "runs"), "--device", "cpu", "--minutes", "0.1"]
    return out, options, calls


def test_the_ledger_goes_on_where_it_was_stopped(ledger, monkeypatch, capsys):
    out, options, calls = ledger
    training_ledger.main([*options, "--seeds", "0"])
    assert [c[c.index("--target") + 1] if "--target" in c else None for c in calls] == [None, "eps"]
    # six seconds hold 300 steps of 0.02 s, and 240 that take a quarter longer
    assert [c[c.index("--steps") + 1] for c in calls] == ["300", "240"] and "--minutes" not in calls[0]
    rows = {row["row"]: row for row in json.loads(out.read_text())["rows"]}
    assert rows["target v"]["same_as"] == "baseline"
    assert "this build's `train` does not know it: unrecognized arguments: --magic 1" in rows["magic 1"]["refused"]
    base = rows["baseline"]
    assert (base["images_seen"], base["loss"], base["wall_seconds"], base["parameters"]) == (40, 0.5, 3.0, 3)
    assert base["command"].startswith("python -m diffusion_edu train --dataset mnist --steps 300 --seed 0")
    assert "--out runs/mnist-0.1-baseline-0" in base["command"]  # no folder of the machine that made the table
    assert base["driver"] is None and "torch" in base["versions"]

    assert [pace["row"] for pace in json.loads(out.read_text())["paces"]] == ["baseline", "target eps"]

    monkeypatch.delattr(training_ledger, "find_pace")  # each is timed once
    training_ledger.main([*options, "--seeds", "0", "1"])
    assert len(calls) == 4 and len(json.loads(out.read_text())["rows"]) == 8  # the refused one is asked again
    assert "baseline" in capsys.readouterr().out


def test_a_row_is_timed_in_turn_with_the_baseline(monkeypatch):
    """A machine that slows down by half from turn to turn tells nothing against the row that is timed in it."""
    turns, counts = [], []

    def time_steps(run, images, labels, count):
        counts.append(count)
        turns.append(run.config.batch)
        slow = (
            2 ** ((len(turns) - 5) // 2) if len(turns) > 4 else 1
        )  # after one pair to warm up and one to size the turns
        return slow * (0.1 if run.config.batch == 2 else 0.3)

    monkeypatch.setattr(training_ledger, "time_steps", time_steps)
    monkeypatch.setitem(training.RECIPES, "mnist", training.RECIPES["mnist"] | {"channels": (8,), "batch": 2})
    found = training_ledger.find_pace("mnist", ["--batch", "4"], CPU, rounds=5)
    assert turns == [2, 4] * 7 and counts == [3, 3, 2, 2, *[5, 2] * 5]  # half a second: 5 steps of 0.1 s, 2 of 0.3 s
    assert found["ratio"] == pytest.approx(3) and found["quartiles"] == pytest.approx([3, 3])
    assert found["base_seconds"] == pytest.approx(0.4)


def test_an_unsteady_pace_is_taken_again(monkeypatch):
    calls, ratios = [], iter([1, 3] * 5 + [2, 2.3] * 5 + [1, 2] * 5)  # none is steady: the best of three is kept

    def time_steps(run, images, labels, count):
        calls.append(count)
        return 1.0 if len(calls) <= 4 or len(calls) % 2 else next(ratios)

    monkeypatch.setattr(training_ledger, "time_steps", time_steps)
    found = training_ledger.find_pace("mnist", ["--target", "x0"], CPU, rounds=10)
    assert len(calls) == 4 + 3 * 20 and found["quartiles"] == pytest.approx([2, 2.3])


def test_timed_steps_train(monkeypatch):
    options = throughput.train_options(["--channels", "8", "--batch", "2"], CPU)
    run, (images, labels) = throughput.build(options, CPU), throughput.made_up(options, 4, CPU)
    now = iter([10.0, 16.0])
    monkeypatch.setattr(training_ledger, "wait", lambda device: next(now))
    assert training_ledger.time_steps(run, images, labels, 3) == 2.0 and run.step == 3


def test_a_row_is_judged_as_evaluate_judges_it(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load", small_set)
    torch.manual_seed(0)
    about = {"dataset": {"name": "mnist"}}
    checkpoints.save(
        tmp_path / "judge", Classifier(width=8), {"class": "Classifier", "arguments": {"width": 8}}, **about
    )
    facts = {"schedule": checkpoints.describe_schedule(Cosine()), "target": "v", "clip": [-1, 1], "metrics": []}
    facts["dataset"] = {"name": "mnist", "shape": [1, 28, 28]}
    options = ["--samples", "20", "--evaluations", "2", "--device", "cpu", "--judge", str(tmp_path / "judge")]
    given, found = training_ledger.parser().parse_args(options), []
    for name in ("a", "b"):
        net = UNet(**TINY)
        torch.nn.init.normal_(net.leave[2].weight)
        checkpoints.save(tmp_path / name, net, {"class": "UNet", "arguments": TINY}, **facts)
        found.append(training_ledger.judge(tmp_path / name, tmp_path / "judged.json", given))
    a, b = found
    assert a["frechet"] != b["frechet"] and a["floor"] == b["floor"] > 0
    assert (a["samples"], a["sampler"], a["evaluations"], a["grid"]) == (20, "ancestral", 2, "uniform")
    assert a["shares"] == "equal"
    assert a["classifier"] == checkpoints.read_manifest(tmp_path / "judge")["sha256"]
    evaluate = ["evaluate", "--checkpoint", str(tmp_path / "a"), "--steps", "2", *options[:2], *options[4:]]
    evaluate += ["--shares", "equal"]
    assert training_ledger.cli.main(evaluate) == 0
    (figures,) = checkpoints.read_manifest(tmp_path / "a")["metrics"]
    assert {key: figures[key] for key in training_ledger.MEASURED} == pytest.approx(
        {key: a[key] for key in training_ledger.MEASURED}, rel=1e-6
    )


def test_what_train_itself_refuses_is_noted_and_tried_again(ledger, monkeypatch):
    out, options, calls = ledger
    monkeypatch.setattr(training_ledger, "changes", lambda dataset, device: {"target noise": ["--target", "noise"]})
    monkeypatch.setattr(training_ledger, "run", lambda command: (1.0, "unknown target 'noise'"))
    for _ in range(2):
        training_ledger.main([*options, "--seeds", "0"])
        (row,) = json.loads(out.read_text())["rows"]
        assert row["refused"] == "unknown target 'noise'"


def test_rows_are_chosen_by_name_or_first_word(capsys):
    rows = training_ledger.changes("mnist", CPU)
    assert list(training_ledger.chosen(rows, ["target", "optimizer muon"])) == [
        "target eps", "target v", "target x0", "target edm", "optimizer muon",
    ]  # fmt: skip
    with pytest.raises(SystemExit, match="unknown row 'colour'; known: baseline, target eps"):
        training_ledger.chosen(rows, ["colour"])
    with pytest.raises(SystemExit, match="--rounds must be at least 2, got 1"):
        training_ledger.main(["--list", "--rounds", "1"])
    training_ledger.main(["--list", "--rows", "channels"])
    widths = [8 * round(0.5 * width / 8) for width in training.RECIPES["mnist"]["channels"]]
    assert capsys.readouterr().out.splitlines()[0].split("--channels ")[1] == " ".join(map(str, widths))


@pytest.mark.parametrize("dataset", training.RECIPES)
def test_only_rows_that_change_something_are_trained(dataset):
    rows, cpu = training_ledger.changes(dataset, CPU), CPU
    start = training_ledger.train_command(dataset, 100, 0, "cpu", training_ledger.RUNS, [])
    assert all(training_ledger.settings([*start, *options], cpu) for options in rows.values()), (
        "this build knows them all"
    )
    equal = training_ledger.equal_rows(rows, start, cpu)
    named = (
        "target weight schedule ema optimizer precision compile blocks patch".split()
    )  # each has the default among them
    assert sorted(name.split()[0] for name in equal) == sorted(named)
    assert {"target v", "weight simple"} <= equal
    double = str(2 * training.RECIPES[dataset]["batch"])
    moved = training_ledger.equal_rows(rows, [*start, "--batch", double], cpu)
    assert moved == equal | {f"batch {double}"}


def test_a_summary_is_over_seeds_best_first():
    rows = [{"row": "a", "frechet": 3.0}, {"row": "b", "frechet": 1.0}, {"row": "a", "frechet": 1.0}, {"row": "c"}]
    found = training_ledger.summary(rows)
    assert list(found) == ["b", "a"] and found["b"]["deviation"] is None
    assert found["a"] == {"frechet": 2.0, "deviation": pytest.approx(2**0.5), "seeds": 2}


@pytest.mark.parametrize(
    ("status", "stderr", "reason"),
    [
        (2, "mnist:  0%|\rmnist: 50%|\ndiffusion_edu train: unknown target\n\n", "diffusion_edu train: unknown target"),
        (-9, "", "exit status -9"),
        (0, "mnist: 100%|\n", ""),
    ],
)
def test_a_command_s_last_words_are_its_reason(monkeypatch, status, stderr, reason):
    asked = []

    def fake(command, **keywords):
        asked.append(command)
        return training_ledger.subprocess.CompletedProcess(command, status, stderr=stderr)

    monkeypatch.setattr(training_ledger.subprocess, "run", fake)
    assert training_ledger.run(["train", "--steps", "1"])[1] == reason
    assert asked == [[sys.executable, "-m", "diffusion_edu", "train", "--steps", "1"]]


# --- peers ---


def test_steps_of_networks_of_one_size_are_timed_in_turn(tmp_path, monkeypatch, capsys):
    """A library whose step takes as long as five of ours has a fifth of our images a second, however slow the machine."""
    now, net = [0.0], torch.nn.Linear(3, 1)
    monkeypatch.setattr(matched_throughput, "seconds", lambda work: (start := now[0], work(), now[0] - start)[-1])

    def clocked(duration, step=lambda: None):
        def work():
            now[0] += duration * (1 + now[0] / 50)  # a machine that gets slower
            step()

        return work

    def ours(images, labels):
        net, step, with_it = matched_throughput.our_step(images, labels)
        return net, clocked(0.1, step), with_it

    monkeypatch.setattr(
        matched_throughput, "STEPS", {"diffusion_edu": ours, "diffusers": lambda *_: (net, clocked(0.5), "x")}
    )
    monkeypatch.setattr(matched_throughput, "missing", lambda peer: None)
    options = ["--out", str(tmp_path / "t.json"), "--batch", "4", "--rounds", "3", "--device", "cpu"]
    for _ in range(2):  # the second time takes the rows' place
        matched_throughput.main(options)
    mine, theirs = json.loads((tmp_path / "t.json").read_text())["rows"]
    assert (mine["library"], mine["of_ours"], mine["parameters"], theirs["parameters"]) == (
        "diffusion_edu",
        1,
        1081940,
        4,
    )
    assert theirs["of_ours"] == pytest.approx(0.2, rel=0.1)  # within a turn it got slower by some per cent
    assert mine["images_per_second"] < 40 and mine["turns"] == 3
    monkeypatch.setattr(matched_throughput, "missing", lambda peer: "not installed" if peer.package else None)
    matched_throughput.main(options)
    assert "diffusers is left out: not installed" in capsys.readouterr().out
    rows = json.loads((tmp_path / "t.json").read_text())["rows"]
    assert rows[0] == theirs and rows[1]["library"] == "diffusion_edu"  # what was measured before is kept
    for wrong, message in (
        (["--rounds", "1"], "--rounds must be at least 2, got 1"),
        (["--batch", "0"], "must be 1 to"),
    ):
        with pytest.raises(SystemExit, match=message):
            matched_throughput.main(wrong)


def test_the_clock_gives_the_first_batch_and_stops_at_its_limit(monkeypatch):
    now = iter([0.0, 0.0, 30.0, 59.0, 61.0])  # made, started, and asked before every batch but the first
    monkeypatch.setattr(peers_training, "perf_counter", lambda: next(now))
    clock, given = peers_training.Clock(1, torch.device("cpu")), []
    with pytest.raises(peers_training.TimeIsUp):
        for batch in clock.limited(range(10)):
            given.append(batch)
    assert given == [0, 1, 2] and clock.batches == 3


def test_a_rim_comes_off_again():
    images = torch.rand(2, 1, 28, 28)
    wide = peers_training.padded(images)
    assert wide.shape == (2, 1, 32, 32) and float(wide.sum()) == pytest.approx(float(images.sum()), rel=1e-5)
    assert torch.equal(peers_training.cropped(wide, 28), images)
    assert torch.equal(peers_training.padded(torch.ones(1, 3, 32, 32)), torch.ones(1, 3, 32, 32))


def test_classes_are_asked_for_equally_often_and_images_come_with_their_labels():
    assert peers_training.every_class(23).tolist() == [*range(10), *range(10), 0, 1, 2]
    images, labels = torch.rand(5, 1, 4, 4), torch.arange(5)
    pairs = torch.utils.data.DataLoader(peers_training.Pictures(images, labels), batch_size=3)
    assert [y.tolist() for _, y in pairs] == [[0, 1, 2], [3, 4]]
    assert torch.equal(torch.cat(list(torch.utils.data.DataLoader(peers_training.Pictures(images)))), images)


@pytest.mark.slow
def test_our_own_recipe_trains_and_draws_every_class():
    images, labels = torch.rand(64, 1, 28, 28), torch.arange(64) % 10
    options = "--channels 8 8 --batch 8 --images 64".split()
    task = peers_training.Task("mnist", images, labels, 0.001, torch.device("cpu"), 3, None, options)
    trained = peers_training.train_ours(task)
    assert (trained.facts["steps"], trained.facts["batch"], trained.facts["evaluations"]) == (100, 8, 25)
    assert trained.facts["recipe"].endswith("train --dataset mnist --channels 8 8 --batch 8 --images 64")
    drawn = trained.draw(11)
    assert drawn.shape == (11, 1, 28, 28) and bool(drawn.isfinite().all()) and float(drawn.abs().max()) <= 1


@pytest.mark.parametrize(("classes", "read"), [(True, 1.0), (False, None)])
def test_only_a_network_that_knows_classes_is_asked_for_them(monkeypatch, classes, read):
    """A peer that trains in no time and draws test digits of every class in turn; our judge reads 20 of 20 of them."""

    def train(task):
        test = data.load("mnist", "test")
        chosen = [int((test.labels == y).nonzero()[k]) for k in range(2) for y in range(10)]
        assert task.labels.tolist() == data.load("mnist", "train").labels[:7].tolist() and len(task.images) == 7
        facts = {"batch": 2, "steps": 3}
        return peers_training.Trained(lambda n: data.to_float(test.images[chosen[:n]]), facts)

    monkeypatch.setitem(peers_training.PEERS, "copyist", peers_training.Peer(None, train, classes=classes))
    given = peers_training.parser().parse_args(
        ["--samples", "20", "--images", "7", "--device", "cpu", "--threads", "1"]
    )
    row, floors, images = peers_training.measure("copyist", {"seed": 0}, given, {"floor": 2.0})
    assert (row["conditional"], row.get("accuracy"), row["images_seen"]) == (classes, read, 6)
    assert floors == {"floor": 2.0} and row["ratio"] == row["frechet"] / 2 and images.shape == (20, 1, 28, 28)


def test_peers_go_on_where_they_were_stopped_and_missing_ones_are_named(tmp_path, monkeypatch, capsys):
    asked = []

    def apart(name, key, given, floors):
        asked.append((name, key["seed"], floors))
        row = key | {"steps": 3, "train_seconds": 1.0, "frechet": 9.0, "device": "cpu"}
        return row, {"floor": 0.5}, np.zeros((4, 1, 28, 28), np.uint8)

    monkeypatch.setattr(peers_training, "apart", apart)
    monkeypatch.setattr(peers_training, "missing", lambda peer: "nowhere" if peer.package == "smalldiffusion" else None)
    options = ["--out", str(tmp_path / "peers.json"), "--device", "cpu", "--peers"]
    peers_training.main([*options, "diffusion_edu", "smalldiffusion-dit"])
    assert "smalldiffusion-dit is left out: nowhere" in capsys.readouterr().out
    peers_training.main([*options, "diffusion_edu", "diffusers", "--seeds", "0", "1"])
    assert [(name, seed) for name, seed, _ in asked] == [
        ("diffusion_edu", 0), ("diffusers", 0), ("diffusion_edu", 1), ("diffusers", 1),
    ]  # fmt: skip
    # measured once for a network that knows classes, and once for one that does not
    assert [floors for *_, floors in asked] == [None, None, {"floor": 0.5}, {"floor": 0.5}]
    assert len(np.load(tmp_path / "peers.npz").files) == 4
    old = {"floors": {"mnist-1000": {"floor": 0.5}}, "rows": [{"peer": "diffusion_edu", "device": "cpu"}]}
    (tmp_path / "peers.json").write_text(json.dumps(old))
    with pytest.raises(SystemExit, match="is of an earlier version, which had other floors"):
        peers_training.main([*options, "diffusers"])


def test_what_is_not_installed_is_said_with_the_remedy(monkeypatch):
    monkeypatch.setitem(peers_training.INSTALL, "diffusers", "a-package-of-that-name-is-nowhere")
    reason = peers_training.missing(peers_training.PEERS["diffusers"])
    assert reason.endswith("is not installed: pip install --no-deps a-package-of-that-name-is-nowhere")
    assert peers_training.missing(peers_training.PEERS["diffusion_edu"]) is None


# --- the session with a GPU ---


def test_a_session_skips_what_was_done_and_notes_what_failed(tmp_path, monkeypatch, capsys):
    work, first, second = tmp_path / "work", tmp_path / "first", tmp_path / "second"
    write = f"import pathlib; p = pathlib.Path({str(work)!r}); (p / 'a.bin').write_bytes(bytes(100)); "
    heavy = "(p / 'state.safetensors').write_bytes(bytes(9)); (p / 'ledger-runs').mkdir(); (p / 'ledger-runs' / 'x').touch()"
    made = [
        gpu_session.Step("good", 30, [["-c", write + heavy]]),
        gpu_session.Step("bad", 30, [["-c", "raise SystemExit(4)"], ["-c", "open('/nowhere/x')"]]),
        gpu_session.Step("late", 0.2, [["-c", "import time; time.sleep(30)"]]),
    ]
    monkeypatch.setattr(gpu_session, "steps", lambda *arguments: made)
    monkeypatch.setattr(gpu_session, "PIECE", 6000)
    assert gpu_session.main([str(work), str(first)]) == 0
    account = json.loads((first / "session.json").read_text())
    assert [entry["outcome"] for entry in account["steps"]] == ["done", "exit status 4", "stopped after 0 s"]
    assert account["card"] and sorted(p.name for p in first.iterdir())[:2] == ["results.tar.00", "results.tar.01"]
    with tarfile.open(fileobj=io.BytesIO(gpu_session.read_pieces(first, "results.tar"))) as tar:
        assert tar.getnames() == ["a.bin", "bad.log", "good.log", "late.log", "session.json"]
    assert gpu_session.main([str(work), str(second), "--only", "good", "bad"]) == 0
    again = json.loads((second / "session.json").read_text())["steps"]
    assert [entry["step"] for entry in again] == ["good", "bad", "late", "bad"]


def test_a_session_s_commands_are_ones_that_this_build_knows(capsys, tmp_path):
    assert gpu_session.main(["w", "r", "--dry-run", "--cifar", "--batch 256", "--mnist", "--batch 128"]) == 0
    lines = [line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.startswith("  python")]
    parsers = {"diffusion_edu": training_ledger.cli.parser(), "benchmarks.training_ledger": training_ledger.parser()}
    parsers["benchmarks.peers_training"] = peers_training.parser()
    parsers["benchmarks.matched_throughput"] = matched_throughput.parser()
    known = [words for words in lines if words[1] in parsers]
    assert len(known) >= 8
    for words in known:
        assert isinstance(
            parsers[words[1]].parse_args(gpu_session.shlex.split(" ".join(words[2:]))), argparse.Namespace
        )


def test_cifar_travels_in_pieces(tmp_path, monkeypatch, capsys):
    g, raw = np.random.default_rng(0), {}
    for name in gpu_session.BATCHES:
        records = g.integers(0, 256, (4, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        raw[name] = records.tobytes()
    hashes = {name: data.hashlib.sha256(content).hexdigest() for name, content in raw.items()}
    splits = {"test": {"test_batch.bin": hashes.pop("test_batch.bin")}, "train": hashes}
    monkeypatch.setitem(data._RECIPES, "cifar10", replace(data._RECIPES["cifar10"], splits=splits, ways={"none": None}))
    monkeypatch.setenv("DIFFUSION_EDU_CACHE", str(tmp_path / "here"))
    for name, content in raw.items():
        checkpoints.write_atomically(tmp_path / "here" / "cifar10" / name, content)
    assert gpu_session.main(["--pack", str(tmp_path / "load"), "--piece", "0.03"]) == 0
    assert len(list((tmp_path / "load").iterdir())) > 1
    monkeypatch.setenv("DIFFUSION_EDU_CACHE", str(tmp_path / "there"))
    assert gpu_session.main(["--unpack", str(tmp_path / "load")]) == 0
    assert {name: (tmp_path / "there" / "cifar10" / name).read_bytes() for name in raw} == raw
    assert "CIFAR-10 train: 20 images" in capsys.readouterr().out


def test_a_table_says_how_many_rows_a_gpu_gave(tmp_path):
    tables.write_table(tmp_path / "t.json", {"rows": [{"device": "cuda"}, {"device": "cpu"}]})
    table = json.loads((tmp_path / "t.json").read_text())
    assert (table["gpu_rows"], table["gpu_note"], len(table["rows"])) == (1, None, 2)


def test_a_machine_tells_its_name():
    found = machine.describe(torch.device("cpu"))
    assert found["device"] == "cpu" and found["card"] and found["driver"] is None
    assert found["versions"]["python"] == sys.version.split()[0]


def test_an_archive_s_networks_become_checkpoints_and_name_their_card(tmp_path):
    folder, checkpoint_folder, film = tmp_path / "unpacked", tmp_path / "checkpoints", tmp_path / "film.json"
    network = {"class": "UNet", "arguments": {"channels": [8, 16]}}
    facts = {"training": {"ema": 0.05}, "wall_seconds": 7.5, "machine": {"card": "NVIDIA X", "threads": 16}}
    digests = []
    for dataset in ("mnist", "cifar10"):
        judge = checkpoints.read_manifest(gpu_session.cli.CHECKPOINTS / f"{dataset}-classifier")["sha256"]
        facts |= {"dataset": {"name": dataset}, "metrics": [{"frechet": 2, "classifier": judge}]}
        checkpoints.save(folder / f"{dataset}-unet", UNet(channels=(8, 16)), network, **facts)
        digests.append(judge)
    digits_judge, judge = digests
    checkpoints.write_atomically(
        folder / "cifar10-unet" / "log.csv", b"step,loss,rate,seconds\n20,0.5,1e-3,1.5\n40,0.25,0,3\n"
    )
    checkpoints.write_arrays(
        folder / "cifar10-unet" / "film.npz", steps=np.array([20]), images=np.zeros((1, 2), np.uint8)
    )
    line = (
        "$ python -m diffusion_edu train --samples 0 --device cuda --dataset cifar10 --minutes 4 --out x --rate 6e-3\n"
    )
    (folder / "cifar10.log").write_text(line.replace("6e-3", "1") + "killed\n" + line + "wrote the train state\n")
    manifest = checkpoints.read_manifest(folder / "cifar10-unet")
    for wrong in ([], [{"frechet": 2, "classifier": digits_judge}]):
        checkpoints.write_json(folder / "cifar10-unet" / "manifest.json", manifest | {"metrics": wrong})
        with pytest.raises(ValueError, match=f"cifar10-unet must be judged by the classifier {judge[:12]}"):
            gpu_session.publish(folder, checkpoint_folder, film)
    assert not checkpoint_folder.exists() and not film.exists()
    checkpoints.write_json(folder / "cifar10-unet" / "manifest.json", manifest)
    gpu_session.publish(folder, checkpoint_folder, film)
    for name, place in gpu_session.PUBLISHED.items():
        net, manifest = checkpoints.load_network(checkpoint_folder / place)
        assert manifest == checkpoints.read_manifest(folder / name)
        assert (checkpoint_folder / place / "log.csv").exists() == (name == "cifar10-unet")
    found = json.loads(film.read_text())
    assert found["command"] == "python -m diffusion_edu train --dataset cifar10 --minutes 4 --rate 6e-3"
    assert found["machine"] == {"card": "NVIDIA X", "threads": 16} and found["judged"]["frechet"] == 2
    assert found["log"]["loss"] == [0.5, 0.25] and film.with_suffix(".npz").exists()


def test_digits_are_lost_where_the_noise_is_high(tmp_path):
    out = tmp_path / "lost.json"
    lost_digits.main(["--samples", "30", "--out", str(out)])
    found = json.loads(out.read_text())
    assert [row["t"] for row in found["rows"]] == [0, *lost_digits.TIMES, 1]
    assert found["checkpoint"] == checkpoints.read_manifest(lost_digits.cli.CHECKPOINTS / "mnist-unet-long")["sha256"]
    # 30 digits of which the classifier reads 99.6 % and at most 3 % are lost: five or more wrong have a chance of 0.002
    assert all(row["accuracy"] > 25 / 30 for row in found["rows"])
