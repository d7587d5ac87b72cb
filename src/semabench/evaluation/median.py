"""The median of repeated timings, and how far they spread."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def median_and_spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the median and half the interquartile range (quartiles inclusive, as numpy's).

    Fewer than two values have no range, none no median.
    """
    if len(values) < 2:
        return (values[0] if values else None), None
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return median, (high - low) / 2
