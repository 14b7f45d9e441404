"""The measured surface, used: on its built page, with the network blocked."""

from collections.abc import Callable

from playwright.sync_api import Locator, expect

from tests.browser.test_widgets import CURVES, open_widget  # noqa: F401 (a fixture)

NAME = "GuidanceSurface"


def test_both_sliders_change_digits_curves_and_words(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME)
    words, curves, first = live.locator(".words"), live.locator(".curve"), live.locator("canvas").first
    picture = "canvas => canvas.toDataURL()"
    before = words.inner_text(), curves.evaluate_all(CURVES), first.evaluate(picture)
    live.get_by_label("guidance weight w").press("Home")
    expect(words).to_contain_text("w = 0")
    assert first.evaluate(picture) != before[2], "another digit"
    assert curves.evaluate_all(CURVES) == before[1], "the curves are those of one network"
    live.get_by_label("labels dropped").press("End")
    expect(words).not_to_have_text(before[0])
    assert curves.evaluate_all(CURVES) != before[1]


def test_it_fits_a_phone(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME, screen="phone", theme="dark")
    expect(live.locator("canvas")).to_have_count(10)
