"""Index the official ILSVRC2012 archives where they lie, without unpacking them.

``ILSVRC2012_img_train.tar`` holds one uncompressed tar a class, ``ILSVRC2012_img_val.tar`` a flat
list of images, and the devkit says which class each of these belongs to. None of the image
archives is compressed, so an image is a slice of the outer file: (offset, size).
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from semabench.data.sources.types import ImageList, class_names, same_classes
from semabench.errors import SemabenchError
from semabench.progress import item_bar

IMAGES = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"

_VAL_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG", re.IGNORECASE)


class _Slice(NamedTuple):
    """An image inside a tar."""

    wnid: str
    path: str  # <wnid>/<file>
    offset: int
    size: int  # bytes


def is_ilsvrc(src: Path) -> bool:
    """Say whether ``src`` holds one of the official image archives."""
    return any((src / name).is_file() for name in IMAGES.values())


def ilsvrc_images(src: Path, split: str) -> ImageList:
    """Index one split of the archives in ``src``; see ``find_images``.

    Raises:
        SemabenchError: an archive is missing, cut short or not what its name says.
    """
    if split not in IMAGES:
        raise SemabenchError(f"the ILSVRC2012 tar files have no split '{split}': train or val.")
    tar = src / IMAGES[split]
    if not tar.is_file():
        raise SemabenchError(f"{tar} is missing: download it beside the other ILSVRC2012 files.")
    if split == "train":
        slices = _train_slices(tar)
        classes = sorted({item.wnid for item in slices})
        if (src / DEVKIT).is_file():
            same_classes(classes, sorted(_synsets(src / DEVKIT).values()), "train", "devkit", src)
    else:
        slices, classes = _val_slices(tar, src / DEVKIT)
        if (src / IMAGES["train"]).is_file():
            train = [wnid for wnid, _ in _train_members(src / IMAGES["train"])]
            same_classes(classes, train, "val", "train", src)
    if not slices:
        raise SemabenchError(f"no images in {tar}: download it again.")
    wnids, paths, offsets, sizes = zip(*sorted(slices), strict=True)
    label = {wnid: index for index, wnid in enumerate(classes)}
    return ImageList(
        split=split,
        container=tar,
        classes=classes,
        names=class_names(classes),
        paths=list(paths),
        sizes=np.array(sizes, dtype=np.int64),
        labels=np.array([label[wnid] for wnid in wnids], dtype=np.int64),
        offsets=np.array(offsets, dtype=np.int64),
    )


def _train_slices(tar: Path) -> list[_Slice]:
    slices = []
    inner = _train_members(tar)
    with open(tar, "rb") as file, item_bar() as bar:
        for wnid, offset in bar.track(inner, description="indexing train"):
            file.seek(offset)
            # tarfile counts offsets from where the file object stands, in the outer file's terms.
            found = [_slice(wnid, member) for member in _members(file, tar)]
            if not found:
                raise SemabenchError(f"{wnid}.tar in {tar} holds no images: download it again.")
            slices += found
    return slices


def _slice(wnid: str, member: tarfile.TarInfo) -> _Slice:
    return _Slice(wnid, f"{wnid}/{Path(member.name).name}", member.offset_data, member.size)


def _train_members(tar: Path) -> list[tuple[str, int]]:
    """Return (wnid, offset) of each class's tar inside the training archive."""
    with open(tar, "rb") as file:
        return [
            (Path(member.name).stem, member.offset_data)
            for member in _members(file, tar)
            if member.name.endswith(".tar")
        ]


def _val_slices(tar: Path, devkit: Path) -> tuple[list[_Slice], list[str]]:
    if not devkit.is_file():
        raise SemabenchError(f"{devkit} is missing: it holds the labels of {tar.name}.")
    synsets = _synsets(devkit)
    truth = [
        int(line) for line in _devkit_file(devkit, "ILSVRC2012_validation_ground_truth.txt").split()
    ]
    slices = []
    with open(tar, "rb") as file, item_bar() as bar:
        task = bar.add_task("indexing val", total=len(truth))
        for member in _members(file, tar):
            match = _VAL_NUMBER.fullmatch(Path(member.name).name)
            if match is None or not 1 <= int(match[1]) <= len(truth):
                raise SemabenchError(f"{member.name} in {tar} has no label in {devkit.name}.")
            wnid = synsets[truth[int(match[1]) - 1]]
            slices.append(_slice(wnid, member))
            bar.advance(task)
    if len(slices) != len(truth):
        raise SemabenchError(
            f"{tar} holds {len(slices)} images, {devkit.name} labels {len(truth)}: "
            "download them again."
        )
    return slices, sorted(synsets.values())


def _synsets(devkit: Path) -> dict[int, str]:
    """Return {ILSVRC2012_ID: wnid} of the leaf synsets, i.e. the classes, from ``meta.mat``."""
    from scipy.io import loadmat

    table = loadmat(io.BytesIO(_devkit_file(devkit, "meta.mat")), squeeze_me=True)["synsets"]
    return {
        int(row["ILSVRC2012_ID"]): str(row["WNID"])
        for row in np.atleast_1d(table)
        if int(row["num_children"]) == 0
    }


def _devkit_file(devkit: Path, name: str) -> bytes:
    try:
        with tarfile.open(devkit, "r:gz") as tar:
            for member in tar:
                if Path(member.name).name == name and (file := tar.extractfile(member)):
                    return file.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise SemabenchError(f"cannot read {devkit}: {error}; download it again.") from error
    raise SemabenchError(f"{devkit} holds no {name}: download it again.")


def _members(file: IO[bytes], tar: Path) -> Iterator[tarfile.TarInfo]:
    """Yield the regular files of the tar that starts at the file's current position."""
    end = tar.stat().st_size
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                if member.offset_data + member.size > end:
                    raise tarfile.ReadError(f"ends inside {member.name}")
                if member.isfile():
                    yield member
    except tarfile.TarError as error:
        raise SemabenchError(f"cannot read {tar}: {error}; download it again.") from error
