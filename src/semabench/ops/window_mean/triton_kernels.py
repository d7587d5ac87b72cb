"""SEMA's attention in Triton: one program a window and head, forwards and backwards.

Queries, keys and values are read where the projection wrote them, (B, H, W, 3C), and their gradient
is written so; no window is ever copied out. A window of up to 64 tokens is one tile, whose weights
stay in registers: the backward pass makes them again. Cut-off windows of odd grids and of shifts
load and store what is theirs. Windows are disjoint, so each gradient has one writer.

The mean and the local term (LePE, a depthwise convolution of v) belong to the same node, or
autograd would add the gradients of v in passes of its own: the window's kernel sums the values that
it reads anyway, the convolution's adds their mean, and its backward sums give the gradient of it.
"""

# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _window(
    H, W, heads, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    SHIFT_ROWS: tl.constexpr, SHIFT_COLUMNS: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """Return image and head of this program, its tokens' places, and which of them exist."""
    # With a shift, the first window is what is left above it.
    above: tl.constexpr = ROWS if SHIFT_ROWS > 0 else 0
    before: tl.constexpr = COLUMNS if SHIFT_COLUMNS > 0 else 0
    down = tl.cdiv(H - SHIFT_ROWS + above, ROWS)
    across = tl.cdiv(W - SHIFT_COLUMNS + before, COLUMNS)
    program = tl.program_id(0)
    window = program // heads % (across * down)
    image = (program // heads // (across * down)).to(tl.int64)
    token = tl.arange(0, TOKENS)
    row = window // across * ROWS + SHIFT_ROWS - above + token // COLUMNS
    column = window % across * COLUMNS + SHIFT_COLUMNS - before + token % COLUMNS
    exists = (token < ROWS * COLUMNS) & (row >= 0) & (row < H) & (column >= 0) & (column < W)
    return image, program % heads, tl.where(exists, row * W + column, 0), exists


@triton.jit
def _weights(q, k, exists, scale, PRECISION: tl.constexpr):
    """Return exp of the logits less their largest, float32, and its sums."""
    logits = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * LOG2_E)
    logits = tl.where(exists[None, :], logits, float("-inf"))
    weights = tl.exp2(logits - tl.max(logits, 1)[:, None])
    return weights, tl.sum(weights, 1)


@triton.jit
def forward_kernel(
    qkv, y, sums, H, W, C, heads, d, scale,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, SHIFT_ROWS: tl.constexpr,
    SHIFT_COLUMNS: tl.constexpr, TOKENS: tl.constexpr, D: tl.constexpr,
    SUMS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the attention of a window and, if SUMS, the sums of its values."""
    image, head, place, exists = _window(
        H, W, heads, ROWS, COLUMNS, SHIFT_ROWS, SHIFT_COLUMNS, TOKENS
    )
    channel = tl.arange(0, D)
    mask = exists[:, None] & (channel < d)[None, :]
    at = place[:, None] * (3 * C) + (head * d + channel)[None, :]
    qkv += image * H * W * 3 * C
    q = tl.load(qkv + at, mask=mask, other=0.0)
    k = tl.load(qkv + C + at, mask=mask, other=0.0)
    v = tl.load(qkv + 2 * C + at, mask=mask, other=0.0)
    weights, total = _weights(q, k, exists, scale, PRECISION)
    out = tl.dot(weights.to(v.dtype), v, input_precision=PRECISION) / total[:, None]
    at = place[:, None] * C + (head * d + channel)[None, :]
    tl.store(y + image * H * W * C + at, out.to(y.dtype.element_ty), mask=mask)
    if SUMS:
        row = (tl.program_id(0) // heads).to(tl.int64)
        found = tl.sum(v.to(tl.float32), 0)
        tl.store(sums + row * C + head * d + channel, found, mask=channel < d)


@triton.jit
def backward_kernel(
    dy, qkv, dv_more, dtotal, dqkv, total_image, H, W, C, heads, d, scale,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, SHIFT_ROWS: tl.constexpr,
    SHIFT_COLUMNS: tl.constexpr, TOKENS: tl.constexpr, D: tl.constexpr,
    MORE: tl.constexpr, MEAN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the gradients of a window's queries, keys and values; MORE and MEAN add to the last."""
    image, head, place, exists = _window(
        H, W, heads, ROWS, COLUMNS, SHIFT_ROWS, SHIFT_COLUMNS, TOKENS
    )
    channel = tl.arange(0, D)
    mask = exists[:, None] & (channel < d)[None, :]
    at = place[:, None] * (3 * C) + (head * d + channel)[None, :]
    qkv += image * H * W * 3 * C
    dqkv += image * H * W * 3 * C
    q = tl.load(qkv + at, mask=mask, other=0.0)
    k = tl.load(qkv + C + at, mask=mask, other=0.0)
    v = tl.load(qkv + 2 * C + at, mask=mask, other=0.0)
    one = place[:, None] * C + (head * d + channel)[None, :]
    g = tl.load(dy + image * H * W * C + one, mask=mask, other=0.0)

    weights, total = _weights(q, k, exists, scale, PRECISION)
    weights = weights / total[:, None]
    dv = tl.dot(tl.trans(weights.to(g.dtype)), g, input_precision=PRECISION)
    slope = tl.dot(g, tl.trans(v), input_precision=PRECISION)
    slope = weights * (slope - tl.sum(weights * slope, 1)[:, None]) * scale
    slope = slope.to(q.dtype)
    dq = tl.dot(slope, k, input_precision=PRECISION)
    dk = tl.dot(tl.trans(slope), q, input_precision=PRECISION)
    if MORE:
        dv += tl.load(dv_more + image * H * W * C + one, mask=mask, other=0.0).to(tl.float32)
    if MEAN:
        at_head = image * total_image + head * d + channel
        dv += (tl.load(dtotal + at_head, mask=channel < d, other=0.0) / (H * W))[None, :]
    tl.store(dqkv + at, dq.to(dqkv.dtype.element_ty), mask=mask)
    tl.store(dqkv + C + at, dk.to(dqkv.dtype.element_ty), mask=mask)
    tl.store(dqkv + 2 * C + at, dv.to(dqkv.dtype.element_ty), mask=mask)
