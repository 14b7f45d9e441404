"""Pictures of every page of the built site, on three screens in two themes, and contact sheets to look over them.

Writes `_build/screenshots/<page>-<screen>-<theme>.png` and one sheet for each screen and theme: the first screens of
each page side by side, much reduced. `make screenshots` runs it; nothing of it is committed.
"""

import argparse
import io
from pathlib import Path

from PIL import Image, ImageDraw
from playwright.sync_api import Browser, sync_playwright

from benchmarks.site import ALL_MOUNTED, ROOT, SCREENS, SCROLL, SITE, THEMES, Scales, pages, start_chromium

FOLDER = ROOT / "_build" / "screenshots"
LONGEST = 16_000  # pixels that Chromium draws at once
THUMB = 300  # pixels across
ACROSS = 6  # thumbs to a row of a sheet


def take(browser: Browser, url: str, screen: str, theme: str, target: Path) -> None:
    """Take a picture of the whole page, in pieces of `LONGEST` pixels that are put together."""
    width, height = SCREENS[screen]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, reduced_motion="reduce"
    )
    try:
        page = context.new_page()
        page.goto(url)
        page.wait_for_function(ALL_MOUNTED)
        page.evaluate(SCROLL)
        page.evaluate("() => scrollTo(0, 0)")
        whole = page.evaluate("() => document.documentElement.scrollHeight")
        picture = Image.new("RGB", (width, whole))
        for top in range(0, whole, LONGEST):
            clip = {"x": 0, "y": top, "width": width, "height": min(LONGEST, whole - top)}
            piece = page.screenshot(full_page=True, clip=clip)
            picture.paste(Image.open(io.BytesIO(piece)), (0, top))
        picture.save(target)
    finally:
        context.close()


def sheet(pictures: list[Path], target: Path, height: int) -> None:
    """Put the upper ends of the pictures side by side, `ACROSS` to a row, each with its name."""
    rows = -(-len(pictures) // ACROSS)
    page = Image.new("RGB", (ACROSS * (THUMB + 12), rows * (height + 22)), "#888")
    for place, path in enumerate(pictures):
        left, top = place % ACROSS * (THUMB + 12), place // ACROSS * (height + 22)
        with Image.open(path) as picture:
            scale = THUMB / picture.width
            small = picture.convert("RGB").resize((THUMB, round(picture.height * scale)), Image.Resampling.LANCZOS)
        page.paste(small.crop((0, 0, THUMB, min(height, small.height))), (left, top + 20))
        ImageDraw.Draw(page).text((left, top + 4), path.stem, fill="white")
    page.save(target)


def main() -> None:
    """Take all pictures, or those of the pages named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", metavar="PAGE", help="names of pages, such as denoising")
    parser.add_argument("--screens", nargs="*", choices=list(SCREENS), default=list(SCREENS))
    parser.add_argument("--themes", nargs="*", choices=THEMES, default=list(THEMES))
    chosen = parser.parse_args()
    wanted = [path for path in pages() if not chosen.only or Path(path).stem in chosen.only]
    FOLDER.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, Scales(SITE).serve() as scales:
        browser = start_chromium(playwright)
        for screen in chosen.screens:
            for theme in chosen.themes:
                pictures = [FOLDER / f"{Path(path).stem}-{screen}-{theme}.png" for path in wanted]
                for path, picture in zip(wanted, pictures, strict=True):
                    take(browser, f"{scales.url}/{path}", screen, theme, picture)
                sheet(pictures, FOLDER / f"sheet-{screen}-{theme}.png", 800)
                print(f"{FOLDER.relative_to(ROOT)}/sheet-{screen}-{theme}.png", flush=True)


if __name__ == "__main__":
    main()
