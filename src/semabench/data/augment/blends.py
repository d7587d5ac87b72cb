"""Pillow's ImageEnhance: a blend of the picture with a degenerate one. Equal to the bit."""

from __future__ import annotations

import torch
from torch import Tensor


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
    """Change saturation (Color) of the first samples and Sharpness of the others.

    Args:
        pixels: uint8 (n, H, W, 3).
        factors: float32 (n,).
        saturations: how many samples are the first.
    """
    bland = gray(pixels[:saturations])[..., None].expand(-1, -1, -1, 3)
    degenerate = torch.cat([bland, smooth(pixels[saturations:])])
    return blend(degenerate, pixels, factors.view(-1, 1, 1, 1))
