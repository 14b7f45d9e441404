"""The evidence gap: its identity, its best q, what it refuses, and its mathematics in JavaScript."""

from itertools import product
from math import log

import pytest
import torch

from tests.widgets import Parts

widgets = pytest.importorskip("diffusion_edu.widgets", reason="anywidget is not installed: widgets were not tested")
from diffusion_edu.analytic import LinearGaussian  # noqa: E402
from diffusion_edu.widgets.evidence_gap import (  # noqa: E402
    DECODERS,
    LIMITS,
    best_q,
    log_normal,
    terms,
)

NAME, PAGE, SLIDER = "EvidenceGap", "book/latent.html", "mean of q"
CASES = [
    dict(zip(("decoder", "x", "noise", "mean", "width"), case, strict=True))
    for case in product(DECODERS, (-1.0, 0.3, 2.0, 4.0), (0.4, 1.5), (-1.3, 0.0, 0.5), (0.1, 0.7, 2.0))
]


def example() -> "widgets.EvidenceGap":
    return widgets.EvidenceGap()


@pytest.mark.parametrize("case", CASES[::5], ids=str)
def test_the_terms_are_what_they_say(case):
    """Each closed form against a sum over a grid so wide that q and z^4 q end inside it."""
    z = torch.linspace(-30, 30, 60_001, dtype=torch.float64)
    log_q, found = log_normal(z, case["mean"], case["width"]), terms(**case)
    q = log_q.exp() * (z[1] - z[0])
    likelihood = log_normal(z if case["decoder"] == "line" else z**2, case["x"], case["noise"])
    prior = log_normal(z, 0, 1)
    assert float((q * likelihood).sum()) == pytest.approx(found.reconstruction, abs=1e-8)
    assert float((q * (log_q - prior)).sum()) == pytest.approx(found.kl_prior, abs=1e-8)
    evidence = (prior + likelihood).logsumexp(0) + (z[1] - z[0]).log()
    assert float(evidence) == pytest.approx(found.log_evidence, abs=1e-8)
    assert float((q * (log_q - prior - likelihood + evidence)).sum()) == pytest.approx(found.gap, abs=1e-8)
    assert found.gap >= 0


@pytest.mark.parametrize(("x", "noise"), [(0.3, 0.4), (-1.0, 1.5), (3.0, 0.7)])
def test_on_a_line_the_best_q_closes_the_gap(x, noise):
    model = LinearGaussian(torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64), noise)
    mean, width = best_q("line", x, noise, 0.0)
    exact, covariance = model.posterior(torch.tensor([[x]], dtype=torch.float64))
    assert (mean, width**2) == pytest.approx((exact.item(), covariance.item()), abs=1e-12)
    found = terms("line", x, noise, mean, width)
    assert found.gap == pytest.approx(0, abs=1e-9)
    assert found.log_evidence == pytest.approx(
        model.log_evidence(torch.tensor([[x]], dtype=torch.float64)).item(), abs=1e-9
    )


@pytest.mark.parametrize(("x", "noise"), [(2.0, 0.6), (4.0, 0.4), (0.2, 1.0), (-1.0, 0.5)])
@pytest.mark.parametrize("start", [-0.5, 0.5])
def test_no_neighbour_of_the_best_q_is_better(x, noise, start):
    mean, width = best_q("square", x, noise, start)
    gap = terms("square", x, noise, mean, width).gap
    for moved in ((mean + 0.01, width), (mean - 0.01, width), (mean, width * 1.01), (mean, width / 1.01)):
        assert terms("square", x, noise, *moved).gap > gap
    assert mean * start >= 0


def test_one_hump_of_two_costs_log_2():
    gap = terms("square", 4.0, 0.4, *best_q("square", 4.0, 0.4, 1.0)).gap
    assert log(2) < gap < log(2) + 0.02


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"decoder": "cube"}, "unknown decoder 'cube'; known: line, square"),
        ({"width": 0.0}, r"width must lie in \[0.1, 2\], got 0"),
        ({"mean": float("nan")}, r"mean must lie in \[-4, 4\], got nan"),
        ({"noise": 0.1}, r"noise must lie in \[0.4, 1.5\], got 0.1"),
        ({"x": 9.0}, r"x must lie in \[-1, 4\], got 9"),
    ],
)
def test_what_makes_no_sense_is_refused(traits, message):
    with pytest.raises(ValueError, match=message):
        widgets.EvidenceGap(**traits)


def test_the_first_picture_teaches():
    found = example().terms()
    assert 0.8 < found.gap < 4, "a gap that is seen, and bars that fit"
    assert f"the gap {found.gap:.2f} nats" in Parts(example().to_html()).picture["alt"]


def fixture_for_javascript() -> dict:
    """Return the four terms and the best q for all cases, as Python computes them."""
    return {
        "limits": LIMITS,
        "cases": [
            {"state": case, "terms": terms(**case)._asdict(), "best": best_q(*[case[k] for k in list(case)[:4]])}
            for case in CASES
        ],
    }
