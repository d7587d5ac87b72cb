"""From cells to pixels, in one gather: batches are drawn where they are used."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from semabench.data.diagnostics.glyphs import CELL, atlas
from semabench.data.diagnostics.tasks import Task


def draw(task: Task, size: int, *, seed: int, epoch: int, index: Tensor) -> tuple[Tensor, Tensor]:
    """Draw samples of a task, on the device of ``index``; the same pixels on every device.

    Args:
        task: what to draw.
        size: S, cells of a side; pictures have R = 8·S pixels.
        seed, epoch: a sample is a function of these, its index and S.
        index: int64 (B,), which samples.

    Returns:
        images: uint8 (B, 3, R, R), channels-last in memory.
        labels: int64 (B,).

    Raises:
        SemabenchError: the grid is too small for the task.
    """
    cells, labels = task.place(size, seed, epoch, index)
    return paint(cells.view(-1, size, size)), labels


def paint(cells: Tensor) -> Tensor:
    """Return grids of cells (B, S, S) as pictures, uint8 (B, 3, 8·S, 8·S), channels-last."""
    B, rows, columns = cells.shape
    pixels = _atlas_on(cells.device)[cells]  # (B, S, S, 8, 8)
    grey = pixels.transpose(2, 3).reshape(B, rows * CELL, columns * CELL, 1)
    return grey.expand(-1, -1, -1, 3).contiguous().permute(0, 3, 1, 2)


@cache
def _atlas_on(device: torch.device) -> Tensor:
    return atlas().to(device)
