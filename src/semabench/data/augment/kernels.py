"""Augmentation of a batch as four launches of fixed shape, in Triton: what a CUDA graph can hold.

What each sample undergoes is data, not control flow: a program reads its sample's operation and
branches. So the launches of every batch are the same, whatever has been drawn, and nothing depends
on how many samples share an operation. Numbers equal those of `operations` on whole groups: tables,
blends and erasing's places to the bit, interpolated pixels but for one or two values in a thousand
that differ by one (sums of taps are rounded in another order).

Shapes: pixels are uint8 (B, R, R, 3), contiguous, which is (B, 3, R, R) channels-last.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from semabench.data.augment.plan import OPS

_AUTOCONTRAST = tl.constexpr(OPS.index("AutoContrast"))
_EQUALIZE = tl.constexpr(OPS.index("Equalize"))
_INVERT = tl.constexpr(OPS.index("Invert"))
_ROTATE = tl.constexpr(OPS.index("Rotate"))
_POSTERIZE = tl.constexpr(OPS.index("Posterize"))
_SOLARIZE = tl.constexpr(OPS.index("Solarize"))
_SOLARIZE_ADD = tl.constexpr(OPS.index("SolarizeAdd"))
_COLOR = tl.constexpr(OPS.index("Color"))
_CONTRAST = tl.constexpr(OPS.index("Contrast"))
_BRIGHTNESS = tl.constexpr(OPS.index("Brightness"))
_SHARPNESS = tl.constexpr(OPS.index("Sharpness"))
_SHEAR_X = tl.constexpr(OPS.index("ShearX"))
_SHEAR_Y = tl.constexpr(OPS.index("ShearY"))
_TRANSLATE_X = tl.constexpr(OPS.index("TranslateXRel"))
_TRANSLATE_Y = tl.constexpr(OPS.index("TranslateYRel"))

_SLACK = tl.constexpr(2.0**-13)  # see `geometry`: what float32 weights may lack of one
_MIXUP = tl.constexpr(1)
_CUTMIX = tl.constexpr(2)


@triton.jit
def _clip_u8(x):
    return tl.minimum(tl.maximum(x, 0.0), 255.0).to(tl.uint8)


@triton.jit
def _gray(red, green, blue):
    """Pillow's luminance, of int32."""
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16


@triton.jit
def table_kernel(pixels, ops, values, tables, AREA, BLOCK: tl.constexpr):
    """Write the table of one channel of one sample, if its operation has one: program (b, c)."""
    b = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1)
    op = tl.load(ops + b)
    value = tl.load(values + b)
    whole = value.to(tl.int32)
    v = tl.arange(0, 256)
    out = tables + (b * 3 + c) * 256 + v
    first = pixels + b * AREA * 3
    if op == _INVERT:
        tl.store(out, (255 - v).to(tl.uint8))
    if op == _POSTERIZE:
        bits = 8 - tl.minimum(tl.maximum(whole, 0), 8)
        tl.store(out, (v & ~((1 << bits) - 1)).to(tl.uint8))
    if op == _SOLARIZE:
        tl.store(out, tl.where(v < whole, v, 255 - v).to(tl.uint8))
    if op == _SOLARIZE_ADD:
        tl.store(out, tl.where(v < 128, tl.minimum(255, v + whole), v).to(tl.uint8))
    if op == _BRIGHTNESS:
        tl.store(out, _clip_u8(value.to(tl.float32) * v.to(tl.float32)))
    if op == _CONTRAST:
        total = tl.zeros((BLOCK,), tl.int64)
        for start in range(0, AREA, BLOCK):
            at = start + tl.arange(0, BLOCK)
            inside = at < AREA
            red = tl.load(first + at * 3, inside, other=0).to(tl.int32)
            green = tl.load(first + at * 3 + 1, inside, other=0).to(tl.int32)
            blue = tl.load(first + at * 3 + 2, inside, other=0).to(tl.int32)
            total += tl.where(inside, _gray(red, green, blue), 0)
        mean = ((2 * tl.sum(total) + AREA) // (2 * AREA)).to(tl.int32)
        shift = (v - mean).to(tl.float32) * value.to(tl.float32)
        tl.store(out, _clip_u8(shift + mean.to(tl.float32)))
    if (op == _AUTOCONTRAST) | (op == _EQUALIZE):
        counts = tl.zeros((256,), tl.int32)
        padded = 0
        for start in range(0, AREA, BLOCK):
            at = start + tl.arange(0, BLOCK)
            x = tl.load(first + at * 3 + c, at < AREA, other=0).to(tl.int32)
            counts += tl.histogram(x, 256)
            padded = start + BLOCK - AREA
        counts -= tl.where(v == 0, padded, 0)  # what the last block has beyond the image
        low = tl.min(tl.where(counts > 0, v, 255))
        high = tl.max(tl.where(counts > 0, v, 0))
        if op == _AUTOCONTRAST:
            span = (high - low).to(tl.float64)
            scale = 255.0 / tl.where(high > low, span, 1.0)
            stretched = v.to(tl.float64) * scale + -low.to(tl.float64) * scale
            stretched = tl.minimum(tl.maximum(stretched, 0.0), 255.0).to(tl.int32)
            tl.store(out, tl.where(high > low, stretched, v).to(tl.uint8))
        else:
            brightest = tl.sum(tl.where(v == high, counts, 0))
            step = (AREA - brightest) // 255
            below = tl.cumsum(counts, 0) - counts
            flat = tl.minimum((step // 2 + below) // tl.maximum(step, 1), 255)
            tl.store(out, tl.where(step > 0, flat, v).to(tl.uint8))


@triton.jit
def _weight(d, k: tl.constexpr, CUBIC: tl.constexpr):
    """The weight of tap k at the fraction d; in the order of rounding of `geometry`."""
    e = 1 - d
    if not CUBIC:
        w = e if k == 0 else d
    elif k == 0:
        w = -(d * e) * e
    elif k == 1:
        w = 1 - d * d * (2 - d)
    elif k == 2:
        w = 1 - e * e * (1 + d)
    else:
        w = -(d * e) * d
    return w


@triton.jit
def _smooth(first, x, y, R, c: tl.constexpr, inside):
    """Pillow's SMOOTH at (x, y); the border as it was."""
    centre = tl.load(first + (y * R + x) * 3 + c, inside, other=0).to(tl.int32)
    inner = inside & (x > 0) & (x < R - 1) & (y > 0) & (y < R - 1)
    box = tl.zeros_like(centre)
    for dy in tl.static_range(-1, 2):
        for dx in tl.static_range(-1, 2):
            at = first + ((y + dy) * R + x + dx) * 3 + c
            box += tl.load(at, inner, other=0).to(tl.int32)
    return tl.where(inner, (2 * (4 * centre + box) + 13) // 26, centre), centre


@triton.jit
def layer_kernel(
    source, target, ops, values, terms, tables, fill, R, CUBIC: tl.constexpr, BLOCK: tl.constexpr
):
    """Write BLOCK pixels of one sample after its operation: program (b, block)."""
    b = tl.program_id(0).to(tl.int64)
    area = R * R
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < area
    op = tl.load(ops + b)
    first = source + b * area * 3
    out = target + b * area * 3 + at * 3
    x = at % R
    y = at // R
    along_x = (op == _SHEAR_X) | (op == _TRANSLATE_X)
    along_y = (op == _SHEAR_Y) | (op == _TRANSLATE_Y)
    if along_x | along_y | (op == _ROTATE):
        row = terms + b * 6
        cx = x.to(tl.float64) + 0.5
        cy = y.to(tl.float64) + 0.5
        ax = tl.load(row) * cx + (tl.load(row + 1) * cy + tl.load(row + 2))
        ay = tl.load(row + 3) * cx + (tl.load(row + 4) * cy + tl.load(row + 5))
        within = (ax >= 0) & (ax < R) & (ay >= 0) & (ay < R)
        ax -= 0.5
        ay -= 0.5
        fx = tl.floor(ax)
        fy = tl.floor(ay)
        dx = (ax - fx).to(tl.float32)
        dy = (ay - fy).to(tl.float32)
        ix = fx.to(tl.int32)
        iy = fy.to(tl.int32)
        TAPS: tl.constexpr = 4 if CUBIC else 2
        FIRST: tl.constexpr = -1 if CUBIC else 0
        for c in tl.static_range(3):
            total = tl.zeros((BLOCK,), tl.float32)
            if op == _ROTATE:
                for j in tl.static_range(TAPS):
                    py = tl.minimum(tl.maximum(iy + (FIRST + j), 0), R - 1)
                    wy = _weight(dy, j, CUBIC)
                    for i in tl.static_range(TAPS):
                        px = tl.minimum(tl.maximum(ix + (FIRST + i), 0), R - 1)
                        w = wy * _weight(dx, i, CUBIC)
                        taken = tl.load(first + (py * R + px) * 3 + c, inside, other=0)
                        total += taken.to(tl.float32) * w
            else:
                for i in tl.static_range(TAPS):
                    k = tl.where(along_x, ix, iy) + (FIRST + i)
                    k = tl.minimum(tl.maximum(k, 0), R - 1)
                    w = _weight(tl.where(along_x, dx, dy), i, CUBIC)
                    place = tl.where(along_x, y * R + k, k * R + x)
                    taken = tl.load(first + place * 3 + c, inside, other=0)
                    total += taken.to(tl.float32) * w
            moved = _clip_u8(total + _SLACK)
            tl.store(out + c, tl.where(within, moved, tl.load(fill + c)), inside)
    elif (op == _COLOR) | (op == _SHARPNESS):
        factor = tl.load(values + b).to(tl.float32)
        red = tl.load(first + at * 3, inside, other=0).to(tl.int32)
        green = tl.load(first + at * 3 + 1, inside, other=0).to(tl.int32)
        blue = tl.load(first + at * 3 + 2, inside, other=0).to(tl.int32)
        gray = _gray(red, green, blue)
        for c in tl.static_range(3):
            plain = tl.load(first + at * 3 + c, inside, other=0).to(tl.int32)
            bland = gray
            if op == _SHARPNESS:
                bland, _ = _smooth(first, x, y, R, c, inside)
            shift = (plain - bland).to(tl.float32) * factor
            tl.store(out + c, _clip_u8(shift + bland.to(tl.float32)), inside)
    else:
        for c in tl.static_range(3):
            value = tl.load(first + at * 3 + c, inside, other=0)
            if op >= 0:
                value = tl.load(tables + (b * 3 + c) * 256 + value.to(tl.int32), inside, other=0)
            tl.store(out + c, value, inside)


@triton.jit
def _shift_right(z, bits: tl.constexpr):
    """Shift int64 to the right, zeros coming in."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


@triton.jit
def _normal(z, c: tl.constexpr):
    """The standard normal quantile at the c-th 21 bits of z (Giles 2010's inverse of erf)."""
    x = (((z >> (21 * c)) & 0x1FFFFF).to(tl.float32) + 0.5) * 9.5367431640625e-07 - 1.0
    w = -tl.log((1.0 - x) * (1.0 + x))
    s = w - 2.5
    p = 2.81022636e-08 * s + 3.43273939e-07
    p = p * s + -3.5233877e-06
    p = p * s + -4.39150654e-06
    p = p * s + 0.00021858087
    p = p * s + -0.00125372503
    p = p * s + -0.00417768164
    p = p * s + 0.246640727
    p = p * s + 1.50140941
    t = tl.sqrt(w) - 3.0
    q = -0.000200214257 * t + 0.000100950558
    q = q * t + 0.00134934322
    q = q * t + -0.00367342844
    q = q * t + 0.00573950773
    q = q * t + -0.0076224613
    q = q * t + 0.00943887047
    q = q * t + 1.00167406
    q = q * t + 2.83297682
    return tl.where(w < 5.0, p, q) * x * 1.4142135623730951


@triton.jit
def _finished(pixels, shift, scale, boxes, seeds, b, x, y, R, at, c: tl.constexpr, inside):
    """Normalised values of channel c of sample b, its rectangle erased: float32."""
    value = tl.load(pixels + b * R * R * 3 + at * 3 + c, inside, other=0).to(tl.float32)
    value = (value - tl.load(shift + c)) * tl.load(scale + c)
    height = tl.load(boxes + b * 4 + 2)
    if height > 0:
        width = tl.load(boxes + b * 4 + 3)
        row = y - tl.load(boxes + b * 4)
        column = x - tl.load(boxes + b * 4 + 1)
        erased = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        place = (row * width + column).to(tl.int64)
        z = tl.load(seeds + b) + (place + 1) * -7046029254386353131
        z = (z ^ _shift_right(z, 30)) * -4658895280553007687
        z = (z ^ _shift_right(z, 27)) * -7723592293110705685
        z = z ^ _shift_right(z, 31)
        value = tl.where(erased, _normal(z, c), value)
    return value


@triton.jit
def finish_kernel(
    pixels, images, shift, scale, boxes, seeds, mode, box, lam, B, R, BLOCK: tl.constexpr
):
    """Normalise, erase and mix BLOCK pixels of one sample: program (b, block)."""
    b = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < R * R
    x = at % R
    y = at // R
    how = tl.load(mode)
    other = B - 1 - b
    out = images + b * R * R * 3 + at * 3
    for c in tl.static_range(3):
        value = _finished(pixels, shift, scale, boxes, seeds, b, x, y, R, at, c, inside)
        if how == _MIXUP:
            keep, rest = tl.load(lam), tl.load(lam + 1)
            mate = _finished(pixels, shift, scale, boxes, seeds, other, x, y, R, at, c, inside)
            value = mate * rest + keep * value
        if how == _CUTMIX:
            mate = _finished(pixels, shift, scale, boxes, seeds, other, x, y, R, at, c, inside)
            cut = (y >= tl.load(box)) & (y < tl.load(box + 1))
            cut = cut & (x >= tl.load(box + 2)) & (x < tl.load(box + 3))
            value = tl.where(cut, mate, value)
        tl.store(out + c, value, inside)


def apply_layer(
    source: Tensor,
    target: Tensor,
    ops: Tensor,
    values: Tensor,
    terms: Tensor,
    tables: Tensor,
    fill: Tensor,
    cubic: bool,
) -> None:
    """Write uint8 ``source`` (B, R, R, 3) to ``target``, each sample after its operation.

    Args:
        source, target: contiguous, not the same.
        ops: int32 (B,), places in ``policy.OPS``, or −1.
        values: float64 (B,), see ``policy.arguments``.
        terms: float64 (B, 6): what maps an output to an input coordinate, of x and of y.
        tables: uint8 (B, 3, 256), scratch.
        fill: uint8 (3,).
        cubic: bicubic, or bilinear.
    """
    B, R = source.shape[:2]
    # Products and sums are rounded one by one, as Pillow's are: never fused.
    table_kernel[(B, 3)](
        source, ops, values, tables, R * R, BLOCK=2048, num_warps=8, enable_fp_fusion=False
    )
    layer_kernel[(B, triton.cdiv(R * R, 1024))](
        source, target, ops, values, terms, tables, fill, R,
        CUBIC=cubic, BLOCK=1024, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip


def finish(
    pixels: Tensor,
    images: Tensor,
    shift: Tensor,
    scale: Tensor,
    boxes: Tensor,
    seeds: Tensor,
    mode: Tensor,
    box: Tensor,
    lam: Tensor,
) -> None:
    """Write float32 ``images`` (B, R, R, 3): normalised, erased, mixed with the batch in reverse.

    Args:
        pixels: uint8 (B, R, R, 3), contiguous.
        shift, scale: float32 (3,): (x − shift) · scale.
        boxes: int32 (B, 4): top, left, height, width; a height of 0 erases nothing.
        seeds: int64 (B,): where each rectangle's noise begins.
        mode: int32 (1,): 0 mixes nothing, 1 is mixup, 2 cutmix.
        box: int32 (4,): top, bottom, left, right of cutmix.
        lam: float32 (2,): of mixup: λ, and 1 − λ.
    """
    B, R = pixels.shape[:2]
    finish_kernel[(B, triton.cdiv(R * R, 1024))](
        pixels, images, shift, scale, boxes, seeds, mode, box, lam, B, R,
        BLOCK=1024, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
