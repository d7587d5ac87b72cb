"""Index the Parquet files that the Hugging Face Hub distributes: images with their labels in rows.

``<split>-*.parquet``, ``<split>/*.parquet`` or the same below ``data/``: a column of structs
``{bytes, path}``, and one of whole numbers whose names the schema holds (``ClassLabel``).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semabench.data.sources.types import ImageList, class_names, wnids_of
from semabench.errors import SemabenchError, first_line

_LABELS = ("label", "labels", "fine_label", "class", "target")


@dataclass(frozen=True, eq=False)
class ParquetImages(ImageList):
    """Rows of Parquet files, in their order: what is near in the list is near on the disk."""

    files: tuple[Path, ...] = ()
    column: str = "image"
    groups: NDArray[np.int64] | None = None  # (n, 3): file, row group, row in it

    def location(self, index: int) -> str:
        """Return where image ``index`` lies, for messages."""
        assert self.groups is not None
        file, group, row = self.groups[index].tolist()
        return f"{self.files[file]}: row {row} of group {group}"

    def read(self, index: int) -> bytes:
        """Return the encoded bytes of image ``index``; its row group is kept for its neighbours.

        Raises:
            OSError: the file has gone, or is not what it was.
        """
        assert self.groups is not None
        file, group, row = self.groups[index].tolist()
        try:
            data: bytes | None = _row_group(self.files[file], group, self.column)[row].as_py()
        except (ValueError, IndexError) as error:  # pyarrow's own are ValueErrors
            raise OSError(f"the Parquet file is damaged ({first_line(error)})") from error
        if data is None:
            raise OSError("the row has no bytes: images beside the Parquet file are not read")
        return data

    def part(self, chosen: NDArray[np.int64], split: str) -> ParquetImages:
        """Return some of the images, as a split of their own."""
        assert self.groups is not None
        return dataclasses.replace(super().part(chosen, split), groups=self.groups[chosen])

    @cached_property
    def fingerprint(self) -> str:
        r"""SHA-256 over ``name\tbytes\n`` of the files, all places and labels: no image is read."""
        lines = "".join(f"{file.name}\t{file.stat().st_size}\n" for file in self.files)
        assert self.groups is not None
        content = lines.encode() + self.groups.tobytes() + self.labels.tobytes()
        return hashlib.sha256(content).hexdigest()


def parquet_files(src: Path, split: str) -> list[Path]:
    """Return the Parquet files of a split; the Hub calls val ``validation``."""
    names = ("val", "validation") if split == "val" else (split,)
    for directory in (src, src / "data"):
        for name in names:
            for pattern in (f"{name}-*.parquet", f"{name}.parquet", f"{name}/*.parquet"):
                if found := sorted(directory.glob(pattern)):
                    return found
    return []


def parquet_images(src: Path, split: str) -> ImageList:
    """Index one split of the Parquet files in ``src``; see ``find_images``.

    Raises:
        SemabenchError: pyarrow is missing, a file is damaged, or has no images with labels.
    """
    files = parquet_files(src, split)
    labels: list[NDArray[np.int64]] = []
    groups: list[NDArray[np.int64]] = []
    column, classes = "", []
    for number, path in enumerate(files):
        opened = _open(path)
        column, label = _columns(path, opened.schema_arrow)
        classes = _class_names(path, opened.schema_arrow, label)
        labels.append(opened.read([label])[label].to_numpy().astype(np.int64))
        for group in range(opened.num_row_groups):
            rows = opened.metadata.row_group(group).num_rows
            places = np.stack([np.full(rows, number), np.full(rows, group), np.arange(rows)], 1)
            groups.append(places.astype(np.int64))
    all_labels = np.concatenate(labels)
    if len(all_labels) == 0:
        raise SemabenchError(f"no rows in {files[0]}: download it again.")
    if classes and not 0 <= all_labels.min() <= all_labels.max() < len(classes):
        raise SemabenchError(
            f"{files[0].parent} has labels from {all_labels.min()} to {all_labels.max()}, but "
            f"names {len(classes)} classes: -1 marks a split whose labels are withheld."
        )
    if not classes:  # numbers without names
        classes = [str(number) for number in range(int(all_labels.max()) + 1)]
    classes = wnids_of(classes)
    n = len(all_labels)
    return ParquetImages(
        split=split,
        container=files[0].parent,
        classes=classes,
        names=class_names(classes),
        paths=[f"{classes[label]}/{row:08d}" for row, label in enumerate(all_labels.tolist())],
        sizes=np.zeros(n, dtype=np.int64),
        labels=all_labels,
        files=tuple(files),
        column=column,
        groups=np.concatenate(groups),
    )


def _open(path: Path) -> Any:
    try:
        from pyarrow import parquet  # deferred: an extra that few need
    except ImportError as error:
        raise SemabenchError(f"{path} needs pyarrow: pip install 'semabench[parquet]'.") from error
    try:
        return parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise SemabenchError(
            f"cannot read {path}: {first_line(error)}; download it again."
        ) from error


@lru_cache(maxsize=2)
def _row_group(path: Path, group: int, column: str) -> Any:
    """Return the encoded images of a row group; in each worker those of the last two."""
    return (
        _open(path)
        .read_row_group(group, [f"{column}.bytes"])[column]
        .combine_chunks()
        .field("bytes")
    )


def _columns(path: Path, schema: Any) -> tuple[str, str]:
    """Return the names of the columns of images and of labels."""
    import pyarrow

    def holds_images(kind: Any) -> bool:
        return pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0

    images = [field.name for field in schema if holds_images(field.type)]
    numbers = [field.name for field in schema if pyarrow.types.is_integer(field.type)]
    label = next((name for name in _LABELS if name in numbers), None)
    if len(images) != 1 or label is None:
        raise SemabenchError(
            f"{path} has the columns {', '.join(schema.names)}: one of structs with 'bytes' is "
            f"needed, and one of whole numbers called {', '.join(_LABELS[:-1])} or {_LABELS[-1]}."
        )
    return images[0], label


def _class_names(path: Path, schema: Any, label: str) -> list[str]:
    """Return the names of the classes that the schema holds; none if it does not."""
    told = (schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(told)["info"]["features"] if told else {}
        names = features.get(label, {}).get("names", [])
    except (ValueError, KeyError, AttributeError) as error:
        raise SemabenchError(f"{path} has a damaged schema ({first_line(error)}).") from error
    return [str(name) for name in names]
