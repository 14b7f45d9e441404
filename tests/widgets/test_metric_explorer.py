"""The seven judges on a line: their closed forms, what they refuse, and their mathematics in JavaScript."""

from itertools import product

import pytest
import torch

from tests.widgets import Parts

widgets = pytest.importorskip("diffusion_edu.widgets", reason="anywidget is not installed: widgets were not tested")
from diffusion_edu import metrics  # noqa: E402
from diffusion_edu.analytic import GaussianMixture  # noqa: E402
from diffusion_edu.widgets.metric_explorer import DATA, LIMITS, SIZES, verdicts  # noqa: E402

NAME, PAGE, SLIDER = "MetricExplorer", "book/evaluate.html", "spread of a lump"
CASES = [
    dict(zip(("apart", "spread", "share", "n"), case, strict=True))
    for case in product((0.0, 0.7, 1.0, 2.0), (0.1, 0.35, 1.06, 1.4), (0.0, 0.3, 0.5, 1.0), (20, 5000))
]


def example() -> "widgets.MetricExplorer":
    return widgets.MetricExplorer()


def draw(apart, spread, share, count, seed):
    weights = torch.tensor([1 - share, share], dtype=torch.float64).clamp(min=1e-12)
    means = torch.tensor([[-apart], [apart]], dtype=torch.float64)
    return GaussianMixture(means, spread, weights).sample(count, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("law", [(0.0, 1.06, 0.5), (1.0, 0.35, 0.1), (1.3, 0.6, 0.7)])
def test_closed_forms_against_samples(law):
    found = verdicts(*law, n=100)
    model, data = draw(*law, 200_000, 0), draw(**DATA, count=200_000, seed=1)
    assert metrics.frechet_distance(model, data) == pytest.approx(found["frechet_limit"], abs=0.01)
    assert metrics.kernel_distance(model[:20_000], data[:20_000])[0] == pytest.approx(found["kernel"], abs=0.6)
    gap = (model.sort(0).values - data.sort(0).values).square().mean().sqrt()
    assert float(gap) == pytest.approx(found["wasserstein"], abs=0.02)


@pytest.mark.parametrize("law", [(1.0, 0.35, 0.5), (1.3, 0.6, 0.7), (0.0, 1.06, 0.5)])
def test_the_bias_is_what_a_hundred_images_show(law):
    found, m2 = verdicts(*law, n=100), DATA["apart"] ** 2 + DATA["spread"] ** 2
    x = draw(*law, 100 * 4000, 2).reshape(4000, 100)
    measured = x.mean(1) ** 2 + (x.std(1) - m2**0.5) ** 2  # the data's mean is 0
    error = 4 * measured.std() / 4000**0.5 + 2 * found["frechet"] / 100  # and terms of order 1 / n^2
    assert abs(measured.mean() - found["frechet"]) < error
    assert abs(measured.mean() - found["frechet_limit"]) > error, "without the bias it would fail"


def test_the_data_satisfy_every_judge():
    found = verdicts(**DATA, n=10_000)
    assert found["kl"] == pytest.approx(0, abs=1e-12) and found["wasserstein"] == pytest.approx(0, abs=1e-12)
    assert found["precision"] == found["recall"] == pytest.approx(0.95, abs=0.01)
    assert found["inception"] > 1.9


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"spread": 0.0}, r"spread must lie in \[0.1, 1.4\], got 0"),
        ({"share": 1.2}, r"share must lie in \[0, 1\], got 1.2"),
        ({"apart": float("nan")}, r"apart must lie in \[0, 2\], got nan"),
        ({"n": 30}, "n must be one of 20, 50, .* got 30"),
    ],
)
def test_what_makes_no_sense_is_refused(traits, message):
    with pytest.raises(ValueError, match=message):
        widgets.MetricExplorer(**traits)


def test_the_first_picture_teaches():
    found = example().verdicts()
    assert found["frechet_limit"] < 1e-4 and found["kernel"] < 1e-4, "two judges see nothing"
    assert found["kl"] > 0.3 and found["precision"] < 0.8, "two others do"
    assert f"precision {found['precision']:.3f}" in Parts(example().to_html()).picture["alt"]


def fixture_for_javascript() -> dict:
    """Return what the judges say for all cases, as Python computes it."""
    return {
        "limits": LIMITS,
        "sizes": SIZES,
        "data": DATA,
        "cases": [{"state": case, "verdicts": verdicts(**case)} for case in CASES],
    }
