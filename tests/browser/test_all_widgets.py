"""What every widget offers on the site: a way back, and a link to its present state."""

import re
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_widgets import SPECIMENS, find_widget

# Links ask for each as the value of every trait at once.
MAD = (
    "1e9",
    "-1e9",
    "0.3333",
    "1e-300",
    "NaN",
    "",
    "nonsense",
    "__proto__",
    "true",
    "[]",
    "[[99, 1]]",
    "{}",
    "null",
    "%",
)
FOLLOW = """async (live, [name, mad]) => {
    const state = JSON.parse(live.closest('.edu-widget').querySelector('.edu-state').textContent);
    location.hash = `${name}?` + Object.keys(state).map((trait) => `${trait}=${mad}`).join('&');
    await new Promise((done) => setTimeout(done, 50));
    const spoken = [...live.querySelectorAll('[aria-valuetext]')].map((each) => each.getAttribute('aria-valuetext'));
    return live.innerText + spoken;
}"""


@pytest.mark.parametrize("name", SPECIMENS)
def test_reset_link_and_mad_links(open_page: Callable[..., Page], open_file: Callable[..., Page], name: str):
    page = open_page(SPECIMENS[name].PAGE)
    live = find_widget(page, name)
    words, first = live.locator(".words"), live.locator(".words").inner_text()
    live.get_by_role("slider", name=SPECIMENS[name].SLIDER).press("ArrowRight")
    expect(words).not_to_have_text(first)
    moved = words.inner_text()
    live.get_by_role("button", name="Copy link").press("Enter")
    expect(live.get_by_role("status").last).to_contain_text("link", ignore_case=True)
    link = urlsplit(page.url).fragment
    assert link.startswith(f"{name}?")
    live.get_by_role("button", name="Reset").press("Enter")
    expect(words).to_have_text(first, use_inner_text=True)

    again = find_widget(open_file(f"{SPECIMENS[name].PAGE}"), name)
    again.page.evaluate("link => { location.hash = link; }", link)
    expect(again.locator(".words")).to_have_text(moved, use_inner_text=True)
    expect(again).to_be_in_viewport()
    for mad in MAD:  # an error on the console fails the test, too
        said = again.evaluate(FOLLOW, [name, mad])
        assert not re.search(r"NaN|undefined|Infinity|\bnull\b|1e\+?9", said), (mad, said)
    again.page.evaluate("name => { location.hash = `${name}?sprites=1&nonsense=2`; }", name)
    expect(again.locator(".words")).to_have_text(first, use_inner_text=True)
