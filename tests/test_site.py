"""What the build makes of formulas, icons and pictures, so that pages stay light."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT

FORMULAS = [("x_t", False), (r"\left(\frac{a}{\frac{b}{c}}\right) \quad\text{if } a > b", True)]


@pytest.fixture
def extensions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the book's own extensions importable."""
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))


@pytest.fixture
def typeset(extensions: None):
    import typeset

    if not (ROOT / "node_modules" / "mathjax").exists():
        pytest.skip("no node_modules: run `make book` first")
    return typeset


# --- formulas ---


def test_formula_has_a_picture_with_its_glyphs_and_mathml(typeset, tmp_path: Path):
    setter = typeset.Typesetter(ROOT, tmp_path / "typeset.json")
    setter.set(FORMULAS)
    for formula in FORMULAS:
        made = setter[formula]
        used = set(re.findall(r'href="#([^"]+)"', made["svg"]))
        assert used and used == set(re.findall(r'path id="([^"]+)"', setter.glyphs(made["svg"])))
        assert "data-" not in made["svg"] and made["svg"].count("<g") == made["svg"].count("</g>")
        assert made["mathml"].startswith("<math") and "data-" not in made["mathml"]
    assert "<msub><mi>x</mi><mi>t</mi></msub>" in setter["x_t", False]["mathml"]


def test_known_formulas_are_not_set_again(typeset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = typeset.Typesetter(ROOT, tmp_path / "typeset.json")[FORMULAS[0]]
    monkeypatch.setattr(typeset, "node_program", lambda: pytest.fail("Node was started"))
    assert typeset.Typesetter(ROOT, tmp_path / "typeset.json")[FORMULAS[0]] == first


def test_a_formula_that_cannot_be_read_says_why(typeset, tmp_path: Path):
    setter = typeset.Typesetter(ROOT, tmp_path / "typeset.json")
    assert "Undefined control sequence" in setter[r"\notacommand x", False]["error"]
    assert "brace" in setter[r"\frac{a", True]["error"]


# --- icons and pictures ---


def test_icon_style_has_a_picture_for_each_icon(extensions: None):
    import slim

    style = slim.icon_style(slim.ICONS)
    assert [name for name in slim.ICONS if f".fa-{name} {{ --icon: url(" not in style] == []
    with pytest.raises(ValueError, match="no icon 'nonsense'"):
        slim.icon_style(["nonsense"])


def test_pages_show_only_icons_that_have_a_picture(site: Path, extensions: None):
    import slim

    marks = {"fa-solid", "fa-lg", "fa-fw", "fa-xl"}
    used = {name for page in site.rglob("*.html") for name in re.findall(r"\bfa-[a-z-]+", page.read_text("utf-8"))}
    assert used - marks <= {f"fa-{name}" for name in slim.ICONS}


def test_small_picture_is_small_and_true(extensions: None):
    import slim

    shades = np.linspace(0, 255, 500)[None, :, None] * np.array([1, 0.5, 0.2]) + np.zeros((200, 1, 1))
    content = io.BytesIO()
    Image.fromarray(shades.round().astype(np.uint8)).convert("RGBA").save(content, "PNG")
    small = Image.open(io.BytesIO(slim.small_picture(content.getvalue())))
    assert (small.format, small.size) == ("WEBP", (500, 200))
    assert np.abs(np.asarray(small.convert("RGB")) - shades).max() <= 12
    assert len(slim.small_picture(content.getvalue())) < len(content.getvalue())
    heavy = io.BytesIO()  # noise: what lossless formats cannot press
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(heavy, "PNG")
    assert len(slim.small_picture(heavy.getvalue())) < len(heavy.getvalue()) / 2


def test_pictures_are_sized_and_wait_for_the_reader(site: Path):
    tags = [
        tag for page in (site / "book").glob("*.html") for tag in re.findall(r"<img\b[^>]*>", page.read_text("utf-8"))
    ]
    pictures = [tag for tag in tags if "_images/" in tag]
    assert pictures
    assert [tag for tag in pictures if not all(f" {name}=" in tag for name in ("width", "height", "loading"))] == []
    assert [tag[:80] for tag in tags if "data:image" in tag] == []
