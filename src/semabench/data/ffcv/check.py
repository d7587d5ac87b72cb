"""Is this .beton the file that was written? ``require_intact`` before use, ``check`` in depth."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from semabench.data.ffcv import native
from semabench.data.ffcv.format import Beton, Sidecar, read_beton, read_sidecar, write_stamp
from semabench.data.ffcv.publish import checksum, in_chunks, is_intact
from semabench.data.image import JPG, UnreadableImageError, allow_large_images, open_image
from semabench.data.sources import find_images
from semabench.errors import SemabenchError
from semabench.processes import WorkerPool, worker_count
from semabench.progress import item_bar, note

_CHUNK = 64
_LISTED = 20


@dataclass
class CheckReport:
    """What ``check`` found."""

    path: Path
    samples: int = 0
    bytes: int = 0
    sha256: str = ""  # as computed now, hex
    problems: list[str] = field(default_factory=list)  # of the file as a whole, one line each
    damaged: dict[int, str] = field(default_factory=dict)  # sample: why, with its source path


class DamagedFileError(SemabenchError):
    """The file is not as it was written; ``report`` holds all that was found."""

    def __init__(self, message: str, report: CheckReport) -> None:
        super().__init__(message)
        self.report = report


def require_intact(path: Path) -> Sidecar:
    """Return the sidecar of a .beton after making sure that the file is the one it describes.

    The checksum is read once and remembered in ``.<name>.verified`` beside the file, for this
    size, modification time and inode; later calls take no time. (Bits that rot without the
    modification time changing are for ``check`` to find, which always reads everything.)

    Raises:
        SemabenchError: no file, no sidecar, or size or checksum differ.
    """
    path = Path(path)
    if not path.is_file():
        raise SemabenchError(f"no file {path}: pack it first.")
    sidecar = read_sidecar(path)
    _require_size(path, sidecar)
    try:
        intact = is_intact(path, sidecar)
    except OSError as error:
        raise SemabenchError(f"cannot read {path}: {error.strerror or error}.") from error
    if not intact:
        raise SemabenchError(
            f"{path} is damaged: its checksum is not its sidecar's; pack it again."
        )
    return sidecar


def check(path: Path, *, source: Path | None = None, workers: int | None = None) -> CheckReport:
    """Verify checksum and structure of a .beton and decode every sample.

    Args:
        path: the file.
        source: the dataset it was made from, so that damaged samples are named by their path.
        workers: processes; as many as cores if not given.

    Raises:
        DamagedFileError: anything is wrong. The first samples are listed on stderr before.
        SemabenchError: there is no such file, or ``source`` is not what it was made from.
    """
    path = Path(path)
    processes = worker_count(workers)
    if not path.is_file():
        files = ", ".join(sorted(str(file) for file in path.glob("*.beton")))
        raise SemabenchError(f"no file {path}" + (f": name {files}." if files else "."))
    report = CheckReport(path, bytes=path.stat().st_size)
    sidecar = beton = names = None
    with _problems_of(report):
        sidecar = read_sidecar(path)
    if source is not None and sidecar is not None:
        names = _source_paths(source, path, sidecar)
    try:
        report.sha256 = checksum(path, "verifying")
    except OSError as error:
        raise SemabenchError(f"cannot read {path}: {error.strerror or error}.") from error
    if sidecar:
        with _problems_of(report):
            _require_size(path, sidecar)
            if report.sha256 != sidecar.sha256:
                raise SemabenchError(f"{path} is damaged: its checksum is not its sidecar's.")
    with _problems_of(report):
        beton = read_beton(path)
    if beton is not None:
        report.samples = len(beton)
        if sidecar:
            with _problems_of(report):
                _require_agreement(beton, sidecar)
        report.damaged = _decode_all(beton, processes)
        if names is not None and len(names) == len(beton):
            report.damaged = {i: f"{names[i]}: {why}" for i, why in report.damaged.items()}
    _raise_if_damaged(report)
    write_stamp(path, report.sha256)
    return report


@dataclass(frozen=True)
class _DecodeChunk:
    """What a worker does with a range of samples: return (index, fault) of the bad ones."""

    beton: Beton

    def __call__(self, samples: range) -> list[tuple[int, str]]:
        allow_large_images()
        return [(index, fault) for index in samples if (fault := self._fault(index))]

    def _fault(self, index: int) -> str | None:
        stored = self.beton.image(index)
        if len(stored.data) != self.beton.sizes[index]:
            return "the file ends inside it"
        if stored.mode != JPG:
            return None  # raw pixels have no structure; their checksum is the file's
        try:
            image = open_image(stored.data)
        except UnreadableImageError as error:
            return str(error)
        if image.size != (stored.width, stored.height):
            return f"{image.width}×{image.height}, not {stored.width}×{stored.height} as noted"
        if image.mode != "RGB":
            return f"colour mode {image.mode}, not RGB"
        # As training does, which takes what libjpeg warns of for damage.
        if not native.reads(stored.data, np.asarray(image)):
            return "FFCV's decoder refuses or misreads it"
        return None


def _decode_all(beton: Beton, workers: int) -> dict[int, str]:
    chunks = in_chunks(len(beton), _CHUNK)
    damaged: dict[int, str] = {}
    with WorkerPool(_DecodeChunk(beton), workers) as pool, item_bar() as bar:
        task = bar.add_task(f"decoding {beton.path.name}", total=len(beton))
        for chunk, faults in zip(chunks, pool.map(chunks), strict=True):
            damaged.update(faults)
            bar.advance(task, len(chunk))
    return damaged


def _require_agreement(beton: Beton, sidecar: Sidecar) -> None:
    """Raise where a readable file differs from its sidecar."""
    if len(beton) != sidecar.samples:
        raise SemabenchError(
            f"{beton.path} holds {len(beton)} samples, its sidecar says {sidecar.samples}."
        )
    classes = len(sidecar.classes)
    outside = (beton.labels < 0) | (beton.labels >= classes)
    if outside.any():
        index = int(outside.argmax())
        raise SemabenchError(f"{beton.path}: the label of sample {index} names no class.")
    if np.bincount(beton.labels, minlength=classes).tolist() != sidecar.counts:
        raise SemabenchError(f"{beton.path}: samples per class are not as its sidecar says.")


def _source_paths(source: Path, path: Path, sidecar: Sidecar) -> list[str]:
    """Return the source path of each sample."""
    images = find_images(source, sidecar.split, sidecar.settings.get("holdout"))
    if images.fingerprint != sidecar.fingerprint:
        raise SemabenchError(f"{path} was not made from the images in {source}.")
    skipped = {name for name, _ in sidecar.skipped}
    return [name for name in images.paths if name not in skipped]


@contextlib.contextmanager
def _problems_of(report: CheckReport) -> Iterator[None]:
    """Note in the report what is wrong, and go on."""
    try:
        yield
    except SemabenchError as error:
        report.problems.append(str(error))


def _require_size(path: Path, sidecar: Sidecar) -> None:
    size = path.stat().st_size
    if size != sidecar.bytes:
        raise SemabenchError(
            f"{path} is damaged: it has {size:,} bytes, its sidecar says {sidecar.bytes:,}."
        )


def _raise_if_damaged(report: CheckReport) -> None:
    listed = list(report.damaged.items())[:_LISTED]
    for line in report.problems + [f"sample {index}: {why}" for index, why in listed]:
        note(line)
    if len(report.damaged) > _LISTED:
        note(f"… and {len(report.damaged) - _LISTED} more samples")
    if report.damaged:
        raise DamagedFileError(
            f"{report.path}: {len(report.damaged)} of {report.samples} samples are damaged, the "
            f"first is sample {listed[0][0]} ({listed[0][1]}).",
            report,
        )
    if report.problems:
        raise DamagedFileError(report.problems[0], report)
