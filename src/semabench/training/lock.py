"""One process at a time in a run directory: a lock that dies with its holder, kill -9 included."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from semabench.errors import SemabenchError
from semabench.files import make_directory
from semabench.results.record import utc_now

NAME = "lock"
PATIENCE = 5.0  # seconds: a process that was just killed takes some to let go
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

log = logging.getLogger(__name__)


@contextlib.contextmanager
def run_lock(run_dir: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Hold the lock of a run directory, which is created if need be.

    ``flock`` on the file ``lock`` in it: the kernel lets go when the holder ends, however it ends,
    so no stale lock is ever in the way; the file's text is for people. Forked workers do not keep
    it. Rank 0 alone takes it, for all ranks. Between nodes it works where the file system passes
    locks on (NFS, Lustre mounted with ``flock``, GPFS, BeeGFS set up for it); where it cannot lock
    at all, a warning says so.

    Args:
        run_dir: of the run.
        patience: seconds to wait for a holder that is about to end.

    Raises:
        SemabenchError: another process holds it, or the directory cannot be written.
    """
    make_directory(run_dir)
    descriptor = _acquire(run_dir / NAME, time.monotonic() + patience)
    _held.add(descriptor)
    try:
        yield
    finally:
        _held.discard(descriptor)
        try:
            with contextlib.suppress(OSError):
                (run_dir / NAME).unlink()  # before letting go, so that nobody's file is taken away
        finally:
            os.close(descriptor)
        with contextlib.suppress(OSError):
            run_dir.rmdir()  # if nothing was done in it


def _acquire(path: Path, deadline: float) -> int:
    """Return the descriptor of the locked file that ``path`` names."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise SemabenchError(f"cannot write {path}: {error.strerror}.") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip()
            os.close(descriptor)
            if time.monotonic() >= deadline:
                raise SemabenchError(
                    f"{path.parent} is in use by {holder or 'another process'}: wait until that "
                    "run has ended, or stop it; for a second run, give it another name=..."
                ) from error
            time.sleep(0.2)
            continue
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                os.close(descriptor)
                raise SemabenchError(f"cannot lock {path}: {error.strerror}.") from error
            log.warning(
                "%s cannot be locked (%s): see to it that no other process trains in %s.",
                path, error.strerror, path.parent,
            )  # fmt: skip
            return descriptor
        if _names(path, descriptor):
            with contextlib.suppress(OSError):  # a full disk: the lock holds without its text
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, _holder().encode(), 0)
            return descriptor
        os.close(descriptor)  # its holder removed the file in the meantime


def _names(path: Path, descriptor: int) -> bool:
    """Tell whether ``path`` is still the file that is open."""
    try:
        there, here = os.stat(path), os.fstat(descriptor)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def _holder() -> str:
    job = f", Slurm job {os.environ['SLURM_JOB_ID']}" if "SLURM_JOB_ID" in os.environ else ""
    return f"process {os.getpid()} on {socket.gethostname()}{job}, since {utc_now()}\n"


_held: set[int] = set()


def _forget() -> None:
    """Close a forked child's copies: it must not keep the lock when the holder is killed."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget)
