"""The official archives, read where they lie, give what the unpacked tree gives."""

import io
import shutil
import tarfile

import pytest

from helpers.image_makers import WNIDS, jpeg, write_devkit, write_ilsvrc
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


def test_names_in_an_archive_lead_nowhere(tmp_path):
    """Members called ../ and links: nothing is written, and nothing outside the tar is read."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as archive:
        for name in ("../../outside.JPEG", "/etc/n01440764_1.JPEG"):
            member = tarfile.TarInfo(name)
            member.size = len(jpeg())
            archive.addfile(member, io.BytesIO(jpeg()))
        link = tarfile.TarInfo("n01440764_2.JPEG")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with tarfile.open(tmp_path / "ILSVRC2012_img_train.tar", "w") as archive:
        member = tarfile.TarInfo("../../n01440764.tar")
        member.size = len(inner.getvalue())
        archive.addfile(member, io.BytesIO(inner.getvalue()))
    images = find_images(tmp_path, "train")
    assert images.paths == ["n01440764/n01440764_1.JPEG", "n01440764/outside.JPEG"]
    assert [images.read(index) for index in range(2)] == [jpeg()] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["ILSVRC2012_img_train.tar"]


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
