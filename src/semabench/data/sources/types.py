"""What a source of images gives: the list of a split's images, with their labels."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from semabench.errors import SemabenchError

_WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True, eq=False)
class ImageList:
    """The images of one split, ordered by class and then by path, but for Parquet's."""

    split: str
    container: Path  # the split's directory, or the tar file that holds its images
    classes: list[str]  # directory names, sorted as torchvision's ImageFolder sorts them
    names: list[str]  # human-readable ones, in the same order
    paths: list[str]  # (n,), <class>/…/<file> relative to the split
    sizes: NDArray[np.int64]  # (n,), bytes
    labels: NDArray[np.int64]  # (n,), indices into classes
    offsets: NDArray[np.int64] | None = None  # (n,), where images start in the tar

    def __len__(self) -> int:
        return len(self.paths)

    def location(self, index: int) -> str:
        """Return where image ``index`` lies, for messages."""
        separator = "/" if self.offsets is None else ": "
        return f"{self.container}{separator}{self.paths[index]}"

    def read(self, index: int) -> bytes:
        """Return the encoded bytes of image ``index``.

        Raises:
            OSError: the file has gone, cannot be read, or is shorter than when it was found.
        """
        if self.offsets is None:
            return (self.container / self.paths[index]).read_bytes()
        size = int(self.sizes[index])
        with open(self.container, "rb", buffering=0) as tar:
            data = os.pread(tar.fileno(), size, int(self.offsets[index]))
        if len(data) != size:
            raise OSError(f"the tar file ends inside it ({len(data)} of {size} bytes)")
        return data

    @property
    def together(self) -> int:
        """Images that a worker should read in turn."""
        return 8

    def part(self, chosen: NDArray[np.int64], split: str) -> Self:
        """Return some of the images, as a split of their own."""
        return dataclasses.replace(
            self,
            split=split,
            paths=[self.paths[index] for index in chosen],
            sizes=self.sizes[chosen],
            labels=self.labels[chosen],
            offsets=None if self.offsets is None else self.offsets[chosen],
        )

    @property
    def counts(self) -> list[int]:
        """Images of each class."""
        return np.bincount(self.labels, minlength=len(self.classes)).tolist()

    @cached_property
    def fingerprint(self) -> str:
        r"""SHA-256 over the sorted lines ``path\tbytes\tlabel\n`` of all images.

        It identifies the source whatever it is packed into, and is the same for a folder tree
        and for the tar files that the tree was unpacked from.
        """
        rows = zip(self.paths, self.sizes.tolist(), self.labels.tolist(), strict=True)
        lines = sorted(os.fsencode(f"{path}\t{size}\t{label}\n") for path, size, label in rows)
        return hashlib.sha256(b"".join(lines)).hexdigest()


def class_names(classes: list[str]) -> list[str]:
    """Return readable names: WordNet lemmas for WordNet ids, otherwise the names themselves."""
    if not all(_WNID.fullmatch(name) for name in classes):
        return list(classes)
    from timm.data.imagenet_info import ImageNetInfo  # deferred: it imports torch

    info = ImageNetInfo()
    names = []
    for wnid in classes:
        try:
            names.append(info.label_name_to_description(wnid))
        except KeyError:  # not one of the 21,841 synsets that timm knows
            names.append(wnid)
    return names


def same_classes(here: list[str], there: list[str], split: str, other: str, src: Path) -> None:
    """Raise if two splits have different classes, naming the first that only one of them has."""
    for name in sorted(set(here) ^ set(there)):
        has, lacks = (split, other) if name in here else (other, split)
        raise SemabenchError(
            f"the classes of {split} and {other} in {src} differ: '{name}' is in {has} "
            f"but not in {lacks}."
        )
