"""A weighted sum of neighbouring pixels, its three channels at once: for kernels of numba.

The compiler does not find by itself that a pixel's channels lie side by side: it loads, multiplies
and adds byte by byte. So the sum is written as LLVM's vectors; docs/h100.md has what that gains.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
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
    return isinstance(given, types.Array) and (given.dtype, given.ndim, given.layout) == (
        dtype,
        dimensions,
        "C",
    )


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
