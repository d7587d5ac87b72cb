"""Power laws and crossings, against curves that are known exactly."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semabench.results.scaling import Point, common_batch, crossovers, fit_power_law, tokens


@settings(deadline=None)
@given(st.floats(-1, 3), st.floats(1e-3, 1e3))
def test_an_exact_power_law_is_found_with_no_error(exponent, factor):
    law = fit_power_law({r: factor * tokens(r) ** exponent for r in (64, 128, 224, 512)})
    assert law.exponent == pytest.approx(exponent, abs=1e-9)
    assert law.stderr == pytest.approx(0, abs=1e-6)
    assert law.points == 4


def test_slope_and_standard_error_equal_numpys():
    costs = {64: 1.0, 96: 2.5, 128: 3.9, 224: 14.0, 384: 30.0}
    x = np.log([tokens(r) for r in costs])
    (slope, _), covariance = np.polyfit(x, np.log(list(costs.values())), 1, cov=True)
    law = fit_power_law(costs)
    assert law.exponent == pytest.approx(slope)
    assert law.stderr == pytest.approx(math.sqrt(covariance[0, 0]))


def test_two_resolutions_are_too_few_to_fit():
    assert fit_power_law({64: 1.0, 128: 4.0}) is None


def points(costs, spread=0.0):
    return {r: Point(c, spread) for r, c in costs.items()}


def test_a_crossing_of_power_laws_is_found_exactly():
    """Linear and quadratic cost meet where 1·n = n² / 300: n = 300, or 16·√300 px."""
    sizes = (64, 128, 256, 512, 1024)
    linear = points({r: tokens(r) for r in sizes})
    quadratic = points({r: tokens(r) ** 2 / 300 for r in sizes})
    (found,) = crossovers(linear, quadratic)
    assert found.resolution == pytest.approx(16 * math.sqrt(300))
    assert (found.below, found.above) == (1, 0)
    assert found.clear
    (other,) = crossovers(quadratic, linear)
    assert other.resolution == pytest.approx(found.resolution)
    assert (other.below, other.above) == (0, 1)


def test_nothing_is_extrapolated():
    first = points({64: 1.0, 128: 4.0, 2048: 1.0})
    second = points({64: 2.0, 128: 4.1})  # the same trend crosses soon after
    assert crossovers(first, second) == []


def test_equal_costs_at_a_point_are_a_crossing_only_if_sides_change():
    through = crossovers(points({1: 1.0, 2: 2.0, 4: 4.0}), points({1: 2.0, 2: 2.0, 4: 2.0}))
    assert [round(c.resolution) for c in through] == [2]
    touched = crossovers(points({1: 1.0, 2: 2.0, 4: 1.0}), points({1: 2.0, 2: 2.0, 4: 2.0}))
    assert touched == []


def test_a_crossing_within_the_spread_is_not_clear():
    first, second = {64: 1.00, 128: 1.02}, {64: 1.01, 128: 1.01}
    assert crossovers(points(first), points(second))[0].clear
    assert not crossovers(points(first, 0.01), points(second, 0.01))[0].clear


def test_the_largest_batch_that_all_resolutions_share():
    assert common_batch({224: [64, 128], 512: [32, 64], 1024: [64]}) == 64
    assert common_batch({224: [64, 128], 512: [64, 128]}) == 128
    assert common_batch({224: [128], 512: [32]}) is None
    assert common_batch({}) is None
