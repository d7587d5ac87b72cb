"""Rotation, shear and translation: affine resampling with Pillow's rules.

An output pixel is interpolated at the point that its centre is mapped to, from the pixels around
it, those beyond the border repeated; it has the fill colour where that point is outside the
picture. Bicubic is the cubic convolution with a = −1 that Pillow's ``transform`` uses (its
``resize``, and torch's ``grid_sample``, have other coefficients). Fractions are cut off.

Coordinates are in float64, weights in float32: a picture equals Pillow's but for one or
two values in a thousand that are off by one.
"""

from __future__ import annotations

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


def move_along_lines(
    pixels: Tensor, terms: Tensor, strides: Tensor, fill: Tensor, interpolation: str
) -> Tensor:
    """Shear or translate uint8 (n, R, R, 3) as ``line_terms`` says."""
    n, size = pixels.shape[:2]
    step, of_x, of_y = strides.view(n, 1, 1, 3).unbind(-1)
    at, inside = _coordinate(terms, size)
    places, weights = _taps(at, size, interpolation)
    integers = torch.arange(size, dtype=torch.int32, device=pixels.device)
    rest = integers * of_x + integers[:, None] * of_y
    return _gather(pixels, places * step + rest, weights, inside, fill)


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


def rotate(pixels: Tensor, terms: Tensor, fill: Tensor, interpolation: str) -> Tensor:
    """Rotate uint8 (n, R, R, 3) as ``rotation_terms`` says."""
    n, size = pixels.shape[:2]
    at, inside = _coordinate(terms.transpose(0, 1).reshape(2 * n, 3), size)  # all x, then all y
    places, weights = _taps(at, size, interpolation)
    columns, rows = places.split(n, dim=1)
    across, down = weights.split(n, dim=1)
    square = (rows * size)[:, None] + columns
    weights = down[:, None] * across
    inside = inside[:n] & inside[n:]
    return _gather(pixels, square.flatten(0, 1), weights.flatten(0, 1), inside, fill)


def _coordinate(terms: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the input coordinate of each pixel, float64 (n, R, R), and where it is inside."""
    centres = torch.arange(size, dtype=torch.float64, device=terms.device) + 0.5
    of_x, of_y, shift = terms.view(-1, 1, 1, 3).unbind(-1)
    at = of_x * centres + (of_y * centres[:, None] + shift)
    return at, (at >= 0) & (at < size)


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
        first, weights = -1, torch.stack([-outer * e, left, right, -outer * d])
    steps = torch.arange(first, first + len(weights), dtype=torch.int32, device=at.device)
    return (floor.int() + steps.view(-1, 1, 1, 1)).clamp_(0, size - 1), weights


def _gather(
    pixels: Tensor, places: Tensor, weights: Tensor, inside: Tensor, fill: Tensor
) -> Tensor:
    """Sum weighted pixels: places and weights (K, n, R, R), places within a picture."""
    n, size = pixels.shape[:2]
    starts = (size * size) * torch.arange(n, dtype=torch.int32, device=pixels.device)
    places = places + starts.view(n, 1, 1)  # 32 bits: enough for 2,047 pictures of 1024²
    taken = pixels.view(-1, 3).index_select(0, places.view(-1))
    values = (taken.view(*places.shape, 3) * weights[..., None]).sum(0)
    values = values.add_(_SLACK).clamp_(0, 255).to(torch.uint8)
    return torch.where(inside[..., None], values, fill)
