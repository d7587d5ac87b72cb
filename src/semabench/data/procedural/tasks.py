"""The four tasks: their settings, and the sizes that have room for them. `draw` draws them.

Every image is a grid of S×S cells with a query cell in its middle, and the question is asked and
answered there. All have eight classes, drawn uniformly: chance is 12.5 %, and but for ``texture``
the image says the class without doubt: the ceiling is 100 %.

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

from dataclasses import dataclass

from semabench.config.schema import DataConfig
from semabench.errors import SemabenchError, nearest

TASKS = ("texture", "majority", "needle", "recall")
CLASSES = 8
CELL = 8  # pixels of a cell's side
KINDS = 32  # patterns
CLEAR = 3  # what one block's three 3×3 convolutions reach
PAIRS = (4, 8, 16, 32)
VERSION = 1
"""Raised whenever the same settings would give other images."""


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
        """Name all that the images depend on, but for seed, stream and size."""
        m = ",".join(map(str, self.pairs))
        return f"{self.name} v{VERSION}, clear {self.clear}" + (f", m {m}" if m else "")


def task_named(name: str, *, clear: int | None = None, pairs: tuple[int, ...] = PAIRS) -> Task:
    """Return a task with its usual settings, or others.

    Raises:
        SemabenchError: no such task, or settings out of range.
    """
    if name not in TASKS:
        raise SemabenchError(f"there is no task '{name}'.{nearest(name, TASKS)}")
    if clear is not None and clear < 0:
        raise SemabenchError(f"clear must be at least 0 cells, not {clear}.")
    if name == "recall" and not (pairs and all(1 <= m <= KINDS for m in pairs)):
        raise SemabenchError(f"pairs must be numbers from 1 to {KINDS}, not {list(pairs)}.")
    clear = 0 if name == "texture" else CLEAR if clear is None else clear
    return Task(name, clear, tuple(pairs) if name == "recall" else ())


def check_procedural(config: DataConfig) -> None:
    """Raise a SemabenchError that names what a procedural task cannot be given."""
    task_named(config.name)
    if config.num_workers is not None:
        raise SemabenchError("data.num_workers: images are made without workers; leave it out.")
    if config.holdout is not None:
        raise SemabenchError(
            "data.holdout: procedural test images are never those of training; leave it out."
        )
    whole = {"crop_pct": 1.0, "crop_scale": [1.0, 1.0], "crop_ratio": [1.0, 1.0], "hflip": 0.0}
    for key, value in whole.items():
        if getattr(config, key) != value:
            raise SemabenchError(
                f"data.{key}={getattr(config, key)}: procedural images are shown whole, as they "
                f"are; leave it at {value}."
            )


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
            f"{task.name} cannot be drawn at {resolution} px: its images are multiples of {CELL} "
            f"px, and at least {least} px; {near} is the nearest."
        )


def _has_room(task: Task, size: int) -> bool:
    """Count the open cells of the grid, or its open dominoes, as `draw` has them."""
    far = [abs(place - size // 2) > task.clear for place in range(size)]
    near = size - sum(far)
    if task.name != "recall":
        return size**2 - near**2 >= 4 * CLASSES
    pairs = range(0, size - 1, 2)
    beside = sum(far[left] and far[left + 1] for left in pairs)
    return (size - near) * len(pairs) + near * beside >= max(task.pairs)
