"""Metrics: the Fréchet distance against closed forms, the real-vs-real floor, accuracy."""

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
    return Dataset("made up", split, images, torch.zeros(n, dtype=torch.int64), ("a", "b", "c"))


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


def test_more_images_than_there_are_real_ones():
    with pytest.raises(ValueError, match="51"):
        list(metrics.real_parts(dataset(50, "train", 0), 51))


def test_the_whole_measurement():
    train, test = dataset(100, "train", 0), dataset(80, "test", 1)
    x = to_float(dataset(20, "train", 2).images)
    features, seen = x.flatten(1), x.flatten(1)[:, :3].argmax(1)
    y = seen.clone()
    y[:5] = (y[:5] + 1) % 3
    result = metrics.measure_samples(Brightness(), x, y, train, test)
    reference = to_float(test.images).flatten(1)
    floors = [metrics.frechet_distance(to_float(p).flatten(1), reference) for p in metrics.real_parts(train, 20)]
    assert result["samples"] == 20
    assert result["accuracy"] == 0.75
    assert result["accuracy_error"] == pytest.approx((17 / 24 * 7 / 24 / 24) ** 0.5)  # 15 + 2 of 20 + 4
    assert result["frechet"] == pytest.approx(metrics.frechet_distance(features, reference))
    assert result["floor"] == pytest.approx(sum(floors) / 5)
    assert result["floor_error"] == pytest.approx(torch.tensor(floors).std().item(), rel=1e-5)
    assert result["floor_parts"] == 5
    assert result["ratio"] == pytest.approx(result["frechet"] / result["floor"])
    assert 0 < result["frechet_error"] < result["frechet"] * 2


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
