"""The equations of `book/fast.md`."""

from itertools import combinations
from math import log, sqrt

import pytest
import sympy as sp
import torch
from torch import Tensor

from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.likelihood import best_trajectory, chain_costs, gaussian_kl, optimal_variance, score_norms, step_kl
from diffusion_edu.process import posterior, q_sample, transition
from diffusion_edu.samplers import adams_bashforth, ancestral, ddim, dpm_solver_pp, edm, multistep, sample
from diffusion_edu.schedules import Cosine, LinearBeta, VarianceExploding, time_grid
from tests.equations import equation

F64 = torch.float64
SCHEDULES = [LinearBeta(), Cosine(), VarianceExploding(0.1, 5)]
A_T, S_T, A_S, S_S, R = sp.symbols("alpha_t sigma_t alpha_s sigma_s r", positive=True)  # r: fresh noise
X0, X_S, X_T = sp.symbols("x_0 x_s x_t", real=True)
KAPPA = sp.sqrt(S_S**2 - R**2) / S_T
ELL = A_S - A_T * KAPPA


def time(*values: float) -> Tensor:
    return torch.tensor(values if len(values) > 1 else values[0], dtype=F64)


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=F64)


def plane() -> GaussianMixture:
    """The book's mixture in the plane."""
    means = torch.tensor([[-1.2, 0.3], [0.9, 1.0], [0.4, -1.1]], dtype=F64)
    return GaussianMixture(means, torch.tensor([0.3, 0.4, 0.25], dtype=F64), torch.tensor([0.2, 0.5, 0.3], dtype=F64))


def bell(std: float = 0.5) -> GaussianMixture:
    return GaussianMixture(torch.zeros(1, 2, dtype=F64), std)


def zero(expression) -> bool:
    return sp.simplify(expression) == 0


# the family


@equation("eq-fast-consistency", method="exact", tolerance="1e-9 (integral over x_t on a grid of spacing 0.002)")
def test_the_family_has_the_marginals():
    alpha_t, sigma_t, alpha_s, sigma_s, x0 = 0.6, 0.8, 0.8, 0.6, 0.7
    grid = torch.linspace(-8, 8, 8001, dtype=F64)
    x_s = torch.linspace(-2, 3, 11, dtype=F64)

    def bell_at(x, mean, std):
        return torch.distributions.Normal(mean, std).log_prob(x).exp()

    def gap(kept, fresh):
        kappa = kept / sigma_t
        mean = kappa * grid + (alpha_s - alpha_t * kappa) * x0
        step = bell_at(x_s[:, None], mean, torch.tensor(fresh, dtype=F64))
        found = (step * bell_at(grid, alpha_t * x0, torch.tensor(sigma_t, dtype=F64))).sum(1) * (grid[1] - grid[0])
        return float((found - bell_at(x_s, alpha_s * x0, torch.tensor(sigma_s, dtype=F64))).abs().max())

    for fresh in (0.1, 0.3, 0.55):
        assert gap(sqrt(sigma_s**2 - fresh**2), fresh) < 1e-9
    assert gap(sigma_s - 0.3**2, 0.3) > 1e-3  # the root over the wrong bracket
    assert gap(sigma_s, 0.3) > 1e-2


@equation("eq-fast-coefficients", method="symbolic", tolerance="exact (any schedule)")
def test_undetermined_coefficients():
    k, m = sp.symbols("k m", positive=True)
    solution = sp.solve([k * A_T + m - A_S, k**2 * S_T**2 + R**2 - S_S**2], [k, m], dict=True)
    assert any(zero(s[k] - KAPPA) and zero(s[m] - ELL) for s in solution)
    slip = (S_S - R**2) / S_T
    assert not zero(slip**2 * S_T**2 + R**2 - S_S**2)


@equation("eq-fast-coefficients", method="exact", tolerance="1e-12 (the bound on the fresh noise, on DDPM's chain)")
def test_the_large_variance_leaves_the_family_near_the_data():
    ts = time_grid(LinearBeta(), 1000)[:-1]
    large = transition(LinearBeta(), ts[:-1], ts[1:])[1]
    room = LinearBeta().sigma(ts[1:]) ** 2
    outside = large > room + 1e-12
    assert bool(outside[-1]) and not bool(outside[:500].any())
    own = large * room / LinearBeta().sigma(ts[:-1]) ** 2
    assert bool((own <= room).all())


@equation("eq-fast-step", method="symbolic", tolerance="exact (any schedule)")
def test_the_step_in_guesses():
    eps = (X_T - A_T * X0) / S_T
    step = A_S * X0 + sp.sqrt(S_S**2 - R**2) * eps
    assert zero(KAPPA * X_T + ELL * X0 - step)
    assert not zero(KAPPA * X_T + ELL * X0 - (A_S * X0 + S_S * eps))


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@equation("eq-fast-step", method="exact", tolerance="1e-12 (the package's step is the formula)")
def test_the_step_of_the_package(schedule, eta):
    x, (t, s) = normal(50, 2, seed=1), time(0.6, 0.4)
    guess = plane().denoiser(schedule)(x, t)
    fresh = eta * (transition(schedule, t, s)[1] * schedule.sigma(s) ** 2 / schedule.sigma(t) ** 2).sqrt()
    z, kept = normal(50, 2, seed=2), (schedule.sigma(s) ** 2 - fresh**2).sqrt()
    mine = schedule.alpha(s) * guess.x0 + kept * guess.eps + fresh * z
    package = sample(ddim(plane().denoiser(schedule), x, time(0.6, 0.4), eta=eta, generator=seeded(2)))
    torch.testing.assert_close(mine, package, rtol=1e-12, atol=1e-12)
    if eta == 0.4:
        assert float((mine + (sqrt(eta) / eta - 1) * fresh * z - package).abs().max()) > 0.01  # eta on the variance


@equation("eq-fast-eta", method="symbolic", tolerance="exact (any schedule)")
def test_eta_one_is_the_posterior():
    ratio = A_T / A_S
    v = S_T**2 - ratio**2 * S_S**2
    own = S_S * sp.sqrt(v) / S_T
    assert zero((S_S**2 - own**2) / S_T**2 - (ratio * S_S**2 / S_T**2) ** 2)  # kappa squared, both positive
    kappa = ratio * S_S**2 / S_T**2
    assert zero(A_S - A_T * kappa - A_S * v / S_T**2)
    assert not zero((S_S**2 - v) / S_T**2 - kappa**2)  # the large variance


@equation("eq-fast-implied", method="symbolic", tolerance="exact (product of the two densities)")
def test_the_implied_forward_step():
    exponent = -((X_S - KAPPA * X_T - ELL * X0) ** 2) / (2 * R**2) - (X_T - A_T * X0) ** 2 / (2 * S_T**2)
    variance = -1 / sp.diff(exponent, X_T, 2)
    assert zero(variance - S_T**2 * R**2 / S_S**2)
    mean = sp.solve(sp.diff(exponent, X_T), X_T)[0]
    stated = A_T * X0 + S_T * sp.sqrt(S_S**2 - R**2) / S_S**2 * (X_S - A_S * X0)
    assert zero(mean - stated)
    assert not zero(mean - stated.subs(S_S**2 - R**2, S_S**2))
    on_x0 = sp.diff(stated, X0)
    numbers = {A_T: sp.sqrt(0.5), S_T: sp.sqrt(0.5), A_S: sp.sqrt(0.8), S_S: sp.sqrt(0.2)}
    own = sp.sqrt(0.2 * (0.5 - 0.5 / 0.8 * 0.2) / 0.5)
    assert abs(float(on_x0.subs(numbers | {R: own}))) < 1e-12  # Markov
    assert float(on_x0.subs(numbers | {R: 0})) == pytest.approx(-0.7071, abs=1e-4)  # not


# the ODE: Heun, the grid, churn


def level(schedule, t):
    return schedule.sigma(t) / schedule.alpha(t)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@equation("eq-fast-heun", method="exact", tolerance="1e-12 (one step); order 2 within 0.2 (fitted)")
def test_heun_in_the_noise_level(schedule):
    denoiser, x, (t, s) = plane().denoiser(schedule), normal(50, 2, seed=3), time(0.6, 0.45)
    u, h = x / schedule.alpha(t), level(schedule, s) - level(schedule, t)
    first = denoiser(x, t).eps
    second = denoiser(schedule.alpha(s) * (u + h * first), s).eps
    package = sample(edm(denoiser, x, time(0.6, 0.45)))
    torch.testing.assert_close(schedule.alpha(s) * (u + h * (first + second) / 2), package, rtol=1e-12, atol=1e-12)
    states = u + h * first + h * second / 2  # the mean of the trial and a second step from it
    assert float((schedule.alpha(s) * states - package).abs().max()) > 1e-3


@equation(
    "eq-fast-heun", method="exact", tolerance="0.2 (order fitted over three grids, closed-form flow of a Gaussian)"
)
def test_order_of_heun():
    schedule, x = LinearBeta(), normal(20, 2, seed=4)

    def error(sampler, steps):
        ts = torch.linspace(0.8, 0.1, steps + 1, dtype=F64)
        std = ((schedule.alpha(ts) * 0.5) ** 2 + schedule.sigma(ts) ** 2).sqrt()
        return float((sample(sampler(bell().denoiser(schedule), x, ts)) - x * std[-1] / std[0]).abs().max())

    assert log(error(edm, 40) / error(edm, 80)) / log(2) == pytest.approx(2, abs=0.2)
    assert log(error(ddim, 40) / error(ddim, 80)) / log(2) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@equation("eq-fast-edm-grid", method="exact", tolerance="1e-5 relative (times found by bisection)")
def test_the_edm_grid(schedule):
    top, low = level(schedule, time(schedule.t_max)), level(schedule, time(schedule.t_min))
    i = torch.arange(12, dtype=F64)

    def wanted(rho):
        return (top ** (1 / rho) + i / 11 * (low ** (1 / rho) - top ** (1 / rho))) ** rho

    ts = time_grid(schedule, 12, "edm")
    assert float(ts[-1]) == 0
    found = level(schedule, ts[:-1])
    torch.testing.assert_close(found, wanted(7), rtol=1e-5, atol=1e-8)
    assert float((found / wanted(3) - 1).abs().max()) > 0.1
    torch.testing.assert_close(wanted(1e7), top * (low / top) ** (i / 11), rtol=1e-5, atol=1e-9)  # the limit: log-SNR


@equation("eq-fast-churn", method="monte carlo", tolerance="4 standard errors (of the variance of 200,000 draws)")
def test_churn_reaches_the_level():
    n, low, high = 200_000, 1.0, 1.1
    data = 0.5 * normal(n, seed=5)
    x = data + low * normal(n, seed=6)
    z = normal(n, seed=7)
    wanted = 0.25 + high**2

    def misses(amount):
        return abs(float((x + amount * z).var()) / wanted - 1) > 4 * sqrt(2 / n)

    assert not misses(sqrt(high**2 - low**2))
    assert misses(high - low) and misses(high)


# multistep


@equation("eq-fast-integral", method="exact", tolerance="1e-9 (Simpson's rule, closed-form flow of a Gaussian)")
def test_the_path_is_the_integral_of_the_slope():
    c, start = 0.5, 1.7
    tau = torch.linspace(2.0, 0.3, 2001, dtype=F64)
    path = start * ((c**2 + tau**2) / (c**2 + 4)).sqrt()  # x / alpha of Gaussian data
    slope = path * tau / (c**2 + tau**2)
    weights = torch.ones(2001, dtype=F64)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    integral = (weights * slope).sum() * (tau[1] - tau[0]) / 3
    assert float(path[0] + integral - path[-1]) == pytest.approx(0, abs=1e-9)
    assert abs(float(path[0] - integral - path[-1])) > 0.5


@equation("eq-fast-weights", method="symbolic", tolerance="exact (three uneven nodes); 1e-12 for the package")
def test_weights_average_polynomials():
    u = [sp.Integer(0), -sp.Rational(3, 4), -sp.Rational(9, 4)]
    w = sp.symbols("w0:3")
    solution = sp.solve([sum(w[j] * u[j] ** m for j in range(3)) - sp.Rational(1, m + 1) for m in range(3)], w)
    x = sp.symbols("x")
    for f in (sp.Integer(1), 2 * x - 1, x**2 + x):
        mean = sp.integrate(f, (x, 0, 1))
        assert sum(solution[w[j]] * f.subs(x, u[j]) for j in range(3)) - mean == 0
    cubic = sum(solution[w[j]] * u[j] ** 3 for j in range(3))
    assert cubic != sp.Rational(1, 4)
    nodes = time(2.0, 2.75, 4.25)
    found = adams_bashforth(nodes, time(1.0))
    torch.testing.assert_close(found, torch.tensor([float(solution[v]) for v in w], dtype=F64), rtol=1e-12, atol=1e-12)


@equation("eq-fast-ab4", method="symbolic", tolerance="exact (cubic polynomials)")
def test_the_table_of_adams_and_bashforth():
    weights = [sp.Rational(n, 24) for n in (55, -59, 37, -9)]

    def right(row):
        return all(sum(w * (-j) ** m for j, w in enumerate(row)) == sp.Rational(1, m + 1) for m in range(4))

    assert right(weights)
    assert not right(weights[::-1])
    assert not right([sp.Rational(n, 24) for n in (55, 59, 37, -9)])


@equation("eq-fast-defect", method="symbolic", tolerance="exact; orders 2 and 4 within 0.3 (fitted)")
def test_even_weights_on_an_uneven_grid():
    h, before = sp.symbols("h h_before", positive=True)
    first_moment = sp.Rational(3, 2) * 0 - sp.Rational(1, 2) * (-before / h)
    assert zero(first_moment - before / (2 * h)) and not zero(first_moment - sp.Rational(1, 2))
    schedule, x = LinearBeta(), normal(5, 2, seed=8)

    def error(even, steps):
        ts = time_grid(schedule, steps, "log_snr")[:-1]
        std = ((schedule.alpha(ts) * 0.5) ** 2 + schedule.sigma(ts) ** 2).sqrt()
        end = sample(multistep(bell().denoiser(schedule), x, ts, even=even))
        return float((end - x * std[-1] / std[0]).abs().max())

    assert log(error(True, 80) / error(True, 160)) / log(2) == pytest.approx(2, abs=0.3)
    assert log(error(False, 80) / error(False, 160)) / log(2) > 3


# DPM-Solver++


@equation("eq-fast-exponential", method="symbolic", tolerance="exact (any alpha and sigma)")
def test_the_noise_drops_out():
    t = sp.symbols("t")
    a, s = sp.Function("alpha", positive=True)(t), sp.Function("sigma", positive=True)(t)
    x0, eps = sp.symbols("x0 eps")
    velocity = sp.diff(a, t) * x0 + sp.diff(s, t) * eps
    change = velocity / s - (a * x0 + s * eps) * sp.diff(s, t) / s**2
    half = sp.log(a / s)
    assert zero(change - sp.exp(half) * sp.diff(half, t) * x0)
    assert not zero(change - sp.exp(2 * half) * sp.diff(2 * half, t) * x0)


@equation("eq-fast-dpm-one", method="symbolic", tolerance="exact (it is DDIM's step)")
def test_first_order_is_ddim():
    x = A_T * X0 + S_T * sp.symbols("eps")
    h = sp.log(A_S / S_S) - sp.log(A_T / S_T)

    def step(h):
        return S_S / S_T * x - A_S * (sp.exp(-h) - 1) * X0

    wanted = A_S * X0 + S_S * sp.symbols("eps")
    assert zero(sp.expand(step(h) - wanted))
    assert not zero(sp.expand(step(-h) - wanted)) and not zero(sp.expand(step(2 * h) - wanted))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@equation("eq-fast-dpm-two", method="exact", tolerance="1e-11 (by hand); order 2 within 0.2 (fitted)")
def test_second_order(schedule):
    def run(denoiser, x, ts, sign=1.0):
        before = None
        for t, s in zip(ts[:-1], ts[1:], strict=True):
            guess = denoiser(x, t).x0
            now, then = (log(float(schedule.alpha(u) / schedule.sigma(u))) for u in (t, s))
            target = guess
            if before is not None:
                target = guess + sign * (then - now) / (2 * (now - before[0])) * (guess - before[1])
            before = (now, guess)
            x = (
                schedule.sigma(s) / schedule.sigma(t) * x
                - schedule.alpha(s) * (2.718281828459045 ** (now - then) - 1) * target
            )
        return x

    x, ts = normal(10, 2, seed=9), time_grid(schedule, 9, "edm")[:-1]
    denoiser = plane().denoiser(schedule)
    package = sample(dpm_solver_pp(denoiser, x, ts))
    torch.testing.assert_close(run(denoiser, x, ts), package, rtol=1e-11, atol=1e-11)

    def error(sign, steps):
        ts = time_grid(schedule, steps, "log_snr")[:-1]
        std = ((schedule.alpha(ts) * 0.5) ** 2 + schedule.sigma(ts) ** 2).sqrt()
        return float((run(bell().denoiser(schedule), x, ts, sign) - x * std[-1] / std[0]).abs().max())

    assert log(error(1, 60) / error(1, 120)) / log(2) == pytest.approx(2, abs=0.2)
    assert log(error(-1, 60) / error(-1, 120)) / log(2) < 1.5  # extrapolated backwards


# the best variance and the best times


@equation("eq-fast-optimal-variance", method="monte carlo", tolerance="the minimum lies within 1 % (100,000 draws)")
def test_the_variance_minimises_the_bound():
    schedule, (t, s) = Cosine(), time(0.6, 0.3)
    x0, eps = plane().sample(100_000, seeded(1)), normal(100_000, 2, seed=2)
    guess = plane().denoiser(schedule)(q_sample(schedule, x0, t, eps), t)
    guess = guess.with_x0(0.9 * guess.x0)  # any guess will do
    own = posterior(schedule, x0, guess.x_t, t, s)[1] ** 2
    weight = schedule.alpha(s) * transition(schedule, t, s)[1] / schedule.sigma(t) ** 2
    best = own + weight**2 * (x0 - guess.x0).square().mean()

    def bound(variance):
        return float(step_kl(guess, x0, s, variance.log()).mean())

    assert bound(best) < min(bound(0.99 * best), bound(1.01 * best))
    for wrong in (own, own + weight * (x0 - guess.x0).square().mean()):
        assert not bound(wrong) < min(bound(0.99 * wrong), bound(1.01 * wrong))


@equation("eq-fast-score-norm", method="monte carlo", tolerance="4 standard errors (200,000 draws)")
def test_the_score_knows_the_error():
    schedule, t = Cosine(), time(0.5)
    x0, eps = plane().sample(200_000, seeded(3)), normal(200_000, 2, seed=4)
    guess = plane().denoiser(schedule)(q_sample(schedule, x0, t, eps), t)
    a, b = schedule.alpha(t), schedule.sigma(t)
    error, norm = (x0 - guess.x0).square().mean(1), guess.score.square().mean(1)

    def misses(factor):
        gap = error - (b / a) ** 2 * (1 - factor * norm)
        return abs(float(gap.mean())) > 4 * float(gap.std()) / len(gap) ** 0.5

    assert not misses(b**2)
    assert misses(b) and misses(b**2 / 2)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@equation("eq-fast-analytic", method="exact", tolerance="1e-10 (Gaussian data: the true variance of x_s given x_t)")
def test_the_variance_of_gaussian_data(schedule):
    ts, c = time(0.7, 0.3), 0.5
    v_t, v_s = (schedule.alpha(ts) * c) ** 2 + schedule.sigma(ts) ** 2
    ratio = schedule.alpha(ts[0]) / schedule.alpha(ts[1])
    wanted = v_s - (ratio * v_s) ** 2 / v_t
    found = optimal_variance(schedule, ts, (1 / v_t)[None])
    torch.testing.assert_close(found[0], wanted, rtol=1e-10, atol=1e-12)
    fresh, sigma = transition(schedule, *ts)[1], schedule.sigma(ts)
    by_page = fresh * sigma[1] ** 2 / sigma[0] ** 2 + (fresh / (ratio * sigma[0])) ** 2 * (1 - sigma[0] ** 2 / v_t)
    torch.testing.assert_close(by_page, wanted, rtol=1e-10, atol=1e-12)
    assert abs(float(optimal_variance(schedule, ts, (1 / v_t.sqrt())[None])[0] - wanted)) > 1e-3


@equation("eq-fast-analytic", method="exact", tolerance="1e-9 (one step of any length has the exact law)")
def test_a_step_with_the_best_variance_is_exact_for_gaussian_data():
    schedule, ts, c = LinearBeta(), time(0.9, 0.2), 0.5
    v_t, v_s = (schedule.alpha(ts) * c) ** 2 + schedule.sigma(ts) ** 2
    x = time(0.0, 1.0)[:, None].expand(2, 2)
    variance = optimal_variance(schedule, ts, (1 / v_t)[None])
    ends = sample(ancestral(bell(c).denoiser(schedule), x, ts, variance=torch.zeros(1, dtype=F64)))
    gain = float(ends[1, 0] - ends[0, 0])
    assert gain**2 * float(v_t) + float(variance[0]) == pytest.approx(float(v_s), abs=1e-9)
    own = float(posterior(schedule, x, x, *ts)[1]) ** 2
    assert abs(gain**2 * float(v_t) + own - float(v_s)) > 0.01


@equation("eq-fast-costs", method="exact", tolerance="1e-9 relative (against the divergence, averaged)")
def test_the_price_of_a_step():
    schedule, ts = Cosine(), time(0.8, 0.5, 0.2)
    x0, eps = plane().sample(2000, seeded(5)), normal(2000, 2, seed=6)
    t, s = ts[0], ts[2]
    guess = plane().denoiser(schedule)(q_sample(schedule, x0, t, eps), t)
    error = (x0 - guess.x0).square().sum(1).mean()
    own = posterior(schedule, x0, guess.x_t, t, s)[1] ** 2
    weight = schedule.alpha(s) * transition(schedule, t, s)[1] / schedule.sigma(t) ** 2
    errors = torch.stack([error, error, error])
    for name, variance in (("small", own), ("optimal", own + weight**2 * error / 2)):
        nats = float(step_kl(guess, x0, s, variance.log()).sum(1).mean())
        found = float(chain_costs(schedule, ts, errors, 2, name)[0, 2])
        assert found == pytest.approx(nats, rel=1e-9)
        assert abs(2 * found - nats) > 0.01
    assert bool(chain_costs(schedule, ts, errors, 2)[1, 0].isinf())


@equation("eq-fast-costs", method="symbolic", tolerance="exact (the weight over the posterior's variance)")
def test_the_weight_is_the_rise_of_the_snr():
    v = S_T**2 - (A_T / A_S) ** 2 * S_S**2
    squared = (A_S * v / S_T**2) ** 2 / (v * S_S**2 / S_T**2)
    assert zero(squared - ((A_S / S_S) ** 2 - (A_T / S_T) ** 2))
    assert not zero(squared - ((A_S / S_S) ** 2 / (A_T / S_T) ** 2 - 1))


@equation("eq-fast-dp", method="exact", tolerance="1e-12 (against all paths of nine states)")
def test_the_dynamic_programme_finds_the_best_path():
    costs = torch.rand(9, 9, generator=seeded(7), dtype=F64) + 0.1
    costs = costs.masked_fill(~torch.ones(9, 9, dtype=torch.bool).triu(1), torch.inf)
    for steps in range(1, 9):
        paths = [(0, *inner, 8) for inner in combinations(range(1, 8), steps - 1)]
        prices = {path: sum(float(costs[i, j]) for i, j in zip(path[:-1], path[1:], strict=True)) for path in paths}
        states, cost = best_trajectory(costs, steps)
        cheapest = min(prices, key=prices.__getitem__)
        assert tuple(states.tolist()) == cheapest and float(cost) == pytest.approx(prices[cheapest], abs=1e-12)
    greedy, here = 0.0, 0
    for _ in range(3):
        there = int(costs[here, : 8 if _ < 2 else 9].argmin()) if _ < 2 else 8
        greedy, here = greedy + float(costs[here, there]), there
    assert greedy > float(best_trajectory(costs, 3)[1]) + 1e-6


@equation("eq-fast-last", method="monte carlo", tolerance="4 standard errors (50,000 draws)")
def test_noise_at_the_last_step_adds_its_variance():
    schedule, t, fresh = Cosine(), time(0.1), 0.15
    x0, eps, z = plane().sample(50_000, seeded(8)), normal(50_000, 2, seed=9), normal(50_000, 2, seed=10)
    guess = plane().denoiser(schedule)(q_sample(schedule, x0, t, eps), t).x0
    with_noise = (guess + fresh * z - x0).square().sum(1)

    def misses(extra):
        gap = with_noise - (guess - x0).square().sum(1) - extra
        return abs(float(gap.mean())) > 4 * float(gap.std()) / len(gap) ** 0.5

    assert not misses(2 * fresh**2)
    assert misses(fresh**2) and misses(0.0)
    end = ancestral(plane().denoiser(schedule), x0, time(0.1, 0.0), variance="large", generator=seeded(1))
    torch.testing.assert_close(sample(end), plane().denoiser(schedule)(x0, t).x0, rtol=1e-9, atol=1e-9)


def test_score_norms_average_over_the_data():
    schedule, ts = Cosine(), time(0.7, 0.3)
    v = (schedule.alpha(ts) * 0.5) ** 2 + schedule.sigma(ts) ** 2
    norms = score_norms(bell().denoiser(schedule), bell().sample(40_000, seeded(1)), ts, generator=seeded(2))
    torch.testing.assert_close(norms, 1 / v, rtol=4 * sqrt(2 / 80_000), atol=0)


def test_the_optimal_variance_has_the_smallest_divergence_of_two_bells():
    own, extra = torch.tensor(0.2, dtype=F64), torch.tensor(0.3, dtype=F64)
    zero_mean, shift = torch.zeros((), dtype=F64), extra.sqrt()

    def nats(variance):
        return float(gaussian_kl(zero_mean, own.log(), shift, variance.log()))

    assert nats(own + extra) < min(nats(own + 0.9 * extra), nats(own + 1.1 * extra), nats(own))
