"""Damage of every kind is found: before use by its checksum, and in depth by decoding."""

import json
import os
import shutil

import numpy as np
import pytest

from helpers.image_makers import write_tree
from semabench.data.ffcv import check as check_module
from semabench.data.ffcv import publish
from semabench.data.ffcv.check import DamagedFileError, check, require_intact
from semabench.data.ffcv.format import read_beton, sidecar_path, stamp_path
from semabench.data.ffcv.pack import pack
from semabench.errors import SemabenchError


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("tree"), "train", {"a": 9, "b": 6})


@pytest.fixture(scope="module")
def packed(tree, tmp_path_factory):
    return pack(tree, tmp_path_factory.mktemp("packed")).path


@pytest.fixture
def beton(packed, tmp_path):
    """A copy that nothing vouches for but its sidecar, as after moving to another machine."""
    shutil.copy(packed, tmp_path)
    shutil.copy(sidecar_path(packed), tmp_path)
    return tmp_path / packed.name


def overwrite(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def test_a_folder_is_answered_with_its_files(packed):
    with pytest.raises(SemabenchError, match=rf"no file {packed.parent}: name {packed}"):
        check(packed.parent)


def flip(path, offset):
    overwrite(path, offset, bytes([path.read_bytes()[offset] ^ 0x10]))


def edit_sidecar(path, **changes):
    content = json.loads(sidecar_path(path).read_text()) | changes
    sidecar_path(path).write_text(json.dumps(content))


def test_intact(beton, tree):
    report = check(beton, source=tree, workers=2)
    assert (report.samples, report.problems, report.damaged) == (15, [], {})
    assert report.bytes == beton.stat().st_size
    assert report.sha256 == require_intact(beton).sha256


def test_the_checksum_is_read_once(beton, monkeypatch):
    reads = []
    original = publish.checksum
    for module in (publish, check_module):
        monkeypatch.setattr(module, "checksum", lambda *a: reads.append(a) or original(*a))
    for _ in range(3):
        require_intact(beton)
    assert len(reads) == 1
    os.utime(beton)
    require_intact(beton)
    assert len(reads) == 2
    check(beton)
    assert len(reads) == 3  # always


def test_fresh_files_are_stamped(packed, monkeypatch):
    monkeypatch.setattr(publish, "checksum", None)
    assert require_intact(packed).samples == 15


def test_read_only_directory_is_verified_without_a_stamp(beton, monkeypatch):
    def refuse(path, content):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("semabench.data.ffcv.format.atomic_write", refuse)
    assert require_intact(beton).samples == 15
    assert not stamp_path(beton).exists()


DAMAGES = {
    "flipped bit in the images": lambda p: flip(p, int(read_beton(p).offsets[7]) + 300),
    "flipped bit in the labels": lambda p: flip(p, 3000),
    "zeroed header": lambda p: overwrite(p, 0, bytes(24)),
    "truncated": lambda p: os.truncate(p, p.stat().st_size - 5),
    "grown": lambda p: p.write_bytes(p.read_bytes() + b"\0"),
    "empty": lambda p: os.truncate(p, 0),
    "no sidecar": lambda p: sidecar_path(p).unlink(),
    "half a sidecar": lambda p: os.truncate(sidecar_path(p), 100),
    "another checksum": lambda p: edit_sidecar(p, sha256="0" * 64),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_refused(beton, damage):
    require_intact(beton)  # a stamp of before the damage must not help
    DAMAGES[damage](beton)
    for function in (require_intact, check):
        with pytest.raises(SemabenchError) as caught:
            function(beton)
        assert str(beton) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_sidecar_of_another_file(beton, tree, tmp_path):
    other = pack(tree, tmp_path / "other", mode="raw").path
    shutil.copy(sidecar_path(other), sidecar_path(beton))
    for function in (require_intact, check):
        with pytest.raises(SemabenchError, match="its sidecar says"):
            function(beton)


def test_no_file(tmp_path):
    for function in (require_intact, check):
        with pytest.raises(SemabenchError, match="no file"):
            function(tmp_path / "absent.beton")


def test_damaged_samples_are_listed_with_their_source(beton, tree, capsys):
    structure = read_beton(beton)
    for index in (2, 11):
        overwrite(beton, int(structure.offsets[index]), bytes(40))  # JPEG header zeroed
    with pytest.raises(DamagedFileError, match="2 of 15 samples are damaged") as caught:
        check(beton, source=tree)
    assert list(caught.value.report.damaged) == [2, 11]
    assert caught.value.report.damaged[11].startswith("b/b_2.JPEG: not an image")
    assert "checksum" in caught.value.report.problems[0]
    assert "sample 11: b/b_2.JPEG" in capsys.readouterr().err


def test_samples_damaged_before_the_checksum_was_taken(beton):
    """A file that agrees with its sidecar but does not decode as it says."""
    structure = read_beton(beton)
    wrong_width = 24 + 2 * 1041 + 3 * 24 + 1  # header, two fields, three rows, the mode byte
    assert beton.read_bytes()[wrong_width] == structure.widths[3] == 40
    overwrite(beton, wrong_width, b"\x29")
    edit_sidecar(beton, sha256=check_module.checksum(beton, ""))
    with pytest.raises(DamagedFileError, match="40×30, not 41×30 as noted"):
        check(beton)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 14}, "holds 15 samples, its sidecar says 14"),
        ({"counts": [8, 7]}, "samples per class"),
        ({"classes": ["a"], "names": ["a"], "counts": [15]}, "label of sample 9 names no class"),
    ],
)
def test_sidecar_that_disagrees_with_the_samples(beton, changes, message):
    edit_sidecar(beton, **changes)
    with pytest.raises(DamagedFileError, match=message):
        check(beton)


def test_many_damaged_samples_are_summed_up(tmp_path, capsys):
    write_tree(tmp_path, "train", {"a": 30})
    path = pack(tmp_path, tmp_path / "out").path
    for offset in read_beton(path).offsets:
        overwrite(path, int(offset), bytes(30))
    with pytest.raises(DamagedFileError, match="30 of 30"):
        check(path)
    assert "and 10 more" in capsys.readouterr().err


def test_source_of_another_file(beton, tmp_path):
    write_tree(tmp_path / "src", "train", {"a": 1, "b": 1})
    with pytest.raises(SemabenchError, match="was not made from the images in"):
        check(beton, source=tmp_path / "src")


def test_no_random_damage_goes_unnoticed(beton):
    rng = np.random.default_rng(0)
    original = beton.read_bytes()
    for offset in rng.integers(0, len(original), 20):
        flip(beton, int(offset))
        with pytest.raises(SemabenchError):
            require_intact(beton)
        beton.write_bytes(original)
    assert require_intact(beton).samples == 15
