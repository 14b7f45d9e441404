"""The score field, used: its sliders, its walk and its two modes, by keyboard on the built page."""

import re
from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

from tests.browser.test_widgets import open_widget  # noqa: F401, a fixture

NAME = "ScoreField"
PICTURE = "canvas => canvas.toDataURL()"


def steps_made(live: Locator) -> int:
    return int(re.search(r"(\d+) steps? made", live.locator(".words").inner_text())[1])


def test_it_teaches_before_it_is_touched(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME)
    expect(live.locator(".words")).to_contain_text(
        re.compile(r"60 steps made\. Lump A has \d\d %.*standard errors off", re.DOTALL)
    )
    expect(live.locator(".share")).to_have_count(3)
    ink = "canvas => new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data).size"
    assert live.locator("canvas").evaluate(ink) > 50, "density, arrows and walkers have many colours"


def test_noise_level_moves_by_keyboard(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME)
    slider, words, canvas = live.get_by_label("noise level σ"), live.locator(".words"), live.locator("canvas")
    before = words.inner_text(), canvas.evaluate(PICTURE), float(slider.input_value())
    slider.press("ArrowRight")
    assert float(slider.input_value()) == before[2] + 1
    expect(words).not_to_have_text(before[0])
    assert canvas.evaluate(PICTURE) != before[1]
    slider.press("End")
    expect(slider).to_have_attribute("aria-valuetext", "noise level 3.00")
    expect(words).to_contain_text("Noise level 3.00")


def test_one_step_and_start_again(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME)
    canvas = live.locator("canvas")
    before = canvas.evaluate(PICTURE)
    live.get_by_role("button", name="One step").press("Enter")
    assert steps_made(live) == 61
    assert canvas.evaluate(PICTURE) != before
    live.get_by_role("button", name="Start again").press("Enter")
    assert steps_made(live) == 0
    first = canvas.evaluate(PICTURE)
    live.get_by_role("button", name="One step").press("Enter")
    once = canvas.evaluate(PICTURE)
    live.get_by_role("button", name="Start again").press("Enter")
    assert canvas.evaluate(PICTURE) == first
    live.get_by_role("button", name="One step").press("Enter")
    assert canvas.evaluate(PICTURE) == once, "the noise is seeded: the same walk again"


def test_it_plays_and_pauses(open_widget: Callable[..., Locator]):  # noqa: F811
    page = open_widget(NAME).page
    page.emulate_media(reduced_motion="no-preference")
    page.reload()
    live = page.locator(f'.edu-widget[data-widget="{NAME}"] .edu-live')
    play = live.locator(".play")
    play.press("Enter")
    expect(play).to_have_text("❚❚ Pause")
    expect(live.locator(".words")).not_to_contain_text(" 60 steps made", timeout=10_000)
    play.press("Enter")
    expect(play).to_have_text("▶ Play")
    rest = steps_made(live)
    live.page.wait_for_timeout(1_000)
    assert steps_made(live) == rest


def test_annealing_starts_high_and_falls(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME)
    live.get_by_role("radio", name="one level").press("ArrowRight")
    expect(live.get_by_role("radio", name="annealed")).to_be_checked()
    expect(live.locator(".words")).to_contain_text("Noise level 3.00, step size 0.5, annealed, 0 steps made")
    step = live.get_by_role("button", name="One step")
    for _ in range(3):
        step.press("Enter")
    expect(live.locator(".words")).to_contain_text("Noise level 2.80, step size 0.5, annealed, 3 steps made")


def test_noise_can_be_switched_off(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME)
    live.get_by_role("checkbox", name="noise").press("Space")
    expect(live.locator(".words")).to_contain_text("climbs to a summit")


def test_the_walk_of_a_page_is_the_walk_of_a_folder(open_file: Callable[..., Page]):
    page = open_file("book/score.html")
    words = page.locator(f'.edu-widget[data-widget="{NAME}"] .words').first
    expect(words).to_contain_text("60 steps made")
