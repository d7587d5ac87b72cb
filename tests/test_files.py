"""Files are whole or absent."""

import hashlib

import pytest

from semabench.errors import SemabenchError
from semabench.files import PARTIAL_SUFFIX, atomic_path, atomic_write, sha256_file


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    atomic_write(path, "old")

    def write_half() -> None:
        with atomic_path(path) as partial:
            partial.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_stale_partial_file_is_replaced(tmp_path):
    path = tmp_path / "file"
    path.with_name(path.name + PARTIAL_SUFFIX).write_text("from a killed process, and longer")
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_unwritable_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SemabenchError, match="cannot write"):
        atomic_write(tmp_path / "file" / "below", "x")
    with pytest.raises(SemabenchError, match="cannot write"):
        atomic_write(tmp_path / "file" / "far" / "below", "x")


def test_a_full_disk_is_one_line():
    told = r"No space left on device: free some space"
    with pytest.raises(SemabenchError, match=told), atomic_path_on_full_disk():
        pass


def atomic_path_on_full_disk():
    import contextlib
    from pathlib import Path

    @contextlib.contextmanager
    def writing():
        with open("/dev/full", "wb", buffering=0) as full, atomic_path(Path("/tmp/never")):
            yield
            full.write(b"x")

    return writing()


def test_sha256_reports_what_it_reads(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 1000)
    read = []
    assert sha256_file(path, read.append) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sum(read) == path.stat().st_size
