"""The partial noising widget, used on the built page."""

from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

from tests.browser.test_widgets import CURVES, PICTURES, find_widget

NAME = "PartialNoising"


def open_partial(open_page: Callable[..., Page], **view: str) -> Locator:
    return find_widget(open_page("book/steering.html", **view), NAME)


def test_it_teaches_before_it_is_touched(open_page: Callable[..., Page]):
    live = open_partial(open_page)
    expect(live.locator(".words")).to_contain_text("AUC of the difference")
    expect(live.locator("canvas")).to_have_count(5)
    pictures = live.locator("canvas").evaluate_all(PICTURES)
    assert len(set(pictures)) == 5, "five different pictures"


def test_how_far_moves_by_keyboard(open_page: Callable[..., Page]):
    live = open_partial(open_page)
    slider, words = live.get_by_label("how far to noise"), live.locator(".words")
    before = words.inner_text(), live.locator("canvas").evaluate_all(PICTURES)
    slider.press("ArrowLeft")
    expect(words).not_to_have_text(before[0])
    after = live.locator("canvas").evaluate_all(PICTURES)
    assert after[0] == before[1][0] and after[4] == before[1][4], "the digit and its defect stay"
    assert all(old != new for old, new in zip(before[1][1:4], after[1:4], strict=True))
    slider.press("Home")
    expect(words).to_contain_text("L = 0.20")
    expect(slider).to_have_attribute("aria-valuetext", words_of_home(words.inner_text()))


def words_of_home(text: str) -> str:
    """Return what the slider says at its left end, from the number in the words."""
    return f"L 0.20, AUC {text.split('AUC of the difference is ')[1][:4]}"


def test_method_and_digit_are_chosen_by_keyboard(open_page: Callable[..., Page]):
    live = open_partial(open_page, screen="phone")
    words = live.locator(".words")
    curves = live.locator(".curve").evaluate_all(CURVES)
    live.get_by_role("radio", name="noised (fresh noise)").press("ArrowUp")
    expect(live.get_by_role("radio", name="encoded (nothing drawn)")).to_be_checked()
    expect(words).to_contain_text("encoded up to L")
    assert curves == live.locator(".curve").evaluate_all(CURVES), "both methods' curves are always there"
    first = live.get_by_role("radio").first
    first.press("ArrowDown")
    assert curves != live.locator(".curve").evaluate_all(CURVES), "another digit has other curves"
