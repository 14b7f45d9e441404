"""Every widget in a real JupyterLab: it appears, a key moves its slider, its words follow, and Python hears of it."""

from collections.abc import Callable

import nbformat
import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_widgets import wait_for_kernel, wait_for_text
from tests.conftest import ROOT
from tests.widgets import specimens

CELL = """
import sys
from importlib import import_module
from pathlib import Path
sys.path.insert(0, {root!r})
widget = import_module({module!r}).example()
widget.observe(lambda change: Path("heard-{name}.txt").write_text("heard"))
widget
"""


@pytest.mark.slow
def test_each_widget_lives_in_jupyterlab(lab, open_lab: Callable[..., Page]):
    known = specimens()
    sources = [CELL.format(root=str(ROOT), module=each.__name__, name=each.NAME).strip() for each in known]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), lab.folder / "all.ipynb")
    page = open_lab("all.ipynb")
    wait_for_kernel(page, lab, "all.ipynb")
    for number, each in enumerate(known):
        cell = page.locator(".jp-CodeCell").nth(number)
        cell.locator(".cm-content").click()
        page.keyboard.press("Control+Enter")
        live = cell.locator(".jp-OutputArea-output .edu")
        live.wait_for(timeout=120_000)
        live.scroll_into_view_if_needed()
        words = live.locator(".words").first
        before = words.inner_text()
        slider = live.get_by_role("slider", name=each.SLIDER)
        slider.press("ArrowLeft" if slider.evaluate("each => each.value === each.max") else "ArrowRight")
        expect(words).not_to_have_text(before)
        wait_for_text(page, lab.folder / f"heard-{each.NAME}.txt", "heard")
