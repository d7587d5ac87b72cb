"""Reading .beton files without FFCV: the same bits, and as loud about damage."""

import os
import shutil

import pytest
import torch

from helpers.loader_makers import copied, same
from semabench.data.ffcv import loader as ffcv_loader
from semabench.data.ffcv.format import read_beton
from semabench.data.ffcv.loader import FFCVTrainLoader, missing_ffcv
from semabench.data.ffcv.pack import pack
from semabench.data.image import JPG, RAW
from semabench.errors import SemabenchError


def loader(path, **options):
    options = {"resolution": 48, "batch_size": 8, "num_workers": 2, "ahead": 1, **options}
    return FFCVTrainLoader(path, **options)


@pytest.mark.skipif(missing_ffcv() is not None, reason="FFCV is not installed")
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_its_batches_are_ffcvs_to_the_bit(interpolation, photographs_dir, tmp_path):
    """Of photographs, some stored as JPEG, some as pixels, by any number of threads."""
    path = pack(photographs_dir, tmp_path, mode="proportion", workers=1).path
    assert set(read_beton(path).modes) == {JPG, RAW}
    theirs = copied(loader(path, interpolation=interpolation))
    for workers in (1, 2):
        ours = loader(path, interpolation=interpolation, num_workers=workers, decoder="simplejpeg")
        assert ours._decode_crops.__module__.endswith("turbo")
        assert same(copied(ours), theirs)


def test_damaged_and_missing_bytes_are_told(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(ffcv_loader, "require_intact", ffcv_loader.read_sidecar)
    for suffix in ("", ".json"):
        shutil.copy(dataset.packed / f"train.beton{suffix}", tmp_path / f"train.beton{suffix}")
    path = tmp_path / "train.beton"
    beton = read_beton(path)
    index = int((beton.modes == JPG).argmax())
    with open(path, "r+b") as file:
        file.seek(int(beton.offsets[index]) + int(beton.sizes[index]) // 2)
        file.write(b"\xff\xd9" * 8)
    with pytest.raises(SemabenchError, match=f"sample {index} cannot be decoded"):
        copied(loader(path, num_workers=1, batch_size=45, decoder="simplejpeg"))
    reading = loader(path, num_workers=1, batch_size=45, decoder="simplejpeg")
    reading._sizes = reading._sizes + os.path.getsize(path)
    reading._staging = reading._encoded = torch.zeros(1, 2 * os.path.getsize(path)).byte().numpy()
    with pytest.raises(SemabenchError, match="cannot be read"):
        copied(reading)
