"""The posterior, used: four sliders by keyboard on the built page, and s stays before t."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.test_widgets import open_widget  # noqa: F401, a fixture

NAME = "PosteriorExplorer"
PATHS = "all => all.map(each => each.getAttribute('d'))"


def test_it_teaches_before_it_is_touched(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME)
    expect(live.locator(".curve")).to_have_count(3)
    expect(live.locator(".words")).to_contain_text("A compromise")


@pytest.mark.parametrize("name", ["time t", "earlier time s", "noisy xt", "clean x0"])
def test_sliders_move_by_keyboard(open_widget: Callable[..., Locator], name: str):  # noqa: F811
    live = open_widget(NAME)
    words, curves = live.locator(".words"), live.locator(".curve")
    before, drawn = words.inner_text(), curves.evaluate_all(PATHS)
    live.get_by_role("slider", name=name, exact=True).press("ArrowRight")
    expect(words).not_to_have_text(before)
    assert curves.evaluate_all(PATHS)[2] != drawn[2], "the product moves"


def test_s_stays_before_t(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME)
    t, s = (live.get_by_role("slider", name=name, exact=True) for name in ("time t", "earlier time s"))
    t.press("Home")
    expect(s).to_have_attribute("aria-valuetext", "s 0.00")
    expect(live.locator(".words")).to_contain_text("nothing is left to draw")
    s.press("End")
    expect(t).to_have_attribute("aria-valuetext", "t 0.98")


def test_a_link_to_a_later_s_is_mended(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME)
    live.page.evaluate("name => { location.hash = `${name}?t=0.2&s=0.9`; }", NAME)
    expect(live.get_by_role("slider", name="time t", exact=True)).to_have_attribute("aria-valuetext", "t 0.20")
    expect(live.get_by_role("slider", name="earlier time s")).to_have_attribute("aria-valuetext", "s 0.19")
    expect(live.locator(".words")).to_contain_text("back to s = 0.19")
