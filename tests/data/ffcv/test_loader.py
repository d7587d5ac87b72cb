"""The FFCV loader: equal to ffcv's own reading, and loud about damage."""

import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from semabench.data.draws import draw_crop
from semabench.data.ffcv import loader as ffcv_loader
from semabench.data.ffcv.loader import FFCVEvalLoader, FFCVTrainLoader, missing_ffcv
from semabench.errors import SemabenchError
from semabench.processes import worker_count

pytestmark = pytest.mark.skipif(missing_ffcv() is not None, reason="FFCV is not installed")


@pytest.fixture
def own_copy(dataset, tmp_path):
    """A copy of the training file that a test may damage."""
    for name in ("train.beton", "train.beton.json"):
        shutil.copy(dataset.packed / name, tmp_path / name)
    return tmp_path / "train.beton"


def loader(path, **options):
    options = {"resolution": 48, "batch_size": 8, "num_workers": 2, "ahead": 1, **options}
    return FFCVTrainLoader(path, **options)


def test_whole_images_equal_ffcvs_own(dataset):
    """With the whole image as crop and INTER_AREA, ffcv's centre crop shows the same pixels."""
    script = """
import sys, numpy as np
from ffcv.loader import Loader, OrderOption
from ffcv.fields.decoders import IntDecoder
from ffcv.fields.rgb_image import ResizedCropRGBImageDecoder
class Whole(ResizedCropRGBImageDecoder):
    scale = ratio = 0.0
    @property
    def get_crop_generator(self):
        return lambda height, width, scale, ratio: (0, 0, height, width)
pipelines = {"image": [Whole((48, 48))], "label": [IntDecoder()]}
loader = Loader(sys.argv[1], batch_size=45, num_workers=1, os_cache=True,
                order=OrderOption.SEQUENTIAL, pipelines=pipelines)
images, labels = next(iter(loader))
np.savez(sys.argv[2], images=images, labels=labels[:, 0])
"""
    path = dataset.packed / "train.beton"
    output = dataset.packed / "ffcv.npz"
    subprocess.run([sys.executable, "-c", script, str(path), str(output)], check=True)
    theirs = np.load(output)
    ours = loader(path, scale=(1, 1), ratio=(0.01, 100), hflip=0, interpolation="area")
    sizes = ours._heights, ours._widths
    compared = 0
    for row, (images, labels, _) in zip(ours.order(0), ours, strict=True):
        assert np.array_equal(labels, theirs["labels"][row])
        for slot, index in enumerate(row):
            height, width = int(sizes[0][index]), int(sizes[1][index])
            box = draw_crop(0, 0, int(index), height, width, 1, 1, 0.01, 100)
            if box == (0, 0, height, width):
                expected = theirs["images"][index].transpose(2, 0, 1)
                assert np.array_equal(images[slot].numpy(), expected)
                compared += 1
    assert compared > 30


def test_flips_mirror_and_nothing_else(dataset):
    path = dataset.packed / "train.beton"
    for interpolation in ("area", "bilinear", "bicubic"):
        plain = loader(path, hflip=0, interpolation=interpolation)
        flipped = loader(path, hflip=1, interpolation=interpolation)
        for (x, *_), (u, *_) in zip(plain, flipped, strict=True):
            assert torch.equal(x.flip(-1), u)


def test_more_workers_than_cores_are_clamped_and_told(dataset):
    with pytest.warns(UserWarning, match=r"num_workers=999 exceeds the \d+ core"):
        clamped = loader(dataset.packed / "train.beton", num_workers=999)
    assert clamped.num_workers <= worker_count(None)


def test_torchs_threads_are_left_alone(dataset):
    before = torch.get_num_threads()
    list(loader(dataset.packed / "train.beton", num_workers=1))
    assert torch.get_num_threads() == before


def test_a_damaged_file_is_refused(own_copy):
    data = bytearray(own_copy.read_bytes())
    data[len(data) // 2] ^= 1
    own_copy.write_bytes(data)
    with pytest.raises(SemabenchError, match="its checksum is not its sidecar's"):
        loader(own_copy)
    own_copy.write_bytes(data[:-1])
    with pytest.raises(SemabenchError, match=r"is damaged: it has [\d,]+ bytes"):
        loader(own_copy)


def test_an_image_that_does_not_decode_is_named(own_copy):
    """What ffcv answers with wrong pixels: a JPEG whose header is zeroed, silently."""
    ours = loader(own_copy)
    victim = int(ours.order(0)[2, 3])
    before = os.stat(own_copy)
    with open(own_copy, "r+b") as file:
        file.seek(int(ours._offsets[victim]))
        file.write(bytes(16))
    os.utime(own_copy, ns=(before.st_atime_ns, before.st_mtime_ns))
    batches = iter(ours)
    next(batches)
    next(batches)
    with pytest.raises(SemabenchError, match=rf"sample {victim} cannot be decoded .*batch 2"):
        next(batches)


def test_a_file_cut_short_under_a_batch_does_not_kill_the_process(own_copy, monkeypatch):
    ours = loader(own_copy)
    os.truncate(own_copy, 4096)
    monkeypatch.setattr(ours, "_require_unchanged", lambda: None)  # it was cut a moment later
    with pytest.raises(SemabenchError, match=r"sample \d+ cannot be read \(epoch 0, batch 0\)"):
        next(iter(ours))


@pytest.mark.parametrize("change", ["truncate", "replace", "remove"])
def test_a_file_that_changes_in_mid_run_is_noticed(own_copy, change):
    ours = loader(own_copy)
    batches = iter(ours)
    next(batches)
    if change == "truncate":
        os.truncate(own_copy, 4096)
    elif change == "replace":
        shutil.copy(own_copy, own_copy.with_suffix(".new"))
        os.replace(own_copy.with_suffix(".new"), own_copy)
    else:
        own_copy.unlink()
    with pytest.raises(SemabenchError, match="replaced, changed or removed"):
        list(batches)
    with pytest.raises(SemabenchError, match="replaced, changed or removed"):
        next(iter(ours))


def test_a_decoder_that_hangs_ends_in_an_error(dataset, monkeypatch):
    release = threading.Event()
    ours = loader(dataset.packed / "train.beton", timeout=0.5)
    fill = ours._fill

    def hang(indices, epoch, images):
        if len(indices):
            release.wait()
        fill(indices, epoch, images)

    monkeypatch.setattr(ours, "_fill", hang)
    try:
        with pytest.raises(SemabenchError, match=r"train.beton, epoch 0, batch 0: .*nothing for"):
            next(iter(ours))
    finally:
        release.set()


def test_a_decoder_that_raises_ends_in_an_error(dataset, monkeypatch):
    ours = loader(dataset.packed / "train.beton")

    def fail(indices, epoch, images):
        if len(indices):
            raise MemoryError("no more")

    monkeypatch.setattr(ours, "_fill", fail)
    with pytest.raises(SemabenchError, match=r"train.beton, epoch 0, batch 0: .*MemoryError"):
        next(iter(ours))


def test_training_and_validation_run_at_the_same_time(dataset):
    train = loader(dataset.packed / "train.beton")
    val = FFCVEvalLoader(dataset.packed / "val-48.beton", resolution=48, batch_size=8)
    counts = [0, 0]
    for _ in range(5):
        for (_, y, _), (_, v) in zip(train, val, strict=False):
            counts[0] += len(y)
            counts[1] += int((v >= 0).sum())
    assert counts == [5 * 3 * 8, 5 * 21]


def test_without_ffcv_the_reason_is_told(monkeypatch):
    def broken():
        raise ImportError("libopencv_core.so.4: cannot open shared object file")

    monkeypatch.setattr(ffcv_loader, "native_library", broken)
    assert missing_ffcv() == "ImportError: libopencv_core.so.4: cannot open shared object file"


@pytest.mark.gpu
def test_batches_are_pinned_and_survive_asynchronous_copies(dataset):
    torch.cuda.init()
    path = dataset.packed / "train.beton"
    copies, kept = [], []
    for images, *_ in loader(path, batch_size=4):
        assert images.is_pinned()
        copies.append(images.to("cuda", non_blocking=True))
        kept.append(images.clone())
    torch.cuda.synchronize()
    assert all(torch.equal(a.cpu(), b) for a, b in zip(copies, kept, strict=True))
