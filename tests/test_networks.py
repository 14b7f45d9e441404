"""Networks: shapes, size, the null class, skips, and input that does not fit."""

import pytest
import torch

from diffusion_edu.data import to_float
from diffusion_edu.denoisers import Denoiser
from diffusion_edu.metrics import measure_elbo
from diffusion_edu.networks import MLP, VAE, Classifier, PhotoClassifier, UNet
from diffusion_edu.networks.unet import ResidualBlock, without
from diffusion_edu.networks.vae import PixelLogistic, kl_to_prior
from diffusion_edu.schedules import Cosine


def awake(net, seed=0):
    """The network with random numbers in its layers that start at 0, so that every path counts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            if not bool(parameter.any()):
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return net


def small(**arguments):
    torch.manual_seed(0)
    return awake(UNet(**{"channels": (8, 16), "num_classes": 3, "embedding": 16} | arguments))


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


T, Y = torch.tensor([0.1, 0.9]), torch.tensor([0, 2])


def test_the_default_has_about_a_million_parameters():
    net = UNet()
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(1.09e6, rel=0.01)
    assert net(noise(2, 1, 28, 28), T, Y).shape == (2, 1, 28, 28)


def test_a_fresh_network_answers_0():
    assert not bool(UNet(channels=(8, 16))(noise(2, 1, 8, 8), T, Y).any())


def test_the_same_code_scales_to_cifar():
    net = awake(UNet(3, (8, 16, 16, 24), blocks=2, dropout=0.1))
    assert net(noise(2, 3, 32, 32), T, Y).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    "arguments", [{}, {"blocks": 2}, {"patch": 2}, {"attention": False}, {"channels": (8,)}, {"channels": (8, 8, 16)}]
)
def test_every_parameter_matters(arguments):
    net, y = small(**arguments), torch.tensor([0, 1, 2, 3])
    t, x = torch.tensor([0.1, 0.4, 0.7, 0.9]), noise(4, 1, 8, 8)
    (net(x, t, y) * noise(4, 1, 8, 8)).sum().backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not bool(p.grad.any())]
    # the softmax over positions does not feel a shift of all keys, and group norm none of one channel alone
    assert [name for name in silent if "query_key_value.bias" not in name] == []
    assert bool(net.embed_class.weight.grad.abs().sum(1).gt(0).all())


def test_each_block_on_the_way_up_sees_what_its_twin_made_on_the_way_down():
    net, made, seen = small(blocks=2), [], []
    for layer in net.down:
        if isinstance(layer, ResidualBlock):
            layer.register_forward_hook(lambda layer, inputs, output: made.append(output))
    for layer in net.up:
        if isinstance(layer, ResidualBlock):
            layer.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    net(noise(2, 1, 8, 8), T, Y)
    assert len(made) == len(seen) == 4
    for below, twin in zip(seen, reversed(made), strict=True):
        assert torch.equal(below[:, -twin.shape[1] :], twin)  # the skip's channels come last


def test_time_and_class_change_the_answer_and_rows_do_not_mix():
    net, x = small().eval(), noise(2, 1, 8, 8)
    together = net(x, T, Y)
    assert not torch.allclose(together, net(x, T.flip(0), Y))
    assert not torch.allclose(together, net(x, T, Y.flip(0)))
    alone = torch.cat([net(x[i : i + 1], T[i : i + 1], Y[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)  # float32, other order of summation


@pytest.mark.parametrize("build", [small, lambda: MLP(2, num_classes=3)])
def test_no_label_is_the_null_class(build):
    net = build()
    x = noise(2, 2) if isinstance(net, MLP) else noise(2, 1, 8, 8)
    assert torch.equal(net(x, T), net(x, T, torch.tensor([3, 3])))
    assert not torch.equal(net(x, T), net(x, T, torch.tensor([2, 2])))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: small()(noise(2, 1, 7, 8), T), r"\(N, 1, H, W\) with H and W divisible by 2, got \(2, 1, 7, 8\)"),
        (lambda: small()(noise(2, 1, 8, 7), T), r"got \(2, 1, 8, 7\)"),
        (lambda: small()(noise(2, 3, 8, 8), T), r"got \(2, 3, 8, 8\)"),
        (lambda: small()(noise(1, 8, 8), T), r"got \(1, 8, 8\)"),
        (lambda: small(patch=2)(noise(2, 1, 6, 8), T), r"divisible by 4, got \(2, 1, 6, 8\)"),
        (lambda: UNet(patch=0), "patch and blocks must be at least 1, got 0 and 1"),
        (lambda: UNet(channels=()), r"multiples of 8, got \(\)"),
        (lambda: UNet(channels=(8, 12)), r"got \(8, 12\)"),
        (lambda: UNet(channels=(0,)), r"got \(0,\)"),
        (lambda: UNet(channels=(-8,)), r"got \(-8,\)"),
        (lambda: MLP()(noise(2, 3), T), r"points \(N, 2\), got \(2, 3\)"),
        (lambda: Classifier()(noise(2, 1, 32, 32)), r"\(N, 1, 28, 28\), got \(2, 1, 32, 32\)"),
        (lambda: PhotoClassifier(8)(noise(2, 3, 28, 28)), r"\(N, 3, 32, 32\), got \(2, 3, 28, 28\)"),
        (lambda: Denoiser(small(), Cosine())(noise(2, 1, 8, 8), T, torch.tensor([0, 4])), r"0 ... 2 \(3 = no class\)"),
        (lambda: Denoiser(small(), Cosine())(noise(2, 1, 8, 8), T, torch.tensor([0])), r"shape \(2,\)"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_classifier_and_its_features():
    net, x = Classifier(width=8).eval(), noise(3, 1, 28, 28)
    assert net.features(x).shape == (3, 128)
    assert torch.equal(net(x), net.head(net.features(x)))
    assert net(x).shape == (3, 10)


def test_the_classifier_of_photographs_and_its_features():
    net, x = PhotoClassifier(width=8).eval(), noise(3, 3, 32, 32)
    assert net.features(x).shape == (3, 64)
    assert torch.equal(net(x), net.head(net.features(x)))
    assert sum(p.numel() for p in PhotoClassifier().parameters()) == pytest.approx(3.2e6, rel=0.01)
    torch.testing.assert_close(net.features(x.flip(3)), net.features(x))  # a mirror shows the same
    assert not torch.allclose(net.body(x.flip(3)), net.body(x))
    net.train()
    (net(x) * noise(3, 10)).sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not bool(p.grad.any())] == []


# --- the variational autoencoder ---


def small_vae(latent=3):
    torch.manual_seed(0)
    return VAE(latent, width=16)


def stored(n, seed=2):
    """n images of stored integers: a dark ground, some bright pixels, black and white among them."""
    g = torch.Generator().manual_seed(seed)
    bright = torch.rand(n, 1, 28, 28, generator=g) < 0.2
    return torch.randint(0, 256, (n, 1, 28, 28), generator=g, dtype=torch.uint8) * bright


def pixels(location, log_scale):
    return PixelLogistic(*(torch.tensor(value).reshape(1, 1, 1, 1).double() for value in (location, log_scale)))


@pytest.mark.parametrize(("location", "log_scale"), [(0.3, -2.0), (-1.5, -1.0), (1.0, -6.9), (9.0, -3.0), (-1.0, 2.0)])
def test_a_pixel_is_a_law_on_256_values(location, log_scale):
    law, values = pixels(location, log_scale), torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1)
    log_p = law.log_prob(values)
    assert bool(log_p.isfinite().all())  # also 2,000 scales away, where a difference of sigmoids is 0
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-6)
    mean = float((log_p.exp() * to_float(values).flatten()).sum())
    assert float(law.mean()) == pytest.approx(mean, abs=1e-5)


def test_draws_of_a_pixel_have_its_probabilities():
    law = PixelLogistic(torch.full((40_000, 1, 1, 1), 0.9), torch.full((40_000, 1, 1, 1), -2.0))
    x = law.sample(torch.Generator().manual_seed(0))
    levels = (x + 1) * 127.5
    assert torch.allclose(levels, levels.round(), atol=1e-3) and float(x.min()) >= -1 and float(x.max()) == 1
    p_white = float(pixels(0.9, -2.0).log_prob(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8)).exp())
    share = float((x == 1).double().mean())
    assert abs(share - p_white) < 4 * (p_white * (1 - p_white) / 40_000) ** 0.5
    assert 0.1 < p_white < 0.5


def test_the_elbo_terms_are_the_textbook_s():
    net, images = small_vae(), stored(5)
    reconstruction, kl = net.elbo_terms(images, torch.Generator().manual_seed(3))
    mean, log_std = net.encode(to_float(images))
    z = mean + log_std.exp() * torch.randn(5, 3, generator=torch.Generator().manual_seed(3))
    law = net.decode(z)
    edges = torch.stack([to_float(images) - 1 / 255, to_float(images) + 1 / 255]).double()
    below, above = torch.sigmoid((edges - law.location) / law.log_scale.exp())
    p = torch.where(images == 255, 1, above) - torch.where(images == 0, 0, below)
    torch.testing.assert_close(reconstruction.double(), p.log().flatten(1).sum(1), rtol=1e-4, atol=0)
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, log_std.exp()), torch.distributions.Normal(0.0, 1.0)
    )
    torch.testing.assert_close(kl, theirs)
    again = net.elbo_terms(images, torch.Generator().manual_seed(3))
    assert torch.equal(again[0], reconstruction)


def test_the_weighted_bound_with_one_draw_averages_to_the_elbo_and_rises():
    net, images = small_vae(), stored(2)
    with torch.no_grad():
        log_w = net.importance_log_weights(images, 3000, torch.Generator().manual_seed(4)).double()
        one = net.importance_log_likelihood(images, 1, torch.Generator().manual_seed(5))
        parts = [
            net.elbo_terms(images[i : i + 1].expand(3000, 1, 28, 28), torch.Generator().manual_seed(6)) for i in (0, 1)
        ]
    assert one.shape == (2,)
    for i, (reconstruction, kl) in enumerate(parts):
        gap = log_w[i] - (reconstruction - kl.sum(1)).double()
        assert abs(float(gap.mean())) < 4 * float(gap.std()) / 3000**0.5
    groups = [(log_w.reshape(2, -1, k).logsumexp(2) - torch.tensor(k).log()).mean(1) for k in (1, 10, 100)]
    assert bool((groups[0] < groups[1]).all() and (groups[1] < groups[2]).all())


def test_measured_terms_add_up():
    found = measure_elbo(small_vae(), stored(20), torch.Generator().manual_seed(0), samples=(1, 5), weighted=4)
    assert found["nats"][0] == pytest.approx(found["reconstruction"][0] - found["kl"][0], abs=1e-6)
    assert sum(found["kl_by_unit"]) == pytest.approx(found["kl"][0], abs=1e-6)
    assert found["bits_per_dim"][0] == pytest.approx(-found["nats"][0] / 784 / torch.tensor(2.0).log().item(), rel=1e-6)
    assert [(b["samples"], b["nats"][0] < 0) for b in found["weighted"]] == [(1, True), (5, True)]
    assert (found["images"], found["weighted_images"]) == (20, 4)
    assert found["weighted"][0]["nats"][0] < found["weighted"][1]["nats"][0]


def test_every_parameter_of_the_vae_matters():
    net = small_vae()
    reconstruction, kl = net.elbo_terms(stored(4), torch.Generator().manual_seed(0))
    (kl.sum(1) - reconstruction).mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not bool(p.grad.any())] == []


def test_the_divergence_is_zero_at_the_prior_only():
    assert float(kl_to_prior(torch.zeros(1), torch.zeros(1))) == 0
    moved = torch.tensor([0.1, -0.1, 0.0, 0.0]), torch.tensor([0.0, 0.0, 0.1, -0.1])
    assert bool((kl_to_prior(*moved) > 0).all())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: small_vae().encode(noise(2, 1, 14, 14)), r"\(N, 1, 28, 28\), got \(2, 1, 14, 14\)"),
        (lambda: small_vae().decode(noise(2, 2)), r"latent vectors \(N, 3\), got \(2, 2\)"),
        (lambda: small_vae().elbo_terms(stored(2)[:, 0]), r"got \(2, 28, 28\)"),
    ],
)
def test_what_does_not_fit_the_vae_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_equal_importance_weights_are_the_likelihood():
    class Equal(VAE):
        def importance_log_weights(self, images, samples, generator=None):
            return torch.full((len(images), samples), -7.0)

    found = Equal().importance_log_likelihood(torch.zeros(3, 1, 28, 28, dtype=torch.uint8), 10)
    torch.testing.assert_close(found, torch.full((3,), -7.0))


def test_the_decoder_s_scale_does_not_collapse():
    net = VAE()
    with torch.no_grad():
        net.decoder[-1].bias[784:] = -50.0
    assert float(net.decode(torch.zeros(1, 2)).log_scale.detach().min()) == -7


# parts taken away


def test_without_time_the_answer_is_the_same_at_all_times():
    net, x = small(), noise(2, 1, 8, 8)
    with without(net, "time"):
        told = net(x, T, Y)
        assert torch.equal(told, net(x, T.flip(0), Y))
    assert not torch.allclose(told, net(x, T, Y))
    assert torch.equal(told, net(x, torch.full((2,), 0.5), Y))


def test_without_attention_it_is_the_network_that_has_none():
    net, bare, x = small(), small(attention=False), noise(2, 1, 8, 8)
    bare.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith("attend")})
    with without(net, "attention"):
        assert torch.equal(net(x, T, Y), bare(x, T, Y))


@pytest.mark.parametrize("blocks", [1, 2])
def test_without_a_skip_its_resolution_is_not_seen_on_the_way_up(blocks):
    net, x, seen = small(blocks=blocks), noise(2, 1, 8, 8), {}
    readers = [layer for layer in net.up if isinstance(layer, ResidualBlock)]  # the coarsest first
    watch = [r.first.register_forward_pre_hook(lambda m, given: seen.update({m: given[0]})) for r in readers]
    for part, silent in (("skip 1", readers[:blocks]), ("skip 0", readers[blocks:]), ("skips", readers)):
        with without(net, part):
            net(x, T, Y)
        for reader in readers:
            own = reader.modulate.out_features // 2
            joined = seen[reader.first]
            assert bool(joined[:, :-own].any())
            assert bool(joined[:, -own:].any()) == (reader not in silent)
    for hook in watch:
        hook.remove()
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in net.modules())


def test_a_part_that_is_none_is_refused():
    with (
        pytest.raises(ValueError, match="one of time, attention, skip 0, skip 1, skips, got 'skip 2'"),
        without(small(), "skip 2"),
    ):
        pass
