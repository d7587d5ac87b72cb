"""Packing: what is stored, the same bytes whoever works, odd images, and every bad option."""

import hashlib
import os
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from helpers.image_makers import jpeg, odd_images, write_odd_tree, write_tree
from semabench.data.ffcv.check import check, require_intact
from semabench.data.ffcv.format import read_beton, read_sidecar
from semabench.data.ffcv.pack import MODES, pack, unit_draw
from semabench.data.image import JPG, MAX_SIDE, RAW, decode, encode_jpeg, shrink
from semabench.data.sources import find_images
from semabench.errors import SemabenchError


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    return write_tree(root, "train", {"cat": 12, "dog": 7, "owl": 5})


@pytest.mark.parametrize("mode", ["jpg", "raw", "proportion"])
def test_same_bytes_for_any_number_of_workers(tree, tmp_path, mode):
    one, three = (
        pack(tree, tmp_path / str(n), max_resolution=32, mode=mode, workers=n) for n in (1, 3)
    )
    assert one.path.read_bytes() == three.path.read_bytes()
    assert one.sidecar == three.sidecar


def test_sidecar_tells_what_is_in_the_file(tree, tmp_path):
    done = pack(tree, tmp_path)
    sidecar, data = done.sidecar, done.path.read_bytes()
    assert done.fresh
    assert done.path == tmp_path / "train.beton"
    assert sidecar == read_sidecar(done.path) == require_intact(done.path)
    assert (sidecar.kind, sidecar.split, sidecar.samples) == ("pack", "train", 24)
    assert (sidecar.classes, sidecar.counts) == (["cat", "dog", "owl"], [12, 7, 5])
    assert sidecar.bytes == len(data)
    assert sidecar.sha256 == hashlib.sha256(data).hexdigest()
    assert sidecar.fingerprint == find_images(tree, "train").fingerprint
    assert sidecar.skipped == []
    assert read_beton(done.path).labels.tolist() == [0] * 12 + [1] * 7 + [2] * 5


def test_small_plain_jpegs_are_copied_and_others_encoded(tmp_path):
    write_odd_tree(tmp_path)
    beton = read_beton(pack(tmp_path, tmp_path / "out", quality=80).path)
    odd = odd_images()
    for index, name in enumerate(sorted(odd)):
        stored = beton.image(index)
        assert stored.mode == JPG
        image = decode(odd[name])
        copied = name in {
            "adobe_rgb.jpg", "exif.JPG", "full_chroma.jpeg", "half_chroma.jpg", "restart.jpg",
        }  # fmt: skip
        small = shrink(image, 500)
        expected = odd[name] if copied else encode_jpeg(small, 80).data
        assert stored.data == expected, name
        assert (stored.width, stored.height) == small.size


def test_raw_images_are_torchvisions_pixels(tmp_path):
    write_odd_tree(tmp_path)
    beton = read_beton(pack(tmp_path, tmp_path / "out", mode="raw", max_resolution=None).path)
    odd = odd_images()
    for index, name in enumerate(sorted(odd)):
        stored = beton.image(index)
        shape = (stored.height, stored.width, 3)
        assert stored.mode == RAW
        pixels = np.frombuffer(stored.data, dtype=np.uint8).reshape(shape)
        np.testing.assert_array_equal(pixels, decode(odd[name]), err_msg=name)


def test_proportion_draws_depend_on_seed_and_index_only(tree, tmp_path):
    options = {"mode": "proportion", "proportion": 0.3}
    modes = read_beton(pack(tree, tmp_path, seed=5, **options).path).modes
    assert modes.tolist() == [JPG if unit_draw(5, i) < 0.3 else RAW for i in range(24)]
    draws = np.array([unit_draw(0, i) for i in range(4000)])
    assert abs(draws.mean() - 0.5) < 0.02
    assert not np.allclose(draws[:9], [unit_draw(1, i) for i in range(9)])


def test_a_second_time_there_is_nothing_to_do(tree, tmp_path, capsys):
    first = pack(tree, tmp_path)
    time = first.path.stat().st_mtime_ns
    again = pack(tree, tmp_path)
    assert not again.fresh
    assert again.sidecar == first.sidecar
    assert first.path.stat().st_mtime_ns == time
    assert "nothing to do" in capsys.readouterr().err


def test_other_settings_or_images_need_overwrite(tree, tmp_path):
    old = pack(tree, tmp_path / "out").path.read_bytes()
    with pytest.raises(SemabenchError, match="quality = 90, not 50: pass --overwrite"):
        pack(tree, tmp_path / "out", quality=50)
    more = shutil.copytree(tree, tmp_path / "more")
    (more / "train" / "cat" / "new.jpg").write_bytes(jpeg())
    with pytest.raises(SemabenchError, match="made from other images"):
        pack(more, tmp_path / "out")
    assert (tmp_path / "out" / "train.beton").read_bytes() == old
    done = pack(more, tmp_path / "out", overwrite=True)
    assert done.sidecar.samples == 25
    assert require_intact(done.path) == done.sidecar


def test_a_file_that_is_not_ours_is_not_replaced(tree, tmp_path):
    (tmp_path / "train.beton").write_bytes(b"precious")
    with pytest.raises(SemabenchError, match="exists without a sidecar"):
        pack(tree, tmp_path)
    assert (tmp_path / "train.beton").read_bytes() == b"precious"


@pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 2], lambda d: b"", lambda d: d[::-1]])
def test_an_unreadable_image_stops_with_its_path(tree, tmp_path, damage):
    src = shutil.copytree(tree, tmp_path / "src")
    bad = src / "train" / "dog" / "dog_3.JPEG"
    bad.write_bytes(damage(bad.read_bytes()))
    with pytest.raises(SemabenchError, match="unreadable image") as caught:
        pack(src, tmp_path / "out", workers=2)
    assert str(bad) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_unreadable_images_can_be_skipped(tree, tmp_path, capsys):
    src = shutil.copytree(tree, tmp_path / "src")
    (src / "train" / "cat" / "cat_0.JPEG").write_bytes(b"")
    link = src / "train" / "dog" / "dog_a.jpg"
    link.symlink_to("absent")
    done = pack(src, tmp_path / "out", on_error="skip", mode="raw", workers=2)
    assert done.sidecar.skipped == [
        ["cat/cat_0.JPEG", "the file is empty"],
        ["dog/dog_a.jpg", "No such file or directory"],
    ]
    assert done.sidecar.counts == [11, 7, 5]
    assert done.sidecar.samples == 23
    assert done.sidecar.fingerprint == find_images(src, "train").fingerprint
    told = " ".join(capsys.readouterr().err.split())
    assert "left out 2 unreadable images, listed in the sidecar; by class: cat 1, dog 1;" in told
    assert "by reason: the file is empty 1, No such file or directory 1." in told
    assert check(done.path, source=src).samples == 23
    second = read_beton(done.path).image(0).data
    assert second == decode((src / "train" / "cat" / "cat_1.JPEG").read_bytes()).tobytes()


def test_names_that_are_no_utf8_are_packed_and_told(tmp_path, capsys):
    root = write_tree(tmp_path / "in", "train", {"a": 2, "b": 2})
    os.rename(root / "train" / "b", os.fsencode(root / "train") + b"/caf\xe9")
    damaged = os.fsencode(root / "train" / "a") + b"/\xff.jpg"
    with open(damaged, "wb") as file:
        file.write(b"no image")
    done = pack(root, tmp_path / "out", on_error="skip")
    sidecar = require_intact(done.path)
    assert sidecar == done.sidecar == read_sidecar(done.path)
    assert (sidecar.classes, sidecar.samples) == (["a", "caf\\xe9"], 4)
    assert os.fsencode(sidecar.skipped[0][0]) == b"a/\xff.jpg"
    check(done.path, source=root)
    assert not pack(root, tmp_path / "out", on_error="skip").fresh


def test_nothing_readable(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "x.jpg").write_bytes(b"no")
    with pytest.raises(SemabenchError, match="none of the 1 images of train is readable"):
        pack(tmp_path, tmp_path / "out", on_error="skip")


def test_a_side_that_the_format_cannot_hold(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.new("L", (MAX_SIDE + 1, 1)).save(tmp_path / "train" / "a" / "x.png")
    with pytest.raises(SemabenchError, match=r"x\.png: 65536×1"):
        pack(tmp_path, tmp_path / "raw", mode="raw", max_resolution=None)
    with pytest.raises(SemabenchError, match=r"x\.png: .*65536"):
        pack(tmp_path, tmp_path / "jpg", max_resolution=None)
    assert pack(tmp_path, tmp_path / "small").sidecar.samples == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "jpeg"}, "Did you mean 'jpg'"),
        ({"on_error": "skp"}, "Did you mean 'skip'"),
        ({"quality": 0}, "quality must be between"),
        ({"mode": "raw", "quality": 90}, "quality has no effect"),
        ({"proportion": 0.5}, "no effect with mode 'jpg'"),
        ({"seed": 1}, "no effect with mode 'jpg'"),
        ({"mode": "proportion", "proportion": 1.5}, "proportion must be between"),
        ({"max_resolution": 0}, "max_resolution must be between"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"split": "test"}, "expected test/<class>"),
    ],
)
def test_bad_options_are_told_before_anything_is_written(tree, tmp_path, options, message):
    with pytest.raises(SemabenchError, match=message):
        pack(tree, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_only_an_image_that_is_to_be_shrunk_needs_opencv(tree, tmp_path, monkeypatch, on_error):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SemabenchError, match="needs OpenCV: pip install"):
        pack(tree, tmp_path / "small", max_resolution=16, on_error=on_error)
    assert not list((tmp_path / "small").iterdir())
    for mode in MODES:
        done = pack(tree, tmp_path / mode, mode=mode)
        assert done.sidecar.samples == 24
        assert "opencv" not in done.sidecar.versions


def test_photographs(photographs_dir, tmp_path):
    done = pack(photographs_dir, tmp_path)
    assert (done.sidecar.samples, done.sidecar.counts) == (16, [4, 4, 4, 4])
    beton = read_beton(done.path)
    for index, path in enumerate(find_images(photographs_dir, "train").paths):
        assert beton.image(index).data == (photographs_dir / "train" / path).read_bytes()
    assert check(done.path, source=photographs_dir).samples == 16


@pytest.mark.many_photographs
def test_many_photographs(many_photographs_dir, tmp_path):
    done = pack(many_photographs_dir, tmp_path, split="val")
    count = len(find_images(many_photographs_dir, "val"))
    assert check(done.path, source=many_photographs_dir).samples == done.sidecar.samples == count
