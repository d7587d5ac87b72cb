"""FLatten's focused linear attention (Han et al., ICCV 2023)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semabench.errors import SemabenchError
from semabench.mixers.base import Mixer, register_mixer
from semabench.ops import linear_attention, linear_attention_backend
from semabench.ops.generalized_attention import Kernel, Phi
from semabench.ops.linear_attention import EPS


@register_mixer("focused")
class Focused(Mixer):
    """Σ_j (φ(q_i)·φ(k_j)) v_j / Σ_j φ(q_i)·φ(k_j) + DWC(v), φ a map that sharpens directions.

    φ(x) = ‖u‖ u^p / ‖u^p‖ with u = (ReLU(x) + 1e-6) / softplus(s): powers per channel, norms over
    all channels before the split into heads, s learned per channel. A depthwise convolution of v,
    its kernels shared by the heads, restores the rank of the output; it takes LePE's place.

    Left out: FLatten's table of positions added to the keys. It has one entry per token of a window
    of fixed size, and this mixer sees the whole grid at any size.

    Args:
        dim, num_heads, value_projection: see ``Mixer``.
        focusing_factor: the power p.
        kernel_size: of the depthwise convolution, odd.
        backend: of ``ops.linear_attention``.

    Raises:
        SemabenchError: the kernel size is even, or see ``Mixer``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        value_projection: bool = True,
        focusing_factor: float = 3.0,
        kernel_size: int = 5,
        backend: str = "auto",
    ) -> None:
        super().__init__(dim, num_heads, value_projection=value_projection, lepe=False, rope=False)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise SemabenchError(f"kernel_size must be odd, not {kernel_size}.")
        self.focusing_factor = focusing_factor
        self.set_backend(linear_attention_backend, backend)
        self.scale = nn.Parameter(torch.zeros(dim))
        head_dim = dim // num_heads
        self.dwc = nn.Conv2d(
            head_dim, head_dim, kernel_size, padding=kernel_size // 2, groups=head_dim
        )

    def features(self, x: Tensor) -> Tensor:
        """Map q or k, (B, H, W, heads, d), to focused features, in float32 or better."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        u = (F.relu(x.flatten(3).to(dtype)) + 1e-6) / F.softplus(self.scale.to(dtype))
        # The direction of u^p is that of (u / max u)^p, which neither over- nor underflows whole.
        power = (u / u.amax(dim=-1, keepdim=True).detach()) ** self.focusing_factor
        length = torch.linalg.vector_norm(u, dim=-1, keepdim=True)
        features = F.normalize(power, dim=-1) * length
        return features.to(x.dtype).view_as(x)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend linearly to focused features and restore the rank, (B, H, W, heads, d)."""
        y = linear_attention(self.features(q), self.features(k), v, backend=self.backend)
        return y + self.restore_rank(v)

    def kernel(self) -> Kernel:
        """φ = identity, ψ = the focused features; without the convolution."""
        return Kernel(self.features, self.features, Phi.IDENTITY, eps=EPS)

    def restore_rank(self, v: Tensor) -> Tensor:
        """Convolve the values of each head with the same kernels, (B, H, W, heads, d)."""
        B, H, W, heads, d = v.shape
        grids = v.permute(0, 3, 4, 1, 2).reshape(B * heads, d, H, W)
        local: Tensor = self.dwc(grids)
        return local.reshape(B, heads, d, H, W).permute(0, 3, 4, 1, 2)
