"""The same augmentation by timm's own operations, one Pillow picture at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image
from timm.data.auto_augment import NAME_TO_OP

from semabench.data.augment.batch import PixelAugment
from semabench.data.augment.policy import NONE, OPS
from semabench.data.sampling import Samples


def augment_picture(
    picture: Image.Image, augment: PixelAugment, epoch: int, key: int
) -> Image.Image:
    """Change an RGB picture as drawn for the sample in this epoch.

    Draws are those of ``BatchAugment``: the pixels differ by the rounding of geometric operations
    alone. Erasing is not among it: it comes after normalisation, on the device, in timm's own
    loader, too.
    """
    for layer in augment.plan(Samples(epoch, np.array([key]))):
        if layer.ops[0] != NONE:
            name, value = OPS[layer.ops[0]], float(layer.values[0])
            picture = apply_operation(picture, name, value, augment)
    return picture


def apply_operation(
    picture: Image.Image, name: str, value: float, augment: PixelAugment
) -> Image.Image:
    """Apply timm's operation of this name (see ``policy.OPS``) with its argument ``value``."""
    operation: Callable[..., Image.Image] = NAME_TO_OP[name]  # type: ignore[assignment]
    if name in ("AutoContrast", "Equalize", "Invert"):
        return operation(picture)
    if name in ("Posterize", "Solarize", "SolarizeAdd"):
        if name == "Posterize" and value == 0:  # Pillow 13 refuses what was black before
            return Image.new("RGB", picture.size)
        return operation(picture, int(value))
    resample = Image.Resampling[augment.interpolation.upper()]
    return operation(picture, value, fillcolor=augment.fill, resample=resample)
