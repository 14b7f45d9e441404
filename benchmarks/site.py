"""What each page of the built site weighs, how soon its first widget answers, and what axe-core finds: `make weigh`.

Headless Chromium opens every page with an empty cache from a server that compresses text, as a static host would. Two
weights are taken: what arrives before anybody scrolls or clicks, and what has arrived once the reader has scrolled to
the end. Sizes are bytes of bodies. The result is `data/measured/site.json`.
"""

import argparse
import contextlib
import gzip
import json
import os
import platform
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from diffusion_edu.checkpoints import write_atomically

ROOT = Path(__file__).parents[1]
SITE = ROOT / "_build" / "html"
RESULT = ROOT / "data" / "measured" / "site.json"
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
TEXT = {".html", ".css", ".js", ".mjs", ".json", ".svg", ".txt", ".wasm"}  # what a host compresses
SCREENS = {"wide": (1280, 900), "tablet": (820, 1100), "phone": (390, 844)}
THEMES = ("light", "dark")
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

# The roles inside .citation-list are docutils' own; WAI-ARIA has deprecated one of them since.
RUN_AXE = "rules => axe.run({include: ['body'], exclude: ['.citation-list', '.mathml']}, {runOnly: rules})"
# A page's formulas are tens of thousands of shapes, and MathML that no rule is about; its code is thousands of coloured
# words, of which one of each colour on each ground tells as much as all. axe would walk through every one, four times.
THIN_OUT = """() => {
    document.querySelectorAll('.math > svg, .math .mathml').forEach(each => each.remove());
    const seen = new Set();
    for (const word of document.querySelectorAll('.highlight span[class]')) {
        const kind = word.className + getComputedStyle(word.closest('.highlight')).backgroundColor;
        if (seen.has(kind)) word.replaceWith(...word.childNodes);
        seen.add(kind);
    }
}"""
RULES = {  # a theme changes colours and nothing else
    "light": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"],
    "dark": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]},
}
TAB_STOPS = 700  # ms after which the theme has let the keyboard into what scrolls since the screen has changed
SET_THEME = "theme => { for (const name of ['mode', 'theme']) document.documentElement.dataset[name] = theme; }"
WATCH_WIDGETS = """new MutationObserver((_, observer) => {
    if (!document.querySelector('.edu-widget[data-mounted="true"]')) return;
    window.firstWidget = performance.now();
    observer.disconnect();
}).observe(document, {subtree: true, childList: true, attributes: true, attributeFilter: ['data-mounted']})"""
ALL_MOUNTED = "() => !document.querySelector('div.edu-widget:not([data-mounted])')"
SCROLL = """async () => {
    for (let y = 0; y < document.documentElement.scrollHeight; y += innerHeight) {
        scrollTo({top: y, behavior: 'instant'});
        await new Promise(done => setTimeout(done, 60));
    }
    const waiting = () => [...document.images].filter(each => each.checkVisibility() && !each.complete);
    for (let tries = 0; tries < 50 && waiting().length; tries++) {
        waiting()[0].scrollIntoView({behavior: 'instant'});
        await new Promise(done => setTimeout(done, 60));
    }
}"""


@dataclass
class Weight:
    """Requests that were answered, and the bytes of their bodies: as they are, and as they were sent."""

    requests: int = 0
    raw: int = 0
    gzip: int = 0

    def __sub__(self, other: "Weight") -> "Weight":
        return Weight(self.requests - other.requests, self.raw - other.raw, self.gzip - other.gzip)


@dataclass
class Scales:
    """A static host on 127.0.0.1 that compresses text and counts what it sends."""

    folder: Path
    sent: Weight = field(default_factory=Weight)
    url: str = ""

    def __post_init__(self) -> None:
        self.lock, self.compressed = threading.Lock(), {}

    def body(self, path: Path) -> tuple[bytes, bool]:
        """A file's bytes as they are sent, and whether they are compressed; counts them."""
        content = path.read_bytes()
        with self.lock:
            if path.suffix in TEXT and path not in self.compressed:
                self.compressed[path] = gzip.compress(content, 6)
            small = self.compressed.get(path, content)
            self.sent = Weight(self.sent.requests + 1, self.sent.raw + len(content), self.sent.gzip + len(small))
        return small, path in self.compressed

    def handler(scales) -> type[SimpleHTTPRequestHandler]:  # noqa: N805  (self is the handler's)
        """The request handler of this host."""

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                path = Path(self.translate_path(self.path))
                if not path.is_file():
                    self.send_error(404)
                    return
                body, is_compressed = scales.body(path)
                self.send_response(200)
                self.send_header("Content-Type", self.guess_type(str(path)))
                self.send_header("Content-Length", str(len(body)))
                if is_compressed:
                    self.send_header("Content-Encoding", "gzip")
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(body)

            def translate_path(self, path: str) -> str:
                return str(scales.folder / path.split("?")[0].split("#")[0].lstrip("/"))

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler

    @contextlib.contextmanager
    def serve(self) -> Iterator["Scales"]:
        """Answer requests while the context is open; `url` is the address, without a slash at its end."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


def pages(site: Path = SITE) -> list[str]:
    """The pages of the book below `site`, by name."""
    return sorted(path.relative_to(site).as_posix() for path in (site / "book").glob("*.html"))


def start_chromium(playwright: Playwright) -> Browser:
    """Start headless Chromium: the system's, or the one that the variable CHROMIUM names. Raises RuntimeError."""
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise RuntimeError("no Chromium on this machine: apt install chromium, or set CHROMIUM")
    # Containers give Chromium neither a sandbox nor a large /dev/shm.
    return playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])


def weigh(browser: Browser, scales: Scales, path: str) -> dict:
    """Weigh a page before anybody touches it and after scrolling; time its first widget, in seconds."""
    width, height = SCREENS["wide"]
    context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce")
    try:
        page = context.new_page()
        page.add_init_script(WATCH_WIDGETS)
        before = scales.sent
        page.goto(f"{scales.url}/{path}", wait_until="networkidle")
        page.wait_for_function(ALL_MOUNTED)
        opened = scales.sent - before
        page.evaluate(SCROLL)
        scrolled = scales.sent - before
        first = page.evaluate("() => window.firstWidget")
    finally:
        context.close()
    seconds = {} if first is None else {"first_widget_seconds": round(first / 1000, 2)}
    return {"opened": vars(opened), "scrolled": vars(scrolled)} | seconds


def audit(page: Page) -> dict[str, dict]:
    """What axe-core finds on an open page, on two screens in two themes: {"wide light": {rule: {impact, where}}}."""
    page.evaluate(THIN_OUT)
    page.add_script_tag(content=AXE.read_text(encoding="utf-8"))
    found = {}
    for screen in ("wide", "phone"):
        width, height = SCREENS[screen]
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(TAB_STOPS)
        for theme in THEMES:
            page.evaluate(SET_THEME, theme)
            violations = page.evaluate(RUN_AXE, RULES[theme])["violations"]
            found[f"{screen} {theme}"] = {
                each["id"]: {"impact": each["impact"], "where": [node["html"][:200] for node in each["nodes"]]}
                for each in violations
            }
    return found


def counts(found: dict[str, dict]) -> dict[str, int]:
    """How many rules are broken anywhere in `found`, by impact."""
    broken = {(rule, each["impact"]) for view in found.values() for rule, each in view.items()}
    return dict(Counter(impact for _, impact in broken))


def measure(browser: Browser, scales: Scales, path: str) -> dict:
    """All that is measured of one page."""
    result = {"page": path} | weigh(browser, scales, path)
    page = browser.new_page(reduced_motion="reduce")
    page.goto(f"{scales.url}/{path}")
    page.wait_for_function(ALL_MOUNTED)
    result["axe"] = counts(audit(page))
    page.close()
    return result


def row(result: dict) -> str:
    """One line of the table."""
    opened, scrolled = result["opened"], result["scrolled"]
    return (
        f"{result['page']:24}{opened['requests']:9}{opened['raw'] / 1000:9.0f}{opened['gzip'] / 1000:9.0f}"
        f"{scrolled['requests']:9}{scrolled['gzip'] / 1000:9.0f}"
        f"{result.get('first_widget_seconds', ''):>9}  {result['axe'] or ''}"
    )


def main() -> None:
    """Measure the pages, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", metavar="PAGE", help="names of pages, such as denoising; writes nothing")
    only = parser.parse_args().only
    wanted = [path for path in pages() if not only or Path(path).stem in only]
    print(f"{'page':24}{'requests':>9}{'raw kB':>9}{'sent kB':>9}{'scrolled':>9}{'sent kB':>9}{'widget s':>9}  axe")
    with sync_playwright() as playwright, Scales(SITE).serve() as scales:
        browser = start_chromium(playwright)
        results = []
        for path in wanted:
            results.append(measure(browser, scales, path))
            print(row(results[-1]), flush=True)
        settings = {"chromium": browser.version, "machine": platform.machine(), "screen": SCREENS["wide"]}
    if not only:
        write_atomically(RESULT, (json.dumps({"settings": settings, "pages": results}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
