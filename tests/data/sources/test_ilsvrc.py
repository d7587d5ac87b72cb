"""The official archives, read where they lie, give what the unpacked tree gives."""

import shutil

import pytest

from helpers.image_makers import WNIDS, write_devkit, write_ilsvrc
from semabench.data.ffcv.pack import pack, render
from semabench.data.sources import find_images
from semabench.errors import SemabenchError


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    root = tmp_path_factory.mktemp("ilsvrc")
    write_ilsvrc(root / "tars", root / "tree")
    return root / "tars", root / "tree"


@pytest.fixture
def tars(both, tmp_path):
    return shutil.copytree(both[0], tmp_path / "tars")


@pytest.mark.parametrize("split", ["train", "val"])
def test_same_list_as_the_tree(both, split):
    inside, unpacked = (find_images(src, split) for src in both)
    assert inside.classes == unpacked.classes == WNIDS
    assert inside.names == unpacked.names
    assert inside.names[0] == "tench, Tinca tinca"
    assert inside.paths == unpacked.paths
    assert inside.labels.tolist() == unpacked.labels.tolist()
    assert inside.fingerprint == unpacked.fingerprint
    assert [inside.read(i) for i in range(len(inside))] == [
        unpacked.read(i) for i in range(len(unpacked))
    ]
    assert ".tar: n01440764/" in inside.location(0)


def test_same_files_from_tars_and_tree(both, tmp_path):
    packed = [pack(src, tmp_path / str(i)).path for i, src in enumerate(both)]
    assert packed[0].read_bytes() == packed[1].read_bytes()
    rendered = [render(src, tmp_path / str(i), [32])[0].path for i, src in enumerate(both)]
    assert rendered[0].read_bytes() == rendered[1].read_bytes()


@pytest.mark.parametrize("name", ["ILSVRC2012_img_train.tar", "ILSVRC2012_devkit_t12.tar.gz"])
def test_missing_archive_is_named(tars, name):
    (tars / name).unlink()
    split = "train" if "train" in name else "val"
    with pytest.raises(SemabenchError, match=f"{name} is missing"):
        find_images(tars, split)


def test_train_needs_no_devkit(tars):
    (tars / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    assert find_images(tars, "train").classes == WNIDS


@pytest.mark.parametrize("split", ["train", "val"])
def test_archive_cut_short(tars, split):
    path = tars / f"ILSVRC2012_img_{split}.tar"
    path.write_bytes(path.read_bytes()[: 3000 if split == "val" else 16000])
    with pytest.raises(SemabenchError, match="download"):
        find_images(tars, split)


def test_damaged_devkit(tars):
    path = tars / "ILSVRC2012_devkit_t12.tar.gz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(SemabenchError, match=f"cannot read {path}"):
        find_images(tars, "val")


def test_devkit_of_other_length(tars):
    write_devkit(tars, [1, 2])
    with pytest.raises(SemabenchError, match="has no label"):
        find_images(tars, "val")
    write_devkit(tars, [1] * 7)
    with pytest.raises(SemabenchError, match=r"holds 6 images, .* labels 7"):
        find_images(tars, "val")


def test_no_other_split(tars):
    with pytest.raises(SemabenchError, match="no split 'test'"):
        find_images(tars, "test")
