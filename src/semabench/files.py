"""Files that are whole or absent: atomic replacement and checksums."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from semabench.errors import SemabenchError

PARTIAL_SUFFIX = ".partial"


def readable(name: str) -> str:
    r"""Return a file's name as text that can be stored anywhere: what is no UTF-8 as ``\xe9``."""
    try:
        stored = os.fsencode(name)
    except UnicodeEncodeError:  # half of a pair, which no file system gives
        stored = encode(name)
    return stored.decode("utf-8", "backslashreplace")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` if the block succeeds.

    The temporary file ends in ``.partial``, is flushed to disk before the rename and removed
    if the block raises (ctrl-C included). After ``kill -9`` it stays, under a name that nothing
    reads, and the next writer of the same path replaces it.

    Raises:
        SemabenchError: the directory cannot be written, or the disk is full.
    """
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    make_directory(path.parent)
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        _remove(partial)
        if error.filename is None or str(error.filename).startswith(str(path.parent)):
            raise _cannot_write(path, error) from error
        raise  # not our file: somebody else's trouble inside the block
    except BaseException:
        _remove(partial)
        raise


def make_directory(path: Path) -> None:
    """Create a directory and what is above it.

    Raises:
        SemabenchError: it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path``: a reader sees the old file or the new one, never a part."""
    with atomic_path(path) as partial:
        partial.write_bytes(encode(content) if isinstance(content, str) else content)


def encode(text: str) -> bytes:
    """Return text as a file holds it: UTF-8, names that are none as JSON's escapes of them."""
    return text.encode(errors="backslashreplace")


def sha256_file(path: Path, advance: Callable[[int], None] | None = None) -> str:
    """Return the SHA-256 of a file as hex; ``advance`` is told the bytes of each chunk read."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
            if advance is not None:
                advance(len(chunk))
    return digest.hexdigest()


def _cannot_write(path: Path, error: OSError) -> SemabenchError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    advice = ": free some space, then start again" if full else ""
    return SemabenchError(f"cannot write {path}: {error.strerror or error}{advice}.")


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
