"""Guidance on the line, used: on its built page, with the network blocked."""

from collections.abc import Callable

from playwright.sync_api import Locator, expect

from tests.browser.test_widgets import CURVES, open_widget  # noqa: F401 (a fixture)

NAME = "GuidedMixture"


def test_the_weight_moves_by_keyboard(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME)
    slider, words, curves = live.get_by_label("guidance weight w"), live.locator(".words"), live.locator(".curve")
    expect(words).to_contain_text("variance 0.250; the tilted density")
    before = curves.evaluate_all(CURVES)
    slider.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "guidance weight 2.25")
    assert curves.evaluate_all(CURVES)[1:] != before[1:]
    for _ in range(5):
        slider.press("ArrowLeft")
    expect(words).to_contain_text("all three agree")


def test_the_interval_and_the_other_law(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME, screen="phone", theme="dark")
    words = live.locator(".words")
    live.get_by_label("guide from log-SNR").press("End")
    expect(words).to_contain_text("Guidance acts nowhere")
    other = live.get_by_role("radio", name="two lumps of three")
    before = live.locator(".curve").evaluate_all(CURVES)
    other.press("Space")
    expect(other).to_be_checked()
    assert live.locator(".curve").evaluate_all(CURVES) != before
