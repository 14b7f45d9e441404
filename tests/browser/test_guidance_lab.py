"""The laboratory of guidance: frames at once, then the trained network in the page, and torch in JupyterLab."""

import re
from collections.abc import Callable

import nbformat
import pytest
import torch
from playwright.sync_api import Locator, Page, expect

from diffusion_edu import checkpoints
from diffusion_edu.data import to_uint8
from diffusion_edu.widgets import live
from tests.browser.test_widgets import PICTURES, find_widget, open_widget, wait_for_kernel, wait_for_text  # noqa: F401 (a fixture)
from tests.conftest import ROOT

NAME = "GuidanceLab"
CHECKPOINT = ROOT / "data" / "checkpoints" / "mnist-unet"
PIXELS = "canvas => [...canvas.getContext('2d').getImageData(0, 0, 28, 28).data].filter((_, i) => i % 4 === 0)"
BUTTON = "Sample with the real network"


def test_frames_answer_without_the_network(open_widget: Callable[..., Locator]):  # noqa: F811
    lab = open_widget(NAME)
    words, canvases = lab.locator(".words"), lab.locator("canvas")
    expect(canvases).to_have_count(20)
    drawn = lab.get_by_role("group", name="drawn beforehand")
    for control in (lab.get_by_role("slider", name="step"), drawn.get_by_role("radio", name="2")):
        before = words.inner_text(), canvases.evaluate_all(PICTURES)
        control.press("ArrowRight")
        expect(words).not_to_have_text(before[0])
        assert canvases.evaluate_all(PICTURES) != before[1]
    expect(drawn.get_by_role("radio", name="4")).to_be_checked()
    lab.get_by_role("slider", name="guidance weight w").press("Home")
    expect(words).to_contain_text("w = 0: the wish is not heard")
    expect(drawn.get_by_role("radio", name="0")).to_be_checked()
    assert len(set(canvases.evaluate_all(PICTURES))) == 2, "ten times one picture, in two rows"
    lab.get_by_role("slider", name="evaluations").press("End")
    expect(words).to_contain_text("has not been drawn yet")


def test_the_weight_is_continuous_and_says_what_is_drawn(open_widget: Callable[..., Locator]):  # noqa: F811
    lab = open_widget(NAME)
    weight, words = lab.get_by_role("slider", name="guidance weight w"), lab.locator(".words")
    expect(weight).to_have_attribute("aria-valuetext", "guidance weight 2, drawn beforehand")
    weight.press("ArrowRight")
    expect(weight).to_have_attribute("aria-valuetext", "guidance weight 2.1, not drawn yet")
    expect(words).to_contain_text("w = 2.1, DDIM, 8 evaluations, noise 1: this has not been drawn yet")
    expect(lab.get_by_role("group", name="drawn beforehand").locator(":checked")).to_have_count(0)
    weight.press("End")
    expect(words).to_contain_text("w = 8, ")


def test_the_page_draws_what_python_draws_and_stays_awake(open_page: Callable[..., Page]):
    page = open_page("book/guidance.html")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    lab = find_widget(page, NAME)
    assert not any("onnx" in url for url in asked), "nothing is loaded before the click"
    lab.get_by_role("radio", name="3", exact=True).check()
    lab.get_by_role("button", name=BUTTON).click()
    expect(lab.locator(".status")).to_contain_text("Drawn by the network just now", timeout=60_000)
    names = {url.rsplit("/", 1)[1] for url in asked if "/_static/" in url}
    assert {"mnist-unet.onnx", "ort-wasm-simd-threaded.wasm", "ort.wasm.min.mjs", "network-worker.mjs"} <= names
    lab.get_by_role("slider", name="guidance weight w").press("ArrowLeft")  # from now on any weight is answered
    expect(lab.locator(".words")).to_contain_text("w = 1.9: at each step", timeout=30_000)
    request = {"y": [3], "w": 1.9, "sampler": "ddim", "evaluations": 8, "seed": 1}
    wanted = list(live.trajectory(checkpoints.load(CHECKPOINT), request))
    slider = lab.get_by_role("slider", name="step")
    for step in (8, 0):
        slider.press("End" if step else "Home")
        expect(lab.locator(".words")).to_contain_text(f"Step {step} of 8 (DDIM, 8 evaluations, noise 1).")
        for row, state in enumerate((wanted[step].x_t, wanted[step].x0_hat)):
            pixels = torch.tensor(lab.locator("canvas").nth(row).evaluate(PIXELS))
            assert int((pixels - to_uint8(state).flatten().int()).abs().max()) <= 2  # float32 sums in another order
    lab.get_by_role("radio", name="ancestral").check()  # now the network answers at once
    expect(lab.locator(".words")).to_contain_text(re.compile(r"Step 8 of 8 \(ancestral"), timeout=30_000)


def test_from_a_folder_one_sentence_says_why_not(open_file: Callable[..., Page]):
    lab = find_widget(open_file("book/guidance.html"), NAME)
    lab.get_by_role("button", name=BUTTON).click()
    expect(lab.locator(".status")).to_contain_text("Browsers start no network from a folder")
    before = lab.locator(".words").inner_text()
    lab.get_by_role("slider", name="step").press("ArrowRight")
    expect(lab.locator(".words")).not_to_have_text(before)


CELL = """
from pathlib import Path
from diffusion_edu import checkpoints
from diffusion_edu.widgets import GuidanceLab
lab = GuidanceLab(checkpoints.load({checkpoint!r}), weights=(0, 2), seeds=(1,), evaluations=4)
lab.digit, lab.w = 3, 2.5
lab.observe(lambda change: Path("step.txt").write_text(str(change.new)), "step")
lab
"""


@pytest.mark.slow
def test_in_jupyterlab_torch_answers_the_button(lab, open_lab: Callable[..., Page]):
    cells = [nbformat.v4.new_code_cell(CELL.format(checkpoint=str(CHECKPOINT)).strip())]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), lab.folder / "guidance.ipynb")
    page = open_lab("guidance.ipynb")
    wait_for_kernel(page, lab, "guidance.ipynb")
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")
    widget = page.locator(".jp-OutputArea-output .edu-lab")
    widget.wait_for(timeout=120_000)
    widget.get_by_role("button", name=BUTTON).click()
    expect(widget.locator(".status")).to_contain_text("Drawn by the network just now", timeout=60_000)
    expect(widget.locator(".words")).to_contain_text("Step 4 of 4 (DDIM, 4 evaluations, noise 1).")
    request = {"y": [3], "w": 2.5, "evaluations": 4, "seed": 1}
    wanted = to_uint8(list(live.trajectory(checkpoints.load(CHECKPOINT), request))[-1].x_t).flatten().int()
    assert int((torch.tensor(widget.locator("canvas").first.evaluate(PIXELS)) - wanted).abs().max()) <= 2
    wait_for_text(page, lab.folder / "step.txt", "4")  # Python hears where the reader stands
