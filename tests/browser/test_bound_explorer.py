"""The bound explorer, used: by keyboard, on its built page."""

import re
from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

from tests.browser.test_widgets import CURVES, find_widget

NAME, PAGE = "BoundExplorer", "book/elbo.html"


def open_it(open_page: Callable[..., Page], **view: str) -> Locator:
    return find_widget(open_page(PAGE, **view), NAME)


def test_it_teaches_before_it_is_touched(open_page: Callable[..., Page]):
    live = open_it(open_page)
    expect(live.locator(".words")).to_contain_text("10 steps, Even in log-SNR")
    expect(live.locator(".bar")).to_have_count(4)
    assert len(live.locator(".stairs").get_attribute("d")) > 100


def test_steps_move_by_keyboard(open_page: Callable[..., Page]):
    live = open_it(open_page)
    slider, words, stairs = live.get_by_label("number of steps"), live.locator(".words"), live.locator(".stairs")
    before = words.inner_text(), stairs.evaluate_all(CURVES), live.locator(".curve").evaluate_all(CURVES)
    slider.press("ArrowRight")
    expect(words).not_to_have_text(before[0])
    expect(slider).to_have_attribute("aria-valuetext", re.compile("15 steps"))
    assert stairs.evaluate_all(CURVES) != before[1]
    assert live.locator(".curve").evaluate_all(CURVES) == before[2], (
        "the curve of continuous time does not know the steps"
    )


def test_a_schedule_reshapes_the_curve_and_keeps_the_total(open_page: Callable[..., Page]):
    live = open_it(open_page)
    live.get_by_label("number of steps").press("End")
    total = live.locator(".bar + text").nth(3)
    before = float(total.text_content()), live.locator(".curve").evaluate_all(CURVES)
    live.get_by_role("radio", name="Even in log-SNR").press("ArrowRight")
    expect(live.get_by_role("radio", name="Cosine")).to_be_checked()
    expect(live.locator(".words")).to_contain_text("Cosine")
    assert live.locator(".curve").evaluate_all(CURVES) != before[1]
    assert abs(float(total.text_content()) - before[0]) < 0.15


def test_it_works_on_a_phone_in_the_dark(open_page: Callable[..., Page]):
    live = open_it(open_page, screen="phone", theme="dark")
    live.get_by_label("end at the noise").press("End")
    expect(live.locator(".words")).to_contain_text("prior term")
