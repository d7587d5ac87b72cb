"""Index a folder whose labels are listed in a file beside the images, as the Hub's image folders.

``metadata.csv`` or ``metadata.jsonl``, a row an image: ``file_name``, relative to the folder, and
its label, by WordNet id, name or number.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from semabench.data.sources.types import ImageList, class_names
from semabench.errors import SemabenchError, first_line
from semabench.files import readable

_NAMES = ("metadata.csv", "metadata.jsonl")
#: Columns that tell the class, the most certain first.
_LABELS = ("wnid", "synset", "synset_id", "class_id", "label", "class", "class_name", "target")
_NUMBER = re.compile(r"\d+")


def list_in(folder: Path) -> Path | None:
    """Return the list of a folder's images, if it has one."""
    return next((folder / name for name in _NAMES if (folder / name).is_file()), None)


def listed_images(folder: Path, split: str) -> ImageList:
    """Index the images that the list in ``folder`` names; see ``find_images``.

    Raises:
        SemabenchError: a row without a file name or label, or a file that is not there.
    """
    path = list_in(folder)
    assert path is not None
    rows: list[tuple[str, str]] = []
    seen: set[str] = set()
    column = ""
    for number, row in enumerate(_rows(path), start=1):
        column = column or next((name for name in _LABELS if row.get(name) not in (None, "")), "")
        if not row.get("file_name") or not column or row.get(column) in (None, ""):
            raise SemabenchError(
                f"row {number} of {path} lacks file_name, or a label ({', '.join(_LABELS)})."
            )
        name = str(row["file_name"])
        if "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise SemabenchError(f"row {number} of {path} leads out of the folder: {name!r}.")
        if name in seen:
            raise SemabenchError(f"row {number} of {path} names {name} once more.")
        seen.add(name)
        rows.append((str(row[column]), name))
    if not rows:
        raise SemabenchError(f"{path} names no image.")
    numbers = all(_NUMBER.fullmatch(label) for label, _ in rows)
    order = sorted(
        {label for label, _ in rows}, key=(lambda label: int(label)) if numbers else None
    )
    place = {label: index for index, label in enumerate(order)}
    rows.sort(key=lambda row: (place[row[0]], row[1]))
    classes = [readable(label) for label in order]
    return ImageList(
        split=split,
        container=folder,
        classes=classes,
        names=class_names(classes),
        paths=[name for _, name in rows],
        sizes=np.array([_size(path, folder / name) for _, name in rows], dtype=np.int64),
        labels=np.array([place[label] for label, _ in rows], dtype=np.int64),
    )


def _rows(path: Path) -> Iterator[dict[str, object]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            if path.suffix == ".csv":
                yield from csv.DictReader(file)
                return
            for line in filter(str.strip, file):
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"{line.strip()[:40]} is no object")
                yield row
    except (OSError, ValueError, csv.Error) as error:
        raise SemabenchError(f"cannot read {path}: {first_line(error)}.") from error


def _size(path: Path, image: Path) -> int:
    try:
        if image.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return image.stat().st_size
    except OSError as error:
        raise SemabenchError(
            f"{path} names {image}, which cannot be read: {error.strerror}."
        ) from error
