"""The family of reverse processes, used on its page."""

import re
from collections.abc import Callable

from playwright.sync_api import Locator, expect

from tests.browser.test_widgets import CURVES, open_widget  # noqa: F401

FAMILY = "ReverseFamily"


def test_family_noise_moves_by_keyboard(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(FAMILY)
    slider, words, paths = live.get_by_label("noise λ"), live.locator(".words"), live.locator(".path")
    expect(words).to_contain_text("Anderson")
    before = words.inner_text(), paths.evaluate_all(CURVES)
    slider.press("ArrowRight")
    expect(words).not_to_have_text(before[0])
    assert not set(before[1]) & set(paths.evaluate_all(CURVES)), "every path changes"
    expect(slider).to_have_attribute("aria-valuetext", "lambda 1.05")
    slider.press("Home")
    expect(words).to_contain_text("The ODE")
    expect(live.get_by_role("radio", name="ODE")).to_be_checked()


def test_family_score_error_and_steps_by_keyboard(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(FAMILY)
    words, bars = live.locator(".words"), live.locator(".bars")
    before = bars.evaluate_all(CURVES)
    live.get_by_label("score error").press("Home")
    expect(words).to_contain_text("50 % too weak")
    expect(words).to_contain_text(re.compile(r"times what chance would do"))
    after = bars.evaluate_all(CURVES)
    assert after[0] == before[0], "the start is the same"
    assert after[1] != before[1], "the arrivals are not"
    live.get_by_label("steps").press("Home")
    expect(words).to_contain_text("5-step arrivals")


def test_family_dynamics_are_chosen_by_keyboard(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(FAMILY)
    live.get_by_role("radio", name="reverse SDE").press("ArrowLeft")
    expect(live.get_by_role("radio", name="forward SDE")).to_be_checked()
    expect(live.locator(".words")).to_contain_text("Forward SDE")
    live.get_by_label("noise λ").press("End")
    expect(live.locator(".words")).to_contain_text("λ = 2.00")


def test_family_time_moves_by_keyboard_and_plays(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(FAMILY)
    words, crowds, paths = live.locator(".words"), live.locator(".crowd"), live.locator(".path")
    before, kept = crowds.evaluate_all(CURVES), paths.evaluate_all(CURVES)
    live.get_by_role("slider", name="time t").press("ArrowRight")
    expect(words).to_contain_text("At t = 0.21")
    assert not set(before) & set(crowds.evaluate_all(CURVES)), "every crowd changes"
    assert paths.evaluate_all(CURVES) == kept
    live.get_by_role("button", name="Next").press("Enter")  # reduced motion: one step
    expect(words).to_contain_text("At t = 0.19")
