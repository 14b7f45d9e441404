"""The steps of a solver, used on their page."""

from collections.abc import Callable

from playwright.sync_api import Locator, expect

from tests.browser.test_widgets import CURVES, open_widget  # noqa: F401

STEPS = "SolverSteps"


def test_steps_and_start_move_by_keyboard(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(STEPS)
    words, polygon = live.locator(".words"), live.locator("svg svg > .curve").first
    for name, text in (("steps", "12 steps even in t, 12 evaluations"), ("start", "38.8 % of the crowd")):
        before = polygon.evaluate_all(CURVES)
        live.get_by_role("slider", name=name, exact=True).press("ArrowRight")
        expect(words).to_contain_text(text)
        assert before != polygon.evaluate_all(CURVES)


def test_another_step_is_enlarged(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(STEPS)
    frame, slider = live.locator(".frame"), live.get_by_role("slider", name="enlarged step")
    before = frame.get_attribute("d")
    slider.press("ArrowRight")
    expect(live.locator(".words")).to_contain_text("Enlarged: step 8, from t = 0.126 to 0.001")
    assert frame.get_attribute("d") != before
    expect(slider).to_have_attribute("aria-valuetext", "step 8 of 8")


def test_solver_and_grid_are_chosen_by_keyboard(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(STEPS)
    words = live.locator(".words")
    live.get_by_role("radio", name="Euler").press("ArrowRight")
    expect(words).to_contain_text("Heun, 8 steps even in t, 16 evaluations")
    live.get_by_role("radio", name="even in t").press("ArrowRight")
    expect(words).to_contain_text("Heun, 8 steps even in log-SNR")


def test_the_path_is_high_enough_on_a_phone(open_widget: Callable[..., Locator]):  # noqa: F811
    live = open_widget(STEPS, screen="phone")
    picture = live.get_by_role("img", name="The path from noise")
    box = picture.bounding_box()
    assert box["height"] > 0.7 * box["width"]
    live.page.set_viewport_size({"width": 1280, "height": 900})
    live.page.wait_for_function(
        "box => box.getBoundingClientRect().height < 0.6 * box.getBoundingClientRect().width",
        arg=picture.element_handle(),
    )
