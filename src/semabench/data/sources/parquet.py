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

from semabench.data.sources.types import ImageList, class_names
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
            found = _row_group(self.files[file], group, self.column)[row].as_py()
        except (SemabenchError, ValueError, LookupError, NotImplementedError) as error:
            raise OSError(f"the Parquet file is damaged ({first_line(error)})") from error
        data: bytes | None = found and found["bytes"]
        if data is None:
            raise OSError("the row has no bytes: images beside the Parquet file are not read")
        return data

    @property
    def together(self) -> int:
        """Images that a worker should read in turn: a row group, as far as memory goes."""
        assert self.groups is not None
        return int(min(self.groups[:, 2].max() + 1, 256))

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
    names: list[str | None] = []
    first: tuple[str, str, list[str]] | None = None
    for number, path in enumerate(files):
        opened = _open(path)
        column, label = _columns(path, opened.schema_arrow)
        told = column, label, _class_names(path, opened.schema_arrow, label)
        first = first or told
        if told != first:
            raise SemabenchError(
                f"{path} has other columns or classes than {files[0].name}: they are no parts of "
                "one dataset; download them again."
            )
        found, paths = _labels_and_paths(path, opened, column, label)
        labels.append(found)
        names += paths
        for group in range(opened.num_row_groups):
            rows = opened.metadata.row_group(group).num_rows
            places = np.stack([np.full(rows, number), np.full(rows, group), np.arange(rows)], 1)
            groups.append(places.astype(np.int64))
    assert first is not None
    column, _, classes = first
    all_labels = np.concatenate(labels)
    if len(all_labels) == 0:
        raise SemabenchError(f"no rows in {files[0]}: download it again.")
    low, high = int(all_labels.min()), int(all_labels.max())
    if low < 0 or (classes and high >= len(classes)):
        what = f", but names {len(classes)} classes" if classes else ""
        raise SemabenchError(
            f"{files[0].parent} has labels from {low} to {high}{what}: -1 marks a split whose "
            "labels are withheld."
        )
    if not classes:  # numbers without names
        classes = [str(number) for number in range(high + 1)]
    n = len(all_labels)
    if None in names or len(set(names)) < n:  # files' own names where they tell images apart
        names = [f"{row:08d}" for row in range(n)]
    return ParquetImages(
        split=split,
        container=files[0].parent,
        classes=classes,
        names=class_names(classes),
        paths=[f"{classes[k]}/{name}" for k, name in zip(all_labels, names, strict=True)],
        sizes=np.zeros(n, dtype=np.int64),
        labels=all_labels,
        files=tuple(files),
        column=column,
        groups=np.concatenate(groups),
    )


def _labels_and_paths(
    path: Path, opened: Any, column: str, label: str
) -> tuple[NDArray[np.int64], list[str | None]]:
    """Return the labels of a file's rows, and the names of their images where they have any."""
    schema = opened.schema_arrow
    has_paths = schema.field(column).type.get_field_index("path") >= 0
    try:
        table = opened.read([label, *([f"{column}.path"] if has_paths else [])])
        labels = table[label]
        names = [row and row["path"] for row in table[column].to_pylist()] if has_paths else []
    except (OSError, ValueError) as error:
        told = first_line(error)
        raise SemabenchError(f"cannot read {path}: {told}; download it again.") from error
    if labels.null_count:
        raise SemabenchError(f"{path} has {labels.null_count} rows without a label.")
    names = [None if name is None else Path(name).name for name in names]
    return labels.to_numpy().astype(np.int64), names or [None] * len(labels)


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


@lru_cache(maxsize=1)
def _row_group(path: Path, group: int, column: str) -> Any:
    """Return the encoded images of a row group; in each worker those of the last one."""
    return _open(path).read_row_group(group, [f"{column}.bytes"])[column]


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
        return [str(name) for name in features.get(label, {}).get("names") or []]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise SemabenchError(f"{path} has a damaged schema ({first_line(error)}).") from error
