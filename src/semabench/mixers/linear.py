"""Linear attention with the ELU+1 feature map, and as MILA has it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from semabench.mixers.base import Mixer, register_mixer
from semabench.ops import linear_attention, linear_attention_backend
from semabench.ops.generalized_attention import Kernel, Phi
from semabench.ops.linear_attention import EPS


@register_mixer("linear")
class Linear(Mixer):
    """Σ_j (φ(q_i)·φ(k_j)) v_j / Σ_j φ(q_i)·φ(k_j), φ = ELU + 1 (Katharopoulos et al., ICML 2020).

    With RoPE, the numerator's features are rotated and the denominator's are not, so that it stays
    positive (MILA).

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
        rope: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__(dim, num_heads, value_projection=value_projection, lepe=lepe, rope=rope)
        self.set_backend(linear_attention_backend, backend)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend linearly, (B, H, W, heads, d)."""
        q, k = elu_plus_one(q), elu_plus_one(k)
        return linear_attention(
            self.rotate(q), self.rotate(k), v, q_normalizer=q, k_normalizer=k, backend=self.backend
        )

    def kernel(self) -> Kernel | None:
        """φ = identity, ψ = ELU + 1, rotated in the numerator with RoPE."""

        def rotated(x: Tensor) -> Tensor:
            return self.rotate(elu_plus_one(x))

        plain = (elu_plus_one, elu_plus_one)
        return Kernel(rotated, rotated, Phi.IDENTITY, plain if self.rope else None, eps=EPS)


def elu_plus_one(x: Tensor) -> Tensor:
    """Map q or k to positive features."""
    return F.elu(x) + 1


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
            dim, num_heads, value_projection=value_projection, lepe=lepe, rope=rope, backend=backend
        )
