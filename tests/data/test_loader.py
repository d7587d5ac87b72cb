"""The contract that every loader keeps, and the choice between them."""

import itertools
import json
import threading

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.fabric.utilities.types import _Stateful

from helpers.loader_makers import KINDS, copied, evaluation, needs_ffcv, same, train
from semabench.data.augment.batch import BatchAugment, PixelAugment
from semabench.data.augment.plan import parse_rand_augment
from semabench.data.epoch import Sizes
from semabench.errors import SemabenchError


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_as_promised(dataset, kind):
    loader = train(dataset, kind)
    loader.set_epoch(4)
    images, labels, samples = next(iter(loader))
    assert samples.epoch == 4
    assert np.array_equal(samples.keys, loader.order(4)[0])
    assert images.shape == (8, 3, 48, 48)
    assert images.dtype == torch.uint8
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.shape == (8,)
    assert labels.dtype == torch.int64
    assert len(loader) == 45 // 8
    assert loader.num_samples == 45
    assert loader.batch_size == 8
    assert loader.classes == ["ant", "bee", "cat"]
    sidecar = json.loads((dataset.packed / "train.beton.json").read_text())
    assert loader.fingerprint == sidecar["fingerprint"]


@pytest.mark.parametrize("kind", KINDS)
def test_batches_depend_on_seed_and_epoch_but_not_on_workers(dataset, kind):
    one = train(dataset, kind, num_workers=1)
    two = train(dataset, kind, num_workers=2)
    first = list(one)
    assert same(first, list(two))
    assert same(first, list(one))  # the epoch does not advance by itself
    one.set_epoch(1)
    two.set_epoch(1)
    second = list(one)
    assert same(second, list(two))
    assert not same(first, second)
    assert not same(first, list(train(dataset, kind, seed=4)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_that_is_kept_does_not_change(dataset, kind):
    kept, snapshots = [], []
    for images, labels, _ in train(dataset, kind, batch_size=4):
        kept.append((images, labels))
        snapshots.append((images.clone(), labels.clone()))
    assert len(kept) == 11  # more than are ever prepared in advance
    assert same(kept, snapshots)


@pytest.mark.parametrize("kind", KINDS)
def test_resuming_gives_the_rest_of_the_epoch(dataset, kind):
    loader = train(dataset, kind)
    loader.set_epoch(2)
    iterator = iter(loader)
    head = copied(itertools.islice(iterator, 2))
    state = json.loads(json.dumps(loader.state_dict()))
    tail = copied(iterator)
    assert len(head) + len(tail) == len(loader)

    resumed = train(dataset, kind, num_workers=1)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    resumed.set_epoch(2)  # as Lightning does
    assert len(resumed) == len(loader)
    assert same(list(resumed), tail)
    assert same(list(resumed), head + tail)  # once only
    assert not same(list(resumed), tail)


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_epoch_resumes_with_the_next(dataset, kind):
    loader = train(dataset, kind)
    list(loader)
    resumed = train(dataset, kind)
    resumed.load_state_dict(loader.state_dict())
    resumed.set_epoch(1)
    loader.set_epoch(1)
    assert loader.state_dict()["batch"] == 0
    assert same(list(resumed), list(loader))


def test_mid_epoch_states_of_other_batches_are_refused(dataset):
    loader = train(dataset, "folder")
    loader.start_at(0, 2)
    for options, word in (({"seed": 9}, "seed"), ({"batch_size": 4}, "batch")):
        with pytest.raises(SemabenchError, match=rf"cannot resume in mid-epoch.*{word}"):
            train(dataset, "folder", **options).load_state_dict(loader.state_dict())
    with pytest.raises(SemabenchError, match="no batch 6 in an epoch of 5"):
        loader.start_at(0, 6)


def test_epoch_is_honoured_until_the_first_batch(dataset):
    # Lightning calls iter() before set_epoch() in a process's first epoch.
    loader = train(dataset, "folder")
    assert isinstance(loader, _Stateful)
    iterator = iter(loader)
    _set_sampler_epoch(loader, 4)
    late = copied(iterator)
    other = train(dataset, "folder")
    other.set_epoch(4)
    assert same(late, list(other))


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_make_the_batches_of_one(dataset, kind):
    alone = list(train(dataset, kind, batch_size=8))
    parts = [list(train(dataset, kind, batch_size=4, rank=r, world_size=2)) for r in (0, 1)]
    joined = [
        (torch.cat([x, u]), torch.cat([y, v]))
        for (x, y, _), (u, v, _) in zip(parts[0], parts[1], strict=True)
    ]
    assert same(alone, joined)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("batch_size", "world_size"), [(8, 1), (4, 2), (21, 1), (16, 3)])
def test_evaluation_counts_every_image_once(dataset, kind, batch_size, world_size):
    made = [
        list(evaluation(dataset, kind, batch_size=batch_size, rank=r, world_size=world_size))
        for r in range(world_size)
    ]
    assert len({len(batches) for batches in made}) == 1
    assert all(len(labels) == batch_size for batches in made for _, labels in batches)
    labels = torch.cat([labels for batches in made for _, labels in batches])
    assert torch.bincount(labels[labels >= 0]).tolist() == [7, 7, 7]
    for images, labels in itertools.chain(*made):
        assert not images[labels == -1].any()


@needs_ffcv
@pytest.mark.parametrize("resolution", [32, 48])
def test_evaluation_pixels_are_equal_in_both(dataset, resolution):
    ours = list(evaluation(dataset, "ffcv", resolution=resolution))
    assert same(ours, list(evaluation(dataset, "folder", resolution=resolution)))


@needs_ffcv
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_training_differs_by_jpeg_decoding_only(dataset, interpolation):
    pairs = zip(
        train(dataset, "ffcv", interpolation=interpolation),
        train(dataset, "folder", interpolation=interpolation),
        strict=True,
    )
    for (x, y, _), (u, v, _) in pairs:
        assert torch.equal(y, v)
        difference = (x.int() - u.int()).abs().float()
        assert difference.mean() < 1.5
        assert difference.amax() < 30


@pytest.mark.parametrize("kind", KINDS)
def test_partial_epochs_leave_nothing_behind(dataset, kind):
    loader = train(dataset, kind, num_workers=1)
    next(iter(loader))
    before = set(threading.enumerate())
    for _ in range(20 if kind == "ffcv" else 3):
        for _batch in loader:
            break
    assert set(threading.enumerate()) <= before
    assert len(list(loader)) == len(loader)


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_sizes_are_the_same_on_all_ranks_and_after_a_resume(dataset, kind):
    def sizes(loader):
        return [images.shape[-1] for images, *_ in loader]

    mixed = [32, 40, 48]
    whole = train(dataset, kind, batch_size=4, mixed=mixed)
    first = sizes(whole)
    assert first == [whole.resolution_of(0, batch) for batch in range(11)]
    assert set(first) == set(mixed)
    whole.set_epoch(1)
    assert sizes(whole) != first
    whole.start_at(0, 7)
    assert sizes(whole) == first[7:]
    for rank in (0, 1):
        share = train(dataset, kind, batch_size=2, rank=rank, world_size=2, mixed=mixed)
        assert sizes(share) == first


def test_mixed_sizes_are_equally_likely():
    sizes = Sizes(64, mixed=[64, 96, 128])
    drawn = [sizes.of(3, epoch, batch) for epoch in range(10) for batch in range(300)]
    counts = [drawn.count(size) for size in sizes.all]
    assert sum(counts) == 3000
    assert all(abs(count - 1000) < 4 * (3000 * 2 / 9) ** 0.5 for count in counts)


def test_order_tells_each_batchs_samples(dataset):
    loader = evaluation(dataset, "folder", batch_size=16)
    assert np.array_equal(loader.order(0).ravel()[:21], np.arange(21))


@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_the_same_image_cropped_anew(dataset, kind):
    loader = train(dataset, kind, batch_size=9, repeats=3)
    assert len(loader) == 45 // 9
    plain = {}
    for images, labels, samples in train(dataset, kind, batch_size=9):
        plain |= {k: (i, y) for k, i, y in zip(samples.keys, images, labels, strict=True)}
    changed = 0
    for images, labels, samples in loader:
        for key, image, label in zip(samples.keys, images, labels, strict=True):
            expected, expected_label = plain[key % 45]
            assert label == expected_label
            if key < 45:
                assert torch.equal(image, expected)
            else:
                changed += not torch.equal(image, expected)
    assert changed >= 28  # of 30


def test_the_folder_loaders_workers_augment_with_timms_operations(dataset):
    augment = PixelAugment(rand_augment=parse_rand_augment("rand-m9-mstd0.5-inc1"), seed=3)
    one = train(dataset, "folder", num_workers=1, augment=augment)
    two = train(dataset, "folder", num_workers=2, augment=augment)
    assert same(list(one), list(two))
    on_device = BatchAugment(augment, 0.0, seed=3)
    plain = train(dataset, "folder")
    for (ours, *_), (images, _, samples) in zip(one, plain, strict=True):
        expected = on_device.change(images, samples)
        assert (ours != expected).float().mean() < 0.01
        assert not torch.equal(ours, images)
    one.start_at(0, 3)
    assert same(list(one), list(two)[3:])


@needs_ffcv
def test_the_ffcv_loader_does_not_augment(dataset):
    with pytest.raises(SemabenchError, match="only the folder loader can augment on the CPU"):
        train(dataset, "ffcv", augment=PixelAugment(color_jitter=0.4))


@pytest.mark.parametrize("kind", KINDS)
def test_images_grow_by_the_schedule_and_are_cut_as_before(dataset, kind):
    """Each epoch is what a loader of its resolution makes: only the size differs."""
    growing = train(dataset, kind, schedule=[[0, 32], [2, 48], [3, 64]])
    for epoch, resolution in ((0, 32), (1, 32), (2, 48), (5, 64), (0, 32)):
        plain = train(dataset, kind, resolution=resolution)
        growing.set_epoch(epoch)
        plain.set_epoch(epoch)
        found = list(growing)
        assert found[0][0].shape == (8, 3, resolution, resolution)
        assert same(found, list(plain))
    growing.start_at(2, 3)  # resumed in the middle of an epoch
    assert next(iter(growing))[0].shape[-1] == 48


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_ranks_read_an_epoch_without_loss_or_repeats(dataset, kind, world_size):
    """45 images, three copies each: global batches of 12 leave 9 places of the epoch over."""
    keys = []
    for rank in range(world_size):
        loader = train(
            dataset, kind, batch_size=12 // world_size, rank=rank, world_size=world_size, repeats=3
        )
        keys.append(np.stack([samples.keys for _, _, samples in loader]))
    together = np.concatenate(keys, axis=1)
    alone = train(dataset, kind, batch_size=12, repeats=3).order(0)
    assert np.array_equal(np.sort(together), np.sort(alone))
    assert len(np.unique(together)) == together.size == 36
