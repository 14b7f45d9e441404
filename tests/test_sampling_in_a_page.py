"""widgets/sampling.mjs against Python: noise, grids, every sampler, with a network that both languages can write."""

import base64
import json
import subprocess

import pytest
import torch

from diffusion_edu.denoisers import Denoiser
from diffusion_edu.noise import normals, uniforms
from diffusion_edu.schedules import SPACINGS, make_schedule, time_grid
from tests.conftest import BUILD, ROOT, write_atomically

live = pytest.importorskip("diffusion_edu.widgets.live", reason="anywidget is not installed: widgets were not tested")
from tests.widgets.test_all import node  # noqa: E402

SHAPE = (1, 2, 4)
SCHEDULES = (
    {"name": "Cosine", "s": 0.008},
    {"name": "LinearBeta", "beta_min": 0.1, "beta_max": 20.0},
    {"name": "Flow"},
)
PLAIN = {"y": [3, 10], "w": 1, "seed": 7}
IMAGE, MASK = [0.1 * k - 0.4 for k in range(8)], [1, 1, 0, 0, 0, 1, 0, 1]
REQUESTS = (
    *({**PLAIN, "w": w, "sampler": sampler, "evaluations": 7} for sampler in live.OFFERED for w in (1, 0, 3.5)),
    *({**PLAIN, "sampler": "dpm-solver++", "evaluations": 6, "grid": grid} for grid in SPACINGS),
    PLAIN | {"sampler": "dpm-solver++", "evaluations": 10},  # 0.995 - 10 * 0.0995 is not 0
    PLAIN | {"seed": [1, 2**32 - 1], "sampler": "ancestral", "evaluations": 4},
    PLAIN | {"start": {"image": IMAGE, "t": 0.6}, "evaluations": 5, "grid": "edm", "w": 2},
    PLAIN | {"start": {"image": IMAGE + IMAGE[::-1], "t": 0.9}, "sampler": "ancestral", "evaluations": 3},
    PLAIN | {"keep": {"image": IMAGE, "mask": MASK}, "evaluations": 5, "w": 2},
    PLAIN | {"keep": {"image": IMAGE, "mask": MASK}, "evaluations": 9, "resamples": 3},
)
NONSENSE = (
    {"y": []},
    {"y": [11]},
    {"y": [1.5]},
    {"y": [1], "w": "much"},
    {"y": [1], "sampler": "euler"},
    {"y": [1], "grid": "odd"},
    {"y": [1], "evaluations": 0},
    {"y": [1], "evaluations": 201},
    {"y": [1], "seed": -1},
    {"y": [1, 2], "seed": [1]},
    {"y": [1], "start": {"image": IMAGE, "t": 0.999}},
    {"y": [1], "start": {"image": IMAGE[:3], "t": 0.5}},
    {"y": [1], "sampler": "ddim", "keep": {"image": IMAGE, "mask": MASK}},
    {"y": [1], "keep": {"image": IMAGE, "mask": [0.5] * 8}},
    {"y": [1], "keep": {"image": IMAGE, "mask": MASK}, "evaluations": 3, "resamples": 4},
)


class Toy(torch.nn.Module):
    """A network that is one line in any language."""

    num_classes = 10

    def forward(self, x, t, y):
        t, y = (value.reshape(-1, 1, 1, 1).to(x) for value in (t, y))
        return 0.6 * x - 0.5 * t * x + 0.04 * (y - 5)


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def denoiser(schedule=SCHEDULES[0], target="v"):
    return Denoiser(Toy(), make_schedule(**schedule), target, (-1, 1))


def answers(schedule, target, request) -> dict:
    """What sampling.mjs must give for a request."""
    found = list(live.trajectory(denoiser(schedule, target), request, SHAPE))
    facts = {"schedule": schedule, "target": target, "clip": [-1, 1], "num_classes": 10, "shape": SHAPE}
    states = [
        {"t": each.t, "x_t": each.x_t.flatten().tolist(), "x0_hat": each.x0_hat.flatten().tolist()} for each in found
    ]
    return {"facts": facts, "request": request, "states": states}


def grids() -> list[dict]:
    found = []
    for schedule in SCHEDULES:
        for spacing in SPACINGS:
            for start in (None, 0.7):
                ts = time_grid(make_schedule(**schedule), 6, spacing, start)
                found.append({"schedule": schedule, "spacing": spacing, "start": start, "ts": ts.tolist()})
    return found


def onnx_file() -> str:
    """An ONNX file with metadata, in base64: one node, since only its metadata is read."""
    onnx = pytest.importorskip("onnx")
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "graph", [x], [x])
    model = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(model, {"clip": "[-1, 1]", "long": json.dumps("é" * 300), "target": '"v"'})
    return base64.b64encode(model.SerializeToString()).decode()


@pytest.mark.usefixtures("float64")
def test_the_page_samples_as_python_does():
    others = [(SCHEDULES[1], "eps"), (SCHEDULES[2], "x0"), (SCHEDULES[1], "score")]
    runs = [answers(SCHEDULES[0], "v", request) for request in REQUESTS]
    runs += [answers(schedule, target, REQUESTS[1]) for schedule, target in others]
    fixture = {
        "uniforms": {"seed": 2**32 - 5, "values": uniforms(2**32 - 5, 50).tolist()},
        "normals": {"seed": 11, "values": normals(11, 2000, 40).tolist()},
        "grids": grids(),
        "runs": runs,
        "nonsense": {"facts": runs[0]["facts"], "requests": NONSENSE},
        "onnx": onnx_file(),
    }
    write_atomically(BUILD / "fixtures" / "sampling.json", json.dumps(fixture, allow_nan=False))
    test = ROOT / "tests" / "js" / "page" / "sampling.test.mjs"
    answer = subprocess.run([node(), "--test", str(test)], capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stdout[-6000:]


@pytest.mark.parametrize("request_", NONSENSE, ids=str)
def test_what_makes_no_sense_is_refused_in_one_sentence(request_):
    with pytest.raises(ValueError, match=r"must (be|hold)|holds 1 where") as refusal:
        list(live.trajectory(denoiser(), request_, SHAPE))
    assert "\n" not in str(refusal.value)


def test_the_noise_of_an_image_does_not_depend_on_its_neighbours():
    together = list(live.trajectory(denoiser(), {"y": [3, 5], "seed": 4, "sampler": "ancestral"}, SHAPE))[-1].x_t
    alone = list(live.trajectory(denoiser(), {"y": [5], "seed": 4, "sampler": "ancestral"}, SHAPE))[-1].x_t
    torch.testing.assert_close(together[1:], alone, atol=1e-6, rtol=0)  # float32 sums of another batch size
