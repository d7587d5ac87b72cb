"""Draws are uniform, independent, torchvision's in distribution, and the same under numba."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torchvision.transforms import RandomResizedCrop

from semabench.data import draws

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
words32 = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter, key, expected):
    index, block, epoch, stream = counter
    assert draws.philox(key[0] | key[1] << 32, epoch, index, stream, block) == expected


@given(seed=st.integers(0, 2**64 - 1), epoch=words32, index=words32, stream=words32)
@settings(max_examples=50)
def test_philox_is_the_same_on_arrays(seed, epoch, index, stream):
    on_array = draws.philox(seed, epoch, np.array([index], np.uint64), stream)
    assert tuple(int(word[0]) for word in on_array) == draws.philox(seed, epoch, index, stream)


def uniforms(index, epoch=0, seed=0, word=0):
    return draws.philox(seed, epoch, index, draws.STREAM_CROP)[word] * draws.WORD


@pytest.mark.parametrize("word", range(4))
@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_words_are_uniform(word, seed):
    values = uniforms(np.arange(20000, dtype=np.uint64), seed=seed, word=word)
    assert stats.kstest(values, "uniform").pvalue > 1e-4


@pytest.mark.parametrize(
    "other",
    [
        lambda i: uniforms(i + np.uint64(1)),
        lambda i: uniforms(i, epoch=1),
        lambda i: uniforms(i, seed=1),
        lambda i: uniforms(i, word=1),
        lambda i: draws.philox(0, 0, i, draws.STREAM_FLIP)[0] * draws.WORD,
    ],
    ids=["next sample", "next epoch", "next seed", "next word", "other stream"],
)
def test_neighbours_are_independent(other):
    index = np.arange(20000, dtype=np.uint64)
    table, _, _ = np.histogram2d(uniforms(index), other(index), bins=8, range=[[0, 1]] * 2)
    assert stats.chi2_contingency(table).pvalue > 1e-4


def test_flips_have_their_probability():
    for probability in (0.0, 0.3, 1.0):
        flips = sum(draws.draw_flip(7, 0, i, probability) for i in range(3000))
        assert abs(flips - 3000 * probability) <= 4 * math.sqrt(3000 * 0.25) * (probability == 0.3)


@given(
    seed=st.integers(0, 2**64 - 1),
    index=words32,
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    low=st.floats(0.01, 1),
    high=st.floats(0.01, 1),
)
@settings(max_examples=200)
def test_crops_lie_inside_the_image(seed, index, height, width, low, high):
    scale = sorted((low, high))
    top, left, h, w = draws.draw_crop(seed, 0, index, height, width, *scale, *RATIO)
    assert 0 <= top <= top + h <= height
    assert 0 <= left <= left + w <= width
    assert h >= 1
    assert w >= 1


@pytest.mark.parametrize(("height", "width"), [(375, 500), (256, 256), (64, 400)])
def test_crops_are_distributed_as_torchvisions(height, width):
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, list(SCALE), list(RATIO)) for _ in range(2500)]
    )
    ours = np.array([draws.draw_crop(1, 2, i, height, width, *SCALE, *RATIO) for i in range(2500)])
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-4


@pytest.mark.parametrize(("height", "width"), [(10, 1000), (1000, 10), (1, 1)])
def test_crops_that_never_fit_are_central_as_torchvisions(height, width):
    scale, ratio = (1.0, 1.0), (0.9, 1.1)
    theirs = RandomResizedCrop.get_params(torch.empty(3, height, width), list(scale), list(ratio))
    assert draws.draw_crop(0, 0, 0, height, width, *scale, *ratio) == theirs


def test_numba_draws_the_same_bits():
    decode = pytest.importorskip("semabench.data.ffcv.kernels", exc_type=ImportError)
    generator = np.random.default_rng(0)
    for _ in range(3000):
        seed = int(generator.integers(0, 2**64, dtype=np.uint64))
        signed = int(np.uint64(seed).view(np.int64))
        epoch, index = int(generator.integers(300)), int(generator.integers(2**32))
        height, width = (int(n) for n in generator.integers(1, 2000, 2))
        crop = draws.draw_crop(seed, epoch, index, height, width, *SCALE, *RATIO)
        assert decode.draw_crop(signed, epoch, index, height, width, *SCALE, *RATIO) == crop
        flip = draws.draw_flip(seed, epoch, index, 0.5)
        assert decode.draw_flip(signed, epoch, index, 0.5) == flip
