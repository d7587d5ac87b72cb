"""``results.jsonl``: append-only rows that survive kill -9, full disks and parallel writers."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from semabench.errors import SemabenchError
from semabench.results.csv_file import read_csv
from semabench.results.record import Record, newest_of_equals

RESULTS_NAME = "results.jsonl"

log = logging.getLogger(__name__)


def append_record(path: Path, record: Record) -> None:
    """Add one row to a results file, durably and whole, creating file and folder if need be.

    The row is one ``write`` under an advisory lock, flushed to disk before returning. A torn
    last line, left by a killed writer, is removed first. If the disk is full the file is put
    back to what it was.

    Raises:
        SemabenchError: the file cannot be written, or the row holds NaN or infinity.
    """
    try:
        line = json.dumps(record.to_dict(), allow_nan=False, ensure_ascii=False) + "\n"
    except ValueError as error:
        raise SemabenchError(
            f"the result of {record.model} at {record.resolution} px is not finite: not stored."
        ) from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _lock(descriptor)
            _append_whole(descriptor, line.encode(), path)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SemabenchError(f"cannot write {path}: {error.strerror or error}.") from error


def read_rows(path: Path) -> list[Record]:
    """Return every row of one results file, oldest first; none if there is no such file.

    A torn last line is left out with a warning: its writer was killed before the row was whole.
    A file of the suffix ``.csv`` is read as `csv_file.compact_csv` writes it.

    Raises:
        SemabenchError: the file cannot be read, or a whole line is not a valid row.
    """
    if path.suffix == ".csv":
        return read_csv(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SemabenchError(f"cannot read {path}: {error.strerror or error}.") from error
    whole, tail = _split_torn(data)
    if tail:
        log.warning("%s: its last line is torn, a writer was killed: left out.", path)
    numbered = enumerate(whole.splitlines(), start=1)
    return [_parse(line, f"{path}:{number}") for number, line in numbered if line.strip()]


def read_results(paths: Iterable[Path]) -> list[Record]:
    """Return the newest row of every measurement found, in the order first met.

    Within a file a later row is newer, whatever the clocks of the hosts that appended said; between
    files, times decide.

    Args:
        paths: results files, run directories, or folders above them at any depth.

    Raises:
        SemabenchError: a path that does not exist or holds no results, or a damaged file.
    """
    found: list[Record] = []
    for path in paths:
        rows = [
            row
            for file in find_results(path)
            for row in {r.key: r for r in read_rows(file)}.values()
        ]
        if not rows:
            if path.exists() and not os.access(path, os.R_OK):
                raise SemabenchError(f"no permission to read {path}.")
            raise SemabenchError(
                f"no results in {path}: evaluate a run there first, or name another directory."
            )
        found += rows
    if not found:
        raise SemabenchError("no results: name at least one run directory.")
    return newest_of_equals(found, ["key"])


def find_results(path: Path) -> list[Path]:
    """Return the results files at or below ``path``, sorted.

    Raises:
        SemabenchError: ``path`` does not exist.
    """
    if path.is_dir():
        return sorted(path.rglob(RESULTS_NAME))
    if not path.exists():
        raise SemabenchError(f"no such run directory or results file: {path}.")
    return [path]


def _append_whole(descriptor: int, line: bytes, path: Path) -> None:
    size = os.fstat(descriptor).st_size
    whole, tail = _split_torn(os.pread(descriptor, size, 0))
    if tail:
        log.warning("%s: its last line was torn, a writer was killed: removed.", path)
        size = len(whole)
        os.ftruncate(descriptor, size)
    if whole and not whole.endswith(b"\n"):
        line = b"\n" + line
    try:
        if os.write(descriptor, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    except BaseException:
        os.ftruncate(descriptor, size)
        raise


def _split_torn(data: bytes) -> tuple[bytes, bytes]:
    """Split into whole lines and a torn last one; a complete row without newline is whole."""
    cut = data.rfind(b"\n") + 1
    tail = data[cut:]
    try:
        if tail:
            json.loads(tail)
    except ValueError:
        return data[:cut], tail
    return data, b""


def _parse(line: bytes, where: str) -> Record:
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise SemabenchError("not a JSON object.")
        return Record.from_dict(row)
    except ValueError as error:
        raise SemabenchError(f"{where}: not valid JSON ({error}); remove the line.") from error
    except SemabenchError as error:
        raise SemabenchError(f"{where}: {error}") from error


def _lock(descriptor: int) -> None:
    """Lock a file until it is closed; some cluster file systems cannot, and one writer need not."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            raise
