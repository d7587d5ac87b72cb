"""Batches from the images themselves, decoded and resized by Pillow in worker processes.

For machines without FFCV, and the yardstick of the FFCV loader: the same orders and draws.
"""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import NAME_TO_OP
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from semabench.config.schema import DataConfig
from semabench.data.augment.batch import PixelAugment
from semabench.data.augment.plan import NONE, OPS
from semabench.data.draws import PADDING, Samples, draw_crop, draw_flip
from semabench.data.epoch import Batch, Dataset, EpochLoader, TrainingSet
from semabench.data.image import EvalTransform, UnreadableImageError, allow_large_images, decode
from semabench.data.sources import find_images
from semabench.data.sources.parquet import ParquetImages
from semabench.data.sources.types import ImageList
from semabench.errors import SemabenchError, nearest
from semabench.processes import STOP, postponed, worker_count

INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

Step = tuple[int, int, np.ndarray]  # epoch, resolution, keys of a batch's samples


@dataclass(frozen=True)
class TrainTransform:
    """torchvision's RandomResizedCrop and RandomHorizontalFlip with the draws of `draws`."""

    seed: int
    crop: tuple[float, ...]
    hflip: float
    interpolation: Image.Resampling
    augment: PixelAugment | None = None  # timm's own operations, on the CPU

    def __call__(self, data: bytes, epoch: int, key: int, side: int) -> np.ndarray:
        """Crop, resize, flip and augment as drawn: encoded bytes to uint8 (side, side, 3)."""
        image = decode(data)
        top, left, height, width = draw_crop(
            self.seed, epoch, key, image.height, image.width, *self.crop
        )
        box = image.crop((left, top, left + width, top + height))
        pixels = np.asarray(box.resize((side, side), self.interpolation))
        if draw_flip(self.seed, epoch, key, self.hflip):
            pixels = pixels[:, ::-1]
        if self.augment:
            flipped = Image.fromarray(np.ascontiguousarray(pixels))
            pixels = np.asarray(augment_image(flipped, self.augment, epoch, key))
        return pixels


def augment_image(image: Image.Image, augment: PixelAugment, epoch: int, key: int) -> Image.Image:
    """Change an RGB image as drawn for the sample in this epoch.

    Draws are those of ``BatchAugment``: the pixels differ by the rounding of geometric operations
    alone. Erasing is not among it: it comes after normalisation, on the device, in timm's own
    loader, too.
    """
    for layer in augment.plan(Samples(epoch, np.array([key]))):
        if layer.ops[0] != NONE:
            name, value = OPS[layer.ops[0]], float(layer.values[0])
            image = apply_operation(image, name, value, augment)
    return image


def apply_operation(
    image: Image.Image, name: str, value: float, augment: PixelAugment
) -> Image.Image:
    """Apply timm's operation of this name (see ``plan.OPS``) with its argument ``value``."""
    operation: Callable[..., Image.Image] = NAME_TO_OP[name]  # type: ignore[assignment]
    if name in ("AutoContrast", "Equalize", "Invert"):
        return operation(image)
    if name in ("Posterize", "Solarize", "SolarizeAdd"):
        if name == "Posterize" and value == 0:  # Pillow 13 refuses what was black before
            return Image.new("RGB", image.size)
        return operation(image, int(value))
    resample = Image.Resampling[augment.interpolation.upper()]
    return operation(image, value, fillcolor=augment.fill, resample=resample)


class _Flag:
    """As multiprocessing's Event, but without its lock.

    torch's workers look at it between any two batches: one that is killed as it looks would keep
    the lock for good, and torch, which looks at it to tell of the death, would wait for ever.
    """

    def __init__(self, context: BaseContext) -> None:
        self._value = context.RawValue("b", 0)

    def is_set(self) -> bool:
        """Tell whether it has been set."""
        return bool(self._value.value)

    def set(self) -> None:
        """Set it, for good."""
        self._value.value = 1


def _context(start_method: str | None) -> BaseContext:
    """Return multiprocessing's context with such flags as events."""
    context = copy.copy(multiprocessing.get_context(start_method))
    context.Event = lambda: _Flag(context)  # type: ignore[assignment, method-assign, return-value]
    return context


class FolderLoader(EpochLoader):
    """Common to both folder loaders: worker processes that make whole batches.

    Args:
        images: the split.
        transform: of a sample: encoded bytes, epoch, key, resolution -> pixels.
        num_workers: processes; as many as the cores this process may use if not given. They
            live as long as the loader.
        start_method: of the processes: "fork" where there is one, since they start at once and
            touch neither CUDA nor threads; or "spawn", "forkserver".
        options: see ``EpochLoader``.
    """

    def __init__(
        self,
        images: ImageList,
        transform: Callable[[bytes, int, int, int], np.ndarray],
        *,
        num_workers: int | None = None,
        start_method: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            num_samples=len(images),
            classes=images.classes,
            names=images.names,
            fingerprint=images.fingerprint,
            **options,
        )
        self.paths = images.paths
        self.num_workers = worker_count(num_workers)
        fork = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
        self._steps = _Steps()
        self._data = DataLoader(
            _Batches(images, transform),
            batch_size=None,  # an item is a batch already
            sampler=self._steps,
            num_workers=self.num_workers,
            collate_fn=_unchanged,
            worker_init_fn=_init_worker,
            multiprocessing_context=_context(start_method or fork),
            persistent_workers=True,
        )

    def _load(self, order: np.ndarray, epoch: int, first: int) -> Generator[Batch, None, None]:
        self._steps.steps = [
            (epoch, self.resolution_of(epoch, first + number), row)
            for number, row in enumerate(order)
        ]
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
            # How torch tells of a dead worker, or stumbles over the sockets it leaves. It would
            # tell again at the end of any child, until the others are gone, too.
            iterator, self._data._iterator = self._data._iterator, None
            with contextlib.suppress(RuntimeError, OSError, EOFError):
                if isinstance(iterator, _MultiProcessingDataLoaderIter):
                    iterator._shutdown_workers()
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
        split: str = "train",
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        hflip: float = 0.5,
        interpolation: str = "bicubic",
        seed: int = 0,
        augment: PixelAugment | None = None,
        holdout: float | None = None,
        **options: Any,
    ) -> None:
        if interpolation not in INTERPOLATIONS:
            raise SemabenchError(
                f"the folder loader has no interpolation '{interpolation}'."
                f"{nearest(interpolation, INTERPOLATIONS)}"
            )
        crop = (*map(float, scale), *map(float, ratio))
        transform = TrainTransform(seed, crop, hflip, INTERPOLATIONS[interpolation], augment)
        images = find_images(source, split, holdout)
        super().__init__(images, transform, train=True, seed=seed, **options)


class FolderEvalLoader(FolderLoader):
    """Every image once, as timm's evaluation transform renders it."""

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
        images = find_images(source, split, holdout)
        super().__init__(images, transform, train=False, resolution=resolution, **options)


class FolderDataset(Dataset):
    """A folder tree or the ILSVRC2012 tars, read by Pillow."""

    augments = True

    def __init__(self, config: DataConfig) -> None:
        super().__init__(config)
        if config.source is None:
            raise SemabenchError("loader 'folder' needs the directory of images: set data.source.")
        self.source = Path(config.source)

    def describe(self) -> TrainingSet:
        """Index the training images."""
        images = find_images(self.source, "train", self.config.holdout)
        if isinstance(images, ParquetImages):
            raise SemabenchError(
                f"{images.container} cannot be read in random order: `semabench data pack "
                f"{self.source} OUT`, then data.packed=OUT data.loader=ffcv."
            )
        return TrainingSet(len(images), images.classes, images.fingerprint)

    def train_loader(self, **options: Any) -> FolderTrainLoader:
        """Open the training images."""
        return FolderTrainLoader(self.source, holdout=self.config.holdout, **self.crops, **options)

    def eval_loader(
        self,
        resolution: int,
        *,
        split: str = "val",
        holdout: float | None = None,
        **options: Any,
    ) -> FolderEvalLoader:
        """Open a split's images."""
        return FolderEvalLoader(
            self.source,
            resolution=resolution,
            split=split,
            crop_pct=self.config.crop_pct,
            interpolation=self.config.interpolation,
            holdout=holdout,
            **options,
        )


class _Batches(TorchDataset):
    """What a worker does: a step -> (images (B, R, R, 3), labels (B,)), or a message."""

    def __init__(
        self, images: ImageList, transform: Callable[[bytes, int, int, int], np.ndarray]
    ) -> None:
        self.images = images
        self.transform = transform

    def __getitem__(self, step: Step) -> tuple[torch.Tensor, torch.Tensor] | str:
        epoch, side, keys = step
        batch = torch.zeros(len(keys), side, side, 3, dtype=torch.uint8)
        labels = torch.full((len(keys),), PADDING)
        pixels = batch.numpy()
        for slot, key in enumerate(keys.tolist()):
            if key == PADDING:
                continue
            index = key % len(self.images)
            try:
                pixels[slot] = self.transform(self.images.read(index), epoch, key, side)
            except (OSError, UnreadableImageError) as error:
                # As a value: torch would wrap the exception in a traceback of many lines.
                cause = getattr(error, "strerror", None) or error
                return f"cannot read {self.images.location(index)}: {cause}."
            labels[slot] = int(self.images.labels[index])
        return batch, labels


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
    allow_large_images()


def _heed(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
