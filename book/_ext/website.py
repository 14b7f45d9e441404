"""What the site needs beyond Jupyter Book: an honest execution cache, notebooks to download, a front door."""

import hashlib
import json
import shutil
from pathlib import Path

import nbformat
from docutils import nodes
from jupyter_cache import get_cache
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment

# Everything besides its own code cells that a chapter's output depends on.
EXECUTION_SOURCES = (
    "diffusion_edu/**/*.py",
    "diffusion_edu/**/*.mjs",
    "diffusion_edu/**/*.css",
    "data/**/*",
    "requirements.txt",
)
NOT_SOURCES = ("data/measured/site.json", "data/measured/browser.json")  # measured from the built site
CACHES_KEPT = 3

FRONT_DOOR = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<meta http-equiv="refresh" content="0; url={page}">
</head>
<body><p><a href="{page}">{title}</a></p></body>
</html>
"""


def execution_digest(root: Path) -> str:
    """Return 16 hex digits that change when the package, the data or the pinned versions change."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in EXECUTION_SOURCES for path in root.glob(pattern)}):
        name = path.relative_to(root).as_posix()
        if (
            path.is_file() and path.suffix != ".md" and name not in NOT_SOURCES
        ):  # notes beside the data change no output
            digest.update(f"{name}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def prune_caches(folder: Path, current: Path) -> None:
    """Delete all but the most recently used execution caches in `folder`; never the current one."""
    others = [path for path in folder.iterdir() if path != current]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others[CACHES_KEPT - 1 :]:
        shutil.rmtree(path, ignore_errors=True)


def choose_execution_cache(app: Sphinx, config: Config) -> None:
    """Execute chapters into a cache of their own for each state of package and data.

    myst-nb looks at a chapter's code cells only, so a change in the package would leave stale outputs. The
    changed setting also makes Sphinx read every page again.
    """
    folder = Path(app.outdir).parent / "executed"
    current = folder / execution_digest(Path(app.srcdir))
    current.mkdir(parents=True, exist_ok=True)
    current.touch()
    prune_caches(folder, current)
    config.nb_execution_cache_path = str(current)


def write_widget_files(app: Sphinx) -> None:
    """Put what all widgets share among the static files: their style, and the modules that theirs import.

    Those are there twice: as text for the widgets (file:// can fetch nothing), and as they are for the network's worker.
    """
    origin, target = Path(app.srcdir) / "diffusion_edu" / "widgets", Path(app.outdir) / "_static"
    target.mkdir(parents=True, exist_ok=True)
    shared = [path for path in sorted(origin.glob("*.mjs")) if not path.with_suffix(".py").exists()]
    for path in (origin / "widgets.css", *shared):
        shutil.copy2(path, target)
    texts = {path.name: path.read_text(encoding="utf-8") for path in shared}
    (target / "widget-shared.js").write_text(f"globalThis.eduShared = {json.dumps(texts)};\n", encoding="utf-8")


def retire_thebe(app: Sphinx) -> None:
    """Undo sphinx-thebe, which Jupyter Book always loads: it names a foreign host, and its script throws."""
    for listeners in app.events.listeners.values():
        listeners[:] = [each for each in listeners if not each.handler.__module__.startswith("sphinx_thebe")]
    app.registry.css_files[:] = [each for each in app.registry.css_files if "thebe" not in each[0]]


def executed_notebook(app: Sphinx, docname: str) -> Path:
    """Return where a page's executed notebook lies."""
    return Path(app.outdir).parent / "jupyter_execute" / f"{docname}.ipynb"


def offer_notebook(app: Sphinx, pagename: str, template: str, context: dict, doctree: object) -> None:
    """Put the executed notebook beside the page's source, where the theme's download button finds it."""
    if NbMetadataCollector.get_exec_data(app.env, pagename) is None:
        return
    target = Path(app.outdir) / "_sources" / f"{pagename}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(executed_notebook(app, pagename), target)
    context["ipynb_source"] = f"{pagename}.ipynb"


def keep_outputs_whole(app: Sphinx, doctree: nodes.document) -> None:
    """Write the executed notebook as the kernel left it.

    myst-nb writes it after rendering: without the glued values, and with merged streams twice. Then the notebook
    would differ from what a reader sees who runs it.
    """
    if NbMetadataCollector.get_exec_data(app.env, app.env.docname) is not None:
        path = executed_notebook(app, app.env.docname)
        cache = get_cache(app.config.nb_execution_cache_path)
        _, notebook = cache.merge_match_into_notebook(nbformat.read(path, as_version=4))
        nbformat.write(notebook, path)


def remove_orphans(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    """Forget the executed notebook of a page that is read again or gone."""
    executed_notebook(app, docname).unlink(missing_ok=True)


def bind_punctuation(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Keep a formula and the full stop behind it on one line: browsers may break after every formula."""
    for formula in list(doctree.findall(nodes.math)):
        parent = formula.parent
        place = parent.index(formula)
        after = parent[place + 1] if place + 1 < len(parent) else None
        if isinstance(after, nodes.Text) and after[0] in ".,;:!?)":
            parent[place] = nodes.inline("", "", formula.deepcopy(), nodes.Text(after[0]), classes=["unbroken"])
            parent[place + 1] = nodes.Text(after[1:])


def write_front_door(app: Sphinx, error: Exception | None) -> None:
    """Write `index.html`, which leads to the first page over http and from a folder alike."""
    if error is None and app.builder.format == "html":
        page = app.builder.get_target_uri(app.config.master_doc)
        text = FRONT_DOOR.format(title=app.config.html_title, page=page)
        (Path(app.outdir) / "index.html").write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict:
    """Connect these to Sphinx."""
    retire_thebe(app)
    app.connect("doctree-read", keep_outputs_whole)
    app.connect("env-purge-doc", remove_orphans)
    app.connect("doctree-resolved", bind_punctuation)
    app.connect("html-page-context", offer_notebook)
    app.connect("config-inited", choose_execution_cache)
    app.connect("builder-inited", write_widget_files)
    app.connect("build-finished", write_front_door)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
