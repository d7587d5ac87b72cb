"""Depthwise 3×3 convolution of stride 2 between two ReLUs, in Triton: each grid moves once.

A program walks down a strip of rows of the smaller grid. Forwards, the lower row that an output
reads is the upper one of the next. Backwards, each place of the smaller grid owns four of the
larger: their gradients take what four outputs send, and each tap's sum meets them there. Programs
write their sums side by side, so that no order of theirs matters. All sums are float32.
"""

# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

from semabench.ops.depthwise_conv.triton_kernels import _load, _place, _store_nine, _taps


@triton.jit
def _relu(x):
    """Return ReLU(x); NaN stays NaN, which Triton's maximum would make 0."""
    return tl.where(x <= 0.0, 0.0, x)


@triton.jit
def _hidden(x, bias, row, columns, channels, H, W, C):
    """Load ReLU(x + bias) of a row, (columns, channels) float32; zeros beyond the grid."""
    found = _load(x, row, columns, channels, H, W, C, C).to(tl.float32) + bias
    inside = (columns >= 0) & (columns < tl.where((row >= 0) & (row < H), W, 0))
    return tl.where(inside[:, None], _relu(found), 0.0)


@triton.jit
def _biases(bias, in_bias, channels, C):
    fits = channels < C
    after = tl.load(bias + channels, mask=fits, other=0.0).to(tl.float32)[None, :]
    return after, tl.load(in_bias + channels, mask=fits, other=0.0).to(tl.float32)[None, :]


@triton.jit
def forward_kernel(
    x, weight, bias, in_bias, y, H, W, C, h, w,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Write y, (h, w) of an image."""
    image, top, columns, channels = _place(h, w, C, ROWS, COLUMNS, CHANNELS)
    w00, w01, w02, w10, w11, w12, w20, w21, w22 = _taps(weight, channels, C)
    after, before = _biases(bias, in_bias, channels, C)
    x += image * H * W * C
    y += image * h * w * C
    left = _hidden(x, before, 2 * top - 1, 2 * columns - 1, channels, H, W, C)
    here = _hidden(x, before, 2 * top - 1, 2 * columns, channels, H, W, C)
    right = _hidden(x, before, 2 * top - 1, 2 * columns + 1, channels, H, W, C)
    begun = after + left * w00 + here * w01 + right * w02
    for step in tl.range(0, ROWS, num_stages=STAGES):
        r = top + step
        left = _hidden(x, before, 2 * r, 2 * columns - 1, channels, H, W, C)
        here = _hidden(x, before, 2 * r, 2 * columns, channels, H, W, C)
        right = _hidden(x, before, 2 * r, 2 * columns + 1, channels, H, W, C)
        done = begun + left * w10 + here * w11 + right * w12
        left = _hidden(x, before, 2 * r + 1, 2 * columns - 1, channels, H, W, C)
        here = _hidden(x, before, 2 * r + 1, 2 * columns, channels, H, W, C)
        right = _hidden(x, before, 2 * r + 1, 2 * columns + 1, channels, H, W, C)
        done += left * w20 + here * w21 + right * w22
        begun = after + left * w00 + here * w01 + right * w02
        at = (r * w + columns)[:, None] * C + channels[None, :]
        store = (columns < tl.where(r < h, w, 0))[:, None] & (channels < C)[None, :]
        tl.store(y + at, _relu(done).to(y.dtype.element_ty), mask=store)


@triton.jit
def _gradient(sent, y):
    """Return the gradient before the second ReLU, float32."""
    return tl.where(y <= 0.0, 0.0, sent.to(tl.float32))


@triton.jit
def _owned(x, dx, before, d, row, columns, channels, H, W, C):
    """Write the gradient of one of the four; return it, and what the convolution read there."""
    found = x.to(tl.float32) + before
    inside = (columns < tl.where(row < H, W, 0))[:, None] & (channels < C)[None, :]
    d = tl.where(inside, tl.where(found <= 0.0, 0.0, d), 0.0)
    at = (row * W + columns)[:, None] * C + channels[None, :]
    tl.store(dx + at, d.to(dx.dtype.element_ty), mask=inside)
    return d, tl.where(inside, _relu(found), 0.0)


@triton.jit
def backward_kernel(
    dy, y, x, weight, in_bias, dx, sums, H, W, C, h, w,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Write dx, and the sums of the nine weights, the bias and the first bias, (11, C)."""
    image, top, columns, channels = _place(h, w, C, ROWS, COLUMNS, CHANNELS)
    w00, w01, w02, w10, w11, w12, w20, w21, w22 = _taps(weight, channels, C)
    _, before = _biases(in_bias, in_bias, channels, C)
    x += image * H * W * C
    dx += image * H * W * C
    y += image * h * w * C
    dy += image * h * w * C
    zero = tl.zeros((COLUMNS, CHANNELS), tl.float32)
    d00 = zero
    d01 = zero
    d02 = zero
    d10 = zero
    d11 = zero
    d12 = zero
    d20 = zero
    d21 = zero
    d22 = zero
    d_bias = zero
    d_before = zero
    next_dy = _load(dy, top, columns, channels, h, w, C, C)
    next_y = _load(y, top, columns, channels, h, w, C, C)
    g = _gradient(next_dy, next_y)
    right_dy = _load(dy, top, columns + 1, channels, h, w, C, C)
    right_y = _load(y, top, columns + 1, channels, h, w, C, C)
    g_right = _gradient(right_dy, right_y)
    next_dy = _load(dy, top + 1, columns, channels, h, w, C, C)
    next_y = _load(y, top + 1, columns, channels, h, w, C, C)
    right_dy = _load(dy, top + 1, columns + 1, channels, h, w, C, C)
    right_y = _load(y, top + 1, columns + 1, channels, h, w, C, C)
    next00 = _load(x, 2 * top, 2 * columns, channels, H, W, C, C)
    next01 = _load(x, 2 * top, 2 * columns + 1, channels, H, W, C, C)
    next10 = _load(x, 2 * top + 1, 2 * columns, channels, H, W, C, C)
    next11 = _load(x, 2 * top + 1, 2 * columns + 1, channels, H, W, C, C)
    for step in tl.range(0, ROWS, num_stages=STAGES):
        r = top + step
        g_below = _gradient(next_dy, next_y)
        g_across = _gradient(right_dy, right_y)
        x00, x01, x10, x11 = next00, next01, next10, next11
        # Loaded a step before they are used: no load may overtake a store.
        next_dy = _load(dy, r + 2, columns, channels, h, w, C, C)
        next_y = _load(y, r + 2, columns, channels, h, w, C, C)
        right_dy = _load(dy, r + 2, columns + 1, channels, h, w, C, C)
        right_y = _load(y, r + 2, columns + 1, channels, h, w, C, C)
        next00 = _load(x, 2 * r + 2, 2 * columns, channels, H, W, C, C)
        next01 = _load(x, 2 * r + 2, 2 * columns + 1, channels, H, W, C, C)
        next10 = _load(x, 2 * r + 3, 2 * columns, channels, H, W, C, C)
        next11 = _load(x, 2 * r + 3, 2 * columns + 1, channels, H, W, C, C)
        d_bias += g

        d, found = _owned(x00, dx, before, g * w11, 2 * r, 2 * columns, channels, H, W, C)
        d_before += d
        d11 += g * found
        d = g * w12 + g_right * w10
        d, found = _owned(x01, dx, before, d, 2 * r, 2 * columns + 1, channels, H, W, C)
        d_before += d
        d12 += g * found
        d10 += g_right * found
        d = g * w21 + g_below * w01
        d, found = _owned(x10, dx, before, d, 2 * r + 1, 2 * columns, channels, H, W, C)
        d_before += d
        d21 += g * found
        d01 += g_below * found
        d = g * w22 + g_right * w20 + g_below * w02 + g_across * w00
        d, found = _owned(x11, dx, before, d, 2 * r + 1, 2 * columns + 1, channels, H, W, C)
        d_before += d
        d22 += g * found
        d20 += g_right * found
        d02 += g_below * found
        d00 += g_across * found
        g = g_below
        g_right = g_across

    fits = channels < C
    blocks = tl.cdiv(C, CHANNELS)
    sums += (tl.program_id(0) // blocks).to(tl.int64) * 11 * C + channels
    _store_nine(sums, C, fits, d00, d01, d02, d10, d11, d12, d20, d21, d22)
    tl.store(sums + 9 * C, tl.sum(d_bias, 0), mask=fits)
    tl.store(sums + 10 * C, tl.sum(d_before, 0), mask=fits)
