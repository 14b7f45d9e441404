"""The race of samplers, used on its page."""

from collections.abc import Callable

from playwright.sync_api import Locator, expect

from tests.browser.test_widgets import CURVES, open_widget  # noqa: F401

RACE = "SamplerRace"


def test_race_evaluations_move_by_keyboard(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(RACE)
    slider, words, paths = live.get_by_role("slider", name="evaluations"), live.locator(".words"), live.locator(".path")
    expect(words).to_contain_text("DDIM, 8 evaluations")
    before = paths.evaluate_all(CURVES)
    slider.press("ArrowRight")
    expect(words).to_contain_text("DDIM, 9 evaluations")
    assert not set(before) & set(paths.evaluate_all(CURVES)), "every path changes"
    expect(slider).to_have_attribute("aria-valuetext", "9 evaluations")
    slider.press("End")
    expect(words).to_contain_text("50 evaluations")


def test_race_sampler_and_grid_are_chosen_by_keyboard(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(RACE)
    words = live.locator(".words")
    live.get_by_role("radio", name="DDIM").press("ArrowRight")
    expect(live.get_by_role("radio", name="Heun")).to_be_checked()
    expect(words).to_contain_text("Heun, 7 evaluations")
    live.get_by_role("radio", name="even in t").press("ArrowRight")
    expect(words).to_contain_text("even in log-SNR")
