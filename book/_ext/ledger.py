"""The equation ledger: every labelled equation of the book is checked by a test, and the page says so.

`pytest tests/equations --ledger FILE` writes which test checked which label, how, and how closely. This
extension reads that file, marks each labelled equation, warns (the build treats warnings as errors) for a
label without a passing test and for a test without a label, and renders the table where a page says
`{equation-ledger}`.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

LOGGER = logging.getLogger(__name__)
MARK = "equation-mark"
METHODS = {"symbolic": "by computer algebra", "exact": "exactly", "monte carlo": "by simulation"}
COLUMNS = ("Equation", "Where", "Method", "Tolerance", "Seconds", "Test")


class ledger_table(nodes.General, nodes.Element):  # noqa: N801  (docutils names nodes in lower case)
    """Where the table goes; it is filled when all pages, and so all equation numbers, are known."""


class ledger_count(nodes.Inline, nodes.Element):  # noqa: N801
    """Where a number of the ledger goes."""


class LedgerCountRole(SphinxRole):
    """`` {ledger-count}`equations` `` or `` `checks` ``: how many there are in the book, counted by the build."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Leave a place for the number."""
        if self.text not in ("equations", "checks"):
            message = self.inliner.reporter.error(
                f"ledger-count knows 'equations' and 'checks', got {self.text!r}", line=self.lineno
            )
            return [], [message]
        return [ledger_count(what=self.text)], []


class LedgerDirective(SphinxDirective):
    """`{equation-ledger}`: the table of all checked equations."""

    def run(self) -> list[nodes.Node]:
        """Leave a place for the table."""
        self.env.ledger_pages.add(self.env.docname)
        return [ledger_table()]


def ledger_file(app: Sphinx) -> Path:
    """Return the path of the ledger that the test run wrote."""
    return Path(app.srcdir) / app.config.ledger_path


def load_ledger(path: Path) -> dict[str, list[dict]]:
    """Return the records of each label; none if the tests have not run."""
    if not path.exists():
        return {}
    ledger: dict[str, list[dict]] = {}
    for record in json.loads(path.read_text(encoding="utf-8"))["records"]:
        ledger.setdefault(record["label"], []).append(record)
    return ledger


def prepare(app: Sphinx) -> None:
    """Read the ledger and forget what an older build knew of it."""
    path = ledger_file(app)
    app.env.ledger = load_ledger(path)
    app.env.ledger_digest_now = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
    app.env.ledger_pages = getattr(app.env, "ledger_pages", set())
    app.env.ledger_places = getattr(app.env, "ledger_places", {})


def outdated(app: Sphinx, env: BuildEnvironment, added: set, changed: set, removed: set) -> Iterable[str]:
    """Read all pages again when the ledger has changed, so that marks and warnings are never stale."""
    unchanged = getattr(env, "ledger_digest", None) == env.ledger_digest_now
    env.ledger_digest = env.ledger_digest_now
    return [] if unchanged else sorted(env.found_docs)


def forget(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    """Forget the equations of a page that is read again or gone."""
    env.ledger_pages.discard(docname)
    env.ledger_places = {label: place for label, place in env.ledger_places.items() if place[0] != docname}


def merge(app: Sphinx, env: BuildEnvironment, docnames: list[str], other: BuildEnvironment) -> None:
    """Take over what a parallel reader has found."""
    env.ledger_pages |= other.ledger_pages
    env.ledger_places |= {label: place for label, place in other.ledger_places.items() if place[0] in docnames}


def collect(app: Sphinx, doctree: nodes.document) -> None:
    """Note where each labelled equation stands: page, order on the page, line, section."""
    for order, block in enumerate(doctree.findall(nodes.math_block)):
        if label := block.get("label"):
            app.env.ledger_places[label] = (app.env.docname, order, block.line, section_title(block))


def section_title(node: nodes.Node) -> str:
    """Return the title of the section around `node`."""
    while node is not None and not isinstance(node, nodes.section):
        node = node.parent
    return node.next_node(nodes.title).astext() if node is not None else ""


def is_checked(records: list[dict]) -> bool:
    """Say whether there are tests and all of them passed."""
    return bool(records) and all(record["outcome"] == "passed" for record in records)


def check_both_ways(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn for a label without a passing test and for a test without a label."""
    for label, (docname, _, line, _) in sorted(env.ledger_places.items()):
        records = env.ledger.get(label, [])
        if not label.startswith("eq-"):
            problem = "its label must start with 'eq-'"
        elif not records:
            problem = f"no test checks it: mark one with @equation({label!r}, ...) in tests/equations"
        elif not is_checked(records):
            problem = "its test did not pass: " + ", ".join(r["test"] for r in records if r["outcome"] != "passed")
        else:
            continue
        LOGGER.warning("equation %r: %s", label, problem, location=(docname, line), type="ledger")
    for label in sorted(set(env.ledger) - set(env.ledger_places)):
        tests = ", ".join(record["test"] for record in env.ledger[label])
        LOGGER.warning("equation test without an equation: no page has the label %r (%s)", label, tests, type="ledger")


def one_row_a_test(records: list[dict]) -> list[dict]:
    """Return the records with the cases of a parametrised test taken together: their number, and their time in all."""
    rows: dict[tuple, dict] = {}
    for record in records:
        test = record["test"].split("/")[-1].split("[")[0]
        key = (test, record["method"], record["tolerance"])
        row = rows.setdefault(key, record | {"test": test, "seconds": 0.0, "cases": 0})
        row["seconds"] += record["seconds"]
        row["cases"] += 1
    return list(rows.values())


def row_id(label: str) -> str:
    """Return the anchor of a label's row in the table."""
    return f"ledger-{label}"


def closeness(record: dict) -> str:
    """Return a record's tolerance without its reason: "1e-12 (rounding)" gives "1e-12"."""
    return record["tolerance"].split(" (")[0]


def add_marks(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put "tested" under each checked equation, with a link to its row."""
    ledger_page = min(app.env.ledger_pages, default=None)
    for block in list(doctree.findall(nodes.math_block)):
        records = app.env.ledger.get(block.get("label"), [])
        if not is_checked(records) or ledger_page is None:
            continue
        block.parent.insert(block.parent.index(block) + 1, mark(app, docname, ledger_page, block["label"], records))


def mark(app: Sphinx, docname: str, ledger_page: str, label: str, records: list[dict]) -> nodes.Node:
    """Return the line under an equation: which method, how close."""
    ways = dict.fromkeys(f"{record['method']}, {closeness(record)}" for record in records)
    uri = f"{app.builder.get_relative_uri(docname, ledger_page)}#{row_id(label)}"
    link = nodes.reference("", f"✓ tested: {'; '.join(ways)}", refuri=uri, internal=True, classes=[MARK])
    link["reftitle"] = f"How {label} is tested: its row in the equation ledger"
    return nodes.container("", nodes.paragraph("", "", link), classes=[f"{MARK}-line"])


def fill_tables(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Replace each `{equation-ledger}` by the table, in the order of the book."""
    for place in list(doctree.findall(ledger_table)):
        place.replace_self([summary(app), table(app, docname)])


def fill_counts(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Replace each `ledger-count` by its number."""
    for place in list(doctree.findall(ledger_count)):
        equations = in_reading_order(app)
        checks = sum(len(app.env.ledger[label]) for label in equations)
        place.replace_self(nodes.Text(f"{len(equations) if place['what'] == 'equations' else checks:,}"))


def summary(app: Sphinx) -> nodes.Node:
    """Return a sentence that counts the equations of the table, the ways they are checked, and the time it took."""
    equations = {label: app.env.ledger[label] for label in in_reading_order(app)}
    records = [record for each in equations.values() for record in each]
    ways = {method: sum(any(r["method"] == method for r in each) for each in equations.values()) for method in METHODS}
    counted = ", ".join(f"{count} {name}" for (_, name), count in zip(METHODS.items(), ways.values(), strict=True))
    seconds = sum(record["seconds"] for record in records)
    return nodes.paragraph(
        "",
        f"{len(equations)} labelled equations, all checked: {counted}, some of them in several ways; {len(records)} checks "
        f"that took {seconds:.0f} seconds when this site was built.",
    )


def table(app: Sphinx, docname: str) -> nodes.Node:
    """Return the ledger as a table with one row for each test."""
    body = nodes.tbody()
    for label in in_reading_order(app):
        rows = [table_row(cells(app, docname, label, record)) for record in one_row_a_test(app.env.ledger[label])]
        rows[0]["ids"].append(row_id(label))
        body += rows
    return framed(body)


def in_reading_order(app: Sphinx) -> list[str]:
    """Return the labels that stand on a page and have a test, as the book orders them."""
    pages = [app.config.master_doc, *app.env.toctree_includes.get(app.config.master_doc, [])]
    place = {page: number for number, page in enumerate(pages)}
    known = [label for label in app.env.ledger_places if label in app.env.ledger]
    return sorted(known, key=lambda label: (place[app.env.ledger_places[label][0]], app.env.ledger_places[label][1]))


def cells(app: Sphinx, docname: str, label: str, record: dict) -> list[nodes.Node]:
    """Return the contents of one row, in the order of COLUMNS."""
    page, _, _, section = app.env.ledger_places[label]
    anchor = nodes.make_id(f"equation-{label}")
    number = app.env.toc_fignumbers.get(page, {}).get("displaymath", {}).get(anchor, ())
    name = f"({'.'.join(map(str, number))}) {label}" if number else label
    uri = f"{app.builder.get_relative_uri(docname, page)}#{anchor}"
    chapter = app.env.titles[page].astext()
    return [
        nodes.reference("", name, refuri=uri, internal=True),
        nodes.Text(chapter if section in ("", chapter) else f"{chapter}: {section}"),
        nodes.Text(record["method"]),
        nodes.Text(record["tolerance"]),
        nodes.Text(f"{record['seconds']:.2f}"),
        test_name(record),
    ]


def test_name(record: dict) -> nodes.Node:
    """Return a test's name, and of how many cases it consists if there are several."""
    name, cases = nodes.literal("", record["test"]), record["cases"]
    return nodes.inline("", "", name, nodes.Text(f", {cases} cases" if cases > 1 else ""))


def table_row(contents: Iterable[nodes.Node]) -> nodes.row:
    """Return one row from the contents of its cells."""
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", content)) for content in contents))


def framed(body: nodes.tbody) -> nodes.table:
    """Return the table around `body`, with its head."""
    group = nodes.tgroup(cols=len(COLUMNS))
    group += [nodes.colspec(colwidth=1) for _ in COLUMNS]
    group += nodes.thead("", table_row(nodes.Text(title) for title in COLUMNS))
    group += body
    return nodes.table("", group, classes=["equation-ledger"])


def setup(app: Sphinx) -> dict:
    """Connect the ledger to Sphinx."""
    app.add_config_value("ledger_path", "_build/ledger.json", "env")
    app.add_node(ledger_table)
    app.add_directive("equation-ledger", LedgerDirective)
    app.add_node(ledger_count)
    app.add_role("ledger-count", LedgerCountRole())
    app.connect("builder-inited", prepare)
    app.connect("env-get-outdated", outdated)
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", merge)
    app.connect("doctree-read", collect)
    app.connect("env-check-consistency", check_both_ways)
    app.connect("doctree-resolved", fill_tables)
    app.connect("doctree-resolved", fill_counts)
    app.connect("doctree-resolved", add_marks)
    return {"version": "1", "env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}
