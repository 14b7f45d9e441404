"""The built book: executed, current, self-contained, and checked by means that can fail."""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import jupytext
import nbformat
import pytest

from tests.conftest import BUILD, ROOT

EXECUTED = BUILD / "jupyter_execute"
FOREIGN = re.compile(r"^(https?:)?//")
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
LOADING |= {"embed": "src", "object": "data", "link": "href", "use": "href", "image": "href"}


def chapters() -> list[Path]:
    """Return the pages of the book that have code to execute."""
    return [path for path in sorted((ROOT / "book").glob("*.md")) if "```{code-cell}" in path.read_text("utf-8")]


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


class Links(HTMLParser):
    """Collects what a page loads, where it links to, and which anchors it has."""

    def __init__(self, text: str):
        super().__init__()
        self.loads, self.links, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if (name := values.get("id") or values.get("name")) is not None:
            self.anchors.add(name)
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        if (
            tag in LOADING
            and values.get(LOADING[tag])
            and values.get("rel") not in ("canonical", "index", "next", "prev")
        ):
            self.loads.append(values[LOADING[tag]])


def pages(site: Path) -> dict[Path, Links]:
    return {path: Links(path.read_text("utf-8")) for path in site.rglob("*.html") if "_static" not in path.parts}


# --- executed notebooks ---


@pytest.mark.parametrize("chapter", chapters(), ids=lambda path: path.stem)
def test_executed_notebook_is_the_chapter(site: Path, chapter: Path):
    """nbval passes a notebook without outputs, so what it gets must be executed, whole and current."""
    notebook = nbformat.read(EXECUTED / "book" / f"{chapter.stem}.ipynb", as_version=4)
    refuse_unexecuted(notebook)
    assert [cell.source for cell in code(notebook)] == [cell.source for cell in code(jupytext.read(chapter))]


def refuse_unexecuted(notebook: nbformat.NotebookNode) -> None:
    """Raise if a code cell was not run, or none of them showed anything."""
    cells = code(notebook)
    assert cells, "no code cells"
    assert all(cell.execution_count for cell in cells if cell.source.strip()), "a cell was not executed"
    assert any(cell.outputs for cell in cells), "no cell has an output"
    assert not [out for cell in cells for out in cell.outputs if out.output_type == "error"], "a cell failed"


def test_unexecuted_notebook_is_refused():
    fresh = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])
    with pytest.raises(AssertionError, match="was not executed"):
        refuse_unexecuted(fresh)


@pytest.mark.parametrize(("shown", "verdict"), [("2", 0), ("3", 1)])
def test_nbval_sees_a_wrong_output(tmp_path: Path, shown: str, verdict: int):
    result = nbformat.v4.new_output("execute_result", {"text/plain": shown}, execution_count=1)
    cell = nbformat.v4.new_code_cell("1 + 1", execution_count=1, outputs=[result])
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), tmp_path / "seeded.ipynb")
    options = [
        "--nbval",
        "--nbval-sanitize-with",
        str(ROOT / "tests" / "nbval.cfg"),
        "-p",
        "no:cacheprovider",
    ]
    command = [sys.executable, "-m", "pytest", "-q", *options, "seeded.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == verdict, done.stdout
    assert ("1 passed" if verdict == 0 else "1 failed") in done.stdout


def test_every_page_with_code_offers_its_executed_notebook(site: Path):
    for chapter in chapters():
        links = Links((site / "book" / f"{chapter.stem}.html").read_text("utf-8")).links
        assert f"../_sources/book/{chapter.stem}.ipynb" in links
        offered = site / "_sources" / "book" / f"{chapter.stem}.ipynb"
        assert offered.read_bytes() == (EXECUTED / "book" / f"{chapter.stem}.ipynb").read_bytes()


# --- the execution cache ---


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return the digest function, bound to a small copy of the package's layout, and that copy."""
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    import website

    for name in (
        "diffusion_edu/widgets/a.mjs",
        "diffusion_edu/b.py",
        "data/checkpoints/c.safetensors",
        "book/d.md",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("old")
    return lambda: website.execution_digest(tmp_path)


@pytest.mark.parametrize(
    ("name", "matters"),
    [
        ("diffusion_edu/b.py", True),
        ("diffusion_edu/widgets/a.mjs", True),
        ("diffusion_edu/new.py", True),
        ("data/checkpoints/c.safetensors", True),
        ("data/README.md", False),
        ("book/d.md", False),  # myst-nb looks at the chapters' own cells
    ],
)
def test_cache_follows_what_outputs_depend_on(tmp_path: Path, digest, name: str, matters: bool):
    before = digest()
    assert digest() == before
    (tmp_path / name).write_text("new")
    assert (digest() != before) == matters


def test_old_caches_are_pruned_and_the_current_one_kept(tmp_path: Path, digest):
    import website

    for age in range(6):
        (tmp_path / "caches" / str(age)).mkdir(parents=True)
        os.utime(tmp_path / "caches" / str(age), (1000 - age, 1000 - age))
    website.prune_caches(tmp_path / "caches", tmp_path / "caches" / "5")
    assert sorted(path.name for path in (tmp_path / "caches").iterdir()) == ["0", "1", "5"]


# --- the site ---


def test_site_loads_nothing_from_third_parties(site: Path):
    foreign = {str(path): [each for each in found.loads if FOREIGN.match(each)] for path, found in pages(site).items()}
    assert {path: each for path, each in foreign.items() if each} == {}
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import\s+|url\()\s*['\"]?(https?:)?//", sheet.read_text("utf-8")), sheet
    for path in pages(site):
        assert not re.search(r"unpkg\.com|jsdelivr|cdnjs|googleapis", path.read_text("utf-8")), path


def test_site_has_no_absolute_paths(site: Path):
    """A link that starts with / would leave the subpath, or the folder, that the site lives in."""
    absolute = {
        str(path): [e for e in found.loads + found.links if e.startswith("/")] for path, found in pages(site).items()
    }
    assert {path: each for path, each in absolute.items() if each} == {}


def test_internal_links_lead_somewhere(site: Path):
    found, broken = pages(site), []
    for page, links in found.items():
        for link in links.links + links.loads:
            parts = urlsplit(link)
            if parts.scheme or FOREIGN.match(link):
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page.resolve()
            anchors = next((each.anchors for path, each in found.items() if path.resolve() == target), None)
            if not target.exists() or (
                anchors is not None and parts.fragment and unquote(parts.fragment) not in anchors
            ):
                broken.append(f"{page.relative_to(site)}: {link}")
    assert broken == []


# --- what the book is made with ---


def test_requirements_are_exact():
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []


def test_lock_file_names_no_host():
    lock = json.loads((ROOT / "package-lock.json").read_text())
    assert [name for name, entry in lock["packages"].items() if name and not entry.get("integrity")] == []
    assert "://" not in json.dumps([entry.get("resolved", "") for entry in lock["packages"].values()])


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_alone_lists_its_targets():
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    for target in ("book", "test", "lab", "serve", "weigh", "screenshots", "train", "bench", "check", "clean", "help"):
        assert re.search(rf"^\s*{target}\s", shown, re.MULTILINE), target
