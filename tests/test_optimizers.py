"""Optimizers: which parameters each gets, Muon's step by hand, and what orthogonalising does."""

import pytest
import torch
from torch import nn

from diffusion_edu.networks import UNet
from diffusion_edu.optimizers import Muon, make_optimizers, orthogonalise


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(2, 8, 24), (2, 24, 8), (1, 16, 16)])
def test_singular_values_move_to_about_1_and_singular_vectors_stay(shape):
    """Jordan et al. 2024: five rounds bring singular values above about 0.01 of the norm into [0.7, 1.2]."""
    u, _, v = torch.linalg.svd(normal(*shape), full_matrices=False)
    s = torch.logspace(0, -1.3, min(shape[1:]))  # a condition number of 20
    matrices = 30 * u @ torch.diag(s) @ v
    done = orthogonalise(matrices)
    inner = u.mT @ done @ v.mT
    values = inner.diagonal(dim1=1, dim2=2)
    assert 0.65 < float(values.min()) and float(values.max()) < 1.25
    off = inner - torch.diag_embed(values)
    assert float(off.abs().max()) < 1e-4 and float((u @ inner @ v - done).abs().max()) < 1e-4  # float32 rounding
    torch.testing.assert_close(done[0], orthogonalise(matrices[:1])[0], rtol=1e-4, atol=1e-5)


def test_a_step_of_muon_by_hand():
    p = nn.Parameter(normal(6, 4, 3, 3))
    optimizer, before, momentum = Muon([p], lr=0.1), p.detach().clone(), torch.zeros(6, 4, 3, 3)
    for seed in (1, 2):
        p.grad = normal(6, 4, 3, 3, seed=seed)
        optimizer.step()
        momentum = 0.95 * momentum + 0.05 * p.grad
        ahead = 0.05 * p.grad + 0.95 * momentum
        before -= 0.1 * 0.2 * 36**0.5 * orthogonalise(ahead.flatten(1)[None])[0].reshape(p.shape)
        torch.testing.assert_close(p.detach(), before, rtol=1e-5, atol=1e-5)
    # the update's root mean square is about 0.2 of the rate for each
    optimizer.state.clear()
    now = p.detach().clone()
    optimizer.step()
    assert float((p.detach() - now).square().mean().sqrt()) == pytest.approx(0.2 * 0.1, rel=0.3)


def test_muon_gets_the_hidden_matrices_and_adamw_the_rest():
    net = UNet(channels=(8, 16))
    muon, adam = make_optimizers(net, "muon", 1e-3)
    held = [{id(p) for group in o.param_groups for p in group["params"]} for o in (muon, adam)]
    named = {name: id(p) for name, p in net.named_parameters()}
    assert held[0].isdisjoint(held[1]) and held[0] | held[1] == set(named.values())
    for name in ("down.0.first.2.weight", "down.0.modulate.weight", "attend.out.weight", "embed_time.1.weight"):
        assert named[name] in held[0]
    for name in ("enter.weight", "leave.2.weight", "embed_class.weight", "down.0.first.0.weight", "attend.out.bias"):
        assert named[name] in held[1]
    (alone,) = make_optimizers(net, "adamw", 1e-3)
    assert {id(p) for p in alone.param_groups[0]["params"]} == set(named.values())


def test_a_parameter_without_a_gradient_stays():
    p, q = nn.Parameter(normal(4, 4)), nn.Parameter(normal(4, 4, seed=1))
    q.grad, before = normal(4, 4, seed=2), p.detach().clone()
    Muon([p, q], lr=0.1).step()
    assert torch.equal(p.detach(), before)


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="unknown optimizer 'sgd'; known: adamw, muon"):
        make_optimizers(nn.Linear(2, 2), "sgd", 0.1)
