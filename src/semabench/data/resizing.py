"""Progressive resizing: training pictures grow by a schedule of epochs."""

from __future__ import annotations

from collections.abc import Sequence

#: Pairs of an epoch, counted from 0, and the resolution from then on, in pixels.
Schedule = Sequence[Sequence[int]]


def resolution_at(epoch: int, resolution: int, schedule: Schedule) -> int:
    """Return the resolution of an epoch: a function of it alone, wherever a run was resumed.

    Args:
        epoch: counted from 0.
        resolution: where the schedule says nothing.
        schedule: in the order of epochs; may be empty.
    """
    for start, pixels in schedule:
        if epoch >= start:
            resolution = pixels
    return resolution
