"""The translator: its numbers are those of the lines that it shows, and its formulas are well formed."""

import re
from xml.etree import ElementTree

import pytest
import torch

from diffusion_edu.conventions import GUIDANCE_TIME, SOURCES, evaluate, names, their_names
from diffusion_edu.schedules import LinearBeta

widgets = pytest.importorskip("diffusion_edu.widgets", reason="anywidget is not installed: widgets were not tested")
from diffusion_edu.widgets.mathml import TOKEN, pieces, to_mathml  # noqa: E402

NAME, PAGE, SLIDER = "ConventionTranslator", "book/notation.html", "our time t"


def example() -> "widgets.ConventionTranslator":
    return widgets.ConventionTranslator()


@pytest.fixture(scope="module")
def translator() -> "widgets.ConventionTranslator":
    return example()


def test_the_page_holds_what_the_shown_lines_give(translator):
    for key, page in translator.sources.items():
        for quantity, row in page["rows"].items():
            guided = quantity == "guidance"
            t, w = torch.tensor([GUIDANCE_TIME if guided else 0.37], dtype=torch.float64), 2.5
            place, ours = 5 if guided else 36, names(t, w)
            shown = evaluate(row["theirs"]["code"], their_names(SOURCES[key], ours), 1).item()
            assert row["theirs"]["values"][place] == pytest.approx(shown, rel=1e-4)
            assert row["ours"]["values"][place] == pytest.approx(
                evaluate(row["ours"]["code"], ours, 1).item(), rel=1e-4
            )
            assert len(row["theirs"]["values"]) == (17 if guided else 99)


def test_both_sides_show_the_same_digits(translator):
    rows = [row for page in translator.sources.values() for row in page["rows"].values()]
    assert len(rows) >= 45
    for row in rows:
        assert row["theirs"]["values"] == pytest.approx(row["ours"]["values"], rel=2e-5)  # the fifth digit is rounded


def test_formulas_are_well_formed(translator):
    for page in translator.sources.values():
        for row in page["rows"].values():
            for side in row.values():
                for formula in re.findall("<math.*?</math>", side["formula"]):
                    assert "".join(ElementTree.fromstring(formula).itertext()).strip()


@pytest.mark.parametrize(
    ("tex", "mathml"),
    [
        (r"x_t^2", "<msubsup><mi>x</mi><mi>t</mi><mn>2</mn></msubsup>"),
        (r"\frac{1}{\sigma}", "<mfrac><mrow><mn>1</mn></mrow><mrow><mi>σ</mi></mrow></mfrac>"),
        (r"\sqrt{a}", "<msqrt><mrow><mi>a</mi></mrow></msqrt>"),
        (r"a < b", "<mi>a</mi><mo>&lt;</mo><mi>b</mi>"),
        (r"(-x)", '<mo form="prefix">−</mo><mi>x</mi>'),
        (r"\mathrm{SNR}", '<mi mathvariant="normal">SNR</mi>'),
    ],
)
def test_formulas_become_mathml(tex: str, mathml: str):
    assert mathml in to_mathml(tex)


@pytest.mark.parametrize(
    ("tex", "parts"),
    [
        (r"x_t = a + b", ["x_t", "=a", "+b"]),
        (r"x = -a - b", ["x", "=-a", "-b"]),
        (r"-\frac{a}{b - c}", [r"-\frac{a}{b-c}"]),
        (r"s = [ f - (g + h) ] \Delta t", ["s", r"=[f-(g+h)]\Deltat"]),
    ],
)
def test_a_line_may_break_before_a_sign_outside_of_brackets(tex: str, parts: list[str]):
    assert ["".join(part) for part in pieces(TOKEN.findall(tex))] == parts
    found = to_mathml(tex)
    assert found.count("<math ") == len(parts) and found.count("<wbr>") == len(parts) - 1
    assert found.count('form="infix"') == len(parts) - 1, "a sign at the head of a line is no sign of a term"


@pytest.mark.parametrize(
    ("tex", "message"), [(r"\foo", "not among"), ("{a", "not closed"), ("a}", "not opened"), ("x_", "too early")]
)
def test_what_is_no_formula_is_refused(tex: str, message: str):
    with pytest.raises(ValueError, match=message):
        to_mathml(tex)


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"source": "imagen"}, "unknown source 'imagen'; known: ddpm, vp"),
        ({"quantity": "fid"}, "unknown quantity 'fid'; known: marginal"),
        ({"source": "gao", "quantity": "loss"}, "Gao 2024 has no formula for 'loss'"),
        ({"t": 0.0}, r"t must lie in \[0.01, 0.99\], got 0"),
        ({"w": 9.0}, r"w must lie in \[0, 8\], got 9"),
    ],
)
def test_what_makes_no_sense_is_refused(traits: dict, message: str):
    with pytest.raises(ValueError, match=message):
        widgets.ConventionTranslator(**traits)


@pytest.mark.parametrize(("source", "quantity"), [("ddpm", "reverse"), ("cfg", "guidance"), ("ve", "loss")])
def test_the_figure_says_both_forms_and_their_number(source: str, quantity: str):
    alt = widgets.ConventionTranslator(source=source, quantity=quantity).static_figure().alt
    row = SOURCES[source].rows[quantity]
    assert row.their_code in alt and row.our_code in alt
    given = re.findall(r"gives (-?[\d.e-]+\d)", alt)
    assert len(given) == 2 and float(given[0]) == pytest.approx(float(given[1]), rel=2e-5)


def test_mathtext_draws_every_formula():
    """Matplotlib reads the same TeX for print."""
    from matplotlib.mathtext import MathTextParser

    parser = MathTextParser("agg")
    for source in SOURCES.values():
        for row in source.rows.values():
            for part in (row.theirs + r", \quad" + row.ours).split(r", \quad"):
                parser.parse(f"${part}$")


def fixture_for_javascript() -> dict:
    """The state of the page, and the log-SNR at all times."""
    translator = example()
    log_snr = LinearBeta().log_snr(torch.arange(1, 100, dtype=torch.float64) / 100)
    return {"sources": translator.sources, "ours": translator.ours, "log_snr": log_snr.tolist()}
