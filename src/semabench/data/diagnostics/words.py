"""Random words of a sample as tensors: the counter-based hash of ``data/draws.py``, on any device.

Integer arithmetic alone, so a CPU and a GPU draw the same pictures bit for bit, and there is no
state: a sample is a function of (seed, epoch, index), whatever the batch it is drawn in.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from semabench.data.draws import philox

STREAM_DIAGNOSTICS = 16
TEST_EPOCH = 2**32 - 1  # the pictures that are reported on; training epochs count from 0
CALIBRATION_EPOCH = 2**32 - 2  # those that tasks and recipes were chosen on
WORD = 2**32


def sample_words(seed: int, epoch: int, index: Tensor, count: int) -> Tensor:
    """Return ``count`` 32-bit words for each sample, int64 (B, count) in [0, 2³²).

    Args:
        seed: 0 ≤ seed < 2⁶⁴.
        epoch: 0 ≤ epoch < 2³².
        index: int64 (B,), each 0 ≤ index < 2³².
        count: words of a sample; the first ones do not depend on it.
    """
    blocks: Any = torch.arange(-(-count // 4), device=index.device)
    # A product of 32-bit words wraps round in int64, with all its 64 bits right.
    first: Any = index[:, None]
    four = philox(seed, epoch, first, STREAM_DIAGNOSTICS, blocks)
    return torch.stack(four, dim=-1).flatten(1)[:, :count]


def below(words: Tensor, bound: int | Tensor) -> Tensor:
    """Map words to integers 0 … bound - 1, uniform up to bound / 2³²."""
    return (words * bound) >> 32


def random_order(words: Tensor) -> Tensor:
    """Return for each row of words (B, k) a random permutation of 0 … k-1, (B, k).

    Equal words are told apart by their place: sorting is then the same on every device.
    """
    k = words.shape[1]
    places = torch.arange(k, device=words.device)
    return torch.argsort(words * k + places, dim=1)
