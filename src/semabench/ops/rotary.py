"""MILA's two-dimensional rotary position encoding (Han et al., NeurIPS 2024).

Adjacent channels (2i, 2i+1) are a complex number. The first C/4 of them turn by their row, the
other C/4 by their column, number t of each quarter by angle position · base^(-t / (C/4)). All C
channels take part before any split into heads, so heads see different frequencies.
"""

from __future__ import annotations

import torch
from torch import Tensor

from semabench.errors import SemabenchError
from semabench.ops.tables import cached_table


def rotary(x: Tensor, base: float = 10000.0) -> Tensor:
    """Rotate the channels of a grid by their position.

    Args:
        x: (B, H, W, C), any floating dtype, any H, W >= 1. Half precision is rotated in float32.
        base: ratio of the fastest to the (never reached) slowest frequency.

    Returns:
        (B, H, W, C) in the dtype of ``x``.

    Raises:
        SemabenchError: C is not a multiple of 4.
    """
    _, H, W, C = x.shape
    if C % 4:
        raise SemabenchError(f"RoPE needs a number of channels that 4 divides, not {C}.")
    dtype = torch.promote_types(x.dtype, torch.float32)
    cos, sin = rotary_table(H, W, C, base, x.device, dtype)
    real, imaginary = x.to(dtype).unflatten(-1, (-1, 2)).unbind(-1)
    rotated = (real * cos - imaginary * sin, real * sin + imaginary * cos)
    return torch.stack(rotated, dim=-1).flatten(-2).to(x.dtype)


@cached_table(maxsize=32)
def rotary_table(
    H: int, W: int, C: int, base: float, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return cosines and sines of all angles: (2, H, W, C/2), computed in ``dtype``."""
    quarter = C // 4
    frequency = base ** (-torch.arange(quarter, device=device, dtype=dtype) / quarter)
    rows = torch.arange(H, device=device, dtype=dtype)[:, None, None] * frequency
    columns = torch.arange(W, device=device, dtype=dtype)[:, None] * frequency
    angle = torch.cat([rows.expand(H, W, quarter), columns.expand(H, W, quarter)], dim=-1)
    return torch.stack([angle.cos(), angle.sin()])
