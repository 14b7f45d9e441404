"""The error budget, used on its page."""

from collections.abc import Callable

from playwright.sync_api import Locator, expect

from tests.browser.test_widgets import open_widget  # noqa: F401


def test_budget_moves_by_keyboard(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget("ErrorBudget")
    words, total = live.locator(".words"), live.locator(".bar b")
    expect(words).to_contain_text("The network is the limit")
    for name, key, text in (
        ("evaluations", "ArrowLeft", "DDIM, 8 evaluations"),
        ("training", "End", "the exact denoiser"),
    ):
        before = total.get_attribute("style")
        live.get_by_role("slider", name=name).press(key)
        expect(words).to_contain_text(text)
        assert total.get_attribute("style") != before
    expect(words).to_contain_text("The steps are the limit")
    live.get_by_role("slider", name="evaluations").press("End")
    expect(words).to_contain_text("Nothing is left that these draws can show")


def test_budget_sampler_is_chosen_by_keyboard(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget("ErrorBudget")
    live.get_by_role("radio", name="DDIM").press("ArrowRight")
    expect(live.locator(".words")).to_contain_text("DPM-Solver++(2M), 10 evaluations")
