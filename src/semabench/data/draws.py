"""Random numbers that belong to a sample: a function of (seed, epoch, sample index) alone.

The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
SC'11): a keyed hash of a counter, so that there is no state to carry between samples, workers,
ranks or runs. It is written with integers masked to 32 bits, so that the very same source runs on
Python integers (folder loader), on numpy's uint64 arrays (shuffling) and under numba (FFCV
loader): every loader draws the same crops and flips, bit for bit.
"""

from __future__ import annotations

import math
from typing import TypeVar

MASK = 0xFFFFFFFF
WORD = 1.0 / 4294967296.0  # maps a 32-bit word to [0, 1)

# Streams keep the draws of one purpose apart from those of another.
STREAM_SHUFFLE = 0
STREAM_CROP = 1
STREAM_FLIP = 2
STREAM_AUGMENT = 3
STREAM_JITTER = 4
STREAM_ERASE = 5

CROP_ATTEMPTS = 10  # as torchvision

Words = TypeVar("Words")  # int, or a numpy array of uint64


def philox(
    seed: int, epoch: int, index: Words, stream: int, block: Words | int = 0
) -> tuple[Words, Words, Words, Words]:
    """Return four 32-bit random words for one sample.

    Args:
        seed: 0 ≤ seed < 2⁶⁴: the run's.
        epoch: 0 ≤ epoch < 2³².
        index: 0 ≤ index < 2³²: the sample's, or a uint64 array of them.
        stream: 0 ≤ stream < 2³²: what the numbers are for (``STREAM_*``).
        block: 0 ≤ block < 2³²: which four words of the stream, or a uint64 array.
    """
    key0 = seed & MASK
    key1 = (seed >> 32) & MASK
    # The array, if any, comes in as `c0`, so that all words become arrays after two rounds.
    c0, c1, c2, c3 = index, block, epoch, stream
    for _ in range(10):
        product0 = c0 * 0xD2511F53  # type: ignore[operator]
        product1 = c2 * 0xCD9E8D57
        c0 = (((product1 >> 32) & MASK) ^ c1) ^ key0  # type: ignore[assignment, operator]
        c2 = (((product0 >> 32) & MASK) ^ c3) ^ key1
        c1 = product1 & MASK
        c3 = product0 & MASK
        key0 = (key0 + 0x9E3779B9) & MASK
        key1 = (key1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3  # type: ignore[return-value]


def draw_flip(seed: int, epoch: int, index: int, probability: float) -> bool:
    """Return whether to mirror the sample, true with the given probability."""
    word = philox(seed, epoch, index, STREAM_FLIP)[0]
    return word * WORD < probability


def draw_crop(
    seed: int,
    epoch: int,
    index: int,
    height: int,
    width: int,
    scale_min: float,
    scale_max: float,
    ratio_min: float,
    ratio_max: float,
) -> tuple[int, int, int, int]:
    """Draw a random-resized-crop's box with torchvision's semantics.

    The box covers a share of the picture's area drawn uniformly from [scale_min, scale_max], with
    an aspect ratio (width / height) drawn log-uniformly from [ratio_min, ratio_max]. After ten
    boxes that do not fit, the largest central box within the ratios is taken.

    Returns:
        ``top, left, crop_height, crop_width`` in pixels, inside the picture and ≥ 1.
    """
    log_min = math.log(ratio_min)
    log_max = math.log(ratio_max)
    for attempt in range(CROP_ATTEMPTS):
        word0, word1, word2, word3 = philox(seed, epoch, index, STREAM_CROP, attempt)
        area = height * width * (scale_min + word0 * WORD * (scale_max - scale_min))
        ratio = math.exp(log_min + word1 * WORD * (log_max - log_min))
        crop_width = round(math.sqrt(area * ratio))
        crop_height = round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(word2 * WORD * (height - crop_height + 1))
            left = int(word3 * WORD * (width - crop_width + 1))
            return top, left, crop_height, crop_width

    crop_height = height
    crop_width = width
    if width < height * ratio_min:
        crop_height = max(1, round(width / ratio_min))
    elif width > height * ratio_max:
        crop_width = max(1, round(height * ratio_max))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width
