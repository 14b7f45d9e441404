"""Training: it learns, it stops and continues bit for bit, it refuses what is not its own, it survives kill -9."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from diffusion_edu import checkpoints, training
from diffusion_edu.data import to_float
from diffusion_edu.denoisers import Denoiser
from diffusion_edu.networks import VAE, UNet, VarianceHead
from diffusion_edu.schedules import Cosine, LinearBeta
from diffusion_edu.training import Record, Run, TrainConfig, draw_batch, fit, train_step, update_average

CONFIG = TrainConfig(steps=12, batch=4, warmup=2, save_every=4, log_every=2)
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
    run = new_run(TrainConfig(steps=120, batch=8, rate=1e-2, warmup=5, save_every=20))
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
    run = new_run(replace(CONFIG, ema=0.5))
    for step, d in ((0, 0.1), (8, 0.5), (5, 0.4), (1000, 0.5)):
        run.step = step
        old = [p.clone() for p in run.ema.parameters()]
        with torch.no_grad():
            for p in run.denoiser.parameters():
                p.add_(1.0)
        update_average(run)
        for average, before, weight in zip(run.ema.parameters(), old, run.denoiser.parameters(), strict=True):
            torch.testing.assert_close(average, d * before + (1 - d) * weight)
    assert not any(p.requires_grad for p in run.ema.parameters())
    assert not run.ema.training


def test_the_rate_rises_stays_and_falls():
    config = TrainConfig(steps=100, rate=1.0, warmup=10, decay=0.2)
    assert [config.rate_at(k) for k in (0, 4, 9, 50, 80, 90, 99)] == pytest.approx([0.1, 0.5, 1, 1, 1, 0.5, 0.05])


def test_the_rate_and_the_clipped_gradient_reach_the_optimizer(monkeypatch):
    run, norms = new_run(), []
    step = run.optimizer.step

    def watched():
        grads = [p.grad for p in run.denoiser.parameters() if p.grad is not None]
        norms.append((float(nn.utils.get_total_norm(grads)), run.optimizer.param_groups[0]["lr"]))
        step()

    monkeypatch.setattr(run.optimizer, "step", watched)
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
        ({"ema": 1.0}, "ema"),
        ({"decay": -0.1}, "decay"),
        ({"precision": "float16"}, '"float32" or "bfloat16", got \'float16\''),
    ],
)
def test_configurations_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**arguments)


def test_more_images_a_step_than_there_are():
    with pytest.raises(ValueError, match="a batch of 11 needs at least as many images, got 10"):
        finish(new_run(replace(CONFIG, batch=11)))


# continuing


@pytest.mark.parametrize("stop", [4, 8])
def test_a_continued_run_is_the_uninterrupted_one(tmp_path, stop):
    whole, state = new_run(), tmp_path / "state"
    finish(whole)
    for record in fit(new_run(), IMAGES, LABELS, state):
        if record.step == stop:  # a caller that stops at a record finds it saved
            break
    continued = new_run(seed=99)  # the file decides, not the first weights
    finish(continued, state)
    assert_same(continued, whole)
    again = new_run(seed=5)
    assert finish(again, state) == []  # it was finished
    assert_same(again, whole)


def test_training_time_adds_up(tmp_path):
    for config in (replace(CONFIG, steps=4, decay=0), replace(CONFIG, steps=12, decay=0)):
        run = new_run(config)
        finish(run, tmp_path / "state")
    seconds = [r.seconds for r in run.log]
    assert seconds == sorted(seconds)
    assert run.seconds >= seconds[-1] > seconds[0] > 0


def test_more_steps_are_allowed_until_the_rate_falls(tmp_path):
    state, long = tmp_path / "state", replace(CONFIG, steps=24)
    for record in fit(new_run(), IMAGES, LABELS, state):
        if record.step == 8:  # of 12; the rate of step 9 is the first below the peak
            break
    extended, whole = new_run(long), new_run(long)
    finish(extended, state)
    finish(whole)
    assert_same(extended, whole)

    finish(new_run(), tmp_path / "finished")
    with pytest.raises(ValueError, match="has 12 of 12 steps, and a run of 24 would have had another learning rate"):
        finish(new_run(long), tmp_path / "finished")


@pytest.mark.parametrize(
    ("run", "data", "message"),
    [
        (lambda: new_run(replace(CONFIG, batch=5)), IMAGES, "trained with batch = 4, asked for 5"),
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


def test_a_state_from_before_the_task_was_noted_is_accepted(tmp_path):
    state, run = tmp_path / "state", new_run()
    train_step(run, IMAGES, LABELS)
    run.save(state)
    with safe_open(state, "pt") as file:
        note = json.loads(file.metadata()["run"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    del note["task"]
    state.write_bytes(training.save_bytes(tensors, {"run": json.dumps(note)}))
    (restored := new_run(seed=3)).restore(state)
    assert_same(restored, run)


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


# kill -9


def command(out, steps):
    options = "--images 128 --batch 8 --channels 8 8 8 --save-every 20 --threads 1 --device cpu --dataset mnist".split()
    return [sys.executable, "-m", "diffusion_edu", "train", "--out", str(out), "--steps", str(steps), *options]


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
images = torch.zeros(16, 1, 28, 28, dtype=torch.uint8)
data.load = lambda name, split: data.Dataset(name, split, images, torch.arange(16) % 10, tuple("0123456789"))
sys.exit(main(["train", "--out", {str(tmp_path)!r}, "--steps", "2", "--batch", "8", "--channels", "8", "8", "8"]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert checkpoints.load(tmp_path).manifest["training"]["steps"] == 2


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
