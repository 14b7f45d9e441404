"""The schedule explorer: what it refuses, and its mathematics in JavaScript against the package's."""

import base64

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from diffusion_edu.data import load, to_float
from diffusion_edu.plotting import COLOURS
from diffusion_edu.process import q_sample
from tests.widgets import Parts

widgets = pytest.importorskip("diffusion_edu.widgets", reason="anywidget is not installed: widgets were not tested")
from diffusion_edu.widgets.schedule_explorer import FAMILIES, LIMITS, signal_share  # noqa: E402

NAME, PAGE, SLIDER = "ScheduleExplorer", "book/forward.html", "time t"


def example() -> "widgets.ScheduleExplorer":
    digit = to_float(load("mnist", "test").images[:1])
    return widgets.ScheduleExplorer(digit, torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(0)))


@pytest.fixture
def explorer() -> "widgets.ScheduleExplorer":
    return example()


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    return to_float(load("mnist", "test").images[:40])


def test_state_follows_python(explorer):
    explorer.t, explorer.family = 0.25, "cosine"
    assert (explorer.state()["t"], explorer.state()["family"]) == (0.25, "cosine")
    assert "t = 0.25" in Parts(explorer.to_html()).picture["alt"]


def test_explorer_keeps_the_digit_and_the_noise(explorer, digits: torch.Tensor):
    assert base64.b64decode(explorer.digit) == load("mnist", "test").images[0].numpy().tobytes()
    explorer.t = 0.0
    assert torch.equal(explorer.noised()[0], digits[[0]])


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"beta_max": 1.0}, r"beta_max must lie in \[0, 1\), got 1"),
        ({"beta_min": -1e-4}, r"beta_min must lie in \[0, 1\), got -0.0001"),
        ({"steps": 0}, r"steps must lie in \[1, 4000\], got 0"),
        ({"t": 1.5}, r"t must lie in \[0, 1\], got 1.5"),
        ({"t": float("nan")}, r"t must lie in \[0, 1\], got nan"),
        ({"family": "quadratic"}, "unknown family 'quadratic'; known: linear, cosine"),
    ],
)
def test_explorer_refuses_what_makes_no_sense(digits: torch.Tensor, traits: dict, message: str):
    with pytest.raises(ValueError, match=message):
        widgets.ScheduleExplorer(digits[0], digits[0], **traits)
    calm = widgets.ScheduleExplorer(digits[0], digits[0])
    [(name, value)] = traits.items()
    with pytest.raises(ValueError, match=message):
        setattr(calm, name, value)
    assert getattr(calm, name) == type(calm).class_traits()[name].default_value


@pytest.mark.parametrize(
    ("x0", "eps", "message"),
    [
        (torch.zeros(3, 28, 28), torch.zeros(28, 28), r"x0 must be one square grey image.*\(3, 28, 28\)"),
        (torch.zeros(28, 20), torch.zeros(28, 20), r"x0 must be one square grey image"),
        (torch.zeros(28, 28), torch.zeros(14, 14), r"eps must have the shape of x0"),
        (torch.zeros(28, 28), torch.full((28, 28), torch.inf), "eps must be finite, got 784"),
        (torch.zeros(28, 28, dtype=torch.uint8), torch.zeros(28, 28), "floats"),
    ],
)
def test_explorer_refuses_other_images(x0: torch.Tensor, eps: torch.Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        widgets.ScheduleExplorer(x0, eps)


# --- Python and JavaScript ------------------------------------------------------------------------

PARAMETER_SETS = {
    "linear": [
        {"beta_min": 1e-4, "beta_max": 0.02, "steps": 1000},
        {"beta_min": 1e-4, "beta_max": 0.02, "steps": 37},
        {"beta_min": 0.3, "beta_max": 0.0, "steps": 5},
        {"beta_min": 0.0, "beta_max": 0.5, "steps": 10},
        {"beta_min": 0.25, "beta_max": 0.9, "steps": 1},
    ],
    "cosine": [{"cosine_s": s} for s in (0.0, 0.008, 0.5)],
    "sigmoid": [{"sigmoid_tau": tau} for tau in (0.3, 1.0, 3.0)],
    "ou": [{"horizon": horizon} for horizon in (0.5, 5.0, 10.0)],
    "flow": [{}],
    "ve": [{"sigma_max": sigma} for sigma in (1.0, 50.0, 100.0)],
}
# 1 is left out: there alpha of three families is 0, or a rounding error, and so is what follows from it
GRID = torch.cat([torch.tensor([1e-3, 0.0137]), torch.linspace(0.02, 0.98, 97), torch.tensor([0.99])]).double()


def as_dash(line_style: object) -> str:
    """Return matplotlib's dash as SVG writes it."""
    return "" if line_style == "-" else " ".join(str(length) for length in line_style[1])


def fixture_for_javascript() -> dict:
    """Return alpha, sigma, log-SNR on a grid, noised pixels and divergences, as the package computes them."""
    explorer = example()
    x0 = to_float(load("mnist", "test").images[0]).double().flatten()
    eps = torch.randn(len(x0), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    cases, noised, divergences = [], [], []
    for family, sets in PARAMETER_SETS.items():
        for parameters in sets:
            explorer.set_trait("family", family)
            for name, value in parameters.items():
                explorer.set_trait(name, value)
            schedule, chosen = explorer.schedules()[family], {"family": family, "parameters": parameters}
            ts = GRID[schedule.log_snr(GRID).isfinite()]
            curves = {
                "alpha": schedule.alpha(ts),
                "sigma": schedule.sigma(ts),
                "log_snr": schedule.log_snr(ts),
                "signal_share": signal_share(schedule, ts),
            }
            cases.append({**chosen, "ts": ts.tolist(), **{name: value.tolist() for name, value in curves.items()}})
            t = torch.tensor(0.37, dtype=torch.float64)
            noised.append({**chosen, "t": float(t), "x_t": q_sample(schedule, x0, t, eps).tolist()})
            divergences.append({**chosen, "kl": divergence_at_the_end(schedule, family, x0)})
    return {
        "x0": x0.tolist(),
        "eps": eps.tolist(),
        "cases": cases,
        "noised": noised,
        "divergences": [each for each in divergences if each["kl"] is not None],
        "looks": [
            [key, name, colour, as_dash(dash)]
            for (key, (name, dash)), colour in zip(FAMILIES.items(), COLOURS, strict=True)
        ],
        "limits": {name: limits for name, limits in LIMITS.items() if name != "t"},
        "defaults": {name: type(explorer).class_traits()[name].default_value for name in LIMITS if name != "t"},
    }


def divergence_at_the_end(schedule, family: str, x0: torch.Tensor) -> float | None:
    """KL of q(x_1 | x_0) from the prior by torch.distributions; None where nothing is left (cosine: 1e-33, by rounding)."""
    t = torch.ones((), dtype=torch.float64)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    if alpha < 1e-9:
        return None
    prior = sigma if family == "ve" else torch.ones_like(sigma)
    here, there = (Normal(mean, std.expand_as(x0)) for mean, std in ((alpha * x0, sigma), (0 * x0, prior)))
    return float(kl_divergence(Independent(here, 1), Independent(there, 1)))
