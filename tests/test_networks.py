"""Networks: shapes, size, the null class, skips, and input that does not fit."""

import pytest
import torch

from diffusion_edu.denoisers import Denoiser
from diffusion_edu.networks import MLP, Classifier, UNet
from diffusion_edu.networks.unet import ResidualBlock
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
    "arguments", [{}, {"blocks": 2}, {"attention": False}, {"channels": (8,)}, {"channels": (8, 8, 16)}]
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
        (lambda: UNet(channels=()), r"multiples of 8, got \(\)"),
        (lambda: UNet(channels=(8, 12)), r"got \(8, 12\)"),
        (lambda: UNet(channels=(0,)), r"got \(0,\)"),
        (lambda: UNet(channels=(-8,)), r"got \(-8,\)"),
        (lambda: MLP()(noise(2, 3), T), r"points \(N, 2\), got \(2, 3\)"),
        (lambda: Classifier()(noise(2, 1, 32, 32)), r"\(N, 1, 28, 28\), got \(2, 1, 32, 32\)"),
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
