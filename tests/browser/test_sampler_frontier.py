"""The measured frontier, used on its page."""

from collections.abc import Callable

from playwright.sync_api import Locator, expect

from tests.browser.test_widgets import PICTURES, open_widget  # noqa: F401


def test_frontier_moves_by_keyboard(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget("SamplerFrontier")
    words, chosen, best = live.locator(".words"), live.locator(".chosen canvas"), live.locator(".best canvas")
    expect(words).to_contain_text("DDIM, 10 evaluations")
    before, kept = chosen.evaluate_all(PICTURES), best.evaluate_all(PICTURES)
    live.get_by_role("slider", name="evaluations").press("Home")
    expect(words).to_contain_text("DDIM, 4 evaluations")
    assert chosen.evaluate_all(PICTURES) != before
    assert best.evaluate_all(PICTURES) == kept


def test_frontier_sampler_is_chosen_by_keyboard(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget("SamplerFrontier")
    dot = live.locator(".dot")
    before = dot.get_attribute("transform")
    live.get_by_role("radio", name="DDIM").press("ArrowRight")
    expect(live.locator(".words")).not_to_contain_text("DDIM, 10")
    assert dot.get_attribute("transform") != before
