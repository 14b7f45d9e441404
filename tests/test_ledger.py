"""The equation ledger: what the tests record, and what the build makes of it, on a book of one chapter."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

from tests.conftest import ROOT
from tests.equations import equation

LABELLED = """# Chapter

## A step

```{math}
:label: eq-step
y = 2 x
```
"""
PAGES = {
    "index.md": "# Book\n\n```{toctree}\nchapter\nledger\n```\n",
    "ledger.md": "# Ledger\n\n```{equation-ledger}\n```\n",
}
RECORD = {"label": "eq-step", "test": "tests/equations/test_chapter.py::test_step", "outcome": "passed"}
RECORD |= {"seconds": 0.25, "method": "exact", "tolerance": "1e-12 (float64 rounding)"}


class Book:
    """A small book in a temporary folder that uses the ledger extension."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name, text in PAGES.items():
            (folder / name).write_text(text)
        self.write_chapter(LABELLED)
        self.write_ledger(RECORD)

    def write_chapter(self, text: str) -> None:
        (self.folder / "chapter.md").write_text(text)

    def write_ledger(self, *records: dict) -> None:
        (self.folder / "ledger.json").write_text(json.dumps({"version": 1, "records": records}))

    def build(self) -> str:
        """Build the book and return the warnings."""
        warnings, folder = io.StringIO(), self.folder
        options = {
            "extensions": ["myst_parser", "ledger"],
            "ledger_path": "ledger.json",
            "exclude_patterns": ["out"],
        }
        with patch_docutils(), docutils_namespace():
            out, doctrees = folder / "out" / "html", folder / "out" / "doctrees"
            app = Sphinx(folder, None, out, doctrees, "html", confoverrides=options, status=None, warning=warnings)
            app.build()
        return warnings.getvalue()

    def read(self, page: str) -> str:
        return (self.folder / "out" / "html" / f"{page}.html").read_text()


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Book:
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    return Book(tmp_path)


def test_checked_equation_is_marked_and_listed(book: Book):
    assert book.build() == ""
    assert 'href="ledger.html#ledger-eq-step"' in book.read("chapter")
    assert "✓ tested: exact, 1e-12<" in book.read("chapter")
    row = book.read("ledger").split('id="ledger-eq-step"')[1]
    assert 'href="chapter.html#equation-eq-step"' in row
    assert 'id="equation-eq-step"' in book.read("chapter")
    for cell in (
        "Chapter: A step",
        "exact",
        "1e-12 (float64 rounding)",
        "0.25",
        "test_chapter.py::test_step",
    ):
        assert cell in row


def test_summary_counts_equations_ways_and_seconds(book: Book):
    book.write_chapter(LABELLED + LABELLED.replace("eq-step", "eq-other").replace("# Chapter", "## Again"))
    another = RECORD | {"label": "eq-other", "method": "symbolic", "seconds": 2.0}
    book.write_ledger(RECORD, RECORD | {"test": "tests/x.py::test_too", "method": "monte carlo"}, another)
    assert book.build() == ""
    counted = "2 labelled equations, all checked: 1 by computer algebra, 1 exactly, 1 by simulation"
    assert counted in book.read("ledger") and "3 checks that took 2 seconds" in book.read("ledger")


def test_label_without_test_is_refused(book: Book):
    book.write_ledger()
    warnings = book.build()
    assert "chapter.md" in warnings
    assert "'eq-step': no test checks it" in warnings
    assert "✓ tested" not in book.read("chapter")


def test_test_without_label_is_refused(book: Book):
    book.write_ledger(RECORD, RECORD | {"label": "eq-gone"})
    assert "no page has the label 'eq-gone'" in book.build()


@pytest.mark.parametrize("outcome", ["failed", "skipped"])
def test_equation_whose_test_did_not_pass_is_refused(book: Book, outcome: str):
    book.write_ledger(RECORD, RECORD | {"test": "tests/equations/test_chapter.py::test_other", "outcome": outcome})
    assert "its test did not pass: tests/equations/test_chapter.py::test_other" in book.build()
    assert "✓ tested" not in book.read("chapter")


def test_label_of_another_form_is_refused(book: Book):
    book.write_chapter(LABELLED.replace("eq-step", "step"))
    book.write_ledger()
    assert "its label must start with 'eq-'" in book.build()


def test_pages_follow_a_changed_ledger(book: Book):
    assert book.build() == ""
    book.write_ledger(RECORD | {"tolerance": "1e-9 (a looser one)"})
    assert book.build() == ""
    assert "✓ tested: exact, 1e-9<" in book.read("chapter")
    book.write_ledger()
    assert "no test checks it" in book.build()


def test_pages_follow_a_removed_equation(book: Book):
    assert book.build() == ""
    book.write_chapter("# Chapter\n")
    assert "no page has the label 'eq-step'" in book.build()


EQUATION_TESTS = """
import pytest
from tests.equations import equation

@equation("eq-right", method="exact", tolerance="0 (integers)")
def test_right(): assert 1 + 1 == 2

@equation("eq-wrong", method="symbolic", tolerance="0 (identical)")
def test_wrong(): assert 1 + 1 == 3

@equation("eq-untried", method="monte carlo", tolerance="4 standard errors (n = 1)")
def test_untried(): pytest.skip("not today")

def test_no_equation(): pass
"""


def run_equation_tests(folder: Path, *options: str) -> None:
    (folder / "test_some.py").write_text(EQUATION_TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    command += ["-c", str(ROOT / "pyproject.toml"), str(folder / "test_some.py"), *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False, timeout=120)


def test_recorder_writes_every_outcome(tmp_path: Path):
    run_equation_tests(tmp_path, "--ledger", str(tmp_path / "new" / "ledger.json"))
    records = json.loads((tmp_path / "new" / "ledger.json").read_text())["records"]
    outcomes = {record["label"]: record["outcome"] for record in records}
    assert outcomes == {"eq-right": "passed", "eq-untried": "skipped", "eq-wrong": "failed"}
    right = records[0]
    assert (right["method"], right["tolerance"]) == ("exact", "0 (integers)")
    assert right["test"].endswith("::test_right")
    assert right["seconds"] >= 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["ledger.json"]


def test_recorder_writes_nothing_unasked(tmp_path: Path):
    run_equation_tests(tmp_path)
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("label", "method", "tolerance", "message"),
    [
        ("step", "exact", "0 (integers)", "must start with 'eq-'"),
        ("eq-step", "by eye", "0 (integers)", "not one of symbolic, exact, monte carlo"),
        ("eq-step", "exact", "", "needs a tolerance"),
    ],
)
def test_careless_equation_mark_is_refused(label: str, method: str, tolerance: str, message: str):
    with pytest.raises(ValueError, match=message):
        equation(label, method=method, tolerance=tolerance)
