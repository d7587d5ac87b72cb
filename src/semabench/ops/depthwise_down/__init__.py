"""Depthwise 3×3 convolution of stride 2 between two ReLUs: the middle of MILA's downsampling.

    y = ReLU(DWConv3(ReLU(x + in_bias)) + bias),   (B, H, W, C) -> (B, ⌈H/2⌉, ⌈W/2⌉, C)

Zeros beyond the grid. The grid it reads, four times as wide as what comes out of the downsampling,
is the largest of a model: each pass over it is one that the next op does not make.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from semabench.errors import SemabenchError
from semabench.ops.depthwise_conv import depthwise_conv_backend


def depthwise_down_reference(x: Tensor, weight: Tensor, bias: Tensor, in_bias: Tensor) -> Tensor:
    """Compute the equation above as it stands, tap by tap."""
    H, W = x.shape[1:3]
    padded = F.pad(F.relu(x + in_bias), (0, 0, 1, 1, 1, 1))
    taps = [
        weight[:, 0, i, j] * padded[:, i : i + H : 2, j : j + W : 2]
        for i in range(3)
        for j in range(3)
    ]
    return F.relu(torch.stack(taps).sum(0) + bias)


def depthwise_down_torch(x: Tensor, weight: Tensor, bias: Tensor, in_bias: Tensor) -> Tensor:
    """Compute the same with torch's convolution, of a channels-last view."""
    hidden = F.relu(x + in_bias).permute(0, 3, 1, 2)
    y = F.conv2d(hidden, weight, bias, stride=2, padding=1, groups=x.shape[-1])
    return F.relu(y).permute(0, 2, 3, 1)


def depthwise_down(
    x: Tensor, weight: Tensor, bias: Tensor, in_bias: Tensor, *, backend: str = "auto"
) -> Tensor:
    """Halve a grid, each channel by its own 3×3 weights, between two ReLUs.

    Args:
        x: (B, H, W, C), any floating dtype, any H, W >= 1.
        weight: (C, 1, 3, 3), as ``nn.Conv2d`` has it.
        bias: (C), added after the convolution.
        in_bias: (C), added to ``x``.
        backend: of ``ops.depthwise_conv``.

    Returns:
        (B, ⌈H/2⌉, ⌈W/2⌉, C) in the dtype of ``x``, or of autocast. The Triton kernels compute in
        float32.

    Raises:
        SemabenchError: shapes do not fit, or the backend's name is not valid.
    """
    C = x.shape[-1]
    shapes = (weight.shape, bias.shape, in_bias.shape)
    if x.ndim != 4 or shapes != ((C, 1, 3, 3), (C,), (C,)):
        told = ", ".join(str(tuple(shape)) for shape in (x.shape, *shapes))
        raise SemabenchError(
            f"depthwise_down needs x (B, H, W, C), weight (C, 1, 3, 3) and two biases (C), not "
            f"{told}."
        )
    name = depthwise_conv_backend(backend, x.device, x.dtype)
    if name == "triton":
        from semabench.ops.depthwise_down.triton_backend import depthwise_down_triton

        return depthwise_down_triton(x, weight, bias, in_bias)
    run = depthwise_down_reference if name == "reference" else depthwise_down_torch
    return run(x, weight, bias, in_bias)
