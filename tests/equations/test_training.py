"""The equations of `book/training.md`."""

from math import pi, sqrt

import numpy as np
import pytest
import sympy as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from diffusion_edu.denoisers import Denoiser
from diffusion_edu.losses import denoising_loss, loss_weight, target_value, x0_factor
from diffusion_edu.metrics import compare_rows
from diffusion_edu.networks import UNet
from diffusion_edu.networks.unet import ResidualBlock
from diffusion_edu.optimizers import orthogonalise
from diffusion_edu.process import SIGMA_DATA, TARGETS, Prediction, input_spread, q_sample
from diffusion_edu.schedules import Cosine, Flow, LinearBeta, VarianceExploding
from diffusion_edu.training import Run, TrainConfig, update_average
from tests.equations import equation

F64 = torch.float64
ALPHA, SIGMA, D, X0, EPS, X = sp.symbols("alpha sigma d x_0 epsilon x", positive=True)
SPREAD = sp.sqrt(ALPHA**2 * D**2 + SIGMA**2)


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=F64)


# the network


def flops_of(work) -> int:
    with FlopCounterMode(display=False) as counted:
        work()
    return counted.get_total_flops()


@equation("eq-training-conv-flops", method="exact", tolerance="exact (integers, against torch's own counter)")
def test_flops_of_a_convolution():
    for c_in, c_out, side, k in ((3, 8, 10, 3), (16, 4, 7, 1), (8, 8, 12, 5)):
        layer, x = nn.Conv2d(c_in, c_out, k, padding=k // 2), torch.zeros(2, c_in, side, side)
        counted = flops_of(lambda layer=layer, x=x: layer(x))
        formula = 2 * k**2 * c_in * c_out * side**2 * 2  # two images
        assert counted == formula
        assert counted != formula // 2  # multiply-adds taken for operations
        assert k == 1 or counted != formula // k  # a row of the kernel for its square


@equation("eq-training-residual", method="exact", tolerance="1e-12 (float64 rounding)")
def test_a_residual_block_by_hand():
    torch.manual_seed(0)
    block = ResidualBlock(16, 24, 5, dropout=0.0).double()
    nn.init.normal_(block.second[-1].weight)
    x, emb = normal(3, 16, 6, 6, seed=1), normal(3, 5, seed=2)

    def silu(v: Tensor) -> Tensor:
        return v / (1 + (-v).exp())

    def norm(v: Tensor, over: tuple[int, ...] = (2, 3, 4)) -> Tensor:
        groups = v.unflatten(1, (8, -1))
        mean = groups.mean(over, keepdim=True)
        var = (groups - mean).square().mean(over, keepdim=True)
        return ((groups - mean) / (var + 1e-5).sqrt()).flatten(1, 2)

    def by_hand(scale_plus: float = 1.0, over: tuple[int, ...] = (2, 3, 4)) -> Tensor:
        first, second = block.first, block.second[-1]
        affine = [v[:, None, None] for v in (first[0].weight, first[0].bias)]
        h = F.conv2d(silu(norm(x, over) * affine[0] + affine[1]), first[2].weight, first[2].bias, padding=1)
        scale, shift = (emb @ block.modulate.weight.T + block.modulate.bias)[:, :, None, None].chunk(2, 1)
        h = F.conv2d(silu((scale_plus + scale) * norm(h, over) + shift), second.weight, second.bias, padding=1)
        return F.conv2d(x, block.shortcut.weight, block.shortcut.bias) + h

    with torch.no_grad():
        found = block(x, emb)
        torch.testing.assert_close(found, by_hand(), rtol=1e-12, atol=1e-12)
        assert (found - by_hand(scale_plus=0.0)).abs().max() > 1e-2  # without the 1 a zero embedding silences the block
        assert (found - by_hand(over=(0, 2, 3, 4))).abs().max() > 1e-2  # statistics over the batch


@equation("eq-training-first-loss", method="monte carlo", tolerance="5 standard errors, 200,000 draws")
def test_loss_of_a_network_that_answers_nothing():
    schedule, n = LinearBeta(), 200_000
    x0, eps, t = 0.5 * normal(n, 1, seed=3), normal(n, 1, seed=4), torch.tensor(0.4, dtype=F64)
    alpha2, sigma2 = float(schedule.alpha(t)) ** 2, float(schedule.sigma(t)) ** 2
    zero = Denoiser(lambda x, t, y=None: torch.zeros_like(x), schedule, "eps")

    def check(losses: Tensor, wanted: float, wrong: float) -> None:
        error = float(losses.std()) / sqrt(n)
        assert abs(float(losses.mean()) - wanted) < 5 * error
        assert abs(float(losses.mean()) - wrong) > 5 * error

    for target, wanted in (("eps", 1.0), ("x0", 0.25), ("v", alpha2 + sigma2 * 0.25), ("edm", 1.0)):
        zero.target = target
        check(denoising_loss(zero, x0, t, eps), wanted, wrong=wanted * 1.05)
    check(eps.abs()[:, 0], sqrt(2 / pi), wrong=1.0)


# targets

AFFINE = {  # x0_hat = a x_t + b F
    "x0": (sp.Integer(0), sp.Integer(1)),
    "eps": (1 / ALPHA, -SIGMA / ALPHA),
    "v": (ALPHA / (ALPHA**2 + SIGMA**2), -SIGMA / (ALPHA**2 + SIGMA**2)),
    "edm": (ALPHA * D**2 / SPREAD**2, D * SIGMA / SPREAD),
}


def numbers(schedule, t: Tensor) -> dict:
    return {ALPHA: float(schedule.alpha(t)), SIGMA: float(schedule.sigma(t)), D: SIGMA_DATA}


@equation("eq-training-affine", method="exact", tolerance="1e-12 (float64 rounding)")
@pytest.mark.parametrize("schedule", [LinearBeta(), Cosine(), VarianceExploding(0.1, 5), Flow()])
def test_every_target_is_an_affine_map(schedule):
    x_t, answer = normal(50, 3, seed=5), normal(50, 3, seed=6)
    for t in (torch.tensor(v, dtype=F64) for v in (0.1, 0.5, 0.9)):
        for target, (a, b) in AFFINE.items():
            a, b = (float(each.subs(numbers(schedule, t))) for each in (a, b))
            package = Prediction(schedule, x_t, t, answer, target).x0
            torch.testing.assert_close(package, a * x_t + b * answer, rtol=1e-12, atol=1e-12)
            assert (package - (a * x_t - b * answer)).abs().max() > 1e-2  # the sign of b


@equation("eq-training-unit-input", method="symbolic", tolerance="exact")
def test_the_input_has_unit_variance():
    c_in = 1 / SPREAD
    variance = c_in**2 * (ALPHA**2 * D**2 + SIGMA**2)
    assert sp.simplify(variance - 1) == 0
    assert sp.simplify((variance * SPREAD**2 / (1 + SIGMA**2)) - 1) != 0  # for data of deviation 1
    t = torch.tensor(0.3, dtype=F64)
    assert float(input_spread(Cosine(), t)) == pytest.approx(float(SPREAD.subs(numbers(Cosine(), t))), rel=1e-12)


@equation("eq-training-unit-target", method="symbolic", tolerance="exact")
def test_the_condition_on_c_out():
    c_skip, c_out = sp.symbols("c_skip c_out", positive=True)
    asked = (X0 - c_skip * (ALPHA * X0 + SIGMA * EPS)) / c_out  # E x0^2 = d^2, E eps^2 = 1, no correlation
    poly = sp.Poly(sp.expand(asked), X0, EPS)
    variance = poly.coeff_monomial(X0) ** 2 * D**2 + poly.coeff_monomial(EPS) ** 2
    book = (1 - c_skip * ALPHA) ** 2 * D**2 + c_skip**2 * SIGMA**2
    assert sp.simplify(variance * c_out**2 - book) == 0
    assert sp.simplify(variance * c_out**2 - ((1 - c_skip) ** 2 * D**2 + c_skip**2 * SIGMA**2)) != 0  # alpha forgotten


@equation("eq-training-edm", method="symbolic", tolerance="exact")
def test_the_least_c_out():
    c_skip = sp.symbols("c_skip", real=True)
    square = (1 - c_skip * ALPHA) ** 2 * D**2 + c_skip**2 * SIGMA**2
    (best,) = sp.solve(sp.diff(square, c_skip), c_skip)
    assert sp.simplify(best - ALPHA * D**2 / SPREAD**2) == 0
    assert sp.diff(square, c_skip, 2).is_positive
    assert sp.simplify(square.subs(c_skip, best) - (SIGMA * D / SPREAD) ** 2) == 0
    assert sp.simplify(square.subs(c_skip, D**2 / SPREAD**2) - (SIGMA * D / SPREAD) ** 2) != 0  # EDM's at alpha = 1
    paper = {ALPHA: 1}  # Karras et al. 2022, Table 1
    assert sp.simplify(best.subs(paper) - D**2 / (SIGMA**2 + D**2)) == 0


@equation("eq-training-edm-target", method="exact", tolerance="1e-12 (float64 rounding)")
def test_what_edm_asks_for():
    x0, eps, t = normal(40, 2, seed=7), normal(40, 2, seed=8), torch.tensor(0.35, dtype=F64)
    for schedule in (Cosine(), VarianceExploding(0.1, 5)):
        a, s, d = float(schedule.alpha(t)), float(schedule.sigma(t)), SIGMA_DATA
        wanted = (s * x0 - d**2 * a * eps) / (d * sqrt((a * d) ** 2 + s**2))
        package = target_value(schedule, x0, t, eps, "edm")
        torch.testing.assert_close(package, wanted, rtol=1e-12, atol=1e-12)
        assert (package - (s * x0 - d * a * eps) / (d * sqrt((a * d) ** 2 + s**2))).abs().max() > 1e-2


@equation("eq-training-v-is-edm", method="symbolic", tolerance="exact")
def test_v_is_edm_for_unit_data():
    edm = (SIGMA * X0 - D**2 * ALPHA * EPS) / (D * SPREAD)
    v = ALPHA * EPS - SIGMA * X0
    preserving = {D: 1, SIGMA: sp.sqrt(1 - ALPHA**2)}
    assert sp.simplify((edm + v).subs(preserving)) == 0
    assert sp.simplify((edm - v).subs(preserving)) != 0
    assert sp.simplify((edm + v).subs(D, sp.Rational(1, 2))) != 0


@equation("eq-training-factors", method="exact", tolerance="1e-10 (float64 rounding, divisions by small sigma)")
@pytest.mark.parametrize("schedule", [LinearBeta(), Cosine(), Flow()])
def test_errors_of_targets_are_multiples_of_one_another(schedule):
    x0, eps, wrong = (normal(30, 4, seed=s) for s in (9, 10, 11))
    for t in (torch.tensor(v, dtype=F64) for v in (0.05, 0.5, 0.95)):
        x_t = q_sample(schedule, x0, t, eps)
        guess = Prediction(schedule, x_t, t, wrong, "x0")
        snr = float(schedule.log_snr(t).exp())
        of_x0 = (wrong - x0).square().mean()
        for target in AFFINE:
            error = (getattr(guess, target) - target_value(schedule, x0, t, eps, target)).square().mean()
            factor = float((1 / AFFINE[target][1] ** 2).subs(numbers(schedule, t)))
            assert float(error / of_x0) == pytest.approx(factor, rel=1e-10)
            assert float(x0_factor(schedule, t, target)) == pytest.approx(factor, rel=1e-10)
        in_snr = {"x0": 1, "eps": snr, "edm": snr + 1 / SIGMA_DATA**2}
        if schedule is not None and float(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2) == pytest.approx(1):
            in_snr["v"] = snr + 1
        for target, factor in in_snr.items():
            assert float(x0_factor(schedule, t, target)) == pytest.approx(factor, rel=1e-10)
        assert float(x0_factor(schedule, t, "edm")) != pytest.approx(snr + 1, rel=1e-3)


@equation("eq-training-min-snr", method="exact", tolerance="1e-12 (float64 rounding)")
def test_min_snr_is_one_weight_for_every_target():
    schedule, t = Cosine(), torch.linspace(0.05, 0.95, 19, dtype=F64)
    snr = schedule.log_snr(t).exp()
    for target in TARGETS:
        on_x0 = loss_weight(schedule, t, target, "min-snr") * x0_factor(schedule, t, target)
        torch.testing.assert_close(on_x0, snr.clamp(max=5), rtol=1e-12, atol=1e-12)
    as_for_x0 = snr.clamp(max=5) * x0_factor(schedule, t, "eps")  # the x0 form, put on the error of eps
    assert (as_for_x0 / snr.clamp(max=5)).max() > 100


@equation("eq-training-density", method="exact", tolerance="1e-6 (trapezoid with 200,001 times)")
def test_even_times_are_a_density_of_the_log_snr():
    schedule = Cosine()
    t = torch.linspace(0.02, 0.98, 200_001, dtype=F64)
    lam = schedule.log_snr(t)
    speed = schedule.diffusion_squared(t) / schedule.sigma(t) ** 2

    def error(lam: Tensor) -> Tensor:
        return 1 / (1 + lam.exp())

    over_t = float(torch.trapezoid(error(lam), t)) / 0.96
    over_lam = float(torch.trapezoid((error(lam) / speed).flip(0), lam.flip(0))) / 0.96
    assert over_t == pytest.approx(over_lam, rel=1e-6)
    assert over_t != pytest.approx(float(torch.trapezoid((error(lam) * speed).flip(0), lam.flip(0))) / 0.96, rel=0.1)


@equation("eq-training-sigmoid", method="exact", tolerance="1e-10 (float64 rounding)")
def test_the_sigmoid_weight_is_per_unit_of_log_snr():
    for schedule in (Cosine(), LinearBeta()):
        t = torch.linspace(0.05, 0.95, 19, dtype=F64)
        lam = schedule.log_snr(t)
        speed = schedule.diffusion_squared(t) / schedule.sigma(t) ** 2
        on_eps = loss_weight(schedule, t, "eps", "sigmoid") / speed
        torch.testing.assert_close(on_eps, 1 / (1 + (lam - 2).exp()), rtol=1e-10, atol=1e-10)
        assert (on_eps - 1 / (1 + (lam + 2).exp())).abs().max() > 0.1  # the sign of the bias


# the average


def plain_weights(d: float, k: int) -> np.ndarray:
    """Weights of theta_0 ... theta_k in a plain average, by unrolling the recursion."""
    weights = np.zeros(k + 1)
    weights[0] = 1
    for j in range(1, k + 1):
        weights *= d
        weights[j] += 1 - d
    return weights


@equation("eq-training-ema", method="exact", tolerance="1e-12 (float64 rounding)")
def test_weights_of_a_plain_average():
    d, k = 0.9, 12
    found, j = plain_weights(d, k), np.arange(1, k + 1)
    np.testing.assert_allclose(found[1:], (1 - d) * d ** (k - j), rtol=1e-12)
    assert found[0] == pytest.approx(d**k, rel=1e-12)
    assert not np.allclose(found[1:], d * (1 - d) ** (k - j))  # decay and 1 - decay exchanged
    assert found.sum() == pytest.approx(1, rel=1e-12)


@equation("eq-training-ema-start", method="exact", tolerance="1e-9 (a product of 3,000 factors)")
def test_share_of_the_first_weights():
    assert plain_weights(0.9999, 3000)[0] == pytest.approx(0.9999**3000, rel=1e-9)
    assert plain_weights(0.9999, 3000)[0] == pytest.approx(np.exp(-3000 / 10_000), rel=1e-4)
    assert plain_weights(0.9999, 3000)[0] != pytest.approx(1 - np.exp(-3000 / 10_000), rel=0.1)


def one_number(ema: float, steps: int) -> Run:
    """A run whose network is a single number."""
    config = TrainConfig(ema=ema, steps=steps, batch=1)
    return Run(Denoiser(nn.Linear(1, 1, bias=False).double(), Cosine(), "eps"), config)


@equation("eq-training-power-update", method="exact", tolerance="1e-10 (a product of up to 50 factors)")
@pytest.mark.parametrize("ema", [0.05, 0.1, 0.2])
def test_the_update_gives_a_power_of_the_step(ema: float):
    k = 50
    power = TrainConfig(ema=ema).ema_power
    places = np.arange(k + 1) / k
    wanted = np.diff(places**power)
    found = np.zeros(k)
    for j in range(k):  # theta is 1 at step j + 1 and 0 elsewhere
        run = one_number(ema, k)
        with torch.no_grad():
            run.ema.net.weight.fill_(7.0)  # the first weights: they must be forgotten at once
            for run.step in range(k):
                run.denoiser.net.weight.fill_(float(run.step == j))
                update_average(run)
        found[j] = run.ema.net.weight.item()
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-15)
    assert np.abs(found - np.diff(places ** (power - 1))).max() > 1e-3  # gamma for gamma + 1


@equation("eq-training-power-ema", method="symbolic", tolerance="exact")
def test_the_profile_is_a_density_that_scales_with_the_run():
    tau, k, g = sp.symbols("tau k gamma", positive=True)
    profile = (g + 1) * tau**g / k ** (g + 1)
    assert sp.simplify(sp.integrate(profile, (tau, 0, k)) - 1) == 0
    cell = sp.integrate(profile, (tau, 2, 3))
    assert sp.simplify(cell - ((3 / k) ** (g + 1) - (2 / k) ** (g + 1))) == 0
    assert sp.simplify(sp.integrate(tau**g / k**g, (tau, 0, k)) - 1) != 0


@equation("eq-training-ema-width", method="symbolic", tolerance="exact, and 1e-9 for the package's root")
def test_the_relative_width():
    u, g = sp.symbols("u gamma", positive=True)
    mean, second = (sp.integrate((g + 1) * u ** (g + n), (u, 0, 1)) for n in (1, 2))
    width = sp.simplify(second - mean**2)
    book = (g + 1) / ((g + 2) ** 2 * (g + 3))
    assert sp.simplify(width - book) == 0
    assert sp.simplify(width - (g + 1) / ((g + 2) * (g + 3))) != 0
    for ema in (0.02, 0.05, 0.2):
        gamma = TrainConfig(ema=ema).ema_power - 1
        assert sqrt(book.subs(g, gamma)) == pytest.approx(ema, rel=1e-9)
    assert TrainConfig(ema=0.1).ema_power - 1 == pytest.approx(6.94, abs=0.005)  # Karras et al. 2024, Sec. 3.1


# optimizers


@equation("eq-training-adam", method="exact", tolerance="1e-7 (epsilon 1e-8 beside gradients of 0.1)")
def test_adams_first_steps_are_signs():
    for factor in (1.0, 1000.0):
        gradient = factor * torch.tensor([0.5, -0.1, 3.0], dtype=F64)
        weights = nn.Parameter(torch.zeros(3, dtype=F64))
        adam = torch.optim.Adam([weights], lr=0.01)
        for k in (1, 2, 3):
            weights.grad = gradient.clone()
            adam.step()
            torch.testing.assert_close(weights.data, -0.01 * k * gradient.sign(), rtol=1e-6, atol=1e-9)
    assert not torch.allclose(weights.data, -0.03 * gradient)  # it is no gradient step

    gradients, m, v, theta = normal(6, 4, seed=12), torch.zeros(4, dtype=F64), torch.zeros(4, dtype=F64), 0.0
    weights = nn.Parameter(torch.zeros(4, dtype=F64))
    adam = torch.optim.Adam([weights], lr=0.1, betas=(0.9, 0.99))
    for k, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        theta = theta - 0.1 * (m / (1 - 0.9**k)) / ((v / (1 - 0.99**k)).sqrt() + 1e-8)
        weights.grad = g.clone()
        adam.step()
    torch.testing.assert_close(weights.data, theta, rtol=1e-12, atol=1e-12)


@equation("eq-training-polar", method="exact", tolerance="1e-10 (float64 rounding)")
def test_the_polar_factor_gains_most_among_matrices_of_norm_one():
    g = normal(6, 4, seed=13)
    u, s, vh = torch.linalg.svd(g, full_matrices=False)
    polar = u @ vh
    assert float((g * polar).sum()) == pytest.approx(float(s.sum()), rel=1e-10)
    for seed in range(200):
        other = normal(6, 4, seed=100 + seed)
        other = other / torch.linalg.matrix_norm(other, 2)
        assert float((g * other).sum()) < float(s.sum())
    assert float((g * g / s.max()).sum()) < float(s.sum())  # the gradient itself, scaled to norm one, gains less


@equation("eq-training-newton-schulz", method="exact", tolerance="1e-9 (float64 rounding, five rounds)")
def test_newton_schulz_moves_singular_values_only():
    g = normal(5, 8, seed=14)
    u, s, vh = torch.linalg.svd(g, full_matrices=False)
    scaled = s / g.norm()
    for rounds in (0, 1, 2, 5):
        moved = scaled
        for _ in range(rounds):
            moved = 3.4445 * moved - 4.7750 * moved**3 + 2.0315 * moved**5
        found = orthogonalise(g[None], rounds)[0]
        torch.testing.assert_close(found, u @ torch.diag(moved) @ vh, rtol=1e-6, atol=1e-6)
    assert 0.6 < float(moved.min()) and float(moved.max()) < 1.3
    wrong = 3.4445 * scaled - 4.7750 * scaled**2 + 2.0315 * scaled**3
    assert (wrong - (3.4445 * scaled - 4.7750 * scaled**3 + 2.0315 * scaled**5)).abs().max() > 0.1


@equation("eq-training-noise-floor", method="exact", tolerance="1e-9 (3,000 rounds of an exact recursion)")
def test_noise_of_a_constant_rate():
    for h, noise in ((0.1, 1.0), (0.5, 0.3)):
        variance = 4.0
        for _ in range(3000):
            variance = (1 - h) ** 2 * variance + h**2 * noise**2
        assert variance == pytest.approx(h * noise**2 / (2 - h), rel=1e-9)
        assert variance != pytest.approx(h**2 * noise**2, rel=0.1)


@equation("eq-training-cosine", method="exact", tolerance="1e-12 (float64 rounding)")
def test_the_rate_rises_and_falls():
    config = TrainConfig(steps=1000, rate=2e-3, warmup=0.05)
    for k in (0, 10, 49, 50, 200, 525, 999):
        rise = min(1, (k + 1) / 50)
        fall = (1 + np.cos(np.pi * max(0, (k / 1000 - 0.05) / 0.95))) / 2
        assert config.rate_at(k) == pytest.approx(2e-3 * min(rise, fall), rel=1e-12)
    assert config.rate_at(999) < 1e-7 and config.rate_at(525) == pytest.approx(1e-3, rel=1e-9)
    assert config.rate_at(200) != pytest.approx(2e-3 * (1 + np.cos(np.pi * 200 / 1000)) / 2, rel=1e-2)


# the ledger


@equation(
    "eq-training-told-apart",
    method="monte carlo",
    tolerance="2,000 ledgers without a difference: at most 5 % may find one, plus three standard errors; 1e-9 against scipy",
)
def test_no_ledger_finds_what_is_not_there_too_often():
    from scipy.stats import ttest_ind

    draw, alarms, naive, worlds = np.random.default_rng(0), 0, 0, 2000
    for _ in range(worlds):
        base = np.exp(1 + 0.1 * draw.standard_normal(6))
        rows = {str(k): np.exp(1 + 0.1 * draw.standard_normal(3)) for k in range(20)}
        alarms += any(
            not r.low < 1 < r.high for r in compare_rows(list(base), {k: list(v) for k, v in rows.items()}).values()
        )
        naive += any(abs(v.mean() - base.mean()) > 2 * v.std(ddof=1) for v in rows.values())  # the rule by eye
    assert alarms / worlds < 0.05 + 3 * sqrt(0.05 * 0.95 / worlds)
    assert naive / worlds > 0.5
    left, right = [3.0, 4.0, 4.5], [5.0, 7.0]
    exact = ttest_ind(np.log(right), np.log(left)).confidence_interval(0.95)
    found = compare_rows(left, {"row": right})["row"]
    assert np.log(found[1:]) == pytest.approx([exact.low, exact.high], rel=1e-9)
    assert found.value == pytest.approx(sqrt(35) / 54 ** (1 / 3), rel=1e-12)


# the speed of a step


@equation("eq-training-three-forwards", method="exact", tolerance="exact (integers, but for the first layer's input)")
def test_a_step_costs_three_forward_passes():
    layers = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3)))
    x = torch.zeros(2, 8, 6, 6)
    forward = flops_of(lambda: layers(x))
    with_input = flops_of(lambda: layers(x.clone().requires_grad_()).sum().backward())
    assert with_input == 3 * forward
    assert flops_of(lambda: layers(x).sum().backward()) == 3 * forward - forward // 3  # no gradient for the data
    net, t = UNet(channels=(8, 16)), torch.full((2,), 0.5)
    images = torch.zeros(2, 1, 8, 8)
    step, once = flops_of(lambda: net(images, t).sum().backward()), flops_of(lambda: net(images, t))
    assert 2.9 < step / once <= 3.05
    assert abs(step / once - 2) > 0.5


def finish(work: list[float], traffic: list[float]) -> float:
    """When the last part is done, on a machine that computes one part while it fetches the next."""
    fetched = done = 0.0
    for compute, move in zip(work, traffic, strict=True):
        fetched += move
        done = max(done, fetched) + compute
    return done


@equation("eq-training-roofline", method="exact", tolerance="2 % (500 parts: the first is fetched while nothing runs)")
def test_no_schedule_beats_the_longer_part_and_a_fine_one_reaches_it():
    for flops, moved, peak, copy in ((4e9, 1e8, 1e11, 1e10), (1e9, 1e9, 1e11, 1e10)):
        compute, traffic = flops / peak, moved / copy
        bound = max(compute, traffic)
        times = [finish([compute / n] * n, [traffic / n] * n) for n in (1, 5, 50, 500)]
        assert min(times) >= bound * (1 - 1e-9)
        assert times[-1] == pytest.approx(bound, rel=0.02)
        assert times[0] == pytest.approx(
            compute + traffic
        )  # their sum is no lower bound: the fine schedule is below it
        assert times[-1] < 0.95 * (compute + traffic) and times[-1] > 1.5 * min(compute, traffic)
        assert (compute >= traffic) == (flops / moved >= peak / copy)  # the ridge


# more cards


def tiny() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def gradient_of(net: nn.Sequential, loss: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])


@equation("eq-training-data-parallel", method="exact", tolerance="1e-12 (float64 rounding)")
@pytest.mark.parametrize("processes", [2, 3, 4])
def test_mean_of_gradients_is_gradient_of_mean(processes: int):
    net, x, y = tiny(), normal(12, 3, seed=15), normal(12, 2, seed=16)
    whole = gradient_of(net, (net(x) - y).square().mean(1).mean())
    shares = [
        gradient_of(net, (net(a) - b).square().mean(1).mean())
        for a, b in zip(x.chunk(processes), y.chunk(processes), strict=True)
    ]
    torch.testing.assert_close(sum(shares) / processes, whole, rtol=1e-12, atol=1e-12)
    assert (sum(shares) - whole).abs().max() > 1e-2  # forgotten division
    uneven = [gradient_of(net, (net(a) - b).square().mean(1).mean()) for a, b in ((x[:9], y[:9]), (x[9:], y[9:]))]
    assert (sum(uneven) / 2 - whole).abs().max() > 1e-3  # a mean of means needs equal shares
    torch.testing.assert_close((9 * uneven[0] + 3 * uneven[1]) / 12, whole, rtol=1e-12, atol=1e-12)
