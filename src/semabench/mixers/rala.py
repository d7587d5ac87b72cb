"""Rank-augmented linear attention (Fan et al., CVPR 2025)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semabench.mixers.base import register_mixer
from semabench.mixers.linear import Linear, elu_plus_one
from semabench.ops import linear_attention


@register_mixer("rala")
class RALA(Linear):
    """Y_i = φ(x_i) ⊙ Σ_j α_j (κ(q_i)·κ(k_j)) v_j / Σ_j α_j κ(q_i)·κ(k_j) (arXiv 2411.07635).

        κ = ELU + 1,   α_j = n softmax_j(q̄·κ(k_j) / sqrt(d)),   q̄ = (1/n) Σ_i κ(q_i)

    α weighs the tokens in the one matrix Σ_j α_j κ(k_j) v_jᵀ, which raises its rank; the gate φ, a
    linear map of the input, raises that of the output. As in the official code RoPE turns the
    numerator's features only, and the local term is gated, too. That of the published model,
    RAVLT, is 5×5 and its block another: this is its attention in the common macro-architecture.

    Args:
        dim, num_heads, value_projection, lepe, rope: see ``Mixer``.
        backend: of ``ops.linear_attention``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        value_projection: bool = True,
        lepe: bool = True,
        rope: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__(
            dim, num_heads, value_projection=value_projection, lepe=lepe, rope=rope, backend=backend
        )
        self.modulation = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the tokens of a grid: (B, H, W, C) -> (B, H, W, C)."""
        return super().forward(x) * self.modulation(x)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend linearly with weighted keys, (B, H, W, heads, d); the gate comes after LePE."""
        q, k = elu_plus_one(q), elu_plus_one(k)
        k = k * token_weights(q, k)
        return linear_attention(
            self.rotate(q), self.rotate(k), v, q_normalizer=q, k_normalizer=k, backend=self.backend
        )

    def kernel(self) -> None:
        """None: a key's weight depends on all queries."""
        return


def token_weights(q: Tensor, k: Tensor) -> Tensor:
    """Return α of features (B, H, W, heads, d): (B, H, W, heads, 1), 1 in the mean."""
    _, H, W, _, d = k.shape
    dtype = torch.promote_types(q.dtype, torch.float32)
    mean = q.mean(dim=(1, 2), keepdim=True, dtype=dtype)
    logits = (mean * k).sum(dim=-1, keepdim=True) * d**-0.5
    return (logits.flatten(1, 2).softmax(dim=1).view_as(logits) * (H * W)).to(k.dtype)
