"""The FFCV loader's resampling is Pillow's, bit for bit."""

import ctypes
import faulthandler
import mmap
import os
import resource
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

resample = pytest.importorskip("semabench.data.ffcv.resample", exc_type=ImportError)


def ours(image, box, resolution, interpolation, mirror=False):
    top, left, height, width = box
    scratch = np.empty(3 * resolution * max(height, width), np.uint8)
    target = np.empty((resolution, resolution, 3), np.uint8)
    support = resample.SUPPORT[interpolation]
    resample.resize(image, top, left, height, width, support, mirror, scratch, target)
    return target


def pillows(image, box, resolution, interpolation):
    top, left, height, width = box
    crop = Image.fromarray(image[top : top + height, left : left + width])
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
    image = np.random.default_rng(seed).integers(0, 256, (320, 310, 3), dtype=np.uint8)
    box = (seed % (321 - height), seed % (311 - width), height, width)
    expected = pillows(image, box, resolution, interpolation)
    assert np.array_equal(ours(image, box, resolution, interpolation), expected)


def test_mirroring_flips_the_result():
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    box = (3, 4, 40, 30)
    mirrored = ours(image, box, 32, "bicubic", mirror=True)
    assert np.array_equal(mirrored[:, ::-1], ours(image, box, 32, "bicubic"))


@pytest.mark.parametrize("what_follows", [0, 255])
def test_the_byte_behind_the_last_pixel_is_nothing_to_the_result(what_follows):
    memory = np.random.default_rng(1).integers(0, 256, 20 * 30 * 3 + 1, dtype=np.uint8)
    memory[-1] = what_follows
    image = memory[:-1].reshape(20, 30, 3)
    box = (7, 11, 13, 19)  # down to the last pixel
    assert np.array_equal(ours(image, box, 9, "bicubic"), pillows(image, box, 9, "bicubic"))


def resize_up_to_a_wall(finished: int) -> None:
    """Resize down to the last pixel of an image that ends where reading a byte is a crash."""
    page = mmap.PAGESIZE
    memory = np.frombuffer(mmap.mmap(-1, 2 * page), np.uint8)
    wall = ctypes.c_void_p(memory.ctypes.data + page)
    assert ctypes.CDLL(None).mprotect(wall, page, 0) == 0
    image = memory[page - 20 * 30 * 3 : page].reshape(20, 30, 3)
    for height, width in ((13, 19), (20, 3), (3, 30)):  # either pass first
        ours(image, (20 - height, 30 - width, height, width), 9, "bicubic")
    os.write(finished, b"none read")
    os.write(finished, b"read %d" % memory[page])


def test_nothing_is_read_behind_the_last_pixel():
    ours(np.zeros((20, 30, 3), np.uint8), (0, 0, 20, 30), 9, "bicubic")  # compiled before
    told, finished = os.pipe()
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(60)
        try:
            resize_up_to_a_wall(finished)
        finally:
            os._exit(1)
    os.close(finished)
    _, status = os.waitpid(child, 0)
    with open(told, "rb") as pipe:
        assert pipe.read() == b"none read"
    assert os.WTERMSIG(status) == signal.SIGSEGV  # the wall is one
