"""Place a large file and its sidecar: enough room, one writer at a time, renamed when whole."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from semabench.data.sidecar import Sidecar, sidecar_path, stamp_path
from semabench.errors import SemabenchError
from semabench.files import PARTIAL_SUFFIX, atomic_path


def free_bytes(directory: Path) -> int:
    """Return the space left on the disk of ``directory``, which need not exist yet."""
    while not directory.exists():
        directory = directory.parent
    return shutil.disk_usage(directory).free


def require_space(directory: Path, needed: int, what: str) -> None:
    """Raise if the disk of ``directory`` has less than ``needed`` bytes left."""
    free = free_bytes(directory)
    if needed > free:
        raise SemabenchError(
            f"{what} needs {needed / 2**30:.2f} GiB in {directory}, {free / 2**30:.2f} are free."
        )


@contextlib.contextmanager
def exclusive_partial(target: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Open ``<target>.partial`` empty, for this process alone; remove it if the block raises.

    The lock lies on the partial file itself, so that a killed process leaves none behind.
    """
    partial = target.with_name(target.name + PARTIAL_SUFFIX)
    while True:
        file = open(partial, "a+b", buffering=0)  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise SemabenchError(f"another process is writing {target}: wait for it.") from error
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(partial)):
                break
        file.close()  # the other process had just renamed or removed it
    try:
        file.truncate(0)
        with open(partial, "r+b", buffering=1 << 20) as stream:
            yield partial, stream
    finally:
        if partial.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(partial)):
            partial.unlink()
        file.close()


def replace_pair(partial: Path, target: Path, sidecar: Sidecar) -> None:
    """Put the new pair in place of the old one, the sidecar last."""
    with atomic_path(sidecar_path(target)) as pending:
        pending.write_text(sidecar.to_json(), encoding="utf-8")
        sidecar_path(target).unlink(missing_ok=True)
        stamp_path(target).unlink(missing_ok=True)
        os.replace(partial, target)
        _sync_directory(target.parent)
    _sync_directory(target.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
