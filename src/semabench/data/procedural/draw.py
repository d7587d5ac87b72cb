"""Draw the tasks on any device: from random words to cells to pixels, bit for bit the same.

A cell shows a glyph: the darker half of a mixture of slow plane waves (as the textures of
`shapes`), blobs that ink half of its 6×6 pixels. Around it is a ring of one pixel, inked according
to the role of the cell. So all kinds of a role have the same pixel values equally often, and what a
glyph is can be told from its shape alone.

Random words are the counter-based hash of `data.draws`. It is integer arithmetic alone and has no
state: a sample is a function of (seed, epoch, index), whatever the batch it is drawn in.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semabench.data.draws import STREAM_PROCEDURAL, philox
from semabench.data.procedural.shapes import pixel_centres, plane_wave
from semabench.data.procedural.tasks import CELL, CLASSES, KINDS, Task, require_room

TEST_EPOCH = 2**32 - 1  # the images that are reported on; training epochs count from 0
CALIBRATION_EPOCH = 2**32 - 2  # those that tasks and recipes were chosen on

TEXTURE_SHARE = 0.4
MAJORITY_SHARE = 0.2

INNER = CELL - 2
BACKGROUND, INK = 80, 200  # of 255, in all three channels
ROLES = ("plain", "marked", "query", "key", "value")
BLANK = len(ROLES) * KINDS  # the cell without ink

_WORD = 2**32
_MIN_DISTANCE = 12  # pixels, of 36, in which any two patterns differ
_GLYPH_SEED = 7


def draw(task: Task, size: int, *, seed: int, epoch: int, index: Tensor) -> tuple[Tensor, Tensor]:
    """Draw samples of a task, on the device of ``index``; the same pixels on every device.

    Args:
        task: what to draw.
        size: S, cells of a side; images have R = 8·S pixels.
        seed, epoch: a sample is a function of these, its index and S.
        index: int64 (B,), which samples.

    Returns:
        images: uint8 (B, 3, R, R), channels-last in memory.
        labels: int64 (B,).

    Raises:
        SemabenchError: the grid is too small for the task.
    """
    cells, labels = place(task, size, seed, epoch, index)
    return paint(cells.view(-1, size, size)), labels


def place(task: Task, size: int, seed: int, epoch: int, index: Tensor) -> tuple[Tensor, Tensor]:
    """Draw samples as cells of the atlas: int64 (B, S·S), row by row, and labels, int64 (B,).

    Arguments and errors as ``draw``'s.
    """
    require_room(task, size)
    return _PLACE[task.name](task, size, seed, epoch, index)


def paint(cells: Tensor) -> Tensor:
    """Return grids of cells (B, S, S) as images, uint8 (B, 3, 8·S, 8·S), channels-last."""
    B, rows, columns = cells.shape
    pixels = _atlas_on(cells.device)[cells]  # (B, S, S, 8, 8)
    grey = pixels.transpose(2, 3).reshape(B, rows * CELL, columns * CELL, 1)
    return grey.expand(-1, -1, -1, 3).contiguous().permute(0, 3, 1, 2)


def sample_words(seed: int, epoch: int, index: Tensor, count: int) -> Tensor:
    """Return ``count`` 32-bit words for each sample of ``index``, int64 (B, count) in [0, 2³²).

    The first words of a sample do not depend on ``count``; see ``philox``.
    """
    blocks: Any = torch.arange(-(-count // 4), device=index.device)
    # A product of 32-bit words wraps round in int64, with all its 64 bits right.
    first: Any = index[:, None]
    four = philox(seed, epoch, first, STREAM_PROCEDURAL, blocks)
    return torch.stack(four, dim=-1).flatten(1)[:, :count]


def below(words: Tensor, bound: int | Tensor) -> Tensor:
    """Map words to integers 0 … bound - 1, uniform up to bound / 2³²."""
    return (words * bound) >> 32


def random_order(words: Tensor) -> Tensor:
    """Return for each row of words (B, k) a random permutation of 0 … k-1, (B, k).

    Equal words are told apart by their place: sorting is then the same on every device.
    """
    k = words.shape[1]
    places = torch.arange(k, device=words.device)
    return torch.argsort(words * k + places, dim=1)


def query_cell(size: int) -> int:
    """Return the number of the query cell, row by row: the centre, of an even S the one after."""
    return size // 2 * size + size // 2


@cache
def open_cells(size: int, clear: int, device: torch.device) -> Tensor:
    """Return the numbers of the cells farther than ``clear`` from the query, int64 (E,)."""
    return _far(size, clear).flatten().nonzero().squeeze(1).to(device)


@cache
def open_dominoes(size: int, clear: int, device: torch.device) -> Tensor:
    """Return the left cells of the side-by-side pairs of open cells that tile each row, (D,)."""
    far, columns = _far(size, clear), torch.arange(size)
    both = far & far.roll(-1, dims=1) & (columns % 2 == 0) & (columns + 1 < size)
    return both.flatten().nonzero().squeeze(1).to(device)


@cache
def _choices(pairs: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(pairs, device=device)


def _far(size: int, clear: int) -> Tensor:
    steps = (torch.arange(size) - size // 2).abs()
    return torch.maximum(steps[:, None], steps[None, :]) > clear


def _empty(size: int, index: Tensor, query: Tensor) -> Tensor:
    """Return blank cells, (B, S·S + 1), with a query; the last is for what has no place."""
    cells = index.new_full((len(index), size * size + 1), BLANK)
    cells[:, query_cell(size)] = cells_of("query", query)
    return cells


def _texture(task: Task, size: int, seed: int, epoch: int, index: Tensor) -> tuple[Tensor, Tensor]:
    places = open_cells(size, task.clear, index.device)
    words = sample_words(seed, epoch, index, 1 + len(places))
    labels = below(words[:, 0], CLASSES)
    cells = _empty(size, index, torch.zeros_like(labels))
    share = int(TEXTURE_SHARE * _WORD)
    other = (words[:, 1:] - share) * (CLASSES - 1) // (_WORD - share)  # negative: of the class
    shifted = (labels[:, None] + 1 + other) % CLASSES
    cells[:, places] = torch.where(other < 0, labels[:, None], shifted)
    return cells[:, :-1], labels


def _majority(task: Task, size: int, seed: int, epoch: int, index: Tensor) -> tuple[Tensor, Tensor]:
    places = open_cells(size, task.clear, index.device)
    words = sample_words(seed, epoch, index, 1 + len(places))
    labels = below(words[:, 0], CLASSES)
    winners = round(MAJORITY_SHARE * len(places))
    rank = torch.arange(len(places), device=index.device)
    # Counts are exact: the kinds are dealt out in turn, then shuffled over the places.
    steps = torch.where(rank < winners, 0, 1 + (rank - winners) % (CLASSES - 1))
    dealt = (labels[:, None] + steps) % CLASSES
    cells = _empty(size, index, torch.zeros_like(labels))
    return cells.scatter(1, places[random_order(words[:, 1:])], dealt)[:, :-1], labels


def _needle(task: Task, size: int, seed: int, epoch: int, index: Tensor) -> tuple[Tensor, Tensor]:
    places = open_cells(size, task.clear, index.device)
    words = sample_words(seed, epoch, index, 2 + len(places))
    labels = below(words[:, 0], CLASSES)
    cells = _empty(size, index, torch.zeros_like(labels))
    cells[:, places] = below(words[:, 2:], CLASSES)
    where = places[below(words[:, 1], len(places))]
    marked = cells_of("marked", labels)
    return cells.scatter(1, where[:, None], marked[:, None])[:, :-1], labels


def _recall(task: Task, size: int, seed: int, epoch: int, index: Tensor) -> tuple[Tensor, Tensor]:
    places = open_cells(size, task.clear, index.device)
    dominoes = open_dominoes(size, task.clear, index.device)
    most = max(task.pairs)
    parts = [1, KINDS, most, len(dominoes), len(places)]
    words = sample_words(seed, epoch, index, sum(parts)).split(parts, dim=1)
    m = _choices(task.pairs, index.device)[below(words[0], len(task.pairs))]
    keys = random_order(words[1])[:, :most]
    values = below(words[2], CLASSES)
    left = dominoes[random_order(words[3])[:, :most]]
    cells = _empty(size, index, keys[:, 0])
    cells[:, places] = below(words[4], KINDS)
    used = torch.arange(most, device=index.device) < m
    nowhere = size * size
    for role, kinds, at in (("key", keys, left), ("value", values, left + 1)):
        cells = cells.scatter(1, torch.where(used, at, nowhere), cells_of(role, kinds))
    return cells[:, :-1], values[:, 0]


_PLACE = {"texture": _texture, "majority": _majority, "needle": _needle, "recall": _recall}


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
    generator = np.random.default_rng(_GLYPH_SEED)
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
        height += plane_wave(grid[None, :], grid[:, None], frequency, angle, phase, INNER)
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


@cache
def _atlas_on(device: torch.device) -> Tensor:
    return atlas().to(device)
