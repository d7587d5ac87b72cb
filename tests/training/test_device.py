"""How rows tell options and execution: one spelling, so that equal measurements have equal keys."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semabench.training.device import (
    device_label,
    layout_label,
    mark,
    median_and_spread,
    options_label,
    seconds_between,
)


def test_options_are_sorted_and_those_not_given_left_out():
    given = {"window_size": 14, "backend": "reference", "shift": None, "rope": False}
    assert options_label(given) == "backend=reference,rope=False,window_size=14"
    assert options_label({}) == ""


def test_what_changes_the_speed_is_told_and_the_usual_is_not():
    assert layout_label(channels_last=True) == ""
    assert layout_label(channels_last=False) == "nchw"
    assert device_label(torch.device("cpu")) == "cpu"


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
