"""Marks in time, on a GPU in its own stream: so that timing a step waits for nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch

Mark = float | torch.cuda.Event


def mark(device: torch.device) -> Mark:
    """Return now; on a GPU, when it will have done all that it has been asked so far."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds_between(start: Mark, end: Mark) -> float:
    """Return the seconds from one mark to another; a GPU must have passed both."""
    if isinstance(start, torch.cuda.Event):
        assert isinstance(end, torch.cuda.Event)
        return start.elapsed_time(end) / 1e3
    assert not isinstance(end, torch.cuda.Event)
    return end - start


def median_and_spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the median and half the interquartile range (quartiles inclusive, as numpy's).

    Fewer than two values have no range, none no median.
    """
    if len(values) < 2:
        return (values[0] if values else None), None
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return median, (high - low) / 2
