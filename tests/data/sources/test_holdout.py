"""The held-out part of the training images: a partition, by name alone, class by class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semabench.data.sources import split_off
from semabench.data.sources.types import ImageList
from semabench.errors import SemabenchError


def images(counts: list[int]) -> ImageList:
    labels = np.repeat(np.arange(len(counts)), counts)
    return ImageList(
        split="train",
        container=Path("train"),
        classes=[f"c{k}" for k in range(len(counts))],
        names=[f"c{k}" for k in range(len(counts))],
        paths=[f"c{label}/{index}.jpg" for index, label in enumerate(labels)],
        sizes=np.arange(len(labels)),
        labels=labels,
        offsets=np.arange(len(labels)) * 1000,
    )


@given(st.lists(st.integers(10, 60), min_size=1, max_size=4), st.floats(0.05, 0.6))
def test_the_parts_are_disjoint_whole_and_stratified(counts, share):
    whole = images(counts)
    kept, held = (split_off(whole, share, held_out=part) for part in (False, True))
    assert (kept.split, held.split) == ("train", "val")
    assert sorted(kept.paths + held.paths) == sorted(whole.paths)
    assert held.counts == [max(1, round(share * count)) for count in counts]
    for part in (kept, held):
        indices = [whole.paths.index(path) for path in part.paths]
        assert indices == sorted(indices)
        assert part.sizes.tolist() == whole.sizes[indices].tolist()
        assert part.labels.tolist() == whole.labels[indices].tolist()
        assert part.offsets is not None
        assert part.offsets.tolist() == (np.array(indices) * 1000).tolist()
        assert part.fingerprint != whole.fingerprint


def test_an_image_stays_in_its_part_when_others_come():
    """Of a class that doubles, about as many are held out as are lost to it."""
    few, many = (set(split_off(images([n]), 0.2, held_out=True).paths) for n in (200, 400))
    assert len(few & many) > 20
    assert few != set(images([40]).paths)  # not simply the first


@pytest.mark.parametrize(
    ("counts", "share", "message"),
    [([5], 0.0, "in .0, 1."), ([5], 1.0, "in .0, 1."), ([5, 1], 0.2, "class c1 has 1")],
)
def test_what_cannot_be_divided_is_told(counts, share, message):
    with pytest.raises(SemabenchError, match=message):
        split_off(images(counts), share, held_out=True)
