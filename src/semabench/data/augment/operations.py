"""timm's operations on groups of samples: look-up tables, blends and affine resampling.

What maps each channel's values on their own is a table of 256 entries a channel; Pillow's
ImageEnhance is a blend of the image with a degenerate one. Both equal Pillow's to the bit.

Rotation, shear and translation resample with Pillow's rules. An output pixel is interpolated at the
point that its centre is mapped to, from the pixels around it, those beyond the border repeated; it
has the fill colour where that point is outside the image. Bicubic is the cubic convolution with
a = −1 that Pillow's ``transform`` uses (its ``resize``, and torch's ``grid_sample``, have other
coefficients). Fractions are cut off. Coordinates are in float64, weights in float32: an image
equals Pillow's but for one or two values in a thousand that are off by one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from semabench.data.augment.plan import OPS


def blend(degenerate: Tensor, pixels: Tensor, factors: Tensor) -> Tensor:
    """Return degenerate + factor · (pixels − degenerate), cut off to uint8.

    Args:
        degenerate: int32, what factor 0 gives.
        pixels: uint8 or int32, what factor 1 gives.
        factors: float32, broadcast against both.
    """
    # As Pillow, in float32 with two roundings: one fused operation could differ from it.
    shift = (pixels - degenerate) * factors
    return shift.add_(degenerate).clamp_(0, 255).to(torch.uint8)


def gray(pixels: Tensor) -> Tensor:
    """Return Pillow's luminance (ITU-R 601-2 in 16-bit fixed point): uint8 (n, H, W, 3) to int32
    (n, H, W).
    """
    red, green, blue = pixels.int().unbind(-1)
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16


def smooth(pixels: Tensor) -> Tensor:
    """Return Pillow's ImageFilter.SMOOTH: uint8 (n, H, W, 3) to int32, borders as they were.

    The kernel is [1 1 1; 1 5 1; 1 1 1] / 13. A sum of integers over 13 is never half an integer:
    integers round as Pillow's floats do.
    """
    out = pixels.int()
    rows = out[:, :-2] + out[:, 1:-1] + out[:, 2:]
    box = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    inner = out[:, 1:-1, 1:-1]
    inner.mul_(4).add_(box).mul_(2).add_(13).floor_divide_(26)
    return out


def enhance(pixels: Tensor, factors: Tensor, saturations: int) -> Tensor:
    """Change saturation (Color) of the first ``saturations`` samples and Sharpness of the others.

    ``pixels`` are uint8 (n, H, W, 3), ``factors`` float32 (n,).
    """
    bland = gray(pixels[:saturations])[..., None].expand(-1, -1, -1, 3)
    degenerate = torch.cat([bland, smooth(pixels[saturations:])])
    return blend(degenerate, pixels, factors.view(-1, 1, 1, 1))


#: Tables known without looking at the image.
FIXED = ("Invert", "Posterize", "Solarize", "SolarizeAdd", "Brightness")


def fixed_tables(ops: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the tables, uint8 (n, 256), of ``ops``, all in ``FIXED``, at ``values``: both (n,)."""
    v = np.arange(256)
    value = values[:, None]
    whole = value.astype(np.int64)
    # Pillow blends with black in C's float and cuts off the fraction.
    bright = np.clip(value.astype(np.float32) * v.astype(np.float32), 0, 255)
    of = {
        "Invert": np.broadcast_to(255 - v, (len(ops), 256)),
        "Posterize": v & ~((1 << (8 - whole.clip(0, 8))) - 1),
        "Solarize": np.where(v < whole, v, 255 - v),
        "SolarizeAdd": np.where(v < 128, np.minimum(255, v + whole), v),
        "Brightness": bright.astype(np.int64),
    }
    tables = np.zeros((len(ops), 256), np.int64)
    for name, table in of.items():
        rows = ops == OPS.index(name)
        tables[rows] = table[rows]
    return tables.astype(np.uint8)


def autocontrast_tables(pixels: Tensor) -> Tensor:
    """Stretch each channel to 0…255: uint8 (n, H, W, 3) to tables, uint8 (n, 3, 256)."""
    low = pixels.amin(dim=(1, 2)).double()[:, :, None]
    high = pixels.amax(dim=(1, 2)).double()[:, :, None]
    v = torch.arange(256, dtype=torch.float64, device=pixels.device)
    # A tensor over a tensor: of a number over one, torch makes a product with the reciprocal.
    # Infinite for a channel of one value, which stays as it is.
    scale = torch.full_like(low, 255.0) / (high - low)
    stretched = (v * scale + -low * scale).clamp_(0, 255)
    return torch.where(high > low, stretched, v).to(torch.uint8)


def equalize_tables(pixels: Tensor, starts: Tensor) -> Tensor:
    """Flatten each channel's histogram: uint8 (n, H, W, 3) to tables, uint8 (n, 3, 256).

    ``starts``, int32 (3 n,), is where each channel's table begins: 0, 256, 512, …
    """
    n, device = len(pixels), pixels.device
    places = starts.long().view(n, 1, 1, 3) + pixels
    ones = torch.ones((), dtype=torch.int32, device=device).expand(places.numel())
    counts = torch.zeros(n * 3 * 256, dtype=torch.int32, device=device)
    counts = counts.scatter_add_(0, places.view(-1), ones).view(n, 3, 256)
    brightest = counts.gather(2, pixels.amax(dim=(1, 2)).long()[:, :, None])
    step = (pixels.shape[1] * pixels.shape[2] - brightest) // 255  # 0 for a channel of one value
    divisor = step.clamp(min=1)
    below = counts.cumsum(2, dtype=torch.int32) - counts
    flat = ((step // 2 + below) // divisor).clamp_(max=255)
    v = torch.arange(256, dtype=torch.int32, device=device)
    return torch.where(step > 0, flat, v).to(torch.uint8)


def contrast_tables(pixels: Tensor, factors: Tensor) -> Tensor:
    """Blend with the image's mean gray: uint8 (n, H, W, 3) to tables, uint8 (n, 3, 256)."""
    area = pixels.shape[1] * pixels.shape[2]
    total = gray(pixels).sum(dim=(1, 2))
    mean = ((2 * total + area) // (2 * area))[:, None]  # rounded, halves up
    v = torch.arange(256, dtype=torch.int32, device=pixels.device)
    return blend(mean.int(), v, factors[:, None])[:, None].expand(-1, 3, -1)


def look_up(pixels: Tensor, tables: Tensor, starts: Tensor) -> Tensor:
    """Map uint8 (n, H, W, 3) through its tables, uint8 (n, 3, 256), which begin at ``starts``."""
    places = starts.view(len(pixels), 1, 1, 3) + pixels
    return tables.reshape(-1).index_select(0, places.view(-1)).view(pixels.shape)


#: Operations that move pixels along one axis: 4 instead of 16 pixels make one.
ALONG_X = ("ShearX", "TranslateXRel")
ALONG_Y = ("ShearY", "TranslateYRel")

# What float32 weights may lack of one, so that flat areas are not cut off to the value below.
_SLACK = 2.0**-13


def line_terms(ops: np.ndarray, values: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Say what shears and translations do to an image of ``size``².

    Args:
        ops: int64 (n,), places in ``plan.OPS``; all in ``ALONG_X`` or ``ALONG_Y``.
        values: float64 (n,): slope, or share of the side.

    Returns:
        float64 (n, 3): the moving coordinate is the product with (x, y, 1) of a pixel's centre;
        int32 (n, 3): distance in memory of two pixels along the moving axis, and of the pixel
        itself a step of x and of y along the other axis.
    """
    along_x = np.isin(ops, [OPS.index(name) for name in ALONG_X])
    shear = np.isin(ops, [OPS.index(name) for name in ("ShearX", "ShearY")])
    slope = np.where(shear, values, 0.0)
    shift = np.where(shear, 0.0, values * size)
    terms = np.stack([np.where(along_x, 1.0, slope), np.where(along_x, slope, 1.0), shift], 1)
    strides = np.where(along_x[:, None], [1, 0, size], [size, 1, 0])
    return terms, strides.astype(np.int32)


def rotation_terms(degrees: np.ndarray, size: int) -> np.ndarray:
    """Return what maps an output to an input coordinate: float64 (n, 2, 3), of x and of y.

    ``degrees``, float64 (n,), are counter-clockwise.
    """
    angle = -np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    centre = size / 2
    of_x = np.stack([cos, sin, centre - (cos + sin) * centre], 1)
    of_y = np.stack([-sin, cos, centre - (cos - sin) * centre], 1)
    return np.stack([of_x, of_y], 1)


def moves(ops: np.ndarray, values: np.ndarray, sizes: Sequence[int], size: int) -> list[np.ndarray]:
    """Return what ``move`` wants on the device.

    Args:
        ops: int64 (n,), places in ``plan.OPS``: first those along lines, then rotations.
        values: float64 (n,), see ``plan.arguments``.
        sizes: how many are of each.
        size: R of the images.

    Returns:
        Terms of all coordinates, float64 (lines + 2 rotations, 3), those of x before those of y;
        strides, int32 (lines, 3); where each image begins, int32 (n,): 32 bits are enough for
        2,047 images of 1024²; int32 (R,) and float64 (R,): pixels, and their centres.
    """
    lines, rotations = sizes
    of_lines, strides = line_terms(ops[:lines], values[:lines], size)
    turned = rotation_terms(values[lines:], size).transpose(1, 0, 2).reshape(2 * rotations, 3)
    pixels = np.arange(size, dtype=np.int32)
    starts = size * size * np.arange(lines + rotations, dtype=np.int32)
    return [np.concatenate([of_lines, turned]), strides, starts, pixels, pixels + 0.5]


def move(
    pixels: Tensor, sizes: Sequence[int], arrays: Sequence[Tensor], fill: Tensor, interpolation: str
) -> list[Tensor]:
    """Shear, translate and rotate uint8 (n, R, R, 3) as ``moves`` says; return the parts moved."""
    lines, rotations = sizes
    if not lines + rotations:
        return []
    terms, strides, starts, integers, centres = arrays
    size = pixels.shape[1]
    at, inside = _coordinate(terms, centres)
    places, weights = _taps(at, size, interpolation)
    parts = lines, rotations, rotations
    along, columns, rows = places.split(parts, dim=1)
    single, across, down = weights.split(parts, dim=1)
    inside_line, inside_x, inside_y = inside.split(parts)
    first = starts.view(-1, 1, 1)
    moved = []
    if lines:
        step, of_x, of_y = strides.view(lines, 1, 1, 3).unbind(-1)
        rest = first[:lines] + integers * of_x + integers[:, None] * of_y
        taps = along * step + rest
        moved.append(_gather(pixels, taps, single, inside_line, fill))
    if rotations:
        square = torch.add(first[lines:], rows, alpha=size)[:, None] + columns
        weights = (down[:, None] * across).flatten(0, 1)
        within = inside_x & inside_y
        moved.append(_gather(pixels, square.flatten(0, 1), weights, within, fill))
    return moved


def _coordinate(terms: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Return the input coordinate of each pixel, float64 (n, R, R), and where it is inside."""
    of_x, of_y, shift = terms.view(-1, 1, 1, 3).unbind(-1)
    at = of_x * centres + (of_y * centres[:, None] + shift)
    return at, (at >= 0) & (at < len(centres))


def _taps(at: Tensor, size: int, interpolation: str) -> tuple[Tensor, Tensor]:
    """Return the neighbours of each coordinate, int32 (K, n, R, R), and their float32 weights."""
    at = at - 0.5
    floor = at.floor()
    d = (at - floor).float()
    if interpolation == "bilinear":
        first, weights = 0, torch.stack([1 - d, d])
    else:
        e = 1 - d
        outer, inner = d * e, d * d  # Horner, once from each side
        left = 1 - inner * (2 - d)  # w(d) = 1 − 2d² + d³
        right = 1 - e * e * (1 + d)
        outer = -outer
        first, weights = -1, torch.stack([outer * e, left, right, outer * d])
    steps = torch.arange(first, first + len(weights), dtype=torch.int32, device=at.device)
    return (floor.int() + steps.view(-1, 1, 1, 1)).clamp_(0, size - 1), weights


def _gather(
    pixels: Tensor, places: Tensor, weights: Tensor, inside: Tensor, fill: Tensor
) -> Tensor:
    """Sum weighted pixels: places, among those of all images, and weights (K, n, R, R)."""
    taken = pixels.view(-1, 3).index_select(0, places.view(-1))
    values = (taken.view(*places.shape, 3) * weights[..., None]).sum(0)
    values = values.add_(_SLACK).clamp_(0, 255).to(torch.uint8)
    return torch.where(inside[..., None], values, fill)
