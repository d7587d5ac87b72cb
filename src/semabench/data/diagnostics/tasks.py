"""The four tasks: which cell of the atlas lies where, and the class that follows.

Every picture is a grid of S×S cells with a query cell in its middle, and the question is asked and
answered there. All have eight classes, drawn uniformly: chance is 12.5 %, and but for ``texture``
the picture says the class without doubt: the ceiling is 100 %.

- ``texture``: each cell shows the glyph of the class with probability 0.4, else another; the cells
  around the query, too. Local detail decides.
- ``majority``: one kind is a fifth of all cells, the seven others share the rest equally.
- ``needle``: one cell is marked by a ring; the class is its kind. All others are distractors.
- ``recall``: m pairs of a key and, on its right, a value; the query shows one of the keys, the
  class is its value. All other cells are distractors.

But for ``texture`` the cells within ``clear`` of the query are blank: a model whose convolutions
reach no farther learns nothing of the class without mixing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from semabench.data.diagnostics.glyphs import BLANK, CELL, KINDS, cells_of
from semabench.data.diagnostics.words import WORD, below, random_order, sample_words
from semabench.errors import SemabenchError, nearest

CLASSES = 8
CLEAR = 3  # what one block's three 3×3 convolutions reach
PAIRS = (4, 8, 16, 32)
TEXTURE_SHARE = 0.4
MAJORITY_SHARE = 0.2
VERSION = 1
"""Raised whenever the same settings would give other pictures."""


@dataclass(frozen=True)
class Task:
    """One task and its settings.

    Args:
        name: texture, majority, needle or recall.
        clear: cells around the query, in each direction, that are blank; texture has none.
        pairs: of recall: m is drawn from these, uniformly; empty for the others.
    """

    name: str
    clear: int = CLEAR
    pairs: tuple[int, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Name all that the pictures depend on, but for seed, stream and size."""
        m = ",".join(map(str, self.pairs))
        return f"{self.name} v{VERSION}, clear {self.clear}" + (f", m {m}" if m else "")

    def place(self, size: int, seed: int, epoch: int, index: Tensor) -> tuple[Tensor, Tensor]:
        """Draw samples as cells of the atlas.

        Args:
            size: S, cells of a side.
            seed, epoch: see ``words.sample_words``.
            index: int64 (B,), which samples.

        Returns:
            Cells, int64 (B, S·S), row by row, and labels, int64 (B,).

        Raises:
            SemabenchError: the grid is too small for the task.
        """
        require_room(self, size)
        return _PLACE[self.name](self, size, seed, epoch, index)


def task_named(name: str, *, clear: int | None = None, pairs: tuple[int, ...] = PAIRS) -> Task:
    """Return a task with its usual settings, or others.

    Raises:
        SemabenchError: no such task, or settings out of range.
    """
    if name not in TASKS:
        raise SemabenchError(f"there is no task '{name}'.{nearest(name, TASKS)}")
    if clear is not None and clear < 0:
        raise SemabenchError(f"clear must be at least 0 cells, not {clear}.")
    task = Task(name, 0) if name == "texture" else Task(name, CLEAR if clear is None else clear)
    if name != "recall":
        return task
    if not pairs or not all(1 <= m <= KINDS for m in pairs):
        raise SemabenchError(f"pairs must be numbers from 1 to {KINDS}, not {list(pairs)}.")
    return replace(task, pairs=tuple(pairs))


def smallest_size(task: Task) -> int:
    """Return the least S that has room for the task."""
    return next(size for size in range(1, 1000) if _has_room(task, size))


def require_room(task: Task, size: int) -> None:
    """Raise a SemabenchError if a grid of S×S cells is too small."""
    if not _has_room(task, size):
        raise SemabenchError(
            f"{task.name} needs at least {smallest_size(task)} cells a side, not {size}."
        )


def require_pixels(task: Task, resolution: int) -> None:
    """Raise a SemabenchError if a task cannot be drawn at this resolution, in pixels."""
    least = smallest_size(task) * CELL
    if resolution % CELL or resolution < least:
        near = max(least, (resolution + CELL // 2) // CELL * CELL)
        raise SemabenchError(
            f"{task.name} cannot be drawn at {resolution} px: its pictures are multiples of {CELL} "
            f"px, and at least {least} px; {near} is the nearest."
        )


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


def _has_room(task: Task, size: int) -> bool:
    cpu = torch.device("cpu")
    if task.name == "recall":
        return len(open_dominoes(size, task.clear, cpu)) >= max(task.pairs)
    return len(open_cells(size, task.clear, cpu)) >= 4 * CLASSES


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
    share = int(TEXTURE_SHARE * WORD)
    other = (words[:, 1:] - share) * (CLASSES - 1) // (WORD - share)  # negative: of the class
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


_Place = Callable[[Task, int, int, int, Tensor], tuple[Tensor, Tensor]]
_PLACE: dict[str, _Place] = {
    "texture": _texture,
    "majority": _majority,
    "needle": _needle,
    "recall": _recall,
}
TASKS = tuple(_PLACE)
