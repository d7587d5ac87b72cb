"""Softmax attention inside windows, alone; SEMA adds the mean to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from semabench.errors import SemabenchError
from semabench.mixers.base import Mixer, register_mixer
from semabench.ops import window_mean, window_mean_fused, window_mean_fused_backend
from semabench.ops.generalized_attention import Kernel, Phi, scaled
from semabench.ops.window_mean import FUSED_CHANNELS, FUSED_TOKENS


class WindowedMixer(Mixer):
    """Softmax attention inside disjoint windows of a grid.

    ``window_size`` is an ordinary attribute: no weight depends on it, change it at any time.

    Args:
        dim, num_heads, value_projection, lepe, rope: see ``Mixer``.
        window_size: tokens per side, or (rows, columns); shrinks to smaller grids.
        shift: move the window borders by half a window. In a model, the blocks of a stage with an
            odd index do so, as in Swin.
        scale: logits are q·k/sqrt(d), or q·k.
        backend: of ``ops.window_mean_fused``, or of ``ops.window_mean``.
    """

    adds_mean = False  # whether ``attend`` adds the mean of all values

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        window_size: int | tuple[int, int] = 7,
        shift: bool = False,
        scale: bool = True,
        value_projection: bool = True,
        lepe: bool = True,
        rope: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__(dim, num_heads, value_projection=value_projection, lepe=lepe, rope=rope)
        self.window_size = window_size
        self.shift = shift
        self.scale = scale
        self.set_backend(window_mean_fused_backend, backend)

    @property
    def window_size(self) -> tuple[int, int]:
        """Rows and columns of a window."""
        return self._window_size

    @window_size.setter
    def window_size(self, size: int | tuple[int, int]) -> None:
        pair = tuple(size) if isinstance(size, Sequence) else (size, size)
        if len(pair) != 2 or not all(isinstance(n, int) and n >= 1 for n in pair):
            raise SemabenchError(f"window_size must be one or two integers >= 1, not {size}.")
        self._window_size: tuple[int, int] = (pair[0], pair[1])

    def resolved_backend(self, device: torch.device | None = None) -> str:
        """Return the backend that runs on ``device``: the fused one where it can serve."""
        fits = (
            self.value_projection
            and not self.rope
            and self.window_size[0] * self.window_size[1] <= FUSED_TOKENS
            and self.dim // self.num_heads <= FUSED_CHANNELS
            and self.qkv.weight.dtype != torch.float64
        )
        name = super().resolved_backend(device)
        return name if fits or name != "triton" else "sdpa"

    def forward(self, x: Tensor) -> Tensor:
        """Mix the tokens of a grid: (B, H, W, C) -> (B, H, W, C)."""
        if self.resolved_backend(x.device) != "triton":
            return super().forward(x)
        local = self.lepe
        return window_mean_fused(
            self.qkv(x),
            self.num_heads,
            self.window_size,
            shift=self.border_shift,
            scale=None if self.scale else 1.0,
            mean=self.adds_mean,
            weight=None if local is None else local.weight,
            bias=None if local is None else local.bias,
        )

    @property
    def border_shift(self) -> tuple[int, int]:
        """Rows and columns by which the borders move."""
        return (self.window_size[0] // 2, self.window_size[1] // 2) if self.shift else (0, 0)

    def window_attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """A_w(Q, K, V): (B, H, W, heads, d) to the same."""
        return window_mean(
            self.rotate(q),
            self.rotate(k),
            v,
            self.window_size,
            shift=self.border_shift,
            scale=None if self.scale else 1.0,
            mean=False,
            backend="sdpa" if self.backend == "triton" else self.backend,
        )

    def kernel(self) -> Kernel:
        """φ = exp, ψ_q = rotation and scale, ψ_k = rotation, within windows; without the mean."""
        windows = (self.window_size, self.border_shift)
        return Kernel(scaled(self.rotate, self.scale), self.rotate, Phi.EXP, window=windows)

    def extra_repr(self) -> str:
        """Show the window in ``print(model)``."""
        return f"window_size={self.window_size}, shift={self.shift}, scale={self.scale}"


@register_mixer("window")
class Window(WindowedMixer):
    """A_w(Q, K, V): softmax inside disjoint windows (Swin, Liu et al., ICCV 2021).

    Without Swin's relative position bias; ``shift=True`` gives its shifted windows. Equal to
    ``softmax`` once the window covers the grid.
    """

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """A_w(Q, K, V)."""
        return self.window_attention(q, k, v)
