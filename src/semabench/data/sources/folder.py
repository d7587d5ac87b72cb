"""Index a folder tree in ImageNet's layout: ``<split>/<class>/**/<image>``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from semabench.data.sources.types import ImageList, class_names, same_classes
from semabench.errors import SemabenchError
from semabench.files import readable
from semabench.progress import item_bar, note, tally

#: File names that count as images (compared in lower case): torchvision's list, and more that
#: Pillow reads.
EXTENSIONS = (
    ".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp",
    ".jfif", ".jpe", ".gif", ".jp2", ".tga", ".avif",
)  # fmt: skip


def folder_images(src: Path, split: str) -> ImageList:
    """Index one split of the tree ``src``; see ``find_images``.

    Raises:
        SemabenchError: no classes, a class without images, train and val differ in classes, or a
            directory cannot be read.
    """
    try:
        return _folder_images(src, split)
    except OSError as error:
        raise SemabenchError(f"cannot read {error.filename}: {error.strerror}.") from error


def _folder_images(src: Path, split: str) -> ImageList:
    root = src / split
    classes = _class_directories(root)
    if not classes:
        flat = any(_is_image(entry) for entry in os.scandir(root))
        what = "images but no class directories" if flat else "no class directories"
        raise SemabenchError(f"{root} holds {what}: expected <class>/<image> below it.")
    other = {"train": "val", "val": "train"}.get(split)
    if other and (src / other).is_dir() and (there := _class_directories(src / other)):
        same_classes([*map(readable, classes)], [*map(readable, there)], split, other, src)
    paths: list[str] = []
    sizes: list[int] = []
    labels: list[int] = []
    others: list[tuple[str, str]] = []  # class and extension of what is left out
    with item_bar() as bar:
        what = "indexing" if split == "." else f"indexing {split}"
        for label, name in enumerate(bar.track(classes, description=what)):
            found = sorted(_walk(root / name, name, set(), others))
            if not found:
                raise SemabenchError(
                    f"no images in class directory {root / name}: remove the class from all "
                    f"splits, or add files ending in {', '.join(EXTENSIONS)}."
                )
            paths += [path for path, _ in found]
            sizes += [size for _, size in found]
            labels += [label] * len(found)
    if split == ".":
        note(f"{root} has no val/: its own {len(classes)} folders are the classes.")
    if len(classes) == 1:
        note(f"{root} has one class alone, '{classes[0]}': is there a folder level too many?")
    if others:
        note(
            f"{root}: left out {len(others)} files that are no images by their names: "
            f"{tally(kind for _, kind in others)}; by class: {tally(name for name, _ in others)}."
        )
    if any(name != wanted for name, wanted in zip(classes, sorted(classes), strict=True)):
        note(f"{root}: classes are named by numbers, and are in their order.")
    classes = [*map(readable, classes)]
    return ImageList(
        split="val" if split == "." else split,
        container=root,
        classes=classes,
        names=class_names(classes),
        paths=paths,
        sizes=np.array(sizes, dtype=np.int64),
        labels=np.array(labels, dtype=np.int64),
    )


def has_classes(root: Path) -> bool:
    """Tell whether there are folders in ``root``, and images, not folders of such, in each."""
    names = _class_directories(root)
    return bool(names) and all(any(map(_is_image, os.scandir(root / name))) for name in names)


def _class_directories(root: Path) -> list[str]:
    """Return the classes as torchvision sorts them; where all are numbers, in their order.

    As text, 10 comes before 2: weights trained with one order give nonsense with the other.
    """
    with os.scandir(root) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    if names and all(name.isascii() and name.isdigit() for name in names):
        names.sort(key=int)
    return names


def _is_image(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.name.lower().endswith(EXTENSIONS)


def _walk(
    directory: Path, prefix: str, above: set[tuple[int, int]], others: list[tuple[str, str]]
) -> Iterator[tuple[str, int]]:
    """Yield (relative path, bytes) of every image below, following links but no cycles.

    Files of other kinds go into ``others`` with their class and extension, hidden ones do not.
    """
    here = directory.stat()
    identity = (here.st_dev, here.st_ino)
    if identity in above:
        return
    with os.scandir(directory) as entries:
        for entry in entries:
            path = f"{prefix}/{entry.name}"
            if entry.is_dir():
                if not entry.name.startswith("."):
                    yield from _walk(directory / entry.name, path, above | {identity}, others)
            elif _is_image(entry):
                try:
                    yield path, entry.stat().st_size
                except OSError:  # a broken link: reading it will say so, with its path
                    yield path, 0
            elif not entry.name.startswith("."):
                kind = os.path.splitext(entry.name)[1].lower() or "without extension"
                others.append((path.partition("/")[0], kind))
