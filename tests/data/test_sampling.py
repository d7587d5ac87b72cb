"""Orders: nothing twice, nothing lost, the same global batches at any world size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from semabench.data.draws import PADDING, eval_order, permutation, train_order
from semabench.errors import SemabenchError

sizes = st.integers(1, 300)


@given(num_samples=sizes, seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 500))
def test_permutation_is_one(num_samples, seed, epoch):
    order = permutation(num_samples, seed, epoch)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(num_samples))


def test_permutations_are_uniform():
    places = np.array([permutation(4, 0, epoch) for epoch in range(4800)])
    _, counts = np.unique(places @ [64, 16, 4, 1], return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-4


def test_permutation_is_pinned():
    # Runs that resume with a newer numpy must find the order they left.
    assert permutation(8, 1, 2).tolist() == [4, 5, 7, 2, 6, 1, 3, 0]


@given(num_samples=sizes, batch_size=st.integers(1, 40), world_size=st.integers(1, 8))
def test_ranks_share_an_epoch_without_repeats(num_samples, batch_size, world_size):
    global_batch = batch_size * world_size
    if num_samples < global_batch:
        with pytest.raises(SemabenchError, match=r"fewer than one batch.*smaller batch_size"):
            train_order(num_samples, seed=0, epoch=0, batch_size=batch_size, world_size=world_size)
        return
    ranks = [
        train_order(
            num_samples, seed=0, epoch=0, batch_size=batch_size, rank=rank, world_size=world_size
        )
        for rank in range(world_size)
    ]
    alone = train_order(num_samples, seed=0, epoch=0, batch_size=global_batch)
    assert np.array_equal(np.concatenate(ranks, axis=1), alone)
    assert len(np.unique(alone)) == alone.size == num_samples // global_batch * global_batch


@given(num_samples=sizes, batch_size=st.integers(1, 40), world_size=st.integers(1, 64))
def test_evaluation_sees_every_sample_once(num_samples, batch_size, world_size):
    ranks = [
        eval_order(num_samples, batch_size=batch_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert len({order.shape for order in ranks}) == 1
    seen = np.concatenate([order.ravel() for order in ranks])
    assert sorted(seen[seen != PADDING].tolist()) == list(range(num_samples))
    assert len(ranks[0]) == -(-num_samples // (batch_size * world_size))


def test_epochs_and_seeds_differ():
    orders = [permutation(100, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


@given(
    num_samples=sizes,
    batch_size=st.integers(1, 40),
    world_size=st.integers(1, 4),
    repeats=st.integers(1, 4),
)
def test_repeated_augmentation_repeats_the_head_of_the_permutation(
    num_samples, batch_size, world_size, repeats
):
    global_batch = batch_size * world_size
    if num_samples < global_batch:
        return
    options = {"seed": 3, "epoch": 1, "repeats": repeats}
    alone = train_order(num_samples, batch_size=global_batch, **options)
    ranks = [
        train_order(num_samples, batch_size=batch_size, rank=r, world_size=world_size, **options)
        for r in range(world_size)
    ]
    assert np.array_equal(np.concatenate(ranks, axis=1), alone)
    assert len(np.unique(alone)) == alone.size == num_samples // global_batch * global_batch
    # As DeiT's sampler: the permutation, each sample `repeats` times in a row, cut to length; a
    # global batch is a run of it.
    indices, copies = alone % num_samples, alone // num_samples
    assert copies.max() < repeats
    expected = np.repeat(permutation(num_samples, 3, 1), repeats)[: alone.size]
    assert np.array_equal(np.sort(indices), np.sort(expected.reshape(alone.shape)))
    assert (np.diff(copies, axis=1) >= 0).all()  # copy by copy


def test_copies_of_a_sample_are_on_different_ranks():
    ranks = [
        train_order(600, seed=0, epoch=0, batch_size=50, rank=r, world_size=3, repeats=3)
        for r in range(3)
    ]
    for rank, order in enumerate(ranks):
        assert (order // 600 == rank).all()
        assert np.array_equal(order % 600, ranks[0] % 600)
