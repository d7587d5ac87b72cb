"""The median of timings and their spread, against numpy's quartiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semabench.training.timing import median_and_spread

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
