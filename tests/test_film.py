"""The film of a training run: its moments, what it draws, and a run that was stopped."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import training_film
from diffusion_edu import film, training
from diffusion_edu.denoisers import Denoiser
from diffusion_edu.networks import UNet
from diffusion_edu.schedules import Cosine

SHAPE = (1, 8, 8)


def a_run(steps: int = 6) -> training.Run:
    torch.manual_seed(0)
    net = UNet(channels=(8,), embedding=8, num_classes=3)
    torch.nn.init.normal_(net.leave[-1].weight, std=0.1)  # so that it draws something from the start
    config = training.TrainConfig(steps=steps, batch=4, log_every=1, save_every=1)
    return training.Run(Denoiser(net, Cosine(), "v"), config)


def a_set() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randint(256, (8, *SHAPE), dtype=torch.uint8, generator=g), torch.randint(3, (8,), generator=g)


def shoot(run: training.Run, folder: Path, stop: int = 99) -> None:
    records = training.fit(run, *a_set(), folder / "state.safetensors")
    for record in film.filmed(records, run, folder / "film.npz", SHAPE):
        if record.step == stop:
            break


@pytest.mark.parametrize(
    ("steps", "every", "few"), [(1500, 20, [20, 40, 60, 80, 120]), (7, 20, [7]), (45, 20, [20, 40, 45])]
)
def test_moments_are_records_from_the_first_to_the_last(steps: int, every: int, few: list[int]):
    found = film.moments(steps, every)
    assert found[: len(few)] == few
    assert found[-1] == steps and len(found) <= film.FRAMES
    assert all(step % every == 0 for step in found[:-1])
    gaps = np.diff(np.log(found))[len(found) // 2 :]
    assert len(gaps) == 0 or gaps.max() < 2.2 * np.median(gaps)  # even in the logarithm, but for rounding


def test_a_frame_shows_the_average_and_the_weights_and_changes_nothing():
    run = a_run()
    list(training.fit(run, *a_set()))
    before = {name: value.clone() for name, value in run.state().items()}
    stream = torch.get_rng_state()
    frame = film.draw_frame(run, SHAPE)
    assert frame.shape == (2, 3, *SHAPE) and frame.dtype == np.uint8
    assert (frame[0] != frame[1]).any() and np.array_equal(frame, film.draw_frame(run, SHAPE))
    assert run.denoiser.training and torch.equal(torch.get_rng_state(), stream)
    assert all(torch.equal(value, before[name]) for name, value in run.state().items())


def test_a_stopped_run_goes_on_to_the_same_film(tmp_path: Path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    shoot(a_run(), whole)
    shoot(a_run(), broken, stop=3)  # the third record's frame is drawn, and its state saved
    shoot(a_run(), broken)
    films = [dict(np.load(folder / "film.npz")) for folder in (whole, broken)]
    assert films[0]["steps"].tolist() == [1, 2, 3, 4, 5, 6]
    assert all(np.array_equal(films[0][name], films[1][name]) for name in films[0])


def test_an_older_film_of_another_run_is_not_continued(tmp_path: Path):
    np.savez(tmp_path / "film.npz", steps=np.array([1, 900]), images=np.zeros((2, 2, 3, *SHAPE), np.uint8))
    shoot(a_run(), tmp_path)
    with np.load(tmp_path / "film.npz") as found:
        assert found["steps"].tolist() == [1, 2, 3, 4, 5, 6]
        assert found["images"][0].any()


def test_a_damaged_film_is_named(tmp_path: Path):
    for content in (b"PK\x03\x04", b"no film"):
        (tmp_path / "film.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"film\.npz is damaged or no film"):
            film.read_film(tmp_path / "film.npz")


def test_what_the_caller_does_with_a_record_is_no_training_time(monkeypatch: pytest.MonkeyPatch):
    clock = iter(range(0, 10**6, 1))
    slow = {"now": 0.0}
    monkeypatch.setattr(training, "perf_counter", lambda: next(clock) + slow["now"])
    seconds = []
    for record in training.fit(a_run(), *a_set()):
        seconds.append(record.seconds)
        slow["now"] += 1000
    assert seconds[-1] < 100


def test_the_books_film_names_its_command_but_not_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run, asked = str(tmp_path / "run"), []

    def command_line(arguments: list[str]) -> int:
        asked.append(arguments)
        return train() if arguments[0] == "train" else 0

    def train() -> int:
        shoot(a_run(2), tmp_path / "run")
        facts = {"dataset": {"name": "mnist"}, "parameters": 1, "wall_seconds": 2.0, "training": {"device": "cpu"}}
        facts |= {"metrics": [{"samples": 9}, {"samples": 5}], "machine": {"card": "X"}}
        (tmp_path / "run" / "manifest.json").write_text(json.dumps(facts | {"network": {"class": "UNet"}}))
        (tmp_path / "run" / "log.csv").write_text("step,loss,rate,seconds\n1,0.9,0.001,1.0\n2,0.8,0,2.0\n")
        return 0

    monkeypatch.setattr(training_film.cli, "main", command_line)
    monkeypatch.setattr(
        training_film, "read_manifest", lambda folder: json.loads((folder / "manifest.json").read_text())
    )
    monkeypatch.setattr(training_film, "OUT", tmp_path / "film.json")
    training_film.main(["--dataset", "mnist", "--steps", "2", "--samples", "5", "--out", run])
    assert asked[0] == ["train", "--dataset", "mnist", "--steps", "2", "--out", run, "--samples", "0"]
    assert asked[1] == ["evaluate", "--checkpoint", run, "--samples", "5"]
    found = json.loads((tmp_path / "film.json").read_text())
    assert found["command"] == "python -m diffusion_edu train --dataset mnist --steps 2"
    assert found["judged"] == {"samples": 5} and found["machine"] == {"card": "X"}  # the newest
    assert found["log"] == {"step": [1, 2], "loss": [0.9, 0.8], "rate": [0.001, 0.0], "seconds": [1.0, 2.0]}
    assert [step for step, _ in film.read_film(tmp_path / "film.npz")] == [1, 2]
    monkeypatch.setattr(training_film.cli, "main", lambda arguments: 2)
    with pytest.raises(SystemExit):
        training_film.main(["--steps", "2"])
