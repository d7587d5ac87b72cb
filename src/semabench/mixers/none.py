"""No mixing at all: the control that shows what a model does by its convolutions alone."""

from __future__ import annotations

from torch import Tensor

from semabench.mixers.base import Mixer, register_mixer


@register_mixer("none")
class NoMixing(Mixer):
    """The identity: every token keeps to itself. A block around it is a gated convolution.

    It has no weights and no options; heads make no difference.
    """

    has_heads = False

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__(dim, num_heads, value_projection=False, lepe=False, rope=False)

    def project(self, dim: int) -> None:
        """Create nothing: there are no q, k and v."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the grid as it is, (B, H, W, C)."""
        return x
