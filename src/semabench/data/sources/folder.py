"""Index a folder tree in ImageNet's layout: ``<split>/<class>/**/<image>``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from semabench.data.sources.types import ImageList, class_names, same_classes
from semabench.errors import SemabenchError
from semabench.progress import item_bar

#: File names that count as images (compared in lower case); the list is torchvision's.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def folder_images(src: Path, split: str) -> ImageList:
    """Index one split of the tree ``src``; see ``find_images``.

    Raises:
        SemabenchError: no classes, a class without images, or train and val differ in classes.
    """
    root = src / split
    classes = _class_directories(root)
    if not classes:
        flat = any(_is_image(entry) for entry in os.scandir(root))
        what = "images but no class directories" if flat else "no class directories"
        raise SemabenchError(f"{root} holds {what}: expected <class>/<image> below it.")
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
                    f"no images in class directory {root / name}: remove it, or add files "
                    f"ending in {', '.join(EXTENSIONS)}."
                )
            paths += [path for path, _ in found]
            sizes += [size for _, size in found]
            labels += [label] * len(found)
    return ImageList(
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


def _is_image(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.name.lower().endswith(EXTENSIONS)


def _walk(directory: Path, prefix: str, above: set[tuple[int, int]]) -> Iterator[tuple[str, int]]:
    """Yield (relative path, bytes) of every image below, following links but no cycles."""
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
            elif _is_image(entry):
                try:
                    yield path, entry.stat().st_size
                except OSError:  # a broken link: reading it will say so, with its path
                    yield path, 0
