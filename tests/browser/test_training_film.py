"""The film of a training run, used on its page."""

from collections.abc import Callable

from playwright.sync_api import Locator, expect

from tests.browser.test_widgets import PICTURES, open_widget  # noqa: F401


def test_film_moves_by_keyboard(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget("TrainingFilm")
    words, dot, rows = live.locator(".words"), live.locator(".dot"), live.locator("canvas")
    expect(rows).to_have_count(2)
    expect(words).to_contain_text("minutes: loss")
    before, place = rows.evaluate_all(PICTURES), dot.get_attribute("transform")
    live.get_by_role("slider", name="training steps").press("End")
    expect(words).to_contain_text("no more than that of the last record")
    after = rows.evaluate_all(PICTURES)
    assert all(old != new for old, new in zip(before, after, strict=True))
    assert dot.get_attribute("transform") != place
