"""A page carries what its reader needs: small pictures that come when they are looked at, the icons it shows.

Jupyter Book's pages would otherwise bring all of Font Awesome (540 kB compressed, for fifteen icons), pictures as
matplotlib wrote them, and each widget's state a second time for a notebook server that is not there.
"""

import base64
import hashlib
import io
import re
from pathlib import Path

import pydata_sphinx_theme
from myst_nb.sphinx_ import NbMetadataCollector
from PIL import Image
from sphinx.application import Sphinx
from sphinx.config import Config

ICONS = (
    "angle-left angle-right arrow-up arrow-left arrow-right bars circle-half-stroke code download expand file file-pdf list "
    "magnifying-glass moon sun xmark pencil lightbulb comments terminal rocket cube"
).split()
ICON_STYLE = """/* Icons: Font Awesome Free 6 (fontawesome.com), CC BY 4.0. */
.fa-solid, .fas { display: inline-block; width: 1.1em; height: 1em; vertical-align: -0.125em; background: currentColor;
  mask: var(--icon) center / contain no-repeat; -webkit-mask: var(--icon) center / contain no-repeat; }
.fa-solid::before, .fas::before { content: none !important; }
.fa-lg { font-size: 1.25em; vertical-align: -0.16em; }
@media (forced-colors: active) { .fa-solid, .fas { background: CanvasText; } }
"""
LOSSLESS = 20_000  # bytes: clouds of points weigh more without loss, and nobody sees the loss in them
EMBEDDED = re.compile(r'src="data:image/png;base64,([A-Za-z0-9+/=]+)"')
PICTURE = re.compile(r'<img\b[^>]*\bsrc="((?:\.\./)*_images/([^"/]+\.(?:png|webp)))"[^>]*>')
WIDTH = re.compile(r'\s(?:width|height)="[^"]*"')


def icon_style(icons: list[str]) -> str:
    """A stylesheet with the outlines of `icons`, from the theme's copy of Font Awesome. Raises ValueError for others."""
    theme = Path(pydata_sphinx_theme.__file__).parent / "theme/pydata_sphinx_theme/static"
    solid = (theme / "scripts/fontawesome.js").read_text(encoding="utf-8")
    rules = []
    for name in icons:
        found = re.search(rf'[{{,]"?{name}"?:\[(\d+),(\d+),\[[^\]]*\],"\w+","([^"]+)"\]', solid)
        if found is None:
            raise ValueError(f"Font Awesome has no icon {name!r}")
        width, height, outline = found.groups()
        picture = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}'><path d='{outline}'/></svg>"
        rules.append(f'.fa-{name} {{ --icon: url("data:image/svg+xml,{picture.replace("#", "%23")}"); }}\n')
    return ICON_STYLE + "".join(rules)


def add_icons(app: Sphinx, config: Config) -> None:
    """Write the icons' stylesheet where the site's other static files are taken from."""
    folder = Path(app.outdir).parent / "slim"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "icons.css").write_text(icon_style(ICONS), encoding="utf-8")
    config.html_static_path.append(str(folder.relative_to(app.srcdir)))


def small_picture(content: bytes) -> bytes:
    """A picture as WebP: lossless with at most 256 colours, or where that is heavy with some loss."""
    picture = Image.open(io.BytesIO(content))
    white = Image.new("RGBA", picture.size, "white")
    opaque = Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    few = opaque.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).convert("RGB")
    small = io.BytesIO()
    few.save(small, "WEBP", lossless=True, method=4)
    if small.tell() <= LOSSLESS:
        return small.getvalue()
    soft = io.BytesIO()
    opaque.save(soft, "WEBP", quality=65, method=6)
    return min(small.getvalue(), soft.getvalue(), key=len)


class Pictures:
    """The small pictures of a site, kept from one build to the next by the digest of what they were made from."""

    def __init__(self, site: Path) -> None:
        self.folder = site / "_images"
        self.kept = site.parent / "slim" / "pictures"
        self.kept.mkdir(parents=True, exist_ok=True)

    def add(self, content: bytes) -> tuple[str, int, int]:
        """Put a picture into the site; return its file name, width and height."""
        name = hashlib.sha256(content).hexdigest()[:24] + ".webp"
        kept = self.kept / name
        if not kept.exists():
            partial = kept.with_suffix(".tmp")
            partial.write_bytes(small_picture(content))
            partial.replace(kept)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_bytes(kept.read_bytes())
        with Image.open(kept) as picture:
            return name, *picture.size


def slim_page(app: Sphinx, pagename: str, template: str, context: dict, doctree: object) -> None:
    """Make the pictures of a page small, sized, and loaded when they come into view."""
    body = context.get("body")
    if not body:
        return
    up = "../" * pagename.count("/")
    pictures = Pictures(Path(app.outdir))
    sources = {name: uri for uri, name in app.builder.images.items()}

    def take_out(found: re.Match) -> str:
        name, _, _ = pictures.add(base64.b64decode(found[1]))
        return f'src="{up}_images/{name}" loading="lazy"'

    def shrink(found: re.Match) -> str:
        tag, source, name = found[0], found[1], found[2]
        if name in sources and name.endswith(".png"):
            name, width, height = pictures.add((Path(app.srcdir) / sources[name]).read_bytes())
            links[source] = f"{up}_images/{name}"
            tag = WIDTH.sub("", tag).replace(source, links[source])
            tag = tag.replace("<img", f'<img width="{width}" height="{height}"', 1)
        return tag if "loading=" in tag else tag.replace("<img", '<img loading="lazy"', 1)

    links: dict[str, str] = {}
    body = PICTURE.sub(shrink, EMBEDDED.sub(take_out, body))
    for source, target in links.items():
        body = body.replace(f'href="{source}"', f'href="{target}"')
        app.builder.images.pop(sources[source.rsplit("/", 1)[1]], None)
    context["body"] = body


def drop_server_state(app: Sphinx, pagename: str, template: str, context: dict, doctree: object) -> None:
    """Leave out the widgets' state for a notebook server: the widgets carry their own."""
    NbMetadataCollector.get_js_files(app.env, pagename).pop("ipywidgets_state", None)


def setup(app: Sphinx) -> dict:
    """Connect these to Sphinx."""
    app.connect("config-inited", add_icons)
    app.connect("html-page-context", drop_server_state, priority=100)
    app.connect("html-page-context", slim_page)
    app.add_css_file("icons.css")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": False}
