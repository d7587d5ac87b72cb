"""The folder loader: torchvision's pixels, from folders and tars, loud about damage."""

import os
import shutil
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as F

from semabench.data import folder
from semabench.data.draws import draw_crop, draw_flip
from semabench.data.folder import FolderEvalLoader, FolderTrainLoader
from semabench.errors import SemabenchError


@pytest.fixture
def own_copy(dataset, tmp_path):
    """A copy of the images that a test may damage."""
    shutil.copytree(dataset.source, tmp_path / "source")
    return tmp_path / "source"


def loader(source, **options):
    options = {"resolution": 48, "batch_size": 8, "num_workers": 1, "seed": 3, **options}
    return FolderTrainLoader(source, **options)


def test_crops_are_torchvisions(dataset):
    ours = loader(dataset.source)
    ours.set_epoch(2)
    paths = sorted((dataset.source / "train").glob("*/*.jpg"))
    row, (images, labels, _) = ours.order(2)[0], next(iter(ours))
    for index, image, label in zip(row.tolist(), images, labels, strict=True):
        source = Image.open(paths[index]).convert("RGB")
        box = draw_crop(3, 2, index, source.height, source.width, 0.08, 1, 3 / 4, 4 / 3)
        expected = F.resized_crop(source, *box, [48, 48], F.InterpolationMode.BICUBIC)
        if draw_flip(3, 2, index, 0.5):
            expected = F.hflip(expected)
        assert torch.equal(image, F.pil_to_tensor(expected))
        assert ours.classes[label] == paths[index].parent.name


def test_an_image_that_cannot_be_read_is_named(own_copy):
    victim = own_copy / "val" / "bee" / "3.jpg"
    ours = FolderEvalLoader(own_copy, resolution=48, batch_size=8, num_workers=2)
    victim.write_bytes(victim.read_bytes()[:200])
    with pytest.raises(SemabenchError, match=rf"^cannot read {victim}: ") as error:
        list(ours)
    assert "\n" not in str(error.value)
    victim.unlink()
    with pytest.raises(SemabenchError, match=rf"^cannot read {victim}: No such file"):
        list(ours)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torch's own
def test_a_worker_that_is_killed_is_noticed(dataset):
    ours = loader(dataset.source, batch_size=1)
    batches = iter(ours)
    next(batches)
    os.kill(ours._data._iterator._workers[0].pid, signal.SIGKILL)
    started = time.monotonic()
    with pytest.raises(SemabenchError, match="a worker of the folder loader failed in epoch 0"):
        list(batches)
    assert time.monotonic() - started < 30


def test_the_flag_that_ends_workers_is_no_lock(dataset):
    """A lock would stay with a worker that is killed as it looks, and its death go untold."""
    ours = loader(dataset.source, batch_size=1)
    next(iter(ours))
    iterator = ours._data._iterator
    flag, workers = iterator._workers_done_event, list(iterator._workers)
    assert type(flag) is folder._Flag
    assert not flag.is_set()
    iterator._shutdown_workers()
    assert flag.is_set()
    assert not any(worker.is_alive() for worker in workers)


def test_spawned_workers_make_the_same_batches(dataset):
    forked, spawned = loader(dataset.source), loader(dataset.source, start_method="spawn")
    for (x, y, _), (u, v, _) in zip(forked, spawned, strict=True):
        assert np.array_equal(x, u)
        assert np.array_equal(y, v)
