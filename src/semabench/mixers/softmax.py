"""Full softmax attention."""

from __future__ import annotations

from torch import Tensor

from semabench.mixers.base import Mixer, register_mixer
from semabench.ops import window_mean, window_mean_backend
from semabench.ops.generalized_attention import Kernel, Phi, scaled


@register_mixer("softmax")
class Softmax(Mixer):
    """Σ_j softmax_j(q_i·k_j / sqrt(d)) v_j over all n tokens: quadratic in n.

    Args:
        dim, num_heads, value_projection, lepe, rope: see ``Mixer``.
        scale: logits are q·k/sqrt(d), or q·k.
        backend: of ``ops.window_mean``, with one window that covers the grid and no mean.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        scale: bool = True,
        value_projection: bool = True,
        lepe: bool = True,
        rope: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__(dim, num_heads, value_projection=value_projection, lepe=lepe, rope=rope)
        self.scale = scale
        self.set_backend(window_mean_backend, backend)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend to all tokens, (B, H, W, heads, d)."""
        grid = (q.shape[1], q.shape[2])
        scale = None if self.scale else 1.0
        q, k = self.rotate(q), self.rotate(k)
        return window_mean(q, k, v, grid, scale=scale, mean=False, backend=self.backend)

    def kernel(self) -> Kernel:
        """φ = exp, ψ_q = rotation and scale, ψ_k = rotation."""
        return Kernel(scaled(self.rotate, self.scale), self.rotate, Phi.EXP)
