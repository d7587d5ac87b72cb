"""Depthwise 3×3 convolution of a channels-last grid, with what surrounds it in a block.

    s = Σ_{i,j} w_{ij} x_{·+i-1, ·+j-1} + b,     y = x + s,  add + s,  SiLU(s)  or  s

Stride 1, zeros beyond the grid; grids are (B, H, W, C). Few FLOPs a number: what costs is each pass
over the grid, and cuDNN makes one for the convolution alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from semabench.errors import SemabenchError
from semabench.ops.tables import on_triton

BACKENDS = ("reference", "torch", "triton")


def depthwise_conv_reference(
    x: Tensor, weight: Tensor, bias: Tensor | None, add: Tensor | None, silu: bool
) -> Tensor:
    """Compute the equation above as it stands, tap by tap."""
    H, W = x.shape[1:3]
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    taps = [
        weight[:, 0, i, j] * padded[:, i : i + H, j : j + W] for i in range(3) for j in range(3)
    ]
    s = torch.stack(taps).sum(0)
    s = s if bias is None else s + bias
    y = F.silu(s) if silu else s
    return y if add is None else add + y


def depthwise_conv_torch(
    x: Tensor, weight: Tensor, bias: Tensor | None, add: Tensor | None, silu: bool
) -> Tensor:
    """Compute the same with torch's convolution, of a channels-last view: nothing is copied."""
    s = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=1, groups=x.shape[-1])
    y = s.permute(0, 2, 3, 1)
    y = F.silu(y) if silu else y
    return y if add is None else add + y


def depthwise_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    add: Tensor | None = None,
    silu: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Convolve each channel of a grid with its own 3×3 weights.

    Args:
        x: (B, H, W, C), any floating dtype, any H, W >= 1.
        weight: (C, 1, 3, 3), as ``nn.Conv2d`` has it.
        bias: (C), or none.
        add: (B, H, W, C), is added to the output; ``x`` itself is read once.
        silu: apply SiLU, before ``add``.
        backend: "reference", "torch", "triton" or "auto" (see ``depthwise_conv_backend``).

    Returns:
        (B, H, W, C) in the dtype of ``x``, or of autocast, promoted to that of ``add``. The Triton
        kernels sum in float32.

    Raises:
        SemabenchError: shapes do not fit, or the backend's name is not valid.
    """
    if x.ndim != 4 or weight.shape != (x.shape[-1], 1, 3, 3):
        raise SemabenchError(
            "depthwise_conv needs x (B, H, W, C) and weight (C, 1, 3, 3), not "
            f"{tuple(x.shape)} and {tuple(weight.shape)}."
        )
    for told, other in (("bias", bias), ("add", add)):
        expected = x.shape[-1:] if told == "bias" else x.shape
        if other is not None and other.shape != expected:
            raise SemabenchError(
                f"depthwise_conv needs {told} of shape {tuple(expected)}, not {tuple(other.shape)}."
            )
    name = depthwise_conv_backend(backend, x.device, x.dtype)
    if name == "triton":
        from semabench.ops.depthwise_conv.triton_backend import depthwise_conv_triton

        return depthwise_conv_triton(x, weight, bias, add, silu)
    return _RUN[name](x, weight, bias, add, silu)


_RUN: dict[str, Callable[..., Tensor]] = {
    "reference": depthwise_conv_reference,
    "torch": depthwise_conv_torch,
}


def depthwise_conv_backend(
    backend: str = "auto", device: torch.device | None = None, dtype: torch.dtype | None = None
) -> str:
    """Return the backend that will run on ``device`` (None: a CPU) for inputs of ``dtype``.

    "auto" is "triton" on a GPU; that is "torch" where its kernels do not run: on a CPU, in float64.

    Raises:
        SemabenchError: there is no such backend, or it is not installed.
    """
    return on_triton("depthwise_conv", backend, BACKENDS, "torch", device, dtype)
