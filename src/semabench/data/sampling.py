"""Which sample is in which batch: pure functions of (seed, epoch, rank), never of workers.

A sample is named by its key: its index in the data set, and with repeated augmentation
``copy · num_samples`` more, so that each copy has random draws of its own.

Both functions return an int64 array of shape (batches, batch_size), so that a batch's samples can
be looked up by its number, and starting in mid-epoch is a slice. With ``world_size`` processes of
``batch_size`` samples, step ``t`` takes the ``t``-th run of ``batch_size · world_size`` samples of
one global order, and rank ``r`` the ``r``-th part of it: for the same global batch size the same
samples meet in a step, whatever the number of devices.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from semabench.data.draws import STREAM_SHUFFLE, philox
from semabench.errors import SemabenchError

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
            f"the training set has {num_samples} pictures, fewer than one batch of "
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
