"""Depthwise 3×3 convolution in Triton: each pass reads a grid once and writes it once.

A program walks down a strip of rows, some columns by some channels wide. A row that it reads (three
times, a column apart: twice from the first-level cache) belongs to three rows of output, whose sums
stay in registers. Backwards the same walk makes the gradient of the grid and, beside it, nine sums
for the weights and one for the bias; programs write theirs side by side, so that no order of theirs
matters. All sums are float32.
"""

# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

NONE, SELF, OTHER = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)  # what is added


@triton.jit
def _load(pointer, row, columns, channels, H, W, C, pixel):
    """Load a row of a strip, (columns, channels); zeros beyond the grid."""
    inside = (columns >= 0) & (columns < tl.where((row >= 0) & (row < H), W, 0))
    at = (row * W + columns)[:, None] * pixel + channels[None, :]
    return tl.load(pointer + at, mask=inside[:, None] & (channels < C)[None, :], other=0.0)


@triton.jit
def _row(pointer, row, columns, channels, H, W, C, pixel):
    """Load the same as float32."""
    return _load(pointer, row, columns, channels, H, W, C, pixel).to(tl.float32)


@triton.jit
def _place(H, W, C, rows: tl.constexpr, columns: tl.constexpr, channels: tl.constexpr):
    """Return the image, first row, columns and channels of this program."""
    blocks = tl.cdiv(C, channels)
    across = tl.cdiv(W, columns)
    down = tl.cdiv(H, rows)
    program = tl.program_id(0)
    block = program % blocks
    strip = program // blocks
    image = (strip // (across * down)).to(tl.int64)
    top = (strip // across) % down * rows
    left = strip % across * columns
    return image, top, left + tl.arange(0, columns), block * channels + tl.arange(0, channels)


@triton.jit
def _tap(weight, tap: tl.constexpr, channels, C):
    return tl.load(weight + channels * 9 + tap, mask=channels < C, other=0.0).to(tl.float32)[
        None, :
    ]


@triton.jit
def _taps(weight, channels, C):
    """Return the nine weights of each channel, row by row."""
    return (
        _tap(weight, 0, channels, C),
        _tap(weight, 1, channels, C),
        _tap(weight, 2, channels, C),
        _tap(weight, 3, channels, C),
        _tap(weight, 4, channels, C),
        _tap(weight, 5, channels, C),
        _tap(weight, 6, channels, C),
        _tap(weight, 7, channels, C),
        _tap(weight, 8, channels, C),
    )


@triton.jit
def _store_nine(sums, C, fits, d00, d01, d02, d10, d11, d12, d20, d21, d22):
    """Write the sums of the nine taps, each a row of C."""
    tl.store(sums + 0 * C, tl.sum(d00, 0), mask=fits)
    tl.store(sums + 1 * C, tl.sum(d01, 0), mask=fits)
    tl.store(sums + 2 * C, tl.sum(d02, 0), mask=fits)
    tl.store(sums + 3 * C, tl.sum(d10, 0), mask=fits)
    tl.store(sums + 4 * C, tl.sum(d11, 0), mask=fits)
    tl.store(sums + 5 * C, tl.sum(d12, 0), mask=fits)
    tl.store(sums + 6 * C, tl.sum(d20, 0), mask=fits)
    tl.store(sums + 7 * C, tl.sum(d21, 0), mask=fits)
    tl.store(sums + 8 * C, tl.sum(d22, 0), mask=fits)


@triton.jit
def forward_kernel(
    x, weight, bias, total, add, y, s, H, W, C, x_pixel, add_pixel,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
    BIAS: tl.constexpr, MEAN: tl.constexpr, ADD: tl.constexpr, SILU: tl.constexpr,
    SAVE: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Write y and, if SAVE, what SiLU is applied to."""
    image, top, columns, channels = _place(H, W, C, ROWS, COLUMNS, CHANNELS)
    fits = channels < C
    w00, w01, w02, w10, w11, w12, w20, w21, w22 = _taps(weight, channels, C)
    x += image * H * W * x_pixel
    add += image * H * W * add_pixel
    y += image * H * W * C
    s += image * H * W * C
    begun = tl.zeros((COLUMNS, CHANNELS), tl.float32)
    if BIAS:
        begun += tl.load(bias + channels, mask=fits, other=0.0).to(tl.float32)[None, :]
    if MEAN:
        begun += (tl.load(total + image * C + channels, mask=fits, other=0.0) / (H * W))[None, :]
    nothing = begun
    ongoing = begun
    above = begun
    next_left = _load(x, top - 1, columns - 1, channels, H, W, C, x_pixel)
    next_here = _load(x, top - 1, columns, channels, H, W, C, x_pixel)
    next_right = _load(x, top - 1, columns + 1, channels, H, W, C, x_pixel)
    for step in tl.range(0, ROWS + 2, num_stages=STAGES):
        r = top - 1 + step
        left = next_left.to(tl.float32)
        here = next_here.to(tl.float32)
        right = next_right.to(tl.float32)
        next_left = _load(x, r + 1, columns - 1, channels, H, W, C, x_pixel)
        next_here = _load(x, r + 1, columns, channels, H, W, C, x_pixel)
        next_right = _load(x, r + 1, columns + 1, channels, H, W, C, x_pixel)
        done = ongoing + left * w20 + here * w21 + right * w22
        ongoing = begun + left * w10 + here * w11 + right * w12
        begun = nothing + left * w00 + here * w01 + right * w02

        at = ((r - 1) * W + columns)[:, None] * C + channels[None, :]
        store = (columns < tl.where((r > top) & (r <= H), W, 0))[:, None] & fits[None, :]
        if SAVE:
            tl.store(s + at, done.to(s.dtype.element_ty), mask=store)
        if SILU:
            done = done * tl.sigmoid(done)
        if ADD == SELF:
            done += above
        if ADD == OTHER:
            done += _row(add, r - 1, columns, channels, H, W, C, add_pixel)
        tl.store(y + at, done.to(y.dtype.element_ty), mask=store)
        above = here


@triton.jit
def _gradient(sent, s, SILU: tl.constexpr):
    """Return the gradient before SiLU."""
    found = sent.to(tl.float32)
    if SILU:
        value = s.to(tl.float32)
        open = tl.sigmoid(value)
        found = found * open * (1.0 + value * (1.0 - open))
    return found


@triton.jit
def backward_kernel(
    dy, x, weight, s, dx, sums, H, W, C, x_pixel,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
    ADD: tl.constexpr, SILU: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Write the gradient of x, and the strip's sums for nine weights and the bias."""
    image, top, columns, channels = _place(H, W, C, ROWS, COLUMNS, CHANNELS)
    fits = channels < C
    w00, w01, w02, w10, w11, w12, w20, w21, w22 = _taps(weight, channels, C)
    x += image * H * W * x_pixel
    dy += image * H * W * C
    s += image * H * W * C
    dx += image * H * W * C
    zero = tl.zeros((COLUMNS, CHANNELS), tl.float32)
    begun = zero
    ongoing = zero
    above = zero
    x_above = zero
    x_here = zero
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
    next_left = _load(dy, top - 1, columns - 1, channels, H, W, C, C)
    next_here = _load(dy, top - 1, columns, channels, H, W, C, C)
    next_right = _load(dy, top - 1, columns + 1, channels, H, W, C, C)
    s_left, s_here, s_right = next_left, next_here, next_right
    if SILU:
        s_left = _load(s, top - 1, columns - 1, channels, H, W, C, C)
        s_here = _load(s, top - 1, columns, channels, H, W, C, C)
        s_right = _load(s, top - 1, columns + 1, channels, H, W, C, C)
    next_x = _load(x, top, columns, channels, H, W, C, x_pixel)
    for step in tl.range(0, ROWS + 2, num_stages=STAGES):
        r = top - 1 + step
        sent = next_here.to(tl.float32)
        left = _gradient(next_left, s_left, SILU)
        here = _gradient(next_here, s_here, SILU)
        right = _gradient(next_right, s_right, SILU)
        x_below = next_x.to(tl.float32)
        next_left = _load(dy, r + 1, columns - 1, channels, H, W, C, C)
        next_here = _load(dy, r + 1, columns, channels, H, W, C, C)
        next_right = _load(dy, r + 1, columns + 1, channels, H, W, C, C)
        if SILU:
            s_left = _load(s, r + 1, columns - 1, channels, H, W, C, C)
            s_here = _load(s, r + 1, columns, channels, H, W, C, C)
            s_right = _load(s, r + 1, columns + 1, channels, H, W, C, C)
        # Rows of x outside the strip are another program's: as zeros they add nothing.
        own = tl.where(step + 1 < ROWS, r + 2, -1)
        next_x = _load(x, own, columns, channels, H, W, C, x_pixel)
        done = ongoing + right * w00 + here * w01 + left * w02
        ongoing = begun + right * w10 + here * w11 + left * w12
        begun = right * w20 + here * w21 + left * w22
        if ADD == SELF:
            done += above
            above = sent
        at = ((r - 1) * W + columns)[:, None] * C + channels[None, :]
        store = (columns < tl.where((r > top) & (r <= H), W, 0))[:, None] & fits[None, :]
        tl.store(dx + at, done.to(dx.dtype.element_ty), mask=store)

        d00 += right * x_above
        d01 += here * x_above
        d02 += left * x_above
        d10 += right * x_here
        d11 += here * x_here
        d12 += left * x_here
        d20 += right * x_below
        d21 += here * x_below
        d22 += left * x_below
        d_bias += here * tl.where((step > 0) & (step <= ROWS), 1.0, 0.0)
        # Added to, or Triton 3.6 takes x_above for the constant that it and x_here begin as.
        x_above = x_here + 0.0
        x_here = x_below

    blocks = tl.cdiv(C, CHANNELS)
    sums += (tl.program_id(0) // blocks).to(tl.int64) * 10 * C + channels
    _store_nine(sums, C, fits, d00, d01, d02, d10, d11, d12, d20, d21, d22)
    tl.store(sums + 9 * C, tl.sum(d_bias, 0), mask=fits)
