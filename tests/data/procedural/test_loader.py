"""Diagnostic tasks through the loaders of the usual training."""

import re

import numpy as np
import pytest
import torch

from semabench.config.schema import DataConfig
from semabench.data.loader import (
    create_eval_loader,
    create_train_loader,
    open_dataset,
    require_eval_files,
)
from semabench.data.procedural.loader import ProceduralDataset
from semabench.data.procedural.tasks import TASKS
from semabench.errors import SemabenchError


def config(name, resolution=112):
    return DataConfig(name=name, loader="drawn", packed="", resolution=resolution)


def batches(loader, count=2):
    return [batch for batch, _ in zip(loader, range(count), strict=False)]


def test_training_draws_new_images_in_every_epoch_and_the_same_again():
    def make(**options):
        return create_train_loader(config("needle"), batch_size=4, seed=5, **options)

    loader = make()
    first = batches(loader)
    assert first[0][0].is_contiguous(memory_format=torch.channels_last)
    loader.set_epoch(1)
    assert not torch.equal(batches(loader)[0][0], first[0][0])
    halves = [batches(make(rank=rank, world_size=2), 1)[0] for rank in (0, 1)]
    assert np.intersect1d(halves[0][2].keys, halves[1][2].keys).size == 0
    resumed = make()
    resumed.start_at(0, 1)
    assert torch.equal(batches(resumed, 1)[0][0], first[1][0])


def test_evaluation_is_the_same_for_every_seed_and_counts_each_sample_once():
    def labels(batch_size):
        loader = create_eval_loader(config("recall"), 112, batch_size=batch_size)
        assert loader.num_samples == 1024
        return torch.cat([batch[1] for batch in loader])

    found = labels(100)
    assert len(found) == 1100
    assert (found[1024:] == -1).all()
    assert torch.equal(found[:1024], labels(256))


@pytest.mark.parametrize("loader", ["procedural", "drawn"])
def test_the_loader_goes_by_its_name_and_the_one_before(loader):
    of_task = DataConfig(name="needle", loader=loader, packed="")
    assert isinstance(open_dataset(of_task), ProceduralDataset)


def test_what_is_known_before_anything_is_drawn():
    about = open_dataset(config("recall")).describe()
    loader = create_train_loader(config("recall"), batch_size=4, seed=5)
    assert about.fingerprint == loader.fingerprint
    assert (about.samples, about.classes) == (loader.num_samples, loader.classes)
    evaluated = create_eval_loader(config("recall"), 112, batch_size=4)
    assert evaluated.fingerprint != loader.fingerprint
    assert evaluated.classes == loader.classes


@pytest.mark.parametrize(
    ("name", "resolution", "message"),
    [
        ("needle", 100, "multiples of 8 px, .*; 104 is the nearest"),
        ("needle", 64, "needle cannot be drawn at 64 px: .* at least 72 px; 72 is the nearest"),
        ("nedle", 128, "Did you mean 'needle'"),
    ],
)
def test_mistakes_are_told_in_pixels(name, resolution, message):
    with pytest.raises(SemabenchError, match=message):
        create_eval_loader(config(name), resolution, batch_size=4)


@pytest.mark.parametrize("name", TASKS)
def test_the_resolution_that_is_told_works_and_none_below(name):
    with pytest.raises(SemabenchError) as told:
        require_eval_files(config(name), [128, 32])
    least = int(re.search(r"at least (\d+) px", str(told.value))[1])
    require_eval_files(config(name), [least])
    (images, _), *_ = batches(create_eval_loader(config(name), least, batch_size=2), 1)
    assert images.shape == (2, 3, least, least)
    with pytest.raises(SemabenchError, match=f"at least {least} px"):
        require_eval_files(config(name), [least - 8])


def test_drawn_images_grow_by_the_schedule():
    options = {"batch_size": 4, "seed": 0}
    loader = create_train_loader(config("needle", 128), **options, schedule=[[0, 96], [1, 128]])
    sizes = []
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        sizes.append(next(iter(loader))[0].shape[-1])
    assert sizes == [96, 128]
    with pytest.raises(SemabenchError, match="drawn at 100 px"):
        create_train_loader(config("needle", 128), **options, schedule=[[0, 100], [1, 128]])
