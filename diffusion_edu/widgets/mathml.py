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
ACCENTS = {"bar": "¯", "hat": "^", "tilde": "~"}


def to_mathml(tex: str) -> str:
    r"""A formula in TeX as a `<math>` element, or several with `, \quad` between: a line may break there.

    Known are letters, numbers, operators, ^ _ {}, \frac, \sqrt, \mathrm, \log, accents and the names above.
    Raises ValueError for anything else, and for braces that do not match.
    """
    rows = [sequence(TOKEN.findall(part), stop=None) for part in tex.split(r", \quad")]
    return "&ensp; ".join(f'<math displaystyle="true"><mrow>{row}</mrow></math>' for row in rows)


def sequence(tokens: list[str], stop: str | None) -> str:
    """Everything up to the token `stop`, which is taken away too."""
    parts, before = [], "("
    while tokens and tokens[0] != stop:
        sign = tokens[0] == "-" and before in ("(", "[", "=", ",")
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
