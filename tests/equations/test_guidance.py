"""The equations of `book/guidance.md`."""

from math import exp, log, sqrt

import pytest
import sympy as sp
import torch
from torch import Tensor

from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.guidance import classifier_free, classifier_guided, log_gradient, on_interval
from diffusion_edu.process import transition
from diffusion_edu.schedules import LinearBeta
from tests.equations import equation

F64 = torch.float64
VP = LinearBeta()
CLASSES = torch.tensor([0, 1, 1])
Y = torch.tensor([0, 1, 1, 0])
X = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
T, S = torch.tensor(0.4, dtype=F64), torch.tensor(0.3, dtype=F64)


def plane() -> GaussianMixture:
    """Three lumps in two classes."""
    means = torch.tensor([[-1.2, 0.3], [0.9, 1.0], [0.4, -1.1]], dtype=F64)
    return GaussianMixture(means, torch.tensor([0.3, 0.4, 0.25], dtype=F64), torch.tensor([0.2, 0.5, 0.3], dtype=F64))


def parts() -> list[GaussianMixture]:
    """The two classes as mixtures of their own."""
    m = plane()
    return [GaussianMixture(m.means[CLASSES == c], m.stds[CLASSES == c], m.weights[CLASSES == c]) for c in (0, 1)]


def conditional(x: Tensor, t: Tensor, what: str = "score") -> Tensor:
    """Score or log density of each row's class, from the class's own mixture."""
    both = torch.stack([getattr(part, what)(x, VP, t) for part in parts()])
    return both[Y, torch.arange(len(x))]


def gradient() -> Tensor:
    return log_gradient(plane().classifier(VP, CLASSES), X, T, Y)


def far(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors differ by far more than any tolerance here."""
    return float((left - right).abs().max()) > 1e-3


def close(left: Tensor, right: Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(left, right, atol=atol, rtol=0)


@equation("eq-guide-bayes", method="exact", tolerance="1e-10 (float64 rounding)")
def test_bayes_on_scores():
    plain = plane().score(X, VP, T)
    close(conditional(X, T), plain + gradient())
    assert far(conditional(X, T), plain - gradient())


@equation("eq-guide-noisy-classifier", method="exact", tolerance="1e-9 (sums over a grid)")
def test_the_noisy_classifier_is_an_average():
    line = GaussianMixture(torch.tensor([[-1.0], [1.0]], dtype=F64), 0.5)
    x0, x_t = torch.linspace(-8, 8, 8001, dtype=F64)[:, None], torch.tensor([[0.7]], dtype=F64)
    clean = (line.log_density(x0), GaussianMixture(line.means[1:], 0.5).log_density(x0) - log(2))
    log_weight = clean[0] - (x_t[0, 0] - VP.alpha(T) * x0[:, 0]) ** 2 / (2 * VP.sigma(T) ** 2)
    found = (log_weight.softmax(0) * (clean[1] - clean[0]).exp()).sum()
    wanted = line.classifier(VP)(x_t, T, torch.tensor([1])).exp()
    assert float(found) == pytest.approx(float(wanted), abs=1e-9)
    clean_at_x_t = 1 / (1 + exp(-2 * 0.7 / 0.25))  # the classifier of clean data, asked about noisy data
    assert abs(clean_at_x_t - float(wanted)) > 0.05


@pytest.mark.parametrize("w", [0.0, 1.0, 2.5])
@equation("eq-guide-score", method="exact", tolerance="1e-10 (float64 rounding)")
def test_the_guided_score_is_the_gradient_of_a_tilt_at_its_time(w):
    log_p_y = plane().classifier(VP, CLASSES)

    def log_tilt(x: Tensor) -> Tensor:
        return plane().log_density(x, VP, T) + w * log_p_y(x, T, Y)

    x = X.clone().requires_grad_()
    wanted = torch.autograd.grad(log_tilt(x).sum(), x)[0]
    guided = classifier_guided(plane().denoiser(VP), log_p_y, w)
    close(guided(X, T, Y).score, wanted)
    assert far(classifier_guided(plane().denoiser(VP), log_p_y, w + 1)(X, T, Y).score, wanted)


@equation("eq-guide-eps", method="exact", tolerance="1e-10 (float64 rounding)")
def test_guidance_on_eps():
    plain, sigma = plane().denoiser(VP)(X, T).eps, VP.sigma(T)
    wanted = -sigma * conditional(X, T)
    close(plain - 1.0 * sigma * gradient(), wanted)
    for slip in (plain + sigma * gradient(), plain - gradient(), plain - sigma**2 * gradient()):
        assert far(slip, wanted)


@equation("eq-guide-x0", method="exact", tolerance="1e-10 (float64 rounding)")
def test_guidance_on_x0():
    plain, sigma, alpha = plane().denoiser(VP)(X, T).x0, VP.sigma(T), VP.alpha(T)
    wanted = plane().denoiser(VP, CLASSES)(X, T, Y).x0
    close(plain + 1.0 * sigma**2 / alpha * gradient(), wanted)
    for slip in (
        plain - sigma**2 / alpha * gradient(),
        plain + sigma / alpha * gradient(),
        plain + sigma**2 * gradient(),
    ):
        assert far(slip, wanted)


# --- the mean shift -----------------------------------------------------------------------------------


@equation("eq-guide-shift", method="symbolic", tolerance="exact (polynomials)")
def test_a_linear_log_probability_shifts_the_kernel():
    """For l(x) = a + b x the tilted kernel is the shifted Gaussian: the exponents differ by a constant in x."""
    x, mu, v, w, a, b = sp.symbols("x mu v w a b", real=True)
    tilted = w * (a + b * x) - (x - mu) ** 2 / (2 * v)

    def left_over(mean):
        return sp.simplify(sp.diff(tilted + (x - mean) ** 2 / (2 * v), x))

    assert left_over(mu + w * v * b) == 0
    assert left_over(mu + w * sp.sqrt(v) * b) != 0 and left_over(mu - w * v * b) != 0


@equation("eq-guide-tilted-kernel", method="exact", tolerance="1e-10 (float64 rounding, on a grid)")
def test_at_scale_1_the_tilted_kernel_is_the_conditional_one():
    """Bayes' rule for one step: q(x_s | x_t) p(y | x_s), normalised, is q(x_s | x_t, y)."""
    line, x_t = GaussianMixture(torch.tensor([[-1.0], [1.0]], dtype=F64), 0.5), 0.3
    grid, one = torch.linspace(-5, 5, 2001, dtype=F64)[:, None], torch.ones(2001, dtype=torch.long)
    a, v = transition(VP, torch.tensor(0.6, dtype=F64), S)
    step, log_p = -((x_t - a * grid[:, 0]) ** 2) / (2 * v), line.classifier(VP)(grid, S, one)
    wanted = (step + GaussianMixture(line.means[1:], 0.5).log_density(grid, VP, S)).softmax(0)
    close((step + line.log_density(grid, VP, S) + log_p).softmax(0), wanted)
    for w in (0.0, -1.0, 2.0):
        assert far(100 * (step + line.log_density(grid, VP, S) + w * log_p).softmax(0), 100 * wanted)


def tilted_moments(v: float, w: float, mu: float = 0.2) -> tuple[float, float]:
    """Mean less mu, and variance, of N(mu, v) tilted by p^w for l(x) = log sigmoid(2 x), by summation."""
    u = torch.linspace(-10, 10, 8001, dtype=F64)
    share = (w * torch.nn.functional.logsigmoid(2 * (mu + sqrt(v) * u)) - u**2 / 2).softmax(0)
    mean = float((share * u).sum()) * sqrt(v)
    return mean, float((share * (u * sqrt(v) - mean) ** 2).sum())


@equation("eq-guide-shift-error", method="exact", tolerance="fitted order 3 ± 0.05 of what is left (step 1e-4 to 1e-2)")
def test_what_the_mean_shift_neglects():
    mu, w = 0.2, 2.0
    p = 1 / (1 + exp(-2 * mu))
    l1, l2 = 2 * (1 - p), -4 * p * (1 - p)
    l3 = -8 * p * (1 - p) * (1 - 2 * p)

    def order(remainder) -> float:
        return log(abs(remainder(1e-2)) / abs(remainder(1e-3))) / log(10)

    def mean_left(v, factor=0.5):
        return tilted_moments(v, w)[0] - w * v * l1 - v**2 * (w**2 * l1 * l2 + factor * w * l3)

    def variance_left(v, sign=1):
        return tilted_moments(v, w)[1] - v - sign * w * v**2 * l2

    assert order(mean_left) == pytest.approx(3, abs=0.05)
    assert order(variance_left) == pytest.approx(3, abs=0.05)
    assert order(lambda v: mean_left(v, factor=1)) == pytest.approx(2, abs=0.2)  # a wrong factor leaves order 2
    assert order(lambda v: variance_left(v, sign=-1)) == pytest.approx(2, abs=0.1)


@equation("eq-guide-shift-eps", method="symbolic", tolerance="exact (algebra)")
def test_the_mean_shift_on_eps():
    x, eps, g, w, b, c, var = sp.symbols("x eps g w b c v", positive=True)
    beta, bar = 1 - b, 1 - c  # so that sympy knows the roots' signs

    def mean(noise):
        return (x - beta / sp.sqrt(1 - bar) * noise) / sp.sqrt(1 - beta)

    right = eps - w * var / beta * sp.sqrt((1 - bar) * (1 - beta)) * g
    assert sp.simplify(mean(right) - mean(eps) - w * var * g) == 0
    for slip in (eps - w * var / beta * sp.sqrt(1 - bar) * g, eps - w * sp.sqrt((1 - bar) * (1 - beta)) * g):
        assert sp.simplify(mean(slip) - mean(eps) - w * var * g) != 0


@equation("eq-guide-exact-mean", method="exact", tolerance="1e-8 (sums over a grid)")
def test_the_exact_conditional_mean():
    line = GaussianMixture(torch.tensor([[-1.0], [1.0]], dtype=F64), 0.5)
    t, s, x_t = torch.tensor(0.6, dtype=F64), torch.tensor(0.2, dtype=F64), torch.tensor([[0.3]], dtype=F64)
    a, v = transition(VP, t, s)
    grid = torch.linspace(-8, 8, 16001, dtype=F64)[:, None]

    def mean(law):
        return float(
            ((-((x_t - a * grid)[:, 0] ** 2) / (2 * v) + law.log_density(grid, VP, s)).softmax(0) * grid[:, 0]).sum()
        )

    shift = mean(GaussianMixture(line.means[1:], 0.5)) - mean(line)
    push = float(log_gradient(line.classifier(VP), x_t, t, torch.tensor([1])))
    assert shift == pytest.approx(float(v / a) * push, abs=1e-8)
    small = float(v * VP.sigma(s) ** 2 / VP.sigma(t) ** 2)
    assert abs(shift - small / float(a) * push) > 0.01  # with the small variance it is too short


# --- classifier-free ----------------------------------------------------------------------------------


@equation("eq-guide-implicit", method="exact", tolerance="1e-10 (float64 rounding)")
def test_the_implicit_classifier():
    told, free = plane().denoiser(VP, CLASSES)(X, T, Y), plane().denoiser(VP)(X, T)
    close(told.score - free.score, gradient())
    close(-(told.eps - free.eps) / VP.sigma(T), gradient())
    assert far(-(told.eps - free.eps), gradient()) and far(free.score - told.score, gradient())
    elsewhere = log_gradient(plane().classifier(VP, CLASSES), X, S, Y)  # at the neighbouring noise level
    assert far(told.score - free.score, elsewhere)


@pytest.mark.parametrize("w", [0.0, 0.3, 1.0, 3.0])
@equation("eq-guide-cfg", method="exact", tolerance="1e-10 (float64 rounding)")
def test_classifier_free_is_classifier_guidance_with_the_implicit_classifier(w):
    free = (1 - w) * plane().score(X, VP, T) + w * conditional(X, T)
    close(free, plane().score(X, VP, T) + w * gradient())
    close(classifier_free(plane().denoiser(VP, CLASSES), w)(X, T, Y).score, free)
    exchanged = w * plane().score(X, VP, T) + (1 - w) * conditional(X, T)
    assert far(exchanged, free)


@equation("eq-guide-ratio", method="exact", tolerance="1e-10 (float64 rounding)")
def test_the_ratio_is_no_probability():
    ratio = conditional(X, T, "log_density") - plane().log_density(X, VP, T)
    log_p_y = plane().classifier(VP, CLASSES)(X, T, Y)
    prior = torch.tensor([0.2, 0.8], dtype=F64)[Y]
    close(ratio, log_p_y - prior.log())
    assert far(ratio, log_p_y)
    early = torch.tensor(0.05, dtype=F64)
    deep = plane().means[:1] * VP.alpha(early)
    top = parts()[0].log_density(deep, VP, early) - plane().log_density(deep, VP, early)
    assert 4 < float(top.exp()) <= 5  # up to 1 / p(y) = 5


@equation("eq-guide-joint", method="exact", tolerance="1e-10 (a least-squares problem with a known solution)")
def test_the_joint_loss_has_both_answers_whatever_the_share():
    """A table: x_t takes 3 values, y 2; the network has one free number for each pair and each x_t with the null label."""
    g = torch.Generator().manual_seed(1)
    eps, mass = torch.randn(3, 2, generator=g, dtype=F64), torch.rand(3, 2, generator=g, dtype=F64)
    mass = mass / mass.sum()
    told_best, free_best = eps, (mass * eps).sum(1) / mass.sum(1)  # E[eps | x, y], E[eps | x]
    for p_null in (0.02, 0.5, 0.9):

        def loss(told, free, p_null=p_null):
            return ((1 - p_null) * mass * (eps - told) ** 2 + p_null * mass * (eps - free[:, None]) ** 2).sum()

        for at, flat in ((told_best, True), (free_best, True), (told_best * 1.1, False)):
            a = told_best.clone().requires_grad_() if at is free_best else at.clone().requires_grad_()
            b = free_best.clone().requires_grad_()
            slopes = torch.cat([each.flatten() for each in torch.autograd.grad(loss(a, b), (a, b))])
            assert (float(slopes.abs().max()) < 1e-10) == flat
        halfway = free_best.lerp(eps.mean(1), 0.5).requires_grad_()  # the plain mean over y is not E[eps | x]
        assert float(torch.autograd.grad(loss(told_best, halfway), halfway)[0].abs().max()) > 1e-4


@equation("eq-guide-conventions", method="symbolic", tolerance="exact (algebra)")
def test_conventions():
    w, told, free = sp.symbols("w told free", real=True)
    ours = (1 - w) * free + w * told
    assert sp.expand(ours - ((1 + (w - 1)) * told - (w - 1) * free)) == 0
    assert sp.expand(ours - (free + w * (told - free))) == 0
    assert sp.expand(ours - ((1 + w) * told - w * free)) != 0  # w for s
    assert sp.expand(ours - (told + w * (told - free))) != 0


# --- what is sampled ----------------------------------------------------------------------------------


def tilted_line(t: Tensor, w: float, power_after: bool, grid: Tensor) -> Tensor:
    """The noised tilted law of two lumps on the grid, or q_t p(y | x_t)^w, normalised."""
    line = GaussianMixture(torch.tensor([[-1.0], [1.0]], dtype=F64), 0.5)
    log_p_y, one = line.classifier(VP), torch.ones(len(grid), dtype=torch.long)
    if power_after:
        log_tilt = line.log_density(grid[:, None], VP, t) + w * log_p_y(grid[:, None], t, one)
    else:
        zero = torch.tensor(0.0, dtype=F64)
        log_data = line.log_density(grid[:, None]) + w * log_p_y(grid[:, None], zero, one)
        kernel = -((grid[:, None] - VP.alpha(t) * grid) ** 2) / (2 * VP.sigma(t) ** 2)
        log_tilt = (kernel + log_data).logsumexp(1)
    return log_tilt.softmax(0) / (grid[1] - grid[0])


@equation("eq-guide-tilt", method="exact", tolerance="1e-10 (float64 rounding, on a grid)")
def test_the_two_forms_of_the_tilt():
    line, grid = GaussianMixture(torch.tensor([[-1.0], [1.0]], dtype=F64), 0.5), torch.linspace(-4, 4, 801, dtype=F64)
    part, w = GaussianMixture(line.means[1:], 0.5), 2.5
    zero, one = torch.tensor(0.0, dtype=F64), torch.ones(801, dtype=torch.long)
    first = (line.log_density(grid[:, None]) + w * line.classifier(VP)(grid[:, None], zero, one)).softmax(0)
    second = ((1 - w) * line.log_density(grid[:, None]) + w * part.log_density(grid[:, None])).softmax(0)
    close(first, second)
    assert far(
        first * 100,
        ((1 - w) * line.log_density(grid[:, None]) + (1 + w) * part.log_density(grid[:, None])).softmax(0) * 100,
    )


@equation("eq-guide-jensen", method="exact", tolerance="1e-6 (sums over a grid)")
def test_power_before_and_after_the_average():
    grid = torch.linspace(-6, 6, 1201, dtype=F64)
    line = GaussianMixture(torch.tensor([[-1.0], [1.0]], dtype=F64), 0.5)
    zero, one = torch.tensor(0.0, dtype=F64), torch.ones(len(grid), dtype=torch.long)
    p_y = line.classifier(VP)(grid[:, None], zero, one).exp()
    for w in (1.0, 3.0):
        # E[p(y | x_0)^w | x_t] by Bayes' rule on the grid, for every x_t
        belief = (
            line.log_density(grid[:, None])[None] - (grid[:, None] - VP.alpha(T) * grid) ** 2 / (2 * VP.sigma(T) ** 2)
        ).softmax(1)
        law = line.log_density(grid[:, None], VP, T).exp() * (belief * p_y**w).sum(1)
        law = law / law.sum() / (grid[1] - grid[0])
        close(law, tilted_line(T, w, power_after=False, grid=grid), 1e-6)
        apart = (tilted_line(T, w, power_after=True, grid=grid) - law).abs().max()
        assert (float(apart) < 1e-6) == (w == 1)  # guidance follows another law, unless w = 1


def pair_score(z: float, tau: float, w: float, wide: float = 4.0, narrow: float = 1.0, m: float = 1.0) -> float:
    return -(1 - w) * z / (wide + tau) - w * (z - m) / (narrow + tau)


@equation("eq-guide-tilt-variance", method="exact", tolerance="1e-8 (sums over a grid)")
def test_tilting_adds_precisions():
    x = torch.linspace(-30, 30, 60_001, dtype=F64)
    w = 2.0
    log_tilt = -(x**2) / 8 - w * (4 / 3 - x) ** 2 / (2 * 4 / 3)  # N(0, 4) p(y | x)^w, the reading 4/3 of variance 4/3
    share = log_tilt.softmax(0)
    variance = float((share * x**2).sum() - (share * x).sum() ** 2)
    assert variance == pytest.approx(1 / ((1 - w) / 4 + w / 1), abs=1e-8) == pytest.approx(4 / 7, abs=1e-8)
    assert abs(variance - 4 ** (1 - w)) > 0.3  # the ODE's


@equation("eq-guide-pair-ode", method="exact", tolerance="1e-10 (two components of one mixture, float64)")
def test_the_guided_field_of_a_pair():
    """The VP velocity of the package, brought to z = x / alpha and tau, for whole N(0, 4) and part N(1, 1)."""
    t, w = torch.tensor(0.5, dtype=F64), 2.0
    alpha, sigma, x = VP.alpha(t), VP.sigma(t), torch.tensor([[0.8]], dtype=F64)
    whole, part = (
        GaussianMixture(torch.tensor([[m]], dtype=F64), d).denoiser(VP)(x, t) for m, d in ((0.0, 2.0), (1.0, 1.0))
    )
    velocity = whole.with_x0((1 - w) * whole.x0 + w * part.x0).velocity
    tau = float((sigma / alpha) ** 2)
    tau_rate = float(VP.diffusion_squared(t) / alpha**2)
    z_rate = float((velocity - VP.drift(t) * x) / alpha)  # d(x / alpha) / dt
    z = float(x / alpha)
    wanted = ((1 - w) * z / (4 + tau) + w * (z - 1) / (1 + tau)) / 2
    assert z_rate / tau_rate == pytest.approx(wanted, abs=1e-10)
    assert abs(z_rate / tau_rate - 2 * wanted) > 0.05  # without the half


def end_of_pair(w: float, low: float = 0.0, high: float = 1e8) -> float:
    """Variance at tau = 0 of the pair's guided ODE, by Runge-Kutta in log(1 + tau); guided for low < tau < high."""

    def slope(z: Tensor, u: Tensor) -> Tensor:
        tau = u.exp() - 1
        weight = w if low <= float(tau) <= high else 1.0
        return -(1 + tau) / 2 * pair_score(z, tau, weight)

    top = log(1e8)
    stops = sorted({0.0, top, *(log(1 + tau) for tau in (low, high) if 0 < tau < 1e7)}, reverse=True)
    z = torch.tensor([0.0, 1e4], dtype=F64)
    for a, b in zip(stops[:-1], stops[1:], strict=True):
        z = runge_kutta(slope, z, a - 1e-9, b + 1e-9)  # clear of the edges, where the weight jumps
    return float((z[1] - z[0]) ** 2)  # per deviation 1e4 = sqrt(tau) of the start


def runge_kutta(slope, z: Tensor, a: float, b: float, steps: int = 400) -> Tensor:
    h, u = (b - a) / steps, torch.tensor(a, dtype=F64)
    for _ in range(steps):
        k1 = slope(z, u)
        k2 = slope(z + h / 2 * k1, u + h / 2)
        k3 = slope(z + h / 2 * k2, u + h / 2)
        z, u = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(z + h * k3, u + h)), u + h
    return z


@pytest.mark.parametrize("w", [0.0, 1.0, 2.0, 4.0])
@equation("eq-guide-ode-variance", method="exact", tolerance="1e-6 (Runge-Kutta 4 from tau = 1e8)")
def test_the_guided_ode_ends_at_the_geometric_mean(w):
    found = end_of_pair(w)
    assert found == pytest.approx(4 ** (1 - w), rel=1e-6)
    harmonic = 1 / ((1 - w) / 4 + w)
    assert (abs(found - harmonic) < 1e-3) == (w in (0.0, 1.0))


@equation("eq-guide-interval", method="exact", tolerance="1e-6 (Runge-Kutta 4, in pieces)")
def test_guidance_on_an_interval():
    w, low, high = 3.0, 0.4, 5.0
    found = end_of_pair(w, low, high)
    ratio = (1 + low) * (4 + high) / ((4 + low) * (1 + high))
    assert found == pytest.approx(ratio ** (w - 1), rel=1e-6)
    assert found != pytest.approx(ratio**w, rel=1e-2) and found != pytest.approx(ratio ** (1 - w), rel=1e-2)


@equation("eq-guide-sde-variance", method="symbolic", tolerance="exact (an integral of a rational function)")
def test_the_guided_sde_has_another_variance():
    tau = sp.symbols("tau", positive=True)

    def variance(w):
        kappa = (1 - w) / (4 + tau) + w / (1 + tau)
        power = (4 + tau) ** (2 - 2 * w) * (1 + tau) ** (2 * w)
        assert sp.simplify(sp.diff(power, tau) / power - 2 * kappa) == 0
        return sp.integrate(sp.apart(sp.expand(power.subs(tau, 0)) / power, tau), (tau, 0, sp.oo))

    assert variance(2) == sp.Rational(7, 16) and variance(1) == 1
    assert variance(2) not in (sp.Rational(1, 4), sp.Rational(4, 7))


@equation("eq-guide-sde-variance", method="exact", tolerance="2e-3 (first-order steps, 4000 of them)")
def test_the_guided_sde_by_recursion():
    """Exact posterior steps of the reverse chain on the pair's guided estimate, variances followed without sampling."""
    w = 2.0
    levels = torch.linspace(12, -12, 4001, dtype=F64).exp()  # tau, falling
    V = float(levels[0]) + 4 ** (1 - w)
    for tau, after in zip(levels[:-1].tolist(), levels[1:].tolist(), strict=True):
        gain = (1 - w) * 4 / (4 + tau) + w / (1 + tau)
        V = (after / tau + (1 - after / tau) * gain) ** 2 * V + after * (tau - after) / tau
    assert pytest.approx(7 / 16, abs=2e-3) == V
    assert abs(V - 0.25) > 0.1  # the ODE's


def test_the_wrapper_on_intervals_follows_the_plain_one_outside():
    d = plane().denoiser(VP, CLASSES)
    log_snr = float(VP.log_snr(T))
    guided = classifier_free(d, 3.0)
    close(on_interval(guided, d, log_snr - 1, log_snr + 1)(X, T, Y).x0, guided(X, T, Y).x0)
    close(on_interval(guided, d, log_snr + 1)(X, T, Y).x0, d(X, T, Y).x0)


@equation("eq-guide-logistic", method="exact", tolerance="1e-10 (float64 rounding)")
def test_the_gradient_for_two_lumps():
    line = GaussianMixture(torch.tensor([[-1.0], [1.0]], dtype=F64), 0.5)
    x = torch.linspace(-2, 2, 9, dtype=F64)[:, None]
    found = log_gradient(line.classifier(VP), x, T, torch.ones(9, dtype=torch.long))
    alpha, V = VP.alpha(T), VP.alpha(T) ** 2 * 0.25 + VP.sigma(T) ** 2
    wanted = 2 * alpha / V / (1 + (2 * alpha * x / V).exp())
    close(found, wanted)
    assert far(found, wanted * (1 - V / (2 * alpha) * wanted))  # the gradient of the probability
