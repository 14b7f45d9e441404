"""The four predictions, used: sliders by keyboard, the point by mouse, on the built page."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.test_widgets import open_widget  # noqa: F401, a fixture

NAME = "FourPredictions"
PATHS = "all => all.map(each => each.getAttribute('d'))"


def test_it_teaches_before_it_is_touched(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME)
    expect(live.locator(".plane")).to_have_count(4)
    assert len(set(live.locator(".small").evaluate_all(PATHS))) == 4, "four fields differ"
    expect(live.locator(".words")).to_contain_text("the belief is")


@pytest.mark.parametrize("name", ["time t", "xt, across", "xt, up"])
def test_sliders_move_by_keyboard(open_widget: Callable[..., Locator], name: str):  # noqa: F811
    live = open_widget(NAME)
    words, big = live.locator(".words"), live.locator(".big")
    before, arrows = words.inner_text(), big.evaluate_all(PATHS)
    live.get_by_role("slider", name=name).press("ArrowRight")
    expect(words).not_to_have_text(before)
    assert not set(arrows) & set(big.evaluate_all(PATHS)), "all four arrows change"


def test_the_point_goes_where_the_picture_is_pressed(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME)
    plane = live.locator(".plane").nth(2)
    box = plane.bounding_box()
    plane.click(position={"x": 0.75 * box["width"], "y": 0.25 * box["height"]})
    # to within the point's own step of 0.1: a press falls on whole pixels
    expect(live.locator(".words")).to_contain_text(re.compile(r"From \(1\.[456], 1\.[456]\)"))


def test_the_legend_has_the_dashes_of_the_curves(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME)
    dashes = "all => all.map(each => each.getAttribute('stroke-dasharray'))"
    wanted = live.locator("figure .curve").evaluate_all(dashes)
    assert wanted == 2 * live.locator(".fields ~ .legend path").evaluate_all(dashes)
    assert len(set(wanted)) == 4
