"""The widgets, used: on the built pages with the network blocked, and in a real JupyterLab with a live kernel."""

import json
import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.widgets import specimens

EXPLORER, TRAJECTORY = "ScheduleExplorer", "Trajectory"
SPECIMENS = {specimen.NAME: specimen for specimen in specimens()}
CURVES = "all => all.map(each => each.getAttribute('d'))"
PICTURES = "all => all.map(each => each.toDataURL())"
INK = "all => all.map(each => new Set(each.getContext('2d').getImageData(0, 0, 28, 28).data).size)"


def find_widget(page: Page, name: str) -> Locator:
    """Return the live part of the first widget of that name."""
    live = page.locator(f'.edu-widget[data-widget="{name}"] .edu-live').first
    live.scroll_into_view_if_needed()
    return live


@pytest.fixture
def open_widget(open_page: Callable[..., Page]) -> Callable[..., Locator]:
    """Return a function that opens a widget on its page of the built site."""
    return lambda name, **view: find_widget(open_page(SPECIMENS[name].PAGE, **view), name)


def test_explorer_shows_digits_before_it_is_touched(open_widget: Callable[..., Locator]):
    live = open_widget(EXPLORER)
    expect(live.get_by_role("radio")).to_have_count(6)
    assert min(live.locator("canvas").evaluate_all(INK)) > 50, "a noised digit has many greys"
    expect(live.locator(".words")).to_contain_text("log-SNR")


def test_explorer_time_moves_by_keyboard(open_widget: Callable[..., Locator]):
    live = open_widget(EXPLORER)
    slider, words = live.get_by_label("time t"), live.locator(".words")
    before = words.inner_text(), live.locator("canvas").evaluate_all(PICTURES), float(slider.input_value())
    slider.press("ArrowRight")
    assert float(slider.input_value()) == before[2] + 1
    expect(words).not_to_have_text(before[0])
    assert not set(before[1]) & set(live.locator("canvas").evaluate_all(PICTURES)), "all six digits change"
    slider.press("Home")
    expect(words).to_contain_text("t = 0.00")
    expect(slider).to_have_attribute("aria-valuetext", re.compile(r"t 0\.00, log signal-to-noise ratio"))
    expect(live.locator("[aria-live=polite]")).to_contain_text("t = 0.00")  # said once the hand rests


def test_explorer_curves_follow_beta_by_keyboard(open_widget: Callable[..., Locator]):
    live = open_widget(EXPLORER)
    words, chosen = live.locator(".words"), live.locator(".curve.chosen")
    before = words.inner_text(), chosen.evaluate_all(CURVES), live.locator(".curve:not(.chosen)").evaluate_all(CURVES)
    live.get_by_role("slider", name="βmax, last step").press("ArrowLeft")
    expect(words).not_to_have_text(before[0])
    assert not set(before[1]) & set(chosen.evaluate_all(CURVES)), "the chain's two curves change"
    assert live.locator(".curve:not(.chosen)").evaluate_all(CURVES) == before[2], "the other families' do not"
    expect(live.get_by_role("spinbutton", name="β_max, last step: exact value")).not_to_have_value("0.02")


def test_explorer_family_is_chosen_by_keyboard(open_widget: Callable[..., Locator]):
    live = open_widget(EXPLORER)
    live.get_by_role("radio", name="Linear β").press("ArrowRight")
    expect(live.get_by_role("radio", name="Cosine")).to_be_checked()
    expect(live.locator(".words")).to_contain_text("Cosine.")
    expect(live.get_by_role("slider", name="s, offset")).to_be_visible()
    expect(live.get_by_role("slider", name="βmax, last step")).to_be_hidden()


@pytest.mark.parametrize(("typed", "kept"), [("1.5", "0.999"), ("-0.2", "0")])
def test_explorer_clamps_beta_and_says_so(open_widget: Callable[..., Locator], typed: str, kept: str):
    live = open_widget(EXPLORER)
    box = live.get_by_role("spinbutton", name="β_max, last step: exact value")
    box.fill(typed)
    box.press("Enter")
    expect(box).to_have_value(kept)
    expect(live.locator(".note")).to_have_text(f"βmax must be in [0, 1): {typed} became {kept}.")
    live.get_by_role("slider", name="βmax, last step").press("ArrowLeft" if kept != "0" else "ArrowRight")
    expect(live.locator(".note")).to_be_empty()


def test_explorer_curve_answers_a_touch(open_widget: Callable[..., Locator]):
    live = open_widget(EXPLORER, screen="phone")
    chart = live.get_by_role("img", name="Log signal-to-noise ratio")
    box = chart.bounding_box()
    chart.click(position={"x": box["width"] * 0.2, "y": box["height"] / 2})
    expect(live.locator(".words")).to_contain_text(re.compile(r"t = 0\.1\d"))


def test_trajectory_moves_by_keyboard(open_widget: Callable[..., Locator]):
    live = open_widget(TRAJECTORY)
    slider, words, dots = live.get_by_label("time"), live.locator(".words"), live.locator(".dot")
    where = "all => all.map(each => each.getAttribute('transform'))"
    before = words.inner_text(), live.locator("canvas").evaluate_all(PICTURES), dots.evaluate_all(where)
    slider.press("ArrowRight")
    expect(words).not_to_have_text(before[0])
    after = live.locator("canvas").evaluate_all(PICTURES)
    assert all(old != new for old, new in zip(before[1][:5], after[:5], strict=True)), "each x_t changes"
    assert not set(before[2]) & set(dots.evaluate_all(where))
    slider.press("End")
    expect(words).to_contain_text("finished images")
    final = live.locator("canvas").evaluate_all(PICTURES)
    assert final[:5] == final[5:10], "at the end the state is the estimate"
    assert len(set(final[:5])) == 5


@pytest.mark.parametrize("name", SPECIMENS)
def test_widget_works_from_a_folder(open_file: Callable[..., Page], name: str):
    live = find_widget(open_file(SPECIMENS[name].PAGE), name)
    before = live.locator(".words").inner_text()
    live.get_by_role("slider", name=SPECIMENS[name].SLIDER).press("ArrowRight")
    expect(live.locator(".words")).not_to_have_text(before)


def test_trajectory_plays_and_pauses(open_widget: Callable[..., Locator]):
    page = open_widget(TRAJECTORY).page
    page.emulate_media(reduced_motion="no-preference")
    page.reload()
    live = find_widget(page, TRAJECTORY)
    slider, button = live.get_by_label("time"), live.locator(".play")
    slider.press("Home")
    button.press("Enter")
    expect(button).to_have_text("❚❚ Pause")
    expect(slider).not_to_have_value("0", timeout=10_000)
    slider.press("ArrowRight")  # the reader's hand stops it
    expect(button).to_have_text("▶ Play")
    rest = slider.input_value()
    live.page.wait_for_timeout(1_000)  # longer than one frame
    assert slider.input_value() == rest


def test_the_front_page_s_film_leaves_other_films_alone(open_widget: Callable[..., Locator]):
    """A widget may be mounted before or after the page is ready."""
    live = open_widget(TRAJECTORY)
    live.page.evaluate("() => document.dispatchEvent(new Event('DOMContentLoaded'))")
    assert live.locator(".film").count() > 0
    assert live.locator(".film-controls").count() == 0


def test_without_motion_the_play_button_makes_one_step(open_widget: Callable[..., Locator]):
    live = open_widget(TRAJECTORY)  # the tests' browser asks for reduced motion
    slider, button = live.get_by_label("time"), live.get_by_role("button", name="Next")
    slider.press("Home")
    button.press("Enter")
    live.page.wait_for_timeout(1_000)
    expect(slider).to_have_value("1")


@pytest.mark.parametrize("name", SPECIMENS)
def test_widget_fits_a_phone(open_widget: Callable[..., Locator], name: str):
    live = open_widget(name, screen="phone")
    edge = live.bounding_box()["x"] + live.bounding_box()["width"]
    beyond = """(live, edge) => [...live.querySelectorAll('*:not(.heard, input[type=radio])')]
        .filter(each => each.getBoundingClientRect().right > edge + 1).map(each => each.outerHTML.slice(0, 80))"""
    assert live.evaluate(beyond, edge) == []
    for slider in live.get_by_role("slider").all():
        assert slider.bounding_box()["height"] >= 24  # WCAG 2.2, target size


def test_a_broken_module_leaves_the_figure(new_context: Callable, tmp_path: Path, site: Path):
    module = json.dumps("export default { render() { throw new Error('no canvas'); } };")
    state = '<script type="application/json" class="edu-state">{}</script>'
    broken = f'<div class="edu-widget">{state}<script type="application/json" class="edu-module">{module}</script>'
    script, style = (site / "_static" / name for name in ("widget-host.js", "book.css"))
    page_file = tmp_path / "page.html"
    page_file.write_text(
        f'<!doctype html><link rel="stylesheet" href="{style.as_uri()}">{broken}<div class="edu-static">Figure</div></div>'
        f'<script src="{script.as_uri()}"></script>'
    )
    page = new_context(lambda url: url.startswith(("file:", "blob:")), "wide", "light").new_page()
    page.goto(page_file.as_uri())
    expect(page.get_by_role("status")).to_contain_text("could not start (no canvas)")
    expect(page.locator(".edu-static")).to_be_visible()


# --- JupyterLab -----------------------------------------------------------------------------------

EXPLORER_CELL = """
import torch
from pathlib import Path
from diffusion_edu.widgets import ScheduleExplorer
explorer = ScheduleExplorer(torch.zeros(28, 28), torch.ones(28, 28))
explorer.observe(lambda change: Path("heard.txt").write_text(f"{change.name} {change.old:.2f} {change.new:.2f}"), "t")
explorer
"""
TRAJECTORY_CELL = """
from diffusion_edu.analytic import empirical_denoiser
from diffusion_edu.samplers import ddim
from diffusion_edu.schedules import LinearBeta, time_grid
from diffusion_edu.widgets import Trajectory
x_T = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
run = list(ddim(empirical_denoiser(x_T.sign(), LinearBeta()), x_T, time_grid(LinearBeta(), 8)))
trajectory = Trajectory(run, time_index=4)
trajectory.observe(lambda change: Path("heard.txt").write_text(f"{change.name} {change.old} {change.new}"), "time_index")
trajectory
"""
PYTHON_MOVES_THEM = "explorer.t = 0.25; trajectory.time_index = 0"


def wait_for_kernel(page: Page, lab, name: str) -> None:
    """Wait until the kernel of that notebook answers and the page listens: a cell run before that is lost without a word.

    The kernel of an earlier notebook may still be idle and connected, so the notebook's own session is looked up.
    """
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{lab.url}api/sessions?token={lab.token}", timeout=10) as answer:
            kernels = [session["kernel"] for session in json.load(answer) if session["path"] == name]
        if any(kernel["connections"] > 0 and kernel["execution_state"] == "idle" for kernel in kernels):
            return
        page.wait_for_timeout(300)  # not time.sleep: the page's requests pass through this thread
    raise AssertionError(f"the kernel of {name} did not become ready: {kernels}")


def wait_for_text(page: Page, path: Path, text: str) -> None:
    """Wait until a file that Python writes says `text`."""
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text() == text):
        assert time.monotonic() < deadline, f"Python wrote {path.read_text() if path.exists() else 'nothing'!r}"
        page.wait_for_timeout(100)


@pytest.mark.slow
def test_jupyterlab_and_python_hear_each_other(lab, open_lab: Callable[..., Page]):
    cells = [nbformat.v4.new_code_cell(code.strip()) for code in (EXPLORER_CELL, TRAJECTORY_CELL, PYTHON_MOVES_THEM)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), lab.folder / "widgets.ipynb")
    page, heard = open_lab("widgets.ipynb"), lab.folder / "heard.txt"

    wait_for_kernel(page, lab, "widgets.ipynb")

    def run_cell(number: int) -> None:
        page.locator(".jp-CodeCell .cm-content").nth(number).click()
        page.keyboard.press("Shift+Enter")

    run_cell(0)
    live = page.locator(".jp-OutputArea-output .edu-schedules")
    live.wait_for(timeout=120_000)
    expect(page.locator(".jp-OutputArea-output .edu-static")).to_have_count(0)  # the live widget, not its figure
    live.get_by_label("time t").press("ArrowRight")
    wait_for_text(page, heard, "t 0.50 0.51")
    expect(live.locator(".words")).to_contain_text("t = 0.51")

    run_cell(1)
    film = page.locator(".jp-OutputArea-output .edu-trajectory")
    film.wait_for(timeout=120_000)
    film.get_by_label("time").press("ArrowLeft")
    wait_for_text(page, heard, "time_index 4 3")

    run_cell(2)
    expect(live.get_by_label("time t")).to_have_value("25")
    expect(live.locator(".words")).to_contain_text("t = 0.25")
    expect(film.get_by_label("time")).to_have_value("0")
