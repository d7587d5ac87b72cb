"""The vectorised sum of pixels against one in plain numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

numba = pytest.importorskip("numba")
kernel = pytest.importorskip("semabench.data.ffcv.resample", exc_type=ImportError)
ONE = 1 << kernel.PRECISION_BITS


@numba.njit
def weighed(pixels, first, weights, row, count):
    return kernel.weigh_pixels(pixels, first, weights, row, count)


@given(
    seed=st.integers(0, 1000),
    count=st.integers(1, 40),
    first=st.integers(0, 30),
    gain=st.floats(-1.2, 1.2),
)
@settings(max_examples=200, deadline=None)
def test_channels_are_summed_rounded_and_clipped(seed, count, first, gain):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, first + 3 * count + 1, dtype=np.uint8)
    weights = (rng.dirichlet(np.ones(count), size=3) * gain * ONE).astype(np.int32)
    colors = pixels[first : first + 3 * count].reshape(count, 3).astype(np.int64)
    sums = (weights[1].astype(np.int64)[:, None] * colors).sum(axis=0) + ONE // 2
    expected = np.clip(sums >> kernel.PRECISION_BITS, 0, 255)
    found = int(weighed(pixels, first, weights, 1, count))
    assert [found & 255, found >> 8 & 255, found >> 16 & 255] == expected.tolist()


@pytest.mark.parametrize(
    ("pixels", "weights"),
    [
        (np.zeros(7, np.int8), np.zeros((1, 2), np.int32)),
        (np.zeros((7, 1), np.uint8), np.zeros((1, 2), np.int32)),
        (np.zeros(14, np.uint8)[::2], np.zeros((1, 2), np.int32)),
        (np.zeros(7, np.uint8), np.zeros((1, 2), np.int64)),
        (np.zeros(7, np.uint8), np.asfortranarray(np.zeros((2, 2), np.int32))),
        (np.zeros(7, np.uint8), np.zeros(2, np.int32)),
    ],
)
def test_arrays_that_would_be_misread_do_not_compile(pixels, weights):
    with pytest.raises(numba.TypingError, match="weigh_pixels"):
        weighed(pixels, 0, weights, 0, 2)
