"""The measured frontier, used on its page."""

from collections.abc import Callable

from playwright.sync_api import Locator, expect

from tests.browser.test_widgets import PICTURES, open_widget  # noqa: F401

BOXES = "all => all.map(each => each.getBoundingClientRect()).map(({ top, bottom }) => [top, bottom])"


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


def test_each_curve_is_named_at_its_end(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget("SamplerFrontier")
    names = live.locator(".choices label").all_inner_texts()
    labels = live.locator("svg .lead + text")
    assert sorted(labels.all_text_contents()) == sorted(names)
    boxes = sorted(labels.evaluate_all(BOXES))
    assert all(above[1] <= below[0] + 1 for above, below in zip(boxes, boxes[1:], strict=False)), (
        "no label lies on another"
    )
    expect(live.locator("svg .lead.chosen + text")).to_have_text("DDIM")
    expect(live.locator("svg .name.chosen")).to_contain_text("±")


def test_on_a_phone_a_legend_names_the_chosen_curve(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget("SamplerFrontier", screen="phone")
    expect(live.locator(".legend")).to_contain_text("DDIM")
    box = live.get_by_role("img", name="Fréchet distance of each sampler").bounding_box()
    assert box["height"] > 0.7 * box["width"]
