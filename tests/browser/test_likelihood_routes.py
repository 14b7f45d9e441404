"""The likelihood routes, used on the built page."""

from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

from tests.browser.test_widgets import CURVES, find_widget

NAME = "LikelihoodRoutes"


def open_routes(open_page: Callable[..., Page], **view: str) -> Locator:
    return find_widget(open_page("book/ode.html", **view), NAME)


def test_routes_teach_before_they_are_touched(open_page: Callable[..., Page]):
    live = open_routes(open_page)
    expect(live.locator(".words")).to_contain_text("The score is exact.")
    expect(live.locator(".words")).to_contain_text("lies")
    assert live.locator(".dot").count() == 7  # data, noise, five routes


def test_more_steps_bring_the_ode_to_the_truth(open_page: Callable[..., Page]):
    live = open_routes(open_page)
    slider, words = live.get_by_label("steps"), live.locator(".words")
    before = words.inner_text(), live.locator(".curve").evaluate_all(CURVES)
    slider.press("ArrowRight")
    expect(words).not_to_have_text(before[0])
    assert before[1] != live.locator(".curve").evaluate_all(CURVES)
    slider.press("End")
    expect(words).to_contain_text("within 0.02 of the truth")
    expect(slider).to_have_attribute("aria-valuetext", "64 steps, 128 evaluations")


def test_a_score_error_makes_two_models(open_page: Callable[..., Page]):
    live = open_routes(open_page)
    faint = live.locator(".faint").evaluate_all(CURVES)
    live.get_by_label("score error").press("ArrowRight")
    expect(live.locator(".words")).to_contain_text("two models")
    assert faint != live.locator(".faint").evaluate_all(CURVES)


def test_the_point_moves_by_keyboard(open_page: Callable[..., Page]):
    live = open_routes(open_page, screen="phone")
    slider = live.get_by_role("slider", name="data point")
    before = live.locator(".words").inner_text()
    slider.press("ArrowLeft")
    expect(live.locator(".words")).not_to_have_text(before)
    slider.press("Home")
    expect(slider).to_have_attribute("aria-valuetext", "data point at −2.10, 0.00")
