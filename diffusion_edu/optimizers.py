"""Optimizers: AdamW from torch, and Muon, which turns a matrix's momentum into its nearest orthogonal matrix."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from math import sqrt

import torch
from torch import Tensor, nn

OPTIMIZERS = ("adamw", "muon")
ENDS = ("embed_class", "enter", "leave")  # a U-Net's first and last layers are no maps between hidden states


def make_optimizers(net: nn.Module, name: str, rate: float) -> list[torch.optim.Optimizer]:
    """Optimizers that together hold each parameter once: AdamW, or Muon for hidden matrices and AdamW for the rest.

    Betas (0.9, 0.99), no weight decay, `rate` for both. Raises ValueError for another name.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {name!r}; known: {', '.join(OPTIMIZERS)}")
    hidden, rest = [], []
    for key, p in net.named_parameters():
        inner = p.ndim > 1 and not set(ENDS) & set(key.split("."))
        (hidden if name == "muon" and inner else rest).append(p)
    adam = torch.optim.AdamW(rest, rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    return [Muon(hidden, rate), adam] if hidden else [adam]


def orthogonalise(matrices: Tensor, rounds: int = 5) -> Tensor:
    """Matrices (K, m, n) with their singular values moved to about 1 (0.7 to 1.2), their singular vectors kept.

    Newton and Schulz's iteration with the quintic a x + b x^3 + c x^5 of Jordan et al. 2024, which is steep at 0: small
    singular values grow 3.4-fold a round. In bfloat16 on a GPU, whose rounding the next round mends.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x.to(torch.bfloat16) if x.is_cuda else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)  # no singular value above 1
    for _ in range(rounds):
        square = x @ x.mT
        # baddbmm(i, m, n, beta, alpha) is beta i + alpha m n in one kernel: a GPU waits for the host here, not the reverse
        polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)  # a x + (b X + c X^2) x for X = x x^T
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised: every direction of a matrix moves equally far (Jordan et al. 2024).

    parameters: of two or more dimensions; a convolution's kernel (out, in, h, w) counts as a matrix (out, in h w). An
    update is scaled by 0.2 sqrt(max(m, n)): then its root mean square is 0.2, about AdamW's, and one rate suits both (Liu
    et al. 2025).
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for alike in by_matrix_shape(p for p in group["params"] if p.grad is not None):
                self.move(alike, group["lr"], group["momentum"])

    def move(self, parameters: list[nn.Parameter], lr: float, momentum: float) -> None:
        """Move parameters whose matrices have one shape: together they are a few large products, not many small ones."""
        for p in parameters:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        momenta, gradients = [self.state[p]["momentum"] for p in parameters], [p.grad for p in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, momenta, momentum)  # Nesterov's look ahead
        updates = orthogonalise(torch.stack([g.flatten(1) for g in ahead]))
        scale = 0.2 * sqrt(max(updates.shape[1:]))
        moves = [u.reshape(p.shape) for u, p in zip(updates, parameters, strict=True)]
        torch._foreach_add_(parameters, moves, alpha=-lr * scale)


def by_matrix_shape(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """The parameters in groups of equal matrix shape."""
    groups = defaultdict(list)
    for p in parameters:
        groups[p.flatten(1).shape].append(p)
    return list(groups.values())
