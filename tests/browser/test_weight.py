"""What a reader pays for a page: its weight on the wire, with an empty cache."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from benchmarks.site import Scales, pages, weigh

OPENED = 500_000  # bytes before anybody scrolls or clicks
SCROLLED = 1_500_000  # bytes once all of the page has been seen


@pytest.fixture(scope="module")
def scales(site: Path) -> Iterator[Scales]:
    with Scales(site).serve() as scales:
        yield scales


@pytest.mark.parametrize("path", pages())
def test_page_is_light(chromium: Browser, scales: Scales, path: str):
    found = weigh(chromium, scales, path)
    assert found["opened"]["gzip"] <= OPENED, found
    assert found["scrolled"]["gzip"] <= SCROLLED, found


def test_scales_count_what_is_sent(chromium: Browser, tmp_path: Path):
    """A page with compressible text and a picture that is only asked for when it is scrolled to."""
    (tmp_path / "page.html").write_text(
        "<!DOCTYPE html><link rel=icon href=data:,><p>" + "word " * 20_000 + "<p style='height: 9000px'>"
        "<img src=late.webp loading=lazy width=9 height=9>"
    )
    (tmp_path / "late.webp").write_bytes(bytes(range(256)) * 40)
    with Scales(tmp_path).serve() as scales:
        found = weigh(chromium, scales, "page.html")
    assert found["opened"]["requests"] == 1
    assert found["opened"]["raw"] > 100_000 > 5_000 > found["opened"]["gzip"]
    assert found["scrolled"]["raw"] - found["opened"]["raw"] == 10_240
