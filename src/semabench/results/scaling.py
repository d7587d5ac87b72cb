"""How cost grows with the number of tokens, and where the curves of two models cross."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

MIN_POINTS = 3


@dataclass(frozen=True)
class PowerLaw:
    """cost ∝ tokens^k.

    Attributes:
        exponent: k.
        stderr: its standard error, from the residuals; it shows a bend as well as noise.
        points: resolutions behind it.
    """

    exponent: float
    stderr: float
    points: int


@dataclass(frozen=True)
class Crossover:
    """Where the curves of two models cross.

    Attributes:
        resolution: in pixels, between two measured ones.
        below, above: which of the two, 0 or 1, costs less on that side.
        clear: at both neighbours they differ by more than their spreads together.
    """

    resolution: float
    below: int
    above: int
    clear: bool


@dataclass(frozen=True)
class Point:
    """A positive cost with its spread, half the interquartile range; 0 where it is unknown."""

    cost: float
    spread: float = 0.0


def tokens(resolution: int) -> float:
    """Return the tokens of a square image in patches of 16 pixels.

    Another patch size multiplies all of them by one factor, which no exponent sees.
    """
    return (resolution / 16) ** 2


def fit_power_law(costs: Mapping[int, float]) -> PowerLaw | None:
    """Fit log cost = k·log tokens + c by least squares.

    Args:
        costs: positive, by resolution in pixels.

    Returns:
        The law; None with fewer than three resolutions, which cannot tell how well it fits.
    """
    if len(costs) < MIN_POINTS:
        return None
    x = [math.log(tokens(resolution)) for resolution in costs]
    y = [math.log(cost) for cost in costs.values()]
    count = len(x)
    mean_x, mean_y = math.fsum(x) / count, math.fsum(y) / count
    sxx = math.fsum((a - mean_x) ** 2 for a in x)
    slope = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sxx
    residual = math.fsum(
        (b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True)
    )
    return PowerLaw(slope, math.sqrt(residual / (count - 2) / sxx), count)


def crossovers(first: Mapping[int, Point], second: Mapping[int, Point]) -> list[Crossover]:
    """Find where two cost curves cross, within the resolutions that both were measured at.

    Between neighbours the curves are straight in the logarithms of cost and tokens. Nothing is
    extrapolated: curves that do not change places between measured points do not cross.

    Args:
        first, second: costs by resolution in pixels.
    """
    shared = sorted(first.keys() & second.keys())
    # Points of equal cost belong to the crossing, if there is one, that goes through them.
    apart = [(r, g) for r in shared if (g := _gap(first[r], second[r])) != 0]
    found = []
    for (low, gap_low), (high, gap_high) in pairwise(apart):
        if gap_low * gap_high > 0:
            continue
        share = gap_low / (gap_low - gap_high)
        resolution = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        cheaper = (0, 1) if gap_low < 0 else (1, 0)
        clear = all(_differ(first[r], second[r]) for r in (low, high))
        found.append(Crossover(resolution, *cheaper, clear))
    return found


def _gap(first: Point, second: Point) -> float:
    return math.log(first.cost) - math.log(second.cost)


def _differ(first: Point, second: Point) -> bool:
    return abs(first.cost - second.cost) > first.spread + second.spread


def common_batch(batches: Mapping[int, Sequence[int]]) -> int | None:
    """Return the largest batch size that all resolutions share.

    Args:
        batches: batch sizes by resolution.

    Returns:
        None where not all resolutions share one.
    """
    shared = set.intersection(*map(set, batches.values())) if batches else set()
    return max(shared, default=None)
