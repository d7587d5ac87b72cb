"""Random erasing (Zhong et al., 2020), "pixel" mode: rectangles of noise in normalised images."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from semabench.data.augment.plan import Boxes
from semabench.data.augment.transfer import send

# SplitMix64 (Steele et al., OOPSLA'14), as the signed 64-bit integers that torch has.
_GAMMA, _MIX1, _MIX2 = (
    x - (1 << 64) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def erase(images: Tensor, boxes: Boxes) -> Tensor:
    """Fill the rectangles with standard normal noise, in place, and return the images.

    Noise is a function of a rectangle's seed and the place in it, on any device. Only erased
    pixels are touched: their number is known on the CPU.

    Args:
        images: float (B, 3, R, R), normalised.
        boxes: see ``plan.Boxes``.
    """
    areas = boxes.heights * boxes.widths
    total = int(areas.sum())
    if not total:
        return images
    fields = np.stack([*boxes[:3], boxes.widths, np.cumsum(areas) - areas, boxes.seeds], 1)
    table, repeats = send([fields, areas], images.device)
    table = table.repeat_interleave(repeats, dim=0, output_size=total)
    slot, top, left, width, start, seed = table.unbind(1)
    place = torch.arange(total, device=images.device) - start
    row = place // width
    column = place - row * width
    pixels = images.permute(0, 2, 3, 1)
    pixels[slot, top + row, left + column] = noise(seed, place).to(images.dtype)
    return images


def noise(seeds: Tensor, places: Tensor) -> Tensor:
    """Return three standard normal numbers each: int64 (n,) and (n,) to float32 (n, 3).

    They are the quantiles at three 21-bit parts of number ``place`` of SplitMix64 from ``seed``.
    """
    z = seeds + (places + 1) * _GAMMA
    z = (z ^ _shift(z, 30)) * _MIX1
    z = (z ^ _shift(z, 27)) * _MIX2
    z = z ^ _shift(z, 31)
    parts = (z[:, None] >> torch.arange(0, 63, 21, device=z.device)) & 0x1FFFFF
    centred = (parts.float() + 0.5) * 2.0**-20 - 1  # the middles of 2²¹ intervals of (−1, 1)
    return torch.erfinv(centred).mul_(math.sqrt(2))


def _shift(z: Tensor, bits: int) -> Tensor:
    """Shift 64 bits to the right, zeros coming in."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
