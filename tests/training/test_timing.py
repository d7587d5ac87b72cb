"""Marks in time, and the median of timings and their spread, against numpy's quartiles."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semabench.training.device import mark, median_and_spread, seconds_between

SECONDS = st.floats(1e-6, 1e6)


@given(st.lists(SECONDS, min_size=2))
def test_quartiles_are_numpys(values):
    median, spread = median_and_spread(values)
    low, middle, high = np.percentile(values, [25, 50, 75])
    assert median == pytest.approx(middle)
    assert spread == pytest.approx((high - low) / 2, abs=1e-9 * max(values))


def test_one_value_has_no_spread_and_none_has_no_median():
    assert median_and_spread([3.0]) == (3.0, None)
    assert median_and_spread([]) == (None, None)


def test_on_a_cpu_marks_are_the_clock():
    start = mark(torch.device("cpu"))
    time.sleep(0.02)
    assert 0.02 <= seconds_between(start, mark(torch.device("cpu"))) < 10
