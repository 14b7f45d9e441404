"""The conventions of others: every line of code that the book shows is evaluated, and both sides of each row agree."""

import pytest
import torch

from diffusion_edu import conventions
from diffusion_edu.conventions import GUIDANCE_TIME, QUANTITIES, SOURCES, evaluate, names, their_names
from diffusion_edu.process import q_sample
from diffusion_edu.schedules import Flow, LinearBeta, OrnsteinUhlenbeck, VarianceExploding, linear_betas

TIMES = torch.arange(1, 100, dtype=torch.float64) / 100
PAIRS = [(key, quantity) for key, source in SOURCES.items() for quantity in source.rows]


def both(key: str, quantity: str, t: torch.Tensor, w: float = 3.0, theirs: str | None = None) -> tuple:
    """What their line, or `theirs` in its place, and our line give."""
    ours, row = names(t, w), SOURCES[key].rows[quantity]
    line = theirs or row.their_code
    return evaluate(line, their_names(SOURCES[key], ours), len(t)), evaluate(row.our_code, ours, len(t))


@pytest.mark.parametrize(("key", "quantity"), PAIRS)
def test_their_line_gives_our_number(key: str, quantity: str):
    """At all times of the slider, and at all guidance weights: 1e-9 relative, as near t = 0.01 some divide by 1e-4."""
    for w in (0.0, 0.5, 1.0, 3.0, 8.0) if quantity == "guidance" else (3.0,):
        theirs, ours = both(key, quantity, TIMES, w)
        torch.testing.assert_close(theirs, ours, rtol=1e-9, atol=1e-9)
        assert bool(ours.isfinite().all()) and len(set(ours.tolist())) > 90, "a number that does not move tells nothing"


@pytest.mark.parametrize(
    ("key", "quantity", "slip"),
    [
        ("ddpm", "marginal", "(1 - beta).sqrt() * x0 + (1 - alpha_bar).sqrt() * eps"),  # alpha for alpha-bar
        ("ddpm", "step", "(1 - beta).sqrt() * x_before + beta * z"),  # a variance for the deviation
        ("ddpm", "score", "eps_theta / (1 - alpha_bar).sqrt()"),  # the sign
        ("ddpm", "reverse", "(x_t - beta / (1 - alpha_bar).sqrt() * eps_theta) / (1 - beta).sqrt() + beta * z"),
        ("vp", "step", "x - beta * x * dt + (beta * dt).sqrt() * z"),  # the half of the drift
        ("vdm", "marginal", "torch.sigmoid(gamma_t).sqrt() * x + torch.sigmoid(-gamma_t).sqrt() * eps"),
        ("edm", "score", "(D - x) / sigma"),
        ("edm", "reverse", "x + (sigma - sigma_next) * (x - D) / sigma"),
        ("flow", "marginal", "t * x0 + (1 - t) * x1"),  # x_1 is data
        ("flow", "reverse", "x - (t_next - t) * v"),
        ("cfg", "guidance", "w * eps_c + (1 - w) * eps_0"),  # their w is ours minus one
        ("coste", "reverse", "x + (s_theta + x) * step + (2 * step) ** 0.5 * z"),  # twice the score
        ("della-noce", "marginal", "alpha * x0 + (1 - alpha) * eps"),
        ("gao", "guidance", "gamma * eps_y + (1 - gamma) * eps_0"),
        ("petiushko", "guidance", "(1 + gamma) * score_y - gamma * score"),
    ],
)
def test_a_famous_slip_is_refused(key: str, quantity: str, slip: str):
    theirs, ours = both(key, quantity, TIMES[10:60], theirs=slip)
    assert float((theirs - ours).abs().max()) > 1e-3


@pytest.mark.parametrize("key", SOURCES)
def test_clock_and_coefficients_are_one_noise_level(key: str):
    """Signal and noise have our ratio, and rebuild their noised data: 1e-9, rounding."""
    source, ours = SOURCES[key], names(TIMES)
    known = their_names(source, ours)
    signal, noise, time = (evaluate(line, known, 99) for line in (source.signal, source.noise, source.time))
    torch.testing.assert_close(2 * (signal / noise).log(), LinearBeta().log_snr(TIMES), rtol=1e-9, atol=1e-9)
    theirs = evaluate(source.rows["marginal"].their_code, known, 99)
    torch.testing.assert_close(signal * 0.8 + noise * -0.6, theirs, rtol=1e-9, atol=1e-9)
    falls = key in ("flow", "cfg")  # time from noise to data, and the log-SNR
    assert bool(((time.diff() < 0) if falls else (time.diff() > 0)).all())


def test_clocks_are_those_of_the_package():
    """Their time, put into a schedule of ours, gives back their noise level: 1e-6, as DDPM's betas are the chain's own."""
    time = {key: evaluate(source.time, their_names(source, names(TIMES)), 99) for key, source in SOURCES.items()}
    early = TIMES < 0.85  # later the paper's VE has ended
    level = LinearBeta().noise_level(TIMES)
    torch.testing.assert_close(VarianceExploding().sigma(time["ve"][early]), level[early], rtol=1e-6, atol=0)
    torch.testing.assert_close(Flow().noise_level(1 - time["flow"]), level, rtol=1e-6, atol=0)
    torch.testing.assert_close(OrnsteinUhlenbeck(10.0).noise_level(time["coste"] / 10), level, rtol=1e-6, atol=0)
    torch.testing.assert_close(time["ddpm"], torch.arange(10.0, 1000.0, 10.0, dtype=torch.float64))


def test_ddpms_own_betas_are_nearly_these():
    """A step of our continuous schedule has DDPM's beta to 4 %: the schedule is the chain's limit, not the chain."""
    beta = evaluate("beta", their_names(SOURCES["ddpm"], names(TIMES)), 99)
    torch.testing.assert_close(beta, linear_betas()[9::10][:99], rtol=0.04, atol=0)


def test_our_names_are_the_package():
    ours = names(TIMES)
    torch.testing.assert_close(ours["x_t"], q_sample(LinearBeta(), ours["x0"], TIMES, ours["eps"]))
    gradient = ours["denoiser"](ours["x_t"], TIMES, ours["y"]).score - ours["denoiser"](ours["x_t"], TIMES).score
    torch.testing.assert_close(ours["classifier"], gradient, rtol=1e-9, atol=1e-9)  # Bayes' rule
    known = conventions.CLASSES.score(ours["x_t"][:, None], LinearBeta(), TIMES)[:, 0]
    torch.testing.assert_close(ours["denoiser"](ours["x_t"], TIMES).score, known, rtol=1e-9, atol=1e-9)


def test_the_table_is_whole():
    assert {quantity for source in SOURCES.values() for quantity in source.rows} == set(QUANTITIES)
    assert all("marginal" in source.rows for source in SOURCES.values())
    assert all(bool(source.weight) == ("guidance" in source.rows) for source in SOURCES.values())
    assert 0.01 <= GUIDANCE_TIME <= 0.99
