"""Operations that map each channel's values on their own: one table of 256 entries a channel.

All equal Pillow's to the bit. Tables that do not depend on the picture are made on the CPU.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from semabench.data.augment.blends import blend, gray
from semabench.data.augment.policy import OPS

#: Tables known without looking at the picture.
FIXED = ("Invert", "Posterize", "Solarize", "SolarizeAdd", "Brightness")


def fixed_tables(ops: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the tables, uint8 (n, 256), of samples whose operations are all in ``FIXED``.

    Args:
        ops: int64 (n,), places in ``policy.OPS``.
        values: float64 (n,), see ``policy.arguments``.
    """
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

    Args:
        pixels: of the samples.
        starts: int32 (3 n,): where each channel's table begins, 0, 256, 512, …
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
    """Blend with the picture's mean gray: uint8 (n, H, W, 3) to tables, uint8 (n, 3, 256)."""
    area = pixels.shape[1] * pixels.shape[2]
    total = gray(pixels).sum(dim=(1, 2))
    mean = ((2 * total + area) // (2 * area))[:, None]  # rounded, halves up
    v = torch.arange(256, dtype=torch.int32, device=pixels.device)
    return blend(mean.int(), v, factors[:, None])[:, None].expand(-1, 3, -1)


def look_up(pixels: Tensor, tables: Tensor, starts: Tensor) -> Tensor:
    """Map uint8 (n, H, W, 3) through its tables, uint8 (n, 3, 256).

    Args:
        pixels: of the samples.
        tables: of each of their channels.
        starts: int32 (3 n,): where each channel's table begins, 0, 256, 512, …
    """
    places = starts.view(len(pixels), 1, 1, 3) + pixels
    return tables.reshape(-1).index_select(0, places.view(-1)).view(pixels.shape)
