"""What happens to each sample: drawn on the CPU from (seed, epoch, sample), for a whole batch.

A sample is a key of `sampling`: its index in the data set, and which of its copies it is. Nothing
else goes into a draw, so that a batch of one gives what a batch of a thousand does.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from semabench.data.augment.policy import MAX_LEVEL, NONE, OPS, RandAugment, arguments
from semabench.data.draws import STREAM_AUGMENT, STREAM_ERASE, STREAM_JITTER, WORD, philox

# timm.data.RandomErasing's defaults
ERASE_AREA = (0.02, 1 / 3)  # of the picture
ERASE_MIN_ASPECT = 0.3
ERASE_ATTEMPTS = 10

_JITTER_ORDERS = np.array(
    list(itertools.permutations(OPS.index(op) for op in ("Brightness", "Contrast", "Color")))
)


class Layer(NamedTuple):
    """One operation a sample."""

    ops: np.ndarray  # int64 (B,): place in OPS, or NONE
    values: np.ndarray  # float64 (B,): its argument, see `policy.arguments`


class Boxes(NamedTuple):
    """The rectangles to erase, those of samples that have one; all int64 (n,)."""

    slots: np.ndarray  # place in the batch
    tops: np.ndarray
    lefts: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    seeds: np.ndarray  # 64 bits where the rectangle's noise begins


def plan_rand_augment(policy: RandAugment, seed: int, epoch: int, keys: np.ndarray) -> list[Layer]:
    """Draw operations and levels of ``policy`` for samples ``keys``, int64 (B,)."""
    blocks = np.arange(policy.layers, dtype=np.uint64)
    words = philox(seed, epoch, _column(keys), STREAM_AUGMENT, blocks)
    ops = ((words[0] * np.uint64(len(OPS))) >> np.uint64(32)).astype(np.int64)
    applied = words[1] * WORD < policy.prob
    levels = policy.magnitude + policy.std * ndtri((words[2] + 0.5) * WORD)
    levels = np.clip(levels, 0.0, MAX_LEVEL)
    values = arguments(ops, levels, words[3] * WORD < 0.5, policy.increasing)
    ops = np.where(applied, ops, NONE)
    return [Layer(ops[:, layer], values[:, layer]) for layer in range(policy.layers)]


def plan_color_jitter(strength: float, seed: int, epoch: int, keys: np.ndarray) -> list[Layer]:
    """Draw brightness, contrast and saturation in random order, as torchvision's ColorJitter.

    Each factor is uniform in [max(0, 1 − strength), 1 + strength].
    """
    words = philox(seed, epoch, keys.astype(np.uint64), STREAM_JITTER)
    order = _JITTER_ORDERS[((words[3] * np.uint64(6)) >> np.uint64(32)).astype(np.int64)]
    low = max(0.0, 1.0 - strength)
    return [
        Layer(order[:, place], low + word * WORD * (1.0 + strength - low))
        for place, word in enumerate(words[:3])
    ]


def plan_erasing(prob: float, resolution: int, seed: int, epoch: int, keys: np.ndarray) -> Boxes:
    """Draw at most one rectangle a sample, as timm's RandomErasing does.

    Its share of the picture is uniform, its aspect ratio (height / width) log-uniform; the first
    of ten tries that is smaller than the picture in both directions is taken.
    """
    first = philox(seed, epoch, keys.astype(np.uint64), STREAM_ERASE)
    slots = np.flatnonzero(first[0] * WORD < prob)
    seeds = (first[1] << np.uint64(32) | first[2]).view(np.int64)[slots]
    blocks = np.arange(1, 1 + ERASE_ATTEMPTS, dtype=np.uint64)
    words = philox(seed, epoch, _column(keys[slots]), STREAM_ERASE, blocks)
    share = ERASE_AREA[0] + words[0] * WORD * (ERASE_AREA[1] - ERASE_AREA[0])
    area = share * resolution * resolution
    log_aspect = math.log(ERASE_MIN_ASPECT) * (1 - 2 * (words[1] * WORD))
    heights = np.rint(np.sqrt(area * np.exp(log_aspect))).astype(np.int64)
    widths = np.rint(np.sqrt(area / np.exp(log_aspect))).astype(np.int64)
    fits = (heights < resolution) & (widths < resolution)
    tops = (words[2] * WORD * (resolution - heights + 1)).astype(np.int64)
    lefts = (words[3] * WORD * (resolution - widths + 1)).astype(np.int64)
    chosen = np.flatnonzero(fits.any(axis=1))
    at = chosen, np.argmax(fits, axis=1)[chosen]
    return Boxes(slots[chosen], tops[at], lefts[at], heights[at], widths[at], seeds[chosen])


def _column(keys: np.ndarray) -> np.ndarray:
    return keys.astype(np.uint64)[:, None]
