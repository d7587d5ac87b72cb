"""The FFCV loader's resampling is Pillow's, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

resample = pytest.importorskip("semabench.data.resample", exc_type=ImportError)


def ours(picture, box, resolution, interpolation, mirror=False):
    top, left, height, width = box
    scratch = np.empty(3 * resolution * max(height, width), np.uint8)
    target = np.empty((resolution, resolution, 3), np.uint8)
    support = resample.SUPPORT[interpolation]
    resample.resize(picture, top, left, height, width, support, mirror, scratch, target)
    return target


def pillows(picture, box, resolution, interpolation):
    top, left, height, width = box
    crop = Image.fromarray(picture[top : top + height, left : left + width])
    return np.asarray(crop.resize((resolution,) * 2, Image.Resampling[interpolation.upper()]))


@given(
    seed=st.integers(0, 1000),
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    resolution=st.integers(1, 130),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
)
@settings(max_examples=150, deadline=None)
def test_any_box_at_any_scale(seed, height, width, resolution, interpolation):
    picture = np.random.default_rng(seed).integers(0, 256, (320, 310, 3), dtype=np.uint8)
    box = (seed % (321 - height), seed % (311 - width), height, width)
    expected = pillows(picture, box, resolution, interpolation)
    assert np.array_equal(ours(picture, box, resolution, interpolation), expected)


def test_mirroring_flips_the_result():
    picture = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    box = (3, 4, 40, 30)
    mirrored = ours(picture, box, 32, "bicubic", mirror=True)
    assert np.array_equal(mirrored[:, ::-1], ours(picture, box, 32, "bicubic"))


@pytest.mark.parametrize("what_follows", [0, 255])
def test_the_byte_behind_the_last_pixel_is_nothing_to_the_result(what_follows):
    memory = np.random.default_rng(1).integers(0, 256, 20 * 30 * 3 + 1, dtype=np.uint8)
    memory[-1] = what_follows
    picture = memory[:-1].reshape(20, 30, 3)
    box = (7, 11, 13, 19)  # down to the last pixel
    assert np.array_equal(ours(picture, box, 9, "bicubic"), pillows(picture, box, 9, "bicubic"))
