"""FFCV's file format, version 2, for (image, label) samples, and what stands beside a file.

    header | field descriptors | metadata, one row a sample | images | allocation table

An image never crosses a multiple of the page size, since FFCV reads whole pages into its process
cache. The layout is written down here as NumPy types so that packing does not need FFCV, whose
own writer waits for ever when a worker dies and lays every run out differently.

A sidecar vouches for a .beton; a stamp remembers that its checksum was verified.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from semabench.data.image import JPG, MAX_SIDE, RAW, Encoded
from semabench.errors import SemabenchError
from semabench.files import atomic_write

VERSION = 2
HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ],
    align=True,
)
FIELD = np.dtype(
    [("type_id", "<u1"), ("name", ("<u1", 16)), ("arguments", ("<u1", (1024,)))], align=True
)
IMAGE = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
METADATA = np.dtype([("", IMAGE), ("", "<i8")], align=True)
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])

#: (name, FFCV's type number) of each field, in order: RGBImageField and IntField.
FIELDS = (("image", 2), ("label", 1))

#: FFCV's default page. It doubles until the largest image fits.
PAGE_SIZE = 8 << 20
#: FFCV keeps the page size in 32 bits.
MAX_PAGE_SIZE = 1 << 31

_METADATA_START = HEADER.itemsize + len(FIELDS) * FIELD.itemsize


class BetonWriter:
    """Write samples one after another; the file is unreadable until :meth:`finish`.

    Args:
        file: an empty file, open for writing and seekable.
        capacity: the most samples that will be added; room for their metadata is set aside.
    """

    def __init__(self, file: BinaryIO, capacity: int) -> None:
        self.page_size = PAGE_SIZE
        self._file = file
        self._metadata = np.zeros(capacity, dtype=METADATA)
        self._table = np.zeros(capacity, dtype=ALLOCATION)
        self._samples = 0
        self._position = _METADATA_START + self._metadata.nbytes
        file.write(bytes(self._position))

    def add(self, image: Encoded, label: int) -> None:
        """Append one sample.

        Raises:
            ValueError: a side exceeds 65,535 pixels, or the data exceed the largest page (2 GiB).
            OSError: the disk is full, or another fault of writing.
        """
        size = len(image.data)
        if not (0 < image.width <= MAX_SIDE and 0 < image.height <= MAX_SIDE):
            raise ValueError(
                f"{image.width}×{image.height}: a side may have 1–{MAX_SIDE} px, set max_resolution"
            )
        if size > MAX_PAGE_SIZE:
            raise ValueError(
                f"{size:,} bytes: one image may take {MAX_PAGE_SIZE:,}, set max_resolution"
            )
        # Doubling keeps what is already written valid: a small page lies inside one large page.
        while size > self.page_size:
            self.page_size *= 2
        left_in_page = -self._position % self.page_size
        if size > left_in_page > 0:
            self._file.write(bytes(left_in_page))
            self._position += left_in_page
        self._file.write(image.data)
        row = (image.mode, image.width, image.height, self._position)
        self._metadata[self._samples] = (row, label)
        self._table[self._samples] = (self._samples, self._position, size)
        self._position += size
        self._samples += 1

    def finish(self) -> int:
        """Write table, metadata and header, flush to disk, and return the bytes of the file."""
        table = self._table[: self._samples]
        self._file.write(table.tobytes())
        self._file.seek(_METADATA_START)
        self._file.write(self._metadata.tobytes())
        self._file.seek(0)
        header = np.zeros(1, dtype=HEADER)
        header[0] = (VERSION, len(FIELDS), self.page_size, self._samples, self._position)
        self._file.write(header.tobytes() + field_descriptors().tobytes())
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._position + table.nbytes


@dataclass(frozen=True, eq=False)
class Beton:
    """The structure of a file, validated: every array has one row a sample, in sample order."""

    path: Path
    page_size: int  # bytes
    modes: NDArray[np.uint8]  # (n,), JPG or RAW
    widths: NDArray[np.uint16]  # (n,), pixels
    heights: NDArray[np.uint16]
    labels: NDArray[np.int64]  # (n,)
    offsets: NDArray[np.int64]  # (n,), where each image's data lie in the file
    sizes: NDArray[np.int64]  # (n,), bytes of the data

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Encoded:
        """Read the stored data of one sample."""
        with open(self.path, "rb", buffering=0) as file:
            data = os.pread(file.fileno(), int(self.sizes[index]), int(self.offsets[index]))
        width, height = int(self.widths[index]), int(self.heights[index])
        return Encoded(int(self.modes[index]), width, height, data)


def read_beton(path: Path) -> Beton:
    """Read and validate all of a file but its images.

    Raises:
        SemabenchError: it is missing, not an (image, label) file of version 2, or inconsistent:
            the message says in what.
    """
    try:
        with open(path, "rb") as file:
            end = os.fstat(file.fileno()).st_size
            header = _rows(file, HEADER, 1, path, "header")[0]
            if header["version"] != VERSION:
                raise SemabenchError(
                    f"{path} is no .beton file of version {VERSION}: its header is damaged, "
                    "or it was never finished."
                )
            fields = _rows(file, FIELD, min(int(header["num_fields"]), 255), path, "fields")
            if fields.tobytes() != field_descriptors().tobytes():
                raise SemabenchError(f"{path} has other fields than image and label.")
            samples, table_start = int(header["num_samples"]), int(header["alloc_table_ptr"])
            if end - table_start != samples * ALLOCATION.itemsize or table_start > end:
                raise SemabenchError(
                    f"{path} has no allocation table for {samples} samples at its end: it is "
                    "truncated or its header is damaged."
                )
            metadata = _rows(file, METADATA, samples, path, "metadata")
            data_start = file.tell()
            file.seek(table_start)
            table = _rows(file, ALLOCATION, samples, path, "allocation table")
    except OSError as error:
        raise SemabenchError(f"cannot read {path}: {error.strerror or error}.") from error
    # FFCV's own writer leaves the table in the order in which its workers finished.
    table = table[np.argsort(table["sample_id"], kind="stable")]
    if not np.array_equal(table["sample_id"], np.arange(samples)):
        raise SemabenchError(f"{path}: its allocation table does not list every sample once.")
    image = metadata["f0"]
    if not np.array_equal(table["ptr"], image["data_ptr"]):
        raise SemabenchError(f"{path}: its metadata and its allocation table disagree.")
    beton = Beton(
        path=path,
        page_size=int(header["page_size"]),
        modes=image["mode"],
        widths=image["width"],
        heights=image["height"],
        labels=metadata["f1"],
        offsets=table["ptr"].astype(np.int64),
        sizes=table["size"].astype(np.int64),
    )
    _validate(beton, data_start, table_start)
    return beton


def field_descriptors() -> NDArray[np.void]:
    """Return the descriptors of the two fields, as FFCV writes them."""
    fields = np.zeros(len(FIELDS), dtype=FIELD)
    for row, (name, type_id) in zip(fields, FIELDS, strict=True):
        row["type_id"] = type_id
        row["name"][: len(name)] = np.frombuffer(name.encode(), dtype=np.uint8)
    return fields


def _rows(file: BinaryIO, dtype: np.dtype, count: int, path: Path, what: str) -> NDArray[np.void]:
    data = file.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize:
        raise SemabenchError(f"{path} ends inside its {what}: it is truncated.")
    return np.frombuffer(data, dtype=dtype)


def _validate(beton: Beton, data_start: int, data_end: int) -> None:
    """Raise on the first sample that cannot be where the file says it is."""
    start, size, page = beton.offsets, beton.sizes, beton.page_size
    if page < 1 or page & (page - 1):
        raise SemabenchError(f"{beton.path}: page size {page} is not a power of two.")
    stop = start + size
    order = np.argsort(start, kind="stable")
    overlap = np.zeros(len(beton), dtype=bool)
    overlap[order[1:]] = stop[order[:-1]] > start[order[1:]]
    pixels = 3 * beton.widths.astype(np.int64) * beton.heights.astype(np.int64)
    faults = {
        "points outside the file": (start < data_start) | (size < 1) | (stop > data_end),
        "crosses a page": start // page != (stop - 1) // page,
        "overlaps another": overlap,
        "is neither JPEG nor raw": ~np.isin(beton.modes, (JPG, RAW)),
        "has no pixels": pixels == 0,
        "has another size than its pixels": (beton.modes == RAW) & (size != pixels),
    }
    for what, where in faults.items():
        if where.any():
            raise SemabenchError(f"{beton.path}: sample {int(where.argmax())} {what}.")


FORMAT = 1


@dataclass(frozen=True)
class Sidecar:
    """The description of one .beton, stored as ``<file>.json``."""

    kind: str  # pack: images of their own sizes; render: one size, ready to evaluate
    split: str
    samples: int
    bytes: int  # of the file
    sha256: str  # of the file, hex
    fingerprint: str  # identity of the source, see `ImageList`
    classes: list[str]  # directory names or WordNet ids; a label is an index into this list
    names: list[str]  # human-readable ones
    counts: list[int]  # samples of each class
    settings: dict[str, Any]  # all that decides the content besides the source
    skipped: list[list[str]]  # [path, reason] of each image that could not be read
    versions: dict[str, str]  # of the libraries that wrote it
    # of a render: each sample's path in the source; None before these were kept
    paths: list[str] | None = None

    def to_json(self) -> str:
        """Return the text of the sidecar file."""
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def sidecar_path(beton: Path) -> Path:
    """Return where the sidecar of ``beton`` lies."""
    return beton.with_name(beton.name + ".json")


def read_sidecar(beton: Path) -> Sidecar:
    """Read and validate the sidecar of ``beton``.

    Raises:
        SemabenchError: there is none (the file was never finished, or not by us), or it is not
            one that this version can read.
    """
    path = sidecar_path(beton)
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise SemabenchError(
            f"{beton} has no sidecar {path.name}: it was not finished, or not packed by "
            "semabench; pack it again."
        ) from error
    except OSError as error:
        raise SemabenchError(f"cannot read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise SemabenchError(f"cannot read {path}: {error}; pack again.") from error
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise SemabenchError(f"{path} is no sidecar of format {FORMAT}; pack again.")
    types: dict[str, Any] = {
        key: get_origin(hint) or hint for key, hint in get_type_hints(Sidecar).items()
    }
    types["paths"] = (list, type(None))
    content.setdefault("paths")
    for key, kind in types.items():
        if not isinstance(content.get(key), kind):
            raise SemabenchError(f"{path} lacks a valid '{key}': it is damaged; pack again.")
    sidecar = Sidecar(**{key: content[key] for key in types})
    if sidecar.paths is not None and len(sidecar.paths) != sidecar.samples:
        raise SemabenchError(f"{path}: paths and samples differ in number; render again.")
    if not len(sidecar.classes) == len(sidecar.names) == len(sidecar.counts):
        raise SemabenchError(f"{path}: classes, names and counts differ in length; pack again.")
    return sidecar


def stamp_path(beton: Path) -> Path:
    """Return where the stamp of the last verification of ``beton`` lies."""
    return beton.with_name(f".{beton.name}.verified")


_verified: set[tuple[Any, ...]] = set()  # in this process


def is_stamped(beton: Path, sha256: str) -> bool:
    """Say whether this very file (size, time, inode) was verified to have this checksum."""
    with contextlib.suppress(OSError, ValueError):
        if (beton, *_stamp(beton, sha256).values()) in _verified:
            return True
        stamp: object = json.loads(stamp_path(beton).read_bytes())
        return stamp == _stamp(beton, sha256)
    return False


def write_stamp(beton: Path, sha256: str) -> None:
    """Remember that ``beton`` has this checksum; in a read-only directory in this process."""
    with contextlib.suppress(OSError, SemabenchError):
        _verified.add((beton, *_stamp(beton, sha256).values()))
        atomic_write(stamp_path(beton), json.dumps(_stamp(beton, sha256)))


def _stamp(beton: Path, sha256: str) -> dict[str, int | str]:
    status = beton.stat()
    return {
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "inode": status.st_ino,
        "sha256": sha256,
    }


def require_holdout(path: Path, settings: dict[str, Any], wanted: float | None) -> None:
    """Raise unless a packed file holds the part of the images that ``data.holdout`` asks for."""
    if (found := settings.get("holdout")) != wanted:
        raise SemabenchError(
            f"{path} was made with holdout {found or 'none'}, but data.holdout is "
            f"{wanted or 'null'}: set data.holdout to that, or pack and render with --holdout "
            "into a directory of its own."
        )
