"""Batches of a diagnostic task for the usual training: drawn on the CPU, as any loader's."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import torch

from semabench.config.schema import DataConfig
from semabench.data.epoch import Batch, Dataset, EpochLoader, TrainingSet
from semabench.data.procedural.draw import TEST_EPOCH, draw
from semabench.data.procedural.tasks import CELL, CLASSES, Task, require_pixels, task_named

TRAIN_SAMPLES = 16384  # an epoch; each epoch has new ones
TEST_SAMPLES = 1024
TEST_SEED = 0
NAMES = [f"glyph-{kind}" for kind in range(CLASSES)]


class ProceduralLoader(EpochLoader):
    """Samples of a task: those of (seed, epoch) in training, always the same in evaluation.

    Args:
        task: what to draw.
        train: whether to draw new images in every epoch.
        test: whether images are those to test on, or of a training's first epoch with seed 0.
        options: see ``EpochLoader``; the resolution is a multiple of 8 with room for the task.

    Raises:
        SemabenchError: the resolution does not fit.
    """

    def __init__(self, task: Task, *, train: bool, test: bool, **options: Any) -> None:
        self.task, self.test = task, test
        super().__init__(
            train=train,
            num_samples=TEST_SAMPLES if test else TRAIN_SAMPLES,
            classes=NAMES,
            names=NAMES,
            fingerprint=fingerprint(self.task, not test),
            **options,
        )
        for pixels in self.sizes.all:
            require_pixels(self.task, pixels)

    def _load(self, order: np.ndarray, epoch: int, first: int) -> Generator[Batch, None, None]:
        sizes = [self.resolution_of(epoch, first + number) for number in range(len(order))]
        seed = self.seed
        if not self.train:
            seed, epoch = TEST_SEED, TEST_EPOCH if self.test else 0
        for row, pixels in zip(order, sizes, strict=True):
            keys = torch.from_numpy(row)
            images, labels = draw(
                self.task, pixels // CELL, seed=seed, epoch=epoch, index=keys.clamp(min=0)
            )
            yield images, torch.where(keys < 0, -1, labels)


def fingerprint(task: Task, train: bool) -> str:
    """Return the identity of a split's images."""
    return f"{task.fingerprint}, {'train' if train else f'test {TEST_SEED}'}"


class ProceduralDataset(Dataset):
    """The task named like the dataset; images are shown whole, so crops have no meaning."""

    def __init__(self, config: DataConfig) -> None:
        super().__init__(config)
        self.task = task_named(config.name)

    def describe(self) -> TrainingSet:
        """Name the images that will be drawn."""
        return TrainingSet(TRAIN_SAMPLES, NAMES, fingerprint(self.task, train=True))

    def train_loader(self, *, num_workers: int | None = None, **options: Any) -> ProceduralLoader:
        """Draw new images in every epoch, without workers."""
        resolution = self.config.resolution
        return ProceduralLoader(self.task, resolution=resolution, train=True, test=False, **options)

    def eval_loader(
        self,
        resolution: int,
        *,
        split: str = "val",
        holdout: float | None = None,
        num_workers: int | None = None,
        **options: Any,
    ) -> ProceduralLoader:
        """Draw the same images in every epoch; in val none of those of training."""
        return ProceduralLoader(
            self.task, resolution=resolution, train=False, test=split == "val", **options
        )

    def require_eval(self, resolutions: list[int], split: str = "val") -> None:
        """Look for room for the task."""
        for resolution in resolutions:
            require_pixels(self.task, resolution)
