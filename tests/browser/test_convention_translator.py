"""The translator, used: its slider, its sources and its quantities, by keyboard on the built page."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.test_widgets import open_widget  # noqa: F401, a fixture

NAME = "ConventionTranslator"
DOTS = "all => all.map(each => each.style.left)"


def test_it_teaches_before_it_is_touched(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME)
    expect(live.locator(".words")).to_contain_text("Our t = 0.40 is t = 0.33 (backwards) on the clock of flow matching")
    expect(live.locator("section")).to_have_count(2)
    expect(live.locator("tbody tr")).to_have_count(12)
    sizes = live.locator("math").evaluate_all("all => all.map(each => each.getBoundingClientRect().width)")
    assert len(sizes) >= 4 and min(sizes) > 10, "the browser draws both formulas, in pieces"


@pytest.mark.parametrize("screen", ["wide", "phone"])
def test_no_formula_is_wider_than_its_card(open_widget: Callable[..., Locator], screen: str):  # noqa: F811
    live = open_widget(NAME, screen=screen)
    wide = """async root => {
        const [select, found, wait] = [root.querySelector('select'), [], () => new Promise(done => setTimeout(done))];
        for (const { value } of select.options) {
            select.value = value;
            select.dispatchEvent(new Event('change'));
            await wait();
            for (const radio of root.querySelectorAll('.choices input:enabled')) {
                radio.click();
                await wait();
                for (const each of root.querySelectorAll('.formula'))
                    found.push([value + radio.parentNode.textContent, each.scrollWidth - each.clientWidth]);
            }
        }
        return found;
    }"""
    found = live.evaluate(wide)
    assert len(found) > 90 and [each for each in found if each[1] > 1] == []


def test_a_link_to_a_pair_that_does_not_exist_shows_noised_data(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME)
    live.page.evaluate("name => { location.hash = `${name}?source=gao&quantity=loss`; }", NAME)
    expect(live.locator(".title").first).to_have_text("Gao writes")
    expect(live.get_by_role("radio", name="noised data")).to_be_checked()


def test_time_moves_by_keyboard(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME)
    slider, words = live.get_by_role("slider", name="our time t"), live.locator(".words")
    before, dots = words.inner_text(), live.locator(".track b").evaluate_all(DOTS)
    slider.press("ArrowRight")
    expect(words).not_to_have_text(before)
    assert not set(dots) & set(live.locator(".track b").evaluate_all(DOTS)), "every clock has moved"
    expect(slider).to_have_attribute("aria-valuetext", "t 0.41, in flow matching t = 0.32 (backwards)")
    numbers = live.locator("section output").all_inner_texts()
    assert len(numbers) == 2 and numbers[0] == numbers[1]


def test_source_and_quantity_by_keyboard(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME)
    live.get_by_role("combobox", name="source").select_option("cfg")
    expect(live.locator(".title").first).to_have_text("The CFG paper writes")
    guidance = live.get_by_role("radio", name="guidance")
    guidance.press("Space")
    expect(live.get_by_role("slider", name="our time t")).to_be_hidden()
    slider = live.get_by_role("slider", name="our guidance weight w")
    expect(live.locator("tbody tr.chosen")).to_contain_text("w = 2")
    slider.press("ArrowRight")
    expect(live.locator("tbody tr.chosen")).to_contain_text("w = 2.5")
    live.get_by_role("combobox", name="source").select_option("edm")  # it has no guidance
    expect(live.get_by_role("radio", name="noised data")).to_be_checked()
    expect(guidance).to_be_disabled()
    expect(live.locator("code").first).to_have_text("y + sigma * eps")
