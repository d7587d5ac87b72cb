"""Batches from the pictures themselves, decoded and resized by Pillow in worker processes.

For machines without FFCV, and the yardstick of the FFCV loader: the same orders and draws.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from semabench.data.augment.batch import PixelAugment
from semabench.data.epoch import Batch, EpochLoader
from semabench.data.folder_transforms import (
    INTERPOLATIONS,
    EvalTransform,
    TrainTransform,
    Transform,
)
from semabench.data.pictures import UnreadablePictureError, allow_large_pictures
from semabench.data.resizing import Schedule
from semabench.data.sampling import PADDING
from semabench.data.sources import PictureList, find_pictures
from semabench.data.workers import worker_count
from semabench.errors import SemabenchError, nearest
from semabench.signals import STOP, postponed

Step = tuple[int, np.ndarray]  # epoch, keys of a batch's samples


class FolderLoader(EpochLoader):
    """Common to both folder loaders: worker processes that make whole batches.

    Args:
        pictures: the split.
        resolution: R of the batches.
        transform: from encoded bytes to pixels.
        train: whether epochs are shuffled.
        num_workers: processes; as many as the cores this process may use if not given. They
            live as long as the loader.
        start_method: of the processes: "fork" where there is one, since they start at once and
            touch neither CUDA nor threads; or "spawn", "forkserver".
        options: see ``EpochLoader``.
    """

    def __init__(
        self,
        pictures: PictureList,
        transform: Transform,
        *,
        train: bool,
        batch_size: int,
        num_workers: int | None = None,
        start_method: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            train=train,
            batch_size=batch_size,
            num_samples=len(pictures),
            classes=pictures.classes,
            names=pictures.names,
            fingerprint=pictures.fingerprint,
            **options,
        )
        self.resolution = transform.resolution
        self.num_workers = worker_count(num_workers)
        self._steps = _Steps()
        self._data = DataLoader(
            _Batches(pictures, transform),
            batch_size=None,  # an item is a batch already
            sampler=self._steps,
            num_workers=self.num_workers,
            collate_fn=_unchanged,
            worker_init_fn=_init_worker,
            multiprocessing_context=start_method or _start_method(),
            persistent_workers=True,
        )

    def _load(self, order: np.ndarray, epoch: int, first: int) -> Generator[Batch, None, None]:
        self._steps.steps = [(epoch, row) for row in order]
        self._data.pin_memory = torch.cuda.is_available() and torch.cuda.is_initialized()
        try:
            with postponed():  # for good in the workers that start here
                batches = iter(self._data)
            for made in batches:
                if isinstance(made, str):
                    raise SemabenchError(made)
                images, labels = made
                yield images.permute(0, 3, 1, 2), labels
        except (RuntimeError, OSError, EOFError) as error:
            # How torch tells of a dead worker, or stumbles over the sockets it leaves.
            cause = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise SemabenchError(
                f"a worker of the folder loader failed in epoch {epoch}: {cause}"
            ) from error


class FolderTrainLoader(FolderLoader):
    """Random-resized-crops, flipped at random; arguments as ``FFCVTrainLoader``'s.

    ``augment``, if any, is done by timm's operations in the workers.
    """

    def __init__(
        self,
        source: Path,
        *,
        resolution: int,
        split: str = "train",
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        hflip: float = 0.5,
        interpolation: str = "bicubic",
        seed: int = 0,
        augment: PixelAugment | None = None,
        schedule: Schedule = (),
        holdout: float | None = None,
        **options: Any,
    ) -> None:
        if interpolation not in INTERPOLATIONS:
            raise SemabenchError(
                f"the folder loader has no interpolation '{interpolation}'."
                f"{nearest(interpolation, INTERPOLATIONS)}"
            )
        crop = (*map(float, scale), *map(float, ratio))
        resample = INTERPOLATIONS[interpolation]
        transform = TrainTransform(resolution, seed, crop, hflip, resample, augment, schedule)
        pictures = find_pictures(source, split, holdout)
        options |= {"seed": seed, "schedule": schedule}
        super().__init__(pictures, transform, train=True, **options)


class FolderEvalLoader(FolderLoader):
    """Every picture once, as timm's evaluation transform renders it (see ``data.render``)."""

    def __init__(
        self,
        source: Path,
        *,
        resolution: int,
        split: str = "val",
        crop_pct: float = 0.875,
        interpolation: str = "bicubic",
        holdout: float | None = None,
        **options: Any,
    ) -> None:
        transform = EvalTransform(resolution, crop_pct, interpolation)
        pictures = find_pictures(source, split, holdout)
        super().__init__(pictures, transform, train=False, **options)


class _Batches(Dataset):
    """What a worker does: (epoch, keys) -> (images (B, R, R, 3), labels (B,)), or a message."""

    def __init__(self, pictures: PictureList, transform: Transform) -> None:
        self.pictures = pictures
        self.transform = transform

    def __getitem__(self, step: Step) -> tuple[torch.Tensor, torch.Tensor] | str:
        epoch, keys = step
        resolution = self.transform.resolution_at(epoch)
        images = torch.zeros(len(keys), resolution, resolution, 3, dtype=torch.uint8)
        labels = torch.full((len(keys),), PADDING)
        pixels = images.numpy()
        for slot, key in enumerate(keys.tolist()):
            if key == PADDING:
                continue
            index = key % len(self.pictures)
            try:
                pixels[slot] = self.transform(self.pictures.read(index), epoch, key)
            except (OSError, UnreadablePictureError) as error:
                # As a value: torch would wrap the exception in a traceback of many lines.
                cause = getattr(error, "strerror", None) or error
                return f"cannot read {self.pictures.location(index)}: {cause}."
            labels[slot] = int(self.pictures.labels[index])
        return images, labels


class _Steps(Sampler[Step]):
    """The batches of the epoch that is about to start."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)


def _unchanged(batch: Any) -> Any:
    return batch


def _init_worker(worker: int) -> None:
    # Slurm and ctrl-C signal every process. The parent decides, and ends us with a SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP)  # where the parent's mask is not inherited
    threading.Thread(target=_heed, args=(os.getppid(),), daemon=True).start()
    allow_large_pictures()


def _heed(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _start_method() -> str:
    methods = multiprocessing.get_all_start_methods()
    return "fork" if "fork" in methods else methods[0]
