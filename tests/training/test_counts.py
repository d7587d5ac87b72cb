"""Counting is exact, and padding never counts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semabench.data.draws import PADDING, eval_order
from semabench.training.counts import Counts


@given(seed=st.integers(0, 2**31), classes=st.integers(2, 12), size=st.integers(1, 20))
def test_counts_equal_a_loop(seed, classes, size):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, classes, generator=generator)
    labels = torch.randint(-1, classes, (size,), generator=generator)
    counts = Counts()
    counts.add(logits[: size // 2], labels[: size // 2])
    counts.add(logits[size // 2 :], labels[size // 2 :])
    top1 = top5 = n = 0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        if label < 0:
            continue
        rank = sum(v > row[label] for v in row)
        n, top1, top5 = n + 1, top1 + (rank < 1), top5 + (rank < 5)
    assert counts.correct() == (n, top1, top5)
    if n:
        real = labels >= 0
        loss = torch.nn.functional.cross_entropy(logits[real], labels[real])
        assert counts.result()["loss"] == pytest.approx(float(loss), rel=1e-5)
    counts.reset()
    assert counts.correct() == (0, 0, 0)


@pytest.mark.parametrize("samples", [1, 63, 64, 1000])
def test_sixty_four_processes_count_what_one_does(samples):
    """Each its share of batches, padding included; reduced as Lightning reduces them: by sums."""
    generator = torch.Generator().manual_seed(samples)
    logits = torch.randn(samples, 7, generator=generator)
    labels = torch.randint(0, 7, (samples,), generator=generator)
    whole = Counts()
    whole.add(logits, labels)
    sums = torch.zeros(4, dtype=torch.float64)
    for rank in range(64):
        mine = Counts()
        for order in eval_order(samples, batch_size=4, rank=rank, world_size=64):
            keys = torch.from_numpy(order)
            mine.add(logits[keys], torch.where(keys == PADDING, PADDING, labels[keys]))
        sums += mine.sums
    assert torch.equal(sums[:3], whole.sums[:3])
    assert whole.result(sums)["loss"] == pytest.approx(whole.result()["loss"], rel=1e-6)
