"""The mean of all values alone: SEMA without its window."""

from __future__ import annotations

from torch import Tensor, nn

from semabench.mixers.base import Mixer, register_mixer
from semabench.ops import grid_mean


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
        """Give every token the mean, (B, H, W, C)."""
        v = self.v(x)
        return self.add_local(grid_mean(v).to(v.dtype).expand_as(v), v)
