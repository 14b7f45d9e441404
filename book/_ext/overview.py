"""`{overview}`: the chapters as cards, each with a detail of one of the book's figures, cut out when the site is built.

Its content is a YAML list. An entry has a `page` and a `text`; `figure` names a figure of the book, `alt` says what
its detail shows, `box` which part it is (left, top, right, bottom; fractions of the picture), and `ink: true` that it is
drawn on white, so that a dark page may invert it.
"""

import html
import io
from pathlib import Path

import yaml
from docutils import nodes
from PIL import Image, ImageOps
from slim import Pictures
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

LOGGER = logging.getLogger(__name__)
SIZE = (480, 270)  # pixels of a card's picture: twice what it takes on the page
CARD = """<li><a href="{link}">{picture}<span class="card-title">{title}</span> <span class="card-text">{text}</span>
</a></li>"""


class overview_cards(nodes.General, nodes.Element):  # noqa: N801  (docutils names nodes in lower case)
    """Where the cards go; they are filled when all pages are known."""


class OverviewDirective(SphinxDirective):
    """`{overview}`: see the head of this file."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Leave a place for the cards."""
        return [overview_cards(entries=yaml.safe_load("\n".join(self.content)), line=self.lineno)]


def fill_cards(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Replace each `{overview}` by its cards."""
    for place in list(doctree.findall(overview_cards)):
        if app.builder.format == "html":
            cards = "".join(card(app, docname, entry, place["line"]) for entry in place["entries"])
            place.replace_self(nodes.raw("", f'<ul class="chapter-cards">{cards}</ul>', format="html"))
        else:
            place.replace_self([])


def card(app: Sphinx, docname: str, entry: dict, line: int) -> str:
    """The HTML of one card."""
    page = f"book/{entry['page']}"
    number = app.env.toc_secnumbers.get(page, {}).get("", ())
    title = ". ".join(
        [".".join(map(str, number)), app.env.titles[page].astext()] if number else [app.env.titles[page].astext()]
    )
    return CARD.format(
        link=app.builder.get_relative_uri(docname, page),
        picture=picture(app, docname, entry, line),
        title=html.escape(title),
        text=html.escape(entry["text"]),
    )


def picture(app: Sphinx, docname: str, entry: dict, line: int) -> str:
    """The `<img>` of a card, or nothing where no figure is named; a warning if there is no such figure."""
    if "figure" not in entry:
        return ""
    found = find_figure(app, entry["figure"])
    if found is None:
        LOGGER.warning("overview: there is no figure %r", entry["figure"], location=(docname, line))
        return ""
    with Image.open(found) as whole:
        box = [round(part * whole.size[i % 2]) for i, part in enumerate(entry.get("box", (0, 0, 1, 1)))]
        detail = ImageOps.fit(whole.convert("RGB").crop(box), SIZE, Image.Resampling.LANCZOS)
    content = io.BytesIO()
    detail.save(content, "PNG")
    name, width, height = Pictures(Path(app.outdir)).add(content.getvalue())
    kind = "ink" if entry.get("ink") else "light"
    source = f"{'../' * docname.count('/')}_images/{name}"
    alt = html.escape(entry["alt"])
    return f'<img class="{kind}" src="{source}" width="{width}" height="{height}" alt="{alt}" loading="lazy">'


def find_figure(app: Sphinx, label: str) -> Path | None:
    """The picture file of a figure of the book."""
    docname = app.env.domaindata["std"]["anonlabels"].get(label, ("",))[0]
    if docname:
        for figure in app.env.get_doctree(docname).findall(nodes.figure):
            if label in figure["names"] + figure["ids"]:
                image = next(figure.findall(nodes.image), None)
                return None if image is None else Path(app.srcdir) / image["uri"]
    return None


def setup(app: Sphinx) -> dict:
    """Connect the directive."""
    app.add_node(overview_cards)
    app.add_directive("overview", OverviewDirective)
    app.connect("doctree-resolved", fill_cards)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": False}
