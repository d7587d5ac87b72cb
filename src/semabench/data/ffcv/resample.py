"""Pillow's resampling, to the bit, as a numba kernel: what torchvision's and timm's training sees.

libffcv offers OpenCV's INTER_AREA alone, which repeats pixels where it enlarges, as most random
crops do at high resolution. Here is the two-pass convolution of Pillow's ``Image.resize`` for 8-bit
images: a triangle or cubic filter, stretched by the scale where it shrinks (anti-aliasing),
coefficients in fixed point with 22 fractional bits, and rounding to 8 bits after each pass.

The compiler does not find by itself that a pixel's channels lie side by side: it loads, multiplies
and adds byte by byte. So the weighted sum is written as LLVM's vectors, which makes the loader
a third faster (benchmarks/loader.py).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

PRECISION_BITS = 32 - 8 - 2
"""Fractional bits of a weight: Pillow's, so that a sum of bytes so weighted fits into 32 bits."""

_I32 = ir.IntType(32)
_PIXEL = ir.VectorType(ir.IntType(8), 4)
_SUMS = ir.VectorType(_I32, 4)


def _all_lanes(value: int) -> ir.Constant:
    return ir.Constant(_SUMS, [value] * 4)


def _is_array(given: types.Type, dtype: types.Type, dimensions: int) -> bool:
    """Tell whether a type is that of a contiguous array of these."""
    wanted = (dtype, dimensions, "C")
    return isinstance(given, types.Array) and (given.dtype, given.ndim, given.layout) == wanted


def _weigh_pixels(typing_context, pixels, first, weights, row, count) -> Any:  # type: ignore[no-untyped-def]
    """Return red | green << 8 | blue << 16 of ``count`` neighbouring pixels, weighted and rounded.

    Four bytes are loaded where a pixel has three: **the byte behind the last pixel must exist**.
    Bits 24 to 31 of the result are what comes of it.

    Args:
        pixels: uint8, contiguous, one dimension.
        first: place of the first pixel's red in ``pixels``.
        weights: int32 (rows, depth), contiguous, with ``PRECISION_BITS`` fractional bits.
        row: of ``weights``.
        count: of pixels, at most ``depth``.

    Raises:
        numba.TypingError: at compile time, arrays of other types or layouts.
    """
    if not (_is_array(pixels, types.uint8, 1) and _is_array(weights, types.int32, 2)):
        return None  # which numba reports as a type error, with the types it was given
    signature = types.uint32(pixels, types.intp, weights, types.intp, types.intp)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        pixels, first, weights, row, count = arguments
        bytes_ = context.make_array(signature.args[0])(context, builder, pixels).data
        table = context.make_array(signature.args[2])(context, builder, weights)
        depth = builder.extract_value(table.shape, 1)
        row_start = builder.gep(table.data, [builder.mul(row, depth)])
        sums = cgutils.alloca_once_value(builder, _all_lanes(1 << (PRECISION_BITS - 1)))
        with cgutils.for_range(builder, count) as loop:
            place = builder.add(first, builder.mul(loop.index, ir.Constant(loop.index.type, 3)))
            address = builder.bitcast(builder.gep(bytes_, [place]), _PIXEL.as_pointer())
            pixel = builder.load(address, align=1)
            weight = builder.load(builder.gep(row_start, [loop.index]))
            undefined = ir.Constant(_SUMS, ir.Undefined)
            lanes = builder.insert_element(undefined, weight, ir.Constant(_I32, 0))
            lanes = builder.shuffle_vector(lanes, undefined, _all_lanes(0))
            term = builder.mul(builder.zext(pixel, _SUMS), lanes)
            builder.store(builder.add(builder.load(sums), term), sums)
        values = builder.ashr(builder.load(sums), _all_lanes(PRECISION_BITS))
        for worse, limit in (("<", 0), (">", 255)):
            beyond = builder.icmp_signed(worse, values, _all_lanes(limit))
            values = builder.select(beyond, _all_lanes(limit), values)
        return builder.bitcast(builder.trunc(values, _PIXEL), _I32)

    return signature, generate


weigh_pixels: Any = intrinsic(_weigh_pixels)


HALF = 1 << (PRECISION_BITS - 1)

#: Radius of each filter's support, in pixels of the smaller image. The value is also its code.
SUPPORT = {"bilinear": 1, "bicubic": 2}


@njit(nogil=True, error_model="numpy", inline="always")
def _filter(support: int, x: float) -> float:
    x = abs(x)
    if support == 1:
        return max(0.0, 1.0 - x)
    if x < 1.0:  # Keys' cubic with a = −0.5
        return (1.5 * x - 2.5) * x * x + 1
    if x < 2.0:
        return ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return 0.0


@njit(nogil=True, error_model="numpy")
def _coefficients(  # type: ignore[no-untyped-def]
    in_size, out_size, support, starts, counts, weights
) -> None:
    """Fill, for each of ``out_size`` pixels, its first source pixel, their number and weights."""
    scale = in_size / out_size
    stretch = max(scale, 1.0)
    reach = support * stretch
    shrink = 1.0 / stretch
    for out in range(out_size):
        center = (out + 0.5) * scale
        start = max(0, int(center - reach + 0.5))
        count = min(in_size, int(center + reach + 0.5)) - start
        total = 0.0
        for k in range(count):
            total += _filter(support, (k + start - center + 0.5) * shrink)
        for k in range(count):
            weight = _filter(support, (k + start - center + 0.5) * shrink)
            if total != 0.0:
                weight = weight * (1.0 / total)
            rounding = -0.5 if weight < 0 else 0.5
            weights[out, k] = np.int32(rounding + weight * (1 << PRECISION_BITS))
        starts[out] = start
        counts[out] = count


@njit(nogil=True, error_model="numpy", inline="always")
def _clip8(value):  # type: ignore[no-untyped-def]
    return np.uint8(min(max(value >> PRECISION_BITS, 0), 255))


@njit(nogil=True, error_model="numpy")
def _tables(in_size, out_size, support):  # type: ignore[no-untyped-def]
    """Allocate and fill the coefficient tables of one pass."""
    depth = math.ceil(support * max(in_size / out_size, 1.0)) * 2 + 1
    starts = np.empty(out_size, np.int64)
    counts = np.empty(out_size, np.int64)
    weights = np.empty((out_size, depth), np.int32)
    _coefficients(in_size, out_size, support, starts, counts, weights)
    return starts, counts, weights


@njit(nogil=True, error_model="numpy")
def _row(pixels, first, starts, counts, weights, mirror, target) -> None:  # type: ignore[no-untyped-def]
    """Bring the pixels from place ``first`` on to the columns of ``target``, (R', 3)."""
    columns = len(target)
    for column in range(columns):
        colors = weigh_pixels(pixels, first + 3 * starts[column], weights, column, counts[column])
        x = columns - 1 - column if mirror else column
        target[x, 0] = colors & 255
        target[x, 1] = colors >> 8 & 255
        target[x, 2] = colors >> 16 & 255


@njit(nogil=True, error_model="numpy")
def _horizontal(source, top, left, height, width, support, mirror, target) -> None:  # type: ignore[no-untyped-def]
    """Bring ``height`` rows of the box from ``width`` to the columns of ``target``."""
    starts, counts, weights = _tables(width, target.shape[1], support)
    pixels = source.reshape(source.size)
    pitch = 3 * source.shape[1]
    first = top * pitch + 3 * left
    for y in range(height - 1):
        _row(pixels, first, starts, counts, weights, mirror, target[y])
        first += pitch
    # Behind the last row there may be nothing, and `weigh_pixels` looks at one byte of it.
    last = np.zeros(3 * width + 1, np.uint8)
    last[:-1] = pixels[first : first + 3 * width]
    _row(last, 0, starts, counts, weights, mirror, target[height - 1])


@njit(nogil=True, error_model="numpy")
def _vertical(source, top, left, height, width, support, target) -> None:  # type: ignore[no-untyped-def]
    """Bring ``width`` columns of the box from ``height`` to the rows of ``target``."""
    starts, counts, weights = _tables(height, target.shape[0], support)
    sums = np.empty(width * 3, np.int32)
    source_rows = source.reshape(source.shape[0], source.shape[1] * 3)
    target_rows = target.reshape(target.shape[0], target.shape[1] * 3)
    for y in range(target.shape[0]):
        sums[:] = HALF
        for k in range(counts[y]):
            weight = weights[y, k]
            row = source_rows[top + starts[y] + k, left * 3 : (left + width) * 3]
            for x in range(width * 3):
                sums[x] = np.int32(sums[x] + np.int32(row[x]) * weight)
        for x in range(width * 3):
            target_rows[y, x] = _clip8(sums[x])


@njit(nogil=True, error_model="numpy")
def resize(source, top, left, height, width, support, mirror, scratch, target) -> None:  # type: ignore[no-untyped-def]
    """Resize a box of ``source`` into ``target``; nothing outside the box is looked at.

    Args:
        source: uint8 (H, W, 3), contiguous.
        top, left, height, width: the box, inside the source.
        support: the filter, a value of ``SUPPORT``.
        mirror: whether to flip the result horizontally.
        scratch: uint8, at least ``3 · max(height · R', R · width)`` bytes.
        target: uint8 (R, R', 3), written.
    """
    rows, columns = target.shape[0], target.shape[1]
    # Pillow's choice (13.0): the pass that shrinks much more goes first.
    if height > rows and height - rows > 2 * (width - columns):
        between = scratch[: 3 * rows * width].reshape(rows, width, 3)
        _vertical(source, top, left, height, width, support, between)
        _horizontal(between, 0, 0, rows, width, support, mirror, target)
    else:
        between = scratch[: 3 * height * columns].reshape(height, columns, 3)
        _horizontal(source, top, left, height, width, support, mirror, between)
        _vertical(between, 0, 0, height, columns, support, target)
