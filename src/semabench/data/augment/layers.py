"""One layer of a plan on a batch: samples with like operations are worked on together.

Every group is picked by indices that the CPU knows, so nothing waits for the device.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from semabench.data.augment.blends import enhance
from semabench.data.augment.geometry import (
    ALONG_X,
    ALONG_Y,
    line_terms,
    move_along_lines,
    rotate,
    rotation_terms,
)
from semabench.data.augment.plan import Layer
from semabench.data.augment.policy import OPS
from semabench.data.augment.tables import (
    FIXED,
    autocontrast_tables,
    contrast_tables,
    equalize_tables,
    fixed_tables,
    look_up,
)
from semabench.data.augment.transfer import send


def apply_layer(pixels: Tensor, layer: Layer, fill: Tensor, interpolation: str) -> None:
    """Change uint8 pixels (B, R, R, 3) in place.

    Args:
        pixels: contiguous.
        layer: of B samples.
        fill: uint8 (3,), where rotation, shear and translation uncover nothing.
        interpolation: of those: bicubic or bilinear.
    """
    _apply_tables(pixels, layer)
    _apply_blends(pixels, layer)
    _apply_lines(pixels, layer, fill, interpolation)
    _apply_rotations(pixels, layer, fill, interpolation)


def _slots(layer: Layer, *names: str) -> np.ndarray:
    return np.flatnonzero(np.isin(layer.ops, [OPS.index(name) for name in names]))


def _apply_tables(pixels: Tensor, layer: Layer) -> None:
    groups = [_slots(layer, *names) for names in (FIXED, ["AutoContrast"], ["Equalize"])]
    groups.append(_slots(layer, "Contrast"))
    slots = np.concatenate(groups)
    if not len(slots):
        return
    fixed, factors = groups[0], layer.values[groups[3]].astype(np.float32)
    made = fixed_tables(layer.ops[fixed], layer.values[fixed])
    places, known, strengths = send([slots, made, factors], pixels.device)
    chosen = pixels.index_select(0, places)
    _, stretch, flatten, contrast = chosen.split([len(group) for group in groups])
    tables = [known[:, None].expand(-1, 3, -1)]
    if len(stretch):
        tables.append(autocontrast_tables(stretch))
    if len(flatten):
        tables.append(equalize_tables(flatten))
    if len(contrast):
        tables.append(contrast_tables(contrast, strengths))
    pixels.index_copy_(0, places, look_up(chosen, torch.cat(tables)))


def _apply_blends(pixels: Tensor, layer: Layer) -> None:
    saturations, sharpnesses = _slots(layer, "Color"), _slots(layer, "Sharpness")
    slots = np.concatenate([saturations, sharpnesses])
    if not len(slots):
        return
    places, factors = send([slots, layer.values[slots].astype(np.float32)], pixels.device)
    changed = enhance(pixels.index_select(0, places), factors, len(saturations))
    pixels.index_copy_(0, places, changed)


def _apply_lines(pixels: Tensor, layer: Layer, fill: Tensor, interpolation: str) -> None:
    slots = _slots(layer, *ALONG_X, *ALONG_Y)
    if not len(slots):
        return
    made = line_terms(layer.ops[slots], layer.values[slots], pixels.shape[1])
    places, terms, strides = send([slots, *made], pixels.device)
    moved = move_along_lines(pixels.index_select(0, places), terms, strides, fill, interpolation)
    pixels.index_copy_(0, places, moved)


def _apply_rotations(pixels: Tensor, layer: Layer, fill: Tensor, interpolation: str) -> None:
    slots = _slots(layer, "Rotate")
    if not len(slots):
        return
    made = rotation_terms(layer.values[slots], pixels.shape[1])
    places, terms = send([slots, made], pixels.device)
    turned = rotate(pixels.index_select(0, places), terms, fill, interpolation)
    pixels.index_copy_(0, places, turned)
