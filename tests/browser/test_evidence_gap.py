"""The evidence gap, used: on its built page, with the network blocked."""

import re
from collections.abc import Callable

from playwright.sync_api import Locator, expect

from tests.browser.test_widgets import CURVES, open_widget  # noqa: F401 (a fixture)

NAME = "EvidenceGap"
LENGTHS = (
    "all => all.map(bar => [...bar.children].reduce((sum, block) => sum + block.getBoundingClientRect().width, 0))"
)


def test_bars_are_equally_long_before_it_is_touched_and_after(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME)
    bars, slider = live.locator(".bar"), live.get_by_label("mean of q")
    for press in (None, "ArrowRight", "PageUp", "ArrowLeft"):
        if press:
            slider.press(press)
        first, second = bars.evaluate_all(LENGTHS)
        assert abs(first - second) < 1.5 and first > 40


def test_q_moves_by_keyboard(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME)
    slider, words, curves = live.get_by_label("mean of q"), live.locator(".words"), live.locator(".curve")
    before = words.inner_text(), curves.evaluate_all(CURVES)
    slider.press("ArrowRight")
    expect(words).not_to_have_text(before[0])
    after = curves.evaluate_all(CURVES)
    assert after[2] != before[1][2], "q moves"
    assert after[:2] == before[1][:2], "prior and posterior stay"
    expect(slider).to_have_attribute("aria-valuetext", "mean of q 0.55")
    expect(live.locator("[aria-live=polite]")).to_contain_text("The gap is")  # said once the hand rests


def test_what_was_seen_moves_the_posterior_and_the_evidence(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME)
    curves, words = live.locator(".curve"), live.locator(".words")
    before = words.inner_text(), curves.evaluate_all(CURVES)
    live.get_by_label("observed x").press("ArrowLeft")
    expect(words).not_to_have_text(before[0])
    assert curves.evaluate_all(CURVES)[1] != before[1][1]
    log_p = re.compile(r"log p\(x\) = (−\d+\.\d+)")
    assert log_p.search(words.inner_text())[1] != log_p.search(before[0])[1]


def test_best_q_takes_the_nearer_hump_and_on_a_line_closes_the_gap(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME)
    button, words, slider = (
        live.get_by_role("button", name="Best q"),
        live.locator(".words"),
        live.get_by_label("mean of q"),
    )
    button.press("Enter")
    expect(words).to_contain_text("two humps; q sits on one")
    right = float(slider.input_value())
    slider.press("Home")
    button.press("Enter")
    expect(words).to_contain_text("two humps; q sits on one")
    assert float(slider.input_value()) < 80 < right, "0 is at position 80"
    line = live.get_by_role("radio", name="f(z) = z", exact=True)
    line.press("Space")
    expect(line).to_be_checked()
    button.press("Enter")
    expect(words).to_contain_text("the bound is exact")


def test_the_picture_says_its_numbers_to_those_who_see_none(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME, screen="phone", theme="dark")
    expect(live.locator(".bars")).to_have_attribute("aria-label", re.compile(r"Two bars of 4\.19 nats.*gap.*2\.07"))
