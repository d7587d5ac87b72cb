"""Depthwise 3×3 convolution by Triton: how a call is cut and launched, and its two operators."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from semabench.ops.depthwise_conv.triton_kernels import (
    NONE,
    OTHER,
    SELF,
    backward_kernel,
    forward_kernel,
)
from semabench.ops.tables import autocast_dtype


class Tile(NamedTuple):
    """How a pass is cut: rows of a strip, columns, channels; the last two are powers of two."""

    rows: int
    columns: int
    channels: int
    warps: int
    stages: int


def _columns(W: int) -> int:
    """Return how many columns a strip has: few of its last ones beyond the grid."""
    if 8 < W <= 16:
        return 16
    return 4 if W % 8 and not W % 4 else min(triton.next_power_of_2(W), 8)


# From a sweep of SEMA-T's grids at 224 px on an H200, as benchmarks/kernels.py --sweep makes one;
# but for the backward pass of 14 columns, whose cut is older than the loads ahead.
def forward_tile(H: int, W: int, C: int) -> Tile:
    """Return how a forward pass is cut: eight numbers a thread."""
    columns = _columns(W)
    channels = min(triton.next_power_of_2(C), 512 // columns)
    return Tile(-(-H // -(-H // 14)), columns, channels, 2, 1)


def backward_tile(H: int, W: int, C: int) -> Tile:
    """Return how a backward pass is cut: long strips, for each ends with ten sums.

    Two to eight numbers a thread; eight with SiLU spill a little, more would spill much.
    """
    columns = _columns(W)
    longest = 28 if H > 28 else 14
    warps = 2 if H <= 16 else columns // 2
    return Tile(-(-H // -(-H // longest)), columns, min(triton.next_power_of_2(C), 32), warps, 1)


def cut(tile: Tile, H: int, W: int, C: int) -> tuple[int, int, dict[str, Any]]:
    """Return the strips of an image, the blocks of channels, and a kernel's constants."""
    strips = triton.cdiv(H, tile.rows) * triton.cdiv(W, tile.columns)
    constants = {"ROWS": tile.rows, "COLUMNS": tile.columns, "CHANNELS": tile.channels}
    return (
        strips,
        triton.cdiv(C, tile.channels),
        constants | {"STAGES": tile.stages, "num_warps": tile.warps},
    )


def _rows(x: Tensor) -> Tensor:
    """Return a grid whose pixels are equally far apart and hold their channels side by side."""
    _, H, W, _ = x.shape
    pixel = x.stride(2) if W > 1 else x.stride(1) if H > 1 else x.stride(0)
    wanted = (H * W * pixel, W * pixel, pixel, 1)
    sound = all(n == 1 or a == b for n, a, b in zip(x.shape, x.stride(), wanted, strict=True))
    return x if sound and pixel >= x.shape[3] else x.contiguous()


def _pixel(x: Tensor) -> int:
    _, H, W, C = x.shape
    return x.stride(2) if W > 1 else x.stride(1) if H > 1 else x.stride(0) if x.shape[0] > 1 else C


def on_device(x: Tensor) -> AbstractContextManager[Any]:
    """Launch on the device of a tensor, which need not be the current one."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def launch_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, add: Tensor | None, y: Tensor, s: Tensor | None,
    *, itself: bool = False, silu: bool = False, total: Tensor | None = None,
) -> None:  # fmt: skip
    """Write y and, if there is one, s; ``y`` may be ``add``, whose rows are read before.

    Args:
        x, weight, bias, add, silu: as in ``depthwise_conv``.
        y, s: (B, H, W, C), contiguous.
        itself: add x.
        total: (B, C) float32; a pixel's share of it is another bias of each image.
    """
    B, H, W, C = x.shape
    if not x.numel():
        return
    x = _rows(x)
    add = None if add is None else _rows(add)
    tile = forward_tile(H, W, C)
    strips, blocks, options = cut(tile, H, W, C)
    with on_device(x):
        forward_kernel[(B * strips * blocks,)](
            x, weight.contiguous(), weight if bias is None else bias.contiguous(),
            y if total is None else total, x if add is None else add, y, y if s is None else s,
            H, W, C, _pixel(x), 0 if add is None else _pixel(add),
            BIAS=bias is not None, MEAN=total is not None,
            ADD=(SELF if itself else NONE if add is None else OTHER).value,
            SILU=silu, SAVE=s is not None, **options,
        )  # fmt: skip


def launch_backward(
    dy: Tensor, x: Tensor, weight: Tensor, s: Tensor | None, *, itself: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the gradients of x, and of the weights and the bias, (B, strips, 10, C) float32.

    Args:
        dy: of y, (B, H, W, C).
        x, weight: as in ``depthwise_conv``.
        s: what SiLU was applied to, if it was.
        itself: x was added.
    """
    B, H, W, C = x.shape
    dy, x = dy.contiguous(), _rows(x)
    dx = torch.empty_like(dy, dtype=x.dtype)
    tile = backward_tile(H, W, C)
    strips, blocks, options = cut(tile, H, W, C)
    sums = torch.empty((B, strips, 10, C), dtype=torch.float32, device=x.device)
    if not dx.numel():
        return dx, sums
    with on_device(x):
        backward_kernel[(B * strips * blocks,)](
            dy, x, weight.contiguous(), dy if s is None else s, dx, sums, H, W, C, _pixel(x),
            ADD=(SELF if itself else NONE).value, SILU=s is not None, **options,
        )  # fmt: skip
    return dx, sums


@torch.library.custom_op("semabench::depthwise_conv", mutates_args=())
def conv_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, add: Tensor | None, itself: bool, silu: bool,
    save: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return y and, where SiLU's gradient will need it (``save``), s, or nothing."""
    y = x.new_empty(x.shape)
    s = y.new_empty(x.shape if silu and save else (0,))
    launch_forward(x, weight, bias, add, y, s if silu and save else None, itself=itself, silu=silu)
    return y, s


@conv_forward.register_fake
def _(x, weight, bias, add, itself, silu, save):  # type: ignore[no-untyped-def]
    y = x.new_empty(x.shape)
    return y, y.new_empty(x.shape if silu and save else (0,))


@torch.library.custom_op("semabench::depthwise_conv_backward", mutates_args=())
def conv_backward(
    dy: Tensor, x: Tensor, weight: Tensor, s: Tensor, itself: bool, silu: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradients of x, and of weights and bias as ``launch_backward`` does."""
    return launch_backward(dy, x, weight, s if silu else None, itself=itself)


@conv_backward.register_fake
def _(dy, x, weight, s, itself, silu):  # type: ignore[no-untyped-def]
    B, H, W, C = x.shape
    strips = cut(backward_tile(H, W, C), H, W, C)[0]
    return x.new_empty(x.shape), x.new_empty((B, strips, 10, C), dtype=torch.float32)


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, weight, bias, add, ctx.itself, ctx.silu, _ = inputs
    ctx.bias = None if bias is None else bias.dtype
    ctx.add = None if add is None else add.dtype
    ctx.save_for_backward(x, weight, output[1])


def _backward(ctx, dy, _):  # type: ignore[no-untyped-def]
    x, weight, s = ctx.saved_tensors
    dx, parts = conv_backward(dy, x, weight, s, ctx.itself, ctx.silu)
    sums = parts.sum((0, 1))  # out here, where torch.compile has a kernel for it
    d_weight = sums[:9].t().reshape(weight.shape).to(weight.dtype)
    d_bias = None if ctx.bias is None else sums[9].to(ctx.bias)
    d_add = None if ctx.add is None else dy.to(ctx.add)
    return dx, d_weight, d_bias, d_add, None, None, None


conv_forward.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.semabench.depthwise_conv)
def _flops(x, *rest, out_shape=None, **options) -> int:  # type: ignore[no-untyped-def]
    return 2 * 9 * x[0] * x[1] * x[2] * x[3]


@register_flop_formula(torch.ops.semabench.depthwise_conv_backward)
def _flops_backward(dy, x, *rest, out_shape=None, **options) -> int:  # type: ignore[no-untyped-def]
    return 2 * _flops(x)


def depthwise_conv_triton(
    x: Tensor, weight: Tensor, bias: Tensor | None, add: Tensor | None, silu: bool
) -> Tensor:
    """Compute ``depthwise_conv`` with the kernels above, one launch a pass."""
    cast = x.to(autocast_dtype(x.device) or x.dtype)  # as a convolution would
    if add is not None and add.dtype != cast.dtype:
        return add + depthwise_conv_triton(cast, weight, bias, None, silu)
    itself = add is x
    x = cast
    tensors = (x, weight, bias, add)
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    return conv_forward(x, weight, bias, None if itself else add, itself, silu, save)[0]
