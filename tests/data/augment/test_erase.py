"""Random erasing: noise in the rectangle, nothing elsewhere."""

import numpy as np
import pytest
import torch
from scipy import stats

from semabench.data.augment.batch import erase, noise
from semabench.data.augment.plan import Boxes, plan_erasing

MASK = (1 << 64) - 1


def splitmix64(seed: int, place: int) -> int:
    """Sebastiano Vigna's reference, the number after ``place`` others."""
    z = (seed + (place + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_noise_is_splitmix64_turned_normal():
    assert splitmix64(1234567, 0) == 6457827717110365317  # as published
    seeds = [0, 1234567, -5, 2**63 - 1, -(2**63)]
    for seed in seeds:
        ours = noise(torch.full((4,), seed), torch.arange(4))
        for place in range(4):
            word = splitmix64(seed & MASK, place)
            parts = [(word >> shift) & 0x1FFFFF for shift in (0, 21, 42)]
            expected = stats.norm.ppf([(part + 0.5) / 2**21 for part in parts])
            np.testing.assert_allclose(ours[place], expected, rtol=2e-4, atol=1e-5)


def test_noise_is_standard_normal_and_channels_are_independent():
    drawn = noise(torch.full((20_000,), 77), torch.arange(20_000)).numpy()
    for channel in drawn.T:
        assert stats.kstest(channel, "norm").pvalue > 1e-4
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.03
    other = noise(torch.full((20_000,), 78), torch.arange(20_000)).numpy()
    assert np.abs(np.corrcoef(drawn[:, 0], other[:, 0])[0, 1]) < 0.03
    assert np.abs(drawn).max() < 5.1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_rectangles_and_nothing_else_are_erased(layout):
    images = torch.full((64, 3, 40, 40), 9.0).to(memory_format=layout)
    boxes = plan_erasing(0.5, 40, 1, 2, np.arange(64))
    out = erase(images, boxes)
    assert out is images
    inside = torch.zeros(64, 40, 40, dtype=torch.bool)
    for slot, top, left, height, width, _ in zip(*boxes, strict=True):
        inside[slot, top : top + height, left : left + width] = True
    assert ((out != 9.0).all(1) == inside).all()
    assert ((out == 9.0).all(1) == ~inside).all()
    values = out.permute(0, 2, 3, 1)[inside].flatten()
    assert stats.kstest(values.numpy(), "norm").pvalue > 1e-4


def test_a_batch_without_rectangles_is_left_alone():
    images = torch.ones(2, 3, 8, 8)
    none = Boxes(*[np.zeros(0, np.int64)] * 6)
    assert torch.equal(erase(images, none), torch.ones(2, 3, 8, 8))
