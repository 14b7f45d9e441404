"""The race of samplers: what it refuses, its errors, and its mathematics in JavaScript."""

import pytest
import torch

from diffusion_edu.process import normal_like
from diffusion_edu.samplers import ancestral, probability_flow, sample
from diffusion_edu.schedules import SPACINGS, Cosine, time_grid

widgets = pytest.importorskip("diffusion_edu.widgets", reason="anywidget is not installed: widgets were not tested")
from diffusion_edu.widgets.sampler_race import SAMPLERS  # noqa: E402

NAME, PAGE, SLIDER = "SamplerRace", "book/fast.html", "evaluations"


def example() -> "widgets.SamplerRace":
    return widgets.SamplerRace()


def points(n: int) -> torch.Tensor:
    return normal_like(torch.zeros(n, 2, dtype=torch.float64), torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"sampler": "magic"}, "sampler must be one of DDIM, Heun"),
        ({"grid": "log"}, "grid must be one of uniform, log_snr, edm, got log"),
        ({"evaluations": 3}, r"evaluations must lie in \[4, 50\], got 3"),
        ({"evaluations": 51}, r"evaluations must lie in \[4, 50\], got 51"),
    ],
)
def test_race_refuses_what_makes_no_sense(traits: dict, message: str):
    with pytest.raises(ValueError, match=message):
        widgets.SamplerRace(**traits)


def test_the_exact_ends_are_those_of_the_ode():
    race, x = example(), points(20)
    fine = sample(
        probability_flow(race.mixture().denoiser(Cosine()), x, time_grid(Cosine(), 200, "log_snr"), method="rk4")
    )
    assert float((race.exact(x) - fine).abs().max()) < 1e-3


def test_more_evaluations_help_and_order_two_helps_more():
    race, x = example(), points(100)
    few, many = (race.error(x, "DDIM", n) for n in (8, 40))
    assert many < few / 3
    assert race.error(x, "DPM-Solver++(2M)", 40) < many / 4


# --- Python and JavaScript ------------------------------------------------------------------------


def fixture_for_javascript() -> dict:
    """Return grids, guesses, walks' ends and distances, as the package computes them."""
    race, x = example(), points(6)
    denoiser = race.mixture().denoiser(Cosine())
    guesses = []
    for t in (0.05, 0.4, 0.9):
        guess = denoiser(x, torch.tensor(t, dtype=torch.float64))
        guesses.append({"t": t, "x0": guess.x0.tolist(), "eps": guess.eps.tolist()})
    ends = []
    for grid in SPACINGS:
        race.grid = grid
        for name in SAMPLERS:
            if name != "ancestral":
                ends.append({"grid": grid, "sampler": name, "x": race.walk(x, name, 7)[-1].tolist()})
    [noisy] = ancestral(
        denoiser, x, torch.tensor([0.6, 0.3], dtype=torch.float64), generator=torch.Generator().manual_seed(4)
    )
    z = torch.randn(6, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return {
        "mixture": {"means": race.means, "stds": race.stds, "weights": race.weights},
        "x": x.tolist(),
        "grids": {grid: time_grid(Cosine(), 9, grid).tolist() for grid in SPACINGS},
        "guesses": guesses,
        "ends": ends,
        "noisy": {"z": z.tolist(), "x": noisy.x.tolist()},
        "exact": race.exact(x).tolist(),
        "samplers": list(SAMPLERS),
    }
