"""Muon, an optimiser whose steps are orthogonalised (Jordan et al., 2024), for the filters of convolutions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration of Jordan's reference implementation."""

ITERATIONS = 5

RMS_OF_ADAM = 0.2
"""Root mean square of a step of Adam in learning rates, to which Muon's is brought (Liu et al., 2025, section 2.2)."""


def orthogonalise(matrices: Tensor) -> Tensor:
    """`[N, m, n]` to matrices of the same singular vectors whose singular values are between about 0.7 and 1.2.

    But for those below about 0.0015 of the root of the sum of their squares, which five steps do not bring up.

    A step of Newton and Schulz takes x to `(a + b x x^T + c (x x^T)^2) x`. All steps are made on `x x^T`, which is
    smaller than the x of a filter bank, and their product is applied to x at the end.
    """
    a, b, c = NEWTON_SCHULZ
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    square = x @ x.mT
    one = torch.eye(square.shape[1], dtype=x.dtype, device=x.device)
    product = one.expand_as(square)
    for _ in range(ITERATIONS):
        step = torch.baddbmm(a * one + b * square, square, square, alpha=c)
        product = step @ product
        square = step @ square @ step
    x = product @ x
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose every step is orthogonalised, in the size of a step of Adam; decoupled weight decay.

    A filter bank `[O, I, k, k]` counts as the matrix `[O, I*k*k]`. `torch.optim.Muon` takes two-dimensional parameters
    only.

    Args:
        parameters: at least two dimensions each.
        lr, weight_decay: as of AdamW, with which a learning rate can be shared.
        momentum: decay of the averaged gradient.
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float = 1e-3, weight_decay: float = 0.0, momentum: float = 0.95
    ):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        if any(p.dim() < 2 for group in self.param_groups for p in group["params"]):
            raise ValueError("Muon: got a parameter of fewer than two dimensions, expected matrices or filters")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step; parameters without a gradient stay."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for p in params:
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            gradients, averages = [p.grad for p in params], [self.state[p]["momentum"] for p in params]
            torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            alike: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for p, ahead in zip(params, torch._foreach_lerp(gradients, averages, group["momentum"]), strict=True):
                alike[len(p), p[0].numel()].append((p, ahead))
            for shape, pairs in alike.items():
                size = group["lr"] * RMS_OF_ADAM * max(shape) ** 0.5
                steps = orthogonalise(torch.stack([ahead.flatten(1) for _, ahead in pairs]))
                those = [p for p, _ in pairs]
                torch._foreach_add_(those, [s.view_as(p) for s, p in zip(steps, those, strict=True)], alpha=-size)
