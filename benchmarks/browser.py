"""Time the trained network in a page: headless Chromium, one thread, warm cache; writes data/measured/browser.json.

The built book is served from this machine. `make bench` calls this; without Chromium it says so and leaves the file.
Times are wall time, so a busy machine stretches them: the load is written beside them.
"""

import argparse
import functools
import os
import platform
import statistics
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from benchmarks.site import start_chromium
from diffusion_edu.checkpoints import write_json

ROOT = Path(__file__).resolve().parents[1]
REQUEST = {"op": "sample", "y": [3], "w": 2, "sampler": "ddim", "evaluations": 10, "seed": 1}
PAGE = """<!doctype html><div class="edu-widget"><script type="application/json" class="edu-state">{}</script>
<script type="application/json" class="edu-module">"export default {render({model}) { globalThis.model = model; }}"</script>
<div class="edu-static"></div></div><script src="_static/widget-host.js"></script>"""
# Asks, and answers with when each reply came; meanwhile a timer measures how long the page was deaf.
ASK = """request => new Promise((done, refuse) => {
    const [start, found] = [performance.now(), {ms: [], deaf: 0}];
    let last = start;
    const timer = setInterval(() => {
        found.deaf = Math.max(found.deaf, performance.now() - last);
        last = performance.now();
    }, 4);
    model.off("msg:custom");
    model.on("msg:custom", (content) => {
        if (content.kind === "step" && content.ms !== undefined) found.ms.push(content.ms);
        if (content.kind === "step") found.first ??= performance.now() - start;
        if (content.kind === "error") refuse(Error(content.message));
        if (content.kind === "done") { clearInterval(timer); done({...found, digit: performance.now() - start}); }
    });
    model.send(request);
})"""


class Quiet(SimpleHTTPRequestHandler):
    """Serves the site, and at /bench.html a page with nothing but a widget's model."""

    def do_GET(self) -> None:
        if self.path != "/bench.html":
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(PAGE.encode())

    def log_message(self, *arguments: object) -> None:
        pass


def quartiles(values: list[float]) -> dict[str, float]:
    """Median and quartiles of milliseconds, and how many there were."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, 1), "lower": round(low, 1), "upper": round(high, 1), "count": len(values)}


def measure(browser: Browser, site: Path, visits: int, runs: int) -> dict:
    """Visit the page several times with one cache, and sample several times on each visit. All in milliseconds."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    firsts, digits, steps, deaf = [], [], [], []
    context = browser.new_context()
    for visit in range(visits + 1):
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.goto(f"http://127.0.0.1:{server.server_port}/bench.html")
        page.wait_for_function("() => globalThis.model")
        for run in range(runs):
            found = page.evaluate(ASK, REQUEST | {"id": run})
            if visit == 0:  # fills the cache
                continue
            deaf.append(found["deaf"])
            if run == 0:
                firsts.append(found["first"])
                digits.append(found["digit"])
            else:
                steps += found["ms"]
        page.close()
    server.shutdown()
    return {
        "click to first estimate, ms": quartiles(firsts),
        "click to finished digit, ms": quartiles(digits),
        "guided step (batch 2), ms": quartiles(steps),
        "longest pause of the page in a run, ms": quartiles(deaf),
        "chromium": browser.version,
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--site", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "measured" / "browser.json")
    parser.add_argument("--visits", type=int, default=5)
    parser.add_argument("--runs", type=int, default=4)
    options = parser.parse_args()
    if not (options.site / "_static" / "network").exists():
        print("browser: not measured; it needs a built book")
        return
    before = os.getloadavg()[0]
    with sync_playwright() as playwright:
        try:
            browser = start_chromium(playwright)
        except RuntimeError as reason:
            print(f"browser: not measured; {reason}")
            return
        found = measure(browser, options.site, options.visits, options.runs)
        browser.close()
    machine = {"processors": os.cpu_count(), "machine": platform.machine(), "threads": 1}
    load = [round(before, 1), round(os.getloadavg()[0], 1)]
    found |= {"request": REQUEST, "load before and after": load, **machine}
    write_json(options.out, found)
    for name, value in found.items():
        print(f"{name:40} {value}")


if __name__ == "__main__":
    main()
