"""Every page of the built site, opened: on three screens, in two themes, over http and from its folder."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.conftest import BUILD, ROOT

PAGES = sorted(path.relative_to(BUILD / "html").as_posix() for path in (BUILD / "html" / "book").glob("*.html"))
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
VIEWS = [("wide", "light"), ("tablet", "dark"), ("phone", "light")]

OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
UNSET_MATH = """() => [...document.querySelectorAll('.bd-article .math')]
    .filter(each => !each.querySelector('mjx-container') || each.querySelector('mjx-merror, [data-mjx-error]'))
    .map(each => each.textContent.trim().slice(0, 80))"""
BROKEN_IMAGES = """() => Promise.all([...document.querySelectorAll('.bd-article img')].map(async each => {
    each.loading = 'eager';
    await each.decode().catch(() => undefined);
    return each.naturalWidth ? null : each.src;
})).then(all => all.filter(Boolean))"""
NAMELESS_IMAGES = r"""() => [...document.querySelectorAll('.bd-article img')]
    .filter(each => !each.alt.trim() || /\.(png|svg|jpe?g)$/.test(each.alt)).map(each => each.src)"""
NAMELESS_CONTROLS = """() => [...document.querySelectorAll('.edu-live :is(input, select, button, textarea)')]
    .filter(each => !(each.labels?.length || each.ariaLabel || each.textContent.trim()
        || each.getAttribute('aria-labelledby'))).map(each => each.outerHTML)"""

# The roles inside .citation-list are docutils' own; WAI-ARIA has deprecated one of them since.
RUN_AXE = """() => axe.run({include: ['.bd-article'], exclude: ['.citation-list']},
    {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa']})"""


def test_there_are_pages(site: Path):
    assert {"book/intro.html", "book/ledger.html"} <= set(PAGES)


@pytest.mark.parametrize(("screen", "theme"), VIEWS)
@pytest.mark.parametrize("path", PAGES)
def test_page_stands_on_its_screen_and_is_accessible(
    open_page: Callable[..., Page], path: str, screen: str, theme: str
):
    page = open_page(path, screen=screen, theme=theme)
    assert page.locator("html").get_attribute("data-theme") == theme
    expect(page.locator(".bd-article h1")).to_have_count(1)
    assert page.evaluate(OVERFLOW) <= 0, "the page scrolls sideways"
    assert page.evaluate(UNSET_MATH) == []
    assert page.evaluate(BROKEN_IMAGES) == []
    assert page.evaluate(NAMELESS_IMAGES) == [], "give each figure an alt text (mystnb: image: alt)"
    assert page.evaluate(NAMELESS_CONTROLS) == []
    page.add_script_tag(content=AXE.read_text(encoding="utf-8"))
    found = page.evaluate(RUN_AXE)
    problems = {each["id"]: [node["html"][:160] for node in each["nodes"]] for each in found["violations"]}
    assert problems == {}, json.dumps(problems, indent=1)


@pytest.mark.parametrize("path", PAGES)
def test_page_opens_from_its_folder_and_prints(open_file: Callable[..., Page], path: str):
    page = open_file(path)
    assert page.evaluate(UNSET_MATH) == []
    assert page.evaluate(BROKEN_IMAGES) == []
    for widget in page.locator(".edu-widget").all():
        expect(widget).to_have_attribute("data-mounted", "true")
        expect(widget.locator(".edu-live")).to_be_visible()
        expect(widget.locator(".edu-static")).to_be_hidden()
    page.emulate_media(media="print")
    for widget in page.locator(".edu-widget").all():
        expect(widget.locator(".edu-live")).to_be_hidden()
        expect(widget.locator(".edu-static")).to_be_visible()


def test_front_door_leads_to_the_first_page(open_page: Callable[..., Page], open_file: Callable[..., Page]):
    for page in (open_page("index.html"), open_file("index.html")):
        page.wait_for_url("**/book/intro.html")
        expect(page.locator(".bd-article h1")).to_be_visible()


def test_a_mark_leads_to_its_row(open_page: Callable[..., Page], site: Path):
    marked = [path for path in PAGES if 'class="equation-mark' in (site / path).read_text()]
    assert marked, "no page has a tested equation"
    page = open_page(marked[0])
    mark = page.locator("a.equation-mark").first
    row = mark.get_attribute("href").split("#")[1]
    mark.click()
    page.wait_for_url("**/book/ledger.html#*")
    expect(page.locator(f"tr#{row}")).to_be_in_viewport()


def test_a_broken_widget_keeps_its_picture(new_context: Callable, site_url: str):
    page = new_context(lambda url: url.startswith(("http://127.0.0.1", "blob:", "data:")), "wide", "light").new_page()
    page.goto(site_url + "book/ledger.html")
    page.evaluate(
        """() => {
            const widget = document.createElement('div');
            widget.className = 'edu-widget';
            const module = JSON.stringify('export default {render() {throw Error("no canvas")}}');
            widget.innerHTML = '<script type="application/json" class="edu-state">{}<\\/script>'
              + '<script type="application/json" class="edu-module">' + module + '<\\/script>'
              + '<div class="edu-static">the picture</div>';
            document.querySelector('.bd-article').append(widget);
            const host = [...document.scripts].find(each => each.src.includes('widget-host.js'));
            const again = document.createElement('script');
            again.src = host.src;
            document.body.append(again);
        }"""
    )
    widget = page.locator(".edu-widget").last
    expect(widget).to_have_attribute("data-mounted", "false")
    expect(widget.get_by_text("the picture", exact=True)).to_be_visible()
    expect(widget.get_by_role("status")).to_contain_text("no canvas")
