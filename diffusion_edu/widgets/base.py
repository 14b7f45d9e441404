"""What all widgets share: one ES module, shown by two hosts.

In JupyterLab a widget is an ipywidget (anywidget). On the built site the same object's `text/html` counts: it
carries the module, the state and a static figure, and `book/_static/widget-host.js` mounts it.

Modules import from files that all share, `common.mjs` among them. Hosts load a module from a blob, where relative
imports lead nowhere: for JupyterLab `join_modules` puts all into one, and the site's host has the shared files once
for all pages.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
import sys
from abc import abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import anywidget
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from diffusion_edu.plotting import COLOURS, use_style

HTML = """<div class="edu-widget" data-widget="{name}">
<script type="application/json" class="edu-state">{state}</script>
<script type="application/json" class="edu-module">{module}</script>
<div class="edu-static"><img src="data:image/png;base64,{png}" width="{width}" height="{height}" alt="{alt}"></div>
</div>"""
IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([\w-]+\.mjs)";$', re.MULTILINE)
DOTS_PER_INCH = 192  # twice that of CSS pixels, for sharp print and screens


class StaticFigure(NamedTuple):
    """What stands in for a widget in print and without JavaScript."""

    figure: Figure
    alt: str


class Widget(anywidget.AnyWidget):
    """A widget whose synced traits are its whole state.

    A subclass has its module beside it (`name.mjs` beside `name.py`), tags its state with `sync=True`, and draws
    `static_figure`.
    """

    _css = Path(__file__).with_name("widgets.css")
    _module: Path

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        beside = Path(getattr(sys.modules[cls.__module__], "__file__", None) or "notebook").with_suffix(".mjs")
        if beside.is_file() and "_esm" not in vars(cls):  # a class written in a notebook keeps its parent's module
            cls._module, cls._esm = beside, join_modules(beside)

    @abstractmethod
    def static_figure(self) -> StaticFigure:
        """Draw the widget's present state as a figure that needs no JavaScript, with a text for those who see none."""

    def state(self) -> dict[str, Any]:
        """The synced traits of the subclass: what the module's `model.get` answers, without anywidget's own."""
        common = anywidget.AnyWidget.class_trait_names()
        return {
            name: value
            for name, value in sorted(self.trait_values(sync=True).items())
            if name not in common and not name.startswith("_")
        }

    def to_html(self) -> str:
        """Module, state and static figure, as the built site's host reads them."""
        with plt.rc_context():
            use_style()
            figure, alt = self.static_figure()
            picture = small_png(figure)
        width, height = figure.get_size_inches() * 96
        return HTML.format(
            name=html.escape(type(self).__name__),
            state=script_json(self.state()),
            module=script_json(self._module.read_text(encoding="utf-8")),
            png=to_base64(picture),
            width=round(width),
            height=round(height),
            alt=html.escape(alt),
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        return {**data, "text/html": self.to_html()}, metadata


def join_modules(path: Path) -> str:
    """The module with all that it imports from files beside it: one that any host can load, wherever from."""

    def inline(found: re.Match[str]) -> str:
        names, text = found[1], join_modules(path.with_name(found[2]))
        return f"const {{{names}}} = (() => {{\n{re.sub('^export ', '', text, flags=re.M)}\nreturn {{{names}}};\n}})();"

    return IMPORT.sub(inline, path.read_text(encoding="utf-8"))


def small_png(figure: Figure) -> bytes:
    """The figure as a PNG of few colours: greys and tints of the book's palette. Noise compresses badly otherwise."""
    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", dpi=DOTS_PER_INCH)
    palette = Image.new("P", (1, 1))
    palette.putpalette([round(channel) for colour in palette_colours() for channel in colour])
    picture = Image.open(full).convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE)
    picture.save(small, format="PNG", optimize=True)
    return small.getvalue()


def grey_png(sheet: np.ndarray, levels: int = 16) -> bytes:
    """A picture, uint8 (H, W), as a PNG of so many grey levels, at most 16: four bits a pixel."""
    small, file = np.rint(sheet / (255 / (levels - 1))).astype(np.uint8), io.BytesIO()
    picture = Image.frombytes("P", (small.shape[1], small.shape[0]), small.tobytes())
    picture.putpalette([level * 255 // (levels - 1) for level in range(levels) for _ in "rgb"])
    picture.save(file, format="PNG", bits=4, optimize=True)
    return file.getvalue()


def palette_colours() -> list[tuple[float, ...]]:
    """32 greys, and each of COLOURS at five strengths on white; channels from 0 to 255."""
    greys = [(grey * 255 / 31,) * 3 for grey in range(32)]
    strengths = (1, 0.8, 0.6, 0.4, 0.2)
    tints = [
        tuple(255 * (1 - strength * (1 - channel)) for channel in to_rgb(colour))
        for colour in COLOURS
        for strength in strengths
    ]
    return greys + tints


def script_json(state: dict[str, Any] | str) -> str:
    """JSON that may stand in an HTML script: no text in it can end the script. Raises ValueError for NaN."""
    return json.dumps(state, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def to_base64(content: bytes) -> str:
    """Bytes as base64 text."""
    return base64.b64encode(content).decode("ascii")


def check_range(name: str, value: float, low: float, high: float, *, below: bool = False) -> float:
    """`value`, if it is in [low, high], or in [low, high) when `below`; otherwise ValueError."""
    if low <= value < high or (value == high and not below):
        return value
    raise ValueError(f"{name} must lie in [{low:g}, {high:g}{')' if below else ']'}, got {value:g}")
