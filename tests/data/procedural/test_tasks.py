"""The diagnostic tasks: what their images hold, what they do not give away, how they come."""

from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semabench.data.procedural.draw import (
    BLANK,
    MAJORITY_SHARE,
    ROLES,
    TEXTURE_SHARE,
    atlas,
    below,
    draw,
    open_cells,
    open_dominoes,
    patterns,
    place,
    query_cell,
    random_order,
    sample_words,
)
from semabench.data.procedural.tasks import (
    CELL,
    CLASSES,
    KINDS,
    TASKS,
    Task,
    _has_room,
    smallest_size,
    task_named,
)
from semabench.errors import SemabenchError

MIXED = [name for name in TASKS if name != "texture"]
CPU = torch.device("cpu")


def placed(name, size=16, samples=256, seed=0, epoch=0, **settings):
    return place(task_named(name, **settings), size, seed, epoch, torch.arange(samples))


def role(cells, name):
    """The kinds of the cells of one role, -1 elsewhere."""
    kinds = cells - ROLES.index(name) * KINDS
    return torch.where((kinds >= 0) & (kinds < KINDS), kinds, -1)


def test_glyphs_have_equal_ink_and_are_far_apart():
    found = torch.from_numpy(patterns()).flatten(1).float()
    assert (found.sum(1) == 18).all()
    distances = torch.cdist(found, found, p=1) + 99 * torch.eye(KINDS)
    assert distances.min() >= 12
    assert len(atlas().flatten(1).unique(dim=0)) == len(ROLES) * KINDS + 1


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("size", [14, 17])
def test_a_batch_keeps_the_contract(name, size):
    images, labels = draw(task_named(name), size, seed=1, epoch=2, index=torch.arange(5))
    assert images.shape == (5, 3, size * CELL, size * CELL)
    assert images.dtype == torch.uint8
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.dtype == torch.int64
    assert set(images.unique().tolist()) == {80, 200}


@pytest.mark.parametrize("name", TASKS)
def test_a_sample_depends_on_seed_epoch_and_index_alone(name):
    task = task_named(name)
    whole, labels = place(task, 14, 7, 3, torch.arange(6))
    alone, label = place(task, 14, 7, 3, torch.tensor([4]))
    assert torch.equal(whole[4], alone[0])
    assert labels[4] == label[0]
    for other in ((8, 3, 4), (7, 4, 4), (7, 3, 5)):
        cells, _ = place(task, 14, other[0], other[1], torch.tensor([other[2]]))
        assert not torch.equal(cells, alone)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("texture", "2ef0ec419396"),
        ("majority", "498f969f9c2c"),
        ("needle", "2741d75d51f5"),
        ("recall", "018e1f2a42ad"),
    ],
)
def test_the_images_of_version_1_stay_as_they_are(name, digest):
    images, labels = draw(task_named(name), 14, seed=1, epoch=2, index=torch.tensor([3, 2**32 - 1]))
    pixels = images.permute(0, 2, 3, 1).numpy().tobytes() + labels.numpy().tobytes()
    assert hashlib.sha256(pixels).hexdigest()[:12] == digest


@pytest.mark.parametrize("name", TASKS)
def test_classes_are_equally_frequent(name):
    _, labels = placed(name, samples=4096)
    counts = torch.bincount(labels, minlength=CLASSES)
    expected = 4096 / CLASSES
    assert ((counts - expected) ** 2 / expected).sum() < 24.3  # chi², 7 degrees, p = 0.001


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("size", [14, 16])
def test_a_bag_of_pixels_knows_nothing(name, size):
    """Every image of a task (and m) has the same pixel values equally often."""
    images, labels = draw(
        task_named(name, pairs=(8,)), size, seed=0, epoch=0, index=torch.arange(64)
    )
    assert len(labels.unique()) > 4
    ink = (images > 100).flatten(1).sum(1)
    assert len(ink.unique()) == 1


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("clear", [0, 3, 6])
def test_around_the_query_there_is_nothing(name, clear):
    size = 20
    cells, labels = placed(name, size, clear=clear)
    near = torch.ones(size * size, dtype=torch.bool)
    near[open_cells(size, clear, CPU)] = False
    assert near.sum() == (2 * clear + 1) ** 2
    query = query_cell(size)
    near[query] = False
    assert (cells[:, near] == BLANK).all()
    shown = role(cells, "query")
    assert ((shown >= 0).sum(1) == 1).all()
    if name != "recall":
        assert (shown[:, query] == 0).all()  # the question is always the same
    else:
        known = torch.corrcoef(torch.stack([shown[:, query], labels]).float())[0, 1]
        assert abs(known) < 0.25


def test_texture_shows_its_class_more_often_than_any_other():
    cells, labels = placed("texture")
    shown = role(cells, "plain")
    share = ((shown == labels[:, None]).sum(1) / (shown >= 0).sum(1)).mean()
    assert share == pytest.approx(TEXTURE_SHARE, abs=0.01)
    others = (labels[:, None] + 1 + torch.arange(7)) % CLASSES
    for other in others.T:
        found = ((shown == other[:, None]).sum(1) / (shown >= 0).sum(1)).mean()
        assert found == pytest.approx((1 - TEXTURE_SHARE) / 7, abs=0.01)


def test_what_is_seen_around_the_query_tells_the_texture_nearly_always():
    """The ceiling of a model that mixes nothing: 99.8 %, by the glyph shown most often there."""
    size, samples = 14, 16384
    near = torch.ones(size * size, dtype=torch.bool)
    near[open_cells(size, 3, CPU)] = near[query_cell(size)] = False
    assert near.sum() == 48
    cells, labels = placed("texture", size, samples)
    counts = torch.nn.functional.one_hot(role(cells[:, near], "plain"), CLASSES).sum(1)
    best = counts == counts.amax(1, keepdim=True)
    right = (best.gather(1, labels[:, None])[:, 0] / best.sum(1)).mean()
    assert right == pytest.approx(0.9982, abs=5e-4)


def test_size_and_number_of_pairs_say_nothing_of_the_class():
    """A sample has the same class at every size, and with any m."""
    for name in TASKS:
        _, small = placed(name, 14)
        _, large = placed(name, 20)
        assert torch.equal(small, large)
    _, few = placed("recall", pairs=(4,))
    _, many = placed("recall", pairs=(32,))
    assert torch.equal(few, many)


def test_where_the_asked_pair_lies_says_nothing_of_its_value():
    cells, labels = placed("recall", samples=4096, pairs=(8,))
    query = query_cell(16)
    asked = role(cells, "key") == role(cells, "query")[:, query : query + 1]
    asked &= role(cells, "key") >= 0
    assert (asked.sum(1) == 1).all()
    where = asked.float().argmax(1)
    for line in (where // 16, where % 16):
        known = torch.corrcoef(torch.stack([line, labels]).float())[0, 1]
        assert abs(known) < 0.06  # 3.8 standard errors


def test_majority_has_exact_counts_anywhere():
    cells, labels = placed("majority")
    shown = role(cells, "plain")
    counts = torch.stack([(shown == kind).sum(1) for kind in range(CLASSES)], dim=1)
    places = len(open_cells(16, 3, CPU))
    assert (counts.sum(1) == places).all()
    assert (counts.gather(1, labels[:, None]) == round(MAJORITY_SHARE * places)).all()
    rest = counts.scatter(1, labels[:, None], 0)
    assert rest.max() <= -(-(places - round(MAJORITY_SHARE * places)) // 7)
    # No place prefers a class: where the class is shown is uniform over the open cells.
    hits = (shown == labels[:, None]).float().mean(0)[open_cells(16, 3, CPU)]
    assert (hits - MAJORITY_SHARE).abs().max() < 0.12  # 4.8 standard errors


def test_needle_is_the_only_marked_cell():
    cells, labels = placed("needle", samples=2048)
    marked = role(cells, "marked")
    assert ((marked >= 0).sum(1) == 1).all()
    assert torch.equal(marked.max(1).values, labels)
    where = (marked >= 0).nonzero()[:, 1]
    assert len(where.unique()) > 0.99 * len(open_cells(16, 3, CPU))
    known = torch.corrcoef(torch.stack([where, labels]).float())[0, 1]
    assert abs(known) < 0.1


@settings(deadline=None, max_examples=20)
@given(m=st.integers(1, 32), size=st.integers(14, 20), seed=st.integers(0, 2**63))
def test_recall_has_m_pairs_and_asks_for_one_of_them(m, size, seed):
    cells, labels = placed("recall", size, samples=8, seed=seed, pairs=(m,))
    for row, label in zip(cells, labels, strict=True):
        keys = role(row, "key")
        values = role(row, "value")
        at = (keys >= 0).nonzero().squeeze(1)
        assert len(at) == m == len(keys[at].unique())
        assert torch.equal((values >= 0).nonzero().squeeze(1), at + 1)
        assert (at % size % 2 == 0).all()  # a pair never wraps round into the next row
        asked = role(row, "query")[query_cell(size)]
        (found,) = at[keys[at] == asked]
        assert values[found + 1] == label


def test_recall_draws_m_from_its_choices():
    cells, _ = placed("recall", pairs=(4, 8))
    m = (role(cells, "key") >= 0).sum(1)
    assert set(m.tolist()) == {4, 8}
    assert 90 < (m == 4).sum() < 166


@given(st.integers(0, 2**32 - 1), st.integers(1, 2**20))
def test_words_map_below_a_bound_as_real_numbers_do(word, bound):
    assert int(below(torch.tensor([word]), bound)) == word * bound // 2**32


def test_more_words_begin_with_the_fewer():
    few = sample_words(3, 4, torch.arange(5), 6)
    many = sample_words(3, 4, torch.arange(5), 50)
    assert torch.equal(many[:, :6], few)
    assert few.min() >= 0
    assert few.max() < 2**32
    order = random_order(many)
    assert torch.equal(order.sort(1).values, torch.arange(50).expand(5, -1))


@pytest.mark.parametrize("clear", [0, 1, 3, 4])
def test_room_is_counted_as_it_is_drawn(clear):
    """What a config is checked with knows no tensors."""
    for size in range(1, 30):
        cells = len(open_cells(size, clear, CPU))
        dominoes = len(open_dominoes(size, clear, CPU))
        assert _has_room(Task("needle", clear), size) == (cells >= 4 * CLASSES)
        for pairs in (1, max(1, dominoes), dominoes + 1):
            assert _has_room(Task("recall", clear, (pairs,)), size) == (dominoes >= pairs)


@pytest.mark.parametrize("name", TASKS)
def test_the_smallest_size_is_the_smallest(name):
    task = task_named(name)
    least = smallest_size(task)
    place(task, least, 0, 0, torch.arange(2))
    with pytest.raises(SemabenchError, match=f"at least {least} cells a side, not {least - 1}"):
        place(task, least - 1, 0, 0, torch.arange(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "neddle"}, "Did you mean 'needle'"),
        ({"name": "needle", "clear": -1}, "at least 0"),
        ({"name": "recall", "pairs": ()}, "from 1 to 32"),
        ({"name": "recall", "pairs": (33,)}, "from 1 to 32"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(SemabenchError, match=message):
        task_named(**arguments)
