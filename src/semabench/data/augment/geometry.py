"""Rotation, shear and translation: affine resampling with Pillow's rules.

An output pixel is interpolated at the point that its centre is mapped to, from the pixels around
it, those beyond the border repeated; it has the fill colour where that point is outside the
picture. Bicubic is the cubic convolution with a = −1 that Pillow's ``transform`` uses (its
``resize``, and torch's ``grid_sample``, have other coefficients). Fractions are cut off.

Coordinates are in float64, weights in float32: a picture equals Pillow's but for one or
two values in a thousand that are off by one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from semabench.data.augment.policy import OPS

#: Operations that move pixels along one axis: 4 instead of 16 pixels make one.
ALONG_X = ("ShearX", "TranslateXRel")
ALONG_Y = ("ShearY", "TranslateYRel")

# What float32 weights may lack of one, so that flat areas are not cut off to the value below.
_SLACK = 2.0**-13


def line_terms(ops: np.ndarray, values: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Say what shears and translations do to a picture of ``size``².

    Args:
        ops: int64 (n,), places in ``policy.OPS``; all in ``ALONG_X`` or ``ALONG_Y``.
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

    Args:
        degrees: float64 (n,), counter-clockwise.
        size: R of the pictures.
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
        ops: int64 (n,), places in ``policy.OPS``: first those along lines, then rotations.
        values: float64 (n,), see ``policy.arguments``.
        sizes: how many are of each.
        size: R of the pictures.

    Returns:
        Terms of all coordinates, float64 (lines + 2 rotations, 3), those of x before those of y;
        strides, int32 (lines, 3); where each picture begins, int32 (n,): 32 bits are enough for
        2,047 pictures of 1024²; int32 (R,) and float64 (R,): pixels, and their centres.
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
    """Sum weighted pixels: places, among those of all pictures, and weights (K, n, R, R)."""
    taken = pixels.view(-1, 3).index_select(0, places.view(-1))
    values = (taken.view(*places.shape, 3) * weights[..., None]).sum(0)
    values = values.add_(_SLACK).clamp_(0, 255).to(torch.uint8)
    return torch.where(inside[..., None], values, fill)
