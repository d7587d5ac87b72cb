"""Random numbers that belong to a sample: a function of (seed, epoch, sample index) alone.

The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
SC'11): a keyed hash of a counter, so that there is no state to carry between samples, workers,
ranks or runs. It is written with integers masked to 32 bits, so that the very same source runs on
Python integers (folder loader), on numpy's uint64 arrays (shuffling), on torch's tensors
(procedural images) and under numba (FFCV loader): every loader draws the same, bit for bit.

A sample is named by its key: its index in the dataset, and with repeated augmentation
``copy · num_samples`` more, so that each copy has random draws of its own. Orders are keys of shape
(batches, batch_size): starting in mid-epoch is a slice. Step ``t`` takes the ``t``-th run of
``batch_size · world_size`` samples of one global order, and rank ``r`` the ``r``-th part of it: for
the same global batch size the same samples meet in a step, whatever the number of devices.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeVar

import numpy as np

from semabench.errors import SemabenchError

MASK = 0xFFFFFFFF
WORD = 1.0 / 4294967296.0  # maps a 32-bit word to [0, 1)

# Streams keep the draws of one purpose apart from those of another.
STREAM_SHUFFLE = 0
STREAM_CROP = 1
STREAM_FLIP = 2
STREAM_AUGMENT = 3
STREAM_JITTER = 4
STREAM_ERASE = 5
STREAM_SIZE = 6  # of a batch; its number is the index
STREAM_PROCEDURAL = 16

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

    The box covers a share of the image's area drawn uniformly from [scale_min, scale_max], with
    an aspect ratio (width / height) drawn log-uniformly from [ratio_min, ratio_max]. After ten
    boxes that do not fit, the largest central box within the ratios is taken.

    Returns:
        ``top, left, crop_height, crop_width`` in pixels, inside the image and ≥ 1.
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


PADDING = -1  # the index, and the label, of an entry that only fills its batch


class Samples(NamedTuple):
    """The samples of a training batch: all that their random draws depend on, but for the seed."""

    epoch: int
    keys: np.ndarray  # int64 (B,)


def permutation(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    """Return a uniformly random permutation of ``range(num_samples)`` as int64.

    It sorts random 64-bit keys instead of calling numpy's shuffle, whose stream numpy does not
    promise to keep from version to version.
    """
    blocks = np.arange((num_samples + 1) // 2, dtype=np.uint64)
    word0, word1, word2, word3 = philox(seed, epoch, blocks, STREAM_SHUFFLE)
    thirty_two = np.uint64(32)
    keys = np.concatenate([word0 << thirty_two | word1, word2 << thirty_two | word3])
    return np.argsort(keys[:num_samples], kind="stable").astype(np.int64)


def train_order(
    num_samples: int,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    repeats: int = 1,
) -> np.ndarray:
    """Return the keys of the training samples of one epoch and rank, (batches, batch_size) int64.

    No key comes twice in an epoch on any rank. The last ``num_samples % (batch_size ·
    world_size)`` of the permutation do not fill a global batch and sit this epoch out; they differ
    from epoch to epoch.

    With ``repeats`` > 1 (repeated augmentation, Hoffer et al. 2020) an epoch is as long, but made
    of the first 1/repeats of the permutation, each sample ``repeats`` times in a row, as DeiT's
    and timm's samplers have it. Within a global batch first copies come first, then second ones,
    and so on: copies are on different ranks where there are as many.

    Raises:
        SemabenchError: there are fewer samples than one global batch takes.
    """
    global_batch = batch_size * world_size
    batches = num_samples // global_batch
    if batches == 0:
        raise SemabenchError(
            f"the training set has {num_samples} images, fewer than one batch of "
            f"{batch_size} on each of {world_size} device(s): set a smaller batch_size."
        )
    order = permutation(num_samples, seed, epoch)[: batches * global_batch]
    if repeats > 1:
        places = np.arange(len(order))
        order = order[places // repeats] + places % repeats * num_samples
        copy_by_copy = np.lexsort((places, places % repeats, places // global_batch))
        order = order[copy_by_copy]
    return np.ascontiguousarray(order.reshape(batches, world_size, batch_size)[:, rank])


def eval_order(
    num_samples: int, *, batch_size: int, rank: int = 0, world_size: int = 1
) -> np.ndarray:
    """Return the evaluation samples of one rank, (batches, batch_size) int64.

    Every sample comes exactly once over all ranks. Ranks have equally many, full batches; places
    that are left over at the end hold ``PADDING``.
    """
    global_batch = batch_size * world_size
    batches = -(-num_samples // global_batch)
    order = np.full(batches * global_batch, PADDING, dtype=np.int64)
    order[:num_samples] = np.arange(num_samples)
    return np.ascontiguousarray(order.reshape(batches, world_size, batch_size)[:, rank])
