"""Find the labelled pictures of a split: in a folder tree, or inside the official ILSVRC tars."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semabench.data.progress import item_bar
from semabench.errors import SemabenchError

#: File names that count as pictures (compared in lower case); the list is torchvision's.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
LAYOUT = "expected <class>/<picture> below it"

_WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True, eq=False)
class PictureList:
    """The pictures of one split, ordered by class and then by path.

    Attributes:
        split: the split's name, e.g. ``train``.
        container: the split's directory, or the tar file that holds its pictures.
        classes: class directory names (WordNet ids for ImageNet), sorted as torchvision's
            ImageFolder sorts them; a label is an index into this list.
        names: human-readable class names, in the same order.
        paths: one ``<class>/…/<file>`` a picture, relative to the split.
        sizes: int64 (n,), bytes of each picture's file.
        labels: int64 (n,).
        offsets: int64 (n,), where each picture starts in the tar; ``None`` for a directory.
    """

    split: str
    container: Path
    classes: list[str]
    names: list[str]
    paths: list[str]
    sizes: NDArray[np.int64]
    labels: NDArray[np.int64]
    offsets: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def location(self, index: int) -> str:
        """Return where picture ``index`` lies, for messages."""
        separator = "/" if self.offsets is None else ": "
        return f"{self.container}{separator}{self.paths[index]}"

    def read(self, index: int) -> bytes:
        """Return the encoded bytes of picture ``index``.

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
    def counts(self) -> list[int]:
        """Pictures of each class."""
        return np.bincount(self.labels, minlength=len(self.classes)).tolist()

    @cached_property
    def fingerprint(self) -> str:
        r"""SHA-256 over the sorted lines ``path\tbytes\tlabel\n`` of all pictures.

        It identifies the source whatever it is packed into, and is the same for a folder tree
        and for the tar files that the tree was unpacked from.
        """
        rows = zip(self.paths, self.sizes.tolist(), self.labels.tolist(), strict=True)
        lines = sorted(os.fsencode(f"{path}\t{size}\t{label}\n") for path, size, label in rows)
        return hashlib.sha256(b"".join(lines)).hexdigest()


def find_pictures(src: Path, split: str, holdout: float | None = None) -> PictureList:
    """Index the pictures of ``split``.

    With ``holdout``, a share in (0, 1), both ``train`` and ``val`` are parts of the training
    pictures, see :mod:`holdout`; no other split has them.

    ``src`` is either a folder tree (``src/<split>/<class>/**/<picture>``, hidden files ignored,
    extensions in any case) or the directory with ``ILSVRC2012_img_train.tar``,
    ``ILSVRC2012_img_val.tar`` and ``ILSVRC2012_devkit_t12.tar.gz`` as downloaded; the tars are
    read in place. A folder wins where both exist.

    Raises:
        SemabenchError: nothing of that layout is there, a class is empty, or the classes of
            train and val differ.
    """
    from semabench.data.holdout import split_off
    from semabench.data.tars import ilsvrc_pictures, is_ilsvrc

    if holdout is not None:
        if split not in ("train", "val"):
            raise SemabenchError(f"holdout divides train into train and val: not '{split}'.")
        return split_off(find_pictures(src, "train"), holdout, held_out=split == "val")
    src = Path(src)
    if not src.is_dir():
        raise SemabenchError(f"no data set at {src}: it is not a directory.")
    if (src / split).is_dir():
        return _folder_pictures(src, split)
    if is_ilsvrc(src):
        return ilsvrc_pictures(src, split)
    raise SemabenchError(
        f"no data set in {src}: expected {split}/<class>/<picture> or the ILSVRC2012 tar files."
    )


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


def _folder_pictures(src: Path, split: str) -> PictureList:
    root = src / split
    classes = _class_directories(root)
    if not classes:
        flat = any(_is_picture(entry) for entry in os.scandir(root))
        what = "pictures but no class directories" if flat else "no class directories"
        raise SemabenchError(f"{root} holds {what}: {LAYOUT}.")
    other = {"train": "val", "val": "train"}.get(split)
    if other and (src / other).is_dir() and (there := _class_directories(src / other)):
        same_classes(classes, there, split, other, src)
    paths: list[str] = []
    sizes: list[int] = []
    labels: list[int] = []
    with item_bar() as bar:
        for label, name in enumerate(bar.track(classes, description=f"indexing {split}")):
            found = sorted(_walk(root / name, name, set()))
            if not found:
                raise SemabenchError(
                    f"no pictures in class directory {root / name}: remove it, or add files "
                    f"ending in {', '.join(EXTENSIONS)}."
                )
            paths += [path for path, _ in found]
            sizes += [size for _, size in found]
            labels += [label] * len(found)
    return PictureList(
        split=split,
        container=root,
        classes=classes,
        names=class_names(classes),
        paths=paths,
        sizes=np.array(sizes, dtype=np.int64),
        labels=np.array(labels, dtype=np.int64),
    )


def _class_directories(root: Path) -> list[str]:
    with os.scandir(root) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _is_picture(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.name.lower().endswith(EXTENSIONS)


def _walk(directory: Path, prefix: str, above: set[tuple[int, int]]) -> Iterator[tuple[str, int]]:
    """Yield (relative path, bytes) of every picture below, following links but no cycles."""
    here = directory.stat()
    identity = (here.st_dev, here.st_ino)
    if identity in above:
        return
    with os.scandir(directory) as entries:
        for entry in entries:
            path = f"{prefix}/{entry.name}"
            if entry.is_dir():
                if not entry.name.startswith("."):
                    yield from _walk(directory / entry.name, path, above | {identity})
            elif _is_picture(entry):
                try:
                    yield path, entry.stat().st_size
                except OSError:  # a broken link: reading it will say so, with its path
                    yield path, 0
