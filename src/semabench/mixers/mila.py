"""MILA's linear attention, exactly as published."""

from __future__ import annotations

from semabench.mixers.base import register_mixer
from semabench.mixers.linear import Linear


@register_mixer("mila")
class Mila(Linear):
    """Linear attention with MILA's choices as defaults (Han et al., NeurIPS 2024).

    v is the input itself, RoPE turns q and k in the numerator only, LePE is on. The official
    weights fit as they are. Each choice remains a switch, see ``Linear``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        value_projection: bool = False,
        lepe: bool = True,
        rope: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__(
            dim,
            num_heads,
            value_projection=value_projection,
            lepe=lepe,
            rope=rope,
            backend=backend,
        )
