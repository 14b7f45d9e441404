"""Formulas for pages in which nothing typesets TeX: a small part of it, as MathML, which browsers draw themselves."""

from __future__ import annotations

import re
from html import escape

TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|[0-9.]+|\S")
SYMBOLS = {
    **dict(alpha="α", beta="β", gamma="γ", epsilon="ϵ", varepsilon="ε", theta="θ", lambda_="λ", mu="μ", xi="ξ"),
    **dict(sigma="σ", Delta="Δ", varnothing="∅"),
}
SYMBOLS["lambda"] = SYMBOLS.pop("lambda_")
OPERATORS = {"nabla": "∇", "int": "∫", "|": "‖"}
SPACES = {",": "0.17em", "quad": "1em", " ": "0.3em"}
TIGHT = 'lspace="0" rspace="0"'
OPENING, CLOSING = ("(", "[", "{"), (")", "]", "}")
SIGNED = ("(", "[", "=", ",")  # a minus behind one of these is the sign of a term
ACCENTS = {"bar": "¯", "hat": "^", "tilde": "~"}


def to_mathml(tex: str) -> str:
    r"""A formula in TeX as `<math>` elements between which a line may break; `, \quad` separates two formulas.

    Browsers break no line inside MathML: so each =, and each plus or minus outside of brackets, begins an element.
    Known are letters, numbers, operators, ^ _ {}, \frac, \sqrt, \mathrm, \log, accents and the names above.
    Raises ValueError for anything else, and for braces that do not match.
    """
    return "&ensp; ".join(one_formula(TOKEN.findall(part)) for part in tex.split(r", \quad"))


def one_formula(tokens: list[str]) -> str:
    """The `<math>` elements of a formula; a sign at the head of a later one has the room around it that it has within."""
    first, *others = pieces(tokens)
    rows = [
        sequence(first, None),
        *(sequence(each, None, "x").replace("<mo>", '<mo form="infix">', 1) for each in others),
    ]
    return "<wbr>".join(f'<math displaystyle="true"><mrow>{row}</mrow></math>' for row in rows)


def pieces(tokens: list[str]) -> list[list[str]]:
    """The tokens, cut before each =, and before each + or - between two terms, where no bracket is open."""
    parts, depth, before = [[]], 0, "("
    for token in tokens:
        depth += (token in OPENING) - (token in CLOSING)
        binary = token in ("+", "-") and before not in SIGNED
        if depth == 0 and parts[-1] and (token == "=" or binary):
            parts.append([])
        parts[-1].append(token)
        before = token
    return parts


def sequence(tokens: list[str], stop: str | None, before: str = "(") -> str:
    """Everything up to the token `stop`, which is taken away too; before: the token that stands in front."""
    parts = []
    while tokens and tokens[0] != stop:
        sign = tokens[0] == "-" and before in SIGNED
        before = tokens[0]
        parts.append(with_scripts(tokens).replace("<mo", '<mo form="prefix"', 1) if sign else with_scripts(tokens))
    if stop is not None:
        if not tokens:
            raise ValueError("a brace is not closed")
        tokens.pop(0)
    return "".join(parts)


def with_scripts(tokens: list[str]) -> str:
    """One atom with what stands below and above it."""
    base, scripts = atom(tokens), {}
    if tokens[:1] == ["'"]:
        tokens.pop(0)
        base = f"<mrow>{base}<mo {TIGHT}>′</mo></mrow>"
    while tokens and tokens[0] in ("_", "^"):
        mark = tokens.pop(0)
        scripts[mark] = atom(tokens).replace("<mo>", f"<mo {TIGHT}>")
    if not scripts:
        return base
    tag = {"_": "msub", "^": "msup", "_^": "msubsup"}["".join(sorted(scripts, reverse=True))]
    return f"<{tag}>{base}{''.join(scripts[mark] for mark in ('_', '^') if mark in scripts)}</{tag}>"


def atom(tokens: list[str]) -> str:
    """A letter, a number, a group, or a command with what it takes."""
    if not tokens:
        raise ValueError("the formula ends too early")
    token = tokens.pop(0)
    if token == "{":
        return f"<mrow>{sequence(tokens, '}')}</mrow>"
    if token == "}":
        raise ValueError("a brace is closed that was not opened")
    if token.startswith("\\"):
        return command(token[1:], tokens)
    if token[0].isdigit():
        return f"<mn>{token}</mn>"
    if token.isalpha():
        return f"<mi>{token}</mi>"
    kind = f' stretchy="false" {TIGHT}' if token in "()[]|/" else ""
    return f"<mo{kind}>{escape('−' if token == '-' else token)}</mo>"


def command(name: str, tokens: list[str]) -> str:
    r"""What follows a backslash."""
    if name == "frac":
        return f"<mfrac>{atom(tokens)}{atom(tokens)}</mfrac>"
    if name == "sqrt":
        return f"<msqrt>{atom(tokens)}</msqrt>"
    if name in ACCENTS:
        return f'<mover accent="true">{atom(tokens)}<mo stretchy="false">{ACCENTS[name]}</mo></mover>'
    if name == "mathrm":
        word = "".join(iter(lambda: tokens.pop(0), "}")).lstrip("{")
        return f'<mi mathvariant="normal">{word}</mi>'
    if name == "log":
        return '<mi>log</mi><mspace width="0.17em"/>'
    if name in SPACES:
        return f'<mspace width="{SPACES[name]}"/>'
    if name in SYMBOLS:
        return f"<mi>{SYMBOLS[name]}</mi>"
    if name in OPERATORS:
        return f'<mo stretchy="false" {TIGHT}>{OPERATORS[name]}</mo>'
    raise ValueError(f"\\{name} is not among the commands that are known")
