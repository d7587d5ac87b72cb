"""Write a .beton so that at no moment a file looks finished that is not.

The order is: ``<name>.partial`` whole and on disk; its checksum; the old sidecar removed; the
rename; the new sidecar. Whatever stops it in between (ctrl-C, ``kill -9``, a full disk) leaves
the old pair, or a file without a sidecar, which every reader refuses.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL

from semabench import __version__
from semabench.data.ffcv.format import (
    BetonWriter,
    Sidecar,
    is_stamped,
    read_sidecar,
    sidecar_path,
    stamp_path,
    write_stamp,
)
from semabench.data.image import Encoded, UnreadableImageError, allow_large_images
from semabench.data.sources.types import ImageList
from semabench.errors import SemabenchError
from semabench.files import PARTIAL_SUFFIX, atomic_path, encode, readable, sha256_file
from semabench.processes import WorkerPool
from semabench.progress import byte_bar, item_bar, note, tally


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
        try:
            if partial.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(partial)):
                partial.unlink()
        finally:
            file.close()  # and let go of the lock, whatever interrupts the removal


def replace_pair(partial: Path, target: Path, sidecar: Sidecar) -> None:
    """Put the new pair in place of the old one, the sidecar last."""
    with atomic_path(sidecar_path(target)) as pending:
        pending.write_bytes(encode(sidecar.to_json()))
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


Encode = Callable[[int, bytes], Encoded]  # (source index, file content) -> what is stored


@dataclass(frozen=True)
class Job:
    """One .beton to be written."""

    kind: str  # pack, render
    target: Path
    images: ImageList
    settings: dict[str, Any]  # all that decides the content besides the source
    versions: dict[str, str]  # of the packages that encode, besides Pillow and NumPy
    encode: Encode  # called in worker processes
    chunk: int  # images handed to a worker at a time
    workers: int  # processes
    skip: bool  # leave out unreadable images instead of stopping at them
    overwrite: bool  # replace whatever is there

    def sidecar(self, **written: Any) -> Sidecar:
        """Return the sidecar: what is known beforehand, and what was ``written``."""
        versions = {"semabench": __version__, "pillow": PIL.__version__, "numpy": np.__version__}
        return Sidecar(
            kind=self.kind,
            split=self.images.split,
            fingerprint=self.images.fingerprint,
            classes=self.images.classes,
            names=self.images.names,
            settings=self.settings,
            versions=versions | self.versions,
            **written,
        )


@dataclass(frozen=True)
class Published:
    """A finished file."""

    path: Path
    sidecar: Sidecar
    fresh: bool  # written by this call


def finished(job: Job) -> Published | None:
    """Return the file if it is already there as wanted, ``None`` if it is to be written.

    Raises:
        SemabenchError: something else is there and is not to be overwritten.
    """
    target = job.target
    if job.overwrite or not target.exists():
        return None
    if not sidecar_path(target).exists():
        pending = sidecar_path(target).with_name(sidecar_path(target).name + PARTIAL_SUFFIX)
        if pending.exists():  # ours, stopped between its two renames
            return None
        raise SemabenchError(
            f"{target} exists without a sidecar: move it away, or pass --overwrite to replace it."
        )
    there = read_sidecar(target)
    if (there.fingerprint, there.split) != (job.images.fingerprint, job.images.split):
        raise SemabenchError(
            f"{target} was made from other images: pass --overwrite to replace it."
        )
    old, new = {**there.settings, "kind": there.kind}, {**job.settings, "kind": job.kind}
    for key in [*sorted((old.keys() | new.keys()) - {"kind"}), "kind"]:
        if old.get(key) != new.get(key):
            raise SemabenchError(
                f"{target} was made with {key} = {old.get(key, there.kind)}, not "
                f"{new.get(key, job.kind)}: pass --overwrite, or choose another folder."
            )
    if not is_intact(target, there):
        raise SemabenchError(f"{target} is damaged: pass --overwrite to replace it.")
    note(f"{target} is already there with the same images and settings: nothing to do.")
    return Published(target, there, fresh=False)


def publish(job: Job) -> Published:
    """Write ``job.target`` and its sidecar, unless they are already there as wanted.

    Raises:
        SemabenchError: an image is unreadable (and not to be skipped), the disk is full, a worker
            died, another process is writing the same file, or other content is there.
    """
    if done := finished(job):
        return done
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
        # The workers come first: what is opened later is not inherited, so neither is the lock.
        with (
            WorkerPool(_Chunk(job.images, job.encode), job.workers) as workers,
            exclusive_partial(job.target) as (partial, file),
        ):
            if done := finished(job):
                return done  # another process was faster
            written = _write(job, workers, file)
            sidecar = job.sidecar(**written, sha256=checksum(partial, "checksum"))
            replace_pair(partial, job.target, sidecar)
    except OSError as error:
        free = free_bytes(job.target.parent) / 2**30
        raise SemabenchError(
            f"cannot write {job.target}: {error.strerror or error} ({free:.2f} GiB free)."
        ) from error
    write_stamp(job.target, sidecar.sha256)
    if sidecar.skipped:
        classes = tally(path.partition("/")[0] for path, _ in sidecar.skipped)
        reasons = tally(reason for _, reason in sidecar.skipped)
        note(
            f"left out {len(sidecar.skipped)} unreadable images, listed in the sidecar; by class: "
            f"{classes}; by reason: {reasons}."
        )
    return Published(job.target, sidecar, fresh=True)


def in_chunks(count: int, size: int) -> list[range]:
    """Return 0 … count - 1 in runs of ``size``."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def is_intact(path: Path, sidecar: Sidecar) -> bool:
    """Say whether a file has its sidecar's size and checksum; the latter is read only once."""
    if path.stat().st_size != sidecar.bytes:
        return False
    if is_stamped(path, sidecar.sha256):
        return True
    if checksum(path, "verifying") != sidecar.sha256:
        return False
    write_stamp(path, sidecar.sha256)
    return True


def checksum(path: Path, description: str) -> str:
    """Return the SHA-256 of a file, with a progress bar."""
    with byte_bar() as bar:
        task = bar.add_task(f"{description} {path.name}", total=path.stat().st_size)
        return sha256_file(path, advance=lambda n: bar.advance(task, n))


@dataclass(frozen=True)
class _Chunk:
    """What a worker does with a range of source indices."""

    images: ImageList
    encode: Encode

    def __call__(self, indices: range) -> list[Encoded | Exception]:
        allow_large_images()
        return [self._one(index) for index in indices]

    def _one(self, index: int) -> Encoded | Exception:
        """Return the stored form of one image, or the reason why there is none."""
        try:
            return self.encode(index, self.images.read(index))
        except OSError as error:
            return UnreadableImageError(error.strerror or str(error))
        except (UnreadableImageError, SemabenchError) as error:
            return error


def _write(
    job: Job, workers: WorkerPool[range, list[Encoded | Exception]], file: BinaryIO
) -> dict[str, Any]:
    """Write the file; return what its sidecar says of it."""
    images = job.images
    writer = BetonWriter(file, capacity=len(images))
    counts = [0] * len(images.classes)
    skipped: list[list[str]] = []
    mended: list[str] = []
    paths: list[str] = []
    chunks = in_chunks(len(images), job.chunk)
    with item_bar() as bar:
        task = bar.add_task(f"writing {job.target.name}", total=len(images))
        for chunk, results in zip(chunks, workers.map(chunks), strict=True):
            for index, result in zip(chunk, results, strict=True):
                label = int(images.labels[index])
                try:
                    if isinstance(result, Exception):
                        raise result
                    writer.add(result, label)
                    counts[label] += 1
                    paths.append(readable(images.paths[index]))
                    mended += [images.paths[index]] if result.mended else []
                except (UnreadableImageError, ValueError) as fault:
                    if not job.skip:
                        raise SemabenchError(
                            f"unreadable image {images.location(index)}: {fault}; repair or "
                            "remove it, or pass --on-error skip."
                        ) from fault
                    skipped.append([images.paths[index], str(fault)])
            bar.advance(task, len(chunk))
    if mended:
        note(
            f"encoded {len(mended)} JPEGs anew that FFCV's decoder would refuse or misread, the "
            f"first is {mended[0]}."
        )
    samples = len(images) - len(skipped)
    empty = [k for k, there in enumerate(images.counts) if there and not counts[k]]
    if samples and empty:
        raise SemabenchError(
            f"no image of class {images.classes[empty[0]]} is readable, of {images.split}: "
            "repair them, or remove the class."
        )
    if samples == 0:
        raise SemabenchError(f"none of the {len(images)} images of {images.split} is readable.")
    return {
        "samples": samples, "bytes": writer.finish(), "counts": counts, "skipped": skipped,
        "paths": paths if job.kind == "render" else None,
    }  # fmt: skip
