"""Generalized attention: any weights that are a function of q·k, normalised to sum to one.

    A_Φ(Q, K, V)_i = Σ_l φ(ψ_q(Q)_i·ψ_k(K)_l) v_l / Σ_j φ(ψ_q(Q)_i·ψ_k(K)_j)

with continuous maps ψ_q, ψ_k and a continuous φ (SEMA, arXiv 2506.08297, §3, as its reviews tell).
This is the yardstick of `evaluation.dispersion` and of tests; mixers compute the same by faster
means. All tensors are (B, H, W, heads, d), n = H·W.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Self

import torch
from torch import Tensor

from semabench.ops.window_mean import window_labels

Map = Callable[[Tensor], Tensor]
Pair = tuple[int, int]


class Phi(Enum):
    """φ, elementwise on logits: exp, or the identity, which is positive where features are."""

    EXP = "exp"
    IDENTITY = "identity"

    def __call__(self, logits: Tensor) -> Tensor:
        """Return φ."""
        return logits.exp() if self is Phi.EXP else logits

    def log_abs(self, logits: Tensor) -> Tensor:
        """Return log |φ|, which overflows for no finite logit; -inf where φ is zero."""
        return logits if self is Phi.EXP else logits.abs().log()

    def sign(self, logits: Tensor) -> Tensor:
        """Return the sign of φ."""
        return torch.ones_like(logits) if self is Phi.EXP else logits.sign()


def identity(x: Tensor) -> Tensor:
    """Return ``x``: the ψ of softmax."""
    return x


def scaled(psi: Map, scale: bool) -> Map:
    """Return ``psi``, divided by sqrt(d) if ``scale``, in float32 or better: ψ_q of softmax."""

    def divided(q: Tensor) -> Tensor:
        wide = psi(q).to(torch.promote_types(q.dtype, torch.float32))
        return wide * q.shape[-1] ** -0.5 if scale else wide

    return divided


@dataclass(frozen=True)
class Kernel:
    """What tells one attention from another."""

    # psi_q, psi_k: maps of q and k, (B, H, W, heads, d) to the same; the scale of the logits and a
    # rotary encoding are part of them
    psi_q: Map = identity
    psi_k: Map = identity
    phi: Phi = Phi.EXP
    # ψ_q, ψ_k of the denominator where they are not those of the numerator. MILA rotates in the
    # numerator alone: its weights may be negative and need not sum to one
    normalizer: tuple[Map, Map] | None = None
    # size and shift of windows in tokens, outside of which weights are zero; None: none
    window: tuple[Pair, Pair] | None = None
    eps: float = 0.0  # n·eps is added to the denominator

    def everywhere(self) -> Self:
        """Return the same kernel without windows."""
        return self if self.window is None else replace(self, window=None)

    def labels(self, H: int, W: int, device: torch.device) -> Tensor | None:
        """Number the windows of a grid, (H·W,) int64; None where every token sees all.

        As in ``ops.window_mean``, a window shrinks to the grid, which then has nothing to shift.
        """
        if self.window is None:
            return None
        (rows, columns), (down, right) = self.window
        rows, down = (H, 0) if rows >= H else (rows, down)
        columns, right = (W, 0) if columns >= W else (columns, right)
        return window_labels(H, W, (rows, columns), (down, right), device).flatten()


def generalized_weights(kernel: Kernel, q: Tensor, k: Tensor) -> Tensor:
    """Return all weights, (B, heads, n, n): row i holds those of query i.

    Args:
        kernel: which attention.
        q, k: as projected, before ψ.
    """
    H, W = q.shape[1:3]
    values = kernel.phi(_logits(kernel.psi_q(q), kernel.psi_k(k)))
    totals = values
    if kernel.normalizer is not None:
        map_q, map_k = kernel.normalizer
        totals = kernel.phi(_logits(map_q(q), map_k(k)))
    label = kernel.labels(H, W, q.device)
    if label is not None:
        apart = label[:, None] != label[None, :]
        values, totals = values.masked_fill(apart, 0), totals.masked_fill(apart, 0)
    return values / (totals.sum(dim=-1, keepdim=True) + H * W * kernel.eps)


def generalized_attention(kernel: Kernel, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute the equation above as it stands, with all n×n weights.

    Returns:
        (B, H, W, heads, d) in the dtype of ``v``.
    """
    out = generalized_weights(kernel, q, k) @ tokens(v)
    return out.to(v.dtype).transpose(1, 2).reshape(v.shape)


def tokens(x: Tensor) -> Tensor:
    """Lay a grid of heads out for matrix products: (B, H, W, heads, d) -> (B, heads, n, d)."""
    return x.flatten(1, 2).transpose(1, 2)


def _logits(q: Tensor, k: Tensor) -> Tensor:
    return tokens(q) @ tokens(k).transpose(-2, -1)
