"""SEMA's attention by Triton: how a call is launched, and its two operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from semabench.ops.depthwise_conv.triton_backend import launch_backward, launch_forward, on_device
from semabench.ops.window_mean.triton_kernels import backward_kernel, forward_kernel

WARPS = {forward_kernel: 4, backward_kernel: 4}  # of a window


def _launch(
    kernel: Any, qkv: Tensor, heads: int, window: Sequence[int], shift: Sequence[int], scale: float,
    *tensors: Tensor | int, **constants: Any,
) -> None:  # fmt: skip
    B, H, W, C = *qkv.shape[:3], qkv.shape[3] // 3
    d = C // heads
    windows = B * count_windows(H, W, window, shift)
    with on_device(qkv):
        kernel[(windows * heads,)](
            *tensors, H, W, C, heads, d, scale,
            ROWS=window[0], COLUMNS=window[1], SHIFT_ROWS=shift[0], SHIFT_COLUMNS=shift[1],
            TOKENS=max(16, triton.next_power_of_2(window[0] * window[1])),
            D=max(16, triton.next_power_of_2(d)),
            PRECISION="ieee" if qkv.dtype == torch.float32 else "tf32",
            num_warps=WARPS[kernel], **constants,
        )  # fmt: skip


def count_windows(H: int, W: int, window: Sequence[int], shift: Sequence[int]) -> int:
    """Return the windows of a grid, cut-off ones included."""
    down, across = (
        -(-(size - moved) // side) + (moved > 0)
        for size, side, moved in zip((H, W), window, shift, strict=True)
    )
    return down * across


@torch.library.custom_op("semabench::window_mean", mutates_args=())
def node_forward(
    qkv: Tensor, weight: Tensor | None, bias: Tensor | None, heads: int,
    window: Sequence[int], shift: Sequence[int], scale: float, mean: bool,
) -> Tensor:  # fmt: skip
    """Return attention, mean and local term, (B, H, W, C); as ``window_mean_triton``."""
    B, H, W, C = *qkv.shape[:3], qkv.shape[3] // 3
    qkv = qkv.contiguous()
    v = qkv[..., 2 * C :]
    y = qkv.new_empty(B, H, W, C)
    if not y.numel():
        return y
    windows = count_windows(H, W, window, shift)
    sums = torch.empty((B, windows if mean else 0, C), dtype=torch.float32, device=y.device)
    _launch(forward_kernel, qkv, heads, window, shift, scale, qkv, y, sums, SUMS=mean)
    total = sums.sum(1) if mean else None
    if weight is not None:
        launch_forward(v, weight, bias, y, y, None, total=total)
    elif total is not None:
        y += (total / (H * W))[:, None, None]
    return y


@node_forward.register_fake
def _(qkv, weight, bias, heads, window, shift, scale, mean):  # type: ignore[no-untyped-def]
    return qkv.new_empty((*qkv.shape[:3], qkv.shape[3] // 3))


@torch.library.custom_op("semabench::window_mean_backward", mutates_args=())
def node_backward(
    dy: Tensor, qkv: Tensor, weight: Tensor | None, heads: int,
    window: Sequence[int], shift: Sequence[int], scale: float, mean: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the gradients of qkv, and of the local term's weights and bias.

    The latter of each image, (B, 10, C) float32; (0, 10, C) without a local term.
    """
    B, C = qkv.shape[0], qkv.shape[3] // 3
    dy, qkv = dy.contiguous(), qkv.contiguous()
    dqkv = torch.empty_like(qkv)
    parts = dy.new_zeros((0 if weight is None else B, 10, C), dtype=torch.float32)
    if not dqkv.numel():
        return dqkv, parts
    more, total = dy, dy
    if weight is not None:
        more, parts = launch_backward(dy, qkv[..., 2 * C :], weight, None)
        parts = parts[:, 0] if parts.shape[1] == 1 else parts.sum(1)
        total = parts[:, 9]
    elif mean:
        total = dy.sum((1, 2), dtype=torch.float32)
    _launch(
        backward_kernel, qkv, heads, window, shift, scale,
        dy, qkv, more, total, dqkv, total.stride(0),
        MORE=weight is not None, MEAN=mean,
    )  # fmt: skip
    return dqkv, parts


@node_backward.register_fake
def _(dy, qkv, weight, heads, window, shift, scale, mean):  # type: ignore[no-untyped-def]
    parts = (0 if weight is None else qkv.shape[0], 10, qkv.shape[3] // 3)
    return qkv.new_empty(qkv.shape), qkv.new_empty(parts, dtype=torch.float32)


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    qkv, weight, bias, *ctx.options = inputs
    ctx.bias = None if bias is None else bias.dtype
    ctx.save_for_backward(qkv, weight)


def _backward(ctx, dy):  # type: ignore[no-untyped-def]
    qkv, weight = ctx.saved_tensors
    dqkv, parts = node_backward(dy, qkv, weight, *ctx.options)
    d_weight, d_bias = None, None
    if weight is not None:
        sums = parts.sum(0)  # out here, where torch.compile has a kernel for it
        d_weight = sums[:9].t().reshape(weight.shape).to(weight.dtype)
        d_bias = None if ctx.bias is None else sums[9].to(ctx.bias)
    return dqkv, d_weight, d_bias, None, None, None, None, None


node_forward.register_autograd(_backward, setup_context=_setup_context)


def _products(qkv: torch.Size, window: Sequence[int]) -> int:
    """Return the FLOPs of one matrix product of all windows, whole ones."""
    return 2 * qkv[0] * qkv[1] * qkv[2] * window[0] * window[1] * (qkv[3] // 3)


@register_flop_formula(torch.ops.semabench.window_mean)
def _flops(qkv, weight, bias, heads, window, *rest, out_shape=None, **options) -> int:  # type: ignore[no-untyped-def]
    local = 0 if weight is None else 18 * qkv[0] * qkv[1] * qkv[2] * (qkv[3] // 3)
    return 2 * _products(qkv, window) + local


@register_flop_formula(torch.ops.semabench.window_mean_backward)
def _flops_backward(dy, qkv, weight, heads, window, *rest, out_shape=None, **options) -> int:  # type: ignore[no-untyped-def]
    local = 0 if weight is None else 36 * qkv[0] * qkv[1] * qkv[2] * (qkv[3] // 3)
    return 5 * _products(qkv, window) + local


def window_mean_triton(
    qkv: Tensor, weight: Tensor | None, bias: Tensor | None, heads: int,
    window: tuple[int, int], shift: tuple[int, int], scale: float, mean: bool,
) -> Tensor:  # fmt: skip
    """Compute window attention, the mean of the values if asked for, and LePE, in one node.

    Args:
        qkv: (B, H, W, 3C), queries, keys and values side by side, each heads × d channels.
        weight, bias: of a depthwise convolution of the values that is added, (C, 1, 3, 3) and (C).
        heads: divides C.
        window, shift, scale, mean: as ``window_mean_reference``; at most 64 tokens a window.

    Returns:
        (B, H, W, C) in the dtype of ``qkv``.
    """
    return node_forward(qkv, weight, bias, heads, list(window), list(shift), scale, mean)
