"""Find the labelled images of a split: a tree, tars, Parquet, a list, or a part held out."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from semabench.data.sources.folder import folder_images, has_classes
from semabench.data.sources.ilsvrc import ilsvrc_images, is_ilsvrc
from semabench.data.sources.listed import list_in, listed_images
from semabench.data.sources.parquet import parquet_files, parquet_images
from semabench.data.sources.types import ImageList
from semabench.errors import SemabenchError


def find_images(src: Path, split: str, holdout: float | None = None) -> ImageList:
    """Index the images of ``split``.

    With ``holdout``, a share in (0, 1), both ``train`` and ``val`` are parts of the training
    images, see ``split_off``; no other split has them.

    ``src`` is one of these, the first that it is:

    - a folder tree (``src/<split>/<class>/**/<image>``, hidden files ignored, extensions in any
      case); with ``metadata.csv`` or ``.jsonl`` in ``src/<split>`` that says the labels;
    - the directory with ``ILSVRC2012_img_train.tar``, ``ILSVRC2012_img_val.tar`` and
      ``ILSVRC2012_devkit_t12.tar.gz`` as downloaded; the tars are read in place;
    - Parquet files of the Hub;
    - folders of images in ``src`` itself, or images with their list, are ``val``: so test sets
      are distributed.

    Raises:
        SemabenchError: nothing of that layout is there, a class is empty, or the classes of
            train and val differ.
    """
    if holdout is not None:
        if split not in ("train", "val"):
            raise SemabenchError(f"holdout divides train into train and val: not '{split}'.")
        return split_off(find_images(src, "train"), holdout, held_out=split == "val")
    src = Path(src)
    if not src.is_dir():
        raise SemabenchError(f"no dataset at {src}: it is not a directory.")
    if parquet_files(src, split):
        return parquet_images(src, split)
    if (src / split).is_dir():
        return (
            listed_images(src / split, split) if list_in(src / split) else folder_images(src, split)
        )
    if is_ilsvrc(src):
        return ilsvrc_images(src, split)
    if split == "val" and not (src / "train").is_dir():
        if list_in(src):
            return listed_images(src, split)
        if has_classes(src):
            return folder_images(src, ".")  # as ImageNet-V2, -A, -R and -Sketch are distributed
    raise SemabenchError(
        f"no dataset in {src}: expected {split}/<class>/<image>, the ILSVRC2012 tar files, or "
        f"{split}-*.parquet."
    )


def split_off(images: ImageList, share: float, *, held_out: bool) -> ImageList:
    """Return the training images that are held out, as split ``val``, or those that are not.

    Of each class, ``share`` of the images is held out, rounded, at least one: those whose paths
    have the smallest SHA-256. The choice depends on the images' names alone.

    Args:
        images: the whole training split.
        share: in (0, 1).

    Raises:
        SemabenchError: a bad share, or a class of which nothing would be left to train on.
    """
    if not 0 < share < 1:
        raise SemabenchError(f"holdout is a share of the training images, in (0, 1), not {share}.")
    held = np.zeros(len(images), dtype=bool)
    for label, name in enumerate(images.classes):
        indices = np.flatnonzero(images.labels == label)
        if not len(indices):  # of Parquet, whose schema may name more classes than there are
            continue
        count = max(1, round(share * len(indices)))
        if count >= len(indices):
            raise SemabenchError(
                f"class {name} has {len(indices)} training image(s): holdout={share} would leave "
                "none of them to train on."
            )
        paths = (os.fsencode(images.paths[index]) for index in indices)
        digests = [hashlib.sha256(path).digest() for path in paths]
        held[indices[sorted(range(len(indices)), key=digests.__getitem__)[:count]]] = True
    (chosen,) = np.nonzero(held if held_out else ~held)
    return images.part(chosen, "val" if held_out else images.split)
