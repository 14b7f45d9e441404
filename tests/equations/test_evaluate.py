"""The equations of `book/evaluate.md`."""

from itertools import combinations, permutations, product
from math import comb, log, log2

import pytest
import sympy as sp
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from diffusion_edu import metrics
from diffusion_edu.analytic import GaussianMixture
from tests.equations import equation

F64 = torch.float64


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def covariance(dim: int, seed: int) -> Tensor:
    root = normal(dim, dim, seed=seed)
    return root @ root.T / dim + 0.1 * torch.eye(dim, dtype=F64)


def root_of(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def page_frechet(m1: Tensor, c1: Tensor, m2: Tensor, c2: Tensor) -> Tensor:
    """eq-eval-frechet as it stands on the page."""
    cross = root_of(root_of(c1) @ c2 @ root_of(c1))
    return (m1 - m2).square().sum() + (c1 + c2 - 2 * cross).trace()


def plane() -> GaussianMixture:
    means = torch.tensor([[-1.2, 0.3], [0.9, 1.0], [0.4, -1.1]], dtype=F64)
    return GaussianMixture(means, torch.tensor([0.3, 0.4, 0.25], dtype=F64), torch.tensor([0.2, 0.5, 0.3], dtype=F64))


def within(values: Tensor, wanted: float, allowed: float = 0.0) -> bool:
    """Whether the mean of values is `wanted` up to 4 standard errors and `allowed`."""
    return abs(float(values.mean()) - wanted) <= 4 * float(values.std()) / len(values) ** 0.5 + allowed


# --- likelihood -------------------------------------------------------------------------------------


@equation("eq-eval-theis", method="exact", tolerance="1e-12 nats (float64; and the bound is reached to 1e-3)")
def test_noise_costs_at_most_log_100():
    q, noise = plane(), GaussianMixture(torch.zeros(1, 2, dtype=F64), 3.0)
    x = torch.cat([q.sample(2000, torch.Generator().manual_seed(0)), 4 * normal(2000, 2, seed=1)])
    log_q, log_n = q.log_density(x), noise.log_density(x)
    loss = log_q - (0.01 * log_q.exp() + 0.99 * log_n.exp()).log()
    assert (loss <= log(100) + 1e-12).all()
    far = -40.0  # where the noise vanishes the bound is reached, so no smaller one holds
    reached = 2.0 - torch.logaddexp(torch.tensor(2.0 + log(0.01)), torch.tensor(far + log(0.99)))
    assert float(reached) == pytest.approx(log(100), abs=1e-3)
    assert not float(reached) <= log(99)


@equation("eq-eval-theis-bits", method="symbolic", tolerance="exact")
def test_the_price_in_bits_a_dimension():
    d = sp.Symbol("D", positive=True)
    bits = sp.log(100) / (d * sp.log(2))
    assert sp.simplify(bits - sp.log(100, 2) / d) == 0
    assert sp.simplify(sp.log(100) / d - sp.log(100, 2) / d) != 0, "nats are no bits"
    assert float(bits.subs(d, 784)) == pytest.approx(log2(100) / 784)
    for dim in (1, 50):  # a loss itself: N(0, I) diluted with N(0, 9 I), mean over draws
        x = normal(2000, dim, seed=0)
        log_q, log_n = -x.square().sum(1) / 2, -x.square().sum(1) / 18 - dim * log(3)
        loss = (log_q - torch.logaddexp(log_q + log(0.01), log_n + log(0.99))).mean() / dim / log(2)
        assert float(loss) <= log2(100) / dim
    assert float(loss) > 0.999 * log2(100) / 50, "many dimensions: the bound is nearly reached"


# --- transport --------------------------------------------------------------------------------------


@equation("eq-eval-assignment", method="exact", tolerance="1e-12 (all pairings of 6 points)")
def test_wasserstein_is_the_best_pairing():
    x, y = normal(6, 2, seed=0), normal(6, 2, seed=1)
    costs = [(x - y[list(order)]).square().sum(1).mean() for order in permutations(range(6))]
    row, column = linear_sum_assignment(torch.cdist(x, y) ** 2)
    assert float((x[row] - y[column]).square().sum(1).mean()) == pytest.approx(float(min(costs)), abs=1e-12)
    assert float((x - y).square().sum(1).mean()) > float(min(costs)) + 0.01, "the given order is not the best"
    line = [(x[:, 0] - y[list(order), 0]).square().mean() for order in permutations(range(6))]
    sorted_cost = (x[:, 0].sort().values - y[:, 0].sort().values).square().mean()
    assert float(min(line)) == pytest.approx(float(sorted_cost), abs=1e-12)


@equation("eq-eval-coupling", method="exact", tolerance="1e-12 (moments of 50 weighted pairs)")
def test_expanded_square():
    x = normal(50, 3, seed=0)
    y = 0.4 * x @ normal(3, 3, seed=1) + normal(50, 3, seed=2) + 1
    m1, m2 = x.mean(0), y.mean(0)
    c1, c2 = ((z - z.mean(0)).T @ (z - z.mean(0)) / 50 for z in (x, y))
    k = (x - m1).T @ (y - m2) / 50
    left = (x - y).square().sum(1).mean()
    without = (m1 - m2).square().sum() + c1.trace() + c2.trace()
    assert float(left) == pytest.approx(float(without - 2 * k.trace()), abs=1e-12)
    assert abs(float(left - (without - k.trace()))) > 0.1, "the factor 2 is missing"


@equation("eq-eval-trace", method="exact", tolerance="1e-10 (float64; against 2,000 random contractions)")
def test_best_correlation_is_the_polar_factor():
    c1, c2 = covariance(4, 0), covariance(4, 1)
    r1, r2 = root_of(c1), root_of(c2)
    u, s, vt = torch.linalg.svd(r2 @ r1)
    best = (r1 @ (vt.T @ u.T) @ r2).trace()
    page = root_of(r1 @ c2 @ r1).trace()
    assert float(best) == pytest.approx(float(page), abs=1e-10)
    assert float(s.sum()) == pytest.approx(float(page), abs=1e-10)
    tried = normal(2000, 4, 4, seed=2)
    tried = tried / torch.linalg.matrix_norm(tried, 2)[:, None, None]
    reached = (r1 @ tried @ r2).diagonal(dim1=1, dim2=2).sum(1)
    assert reached.max() <= page + 1e-10
    joint = torch.cat([torch.cat([c1, r1 @ vt.T @ u.T @ r2], 1), torch.cat([(r1 @ vt.T @ u.T @ r2).T, c2], 1)])
    assert torch.linalg.eigvalsh(joint).min() > -1e-10, "the best pairing is a law"
    assert abs(float((r1 @ r2).trace() - page)) > 1e-3, "the root of the product is not the product of the roots"


@equation("eq-eval-frechet", method="exact", tolerance="1e-9 (roots of matrices, float64)")
def test_frechet_is_wasserstein_between_gaussians():
    m1, m2, c1, c2 = normal(3, seed=0), normal(3, seed=1), covariance(3, 2), covariance(3, 3)
    page = page_frechet(m1, c1, m2, c2)
    r1 = root_of(c1)
    inverse = torch.linalg.inv(r1)
    linear = inverse @ root_of(r1 @ c2 @ r1) @ inverse  # the optimal map x -> m2 + A (x - m1)
    torch.testing.assert_close(linear @ c1 @ linear, c2, rtol=0, atol=1e-9)
    step = linear - torch.eye(3, dtype=F64)
    cost = (m1 - m2).square().sum() + (step @ c1 @ step.T).trace()
    assert float(cost) == pytest.approx(float(page), abs=1e-9)
    slip = (m1 - m2).square().sum() + (c1 + c2 - 2 * root_of(c1) @ root_of(c2)).trace()
    assert abs(float(slip - page)) > 1e-3
    x, y = normal(500, 3, seed=4), 2 * normal(400, 3, seed=5) + 1
    wanted = page_frechet(x.mean(0), x.T.cov(), y.mean(0), y.T.cov())
    assert metrics.frechet_distance(x, y) == pytest.approx(float(wanted), abs=1e-9)


@equation("eq-eval-gelbrich", method="exact", tolerance="1e-9 (30 pairs of point sets, every one)")
def test_frechet_bounds_wasserstein_from_below():
    gaps = []
    for seed in range(30):
        x, y = normal(40, 2, seed=seed) ** 3, normal(40, 2, seed=seed + 100).exp()
        row, column = linear_sum_assignment(torch.cdist(x, y) ** 2)
        w2 = (x[row] - y[column]).square().sum(1).mean()
        moments = [z for each in (x, y) for z in (each.mean(0), each.T.cov(correction=0))]
        gaps.append(float(w2 - page_frechet(*moments)))
    assert min(gaps) >= -1e-9
    assert max(gaps) > 0.1, "equality does not hold: the law is not Gaussian"


# --- bias -------------------------------------------------------------------------------------------


@equation("eq-eval-bures", method="exact", tolerance="relative 1e-3 (errors of 1e-4: the next order)")
def test_second_order_of_the_covariance_part():
    values = torch.tensor([0.3, 1.0, 2.5], dtype=F64)
    error = normal(3, 3, seed=0)
    error = (error + error.T) * 1e-4
    exact = page_frechet(torch.zeros(3), torch.diag(values), torch.zeros(3), torch.diag(values) + error)
    page = (error**2 / (values[:, None] + values)).sum() / 2
    assert float(exact) == pytest.approx(float(page), rel=1e-3)
    assert float(exact) != pytest.approx(2 * float(page), rel=1e-3), "a factor of 2 is noticed"
    larger = page_frechet(torch.zeros(3), torch.diag(values), torch.zeros(3), torch.diag(values) + 10 * error)
    assert float(larger / exact) == pytest.approx(100, rel=1e-2), "second order"


@equation("eq-eval-bias", method="monte carlo", tolerance="4 standard errors (and 3 % for terms of order 1 / n^2)")
def test_bias_of_a_skewed_law():
    def draw(n, seed):
        return normal(n, 3, seed=seed).exp().clamp(max=6) @ torch.tensor(
            [[1.0, 0.3, 0.0], [0.0, 1.0, 0.5], [0.2, 0.0, 0.7]], dtype=F64
        )

    many, n, m = draw(400_000, 0), 1000, 2500
    values, vectors = torch.linalg.eigh(many.T.cov())
    u = (many - many.mean(0)) @ vectors
    pairs = (u[:, :, None] * u[:, None, :]).var(0)
    c = float(values.sum() + (pairs / (values[:, None] + values)).sum() / 2)
    assert metrics.frechet_bias(many) == pytest.approx(c, rel=1e-3)
    found = torch.tensor([metrics.frechet_distance(draw(n, 2 * s + 1), draw(m, 2 * s + 2)) for s in range(300)])
    wanted = c * (1 / n + 1 / m)
    assert within(found, wanted, 0.03 * wanted)
    assert not within(found, c / n, 0.03 * wanted), "without the reference's share"
    gaussian = 1.25 * values.sum() + (values[:, None] * values / (values[:, None] + values)).sum() / 2
    assert not within(found, float(gaussian) * (1 / n + 1 / m), 0.03 * wanted), "fourth moments matter"


@equation("eq-eval-bias-gaussian", method="symbolic", tolerance="exact (and 4 standard errors for the distance itself)")
def test_bias_of_gaussian_features():
    for d in (1, 2, 5):
        values = sp.symbols(f"l1:{d + 1}", positive=True)

        def variance(i, j, values=values):  # Isserlis: E u_i^2 u_j^2 - (E u_i u_j)^2
            return values[i] * values[j] * (2 if i == j else 1)

        pairs = list(product(range(d), repeat=2))
        c = sum(values) + sum(variance(i, j) / (values[i] + values[j]) for i, j in pairs) / 2
        page = sp.Rational(5, 4) * sum(values)
        page += sum(values[i] * values[j] / (values[i] + values[j]) for i, j in pairs) / 2
        assert sp.simplify(c - page) == 0
        scale = sp.Symbol("s", positive=True)
        equal = sp.simplify(page.subs(dict.fromkeys(values, scale)))
        assert sp.simplify(equal - scale * d * (d + 5) / 4) == 0
        assert sp.simplify(equal - scale * d * (d + 1) / 4) != 0
    found = torch.tensor(
        [metrics.frechet_distance(normal(500, 6, seed=s), normal(500, 6, seed=s + 500)) for s in range(100)]
    )
    assert within(found, 16.5 * 2 / 500, 0.02 * 0.066) and not within(found, 10.5 * 2 / 500, 0.02 * 0.066)


@equation("eq-eval-limit", method="symbolic", tolerance="exact")
def test_two_sizes_take_the_bias_off():
    limit, b, n = sp.symbols("F b n", positive=True)

    def figure(size):
        return limit + b / size

    assert sp.simplify(2 * figure(n) - figure(n / 2) - limit) == 0
    assert sp.simplify(2 * figure(n / 2) - figure(n) - limit) != 0


@equation("eq-eval-shares", method="exact", tolerance="1e-12 (float64)")
def test_other_shares_of_the_classes_are_another_law():
    means, covariances = 2 * normal(4, 3, seed=0), torch.stack([covariance(3, seed) for seed in range(4)])

    def law(shares: Tensor) -> tuple[Tensor, Tensor]:
        mean = shares @ means
        apart = means - mean
        return mean, (shares[:, None, None] * (covariances + apart[:, :, None] * apart[:, None, :])).sum(0)

    ratios = []
    for seed in range(1, 20):
        p, q = normal(2, 4, seed=seed).softmax(1)
        bound = ((q - p) @ means).square().sum()
        distance = page_frechet(*law(p), *law(q))
        assert 0 < bound - 1e-12 <= distance
        ratios.append(float(distance / bound))
    assert min(ratios) < 2, "twice as much would be no bound"
    # two classes alike but for their places, shares exchanged: one covariance, and the bound is reached
    means, covariances = (
        normal(1, 3, seed=1) * torch.tensor([[1.0], [-1.0]], dtype=F64),
        covariance(3, 0).expand(2, 3, 3),
    )
    p = torch.tensor([0.3, 0.7], dtype=F64)
    reached = ((p.flip(0) - p) @ means).square().sum()
    assert float(page_frechet(*law(p), *law(p.flip(0)))) == pytest.approx(float(reached), abs=1e-12)


@equation("eq-eval-strata", method="exact", tolerance="1e-12 (float64), over all draws")
def test_a_mean_with_fixed_shares_varies_only_within_the_classes():
    classes, shares, n = [normal(3, 2, seed=0), 3 + normal(2, 2, seed=1)], (2 / 3, 1 / 3), 3
    mean = shares[0] * classes[0].mean(0) + shares[1] * classes[1].mean(0)
    draws = torch.stack([torch.stack(rows).mean(0) for rows in product(classes[0], classes[0], classes[1])])
    found = float((draws - mean).square().sum(1).mean())
    within = sum(p * float(x.T.cov(correction=0).trace()) for p, x in zip(shares, classes, strict=True))
    between = sum(p * float((x.mean(0) - mean).square().sum()) for p, x in zip(shares, classes, strict=True))
    points = torch.cat(classes)
    chance = torch.tensor([2 / 9] * 3 + [1 / 6] * 2, dtype=F64)
    total = float(chance @ (points - mean).square().sum(1))
    assert found == pytest.approx(within / n, abs=1e-12)
    assert found == pytest.approx((total - between) / n, abs=1e-12)
    weights = torch.tensor([w[0] * w[1] * w[2] for w in product(chance, repeat=n)], dtype=F64)
    anyhow = torch.stack([torch.stack(rows).mean(0) for rows in product(points, repeat=n)])
    at_random = float(weights @ (anyhow - mean).square().sum(1))
    assert at_random == pytest.approx(total / n, abs=1e-12) and at_random > 2 * found


# --- Inception score --------------------------------------------------------------------------------


def rows(n: int, k: int, seed: int) -> Tensor:
    return (2 * normal(n, k, seed=seed)).softmax(1)


@equation("eq-eval-is", method="exact", tolerance="1e-12 (float64)")
def test_inception_score_by_plain_sums():
    p = rows(7, 4, 0)
    mean = [sum(float(p[i, y]) for i in range(7)) / 7 for y in range(4)]
    divergence = [sum(float(p[i, y]) * log(float(p[i, y]) / mean[y]) for y in range(4)) for i in range(7)]
    wanted = float(torch.tensor(sum(divergence) / 7, dtype=F64).exp())
    assert metrics.inception_score(p, 1)[0] == pytest.approx(wanted, abs=1e-12)
    other_way = torch.tensor([sum(mean[y] * log(mean[y] / float(p[i, y])) for y in range(4)) for i in range(7)])
    assert float(other_way.mean().exp()) != pytest.approx(wanted, abs=1e-3)


@equation("eq-eval-is-entropy", method="exact", tolerance="1e-12 (float64; bounds for 200 random sets)")
def test_inception_score_is_information():
    def entropy(p):
        return -(p.xlogy(p)).sum(-1)

    for seed in range(200):
        p = rows(5, 6, seed)
        score = metrics.inception_score(p, 1)[0]
        assert log(score) == pytest.approx(float(entropy(p.mean(0)) - entropy(p).mean()), abs=1e-12)
        assert 1 <= score <= 6
    assert log(score) != pytest.approx(float(entropy(p.mean(0)) + entropy(p).mean()), abs=1e-3)
    assert metrics.inception_score(torch.eye(6, dtype=F64), 1)[0] == pytest.approx(6)
    assert metrics.inception_score(p[:1].repeat(9, 1), 1)[0] == pytest.approx(1)


@equation("eq-eval-is-bias", method="exact", tolerance="1e-12 (all 3^5 samples; 2 % for the approximation at n = 400)")
def test_inception_score_is_too_small():
    atoms, n = rows(3, 4, 1), 5  # three pictures, equally likely
    p, truth, log_scores, shortfall = atoms.mean(0), 0.0, [], []
    truth = float((atoms * (atoms / p).log()).sum(1).mean())
    for draw in product(range(3), repeat=n):
        sample = atoms[list(draw)]
        mean = sample.mean(0)
        log_scores.append(float((sample * (sample / mean).log()).sum(1).mean()))
        shortfall.append(float((mean * (mean / p).log()).sum()))
    found = sum(log_scores) / 3**n
    assert found == pytest.approx(truth - sum(shortfall) / 3**n, abs=1e-12)
    assert found < truth - 0.01, "the plug-in form alone is wrong"
    k, n = 10, 400  # a judge that is certain
    g = torch.Generator().manual_seed(0)
    shares = torch.multinomial(torch.ones(20_000, k), n, replacement=True, generator=g)
    shares = torch.zeros(20_000, k, dtype=F64).scatter_add_(1, shares, torch.ones(20_000, n, dtype=F64)) / n
    lost = log(k) + shares.xlogy(shares).sum(1)
    assert within(lost, (k - 1) / (2 * n), 0.02 * (k - 1) / (2 * n))
    assert not within(lost, k / (2 * n), 0.02 * (k - 1) / (2 * n))


# --- kernel distance --------------------------------------------------------------------------------


def cubic(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


@equation("eq-eval-mmd", method="exact", tolerance="1e-12 (two discrete laws, and the features written out)")
def test_mmd_is_a_distance_of_means():
    x, y = normal(4, 1, seed=0), normal(3, 1, seed=1)
    p, q = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=F64), torch.tensor([0.5, 0.2, 0.3], dtype=F64)

    def phi(z):  # (x y + 1)^3 = 1 + 3 x y + 3 x^2 y^2 + x^3 y^3
        return torch.cat([torch.ones_like(z), 3**0.5 * z, 3**0.5 * z**2, z**3], 1)

    distance = (p @ phi(x) - q @ phi(y)).square().sum()
    mixed = p @ cubic(x, y) @ q
    page = p @ cubic(x, x) @ p + q @ cubic(y, y) @ q - 2 * mixed
    assert float(page) == pytest.approx(float(distance), abs=1e-12)
    assert float(page + mixed) != pytest.approx(float(distance), abs=1e-3)


@equation("eq-eval-kid", method="exact", tolerance="1e-12 (every sample of two discrete laws)")
def test_kernel_estimate_has_no_bias():
    x, y, n, m = normal(3, 2, seed=0), normal(3, 2, seed=1) + 0.2, 3, 2
    truth = cubic(x, x).mean() + cubic(y, y).mean() - 2 * cubic(x, y).mean()
    page, plug_in, package = [], [], []
    for left, right in product(product(range(3), repeat=n), product(range(3), repeat=m)):
        a, b = x[list(left)], y[list(right)]
        kxx, kyy, kxy = cubic(a, a), cubic(b, b), cubic(a, b)
        value = (kxx.sum() - kxx.trace()) / (n * (n - 1)) + (kyy.sum() - kyy.trace()) / (m * (m - 1))
        page.append(float(value - 2 * kxy.sum() / (n * m)))
        plug_in.append(float(kxx.mean() + kyy.mean() - 2 * kxy.mean()))
        package.append(metrics.unbiased_mmd(a, b))
    assert sum(page) / len(page) == pytest.approx(float(truth), abs=1e-12)
    assert package == pytest.approx(page, abs=1e-12)
    wanted = (cubic(x, x).diagonal().mean() - cubic(x, x).mean()) / n
    wanted += (cubic(y, y).diagonal().mean() - cubic(y, y).mean()) / m
    assert sum(plug_in) / len(plug_in) - float(truth) == pytest.approx(float(wanted), abs=1e-12)
    assert float(wanted) > 0.1, "with the diagonal it is biased, by what the page says"


@equation("eq-eval-kid-moments", method="exact", tolerance="1e-12 (moments of point sets)")
def test_kernel_distance_sees_three_moments():
    x, y, d = normal(9, 2, seed=0), normal(7, 2, seed=1) + 0.3, 2
    page = cubic(x, x).mean() + cubic(y, y).mean() - 2 * cubic(x, y).mean()

    def tensors(z):
        second = z[:, :, None] * z[:, None, :]
        return z, second, second[:, :, :, None] * z[:, None, None, :]

    terms = [
        comb(3, j) / d**j * (a.mean(0) - b.mean(0)).square().sum()
        for j, a, b in zip((1, 2, 3), tensors(x), tensors(y), strict=True)
    ]
    assert float(page) == pytest.approx(float(sum(terms)), abs=1e-12)
    assert float(page) != pytest.approx(float(sum(terms[:2])), abs=1e-3)
    same = torch.tensor([[-1.0], [1.0]], dtype=F64)  # and a law with equal moments up to the third, another fourth
    other = torch.tensor([[-(2**0.5)], [0.0], [0.0], [2**0.5]], dtype=F64)
    blind = cubic(same, same).mean() + cubic(other, other).mean() - 2 * cubic(same, other).mean()
    assert float(blind) == pytest.approx(0, abs=1e-12)


# --- precision, recall, coverage, copies ------------------------------------------------------------


@equation("eq-eval-precision", method="exact", tolerance="equal counts (plain loops)")
def test_precision_and_recall_by_plain_loops():
    x, y, k = normal(30, 2, seed=0), 0.5 * normal(25, 2, seed=1) + 0.5, 3

    def radius(points, i):
        return sorted(float((points[i] - p).norm()) for j, p in enumerate(points) if j != i)[k - 1]

    def share(judged, home):
        radii = [radius(home, i) for i in range(len(home))]
        return sum(any(float((z - h).norm()) <= r for h, r in zip(home, radii, strict=True)) for z in judged) / len(
            judged
        )

    precision, recall = share(y, x), share(x, y)
    assert metrics.precision_recall(x, y, k) == (precision, recall)
    assert precision > recall + 0.1, "so that an exchange of the two is noticed"
    radii = torch.tensor([radius(y, i) for i in range(len(y))])
    own_ball = float((torch.cdist(y, x) <= radii[:, None]).any(1).double().mean())
    assert own_ball != precision, "the radius of the judged point is another measure"


@equation(
    "eq-eval-coverage", method="exact", tolerance="1e-12 (all orders of neighbours; 4 standard errors for points)"
)
def test_coverage_of_one_law():
    for n, m, k in ((6, 4, 2), (5, 5, 3), (4, 7, 1)):
        others = n - 1 + m
        orders = list(combinations(range(others), m))  # which of the ranks by distance are samples
        empty = sum(min(ranks) >= k for ranks in orders) / len(orders)
        page = 1.0
        for i in range(1, k + 1):
            page *= (n - i) / (n + m - i)
        assert empty == pytest.approx(page, abs=1e-12)
        assert metrics.expected_coverage(n, m, k) == pytest.approx(1 - page, abs=1e-12)
        assert abs((n / (n + m)) ** k - empty) > 1e-3, "drawing with replacement is noticed"
    assert metrics.expected_coverage(10**7, 10**7, 5) == pytest.approx(1 - 2**-5, abs=1e-6)
    for power in (1, 3):  # two laws, one formula
        found = [
            metrics.density_coverage(normal(50, 3, seed=s) ** power, normal(40, 3, seed=s + 300) ** power, 3)[1]
            for s in range(150)
        ]
        assert within(torch.tensor(found), metrics.expected_coverage(50, 40, 3))
        assert not within(torch.tensor(found), 1 - 2**-3)


@equation("eq-eval-copy", method="monte carlo", tolerance="4 standard errors")
def test_half_of_the_nearest_are_training_points():
    def shares(copy):
        found = []
        for seed in range(100):
            train, fresh = normal(50, 3, seed=seed), normal(50, 3, seed=seed + 1000)
            sample = normal(50, 3, seed=seed + 2000)
            if copy:
                sample[:10] = train[:10] + 0.01
            found.append(metrics.copied_share(sample, train, fresh))
        return torch.tensor(found)

    assert within(shares(copy=False), 0.5)
    assert not within(shares(copy=True), 0.5) and within(shares(copy=True), 0.2 + 0.8 * 0.5)


# --- intervals --------------------------------------------------------------------------------------


@equation("eq-eval-wilson", method="symbolic", tolerance="exact")
def test_wilson_solves_the_quadratic():
    share, z, n, p = sp.symbols("share z n p", positive=True)
    half = z * sp.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    ends = [(share + z**2 / (2 * n) + sign * half) / (1 + z**2 / n) for sign in (-1, 1)]
    quadratic = sp.Poly((share - p) ** 2 - z**2 * p * (1 - p) / n, p)
    a, b, c = quadratic.all_coeffs()
    assert sp.cancel(sum(ends) + b / a) == 0 and sp.cancel(sp.expand(ends[0] * ends[1]) - c / a) == 0  # Vieta
    plain = [share + sign * z * sp.sqrt(share * (1 - share) / n) for sign in (-1, 1)]
    assert sp.cancel(sum(plain) + b / a) != 0
    low, high = metrics.share_interval(7, 20)
    values = {share: sp.Rational(7, 20), n: 20, z: 1.959963984540054}
    assert (low, high) == pytest.approx(tuple(float(end.subs(values)) for end in ends), abs=1e-9)


@equation("eq-eval-bootstrap", method="exact", tolerance="1e-12 (all 256 resamples of four numbers)")
def test_a_bootstrapped_square_is_biased_once_more():
    x, mu, n = normal(4, seed=0), 0.3, 4
    every = torch.stack([(x[list(r)].mean() - mu) ** 2 for r in product(range(n), repeat=n)])
    page = (x.mean() - mu) ** 2 + ((x - x.mean()) ** 2).mean() / n
    assert float(every.mean()) == pytest.approx(float(page), abs=1e-12)
    assert float(every.mean()) != pytest.approx(float((x.mean() - mu) ** 2 + x.var() / n), abs=1e-4), "s^2 has 1 / n"
    assert float(every.mean()) > float((x.mean() - mu) ** 2) + 0.01
