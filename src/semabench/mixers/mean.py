"""The mean of all values alone: SEMA without its window."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semabench.mixers.base import Mixer
from semabench.mixers.registry import register_mixer


@register_mixer("mean")
class Mean(Mixer):
    """1·(1/n) Σ_j v_j: what softmax attention becomes when it disperses completely.

    It has no queries and keys, hence no projections for them, no scale, RoPE or backend; heads make
    no difference to a mean.
    """

    has_heads = False

    def __init__(
        self, dim: int, num_heads: int, *, value_projection: bool = True, lepe: bool = True
    ) -> None:
        super().__init__(dim, num_heads, value_projection=value_projection, lepe=lepe, rope=False)

    def project(self, dim: int) -> None:
        """Create the projection of v, if any."""
        self.v = nn.Linear(dim, dim) if self.value_projection else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Give every token the mean, (B, H, W, C); accumulated in float32 or better."""
        v = self.v(x)
        accumulate = torch.promote_types(v.dtype, torch.float32)
        mean = v.mean(dim=(1, 2), keepdim=True, dtype=accumulate).to(v.dtype)
        return self.add_local(mean.expand_as(v), v)
