"""One layer of a plan on a batch: samples with like operations are worked on together.

Every group is picked by indices that the CPU knows, so nothing waits for the device. Launches cost
more than bytes (`benchmarks/augment.py`): the samples of a layer are gathered once and put back
once, and what the CPU can make, tables, terms, even counting numbers, travels in one copy.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from semabench.data.augment.blends import enhance
from semabench.data.augment.geometry import ALONG_X, ALONG_Y, move, moves
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

# In the order in which a layer's samples are gathered: those of tables, blends, moves.
_TABLES = (FIXED, ("AutoContrast",), ("Equalize",), ("Contrast",))
_BLENDS = (("Color",), ("Sharpness",))
_MOVES = ((*ALONG_X, *ALONG_Y), ("Rotate",))
_GROUPS = (*_TABLES, *_BLENDS, *_MOVES)


def _groups() -> np.ndarray:
    """Return each operation's place in ``_GROUPS``; those that do nothing come after all groups.

    NONE, which is -1, finds the last entry.
    """
    of = np.full(len(OPS) + 1, len(_GROUPS))
    for place, names in enumerate(_GROUPS):
        of[[OPS.index(name) for name in names]] = place
    return of


_GROUP_OF = _groups()


def apply_layer(pixels: Tensor, layer: Layer, fill: Tensor, interpolation: str) -> None:
    """Change uint8 pixels (B, R, R, 3) in place.

    Args:
        pixels: contiguous.
        layer: of B samples.
        fill: uint8 (3,), where rotation, shear and translation uncover nothing.
        interpolation: of those: bicubic or bilinear.
    """
    groups = _GROUP_OF[layer.ops]
    sizes = np.bincount(groups, minlength=len(_GROUPS) + 1)[:-1].tolist()
    if not any(sizes):
        return
    order = np.argsort(groups, kind="stable")[: sum(sizes)]
    of_tables, of_blends, of_moves = sizes[:4], sizes[4:6], sizes[6:]
    ops, values = layer.ops[order], layer.values[order]
    tabled, blended = sum(of_tables), sum(of_blends)
    blends, moved = slice(tabled, tabled + blended), slice(tabled + blended, None)
    arrays = [
        order,
        fixed_tables(ops[: sizes[0]], values[: sizes[0]]),
        values[tabled - sizes[3] : tabled].astype(np.float32),
        256 * np.arange(3 * tabled, dtype=np.int32),
        values[blends].astype(np.float32),
        *moves(ops[moved], values[moved], of_moves, pixels.shape[1]),
    ]
    places, known, contrasts, starts, factors, *terms = send(arrays, pixels.device)
    chosen = pixels.index_select(0, places)
    made = []
    if tabled:
        tables = _tables(chosen[:tabled], of_tables, known, contrasts, starts)
        made.append(look_up(chosen[:tabled], tables, starts))
    if blended:
        made.append(enhance(chosen[blends], factors, of_blends[0]))
    made += move(chosen[moved], of_moves, terms, fill, interpolation)
    pixels.index_copy_(0, places, torch.cat(made))


def _tables(
    pixels: Tensor, sizes: list[int], known: Tensor, contrasts: Tensor, starts: Tensor
) -> Tensor:
    """Return all samples' tables, uint8 (n, 3, 256): of groups of these sizes, see ``_TABLES``."""
    first, second, third, _ = itertools.accumulate(sizes)
    tables = [known[:, None].expand(-1, 3, -1)]
    if second > first:
        tables.append(autocontrast_tables(pixels[first:second]))
    if third > second:
        tables.append(equalize_tables(pixels[second:third], starts[: 3 * (third - second)]))
    if len(contrasts):
        tables.append(contrast_tables(pixels[third:], contrasts))
    return torch.cat(tables)
