"""Mamba-2's state-space duality without an order (VSSD, Shi et al., ICCV 2025)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semabench.errors import SemabenchError
from semabench.mixers.base import Mixer, register_mixer
from semabench.mixers.ssm import step_bias
from semabench.ops.linear_attention import state_product, state_product_backend


@register_mixer("ssd")
class SSD(Mixer):
    """LayerNorm(C_i Σ_j a Δ_j B_jᵀ x_j + D x_i) over all tokens (arXiv 2407.18559).

        Δ_j = softplus(W_Δ x_j + b),  B_j = W_B x_j,  C_i = W_C x_i,  a = exp(A_log) of each head

    Mamba-2's state without its decay along a sequence: every token reaches every other at once, and
    Δ_j alone says how much token j adds. B and C are shared by the heads. As in the official code a
    is positive, and the sum is no mean: it grows with the image, and a LayerNorm follows. Of VSSD's
    surroundings, projections, depthwise convolution, SiLU and gate are the block's part here, so x
    is the input and B and C see no convolution of their own; its last stage of softmax attention is
    another mixer. There are no q and k to scale or rotate, and D is the local term.

    Args:
        dim, num_heads: see ``Mixer``; VSSD's heads have 64 channels.
        d_state: N, numbers in B_j and C_j; VSSD has 64.
        backend: of ``ops.linear_attention.state_product``.

    Raises:
        SemabenchError: d_state is below 1, or see ``Mixer``.
    """

    undecayed = ("A_log", "D", "dt_bias")

    def __init__(
        self, dim: int, num_heads: int, *, d_state: int = 64, backend: str = "auto"
    ) -> None:
        if d_state < 1:
            raise SemabenchError(f"d_state must be at least 1, not {d_state}.")
        super().__init__(dim, num_heads, value_projection=False, lepe=False, rope=False)
        self.d_state = d_state
        self.state_proj = nn.Linear(dim, 2 * d_state + num_heads, bias=False)
        self.dt_bias = nn.Parameter(step_bias(num_heads))
        self.A_log = nn.Parameter(torch.empty(num_heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(num_heads))
        self.out_norm = nn.LayerNorm(dim)
        self.set_backend(state_product_backend, backend)

    def project(self, dim: int) -> None:
        """Create nothing: there are no q, k and v."""

    def forward(self, x: Tensor) -> Tensor:
        """Add every token's state to every token, (B, H, W, C) -> (B, H, W, C)."""
        sizes = [self.d_state, self.d_state, self.num_heads]
        B, C, step = self.state_proj(x).split(sizes, dim=-1)
        values = x.unflatten(-1, (self.num_heads, -1))
        precise = torch.promote_types(step.dtype, torch.float32)
        amount = F.softplus(step.to(precise) + self.dt_bias) * self.A_log.to(precise).exp()
        weighted = (values * amount[..., None]).to(values.dtype)
        y = state_product(C, B, weighted, backend=self.backend)
        y = (y + self.D[:, None] * values).flatten(3)
        scale, shift = self.out_norm.weight.to(y.dtype), self.out_norm.bias.to(y.dtype)
        return F.layer_norm(y, y.shape[-1:], scale, shift, self.out_norm.eps).to(x.dtype)
