"""The glyphs: cells of 8×8 pixels, each a pattern with as much ink as any other.

A pattern is the darker half of a mixture of slow plane waves (``data/drawing.py``, as the textures
of ``shapes``): blobs, half of their 6×6 pixels inked. Around it is a ring of one pixel, inked
according to the role of the cell. So all kinds of a role have the same pixel values equally often,
and what a pattern is can be told from its shape alone.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semabench.data.drawing import pixel_centres, plane_wave

CELL = 8  # pixels of a cell's side
KINDS = 32  # patterns
INNER = CELL - 2
BACKGROUND, INK = 80, 200  # of 255, in all three channels

ROLES = ("plain", "marked", "query", "key", "value")
BLANK = len(ROLES) * KINDS  # the cell without ink

_MIN_DISTANCE = 12  # pixels, of 36, in which any two patterns differ
_SEED = 7


def cells_of(role: str, kinds: Tensor) -> Tensor:
    """Return the numbers in the atlas of cells of one role and these kinds."""
    return ROLES.index(role) * KINDS + kinds


@cache
def atlas() -> Tensor:
    """Return the pixels of all cells, uint8 (5·KINDS + 1, 8, 8); the last is blank."""
    inked = np.zeros((BLANK + 1, CELL, CELL), dtype=bool)
    for number, role in enumerate(ROLES):
        cells = inked[number * KINDS : (number + 1) * KINDS]
        cells[:] = _ring(role)
        cells[:, 1:-1, 1:-1] = patterns()
    return torch.from_numpy(np.where(inked, INK, BACKGROUND).astype(np.uint8))


@cache
def patterns() -> NDArray[np.bool_]:
    """Return the patterns, bool (KINDS, 6, 6), each with 18 pixels set, far from one another."""
    generator = np.random.default_rng(_SEED)
    found: list[NDArray[np.bool_]] = []
    while len(found) < KINDS:
        pattern = _pattern(generator)
        if all((pattern != other).sum() >= _MIN_DISTANCE for other in found):
            found.append(pattern)
    return np.stack(found)


def _pattern(generator: np.random.Generator) -> NDArray[np.bool_]:
    grid = pixel_centres(0, INNER, INNER)
    height = np.zeros((INNER, INNER))
    for _ in range(3):
        frequency, angle, phase = generator.random(3) * (1.6, np.pi, 2 * np.pi)
        height += plane_wave(
            grid[None, :],
            grid[:, None],
            frequency=frequency,
            angle=angle,
            phase=phase,
            resolution=INNER,
        )
    order = np.argsort(height, axis=None)
    pattern = np.zeros(INNER * INNER, dtype=bool)
    pattern[order[: pattern.size // 2]] = True
    return pattern.reshape(INNER, INNER)


def _ring(role: str) -> NDArray[np.bool_]:
    """Return the ring of a role, bool (8, 8)."""
    ring = np.zeros((CELL, CELL), dtype=bool)
    top, bottom, left, right = {
        "plain": (0, 0, 0, 0),
        "marked": (1, 1, 1, 1),
        "query": (1, 1, 0, 0),
        "key": (0, 0, 1, 0),
        "value": (0, 0, 0, 1),
    }[role]
    ring[0], ring[-1] = top, bottom
    ring[:, 0] |= bool(left)
    ring[:, -1] |= bool(right)
    return ring
