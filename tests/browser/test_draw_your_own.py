"""Draw your own, used on the built page: with the mouse, with the keyboard, and with the trained network behind it."""

import base64
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
import torch
from playwright.sync_api import Locator, Page, expect

from diffusion_edu.checkpoints import load
from diffusion_edu.widgets import DrawYourOwn
from diffusion_edu.widgets.live import trajectory
from tests.browser.test_widgets import CURVES, PICTURES, find_widget, wait_for_kernel
from tests.conftest import ROOT

NAME, PAGE = "DrawYourOwn", "book/steering.html"
PAD, RESULTS, STARTS = 0, slice(5, 9), slice(1, 5)  # canvases: the pad, what the network begins with, what it made
GREYS = """all => all.map(each => {
    const rgba = each.getContext('2d').getImageData(0, 0, 28, 28).data;
    return btoa(String.fromCharCode(...rgba.filter((_, i) => i % 4 === 0)));
})"""
MINUTES = 120_000  # milliseconds to load the network and run it, on a slow and busy machine


def open_drawing(open_page: Callable[..., Page], **view: str) -> Locator:
    return find_widget(open_page(PAGE, **view), NAME)


def pictures(live: Locator) -> list[str]:
    return live.locator("canvas").evaluate_all(PICTURES)


def greys(live: Locator) -> list[torch.Tensor]:
    """Return the pixels of every canvas, 0 to 255, (784,) each; of a blue cell, its red."""
    return [torch.tensor(list(base64.b64decode(text))) for text in live.locator("canvas").evaluate_all(GREYS)]


def drag(live: Locator, points: list[tuple[float, float]]) -> None:
    """Draw with the mouse; points in shares of the pad's width and height."""
    box, mouse = live.get_by_role("application").bounding_box(), live.page.mouse
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    mouse.move(*places[0])
    mouse.down()
    for place in places[1:]:
        mouse.move(*place, steps=8)
    mouse.up()


def ask(live: Locator, button: str) -> None:
    """Press the button and wait until the network has answered."""
    live.get_by_role("button", name=button, exact=True).click()
    expect(live.get_by_role("button", name="Stop")).to_be_visible()
    expect(live.get_by_role("button", name=button, exact=True)).to_be_visible(timeout=MINUTES)
    expect(live.locator(".status")).to_be_empty()


def needs_network(site: Path) -> None:
    if not (site / "_static/network/mnist-unet.onnx").exists():
        pytest.skip("this site was built without the network")


# --- without the network --------------------------------------------------------------------------


def test_it_teaches_before_it_is_touched(open_page: Callable[..., Page]):
    live = open_drawing(open_page)
    expect(live.locator(".words")).to_contain_text("A hasty three. Noised to L = 0.75")
    expect(live.locator(".words")).to_contain_text("real digits")
    shown = pictures(live)
    assert len(shown) == 9 and len(set(shown)) == 9, "a drawing, four noised ones, four results, all different"


def test_strength_moves_by_keyboard(open_page: Callable[..., Page]):
    live = open_drawing(open_page)
    slider, words = live.get_by_role("slider", name="strength"), live.locator(".words")
    before = words.inner_text(), pictures(live)
    slider.press("ArrowLeft")
    expect(words).to_contain_text("L = 0.70")
    after = pictures(live)
    assert after[PAD] == before[1][PAD], "the drawing stays"
    assert all(old != new for old, new in zip(before[1][1:], after[1:], strict=True)), "all else changes"
    slider.press("Home")
    expect(words).to_contain_text("almost as it was")
    slider.press("End")
    expect(words).to_contain_text("The drawing is forgotten")


def test_draw_with_the_mouse_undo_and_fit(open_page: Callable[..., Page]):
    live = open_drawing(open_page)
    words, before = live.locator(".words"), pictures(live)
    live.get_by_role("button", name="Clear").click()
    expect(words).to_contain_text("The canvas is empty")
    drag(live, [(0.1, 0.1), (0.9, 0.1), (0.5, 0.95)])
    expect(words).to_contain_text("press “Fit”")
    large = pictures(live)
    assert large[PAD] != before[PAD] and large[STARTS] != before[STARTS], "drawn, and noised at once"
    assert int((greys(live)[PAD] == 255).sum()) > 40, "ink"
    live.get_by_role("button", name="Fit").click()
    expect(words).to_contain_text("Your drawing.")
    rows = (greys(live)[PAD].reshape(28, 28) > 127).any(1).nonzero()
    assert 18 <= int(rows.max() - rows.min() + 1) <= 21
    drag(live, [(0.2, 0.5), (0.6, 0.5)])
    two = pictures(live)[PAD]
    live.get_by_role("button", name="Undo").click()
    expect(words).to_contain_text("Your drawing.")
    assert pictures(live)[PAD] != two
    live.get_by_role("button", name="a hasty three").click()
    expect(words).to_contain_text("A hasty three.")
    assert pictures(live) == before


def test_draw_with_the_keyboard(open_page: Callable[..., Page]):
    live = open_drawing(open_page)
    live.get_by_role("button", name="Clear").click()
    pad, top = live.get_by_role("application"), live.page.evaluate("scrollY")
    pad.focus()
    empty = pictures(live)[PAD]
    pad.press("ArrowDown")
    assert pictures(live)[PAD] == empty, "the pen is up"
    pad.press(" ")
    for _ in range(6):
        pad.press("ArrowRight")
    expect(live.locator(".heard").last).to_have_text("pen down, row 9, column 21")
    pad.press(" ")
    pad.press("ArrowDown")
    ink = greys(live)[PAD].reshape(28, 28)
    assert bool((ink[8, 15:20] > 200).all()) and int(ink[12].max()) == 0, "a line from left to right, and no more"
    assert live.page.evaluate("scrollY") == top, "the page stays where it is"
    pad.press("Backspace")
    expect(live.locator(".words")).to_contain_text("The canvas is empty")


def test_a_finger_draws_and_the_page_stays(new_context: Callable, site_url: str):
    context = new_context(lambda url: url.startswith((site_url[:16], "blob:", "data:")), "phone", "dark")
    page = context.new_page()
    page.goto(site_url + PAGE)
    live = find_widget(page, NAME)
    assert live.get_by_role("application").evaluate("pad => getComputedStyle(pad).touchAction") == "none"
    assert live.evaluate("root => getComputedStyle(root).touchAction") == "auto"
    for button in live.locator(".desk").get_by_role("button").all():
        assert button.bounding_box()["height"] >= 44, "a thumb finds it"


def test_erasing_counts_the_ink_and_shows_a_run(open_page: Callable[..., Page]):
    live = open_drawing(open_page)
    live.get_by_role("radio", name="erase and fill in").check()
    words = live.locator(".words")
    expect(words).to_contain_text("of the ink is erased. The rest is kept to the last pixel.")
    once = pictures(live)
    live.get_by_role("radio", name="5").check()
    five = pictures(live)
    assert once[STARTS] == five[STARTS] and not set(once[RESULTS]) & set(five[RESULTS])
    drag(live, [(0.3, 0.2), (0.7, 0.2)])
    expect(words).to_contain_text("Press “Fill in”")
    live.get_by_role("button", name="Clear").click()
    expect(words).to_contain_text("Nothing is erased")


def test_from_a_folder_it_says_what_is_missing(open_file: Callable[..., Page]):
    live = find_widget(open_file(PAGE), NAME)
    live.get_by_role("button", name="Denoise").click()
    expect(live.locator(".status")).to_contain_text("open the book over http")
    expect(live.get_by_role("button", name="Denoise")).to_be_visible()


# --- with it --------------------------------------------------------------------------------------


def test_a_drawing_is_denoised_as_python_does_it(open_page: Callable[..., Page], site: Path):
    needs_network(site)
    live = open_drawing(open_page)
    live.get_by_role("button", name="Clear").click()
    drag(live, [(0.35, 0.3), (0.6, 0.3), (0.45, 0.75)])
    live.get_by_label("make it").select_option("a 7")
    expect(live.locator(".words")).to_contain_text("Nothing has been drawn from there yet")
    curve = live.locator(".curve").first.evaluate_all(CURVES)
    ask(live, "Denoise")
    expect(live.locator(".words")).to_contain_text("the results differ from it by")
    assert live.locator(".curve").first.evaluate_all(CURVES) != curve, "the run has its place in the chart"
    shown = greys(live)
    x0 = shown[PAD].float() / 127.5 - 1  # the page sends what lies between the greys, too: half a level
    request = {"y": [7] * 4, "w": 2, "sampler": "ancestral", "evaluations": 20, "seed": [0, 1, 2, 3]}
    request["start"] = {"image": x0.tolist(), "t": 0.75}
    results = list(trajectory(load(ROOT / "data/checkpoints/mnist-unet").eval(), request))[-1].x_t
    levels = (results[:, 0].flatten(1) + 1) * 127.5
    assert float((torch.stack(shown[RESULTS]) - levels).abs().max()) <= 2.5  # 2 levels, and what rounding took


def test_kept_pixels_are_kept(open_page: Callable[..., Page], site: Path):
    needs_network(site)
    live = open_drawing(open_page)
    live.get_by_role("button", name="a four or a nine").click()
    drawing = greys(live)[PAD]
    live.get_by_role("radio", name="erase and fill in").check()
    live.get_by_role("button", name="New noise").click()
    expect(live.locator(".words")).to_contain_text("Press “Fill in”")
    ask(live, "Fill in")
    widget = DrawYourOwn.from_files(ROOT / "data/measured")
    widget.strokes, widget.erased = widget.examples[1]["strokes"], widget.examples[1]["erased"]
    kept = widget.mask.flatten() == 1
    for result in greys(live)[RESULTS]:
        assert int((result[kept] - drawing[kept]).abs().max()) <= 1  # a half that is rounded up here and down there
        assert int((result[~kept] - drawing[~kept]).abs().max()) > 100, "the rest is new"


LAB_CELL = """
from pathlib import Path
import diffusion_edu
from diffusion_edu import checkpoints
from diffusion_edu.widgets import DrawYourOwn
root = Path(diffusion_edu.__file__).parents[1] / "data"
denoiser = checkpoints.load(root / "checkpoints/mnist-unet")
DrawYourOwn.from_files(root / "measured", denoiser=denoiser)
"""


@pytest.mark.slow
def test_in_jupyterlab_torch_answers(lab, open_lab: Callable[..., Page]):
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(LAB_CELL.strip())], metadata=kernel)
    nbformat.write(notebook, lab.folder / "draw.ipynb")
    page = open_lab("draw.ipynb")
    wait_for_kernel(page, lab, "draw.ipynb")
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")
    live = page.locator(".jp-OutputArea-output .edu-draw")
    live.wait_for(timeout=MINUTES)
    live.get_by_role("button", name="New noise").click()
    expect(live.locator(".words")).to_contain_text("press “Denoise”")
    ask(live, "Denoise")
    expect(live.locator(".words")).to_contain_text("the results differ from it by")
    assert len(set(pictures(live)[RESULTS])) == 4
