"""The interactive figures, one test module each: an example, where it stands in the book, and its mathematics.

`test_all.py` puts every example through what all widgets must do, and `tests/browser/test_widgets.py` does so on the
built pages. A module `test_<name>.py` here, for `diffusion_edu/widgets/<name>.mjs`, offers

    NAME, PAGE, SLIDER   the class's name, the page it stands on, the label of a slider that changes its words
    example()            the widget, small and from a seed
    fixture_for_javascript()   optional: what tests/js/<name>.test.mjs reads from _build/fixtures/<name>.json
"""

import importlib
from html.parser import HTMLParser
from types import ModuleType

from tests.conftest import ROOT

FOLDER = ROOT / "diffusion_edu" / "widgets"
MODULES = sorted(path for path in FOLDER.glob("*.mjs") if path.with_suffix(".py").exists())
SHARED = sorted(set(FOLDER.glob("*.mjs")) - set(MODULES))  # what modules import from


def specimens() -> list[ModuleType]:
    """The test module of every widget."""
    return [importlib.import_module(f"tests.widgets.test_{path.stem}") for path in MODULES]


class Parts(HTMLParser):
    """What a browser sees of a widget's HTML: the text of each script by class, and the attributes of the picture."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts, self.picture, self.root, self.open = {}, {}, {}, None
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        values = dict(attributes)
        self.open = values.get("class") if tag == "script" else None
        self.picture = values if tag == "img" else self.picture
        self.root = values if values.get("class") == "edu-widget" else self.root

    def handle_data(self, data: str) -> None:
        if self.open:
            self.scripts[self.open] = self.scripts.get(self.open, "") + data

    def handle_endtag(self, tag: str) -> None:
        self.open = None
