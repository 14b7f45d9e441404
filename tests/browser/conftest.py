"""Fixtures that open pages in headless Chromium, with no network beyond the machine itself.

`open_page("book/forward.html", theme="dark", screen="phone")` opens a page of the built site, served below a
subpath as a static host would. `open_file(...)` opens the same page from the folder (file://). `open_lab("x.md")`
opens a notebook of `lab.folder` in a real JupyterLab. Each returns a Playwright `Page`; when the test ends, a
console error, an uncaught exception, a failed request or a request to anywhere else fails it.
"""

import contextlib
import functools
import os
import re
import secrets
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, sync_playwright

from benchmarks.site import SCREENS, start_chromium

SUBPATH = "/a/static/host/"
THEME = "/_static/scripts/"  # of the theme and its Bootstrap; what they throw is not ours to mend
BOOK_FROM_FILE = re.compile(r"^(file|data|blob):")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is a browser test."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Start headless Chromium: the system's, or the one that the variable CHROMIUM names."""
    with sync_playwright() as playwright:
        try:
            browser = start_chromium(playwright)
        except RuntimeError as reason:
            pytest.skip(f"{reason}; pages were not opened")
        yield browser
        browser.close()


class SubpathHandler(SimpleHTTPRequestHandler):
    """Serves a folder below SUBPATH and nothing above it."""

    def do_GET(self) -> None:
        if not self.path.startswith(SUBPATH):
            self.send_error(404, "outside the site")
            return
        self.path = "/" + self.path.removeprefix(SUBPATH)
        super().do_GET()

    def log_message(self, *arguments: object) -> None:
        """Say nothing: a failed request is reported by the page."""


@pytest.fixture(scope="session")
def site_url(site: Path) -> Iterator[str]:
    """Serve the built site and return its address, which ends in a slash."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(SubpathHandler, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}{SUBPATH}"
    server.shutdown()
    server.server_close()


@dataclass
class Watch:
    """What went wrong in the pages of one test."""

    problems: list[str]

    def over(self, context: BrowserContext, allowed: Callable[[str], bool], ignore: re.Pattern | None = None) -> None:
        """Block every request that is not allowed, and note all that should not happen."""

        def report(problem: str) -> None:
            if ignore is None or not ignore.search(problem):
                self.problems.append(problem)

        def decide(route: Route) -> None:
            if allowed(route.request.url):
                route.continue_()
            else:
                self.problems.append(f"asked a third party: {route.request.url}")
                route.abort()

        context.route("**/*", decide)
        context.on("console", lambda message: message.type == "error" and report(f"console: {message.text}"))
        context.on(
            "weberror", lambda error: THEME in (error.error.stack or "") or report(f"exception: {error.error.stack}")
        )
        # A picture still on its way when the page is left is no failure; what is missing answers 404.
        left = "net::ERR_ABORTED"
        context.on("requestfailed", lambda r: r.failure != left and report(f"failed: {r.url} ({r.failure})"))
        context.on("response", lambda answer: answer.status >= 400 and report(f"{answer.status}: {answer.url}"))


@pytest.fixture
def new_context(chromium: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Return a function that makes a watched browser context; the test fails on what was noted."""
    watch, contexts = Watch([]), []

    def make(
        allowed: Callable[[str], bool], screen: str, theme: str, ignore: re.Pattern | None = None
    ) -> BrowserContext:
        width, height = SCREENS[screen]
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=theme, reduced_motion="reduce"
        )
        context.set_default_timeout(60_000)
        watch.over(context, allowed, ignore)
        contexts.append(context)
        return context

    yield make
    for context in contexts:
        context.close()
    assert watch.problems == []


def settle(page: Page) -> Page:
    """Wait until every widget is mounted or has given up."""
    page.wait_for_function("() => !document.querySelector('div.edu-widget:not([data-mounted])')")
    return page


@pytest.fixture
def open_page(new_context: Callable, site_url: str) -> Callable[..., Page]:
    """Return a function that opens a page of the site over http: open_page("book/forward.html", screen=, theme=)."""

    def open_it(path: str, screen: str = "wide", theme: str = "light") -> Page:
        origin = site_url.removesuffix(SUBPATH)
        context = new_context(lambda url: url.startswith((origin, "blob:", "data:")), screen, theme)
        page = context.new_page()
        page.goto(site_url + path)
        return settle(page)

    return open_it


@pytest.fixture
def open_file(new_context: Callable, site: Path) -> Callable[..., Page]:
    """Return a function that opens a page of the site from its folder: open_file("book/forward.html")."""

    def open_it(path: str, screen: str = "wide", theme: str = "light") -> Page:
        page = new_context(lambda url: bool(BOOK_FROM_FILE.match(url)), screen, theme).new_page()
        page.goto((site / path).as_uri())
        return settle(page)

    return open_it


@dataclass
class Lab:
    """A running JupyterLab: put notebooks into `folder`, open them with `open_lab`."""

    url: str
    token: str
    folder: Path


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Start JupyterLab on a free port of 127.0.0.1, with `make lab`'s settings and a home of its own."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("notebooks")
    token, log = secrets.token_hex(16), home / "lab.log"
    command = [
        sys.executable,
        "-m",
        "jupyter",
        "lab",
        "--no-browser",
        "--ip=127.0.0.1",
        "--port=0",
        "--allow-root",
    ]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]
    environment = os.environ | {
        "HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(home),
        "JUPYTER_RUNTIME_DIR": str(home),
    }
    with (
        log.open("w") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process,
    ):
        try:
            yield Lab(lab_address(process, log), token, folder)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()


def lab_address(process: subprocess.Popen, log: Path) -> str:
    """Return the address that the server writes into its log, once it answers there."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"http://127\.0\.0\.1:\d+/", log.read_text()):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(found[0] + "api", timeout=5).close()
                return found[0]
        time.sleep(0.3)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture
def open_lab(new_context: Callable, lab: Lab) -> Callable[..., Page]:
    """Return a function that opens a notebook of `lab.folder` in JupyterLab: open_lab("trial.md")."""
    # JupyterLab asks for things that need not exist, and says so on the console.
    ignore = re.compile(r"^(console|failed|404|4\d\d|5\d\d)")

    def open_it(name: str, screen: str = "wide", theme: str = "light") -> Page:
        context = new_context(lambda url: url.startswith((lab.url, "blob:", "data:")), screen, theme, ignore)
        page = context.new_page()
        factory = "" if name.endswith(".ipynb") else "?factory=Jupytext%20Notebook"
        workspace = secrets.token_hex(4)  # an old one would open the notebooks of earlier tests too
        page.goto(f"{lab.url}lab/workspaces/{workspace}/tree/{name}{factory}{'&' if factory else '?'}token={lab.token}")
        page.locator(".jp-NotebookPanel").first.wait_for(timeout=90_000)
        return page

    return open_it
