"""Finding images in folder trees, and the one-line errors for trees that are not data sets."""

import hashlib
import os

import pytest
from torchvision.datasets import ImageFolder

from helpers.image_makers import jpeg, write_tree
from semabench.data.sources import find_images
from semabench.data.sources.types import class_names
from semabench.errors import SemabenchError


def test_order_and_labels_are_image_folders(tmp_path):
    write_tree(tmp_path, "train", {"b": 3, "a": 2, "a-b": 1, "B": 1})
    nested = tmp_path / "train" / "a" / "deeper"
    nested.mkdir()
    (nested / "x.PNG").write_bytes(jpeg())
    images = find_images(tmp_path, "train")
    folder = ImageFolder(tmp_path / "train")
    assert images.classes == folder.classes
    theirs = {(os.path.relpath(path, folder.root), label) for path, label in folder.samples}
    assert set(zip(images.paths, images.labels.tolist(), strict=True)) == theirs
    assert images.counts == [1, 3, 1, 3]
    assert images.labels.tolist() == sorted(images.labels.tolist())


def test_hidden_files_and_other_kinds_are_not_images(tmp_path, capsys):
    write_tree(tmp_path, "train", {"a": 1})
    for name in (".hidden.jpg", "._a_0.JPEG", "notes.txt", "Thumbs.db"):
        (tmp_path / "train" / "a" / name).write_bytes(b"x")
    (tmp_path / "train" / ".cache").mkdir()
    assert find_images(tmp_path, "train").paths == ["a/a_0.JPEG"]
    told = " ".join(capsys.readouterr().err.split())
    assert (
        "left out 2 files that are no images by their names: .db 1, .txt 1; by class: a 2" in told
    )
    assert "one class alone, 'a'" in told


def test_numbers_are_in_their_order_and_said_to_be(tmp_path, capsys):
    write_tree(tmp_path, "train", {str(k): 1 for k in range(12)})
    assert find_images(tmp_path, "train").classes == [str(k) for k in range(12)]
    assert "in their order" in " ".join(capsys.readouterr().err.split())
    write_tree(tmp_path, "val", {**{str(k): 1 for k in range(12)}, "x": 1})
    (tmp_path / "train" / "x").mkdir()
    write_tree(tmp_path, "train", {"x": 1})
    assert find_images(tmp_path, "val").classes[:3] == ["0", "1", "10"]


def test_other_names_of_what_pillow_reads_are_images(tmp_path):
    write_tree(tmp_path, "train", {"a": 1})
    for kind in ("jfif", "JPE", "gif"):
        (tmp_path / "train" / "a" / f"x.{kind}").write_bytes(jpeg())
    assert len(find_images(tmp_path, "train")) == 4


def test_reads_the_bytes_and_names_the_place(tmp_path):
    write_tree(tmp_path, "train", {"a": 2})
    images = find_images(tmp_path, "train")
    file = tmp_path / "train" / "a" / "a_1.JPEG"
    assert images.read(1) == file.read_bytes()
    assert images.sizes[1] == file.stat().st_size
    assert images.location(1) == str(file)


def test_fingerprint_is_the_documented_digest(tmp_path):
    write_tree(tmp_path, "train", {"a": 1, "a-b": 1})
    sizes = [(tmp_path / "train" / p).stat().st_size for p in ("a-b/a-b_0.JPEG", "a/a_0.JPEG")]
    lines = f"a-b/a-b_0.JPEG\t{sizes[0]}\t1\na/a_0.JPEG\t{sizes[1]}\t0\n"
    expected = hashlib.sha256(lines.encode()).hexdigest()
    assert find_images(tmp_path, "train").fingerprint == expected


def test_fingerprint_sees_a_renamed_and_a_resized_image(tmp_path):
    write_tree(tmp_path, "train", {"a": 2})
    seen = {find_images(tmp_path, "train").fingerprint}
    first = tmp_path / "train" / "a" / "a_0.JPEG"
    first = first.rename(first.with_name("c.JPEG"))
    seen.add(find_images(tmp_path, "train").fingerprint)
    first.write_bytes(first.read_bytes() + b"\0")
    seen.add(find_images(tmp_path, "train").fingerprint)
    assert len(seen) == 3


def test_links_are_followed_but_not_in_circles(tmp_path):
    write_tree(tmp_path / "elsewhere", "train", {"a": 2})
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a").symlink_to(tmp_path / "elsewhere" / "train" / "a")
    (tmp_path / "elsewhere" / "train" / "a" / "loop").symlink_to(tmp_path / "train" / "a")
    assert len(find_images(tmp_path, "train")) == 2


def test_undecodable_file_names_have_a_fingerprint(tmp_path):
    write_tree(tmp_path, "train", {"a": 1})
    name = os.fsencode(tmp_path / "train" / "a") + b"/\xff.jpg"
    with open(name, "wb") as file:
        file.write(jpeg())
    assert len(find_images(tmp_path, "train").fingerprint) == 64


def test_class_names_that_are_no_utf8_are_written_as_escapes(tmp_path):
    write_tree(tmp_path, "train", {"a": 1, "b": 2})
    os.rename(tmp_path / "train" / "b", os.fsencode(tmp_path / "train") + b"/caf\xe9")
    images = find_images(tmp_path, "train")
    assert images.classes == images.names == ["a", "caf\\xe9"]
    assert [len(images.read(index)) > 0 for index in range(3)] == [True] * 3


def test_a_directory_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    write_tree(tmp_path, "train", {"a": 1, "b": 1})
    scandir = os.scandir

    def refusing(path):
        if os.fspath(path).endswith("b"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(SemabenchError, match=r"cannot read .*train/b: Permission denied\.$"):
        find_images(tmp_path, "train")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "expected train/<class>/<image>"),
        (lambda root: (root / "train").mkdir(), "no class directories"),
        (lambda root: write_tree(root, ".", {"train": 1}), "images but no class directories"),
        (
            lambda root: write_tree(root, "train", {"a": 1, "empty": 0}),
            "train/empty: remove the class from all splits",
        ),
        (
            lambda root: write_tree(write_tree(root, "train", {"a": 1, "b": 1}), "val", {"a": 1}),
            "'b' is in train but not in val",
        ),
        (
            lambda root: write_tree(write_tree(root, "train", {"a": 1}), "val", {"a": 1, "c": 1}),
            "'c' is in val but not in train",
        ),
    ],
)
def test_what_is_not_a_data_set_is_told_in_one_line(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(SemabenchError) as caught:
        find_images(tmp_path, "train")
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_of_images_alone_are_a_test_set(tmp_path, capsys):
    """As ImageNet-V2, -A, -R and -Sketch come; training images are still asked for by name."""
    write_tree(tmp_path, ".", {"n01440764": 2, "n01443537": 1})
    images = find_images(tmp_path, "val")
    told = " ".join(capsys.readouterr().err.split())
    assert "has no val/: its own 2 folders are the classes" in told
    assert (images.split, images.classes) == ("val", ["n01440764", "n01443537"])
    assert images.names[0] == "tench, Tinca tinca"
    assert images.location(2) == str(next((tmp_path / "n01443537").iterdir()))
    assert images.read(0)
    with pytest.raises(SemabenchError, match="expected train/<class>/<image>"):
        find_images(tmp_path, "train")
    write_tree(tmp_path / "mislaid", "validation", {"a": 1})
    with pytest.raises(SemabenchError, match="expected val/<class>/<image>"):
        find_images(tmp_path / "mislaid", "val")
    write_tree(tmp_path, "train", {"n01440764": 1})
    with pytest.raises(SemabenchError, match="expected val/<class>/<image>"):
        find_images(tmp_path, "val")


def test_missing_directory(tmp_path):
    with pytest.raises(SemabenchError, match="not a directory"):
        find_images(tmp_path / "absent", "train")


def test_names_of_wordnet_ids_and_of_others():
    assert class_names(["n01440764", "n99999999"]) == ["tench, Tinca tinca", "n99999999"]
    assert class_names(["n01440764", "cat"]) == ["n01440764", "cat"]
