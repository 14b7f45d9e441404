"""The posterior on a line: its bells are the package's, their product is Bayes' rule, and JavaScript agrees."""

import pytest
import torch

from diffusion_edu.process import posterior, transition
from diffusion_edu.schedules import Cosine

widgets = pytest.importorskip("diffusion_edu.widgets", reason="anywidget is not installed: widgets were not tested")

NAME, PAGE, SLIDER = "PosteriorExplorer", "book/denoising.html", "time t"
PAIRS = [(0.6, 0.4), (0.98, 0.0), (0.98, 0.97), (0.02, 0.01), (0.5, 0.49), (0.9, 0.1)]


def example() -> "widgets.PosteriorExplorer":
    return widgets.PosteriorExplorer()


@pytest.mark.parametrize(("t", "s"), [(t, s) for t, s in PAIRS if s > 0])
def test_the_product_is_bayes_rule_on_a_grid(t: float, s: float):
    """Moments of prior times likelihood on 40,001 points: 1e-6, the grid's error where the bells are 0.02 wide."""
    explorer = widgets.PosteriorExplorer(t=t, s=s)
    x = torch.linspace(-8, 8, 40_001, dtype=torch.float64)
    now, before = torch.tensor([t, s], dtype=torch.float64)
    alpha, variance = transition(Cosine(), now, before)
    likelihood = -((1.5 - alpha * x) ** 2) / (2 * variance)
    prior = -((x - Cosine().alpha(before) * -0.8) ** 2) / (2 * Cosine().sigma(before) ** 2)
    weight = (likelihood + prior).softmax(0)
    mean = float((weight * x).sum())
    assert explorer.bells()[2] == pytest.approx(
        (mean, float((weight * (x - mean) ** 2).sum().sqrt())), rel=1e-6, abs=1e-6
    )


@pytest.mark.parametrize(("t", "s"), PAIRS)
def test_mean_balances_on_the_precisions_and_on_the_weights(t: float, s: float):
    explorer = widgets.PosteriorExplorer(t=t, s=s)
    (left, _), (right, _), (mean, std) = explorer.bells()
    share, (of_x_t, of_x_0), (small, large) = explorer.share(), explorer.weights(), explorer.variances()
    assert share * left + (1 - share) * right == pytest.approx(mean, abs=1e-9)
    assert of_x_t * explorer.x_t + of_x_0 * explorer.x_0 == pytest.approx(mean, abs=1e-9)
    assert small == pytest.approx(std**2) and small < large


def test_the_limits_of_a_step():
    all_the_way = widgets.PosteriorExplorer(t=0.7, s=0.0)
    assert all_the_way.bells()[2] == (-0.8, 0.0) and all_the_way.share() == 1
    small, large = widgets.PosteriorExplorer(t=0.6, s=0.59).variances()
    assert small / large > 0.95
    small, large = widgets.PosteriorExplorer(t=0.02, s=0.01).variances()
    assert small / large < 0.5, "near the data the two choices differ"


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"t": 0.3, "s": 0.4}, "need s < t, got s = 0.4 and t = 0.3"),
        ({"t": 1.0}, r"t must lie in \[0.01, 0.98\], got 1"),
        ({"s": -0.1}, r"s must lie in \[0, 0.97\], got -0.1"),
        ({"x_t": 5.0}, r"x_t must lie in \[-3, 3\], got 5"),
    ],
)
def test_what_makes_no_sense_is_refused(traits: dict, message: str):
    with pytest.raises(ValueError, match=message):
        widgets.PosteriorExplorer(**traits)


def fixture_for_javascript() -> list[dict]:
    """Bells, weights and variances at several pairs of times, as the package computes them."""
    cases = []
    for t, s in PAIRS:
        explorer = widgets.PosteriorExplorer(t=t, s=s)
        now, before, x_t, x_0 = torch.tensor([t, s, explorer.x_t, explorer.x_0], dtype=torch.float64)
        mean, std = posterior(Cosine(), x_0[None], x_t[None], now, before)
        assert explorer.bells()[2] == (float(mean), float(std))
        cases.append(
            {
                **{"t": t, "s": s, "x_t": explorer.x_t, "x_0": explorer.x_0, "bells": explorer.bells()},
                **{"weights": explorer.weights(), "variances": explorer.variances(), "share": explorer.share()},
            }
        )
    return cases
