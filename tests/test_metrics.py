"""Metrics: the Fréchet distance against closed forms, the real-vs-real floor, accuracy."""

import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from diffusion_edu import metrics
from diffusion_edu.data import Dataset, to_float


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_moments(mean, covariance, n=50, seed=0):
    """n points whose sample mean and covariance are exactly these."""
    x = normal(n, len(mean), seed=seed)
    x = x - x.mean(0)
    white = x @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T
    return mean + white @ torch.linalg.cholesky(covariance).T


def test_axis_parallel_gaussians():
    m1, m2 = torch.tensor([0.0, 1.0]).double(), torch.tensor([2.0, 0.0]).double()
    s1, s2 = torch.tensor([1.0, 2.0]).double(), torch.tensor([3.0, 0.5]).double()
    distance = metrics.frechet_distance(with_moments(m1, (s1**2).diag()), with_moments(m2, (s2**2).diag(), 70, 1))
    # |m1 - m2|^2 + |s1 - s2|^2 = 5 + 4 + 2.25; float64 rounding
    assert distance == pytest.approx(11.25, rel=1e-10)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_any_gaussians(seed):
    a, b = normal(4, 4, seed=seed), normal(4, 4, seed=seed + 10)
    c1, c2, m1, m2 = a @ a.T, b @ b.T, normal(4, seed=seed + 20), normal(4, seed=seed + 30)
    root = scipy.linalg.sqrtm((c1 @ c2).numpy())
    wanted = float((m1 - m2).square().sum() + c1.trace() + c2.trace()) - 2 * float(np.trace(root).real)
    left, right = with_moments(m1, c1), with_moments(m2, c2, 80, 1)
    assert metrics.frechet_distance(left, right) == pytest.approx(wanted, rel=1e-7)  # sqrtm's own error
    assert metrics.frechet_distance(right, left) == pytest.approx(wanted, rel=1e-7)


def test_equal_sets_have_no_distance_even_where_features_are_dead():
    x = normal(100, 6)
    x[:, 2:] = 0  # a singular covariance, as after a ReLU that never fires
    assert metrics.frechet_distance(x.float(), x.float()) == pytest.approx(0, abs=1e-6)  # root of rounding 1e-16


def test_it_is_computed_in_float64():
    x = normal(200, 3) + 1000
    assert metrics.moments(x.float())[0].dtype == torch.float64
    y = x.float()
    torch.testing.assert_close(metrics.moments(y)[1], y.double().T.cov())


def test_one_feature_is_enough():
    x = normal(50, 1)
    assert metrics.frechet_distance(x, 2 * x + 3) == pytest.approx(float((x.mean() + 3) ** 2 + x.var()))


@pytest.mark.parametrize("shape", [(1, 4), (0, 4), (4,)])
def test_too_few_rows(shape):
    with pytest.raises(ValueError, match=r"at least two feature vectors, \(N, D\), got"):
        metrics.frechet_distance(torch.zeros(shape), torch.zeros(5, 4))


class Brightness(nn.Module):
    """Stands in for the classifier: features are four pixels, the class is the largest of three."""

    def features(self, x):
        return x.flatten(1)[:, :4]

    def head(self, features):
        return features[:, :3]


def dataset(n, split, seed):
    images = torch.randint(0, 256, (n, 1, 2, 2), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Dataset("made up", split, images, torch.arange(n) % 3, ("a", "b", "c"))


def test_judge_goes_through_all_batches():
    x = normal(7, 1, 2, 2).float()
    features, seen = metrics.judge(Brightness(), x, batch=3)
    assert torch.equal(features, x.flatten(1))
    assert torch.equal(seen, x.flatten(1)[:, :3].argmax(1))


def test_real_parts_are_disjoint_and_as_many_as_there_are():
    train = dataset(50, "train", 0)
    train.images.view(50, 4)[:, 0] = torch.arange(50, dtype=torch.uint8)
    parts = [part.view(-1, 4)[:, 0].tolist() for part in metrics.real_parts(train, 12)]
    assert [len(part) for part in parts] == [12] * 4
    assert len({index for part in parts for index in part}) == 48
    assert parts != [list(range(k, k + 12)) for k in range(0, 48, 12)]  # shuffled


def test_real_parts_have_the_classes_that_were_asked_for():
    train = dataset(50, "train", 0)
    train.images.view(50, 4)[:, 0] = torch.arange(50, dtype=torch.uint8)
    train.labels[:] = torch.tensor([0, 1, 1, 2, 2]).repeat(10)  # 10, 20 and 20 of them
    asked = torch.tensor([1, 0, 1, 1])
    parts = [part.view(-1, 4)[:, 0].long() for part in metrics.real_parts(train, asked)]
    assert len(parts) == 6  # 20 // 3, and there are ten 0s
    for part in parts:
        assert sorted(train.labels[part].tolist()) == [0, 1, 1, 1]
    assert len(torch.cat(parts).unique()) == 24


def test_the_spread_of_asked_for_classes_is_that_within_them():
    places, y = 6 * normal(10, 3), torch.arange(1000) % 10  # classes far apart, in the same places for all draws
    draws = [places[y] + torch.randn(1000, 3, generator=torch.Generator().manual_seed(s)) for s in range(40)]
    reference = places.repeat(400, 1) + normal(4000, 3)
    found = torch.tensor([metrics.frechet_distance(x, reference) for x in draws]).std()
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    within, shuffled, plain = torch.tensor(
        [
            [
                metrics.frechet_spread(*rows)
                for rows in ((x, reference, y), (x[order], reference, y[order]), (x, reference))
            ]
            for x in draws[:10]
        ]
    ).mean(0)
    # a bootstrap adds its own chance to that of the sample, so it leans high; without the classes it is far off
    assert 0.7 * found < within < 2.5 * found and 0.7 * found < shuffled < 2.5 * found
    assert plain > 10 * found


def test_more_images_than_there_are_real_ones():
    with pytest.raises(ValueError, match="51 samples need 1 or more, and as many real images, of which there are 50"):
        list(metrics.real_parts(dataset(50, "train", 0), 51))
    with pytest.raises(
        ValueError, match="18 samples need 18 real images of class 1 beside them, of which there are 17"
    ):
        list(metrics.real_parts(dataset(50, "train", 0), torch.ones(18, dtype=torch.int64)))  # there are 17


@pytest.mark.parametrize(
    "asked", [0, -5, torch.tensor([]), torch.tensor([1.0]), torch.tensor([[1]]), torch.tensor([-1]), [1]]
)
def test_what_nobody_can_ask_for(asked):
    with pytest.raises(ValueError, match="need 1 or more|need classes from 0 on, of one|labels must"):
        list(metrics.real_parts(dataset(50, "train", 0), asked))


def test_mistakes_with_shares_and_classes():
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        metrics.in_shares(torch.tensor([0, 1]), 0)
    with pytest.raises(ValueError, match=r"need classes from 0 on, of one image or more, got \[\]"):
        metrics.in_shares(torch.tensor([], dtype=torch.int64), 3)
    assert metrics.in_shares(torch.tensor([1, 0], dtype=torch.uint8), 4).tolist() == [0, 1, 0, 1]
    x = normal(20, 3)
    with pytest.raises(ValueError, match=r"labels must have shape \(20,\), one for each image, got \(19,\)"):
        metrics.frechet_spread(x, x, torch.zeros(19, dtype=torch.int64))
    assert (
        metrics.frechet_spread(x, x, torch.arange(20)) == metrics.frechet_spread(x, x) > 0.01
    )  # one of each: no spread


def test_the_limit_of_asked_for_classes_takes_them_in_their_shares():
    places, y = 6 * normal(10, 3), torch.arange(500) % 10
    reference = places.repeat(400, 1) + normal(4000, 3)
    limits = []
    for seed in range(20):
        x = places[y] + torch.randn(500, 3, generator=torch.Generator().manual_seed(seed))
        g = torch.Generator().manual_seed(seed)
        limits.append([metrics.frechet_limit(x, reference, generator=g, y=c)[0] for c in (y, None)])
    within, plain = torch.tensor(limits).T
    error = within.std() / 20**0.5
    assert abs(within.mean()) < 4 * error + 0.002  # 0 but for the reference's chance, (tr C + ...) / 4000 = 0.0015
    assert plain.mean() < -0.05  # no distance is negative


def test_labels_in_the_shares_of_others():
    labels = torch.tensor([2, 0, 1, 2, 0, 2])  # shares 1/3, 1/6, 1/2
    assert metrics.in_shares(labels, 6).tolist() == [0, 1, 2, 0, 2, 2]  # the same labels, in turns
    assert torch.bincount(metrics.in_shares(labels, 600)).tolist() == [200, 100, 300]
    for n in range(1, 40):
        counts = torch.bincount(metrics.in_shares(labels, n), minlength=3)
        assert counts.sum() == n and (counts - n * torch.tensor([1 / 3, 1 / 6, 1 / 2])).abs().max() < 1


def test_the_floor_is_that_of_the_shares_asked_for():
    train, test = dataset(200, "train", 0), dataset(100, "test", 1)
    for part in (train, test):  # the class is the brightness, and nearly all are dark
        part.labels[:] = (torch.arange(len(part.labels)) % 10 == 0).long()
        part.images[:] = (part.images / 8 + 200 * part.labels[:, None, None, None]).byte()
    equal, alike = torch.arange(20) % 2, metrics.in_shares(test.labels, 20)
    assert torch.bincount(alike).tolist() == [18, 2]
    floors = [metrics.RealImages(Brightness(), train, test, y).floors["floor"] for y in (equal, alike)]
    gap = to_float(test.images[test.labels == 1]).mean(0) - to_float(test.images[test.labels == 0]).mean(0)
    assert floors[0] > (0.4 * gap.flatten()).square().sum() > 100 * floors[1]  # eq-eval-shares; 1/2 of them, not 1/10


def test_the_whole_measurement():
    train, test = dataset(100, "train", 0), dataset(80, "test", 1)
    x = to_float(dataset(20, "train", 2).images)
    features, seen = x.flatten(1), x.flatten(1)[:, :3].argmax(1)
    y = seen.clone()
    y[:5] = (y[:5] + 1) % 3
    result = metrics.measure_samples(Brightness(), x, y, train, test)
    reference = to_float(test.images).flatten(1)
    floors = [metrics.frechet_distance(to_float(p).flatten(1), reference) for p in metrics.real_parts(train, y)]
    assert result["samples"] == 20
    assert result["accuracy"] == 0.75
    assert result["accuracy_error"] == pytest.approx((17 / 24 * 7 / 24 / 24) ** 0.5)  # 15 + 2 of 20 + 4
    assert result["frechet"] == pytest.approx(metrics.frechet_distance(features, reference))
    assert result["floor"] == pytest.approx(sum(floors) / len(floors))
    assert result["floor_error"] == pytest.approx(torch.tensor(floors).std().item(), rel=1e-5)
    assert result["floor_parts"] == len(floors) == 33 // torch.bincount(y).max() > 1
    assert result["ratio"] == pytest.approx(result["frechet"] / result["floor"])
    assert result["frechet_error"] == metrics.frechet_spread(features, reference, y)
    assert result["frechet_error"] != metrics.frechet_spread(features, reference)


def test_floors_belong_to_a_number_of_images():
    train, test = dataset(60, "train", 0), dataset(50, "test", 1)
    x, y = to_float(dataset(20, "train", 2).images), torch.zeros(20, dtype=torch.int64)
    real = metrics.RealImages(Brightness(), train, test, y)
    assert real.measure(x) == metrics.measure_samples(Brightness(), x, y, train, test)
    with pytest.raises(ValueError, match="of 20 images, got 19 samples"):
        real.measure(x[1:])


def test_sliced_wasserstein_of_a_shift_and_of_a_scale():
    x = normal(500, 2)
    g = torch.Generator().manual_seed(1)
    # a shift by m moves each projection by its cosine: root mean square |m| / sqrt(2), here over 4,000 directions
    assert metrics.sliced_wasserstein(x, x + torch.tensor([3.0, 4.0]), 4000, g) == pytest.approx(5 / 2**0.5, rel=0.03)
    root_mean_square = float(x.square().sum(1).mean() / 2) ** 0.5
    assert metrics.sliced_wasserstein(x, 2 * x, 4000, g) == pytest.approx(root_mean_square, rel=0.03)
    assert metrics.sliced_wasserstein(x, x.flip(0)) == 0
    with pytest.raises(ValueError, match=r"got \(500, 2\) and \(499, 2\)"):
        metrics.sliced_wasserstein(x, x[1:])


def test_weights_that_are_all_equal_are_the_likelihood_for_any_number_of_samples():
    class Net:
        def elbo_terms(self, images, generator):
            return torch.full((len(images),), -5.0), torch.full((len(images), 2), 1.0)

        def importance_log_weights(self, images, samples, generator):
            return torch.full((len(images), samples), -7.0)

    found = metrics.measure_elbo(Net(), torch.zeros(4, 1, 28, 28, dtype=torch.uint8), samples=(1, 3, 10))
    assert found["nats"] == [-7.0, 0.0]
    assert [row["nats"][0] for row in found["weighted"]] == pytest.approx([-7.0] * 3)


def test_a_standard_error_shrinks_with_the_root_of_the_number():
    assert metrics.mean_and_error(torch.tensor([0.0, 2.0, 0.0, 2.0])) == pytest.approx([1, (4 / 3) ** 0.5 / 2])


# --- evaluation -------------------------------------------------------------------------------------


def brute_force_inside(points, others, k):
    """In how many balls each of others lies, by plain loops."""
    counts = []
    for other in others:
        held = 0
        for i, point in enumerate(points):
            radii = sorted((point - rest).norm().item() for j, rest in enumerate(points) if j != i)
            held += (point - other).norm().item() <= radii[k - 1]
        counts.append(held)
    return counts


def test_manifold_is_what_plain_loops_say():
    real, fake = normal(23, 3), normal(17, 3, seed=1) * 0.9
    around, held = metrics.Manifold(real, k=2, chunk=5).counts(fake)
    assert around.tolist() == brute_force_inside(real, fake, 2)
    assert held.sum() == around.sum()
    precision, recall = metrics.precision_recall(real, fake, k=2)
    assert precision == sum(count > 0 for count in brute_force_inside(real, fake, 2)) / 17
    assert recall == sum(count > 0 for count in brute_force_inside(fake, real, 2)) / 23
    density, coverage = metrics.density_coverage(real, fake, k=2)
    assert density == pytest.approx(sum(brute_force_inside(real, fake, 2)) / 17 / 2)
    assert coverage == float((held > 0).double().mean())


def test_precision_and_recall_of_copies_outliers_and_a_lost_half():
    real = torch.cat([normal(200, 2), normal(200, 2, seed=1) + 20])
    assert metrics.precision_recall(real, real) == (1.0, 1.0)
    assert metrics.precision_recall(real, real + 1000) == (0.0, 0.0)
    precision, recall = metrics.precision_recall(real, real[:200])
    assert (precision, recall) == (1.0, 0.5)


@pytest.mark.parametrize("k", [0, 5, -1])
def test_a_manifold_needs_more_points_than_neighbours(k):
    with pytest.raises(ValueError, match=rf"more than k = {k} >= 1 points \(N, D\), got \(5, 2\)"):
        metrics.Manifold(normal(5, 2), k)


def test_unbiased_mmd_is_the_sum_over_different_pairs():
    left, right = normal(5, 3), normal(4, 3, seed=1) + 0.3

    def mean(a, b, same):
        terms = [(float(x @ y) / 3 + 1) ** 3 for i, x in enumerate(a) for j, y in enumerate(b) if not (same and i == j)]
        return sum(terms) / len(terms)

    wanted = mean(left, left, True) + mean(right, right, True) - 2 * mean(left, right, False)
    assert metrics.unbiased_mmd(left, right) == pytest.approx(wanted, rel=1e-12)


def test_kernel_distance_is_near_its_population_value_and_its_error_honest():
    # N(0, 1) and N(0.5, 1): 3 * 0.5^2 + 3 * 0.25^2 + (0.5^3 + 1.5)^2 by the first three moments
    wanted = 3 * 0.25 + 3 * 0.25**2 + 1.625**2
    value, error = metrics.kernel_distance(normal(10_000, 1), normal(10_000, 1, seed=1) + 0.5)
    assert abs(value - wanted) < 4 * error and error < wanted / 5
    with pytest.raises(ValueError, match="got 19 and 100"):
        metrics.kernel_distance(normal(19, 1), normal(100, 1))


def test_inception_score_at_its_ends_and_in_the_middle():
    eye = torch.eye(5).repeat(200, 1)  # classes repeat with a period of 5
    for ordered in (eye, torch.eye(5).repeat_interleave(200, 0)):
        assert metrics.inception_score(ordered, 5)[0] > 4.9  # 5, but for the uneven shares of 200 images
        assert metrics.inception_score(ordered, 1) == pytest.approx((5, 0))
    assert metrics.inception_score(torch.full((30, 5), 0.2), 3) == pytest.approx((1, 0))
    p = normal(40, 3).exp()
    p = p / p.sum(1, keepdim=True)
    wanted = (p * (p / p.mean(0)).log()).sum(1).mean().exp()
    assert metrics.inception_score(p, 1)[0] == pytest.approx(wanted.item())


def test_inception_score_refuses_logits_and_too_many_splits():
    with pytest.raises(ValueError, match="sum to 1"):
        metrics.inception_score(torch.tensor([[2.0, 3.0]]))
    with pytest.raises(ValueError, match="1 to the 2 images, got 3"):
        metrics.inception_score(torch.full((2, 2), 0.5), 3)


def test_expected_coverage_against_chance():
    found = [metrics.density_coverage(normal(60, 2, seed=s), normal(60, 2, seed=s + 500), 5) for s in range(200)]
    density, coverage = torch.tensor(found).T
    for values, wanted in ((density, 1.0), (coverage, metrics.expected_coverage(60, 60, 5))):
        assert abs(values.mean() - wanted) < 4 * values.std() / 200**0.5
    assert metrics.expected_coverage(10**6, 10**6, 5) == pytest.approx(1 - 2**-5, abs=1e-4)


def test_frechet_bias_of_a_white_gaussian_and_its_floor():
    dim = 4
    bias = metrics.frechet_bias(normal(200_000, dim))
    assert bias == pytest.approx(dim * (dim + 5) / 4, rel=0.02)  # fourth moments of 200,000 points
    n, m = 400, 1000
    floors = [metrics.frechet_distance(normal(n, dim, seed=s), normal(m, dim, seed=s + 900)) for s in range(200)]
    floors = torch.tensor(floors)
    assert abs(floors.mean() - bias * (1 / n + 1 / m)) < 4 * floors.std() / 200**0.5


def test_frechet_bias_has_the_units_of_the_features_and_leaves_out_what_does_not_vary():
    x = normal(2000, 3) * torch.tensor([1.0, 0.5, 0.2]) + torch.tensor([30.0, -20.0, 5.0])
    bias = metrics.frechet_bias(x)
    assert metrics.frechet_bias(1e-3 * x) == pytest.approx(1e-6 * bias, rel=1e-9), "the tolerance is relative"
    for dead in (torch.zeros(2000, 1), 1e-4 * normal(2000, 1, seed=1)):  # 1e-8 of the largest eigenvalue
        assert metrics.frechet_bias(torch.cat([x, dead], 1)) == pytest.approx(bias, rel=1e-6)
    alive = torch.cat([x, 0.05 * normal(2000, 1, seed=1)], 1)  # 0.0025 of it: counts
    assert metrics.frechet_bias(alive) > bias + 0.0025


def test_frechet_limit_takes_the_bias_off():
    g = torch.Generator().manual_seed(3)
    reference = normal(50_000, 5, seed=7)
    found = [metrics.frechet_limit(normal(800, 5, seed=s), reference, generator=g) for s in range(10)]
    limits, slopes = torch.tensor(found).T
    plain = torch.tensor([metrics.frechet_distance(normal(800, 5, seed=s), reference) for s in range(10)])
    assert abs(limits.mean()) < 4 * limits.std() / 10**0.5 + 12.5 / 50_000
    assert slopes.mean() == pytest.approx(12.5, rel=0.2)
    assert plain.mean() > 5 * abs(limits.mean())


def test_bootstrap_of_a_mean_and_of_a_biased_square():
    x = normal(400)
    g = torch.Generator().manual_seed(0)
    mean = metrics.bootstrap(lambda part: float(part.mean()), x, 500, generator=g)
    assert mean.value == float(x.mean()) and abs(mean.bias) < 4 * mean.deviation / 500**0.5
    assert mean.deviation == pytest.approx(float(x.std()) / 20, rel=0.15)
    square = metrics.bootstrap(lambda part: float(part.mean()) ** 2, x, 2000, generator=g)
    assert square.bias == pytest.approx(float(x.var()) / 400, rel=0.25)
    assert square.low < square.value - square.bias < square.high
    with pytest.raises(ValueError, match="got 1 and 200"):
        metrics.bootstrap(lambda part: 0.0, x, level=1)


def test_the_generator_decides_about_the_resamples():
    def resampled(seed):
        g = torch.Generator().manual_seed(seed)
        return metrics.bootstrap(lambda part: float(part.mean()), normal(40), 20, generator=g)

    assert resampled(1) == resampled(1) != resampled(2)


def test_a_ball_holds_its_own_rim():
    points = torch.tensor([[0.0], [1.0], [2.0]])
    assert metrics.Manifold(points, 1).counts(torch.tensor([[3.0], [3.5]]))[0].tolist() == [1, 0]  # the nearest: 1 away


def test_share_interval_ends_where_the_deviation_says():
    z = 1.959963984540054
    for hits, n in ((3, 10), (98, 100), (0, 20), (20, 20)):
        for p in metrics.share_interval(hits, n):
            assert p in (0, 1) or abs(hits / n - p) == pytest.approx(z * (p * (1 - p) / n) ** 0.5)
    low, high = metrics.share_interval(20, 20)
    assert high == pytest.approx(1) and low < 0.9
    with pytest.raises(ValueError, match="got 4 and 3"):
        metrics.share_interval(4, 3)


def test_copies_are_noticed_and_fresh_points_are_not():
    train, fresh = normal(500, 2), normal(500, 2, seed=1)
    assert metrics.copied_share(train[:100], train, fresh) == 1.0
    assert metrics.copied_share(train, train, train) == 0.5
    share = metrics.copied_share(normal(2000, 2, seed=2), train, fresh)
    assert abs(share - 0.5) < 0.05
    with pytest.raises(ValueError, match=r"got \(500, 2\) and \(499, 2\)"):
        metrics.copied_share(train, train, fresh[1:])


def test_a_classifier_learns_from_samples_alone_and_leaves_no_trace():
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (128,), generator=g)
    images = torch.full((128, 1, 28, 28), -1.0)
    images[:, 0, :, :14] += 1.5 * labels[:, None, None]
    images[:, 0, :, 14:] += 1.5 * (1 - labels[:, None, None])
    pixels = (images[:40] * 127.5 + 127.5).to(torch.uint8)
    test = Dataset("made up", "test", pixels, labels[:40], ("left", "right"))
    before = torch.get_rng_state()
    score = metrics.classification_accuracy_score(images, labels, test, epochs=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert score == 1.0 == metrics.classification_accuracy_score(images, labels, test, epochs=4)
    flipped = metrics.classification_accuracy_score(images, 1 - labels, test, epochs=4)
    assert flipped == 0.0
    with pytest.raises(ValueError, match="at least 64 images, got 10 and 10"):
        metrics.classification_accuracy_score(images[:10], labels[:10], test)


def test_a_classifier_is_taught_in_shuffled_full_batches_for_every_epoch(monkeypatch):
    labels = torch.arange(150) // 75  # ordered by class
    images = torch.full((150, 1, 28, 28), -1.0)
    images[:, 0, :, :14] += 1.5 * labels[:, None, None]
    images[:, 0, :, 14:] += 1.5 * (1 - labels[:, None, None])
    images[:, 0, 0, 0] = torch.linspace(-1, 1, 150)  # a name for each
    pixels = (images * 127.5 + 127.5).round().to(torch.uint8)
    test, nets = Dataset("made up", "test", pixels, labels, ("left", "right")), []

    class Watched(metrics.Classifier):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.first, self.taught, self.examined = self.body[0][0].weight.detach().clone(), [], []
            nets.append(self)

        def features(self, x):
            (self.taught if self.training else self.examined).append(x[:, 0, 0, 0])
            return super().features(x)

    monkeypatch.setattr(metrics, "Classifier", Watched)
    for seed in (0, 1):
        metrics.classification_accuracy_score(images, labels, test, epochs=3, seed=seed)
    one, other = nets
    assert [len(names) for names in one.taught] == [64] * 6, "three epochs of two full batches"
    assert sum(len(names) for names in one.examined) == 150 and not one.training
    assert torch.allclose(torch.cat(one.examined), images[:, 0, 0, 0], atol=0.01), "pixels in the same range"
    epochs = [torch.cat(one.taught[i : i + 2]) for i in (0, 2, 4)]
    assert all(len(names.unique()) == 128 for names in epochs)
    assert all(float((names.sort().values - names).abs().max()) > 0.1 for names in epochs), "shuffled"
    assert not torch.equal(epochs[0], epochs[1]), "anew"
    assert not torch.equal(one.first, other.first), "the seed decides about the first weights"


def test_measurement_has_every_judge_and_its_floor():
    train, test = dataset(100, "train", 0), dataset(80, "test", 1)
    x = to_float(dataset(20, "train", 2).images)
    y = torch.arange(20) % 3
    result = metrics.measure_samples(Brightness(), x, y, train, test)
    reference = to_float(test.images).flatten(1)
    precision, recall = metrics.precision_recall(reference, x.flatten(1))
    assert (result["precision"], result["recall"]) == (precision, recall)
    floors = [metrics.precision_recall(reference, to_float(part).flatten(1)) for part in metrics.real_parts(train, y)]
    assert result["recall_floor"] == pytest.approx(sum(r for _, r in floors) / len(floors))
    assert {
        f"{n}{e}" for n in ("precision", "recall", "kernel", "inception") for e in ("", "_floor", "_floor_error")
    } <= set(result)


# --- localisation -------------------------------------------------------------------------------------


def test_auc_counts_pairs():
    scores = torch.tensor([0.1, 0.4, 0.35, 0.8])
    positive = torch.tensor([False, False, True, True])
    assert metrics.auc(scores, positive) == pytest.approx(0.75)
    assert metrics.auc(-scores, positive) == pytest.approx(0.25)
    assert metrics.auc(torch.zeros(4), positive) == 0.5
    assert metrics.auc(scores.reshape(2, 2), positive.reshape(2, 2)) == pytest.approx(0.75)


def test_auc_looks_at_the_order_alone():
    g = torch.Generator().manual_seed(0)
    scores, positive = torch.randn(200, generator=g), torch.rand(200, generator=g) < 0.2
    assert metrics.auc(scores, positive) == pytest.approx(metrics.auc(scores.double().exp() * 7, positive), abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "positive", "message"),
    [
        (torch.zeros(3), torch.zeros(4, dtype=torch.bool), "scores and bool labels alike"),
        (torch.zeros(3), torch.zeros(3), "float32"),
        (torch.zeros(3), torch.ones(3, dtype=torch.bool), "one negative"),
        (torch.zeros(3), torch.zeros(3, dtype=torch.bool), "at least one positive"),
        (torch.tensor([0.0, float("nan")]), torch.tensor([True, False]), "finite"),
    ],
)
def test_auc_refuses(scores, positive, message):
    with pytest.raises(ValueError, match=message):
        metrics.auc(scores, positive)


def test_kernel_distance_is_the_mean_of_its_blocks_with_the_error_of_a_mean():
    g = torch.Generator().manual_seed(0)
    left, right = torch.randn(45, 3, generator=g), torch.randn(63, 3, generator=g) + 0.5
    g = torch.Generator().manual_seed(0)
    a, b = (points[torch.randperm(len(points), generator=g)] for points in (left, right))
    values = [metrics.unbiased_mmd(a[11 * i : 11 * i + 11], b[15 * i : 15 * i + 15]) for i in range(4)]
    values = torch.tensor(values, dtype=torch.float64)
    wanted = float(values.mean()), float(values.std()) / 2  # the root of four blocks
    assert metrics.kernel_distance(left, right, 4) == pytest.approx(wanted, abs=1e-12)


def test_inception_score_takes_its_average_within_each_split():
    g = torch.Generator().manual_seed(0)
    p = torch.randn(40, 4, generator=g, dtype=torch.float64).mul(2).softmax(1)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    parts = [metrics.inception_score(part, 1)[0] for part in p[order].split(10)]
    parts = torch.tensor(parts, dtype=torch.float64)
    assert metrics.inception_score(p, 4) == pytest.approx((float(parts.mean()), float(parts.std())), abs=1e-12)


def test_bootstrap_interval_leaves_half_of_the_rest_on_each_side():
    x = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    g = torch.Generator().manual_seed(1)
    b = metrics.bootstrap(lambda part: float(part.mean()), x, 2000, level=0.9, generator=g)
    assert (b.high - b.low) / b.deviation == pytest.approx(2 * 1.645, rel=0.06)  # 3 % is one standard error of a width
    assert (b.high - b.value) / (b.value - b.low) == pytest.approx(1, abs=0.15), "symmetric for a mean"


# --- the features of another network ---------------------------------------------------------------------


class Eye(nn.Module):
    """Stands in for Inception: uint8 colour images -> means of the colours and of the image's halves, or a class."""

    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        if img.dtype != torch.uint8:
            raise ValueError("uint8")
        x = img.float() / 255
        means = torch.cat([x.mean(dim=(2, 3)), x[:, :, ::2].mean(dim=(2, 3))], dim=1)
        return means if return_features else means.argmax(dim=1)


class Plain(nn.Module):
    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return img.float().mean(dim=(2, 3))


def photos(n, split, seed, channels=3):
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, channels, 4, 4), generator=g, dtype=torch.uint8)
    return Dataset("made up", split, images, torch.arange(n) % 2, ("a", "b"))


def write_torchscript(net, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the format that Inception's weights come in is an old one
        torch.jit.script(net).save(str(path))


@pytest.fixture
def eye(tmp_path):
    write_torchscript(Eye(), tmp_path / "eye.pt")
    return metrics.load_extractor(tmp_path / "eye.pt")


def test_a_torchscript_file_is_asked_for_features_where_it_has_a_choice(eye, tmp_path):
    images = photos(7, "train", 0).images
    assert torch.equal(metrics.extract(eye, images, batch=3), Eye()(images, return_features=True))
    write_torchscript(Plain(), tmp_path / "plain.pt")
    plain = metrics.load_extractor(tmp_path / "plain.pt")
    assert torch.equal(metrics.extract(plain, images), Plain()(images))
    grey = photos(5, "train", 0, channels=1).images
    assert torch.equal(metrics.extract(plain, grey), Plain()(grey).expand(5, 3))


def test_feature_distance_is_that_of_the_split_it_names(eye):
    train, test = photos(60, "train", 0), photos(30, "test", 1)
    x, y = to_float(photos(20, "train", 2).images), torch.tensor(12 * [0] + 8 * [1])
    features = {s.split: Eye()(s.images, return_features=True) for s in (train, test)}
    drawn = Eye()(photos(20, "train", 2).images, return_features=True)
    for reference, other in ((train, test), (test, train)):
        found = metrics.feature_distance(eye, x, y, reference, other)
        assert (found["reference"], found["reference_images"]) == (reference.split, len(reference))
        assert found["frechet"] == pytest.approx(metrics.frechet_distance(drawn, features[reference.split]))
        held_out = Eye()(next(metrics.real_parts(other, y)), return_features=True)
        assert found["floor"] == pytest.approx(metrics.frechet_distance(held_out, features[reference.split]))
        assert (found["samples"], found["floor_images"]) == (20, 20)
        assert found["frechet_error"] == metrics.frechet_spread(drawn, features[reference.split], y)
        assert found["frechet_error"] != metrics.frechet_spread(drawn, features[reference.split])
    many, shares = to_float(train.images), torch.tensor(40 * [0] + 20 * [1])
    found = metrics.feature_distance(eye, many, shares, train, test)
    alike = Eye()(next(metrics.real_parts(test, metrics.in_shares(shares, 22))), return_features=True)
    assert found["floor"] == pytest.approx(metrics.frechet_distance(alike, features["train"]))
    with pytest.raises(ValueError, match="test split has too few images of the classes asked for to measure a floor"):
        metrics.feature_distance(eye, many, shares + 1, train, test)
    assert found["floor_images"] == 22  # two thirds of them of the first class, of which the test split holds 15


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda images: images.float(), r"\(N, D\) for N = 6 images, gave \(6, 3, 4, 4\)"),
        (lambda images: images.float().mean((1, 2, 3)), r"gave \(6,\)"),
        (lambda images: images.float().flatten(1)[:4], r"gave \(4, 48\)"),
        (lambda images: [1, 2], "gave list"),
        (lambda images: images.float().flatten(1) / 0, "not finite"),
    ],
)
def test_features_that_are_none(answer, message):
    with pytest.raises(ValueError, match=message):
        metrics.extract(answer, photos(6, "train", 0).images)


def test_images_and_files_that_give_no_features(tmp_path):
    with pytest.raises(ValueError, match=r"uint8 images \(N, 1 or 3, H, W\), got torch.float32 \(2, 3, 4, 4\)"):
        metrics.extract(Plain(), torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"got torch.uint8 \(2, 4, 4, 4\)"):
        metrics.extract(Plain(), torch.zeros(2, 4, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="no feature network at .*nothing.pt, expected a TorchScript file"):
        metrics.load_extractor(tmp_path / "nothing.pt")
    (tmp_path / "text.pt").write_text("weights")
    with pytest.raises(ValueError, match="text.pt is no TorchScript file: "):
        metrics.load_extractor(tmp_path / "text.pt")


def test_samples_that_were_asked_for_nothing_have_no_accuracy_and_the_floor_of_a_plain_draw():
    train, test = dataset(60, "train", 0), dataset(50, "test", 1)
    x, y = to_float(dataset(20, "train", 2).images), torch.zeros(20, dtype=torch.int64)
    labelled, plain = (metrics.RealImages(Brightness(), train, test, asked).measure(x) for asked in (y, 20))
    assert plain.keys() == labelled.keys() - {"accuracy", "accuracy_error"}
    assert plain["frechet"] == labelled["frechet"] and (plain["floor_parts"], labelled["floor_parts"]) == (3, 1)


@pytest.mark.parametrize(
    ("baseline", "rows"),
    [([1.0], {"a": [1.0]}), ([1.0, 2.0], {}), ([1.0, 2.0], {"a": []}), ([1.0, 0.0], {"a": [1.0]})],
)
def test_rows_without_values_are_not_compared(baseline, rows):
    with pytest.raises(ValueError, match="positive values, two or more for the baseline and one or more for each row"):
        metrics.compare_rows(baseline, rows)


def test_one_deviation_is_shared_by_all_rows():
    """A row with one seed borrows its spread from the others, and more rows make each interval wider."""
    baseline, alike, single = [1.0, 1.1, 0.9], [2.0, 2.2, 1.8], [2.0]
    two = metrics.compare_rows(baseline, {"alike": alike, "single": single})
    one = metrics.compare_rows(baseline, {"alike": alike})
    widths = [found.high / found.low for found in (two["single"], two["alike"], one["alike"])]
    assert widths == sorted(widths, reverse=True) and len(set(widths)) == 3
    assert metrics.compare_rows(baseline, {"alike": alike}, level=0.5)["alike"].low > one["alike"].low
