"""The sidecar survives a round trip, and a damaged one is told."""

import json
import os

import pytest

from semabench.data.ffcv.format import (
    Sidecar,
    is_stamped,
    read_sidecar,
    sidecar_path,
    stamp_path,
    write_stamp,
)
from semabench.errors import SemabenchError

SIDECAR = Sidecar(
    kind="pack", split="train", samples=3, bytes=99, sha256="ab", fingerprint="cd",
    classes=["a", "b"], names=["ä", "b"], counts=[1, 2], settings={"mode": "jpg"},
    skipped=[["a/x.jpg", "empty"]], versions={"pillow": "1"},
)  # fmt: skip


@pytest.fixture
def beton(tmp_path):
    path = tmp_path / "train.beton"
    path.write_bytes(b"x" * 99)
    sidecar_path(path).write_text(SIDECAR.to_json())
    return path


def test_round_trip(beton):
    assert read_sidecar(beton) == SIDECAR
    assert sidecar_path(beton).name == "train.beton.json"
    assert json.loads(sidecar_path(beton).read_text())["format"] == 1


def without(key):
    return lambda content: content.pop(key)


@pytest.mark.parametrize(
    "key", [*sorted(SIDECAR.__dataclass_fields__.keys() - {"paths"}), "format"]
)
def test_every_field_is_required(beton, key):
    content = json.loads(SIDECAR.to_json())
    del content[key]
    sidecar_path(beton).write_text(json.dumps(content))
    with pytest.raises(SemabenchError, match="pack again"):
        read_sidecar(beton)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 2}', "\udcff"])
def test_what_is_no_sidecar(beton, text):
    sidecar_path(beton).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(SemabenchError, match="pack again") as caught:
        read_sidecar(beton)
    assert "\n" not in str(caught.value)


def test_lists_of_different_length(beton):
    content = json.loads(SIDECAR.to_json()) | {"names": ["a"]}
    sidecar_path(beton).write_text(json.dumps(content))
    with pytest.raises(SemabenchError, match="differ in length"):
        read_sidecar(beton)


def test_missing(beton):
    sidecar_path(beton).unlink()
    with pytest.raises(SemabenchError, match="has no sidecar"):
        read_sidecar(beton)


def test_stamp_is_for_this_very_file(beton):
    assert not is_stamped(beton, "ab")
    write_stamp(beton, "ab")
    assert is_stamped(beton, "ab")
    assert not is_stamped(beton, "cd")
    status = beton.stat()
    os.utime(beton, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert not is_stamped(beton, "ab")
    write_stamp(beton, "ab")
    beton.write_bytes(b"x" * 98)
    os.utime(beton, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert not is_stamped(beton, "ab")


def test_same_content_in_a_new_file_is_not_stamped(beton):
    write_stamp(beton, "ab")
    status = beton.stat()
    copy = beton.with_name("copy")
    copy.write_bytes(beton.read_bytes())
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
    copy.replace(beton)
    assert not is_stamped(beton, "ab")


def test_damaged_stamp_is_no_stamp(beton):
    stamp_path(beton).write_text("{")
    assert not is_stamped(beton, "ab")
