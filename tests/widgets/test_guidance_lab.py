"""The laboratory of guidance: its frames are the samplers' own, and Python answers its module's questions."""

import asyncio
import base64
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_edu.data import to_uint8
from diffusion_edu.denoisers import Denoiser
from diffusion_edu.schedules import Cosine
from tests.widgets import Parts

widgets = pytest.importorskip("diffusion_edu.widgets", reason="anywidget is not installed: widgets were not tested")
from diffusion_edu.widgets import live  # noqa: E402

NAME, PAGE, SLIDER = "GuidanceLab", "book/guidance.html", "guidance weight w"
WEIGHTS, SEEDS, STEPS = [0.0, 1.0, 3.0], (1, 4), 4
REQUEST = {"op": "sample", "id": "a", "y": [3, 7], "w": 2, "evaluations": 3, "seed": 5}


class Toy(torch.nn.Module):
    """A network that answers at once, otherwise for each class."""

    num_classes = 10

    def forward(self, x, t, y):
        return 0.8 * x + 0.05 * (y.reshape(-1, 1, 1, 1) - 5)


def denoiser() -> Denoiser:
    return Denoiser(Toy(), Cosine(), "v", (-1, 1))


def example() -> "widgets.GuidanceLab":
    return widgets.GuidanceLab(denoiser(), WEIGHTS, SEEDS, STEPS)


def states(w, digit, seed=1):
    return list(live.trajectory(denoiser(), {"y": [digit], "w": w, "evaluations": STEPS, "seed": seed}))


def test_every_frame_stands_where_the_module_looks_for_it():
    sheet = np.array(Image.open(io.BytesIO(base64.b64decode(example().sprites))).convert("L")).astype(int)
    cells = sheet.reshape(-1, 28, 10, 28).transpose(0, 2, 1, 3).reshape(-1, 28, 28)
    per_seed = STEPS * (1 + 10 + 10)
    for place, w, step, digit, seed in [
        (2, 0.0, 2, 0, 1),
        (STEPS + 13, 1.0, 1, 3, 1),
        (per_seed + 11 * STEPS + 28, 3.0, 2, 8, 4),
    ]:
        wanted = to_uint8(states(w, digit, seed)[step].x0_hat[0, 0]).numpy().astype(int)
        assert np.abs(cells[place] - wanted).max() <= 19  # half of one of 8 levels


def test_without_guidance_all_digits_are_one():
    torch.testing.assert_close(states(0.0, 3)[-1].x_t, states(0.0, 9)[-1].x_t)
    assert not torch.allclose(states(3.0, 3)[-1].x_t, states(3.0, 9)[-1].x_t)


@pytest.mark.parametrize("weights", [[1.0], [2.0, 1.0], [1.0, 1.0]])
def test_weights_that_make_no_slider_are_refused(weights):
    with pytest.raises(ValueError, match="weights must be at least two that increase"):
        widgets.GuidanceLab(denoiser(), weights)


def test_any_weight_of_the_slider_may_be_asked_for():
    found = example()
    assert found.w == 3.0, "begins where frames were drawn"
    found.w = 2.3
    assert found.state()["w"] == 2.3


def test_places_off_the_sliders_are_refused():
    found = example()
    for name, value in (("digit", 11), ("w", 8.1), ("step", -1)):
        with pytest.raises(ValueError, match=f"{name} must lie in"):
            setattr(found, name, value)


def test_the_alternative_text_names_the_weights():
    assert "weights 0, 1, 3. At w = 0 all ten are one" in Parts(example().to_html()).picture["alt"]


# --- Python answers -------------------------------------------------------------------------------


def alone(function, *arguments):
    """Call in a thread of its own: in the tests' own an event loop may seem to run, Playwright's, that does nothing here."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


@pytest.fixture
def heard(monkeypatch):
    """A widget, and the list of what it sends."""
    found, sent = example(), []
    monkeypatch.setattr(found, "send", lambda content, buffers=None: sent.append((content, buffers)))
    return found, sent


def test_python_answers_a_request_with_every_state(heard):
    found, sent = heard
    alone(found.hear, found, REQUEST, [])
    wanted = list(live.trajectory(denoiser(), REQUEST))
    assert [content["kind"] for content, _ in sent] == ["step"] * 4 + ["done"]
    assert {content["id"] for content, _ in sent} == {"a"}
    for (content, buffers), state in zip(sent, wanted, strict=False):
        assert (content["step"], content["of"], content["t"]) == (state.step, 3, state.t)
        assert ("ms" in content) == (state.step < 3)
        assert buffers == [live.to_bytes(state.x_t), live.to_bytes(state.x0_hat)]
        assert len(buffers[0]) == 2 * 784


def test_a_new_request_or_a_cancellation_ends_the_last(heard):
    found, sent = heard

    async def talk():
        found.hear(found, REQUEST | {"evaluations": 50}, [])
        await asyncio.sleep(0)
        found.hear(found, REQUEST | {"id": "b"}, [])
        second = found.work
        await second
        found.hear(found, REQUEST | {"id": "c", "evaluations": 50}, [])
        await asyncio.sleep(0)
        found.hear(found, {"op": "cancel", "id": "c"}, [])
        await found.work

    alone(asyncio.run, talk())
    kinds = {key: [content["kind"] for content, _ in sent if content["id"] == key] for key in "abc"}
    assert kinds["b"] == ["step"] * 4 + ["done"]
    assert kinds["a"] in ([], ["step"]) and kinds["c"] in ([], ["step"])


def test_nonsense_and_a_missing_network_are_answered_in_one_sentence(heard):
    found, sent = heard
    alone(found.hear, found, REQUEST | {"y": [12]}, [])
    found.denoiser = None
    alone(found.hear, found, REQUEST, [])
    assert [content["kind"] for content, _ in sent] == ["error", "error"]
    assert sent[0][0]["message"] == "y must be 1 to 10 classes from 0 to 10, got [12]"
    assert sent[1][0]["message"] == live.NO_NETWORK


def fixture_for_javascript() -> dict:
    run = states(3.0, 7)
    return {
        "schedule": {"name": "Cosine", "s": 0.008},
        "seed": 1,
        "states": [[each.t, each.x_t.flatten().tolist()[:40], each.x0_hat.flatten().tolist()[:40]] for each in run],
        "places": {"weights": WEIGHTS, "steps": STEPS, "wanted": [2, STEPS + 13, STEPS * 21 + 11 * STEPS + 28]},
    }
