"""Guidance: the scores add up as written, in one call of the network, and wrappers compose."""

import pytest
import torch
from torch import nn

from diffusion_edu.__main__ import CHECKPOINTS
from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.checkpoints import load_network
from diffusion_edu.data import load, to_float
from diffusion_edu.denoisers import Denoiser
from diffusion_edu.guidance import (
    anomaly_map,
    classifier_free,
    classifier_guided,
    encode_to,
    loss_guided,
    on_interval,
    return_from,
    sdedit,
)
from diffusion_edu.metrics import share_error
from diffusion_edu.networks import NoisyClassifier
from diffusion_edu.process import q_sample
from diffusion_edu.samplers import ancestral, ddim, sample
from diffusion_edu.schedules import Cosine, Flow, LinearBeta, time_grid
from diffusion_edu.training import fit_noisy_classifier


class Net(nn.Module):
    """Answers 0.1 x + (class + 1) / 10 + t and counts its calls."""

    num_classes, calls = 3, 0

    def forward(self, x, t, y=None):
        self.calls += 1
        return 0.1 * x + (y[:, None] + 1) / 10 + t[:, None]


@pytest.fixture
def denoiser():
    return Denoiser(Net(), Cosine(), "eps")


X = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 0])
NULL = torch.full((4,), 3)


@pytest.mark.parametrize("w", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("t", [torch.tensor(0.4), torch.tensor([0.2, 0.4, 0.6, 0.8])])
def test_the_guided_score_is_the_weighted_sum(denoiser, w, t):
    t = t.double()
    guided = classifier_free(denoiser, w)(X, t, Y)
    null, conditional = denoiser(X, t, NULL), denoiser(X, t, Y)
    for face in ("score", "eps", "x0", "v"):
        wanted = (1 - w) * getattr(null, face) + w * getattr(conditional, face)
        torch.testing.assert_close(getattr(guided, face), wanted, rtol=1e-9, atol=1e-9)


def test_the_two_estimates_are_added_before_the_sum_is_clipped():
    clipped = Denoiser(Net(), Cosine(), "eps", clip=(-0.6, 0.6))
    t = torch.tensor(0.4).double()
    null, conditional = clipped.raw(X, t, NULL).x0, clipped.raw(X, t, Y).x0
    wanted = (null + 2 * (conditional - null)).clamp(-0.6, 0.6)
    torch.testing.assert_close(classifier_free(clipped, 2.0)(X, t, Y).x0, wanted, rtol=1e-9, atol=1e-9)
    added_late = null.clamp(-0.6, 0.6) + 2 * (conditional.clamp(-0.6, 0.6) - null.clamp(-0.6, 0.6))
    assert (wanted - added_late.clamp(-0.6, 0.6)).abs().max() > 0.01  # the order matters here


def test_one_call_of_the_network_for_both(denoiser):
    classifier_free(denoiser, 2.0)(X, torch.tensor(0.4), Y)
    assert denoiser.net.calls == 1


def test_without_guidance_it_is_the_denoiser_itself(denoiser):
    assert classifier_free(denoiser, 1.0) is denoiser


def test_the_result_is_clipped_like_the_denoisers():
    clipped = Denoiser(Net(), Cosine(), "eps", clip=(-1, 1))
    assert float(classifier_free(clipped, 50.0)(X, torch.tensor(0.9), Y).x0.abs().max()) <= 1


def test_labels_are_needed_and_checked(denoiser):
    with pytest.raises(ValueError, match="needs labels y, got None"):
        classifier_free(denoiser, 2.0)(X, torch.tensor(0.4))
    with pytest.raises(ValueError, match="0 ... 2"):
        classifier_free(denoiser, 2.0)(X, torch.tensor(0.4), torch.tensor([0, 1, 2, 7]))


# --- exact mixtures, classifiers, intervals ---------------------------------------------------------------------------

F64 = torch.float64
MIXTURE = GaussianMixture(
    torch.tensor([[-1.2, 0.3], [0.9, 1.0], [0.4, -1.1]], dtype=F64),
    torch.tensor([0.3, 0.4, 0.25], dtype=F64),
    torch.tensor([0.2, 0.5, 0.3], dtype=F64),
)
CLASSES, TWO = torch.tensor([0, 1, 1]), torch.tensor([0, 1, 1, 0])
T = torch.tensor(0.4, dtype=F64)
EXACT, READER = MIXTURE.denoiser(Cosine(), CLASSES), MIXTURE.classifier(Cosine(), CLASSES)


def same(left, right):
    torch.testing.assert_close(left.x0, right.x0, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("t", [T, torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=F64)])
def test_an_exact_mixture_is_guided_too(t):
    same(classifier_free(EXACT, 0.0)(X, t, TWO), EXACT(X, t))
    same(classifier_free(EXACT, 0.0)(X, t, TWO), EXACT(X, t, torch.full((4,), 2)))
    same(classifier_guided(EXACT, READER, 1.0)(X, t, TWO), EXACT(X, t, TWO))
    same(classifier_guided(EXACT, READER, 3.0)(X, t, TWO), classifier_free(EXACT, 3.0)(X, t, TWO))
    same(classifier_guided(EXACT, READER, 0.0)(X, t, TWO), EXACT(X, t))


def test_classes_are_groups_of_components():
    both = MIXTURE.component_log_densities(X, torch.ones((), dtype=F64), torch.zeros((), dtype=F64))
    part = GaussianMixture(MIXTURE.means[1:], MIXTURE.stds[1:], MIXTURE.weights[1:])
    ones = torch.ones(4, dtype=torch.long)
    same(EXACT(X, T, ones), part.denoiser(Cosine())(X, T))
    total = READER(X, T, ones).exp() + READER(X, T, 0 * ones).exp()
    torch.testing.assert_close(total, torch.ones(4, dtype=F64))
    clean = READER(X, torch.tensor(0.0, dtype=F64), ones)
    torch.testing.assert_close(clean, both[:, 1:].logsumexp(1) - both.logsumexp(1))


def test_wrappers_compose():
    twice = classifier_guided(classifier_free(EXACT, 2.0), READER, 1.5, conditional=True)
    same(twice(X, T, TWO), classifier_free(EXACT, 3.5)(X, T, TWO))
    inner = on_interval(twice, EXACT, low=5.0)
    same(inner(X, T, TWO), EXACT(X, T, TWO))


def test_a_guided_denoiser_is_sampled_like_any_other():
    ts, steps = time_grid(Cosine(), 5), []
    for _ in range(2):
        guided = classifier_guided(EXACT, READER, 2.0)
        steps.append(sample(ddim(guided, X, ts, y=TWO)))  # walks under no_grad: the gradient is taken all the same
    assert torch.equal(*steps) and not steps[0].requires_grad


def test_intervals_choose_row_by_row_when_times_differ():
    t = torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=F64)
    log_snr = Cosine().log_snr(t)
    guided = classifier_free(EXACT, 4.0)
    found = on_interval(guided, EXACT, float(log_snr[2]), float(log_snr[1]))(X, t, TWO)
    for row, wanted in enumerate([EXACT, guided, guided, EXACT]):
        torch.testing.assert_close(found.x0[row], wanted(X, t, TWO).x0[row])


def test_sums_of_a_guided_classifier_are_clipped_like_the_denoisers():
    clipped = Denoiser(Net(), Cosine(), "eps", clip=(-0.5, 0.5))
    guided = classifier_guided(clipped, lambda x, t, y: 9 * x.sum(1), 5.0, conditional=True)
    assert guided.clip == (-0.5, 0.5) and guided.schedule is clipped.schedule
    assert float(guided(X, T, TWO).x0.abs().max()) == 0.5 < float(guided.raw(X, T, TWO).x0.abs().max())


def test_guidance_is_added_to_what_is_not_clipped_yet():
    clipped = Denoiser(Net(), Cosine(), "eps", clip=(-0.5, 0.5))
    plain = Denoiser(Net(), Cosine(), "eps")
    assert float(plain(X, T, TWO).x0.abs().max()) > 0.5
    reader, labels = (lambda x, t, y: -0.2 * x.square().sum(1)), Y
    found = classifier_guided(clipped, reader, 1.0, conditional=True)(X, T, labels).x0
    torch.testing.assert_close(
        found, classifier_guided(plain, reader, 1.0, conditional=True)(X, T, labels).x0.clamp(-0.5, 0.5)
    )
    t = torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=F64)
    low, high = float(Cosine().log_snr(t[2])), float(Cosine().log_snr(t[1]))
    rows = on_interval(classifier_free(clipped, 3.0), clipped, low, high).raw(X, t, labels).x0
    wanted = on_interval(classifier_free(plain, 3.0), plain, low, high)(X, t, labels).x0
    torch.testing.assert_close(rows, wanted)


@pytest.mark.parametrize(("t", "called"), [(0.4, [1, 0]), (0.9, [0, 1])])
def test_where_all_rows_share_a_time_only_one_denoiser_is_asked(t, called):
    nets = Net(), Net()
    guided, plain = (Denoiser(net, Cosine(), "eps") for net in nets)
    on_interval(guided, plain, float(Cosine().log_snr(T.new_tensor(0.6))))(X, T.new_tensor(t), Y)
    assert [net.calls for net in nets] == called


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="needs a denoiser with classes"):
        classifier_free(classifier_guided(EXACT, READER, 1.0), 2.0)
    with pytest.raises(ValueError, match="needs labels y, got None"):
        classifier_guided(EXACT, READER, 1.0)(X, T)
    with pytest.raises(ValueError, match=r"guidance needs one number for each row, \(4,\), got \(\)"):
        classifier_guided(EXACT, lambda x, t, y: x.sum(), 1.0)(X, T, TWO)
    with pytest.raises(ValueError, match="need low <= high, got 2 and 1"):
        on_interval(EXACT, EXACT, 2, 1)
    with pytest.raises(ValueError, match="none left out, got \\[0, 2, 2\\]"):
        MIXTURE.denoiser(Cosine(), torch.tensor([0, 2, 2]))


def test_the_noisy_classifier_learns_and_is_the_same_every_time():
    images = torch.zeros(40, 1, 28, 28, dtype=torch.uint8)
    labels = torch.arange(40) % 2
    images[labels == 1, :, :, 14:] = 255
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        net = NoisyClassifier(width=8, features=16)
        losses.append([loss for _, loss in fit_noisy_classifier(net, Cosine(), images, labels, epochs=6, batch=20)])
    assert losses[0] == losses[1] and losses[0][-1] < 0.8 * losses[0][0]
    net.eval()
    x, t = torch.zeros(3, 1, 28, 28), torch.tensor(0.3)
    log_p = torch.stack([net.log_p_y(x, t, torch.full((3,), c)) for c in range(10)])
    torch.testing.assert_close(log_p.exp().sum(0), torch.ones(3))
    with pytest.raises(ValueError, match="a batch of 50 needs at least as many images, got 40"):
        next(fit_noisy_classifier(net, Cosine(), images, labels, batch=50))
    with pytest.raises(ValueError, match=r"need images \(N, 1, 28, 28\)"):
        net(torch.zeros(3, 2), t)


def test_the_committed_classifier_reads_noisy_digits():
    net, manifest = load_network(CHECKPOINTS / "mnist-noisy-classifier")
    test = load("mnist", "test")
    x0, level = to_float(test.images[:500]), manifest["levels"][6]
    t = torch.tensor(level["t"])
    x_t = q_sample(Cosine(), x0, t, torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        accuracy = float((net(x_t, t).argmax(1) == test.labels[:500]).double().mean())
    assert abs(accuracy - level["accuracy"]) < 4 * share_error(round(500 * accuracy), 500)
    assert [row["accuracy"] for row in manifest["levels"]][-1] < 0.2 < 0.98 < manifest["levels"][0]["accuracy"]


# --- loss ---------------------------------------------------------------------------------------------


class Cubic(nn.Module):
    """A net whose Jacobian depends on the place: answers x^3 / 10 + t."""

    def forward(self, x, t, y=None):
        return 0.1 * x**3 + t[:, None]


def away_from_ones(x0):
    return (x0 - 1).square().sum(1)


@pytest.mark.parametrize("t", [torch.tensor(0.4), torch.tensor([0.2, 0.4, 0.6, 0.8])])
def test_the_loss_is_differentiated_through_the_network(t):
    t, w = t.double(), 0.3
    denoiser = Denoiser(Cubic(), Cosine(), "x0")
    slope = 0.3 * X**2 * 2 * (denoiser(X, t).x0 - 1)  # by hand: d x0_hat / d x times d loss / d x0_hat
    guided = loss_guided(denoiser, away_from_ones, w)(X, t)
    torch.testing.assert_close(guided.score, denoiser(X, t).score - w * slope, rtol=1e-9, atol=1e-9)
    assert not guided.x0.requires_grad


def test_a_scale_may_depend_on_time():
    t, denoiser = torch.tensor(0.4).double(), Denoiser(Cubic(), Cosine(), "x0")
    fixed = loss_guided(denoiser, away_from_ones, 0.16)(X, t)
    moving = loss_guided(denoiser, away_from_ones, lambda time: time**2)(X, t)
    torch.testing.assert_close(moving.x0, fixed.x0)
    each = torch.tensor([0.1, 0.2, 0.3, 0.4]).double()
    one_by_one = [loss_guided(denoiser, away_from_ones, float(s) ** 2)(X[i : i + 1], s).x0 for i, s in enumerate(each)]
    together = loss_guided(denoiser, away_from_ones, lambda time: time**2)(X, each).x0
    torch.testing.assert_close(together, torch.cat(one_by_one))


def test_no_scale_is_no_guidance():
    t, denoiser = torch.tensor(0.4).double(), Denoiser(Cubic(), Cosine(), "x0")
    torch.testing.assert_close(loss_guided(denoiser, away_from_ones, 0.0)(X, t).x0, denoiser(X, t).x0)


def test_it_works_inside_samplers_and_around_other_guidance(denoiser):
    ts = torch.tensor([0.6, 0.4, 0.2]).double()
    both = loss_guided(classifier_free(denoiser, 2.0), away_from_ones, 0.1)
    with torch.no_grad():
        left = sample(ancestral(both, X, ts, y=Y, generator=torch.Generator().manual_seed(1)))
        right = sample(ancestral(both, X, ts, y=Y, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(left, right) and not left.requires_grad
    plain = sample(ancestral(classifier_free(denoiser, 2.0), X, ts, y=Y, generator=torch.Generator().manual_seed(1)))
    assert (left - plain).abs().max() > 1e-3


def test_the_guided_estimate_is_clipped_and_the_loss_sees_the_raw_one():
    clipped = Denoiser(Cubic(), Cosine(), "x0", clip=(-0.1, 0.1))
    seen = []

    def loss(x0):
        seen.append(x0.detach())
        return away_from_ones(x0)

    t = torch.tensor(0.4).double()
    guided = loss_guided(clipped, loss, 50.0)
    assert float(guided(X, t).x0.abs().max()) <= 0.1
    torch.testing.assert_close(seen[0], clipped.raw(X, t).x0)
    assert guided.clip == (-0.1, 0.1) and guided.schedule is clipped.schedule


def test_a_loss_answers_one_number_for_each_image():
    denoiser, t = Denoiser(Cubic(), Cosine(), "x0"), torch.tensor(0.4).double()
    with pytest.raises(ValueError, match=r"guidance needs one number for each row, \(4,\), got \(\)"):
        loss_guided(denoiser, lambda x: x.sum())(X, t)
    with pytest.raises(ValueError, match="do not depend on x_t"):
        loss_guided(denoiser, lambda x: torch.zeros(len(x)))(X, t)


# --- partial noising ----------------------------------------------------------------------------------

LUMPS = GaussianMixture(torch.tensor([[-1.0, 0.5], [0.8, -0.4]], dtype=torch.float64), torch.tensor([0.3, 0.5]))


@pytest.mark.parametrize("schedule", [Cosine(), LinearBeta(), Flow()], ids=str)
def test_what_is_encoded_comes_back(schedule):
    exact, x0 = LUMPS.denoiser(schedule), LUMPS.sample(200, torch.Generator().manual_seed(2))
    errors = []
    for steps in (20, 40):
        back = return_from(exact, encode_to(exact, x0, 0.6, steps=steps), 0.6, steps=steps)
        errors.append(float((back - x0).square().mean().sqrt()))
    assert errors[1] < 0.02 and 2.5 < errors[0] / errors[1]  # Heun's order is 2


def test_encoding_follows_the_label():
    first = GaussianMixture(LUMPS.means[:1], LUMPS.stds[:1]).denoiser(Cosine())
    labelled = encode_to(LUMPS.denoiser(Cosine()), X, 0.6, y=torch.zeros(4, dtype=torch.long))
    torch.testing.assert_close(labelled, encode_to(first, X, 0.6), rtol=1e-6, atol=1e-6)
    assert (labelled - encode_to(LUMPS.denoiser(Cosine()), X, 0.6)).abs().max() > 0.1


def test_the_way_there_and_back_use_the_method_that_is_asked_for():
    exact = LUMPS.denoiser(Cosine())
    codes = [encode_to(exact, X, 0.6, steps=20, method=method) for method in ("euler", "heun")]
    backs = [return_from(exact, X, 0.6, steps=20, method=method) for method in ("euler", "heun")]
    fine = encode_to(exact, X, 0.6, steps=96), return_from(exact, X, 0.6, steps=96)
    for (euler, heun), truth in zip((codes, backs), fine, strict=True):
        assert (euler - truth).abs().max() > 2 * (heun - truth).abs().max() > 0


def test_encoding_gaussian_data_is_known():
    """Data N(0, 1) under a variance-preserving schedule: the flow does not move, up to the start at alpha x_0."""
    exact = GaussianMixture(torch.zeros(1, 2, dtype=torch.float64), 1.0).denoiser(Cosine())
    alpha = Cosine().alpha(torch.tensor(Cosine().t_min, dtype=torch.float64))
    torch.testing.assert_close(encode_to(exact, X, 0.7), alpha * X, rtol=1e-9, atol=1e-9)


def test_encoding_refuses_a_clipped_denoiser():
    with pytest.raises(ValueError, match="want the unclipped network"):
        encode_to(Denoiser(Cubic(), Cosine(), "x0", clip=(-1, 1)), X, 0.5)


def test_sdedit_of_gaussian_data_is_known():
    """Data N(0, c^2): results are N(k x0, (1 - k^2) c^2) with k = snr c^2 / (1 + snr c^2), whatever x0 was."""
    c, x0 = 0.5, torch.full((20_000, 1), 1.7, dtype=torch.float64)
    exact = GaussianMixture(torch.zeros(1, 1, dtype=torch.float64), torch.tensor([c])).denoiser(Cosine())
    results = sdedit(exact, x0, 0.4, generator=torch.Generator().manual_seed(0), steps=100)
    snr = Cosine().log_snr(torch.tensor(0.4, dtype=torch.float64)).exp()
    k = float(snr * c**2 / (1 + snr * c**2))
    spread = c * (1 - k**2) ** 0.5
    assert abs(float(results.mean()) - k * 1.7) < 4 * spread / 20_000**0.5 + 0.005  # chance, and 100 steps
    assert abs(float(results.std()) / spread - 1) < 0.03  # 100 steps


def test_sdedit_answers_with_data_whatever_is_drawn():
    lumps = GaussianMixture(torch.tensor([[-1.0, 0], [1, 0]], dtype=torch.float64), torch.tensor([0.02, 0.02]))
    letter = torch.tensor([[0.3, 0.8]], dtype=torch.float64).expand(200, -1)  # far from all data
    generator = torch.Generator().manual_seed(0)
    results = sdedit(lumps.denoiser(Cosine()), letter, 0.5, generator=generator, steps=50)
    assert float((results[:, :1].abs() - 1).abs().max()) < 0.1 and float(results[:, 1].abs().max()) < 0.1
    t = torch.tensor(0.5, dtype=torch.float64)
    alpha, sigma = Cosine().alpha(t), Cosine().sigma(t)
    x_t = alpha * 0.3 + sigma * torch.randn(100_000, dtype=torch.float64, generator=generator)
    share = float(
        (2 * alpha * x_t / sigma**2).sigmoid().mean()
    )  # of the right lump, its weight averaged over the noise
    assert abs(float((results[:, 0] > 0).double().mean()) - share) < 4 * (share * (1 - share) / 200) ** 0.5
    with pytest.raises(ValueError, match="start must lie in"):
        sdedit(lumps.denoiser(Cosine()), letter, 1.0)


def test_anomaly_map_is_the_change():
    exact, x0 = LUMPS.denoiser(Cosine()), LUMPS.sample(50, torch.Generator().manual_seed(3))
    kept = anomaly_map(exact, exact, x0, 0.6, steps=40)
    assert float(kept.max()) < 0.1  # encoded, nothing guided
    eps = torch.randn(50, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    drawn = anomaly_map(exact, exact, x0, 0.6, eps=eps, steps=40)
    x_t = q_sample(Cosine(), x0, torch.tensor(0.6, dtype=torch.float64), eps)
    torch.testing.assert_close(drawn, (x0 - return_from(exact, x_t, 0.6, steps=40)).abs())
    other = GaussianMixture(LUMPS.means[:1], LUMPS.stds[:1]).denoiser(Cosine())  # up by one network, back by another
    there = return_from(other, encode_to(exact, x0, 0.6, steps=5), 0.6, steps=5)
    torch.testing.assert_close(anomaly_map(exact, other, x0, 0.6, steps=5), (x0 - there).abs())
    assert (there - return_from(exact, encode_to(exact, x0, 0.6, steps=5), 0.6, steps=5)).abs().max() > 0.1
    healthy = anomaly_map(exact, exact, x0, 0.9, y=torch.zeros(50, dtype=torch.long), steps=40)
    right = (x0[:, 0] > 0).nonzero()[:, 0]
    assert float(healthy[right].mean()) > 5 * float(kept.mean())  # the right lump is led to the left one
