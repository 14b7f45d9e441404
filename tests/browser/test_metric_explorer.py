"""The seven judges, used: on their built page, with the network blocked."""

from collections.abc import Callable

from playwright.sync_api import Locator, expect

from tests.browser.test_widgets import CURVES, open_widget  # noqa: F401 (a fixture)

NAME = "MetricExplorer"
WIDTHS = "all => all.map(each => each.style.width)"


def test_a_blob_fools_two_judges_before_it_is_touched(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME)
    expect(live.locator(".judge")).to_have_count(7)
    expect(live.locator(".words")).to_contain_text("Nothing clearly wrong, say: Fréchet distance")


def test_the_model_moves_by_keyboard(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME)
    slider, words, curves, bars = (
        live.get_by_label("spread of a lump"),
        live.locator(".words"),
        live.locator(".curve"),
        live.locator(".bar i"),
    )
    before = words.inner_text(), curves.evaluate_all(CURVES), bars.evaluate_all(WIDTHS)
    slider.press("PageDown")
    expect(words).not_to_have_text(before[0])
    after = curves.evaluate_all(CURVES)
    assert after[1] != before[1][1], "the model's curve moves"
    assert after[0] == before[1][0], "the data stay"
    assert bars.evaluate_all(WIDTHS) != before[2]
    slider.press("Home")
    expect(slider).to_have_attribute("aria-valuetext", "spread of a lump 0.10")


def test_fewer_images_raise_the_frechet_distance_of_the_data_themselves(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(NAME, screen="phone", theme="dark")
    live.get_by_role("button", name="the data").press("Enter")
    words = live.locator(".words")
    expect(words).to_contain_text("No judge finds this model clearly worse")
    live.get_by_label("images n").press("Home")
    expect(words).to_contain_text("The Fréchet distance of 20 images")
    value = live.locator(".judge", has_text="Fréchet").locator(".value")
    assert float(value.inner_text()) > 0.05
