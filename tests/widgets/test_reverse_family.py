"""The family of reverse processes: what it refuses, its distances, and its mathematics in JavaScript."""

import numpy as np
import pytest
import torch

from diffusion_edu.samplers import euler_maruyama
from diffusion_edu.schedules import LinearBeta

widgets = pytest.importorskip("diffusion_edu.widgets", reason="anywidget is not installed: widgets were not tested")
from diffusion_edu.widgets.reverse_family import (  # noqa: E402
    EDGE,
    STEPS,
    cumulative,
    distance,
    expected_distance,
    scaled_score,
    space_grid,
)

NAME, PAGE, SLIDER = "ReverseFamily", "book/sde.html", "noise λ"


def example() -> "widgets.ReverseFamily":
    return widgets.ReverseFamily()


def law_at(family, t: float) -> torch.Tensor:
    time = torch.tensor(t, dtype=torch.float64)
    return family.mixture().log_density(space_grid()[:, None], LinearBeta(), time).exp()


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"noise": 2.5}, r"noise must lie in \[0, 2\], got 2.5"),
        ({"noise": -0.1}, r"noise must lie in \[0, 2\], got -0.1"),
        ({"error": 0.7}, r"error must lie in \[-0.5, 0.5\], got 0.7"),
        ({"t": 1.5}, r"t must lie in \[0, 1\], got 1.5"),
        ({"steps": 7}, "steps must be one of 5, 10, 20, 40, 80, 160, 320, got 7"),
        ({"direction": "sideways"}, "direction must be one of reverse, forward, got sideways"),
    ],
)
def test_family_refuses_what_makes_no_sense(traits: dict, message: str):
    with pytest.raises(ValueError, match=message):
        widgets.ReverseFamily(**traits)
    calm = example()
    [(name, value)] = traits.items()
    with pytest.raises(ValueError, match=message):
        setattr(calm, name, value)
    assert getattr(calm, name) == type(calm).class_traits()[name].default_value


def test_three_dynamics_have_one_marginal():
    family = widgets.ReverseFamily(t=0.2, steps=320)
    kinds = family.dynamics()
    assert [(kind.direction, kind.noise) for kind in kinds.values()] == [("forward", 1), ("reverse", 1), ("reverse", 0)]
    for kind in kinds.values():
        kind.t = family.t
        t, x = kind.crowd()
        law = law_at(family, float(t))
        assert float(t) == pytest.approx(0.2)
        assert distance(x, law) < 3 * expected_distance(law, 400)  # as for the arrivals below


@pytest.mark.parametrize("noise", [0.0, 1.0, 2.0])
def test_paths_arrive_at_the_data(noise: float):
    family = widgets.ReverseFamily(noise=noise, steps=320)
    ts, paths = family.paths()
    assert (float(ts[0]), float(ts[-1]), tuple(paths.shape)) == (1, 0, (321, 400))
    law = law_at(family, 0)
    # a distance this far above its mean has a chance below 1e-3, and 320 steps leave a small bias
    assert distance(paths[-1], law) < 3 * expected_distance(law, 400)


def test_a_wrong_score_is_seen_in_the_distance():
    right, wrong = (widgets.ReverseFamily(steps=160, error=error) for error in (0.0, -0.5))
    law = law_at(right, 0)
    assert distance(wrong.paths()[1][-1], law) > 3 * distance(right.paths()[1][-1], law)


def test_forward_paths_arrive_at_noise():
    family = widgets.ReverseFamily(direction="forward", steps=320)
    ts, paths = family.paths()
    assert (float(ts[0]), float(ts[-1])) == (0, 1)
    law = law_at(family, 1)
    assert distance(paths[-1], law) < 3 * expected_distance(law, 400)
    assert distance(paths[0], law) > 5 * expected_distance(law, 400)


def test_the_floor_is_the_mean_distance_of_fresh_draws():
    family, n = example(), 400
    law = law_at(family, 0)
    found = [distance(family.mixture().sample(n, torch.Generator().manual_seed(s))[:, 0], law) for s in range(200)]
    error = float(np.std(found)) / len(found) ** 0.5
    assert expected_distance(law, n) == pytest.approx(float(np.mean(found)), abs=4 * error)


def test_a_shift_is_its_own_distance():
    x = torch.full((7,), 0.5, dtype=torch.float64)
    point = torch.zeros_like(space_grid())
    point[340] = 1.0  # all mass at 0, up to a cell
    assert distance(x, point) == pytest.approx(0.5, abs=2 * EDGE / 680)
    assert float(cumulative(point)[-1]) == 1


# --- Python and JavaScript ------------------------------------------------------------------------


def fixture_for_javascript() -> dict:
    """Return scores, densities, single steps and distances, as the package computes them."""
    family = example()
    mixture, schedule = family.mixture(), LinearBeta()
    x = torch.linspace(-3.3, 3.3, 23, dtype=torch.float64)
    scores, steps = [], []
    for t in (0.0, 0.003, 0.2, 0.5, 1.0):
        time = torch.tensor(t, dtype=torch.float64)
        scores.append(
            {
                "t": t,
                "score": mixture.score(x[:, None], schedule, time)[:, 0].tolist(),
                "density": mixture.log_density(x[:, None], schedule, time).exp().tolist(),
            }
        )
    for noise, error, t, s in [(0, 0, 1, 0.9), (0.5, 0.2, 0.6, 0.55), (1, -0.3, 0.3, 0.29), (2, 0, 0.1, 0.0)]:
        ts = torch.tensor([t, s], dtype=torch.float64)
        generator = torch.Generator().manual_seed(4)
        denoiser = scaled_score(mixture, 1 + error)
        [step] = euler_maruyama(denoiser, x[:, None], ts, generator=generator, noise=float(noise))
        z = torch.randn(23, 1, generator=torch.Generator().manual_seed(4), dtype=torch.float64)[:, 0]
        steps.append({"noise": noise, "error": error, "t": t, "s": s, "z": z.tolist(), "x": step.x[:, 0].tolist()})
    points = mixture.sample(50, torch.Generator().manual_seed(0))[:, 0]
    law = law_at(family, 0)
    return {
        "mixture": {"means": family.means, "stds": family.stds, "weights": family.weights},
        "x": x.tolist(),
        "scores": scores,
        "steps": steps,
        "points": points.tolist(),
        "distance": distance(points, law),
        "chance": expected_distance(law, 400),
        "allowed": list(STEPS),
    }
