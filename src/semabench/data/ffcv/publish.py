"""Place a large file and its sidecar: enough room, one writer at a time, renamed when whole."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL

from semabench._version import __version__
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
from semabench.data.progress import byte_bar, item_bar, note
from semabench.data.sources.types import ImageList
from semabench.data.workers import Workers
from semabench.errors import SemabenchError, nearest
from semabench.files import PARTIAL_SUFFIX, atomic_path, sha256_file


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


Encode = Callable[[int, bytes], Encoded]

#: What to do at an unreadable image.
ON_ERROR = ("stop", "skip")


@dataclass(frozen=True)
class Job:
    """One .beton to be written.

    Attributes:
        target: the file.
        plan: its sidecar, with ``samples``, ``bytes``, ``sha256``, ``counts`` and ``skipped``
            still empty.
        images: the source.
        encode: (source index, file content) -> what is stored; called in worker processes.
        chunk: images handed to a worker at a time.
        workers: processes.
        on_error: ``stop`` or ``skip``.
    """

    target: Path
    plan: Sidecar
    images: ImageList
    encode: Encode
    chunk: int
    workers: int
    on_error: str


@dataclass(frozen=True)
class Published:
    """A finished file: where, its sidecar, and whether this call wrote it."""

    path: Path
    sidecar: Sidecar
    fresh: bool


def check_on_error(on_error: str) -> None:
    """Raise unless ``on_error`` is one of ``ON_ERROR``."""
    if on_error not in ON_ERROR:
        raise SemabenchError(f"unknown on_error '{on_error}'.{nearest(on_error, ON_ERROR)}")


def plan(
    kind: str, images: ImageList, settings: dict[str, Any], packages: dict[str, str]
) -> Sidecar:
    """Return the sidecar of a file still to be written; ``packages`` are {name: version}."""
    versions = {"semabench": __version__, "pillow": PIL.__version__, "numpy": np.__version__}
    return Sidecar(
        kind=kind,
        split=images.split,
        samples=0,
        bytes=0,
        sha256="",
        fingerprint=images.fingerprint,
        classes=images.classes,
        names=images.names,
        counts=[],
        settings=settings,
        skipped=[],
        versions=versions | packages,
    )


def finished(target: Path, wanted: Sidecar, overwrite: bool) -> Published | None:
    """Return the file if it is already there as wanted, ``None`` if it is to be written.

    Raises:
        SemabenchError: something else is there and ``overwrite`` is false.
    """
    if overwrite or not target.exists():
        return None
    if not sidecar_path(target).exists():
        pending = sidecar_path(target).with_name(sidecar_path(target).name + PARTIAL_SUFFIX)
        if pending.exists():  # ours, stopped between its two renames
            return None
        raise SemabenchError(
            f"{target} exists without a sidecar: move it away, or pass --overwrite to replace it."
        )
    there = read_sidecar(target)
    if there.fingerprint != wanted.fingerprint or there.split != wanted.split:
        raise SemabenchError(
            f"{target} was made from other images: pass --overwrite to replace it."
        )
    if (there.kind, there.settings) != (wanted.kind, wanted.settings):
        keys = sorted(there.settings.keys() | wanted.settings.keys())
        old, new = there.settings, wanted.settings
        differing = next((key for key in keys if old.get(key) != new.get(key)), "kind")
        raise SemabenchError(
            f"{target} was made with {differing} = {old.get(differing, there.kind)}, not "
            f"{new.get(differing, wanted.kind)}: pass --overwrite, or choose another folder."
        )
    if not is_intact(target, there):
        raise SemabenchError(f"{target} is damaged: pass --overwrite to replace it.")
    note(f"{target} is already there with the same images and settings: nothing to do.")
    return Published(target, there, fresh=False)


def publish(job: Job, overwrite: bool) -> Published:
    """Write ``job.target`` and its sidecar, unless they are already there as wanted.

    Raises:
        SemabenchError: a image is unreadable (``on_error="stop"``), the disk is full, a worker
            died, another process is writing the same file, or other content is there.
    """
    if done := finished(job.target, job.plan, overwrite):
        return done
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
        # The workers come first: what is opened later is not inherited, so neither is the lock.
        with (
            Workers(_Chunk(job.images, job.encode), job.workers) as workers,
            exclusive_partial(job.target) as (partial, file),
        ):
            if done := finished(job.target, job.plan, overwrite):
                return done  # another process was faster
            sidecar = _write(job, workers, file)
            sidecar = replace(sidecar, sha256=checksum(partial, "checksum"))
            replace_pair(partial, job.target, sidecar)
    except OSError as error:
        free = free_bytes(job.target.parent) / 2**30
        raise SemabenchError(
            f"cannot write {job.target}: {error.strerror or error} ({free:.2f} GiB free)."
        ) from error
    write_stamp(job.target, sidecar.sha256)
    if sidecar.skipped:
        note(f"left out {len(sidecar.skipped)} unreadable images, listed in the sidecar.")
    return Published(job.target, sidecar, fresh=True)


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

    def __call__(self, indices: range) -> list[Encoded | str]:
        allow_large_images()
        return [self._one(index) for index in indices]

    def _one(self, index: int) -> Encoded | str:
        """Return the stored form of one image, or the reason why there is none."""
        try:
            return self.encode(index, self.images.read(index))
        except OSError as error:
            return error.strerror or str(error)
        except UnreadableImageError as error:
            return str(error)


def _write(job: Job, workers: Workers[range, list[Encoded | str]], file: BinaryIO) -> Sidecar:
    images = job.images
    writer = BetonWriter(file, capacity=len(images))
    counts = [0] * len(images.classes)
    skipped: list[list[str]] = []
    chunks = [
        range(start, min(start + job.chunk, len(images)))
        for start in range(0, len(images), job.chunk)
    ]
    with item_bar() as bar:
        task = bar.add_task(f"writing {job.target.name}", total=len(images))
        for chunk, results in zip(chunks, workers.map(chunks), strict=True):
            for index, result in zip(chunk, results, strict=True):
                label = int(images.labels[index])
                fault = result if isinstance(result, str) else _add(writer, result, label)
                if fault is None:
                    counts[label] += 1
                elif job.on_error == "skip":
                    skipped.append([images.paths[index], fault])
                else:
                    raise SemabenchError(
                        f"unreadable image {images.location(index)}: {fault}; repair or "
                        "remove it, or pass --on-error skip."
                    )
            bar.advance(task, len(chunk))
    samples = len(images) - len(skipped)
    if samples == 0:
        raise SemabenchError(f"none of the {len(images)} images of {job.plan.split} is readable.")
    size = writer.finish()
    return replace(job.plan, samples=samples, bytes=size, counts=counts, skipped=skipped)


def _add(writer: BetonWriter, image: Encoded, label: int) -> str | None:
    """Append a sample; return the reason if the format cannot hold it."""
    try:
        writer.add(image, label)
    except ValueError as error:
        return str(error)
    return None
