"""The equation ledger: one test, or several, behind every labelled equation of the book.

A test names its equation, how it checks it, and how close it must come::

    @equation("eq-forward-step", method="exact", tolerance="1e-12 (float64 rounding)")
    def test_forward_step(): ...

`tests/conftest.py` records every outcome, `pytest tests/equations --ledger FILE` writes them down, and
`book/_ext/ledger.py` shows them beside the equations.
"""

import pytest

METHODS = ("symbolic", "exact", "monte carlo")


def equation(label: str, *, method: str, tolerance: str):
    """Mark a test as the check of the book's equation `label`.

    Args:
        label: the label in the chapter, for example "eq-forward-step".
        method: "symbolic" (sympy), "exact" (float64) or "monte carlo" (with a confidence interval).
        tolerance: how close, and in brackets why that much, for example "1e-12 (float64 rounding)".

    Raises:
        ValueError: if the label does not start with "eq-", the method is unknown or the tolerance is empty.
    """
    if not label.startswith("eq-"):
        raise ValueError(f"equation label {label!r} must start with 'eq-'")
    if method not in METHODS:
        raise ValueError(f"method {method!r} is not one of {', '.join(METHODS)}")
    if not tolerance:
        raise ValueError(f"equation {label!r} needs a tolerance")
    return pytest.mark.equation(label, method=method, tolerance=tolerance)
