"""The score field: its walkers are the package's, its shares are counts, and its mathematics agrees in JavaScript."""

from math import cos, log, pi, sin, sqrt

import pytest
import torch

from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.samplers import langevin, sample

widgets = pytest.importorskip("diffusion_edu.widgets", reason="anywidget is not installed: widgets were not tested")

NAME, PAGE, SLIDER = "ScoreField", "book/score.html", "noise level σ"
MIXTURE = GaussianMixture(
    torch.tensor([[-1.2, 0.3], [0.9, 1.0], [0.4, -1.1]], dtype=torch.float64),
    torch.tensor([0.3, 0.4, 0.25]),
    torch.tensor([0.2, 0.5, 0.3]),
)
START = torch.tensor([-2.2, -1.2], dtype=torch.float64) + 0.3 * torch.randn(
    50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
)


def example() -> "widgets.ScoreField":
    return widgets.ScoreField(MIXTURE, START, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def field() -> "widgets.ScoreField":
    return example()


def test_walkers_are_langevins(field):
    law = GaussianMixture(MIXTURE.means, (MIXTURE.stds.double() ** 2 + 0.01).sqrt(), MIXTURE.weights.double())
    eta = 0.5 * (0.25**2 + 0.1**2)
    start = torch.tensor(field.start, dtype=torch.float64)
    walked = sample(langevin(law.score, start, eta, 60, torch.Generator().manual_seed(1)))
    torch.testing.assert_close(torch.tensor(field.walkers, dtype=torch.float64), walked, atol=1e-4, rtol=0)


def test_shares_count_the_nearest_walkers(field):
    assert sum(field.shares()) == pytest.approx(1)
    assert field.shares()[0] > 0.7, "from that corner nearly all walkers are caught by the first lump"
    field.walkers = [[0.9, 1.0], [0.4, -1.1], [0.5, -1.0], [-1.2, 0.3]]
    assert field.shares() == [0.25, 0.25, 0.5]


def test_no_steps_leave_the_walkers_where_they_are():
    still = widgets.ScoreField(MIXTURE, START, steps=0)
    assert still.walkers == still.start
    assert "after 0 Langevin steps" in still.alt()


@pytest.mark.parametrize(
    ("mixture", "start", "traits", "message"),
    [
        (GaussianMixture(torch.zeros(1, 3), 1.0), START, {}, "lumps in the plane, got 1 in 3 dimensions"),
        (GaussianMixture(torch.zeros(6, 2), 1.0), START, {}, "at most 5 lumps in the plane, got 6"),
        (MIXTURE, torch.zeros(3, 3), {}, r"\(1 to 600, 2\), got \(3, 3\)"),
        (MIXTURE, torch.zeros(0, 2), {}, r"got \(0, 2\)"),
        (MIXTURE, torch.full((3, 2), torch.nan), {}, "start must be finite"),
        (MIXTURE, START, {"steps": -1}, r"steps must lie in \[0, 10000\], got -1"),
        (MIXTURE, START, {"sigma": 0.0}, r"sigma must lie in \[0.05, 3\], got 0"),
        (MIXTURE, START, {"size": 7.0}, r"size must lie in \[0.02, 5\], got 7"),
    ],
)
def test_what_makes_no_sense_is_refused(mixture, start, traits: dict, message: str):
    with pytest.raises(ValueError, match=message):
        widgets.ScoreField(mixture, start, **traits)


# --- Python and JavaScript ------------------------------------------------------------------------


def mulberry32(seed: int):
    """The same uniform numbers as the module's."""
    state = seed

    def imul(a: int, b: int) -> int:
        return (a * b) & 0xFFFFFFFF

    while True:
        state = (state + 0x6D2B79F5) & 0xFFFFFFFF
        z = imul(state ^ (state >> 15), state | 1)
        z ^= (z + imul(z ^ (z >> 7), z | 61)) & 0xFFFFFFFF
        yield (z ^ (z >> 14)) / 2**32


def normal_pairs(seed: int, count: int) -> list[list[float]]:
    stream, pairs = mulberry32(seed), []
    for _ in range(count):
        radius, angle = sqrt(-2 * log(1 - next(stream))), 2 * pi * next(stream)
        pairs.append([radius * cos(angle), radius * sin(angle)])
    return pairs


def fixture_for_javascript() -> dict:
    """Return densities, scores, random numbers and whole Langevin runs, as the package computes them."""
    field = example()
    points = 2 * torch.randn(40, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    cases, runs = [], []
    for sigma in (0.05, 0.3, 1.0, 3.0):
        field.sigma = sigma
        law = field.noisy()
        cases.append(
            {
                "sigma": sigma,
                "density": law.log_density(points).exp().tolist(),
                "score": law.score(points).tolist(),
                "eta": field.step(),
            }
        )
        for noise in (True, False):
            g = torch.Generator().manual_seed(3)
            z = [torch.randn(40, 2, generator=g, dtype=torch.float64).tolist() for _ in range(5)]
            end = sample(langevin(law.score, points, field.step(), 5, torch.Generator().manual_seed(3), noise))
            runs.append({"sigma": sigma, "eta": field.step(), "z": z if noise else None, "end": end.tolist()})
    return {
        "lumps": {"means": field.means, "stds": field.stds, "weights": field.weights},
        "points": points.tolist(),
        "cases": cases,
        "runs": runs,
        "normals": normal_pairs(7, 200),
        "shares": {"walkers": field.walkers, "shares": field.shares()},
        "limits": {"sigma": widgets.score_field.SIGMAS, "size": field.size},
    }
