"""Downsampling's convolution by Triton: how a call is cut and launched, and its two operators."""

from __future__ import annotations

import torch
import triton
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from semabench.ops.depthwise_conv.triton_backend import Tile, cut, on_device
from semabench.ops.depthwise_down.triton_kernels import backward_kernel, forward_kernel
from semabench.ops.tables import autocast_dtype


# From a sweep of SEMA-T's grids at 224 px on an H200, as benchmarks/kernels.py --sweep makes one.
def forward_tile(h: int, w: int, C: int) -> Tile:
    """Return how a forward pass is cut, in rows and columns of the smaller grid."""
    columns = min(triton.next_power_of_2(w), 8)
    return Tile(-(-h // -(-h // 14)), columns, min(triton.next_power_of_2(C), 128), 4, 1)


def backward_tile(h: int, w: int, C: int) -> Tile:
    """Return how a backward pass is cut: long strips, for each ends with eleven sums."""
    columns = min(triton.next_power_of_2(w), 8)
    return Tile(-(-h // -(-h // 28)), columns, min(triton.next_power_of_2(C), 32), 2, 1)


@torch.library.custom_op("semabench::depthwise_down", mutates_args=())
def down_forward(x: Tensor, weight: Tensor, bias: Tensor, in_bias: Tensor) -> Tensor:
    """Return y."""
    B, H, W, C = x.shape
    h, w = -(-H // 2), -(-W // 2)
    y = x.new_empty(B, h, w, C)
    if y.numel():
        x = x.contiguous()
        strips, blocks, options = cut(forward_tile(h, w, C), h, w, C)
        with on_device(x):
            forward_kernel[(B * strips * blocks,)](
                x, weight.contiguous(), bias.contiguous(), in_bias.contiguous(), y, H, W, C, h, w,
                **options,
            )  # fmt: skip
    return y


@down_forward.register_fake
def _(x, weight, bias, in_bias):  # type: ignore[no-untyped-def]
    B, H, W, C = x.shape
    return x.new_empty(B, (H + 1) // 2, (W + 1) // 2, C)


@torch.library.custom_op("semabench::depthwise_down_backward", mutates_args=())
def down_backward(
    dy: Tensor, y: Tensor, x: Tensor, weight: Tensor, in_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of x, and of weights and biases, (B, strips, 11, C) float32."""
    B, H, W, C = x.shape
    h, w = y.shape[1:3]
    x, dy = x.contiguous(), dy.contiguous()
    dx = torch.empty_like(x)
    strips, blocks, options = cut(backward_tile(h, w, C), h, w, C)
    sums = torch.empty((B, strips, 11, C), dtype=torch.float32, device=x.device)
    if dx.numel():
        with on_device(x):
            backward_kernel[(B * strips * blocks,)](
                dy, y, x, weight.contiguous(), in_bias.contiguous(), dx, sums, H, W, C, h, w,
                **options,
            )  # fmt: skip
    return dx, sums


@down_backward.register_fake
def _(dy, y, x, weight, in_bias):  # type: ignore[no-untyped-def]
    B, h, w, C = y.shape
    strips = cut(backward_tile(h, w, C), h, w, C)[0]
    return x.new_empty(x.shape), x.new_empty((B, strips, 11, C), dtype=torch.float32)


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, weight, bias, in_bias = inputs
    ctx.bias = bias.dtype
    ctx.save_for_backward(output, x, weight, in_bias)


def _backward(ctx, dy):  # type: ignore[no-untyped-def]
    y, x, weight, in_bias = ctx.saved_tensors
    dx, parts = down_backward(dy, y, x, weight, in_bias)
    sums = parts.sum((0, 1))  # out here, where torch.compile has a kernel for it
    d_weight = sums[:9].t().reshape(weight.shape).to(weight.dtype)
    return dx, d_weight, sums[9].to(ctx.bias), sums[10].to(in_bias.dtype)


down_forward.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.semabench.depthwise_down)
def _flops(x, *rest, out_shape=None, **options) -> int:  # type: ignore[no-untyped-def]
    return 2 * 9 * x[0] * (-(-x[1] // 2)) * (-(-x[2] // 2)) * x[3]


@register_flop_formula(torch.ops.semabench.depthwise_down_backward)
def _flops_backward(dy, y, x, *rest, out_shape=None, **options) -> int:  # type: ignore[no-untyped-def]
    return 2 * _flops(x)


def depthwise_down_triton(x: Tensor, weight: Tensor, bias: Tensor, in_bias: Tensor) -> Tensor:
    """Compute ``depthwise_down`` with the kernels above, one launch a pass."""
    cast = x.to(autocast_dtype(x.device) or x.dtype)  # as a convolution would
    return down_forward(cast, weight, bias, in_bias)
