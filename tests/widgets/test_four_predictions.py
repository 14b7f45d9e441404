"""Four predictions: all from one posterior mean, with the lengths that are drawn, and the same in JavaScript."""

import pytest
import torch

from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.process import Prediction
from diffusion_edu.schedules import Cosine

widgets = pytest.importorskip("diffusion_edu.widgets", reason="anywidget is not installed: widgets were not tested")
from diffusion_edu.widgets.four_predictions import TITLES, error_in_x0, vector  # noqa: E402

NAME, PAGE, SLIDER = "FourPredictions", "book/denoising.html", "time t"
MIXTURE = GaussianMixture(
    torch.tensor([[-1.5, 0.2], [1.1, 1.2], [0.9, -1.4]], dtype=torch.float64),
    torch.tensor([0.30, 0.20, 0.35], dtype=torch.float64),
    torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64),
)


def example(**traits) -> "widgets.FourPredictions":
    return widgets.FourPredictions(MIXTURE, torch.Generator().manual_seed(0), **traits)


@pytest.fixture(scope="module")
def four() -> "widgets.FourPredictions":
    return example()


def test_the_four_obey_their_relations():
    """x_t = alpha x0 + sigma eps, score = -eps / sigma, v = alpha eps - sigma x0: 1e-12, rounding."""
    four = example(t=0.2)
    t, points = torch.tensor(0.2, dtype=torch.float64), MIXTURE.sample(50, torch.Generator().manual_seed(1))
    alpha, sigma, p = Cosine().alpha(t), Cosine().sigma(t), four.predictions(points)
    close = {"rtol": 0, "atol": 1e-12}
    torch.testing.assert_close(alpha * p.x0 + sigma * p.eps, points, **close)
    torch.testing.assert_close(p.score, MIXTURE.score(points, Cosine(), t), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(p.v, alpha * p.eps - sigma * p.x0, **close)
    torch.testing.assert_close(vector(p, "x0"), p.x0 - points, **close)


def test_which_grow_and_which_stay(four):
    """Near the data v is eps, near the noise eps is x_t and v is -x0; only the score is long near the data."""
    first, last = ({name: values[i] for name, values in four.lengths.items()} for i in (0, -1))
    assert first["score"] > 3 * max(first["eps"], first["x0"], first["v"])
    assert first["v"] == pytest.approx(first["eps"], rel=0.1)  # sigma = 0.02 times x0 is what they differ by
    assert last["v"] == pytest.approx(last["x0"], rel=0.1)
    assert last["eps"] == pytest.approx(2**0.5, rel=0.05)  # a standard normal pair, over 2000 points
    assert last["score"] == pytest.approx(last["eps"], rel=0.01)


@pytest.mark.parametrize("target", TITLES)
def test_an_error_of_one_in_a_prediction_moves_x0_so_far(target: str):
    """The package's own conversion, with and without the error: 1e-9."""
    for t in torch.tensor([0.02, 0.5, 0.98], dtype=torch.float64):
        x_t, value = torch.tensor([[0.3]], dtype=torch.float64), torch.tensor([[0.7]], dtype=torch.float64)
        off = (
            Prediction(Cosine(), x_t, t, value + 1, target).x0 - Prediction(Cosine(), x_t, t, value, target).x0
        ).abs()
        assert float(off) == pytest.approx(float(error_in_x0(t)[target]), rel=1e-9)


@pytest.mark.parametrize(
    ("mixture", "traits", "message"),
    [
        (GaussianMixture(torch.zeros(1, 3), 1.0), {}, "lumps in the plane, got 1 in 3 dimensions"),
        (GaussianMixture(torch.zeros(6, 2), 1.0), {}, "at most 5 lumps in the plane, got 6"),
        (MIXTURE, {"t": 1.0}, r"t must lie in \[0.01, 0.99\], got 1"),
        (MIXTURE, {"x": 4.0}, r"x must lie in \[-3, 3\], got 4"),
    ],
)
def test_what_makes_no_sense_is_refused(mixture, traits: dict, message: str):
    with pytest.raises(ValueError, match=message):
        widgets.FourPredictions(mixture, **traits)


def fixture_for_javascript() -> dict:
    """Densities, predictions and errors at points near and far, from the package."""
    four, cases = example(), []
    points = 1.5 * torch.randn(20, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for t in (0.01, 0.2, 0.5, 0.99):
        four.t = t
        at = torch.tensor(t, dtype=torch.float64)
        p = four.predictions(points)
        answers = {name: getattr(p, name).tolist() for name in TITLES}
        density = MIXTURE.log_density(points, Cosine(), at).exp().tolist()
        off = {name: float(value) for name, value in error_in_x0(at).items()}
        cases.append({"t": t, "density": density, "answers": answers, "errors": off})
    lumps = {"means": four.means, "stds": four.stds, "weights": four.weights}
    return {"lumps": lumps, "points": points.tolist(), "cases": cases}
