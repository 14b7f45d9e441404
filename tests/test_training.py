"""Training: it learns, it stops and continues bit for bit, it refuses what is not its own, it survives kill -9."""

import errno
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from diffusion_edu import checkpoints, denoisers, parallel, process, training
from diffusion_edu.data import to_float
from diffusion_edu.denoisers import Denoiser
from diffusion_edu.networks import VAE, UNet, VarianceHead
from diffusion_edu.schedules import Cosine, LinearBeta
from diffusion_edu.training import Record, Run, TrainConfig, draw_batch, fit, train_step, update_average

CONFIG = TrainConfig(steps=12, batch=4, warmup=0.2, save_every=4, log_every=2)
IMAGES = torch.randint(0, 256, (10, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = torch.arange(10) % 3


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def new_run(config=CONFIG, schedule=None, target="v", seed=0, width=8):
    torch.manual_seed(seed)
    net = UNet(channels=(width,), num_classes=3, embedding=8, attention=False)
    return Run(Denoiser(net, schedule or Cosine(), target), config)


def finish(run, state=None, images=IMAGES, labels=LABELS):
    return list(fit(run, images, labels, state))


def assert_same(left, right):
    a, b = left.state(), right.state()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert [(r.step, r.loss, r.rate) for r in left.log] == [(r.step, r.loss, r.rate) for r in right.log]
    assert left.step == right.step


# learning


def test_the_loss_falls_on_a_few_images():
    images = torch.full((8, 1, 4, 4), 255, dtype=torch.uint8)
    run = new_run(TrainConfig(steps=120, batch=8, rate=1e-2, save_every=20))
    records = finish(run, images=images, labels=torch.zeros(8, dtype=torch.int64))
    assert records[-1].loss < 0.5 * records[0].loss
    assert [r.step for r in records] == [20, 40, 60, 80, 100, 120]
    assert all(isinstance(r, Record) for r in records)
    # and the average has learned too: from noise it sees the white image
    x = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert float(run.ema(0.1 * x + 0.9, torch.tensor(0.2)).x0.mean()) == pytest.approx(1, abs=0.3)


def test_a_record_is_the_mean_of_its_steps_and_comes_after_them():
    whole, by_hand = new_run(), new_run()
    losses = [float(train_step(by_hand, IMAGES, LABELS)) for _ in range(12)]
    for i, record in enumerate(fit(whole, IMAGES, LABELS)):
        assert whole.step == record.step == 2 * i + 2
        assert record.loss == pytest.approx((losses[2 * i] + losses[2 * i + 1]) / 2, rel=1e-6)
        assert record.rate == CONFIG.rate_at(record.step - 1)
    pairs = zip(whole.ema.parameters(), by_hand.ema.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_average_by_its_formula():
    """gamma = 6.94 and 16.97 belong to widths of 10 % and 5 % (Karras et al. 2024, Sec. 3.1)."""
    assert [replace(CONFIG, ema=width).ema_power for width in (0.1, 0.05)] == pytest.approx([7.94, 17.97], abs=0.005)
    run = new_run(replace(CONFIG, ema=0.1))
    for step, d in ((0, 0.0), (1, 0.5**7.94), (9, 0.9**7.94), (999, 0.999**7.94)):
        run.step = step
        old = [p.clone() for p in run.ema.parameters()]
        with torch.no_grad():
            for p in run.denoiser.parameters():
                p.add_(1.0)
        update_average(run)
        for average, before, weight in zip(run.ema.parameters(), old, run.denoiser.parameters(), strict=True):
            torch.testing.assert_close(
                average, d * before + (1 - d) * weight, rtol=1e-3, atol=1e-5
            )  # gamma has 3 digits
    assert not any(p.requires_grad for p in run.ema.parameters())
    assert not run.ema.training


@pytest.mark.parametrize("width", [0.05, 0.1, 0.25])
def test_the_average_is_as_wide_as_asked(width):
    """A weight that counts the steps: its average lags, and spreads over, the asked share of the steps."""
    n, weights = 4000, torch.zeros(4000, dtype=torch.float64)
    power = replace(CONFIG, ema=width).ema_power
    for k in range(1, n + 1):  # the share of each step in the average
        d = (1 - 1 / k) ** power
        weights *= d
        weights[k - 1] += 1 - d
    place = torch.arange(1, n + 1) / n
    mean = float((weights * place).sum())
    assert float(weights.sum()) == pytest.approx(1)
    # the continuous limit; steps of 1 / 4000 make it coarser by about as much
    assert float((weights * (place - mean) ** 2).sum()) ** 0.5 == pytest.approx(width, abs=1e-3)


def test_without_an_average_it_is_the_weights():
    run = new_run(replace(CONFIG, ema=0.0))
    finish(run)
    assert all(torch.equal(a, b) for a, b in zip(run.ema.parameters(), run.denoiser.parameters(), strict=True))


def test_the_rate_rises_and_falls_along_a_cosine():
    config = TrainConfig(steps=100, rate=1.0, warmup=0.2)
    assert [config.rate_at(k) for k in (0, 9, 19, 20, 60)] == pytest.approx([0.05, 0.5, 1, 1, 0.5])
    assert 0 < config.rate_at(99) < 1e-3
    assert max(config.rate_at(k) for k in range(100)) == 1
    assert TrainConfig(steps=3, rate=1.0, warmup=0).rate_at(0) == 1
    assert TrainConfig(steps=4, rate=1.0, warmup=1).rate_at(3) == 1


def test_the_rate_and_the_clipped_gradient_reach_the_optimizer(monkeypatch):
    run, norms = new_run(), []
    optimizer = run.optimizers[0]
    step = optimizer.step

    def watched():
        grads = [p.grad for p in run.denoiser.parameters() if p.grad is not None]
        norms.append((float(nn.utils.get_total_norm(grads)), optimizer.param_groups[0]["lr"]))
        step()

    monkeypatch.setattr(optimizer, "step", watched)
    monkeypatch.setattr(training, "denoising_loss", lambda d, x, t, e, y: 1e4 * d.raw(x, t, y).value.mean((1, 2, 3)))
    train_step(run, IMAGES, LABELS)
    assert norms[0][0] == pytest.approx(1, rel=1e-3)
    assert norms[0][1] == CONFIG.rate_at(0)


def test_every_epoch_sees_every_image_once_in_its_own_order():
    config = replace(CONFIG, batch=5)
    labels = torch.arange(10)
    epochs = []
    for epoch in range(2):
        parts = [draw_batch(IMAGES, labels, config, 2 * epoch + place) for place in range(2)]
        order = torch.cat([y for _, y in parts]).tolist()
        assert sorted(order) == list(range(10))
        torch.testing.assert_close(torch.cat([x for x, _ in parts]), IMAGES[order].float() / 127.5 - 1)
        epochs.append(order)
    assert epochs[0] != epochs[1]
    other = draw_batch(IMAGES, labels, replace(config, seed=1), 0)[1].tolist()
    assert other != epochs[0][:5]


@pytest.mark.parametrize("p_null", [0.0, 1.0])
def test_share_of_dropped_labels_at_its_edges(monkeypatch, p_null):
    seen, loss = [], training.denoising_loss
    monkeypatch.setattr(training, "denoising_loss", lambda d, x, t, e, y: seen.append(y) or loss(d, x, t, e, y))
    run = new_run(replace(CONFIG, p_null=p_null))
    train_step(run, IMAGES, LABELS)
    _, y = draw_batch(IMAGES, LABELS, CONFIG, 0)
    assert seen[0].tolist() == ([3, 3, 3, 3] if p_null else y.tolist())


def test_every_step_has_its_own_times_and_noise(monkeypatch):
    drawn, loss = [], training.denoising_loss
    monkeypatch.setattr(training, "denoising_loss", lambda d, x, t, e, y: drawn.append((t, e)) or loss(d, x, t, e, y))
    for _ in range(2):
        run = new_run()
        for _ in range(3):
            train_step(run, IMAGES, LABELS)
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert not torch.equal(drawn[a][0], drawn[b][0])
        assert not torch.equal(drawn[a][1], drawn[b][1])
    for first, second in zip(drawn[:3], drawn[3:], strict=True):  # the same steps of another run
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])


def test_another_seed_is_another_run():
    a, b, c = (new_run(replace(CONFIG, seed=s)) for s in (0, 0, 1))
    losses = [finish(run)[-1].loss for run in (a, b, c)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"log_every": 0}, "log_every must be at least 1"),
        ({"save_every": 30}, "multiple of log_every = 20, got 30"),
        ({"p_null": 1.1}, "p_null"),
        ({"p_null": float("nan")}, "p_null"),
        ({"ema": 0.3}, "ema"),
        ({"ema": -0.1}, "ema"),
        ({"warmup": 1.1}, "warmup"),
        ({"precision": "float16"}, "precision must be one of float32, bfloat16, got 'float16'"),
        ({"compile": True}, "compile must be one of off, default, reduce-overhead, max-autotune, got True"),
        ({"weight": "p2"}, "weight must be one of simple, min-snr, sigmoid, got 'p2'"),
        ({"optimizer": "sgd"}, "optimizer must be one of adamw, muon, got 'sgd'"),
    ],
)
def test_configurations_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**arguments)


def test_more_images_a_step_than_there_are():
    with pytest.raises(ValueError, match="a batch of 11 needs at least as many images, got 10"):
        finish(new_run(replace(CONFIG, batch=11)))


# continuing


@pytest.mark.parametrize(
    ("stop", "choices"),
    [
        (4, {}),
        (8, {}),
        (8, {"optimizer": "muon"}),
        (4, {"optimizer": "muon", "channels_last": True}),
        (8, {"channels_last": True, "precision": "bfloat16", "flips": True, "weight": "min-snr"}),
        (8, {"weight": "sigmoid", "ema": 0.2, "batch": 3}),
    ],
)
def test_a_continued_run_is_the_uninterrupted_one(tmp_path, stop, choices):
    config = replace(CONFIG, **choices)
    whole, state = new_run(config), tmp_path / "state"
    finish(whole)
    for record in fit(new_run(config), IMAGES, LABELS, state):
        if record.step == stop:  # a caller that stops at a record finds it saved
            break
    continued = new_run(config, seed=99)  # the file decides, not the first weights
    finish(continued, state)
    assert_same(continued, whole)
    again = new_run(config, seed=5)
    assert finish(again, state) == []  # it was finished
    assert_same(again, whole)


def test_training_time_adds_up(tmp_path):
    for record in fit(new_run(), IMAGES, LABELS, tmp_path / "state"):
        if record.step == 4:
            break
    finish(run := new_run(), tmp_path / "state")
    seconds = [r.seconds for r in run.log]
    assert seconds == sorted(seconds)
    assert run.seconds >= seconds[-1] > seconds[0] > 0


@pytest.mark.parametrize(
    ("run", "data", "message"),
    [
        (lambda: new_run(replace(CONFIG, batch=5)), IMAGES, "trained with batch = 4, asked for 5"),
        (lambda: new_run(replace(CONFIG, steps=24)), IMAGES, "trained with steps = 12, asked for 24"),
        (lambda: new_run(replace(CONFIG, optimizer="muon")), IMAGES, "trained with optimizer = adamw, asked for muon"),
        (lambda: new_run(replace(CONFIG, seed=1)), IMAGES, "trained with seed = 0, asked for 1"),
        (lambda: new_run(replace(CONFIG, rate=1.0)), IMAGES, "trained with rate = 0.001, asked for 1.0"),
        (lambda: new_run(target="eps"), IMAGES, "trained with target = v, asked for eps"),
        (lambda: new_run(schedule=LinearBeta()), IMAGES, "trained with schedule = Cosine.*asked for LinearBeta"),
        (lambda: new_run(schedule=Cosine(0.1)), IMAGES, "trained with schedule = .*0.008.*asked for .*0.1"),
        (lambda: new_run(width=16), IMAGES, "another architecture than UNet"),
        (new_run, 255 - IMAGES, "trained with data = "),
        (new_run, IMAGES[:9], "trained with data = "),
    ],
)
def test_a_run_of_another_kind_is_not_continued(tmp_path, run, data, message):
    state = tmp_path / "state"
    for record in fit(new_run(), IMAGES, LABELS, state):
        if record.step == 4:
            break
    content = state.read_bytes()
    with pytest.raises(ValueError, match=message) as caught:
        finish(run(), state, images=data, labels=LABELS[: len(data)])
    assert "\n" not in str(caught.value)
    assert state.read_bytes() == content


def test_a_state_of_an_earlier_version_is_refused(tmp_path):
    state = tmp_path / "state"
    new_run().save(state)
    with safe_open(state, "pt") as file:
        note = json.loads(file.metadata()["run"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    del note["config"]["weight"], note["task"]
    note["config"]["decay"] = 0.3
    state.write_bytes(training.save_bytes(tensors, {"run": json.dumps(note)}))
    with pytest.raises(
        ValueError, match="was written by another version of diffusion_edu, which alone can continue it"
    ):
        finish(new_run(), state)


@pytest.mark.parametrize("kept", [0, 4, 200, -1])
def test_a_truncated_state_is_refused(tmp_path, kept):
    state = tmp_path / "state"
    new_run().save(state)
    state.write_bytes(state.read_bytes()[:kept])
    for call in (lambda: finish(new_run(), state), lambda: training.saved_steps(state)):
        with pytest.raises(ValueError, match="is damaged or no training state"):
            call()


def test_a_checkpoint_is_no_training_state(tmp_path):
    checkpoints.save(tmp_path, new_run().ema.net, {"class": "UNet", "arguments": {}})
    with pytest.raises(ValueError, match="is damaged or no training state"):
        finish(new_run(), tmp_path / "model.safetensors")


def test_a_state_says_how_many_steps_it_was_started_for(tmp_path):
    new_run().save(tmp_path / "state")
    assert training.saved_steps(tmp_path / "state") == 12


# a loss that is no number


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_state(tmp_path, monkeypatch, bad):
    state, loss = tmp_path / "state", training.denoising_loss

    def poisoned(denoiser, *rest):
        return loss(denoiser, *rest) * (bad if run.step == 9 else 1)

    monkeypatch.setattr(training, "denoising_loss", poisoned)
    run = new_run()
    with pytest.raises(FloatingPointError, match=r"not finite at step 10; the last good state is .*state"):
        finish(run, state)
    monkeypatch.setattr(training, "denoising_loss", loss)
    (kept := new_run()).restore(state)
    assert kept.step == 8
    assert all(bool(p.isfinite().all()) for p in kept.denoiser.parameters())
    finish(continued := new_run(), state)
    finish(whole := new_run())
    assert_same(continued, whole)


def test_weights_that_are_no_numbers_are_not_saved(tmp_path, monkeypatch):
    state = tmp_path / "state"

    def poisoned(run, images, labels):
        loss = train_step(run, images, labels)
        if run.step == 8:  # the loss was fine, the step after it was not
            next(run.denoiser.parameters()).data.fill_(float("nan"))
        return loss

    monkeypatch.setattr(training, "train_step", poisoned)
    with pytest.raises(FloatingPointError, match="weights not finite at step 8"):
        finish(new_run(), state)
    (kept := new_run()).restore(state)
    assert kept.step == 4


# choices


def test_flips_mirror_about_half_the_images_each_step_others():
    """The left half of each image is white, so one row tells which way it looks."""
    images = torch.zeros(200, 1, 4, 4, dtype=torch.uint8)
    images[:, :, :, :2] = 255
    config = replace(CONFIG, batch=200, flips=True)
    mirrored = []
    for seed, step in ((0, 0), (0, 1), (1, 0), (0, 0)):
        run = new_run(replace(config, seed=seed))
        run.step = step
        x0, *_ = training.draw_step(run, images, torch.zeros(200, dtype=torch.int64))
        white_left = x0[:, 0, 0, 0] == 1
        expected = torch.where(white_left[:, None, None, None], to_float(images), to_float(images).flip(3))
        assert torch.equal(x0, expected), "mirrored as a whole or not at all"
        mirrored.append(~white_left)
    assert all(abs(int(m.sum()) - 100) < 5 * 50**0.5 for m in mirrored)  # five standard errors of 200 coins
    assert torch.equal(mirrored[0], mirrored[3])
    assert not torch.equal(mirrored[0], mirrored[1]) and not torch.equal(mirrored[0], mirrored[2])


def test_flips_leave_the_other_random_numbers_alone():
    plain, flipped = (training.draw_step(new_run(replace(CONFIG, flips=f)), IMAGES, LABELS) for f in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(plain[1:], flipped[1:], strict=True))


def test_the_weight_reaches_the_gradient():
    """With one time for all, a weighted loss is a multiple of the simple one, and so is its gradient."""
    run, loss, grads = new_run(), {}, {}
    x0, t, eps, y = training.draw_step(run, IMAGES, LABELS)
    t = torch.full_like(t, 0.3)
    for weight in ("simple", "min-snr", "sigmoid"):
        run.config = replace(CONFIG, weight=weight)
        loss[weight] = float(training.gradients(run, (x0, t, eps, y)))
        grads[weight] = run.denoiser.net.leave[2].weight.grad.clone()
        run.denoiser.zero_grad()
    for weight in ("min-snr", "sigmoid"):
        factor = float(training.loss_weight(Cosine(), t, "v", weight)[0])
        assert factor != pytest.approx(1, rel=0.1)
        assert loss[weight] == pytest.approx(factor * loss["simple"], rel=1e-5)
        torch.testing.assert_close(grads[weight], factor * grads["simple"], rtol=1e-4, atol=1e-6)


def test_a_step_can_be_timed_without_touching_the_run():
    run = new_run(replace(CONFIG, optimizer="muon"))
    before = {k: v.clone() for k, v in run.state().items()}
    assert training.seconds_a_step(run, IMAGES, LABELS) > 0
    after = run.state()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in after)
    finish(run)
    finish(untimed := new_run(run.config))
    assert_same(run, untimed)


class Waits(TorchDispatchMode):
    """Notes each operation that brings a value from the device to the host."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            self.seen.append(function)
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize(
    "choices", [{}, {"optimizer": "muon", "weight": "sigmoid", "flips": True, "precision": "bfloat16"}]
)
@pytest.mark.parametrize("target", ["v", "edm"])
def test_nothing_in_a_step_looks_at_a_value(monkeypatch, choices, target):
    """So on a GPU the host runs ahead. Checks of values, which are for a CPU only, are switched off as on a GPU."""
    run = new_run(replace(CONFIG, **choices), target=target)
    with Waits() as waits:
        train_step(run, IMAGES, LABELS)
    assert waits.seen, "the checks do look"
    for module in (denoisers, process):
        monkeypatch.setattr(module, "within_reach", lambda x: False)
    with Waits() as waits:
        train_step(run, IMAGES, LABELS)
    assert waits.seen == []


def test_a_step_computes_in_bfloat16_and_with_the_channels_last_where_asked_to():
    run = new_run(replace(CONFIG, precision="bfloat16", channels_last=True))
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in run.denoiser.parameters() if p.ndim == 4)
    found = []
    first = next(m for m in run.denoiser.modules() if isinstance(m, nn.Conv2d))
    first.register_forward_hook(lambda layer, given, gives: found.append((given[0], gives)))
    images = torch.randint(256, (10, 2, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    x0, _, eps, _ = training.draw_step(run, images, LABELS)  # with one channel both orders are the same
    assert all(x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous() for x in (x0, eps))
    train_step(run, IMAGES, LABELS)
    assert found[0][1].dtype == torch.bfloat16
    assert {value.dtype for value in run.state().values()} == {
        torch.float32
    }  # weights, average and moments are not rounded


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for determinism; cuBLAS looks once, at its first product


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_never_stops_the_host_in_a_step():
    run = new_run(replace(CONFIG, flips=True, precision="bfloat16", channels_last=True))
    run = Run(run.denoiser.cuda(), run.config)
    images, labels = IMAGES.cuda(), LABELS.cuda()
    train_step(run, images, labels)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):  # an epoch ends after the second step
            train_step(run, images, labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@needs_gpu
def test_a_run_on_a_gpu_continues_bit_for_bit_where_asked_to(tmp_path):
    torch.use_deterministic_algorithms(True)
    try:
        config, images, labels = replace(CONFIG, precision="bfloat16"), IMAGES.cuda(), LABELS.cuda()
        runs = [Run(new_run(config, seed=seed).denoiser.cuda(), config) for seed in (0, 0, 99)]
        finish(runs[0], images=images, labels=labels)
        for record in fit(runs[1], images, labels, tmp_path / "state"):
            if record.step == 8:
                break
        finish(runs[2], tmp_path / "state", images, labels)
        assert_same(runs[2], runs[0])
    finally:
        torch.use_deterministic_algorithms(False)


# memory and compilers


def too_large(limit, loss=training.denoising_loss):
    """A loss that a device of so little memory could not compute for more than `limit` images at once."""

    def limited(denoiser, x0, *rest):
        if len(x0) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return loss(denoiser, x0, *rest)

    return limited


@pytest.mark.parametrize("batch", [4, 7])
def test_too_little_memory_takes_the_batch_in_parts_with_the_same_gradient(tmp_path, monkeypatch, capsys, batch):
    config, state = replace(CONFIG, batch=batch), tmp_path / "state"
    whole, poor = new_run(config), new_run(config)
    parts = training.draw_step(whole, IMAGES, LABELS)
    loss = training.gradients(whole, parts)
    monkeypatch.setattr(training, "denoising_loss", too_large(2))
    assert float(training.gradients(poor, parts)) == pytest.approx(float(loss), rel=1e-6)
    assert poor.at_once == 2  # of 7: 4, then 2
    lines = capsys.readouterr().err.splitlines()
    assert "2 images at a time" in lines[-1] and len(lines) == (1 if batch == 4 else 2)
    for a, b in zip(whole.denoiser.parameters(), poor.denoiser.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-7)  # float32, summed in another order
    # and a continued run goes on in the same parts, bit for bit
    finish(through := new_run(config))
    for record in fit(new_run(config), IMAGES, LABELS, state):
        if record.step == 4:
            break
    capsys.readouterr()
    finish(continued := new_run(config), state)
    assert capsys.readouterr().err == ""
    assert_same(continued, through)


def test_memory_for_not_even_one_image_stops_the_run(monkeypatch):
    monkeypatch.setattr(training, "denoising_loss", too_large(0))
    with pytest.raises(MemoryError, match="out of memory with one image at once"):
        finish(new_run())


def test_other_errors_of_the_network_are_not_taken_for_a_lack_of_memory(monkeypatch):
    def broken(*arguments):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(training, "denoising_loss", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        finish(new_run())


@pytest.mark.parametrize("at", ["the call", "the start"])
def test_a_compiler_that_fails_is_done_without(monkeypatch, capsys, at):
    def broken(*arguments, **options):
        raise RuntimeError("No working C++ compiler found\nin: g++\n")

    monkeypatch.setattr(torch, "compile", broken if at == "the start" else lambda function, mode=None: broken)
    finish(run := new_run(replace(CONFIG, compile="default")))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "torch.compile failed, training goes on without it: RuntimeError: No working C++ compiler found" in lines[0]
    finish(plain := new_run())
    assert [r.loss for r in run.log] == [r.loss for r in plain.log]


def test_a_compiler_whose_gradient_is_wrong_is_done_without(monkeypatch, capsys):
    """It computes the loss rightly and passes half of the gradient back: no loss curve would show it."""
    loss = training.denoising_loss

    def half(*arguments):
        losses = loss(*arguments)
        return (losses + losses.detach()) / 2

    monkeypatch.setattr(torch, "compile", lambda function, mode=None: half)
    finish(run := new_run(replace(CONFIG, compile="default")))
    (line,) = capsys.readouterr().err.splitlines()
    share = re.fullmatch(
        r"torch.compile gives (\d+)% of the weights a wrong gradient: training goes on without it", line
    )
    assert share and int(share[1]) >= 1
    finish(plain := new_run())
    assert run.compile == "off"
    assert [r.loss for r in run.log] == [r.loss for r in plain.log]
    assert all(torch.equal(a, b) for a, b in zip(run.ema.parameters(), plain.ema.parameters(), strict=True))


def test_a_lost_gradient_shows_however_short_it_is():
    """Early in a run the last layer's gradient is thousands of times as long as the rest."""
    weights = [torch.zeros(100), torch.zeros(300), torch.zeros(2)]
    right = [torch.full((100,), 5.0), torch.full((300,), 1e-4), torch.full((2,), 1e-9)]
    assert training.share_wrong(right, right, weights) == 0
    rounded = [g * (1 + 2**-8) for g in right]
    assert training.share_wrong(rounded, right, weights) == 0
    for lost in (torch.zeros(300), None, -right[1], 1.2 * right[1]):
        assert training.share_wrong([right[0], lost, right[2]], right, weights) == pytest.approx(300 / 402)
    assert training.share_wrong([*right[:2], -right[2]], right, weights) == pytest.approx(2 / 402)  # goes for rounding
    assert training.share_wrong([right[0], right[1] * torch.nan, right[2]], right, weights) == pytest.approx(300 / 402)
    assert training.share_wrong([None] * 3, [None] * 3, weights) == 0
    assert training.share_wrong([right[0], right[1], right[2]], [right[0], None, right[2]], weights) > 0.7


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="torch.compile needs a C++ compiler")
def test_the_compiled_network_passes_every_gradient_back(capsys):
    """With code really built: torch 2.13 loses, in bfloat16 on a CPU, what `F.interpolate` in `Upsample` passes back."""
    net = UNet(in_channels=1, channels=(8, 16), num_classes=3, blocks=1, attention=False)
    run = Run(Denoiser(net, Cosine(), "v"), replace(CONFIG, precision="bfloat16", compile="default", steps=1000))
    for _ in range(4):
        training.train_step(run, IMAGES, LABELS)
    said = capsys.readouterr().err
    if "torch.compile failed" in said:
        pytest.skip(f"no code can be built here: {said}")
    assert (run.compile, run.compiled_steps, said) == ("default", 4, "")


def test_a_compiler_is_trusted_after_three_right_gradients(monkeypatch, capsys):
    eager, calls = training.denoising_loss, {"compiled": 0, "eager": 0}

    def counted(name):
        def call(*arguments):
            calls[name] += 1
            return eager(*arguments)

        return call

    monkeypatch.setattr(torch, "compile", lambda function, mode=None: counted("compiled"))
    monkeypatch.setattr(training, "denoising_loss", counted("eager"))
    finish(run := new_run(replace(CONFIG, compile="default")))
    assert (calls, run.compile, run.compiled_steps) == ({"compiled": 12, "eager": 3}, "default", 12)
    assert capsys.readouterr().err == ""


def test_a_compiled_network_that_once_worked_may_not_fail(monkeypatch):
    calls, loss = [], training.denoising_loss

    def later_broken(*arguments):
        calls.append(arguments)
        if len(calls) == 4:  # a graph is recorded by the third
            raise RuntimeError("device-side assert")
        return loss(*arguments)

    monkeypatch.setattr(torch, "compile", lambda function, mode=None: later_broken)
    with pytest.raises(RuntimeError, match="device-side assert"):
        finish(new_run(replace(CONFIG, compile="default")))
    assert len(calls) == 4


@pytest.mark.parametrize(("mode", "forgotten"), [("reduce-overhead", 1), ("default", 0)])
def test_a_graph_gives_back_the_memory_that_ran_out(monkeypatch, capsys, mode, forgotten):
    resets = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append("reset"))
    monkeypatch.setattr(torch, "compile", lambda function, mode=None: too_large(CONFIG.batch // 2))
    finish(run := new_run(replace(CONFIG, compile=mode)))
    assert len(resets) == forgotten and run.at_once == CONFIG.batch // 2 and run.step == CONFIG.steps


def test_a_batch_in_parts_is_not_replayed(monkeypatch):
    """A graph's gradients lie in memory that its next replay overwrites."""
    modes = []
    monkeypatch.setattr(torch, "compile", lambda function, mode=None: modes.append(mode) or function)
    whole = new_run(replace(CONFIG, compile="reduce-overhead"))
    finish(whole)
    parts = new_run(replace(CONFIG, compile="reduce-overhead"))
    parts.at_once = CONFIG.batch // 2
    finish(parts)
    assert modes == ["reduce-overhead", None] and (whole.compile, parts.compile) == ("reduce-overhead", "default")
    assert [r.loss for r in parts.log] == pytest.approx([r.loss for r in whole.log], rel=1e-5)


@pytest.mark.parametrize("target", ["v", "edm"])
def test_the_compiler_sees_one_graph_and_the_state_does_not_see_the_compiler(tmp_path, monkeypatch, target):
    """Traced whole, with the backward pass, but run by torch's own operations: to build code takes a minute."""
    build = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, mode=None: build(f, backend="aot_eager", fullgraph=True))
    config, state = replace(CONFIG, steps=4, compile="reduce-overhead"), tmp_path / "state"
    finish(compiled := new_run(config, target=target), state)
    assert compiled.compile == "reduce-overhead" and compiled.compiled_steps == 4
    finish(plain := new_run(replace(config, compile="off"), target=target))
    assert compiled.state().keys() == plain.state().keys()
    # traced operations may be rounded otherwise than the same in eager mode
    assert [r.loss for r in compiled.log] == pytest.approx([r.loss for r in plain.log], rel=1e-5)
    restored = new_run(replace(config, compile="reduce-overhead"), target=target, seed=8)
    restored.restore(state)
    assert_same(restored, compiled)


def test_a_full_disk_leaves_the_last_state(tmp_path, monkeypatch):
    state, sync = tmp_path / "state", os.fsync

    def full(file):
        if run.step == 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        ValueError, match=r"cannot write .*state: No space left on device; the last good state is .*state"
    ):
        finish(run := new_run(), state)
    monkeypatch.setattr(os, "fsync", sync)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    (kept := new_run()).restore(state)
    assert kept.step == 4
    finish(kept, state)
    finish(whole := new_run())
    assert_same(kept, whole)


# several processes


def test_the_shares_of_all_processes_are_the_batch(monkeypatch):
    """Three processes in turn: their parts are disjoint and whole, their gradients and losses add up to one process's."""
    config = replace(CONFIG, batch=8, flips=True)
    whole = new_run(config)
    parts = training.draw_step(whole, IMAGES, LABELS)
    loss = training.gradients(whole, parts)
    shares, losses, summed = [], [], None
    monkeypatch.setattr(parallel, "size", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        run = new_run(config)
        shares.append(training.draw_step(run, IMAGES, LABELS))
        losses.append(float(training.gradients(run, shares[-1])))
        grads = [p.grad for p in run.denoiser.parameters()]
        summed = grads if summed is None else [a + b for a, b in zip(summed, grads, strict=True)]
    for place, part in enumerate(parts):
        assert torch.equal(torch.cat([share[place] for share in shares]), torch.cat([part[r::3] for r in range(3)]))
    assert sum(losses) == pytest.approx(float(loss), rel=1e-6)
    for p, total in zip(whole.denoiser.parameters(), summed, strict=True):
        torch.testing.assert_close(p.grad, total, rtol=1e-5, atol=1e-7)  # float32, summed in another order


def test_one_process_more_than_images_is_refused(monkeypatch):
    monkeypatch.setattr(parallel, "size", lambda: 5)
    with pytest.raises(ValueError, match="a batch of 4 cannot be shared by 5 processes"):
        new_run()


def start_pair(arguments, script="from diffusion_edu.__main__ import main; main(sys.argv[1:])"):
    """Both processes of a pair, started by hand as torchrun would: those that it starts outlive it when it is killed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "OMP_NUM_THREADS": "1"}
    pair = []
    for rank in ("0", "1"):
        world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        start = [sys.executable, "-c", f"import sys; {script}", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        pair.append(subprocess.Popen(start, env=os.environ | place | world, **pipes))
    return pair


@pytest.mark.slow
def test_two_processes_do_what_one_does_also_after_a_kill(tmp_path):
    steps, environment = 60, os.environ | {"OMP_NUM_THREADS": "1"}
    alone, pair = tmp_path / "alone", tmp_path / "pair"
    exact = "--precision float32 --optimizer adamw --rate 2e-3".split()  # what makes least of a rounding error
    quiet = {"env": environment, "capture_output": True, "text": True, "timeout": 300}
    done = subprocess.run(command(alone, steps, 1, exact), **quiet)
    assert done.returncode == 0, done.stderr
    processes = start_pair(command(pair, steps, 1, exact)[3:])
    state = pair / "state.safetensors"
    while all(each.poll() is None for each in processes) and not state.exists():
        time.sleep(0.01)
    for each in processes:
        each.send_signal(signal.SIGKILL)
    assert [each.wait() for each in processes] == [-signal.SIGKILL] * 2
    assert 0 < saved_step(state) < steps
    done = subprocess.run(command(pair, steps, 2, exact), **quiet)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrote") == 1
    losses = [[float(line.split(",")[1]) for line in log_of(folder)[1:]] for folder in (alone, pair)]
    assert len(losses[0]) == 3
    # float32 sums in another order; Adam makes more of it where a gradient is nearly 0
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert checkpoints.read_manifest(pair)["training"]["processes"] == 2
    x, t = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1, 0.4, 0.7, 0.9])
    one, two = (checkpoints.load(folder).raw(x, t, torch.arange(4)).value for folder in (alone, pair))
    assert float((one - two).norm() / one.norm()) < 1e-3  # without a sum of gradients it is 0.2


@pytest.mark.slow
def test_two_processes_agree_on_how_many_steps_their_minutes_hold(tmp_path):
    """The page's command, with Muon and flips, in bfloat16; the second process finds its steps to take twice as long."""
    options = ["--minutes", "0.01", "--optimizer", "muon", "--flips", "--precision", "bfloat16"]
    script = "import os; from diffusion_edu import __main__ as cli; rank = int(os.environ['RANK']); "
    script += "cli.training.seconds_a_step = lambda *a: 0.005 * (1 + rank); sys.exit(cli.main(sys.argv[1:]))"
    pair = start_pair(command(tmp_path, None, 1, options)[3:], script)
    said = [each.communicate(timeout=300) for each in pair]
    assert [each.returncode for each in pair] == [0, 0], said
    assert said[0][0].count("120 steps fit into 0.01 minutes") == 1 and "fit into" not in said[1][0]
    trained = checkpoints.read_manifest(tmp_path)["training"]
    assert (trained["steps"], trained["flips"], trained["processes"]) == (120, True, 2)
    losses = [float(line.split(",")[1]) for line in log_of(tmp_path)[1:]]
    assert losses[-1] < losses[0]


# kill -9


def command(out, steps, processes=1, more=()):
    options = "--images 128 --batch 8 --channels 8 8 --save-every 20 --samples 0 --threads 1 --device cpu".split()
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    length = [] if steps is None else ["--steps", str(steps)]
    return [*start, "diffusion_edu", "train", "--out", str(out), *length, *options, *more]


def log_of(folder):
    lines = (folder / "log.csv").read_text().splitlines()
    return [line.rsplit(",", 1)[0] for line in lines]


def saved_step(state):
    with safe_open(state, "pt") as file:
        return json.loads(file.metadata()["run"])["step"]


@pytest.mark.slow
def test_a_killed_process_continues_bit_for_bit(tmp_path):
    steps, environment = 160, os.environ | {"OMP_NUM_THREADS": "1"}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    reference = subprocess.Popen(
        command(whole, steps), env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    state, reached = broken / "state.safetensors", []
    for _ in range(2):
        process = subprocess.Popen(
            command(broken, steps), env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        before = state.stat().st_mtime_ns if state.exists() else 0
        while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == before):
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.1))  # any moment will do, so none is chosen
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        reached.append(saved_step(state))
    assert 0 < reached[0] < reached[1] < steps
    done = subprocess.run(command(broken, steps), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert reference.wait() == 0
    assert (broken / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert log_of(broken) == log_of(whole)
    assert len(log_of(whole)) == 1 + steps // 20
    for file in ("manifest.json", "loss.png", "samples.png"):
        assert Path(broken / file).stat().st_size > 0
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (broken, whole)]
    for manifest in manifests:
        assert manifest.pop("wall_seconds") > 0
    assert manifests[0] == manifests[1]


def test_the_core_needs_five_packages_only(tmp_path):
    script = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("pooch", "anywidget", "ipywidgets", "scipy", "IPython"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
from diffusion_edu import data
from diffusion_edu.__main__ import main
import diffusion_edu.analytic, diffusion_edu.metrics, diffusion_edu.plotting, torch
images = torch.randint(256, (16, 1, 28, 28), dtype=torch.uint8)
data.load = lambda name, split: data.Dataset(name, split, images, torch.arange(16) % 10, tuple("0123456789"))
options = "--steps 2 --batch 8 --channels 8 8 --samples 10 --device cpu".split()
sys.exit(main(["train", "--out", {str(tmp_path)!r}, *options]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    manifest = checkpoints.load(tmp_path).manifest
    assert manifest["training"]["steps"] == 2 and len(manifest["metrics"]) == 1


# --- the variational autoencoder ---


def blobs(n=256):
    """Stored images of one bright square in one of four corners: two bits that a latent can carry."""
    images, corner = torch.zeros(n, 1, 28, 28, dtype=torch.uint8), torch.arange(n) % 4
    for k in range(4):
        images[corner == k, :, 14 * (k // 2) + 3 : 14 * (k // 2) + 11, 14 * (k % 2) + 3 : 14 * (k % 2) + 11] = 255
    return images


def test_a_vae_learns_the_same_from_the_same_seed():
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        records = list(training.fit_vae(VAE(2, 16), blobs(), epochs=20, batch=32, rate=1e-2, seed=seed))
        assert [epoch for epoch, _ in records] == list(range(1, 21))
        losses.append([loss for _, loss in records])
    assert losses[0] == losses[1] != losses[2]
    assert losses[0][-1] < losses[0][0] / 4


def test_the_first_loss_of_a_vae_is_minus_its_elbo():
    """One epoch of one batch at a rate of nearly 0: the mean of -ELBO with the loop's own random numbers."""
    torch.manual_seed(0)
    net, images = VAE(2, 8), blobs(64)
    g = torch.Generator().manual_seed(5)
    wanted = 0.0
    for index in torch.randperm(64, generator=g).split(32):
        reconstruction, kl = net.elbo_terms(images[index], g)
        wanted += float((kl.sum(1) - reconstruction).detach().mean()) / 2
    ((_, loss),) = training.fit_vae(net, images, epochs=1, batch=32, rate=1e-12, seed=5)
    assert loss == pytest.approx(wanted, rel=1e-5)


def test_a_vae_refuses_too_few_images_and_stops_at_nan():
    with pytest.raises(ValueError, match="a batch of 128 needs at least as many images, got 64"):
        next(training.fit_vae(VAE(2, 8), blobs(64)))
    net = VAE(2, 8)
    with torch.no_grad():
        net.encoder[-1].bias.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="loss nan in epoch 1"):
        next(training.fit_vae(net, blobs(64), batch=32))


# the loop of the smaller networks


class OneWeight(nn.Module):
    """loss = w times the mean index: the gradient is the mean index, whatever w is."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(()))


def one_cycle_seen(clip_norm, epochs=3, images=11, batch=4):
    """Batches, gradients and rates that the optimizer of a run saw, and what the run yielded."""
    net, batches, seen = OneWeight().eval(), [], []
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    optimizer.register_step_pre_hook(lambda o, *_: seen.append((float(net.w.grad), o.param_groups[0]["lr"])))

    def loss_of(index):
        assert net.training
        batches.append(index.tolist())
        return net.w * index.double().mean() if len(batches) > 1 else net.w * 0 + 7.0

    g = torch.Generator().manual_seed(0)
    told = list(training.one_cycle(net, optimizer, loss_of, images, epochs, batch, g, clip_norm))
    return batches, [gradient for gradient, _ in seen], [rate for _, rate in seen], told


def test_one_cycle_takes_full_shuffled_batches_each_with_its_own_gradient():
    batches, gradients, rates, told = one_cycle_seen(float("inf"))
    assert [len(batch) for batch in batches] == [4] * 6, "two full batches an epoch, three images left out"
    epochs = [batches[i] + batches[i + 1] for i in (0, 2, 4)]
    assert all(len(set(epoch)) == 8 for epoch in epochs), "no image twice"
    assert epochs[0] != epochs[1] != epochs[2] and all(epoch != sorted(epoch) for epoch in epochs)
    assert gradients == pytest.approx([0.0] + [sum(batch) / 4 for batch in batches[1:]]), "not added up"
    top = rates.index(max(rates))
    assert rates == sorted(rates[:top]) + sorted(rates[top:], reverse=True) and 0 < top and 0.09 < rates[top] <= 0.1
    assert rates[-1] < 1e-4, "the cycle ends with the last step"
    assert [epoch for epoch, _ in told] == [1, 2, 3]


def test_one_cycle_clips_gradients_at_the_norm_it_is_told():
    batches, gradients, _, _ = one_cycle_seen(1.5)
    assert gradients == pytest.approx([0.0] + [min(1.5, sum(batch) / 4) for batch in batches[1:]], rel=1e-4)
    assert max(sum(batch) / 4 for batch in batches) > 3


def test_one_cycle_yields_the_mean_loss_of_an_epoch():
    net = OneWeight()
    losses = iter([1.0, 5.0, 2.0, 4.0])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    told = training.one_cycle(net, optimizer, lambda index: net.w * 0 + next(losses), 8, 2, 4, torch.Generator())
    assert list(told) == [(1, 3.0), (2, 3.0)]


# the classifier of noisy images


class Reader(nn.Module):
    """Logits from the first ten pixels; keeps what it is shown."""

    def __init__(self):
        super().__init__()
        self.w, self.shown = nn.Parameter(torch.ones(())), []

    def forward(self, x_t, t):
        logits = self.w * x_t.flatten(1)[:, :10]
        self.shown.append((x_t, t, logits.detach()))
        return logits


def test_a_noisy_classifier_is_shown_every_image_at_its_own_level_with_its_own_label():
    g = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (64, 1, 28, 28), generator=g, dtype=torch.uint8)
    labels, net, again = torch.arange(64) % 10, Reader(), Reader()
    ((_, loss),) = training.fit_noisy_classifier(net, Cosine(), images, labels, epochs=1, batch=64, seed=5)
    x_t, t, logits = net.shown[0]
    order = torch.randperm(64, generator=torch.Generator().manual_seed(5))  # the first that the seed decides
    alpha, sigma = (c(t.double())[:, None] for c in (Cosine().alpha, Cosine().sigma))
    noise = (x_t.double().flatten(1) - alpha * to_float(images[order]).double().flatten(1)) / sigma
    # 784 normal numbers a row: a deviation is off by 1 / sqrt(1568) = 0.025, and a mean by 1 / 28; 5 of each
    assert float((noise.std(1) - 1).abs().max()) < 5 * 0.0253 and float(noise.mean(1).abs().max()) < 5 / 28
    between = torch.corrcoef(noise) - torch.eye(64)
    assert float(between.abs().max()) < 5 / 28, "each row has its own noise"
    gaps = t.sort().values.diff()
    span = Cosine().t_max - Cosine().t_min
    torch.testing.assert_close(gaps, torch.full_like(gaps, span / 64), rtol=1e-3, atol=1e-4)  # spread evenly
    assert loss == pytest.approx(float(nn.functional.cross_entropy(logits, labels[order])), rel=1e-5)
    torch.manual_seed(99)
    list(training.fit_noisy_classifier(again, Cosine(), images, labels, epochs=1, batch=64, seed=5))
    assert torch.equal(again.shown[0][0], x_t), "the seed decides about the noise, nothing else"


# variance


@pytest.fixture
def small_denoiser():
    return Denoiser(PerPixel(), Cosine(), clip=(-1, 1))


class PerPixel(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x, t, y=None):
        return self.scale * x


def losses_of_variance(denoiser, images, seed):
    torch.manual_seed(0)
    return [loss for _, loss in training.fit_variance(VarianceHead(), denoiser, images, 5, batch=2, seed=seed)]


def test_the_seed_decides_how_the_variance_is_learned(small_denoiser):
    images = torch.randint(256, (8, 1, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    first = losses_of_variance(small_denoiser, images, 0)
    assert first == losses_of_variance(small_denoiser, images, 0) != losses_of_variance(small_denoiser, images, 1)


def test_a_loss_of_the_variance_that_is_not_finite_stops_the_training(small_denoiser):
    with torch.no_grad():
        next(small_denoiser.parameters()).fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="loss nan at step 1"):
        losses_of_variance(small_denoiser, torch.zeros(8, 1, 28, 28, dtype=torch.uint8), 0)
