"""The Lightning data module: training and validation loaders, sharded over the ranks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import lightning as L

from semabench.config.schema import DataConfig
from semabench.data.augment.batch import PixelAugment
from semabench.data.epoch import EpochLoader, Schedule, Sizes
from semabench.data.loader import create_eval_loader, create_train_loader, open_dataset
from semabench.errors import SemabenchError
from semabench.processes import worker_count


class ImageDataModule(L.LightningDataModule):
    """Loaders of one dataset, made when Lightning asks, for the rank that asks.

    Args:
        config: which images, which loader.
        batch_size: of training, over all ranks.
        seed: of the order and the crops.
        val_batch_size: of validation, per rank; None: as in training.
        repeats, schedule, mixed: of training, see ``EpochLoader``.

    Attributes:
        augment: what the loader's own workers shall do to pixels, if anything; it depends on the
            model, and is set before training.
        sizes: of training batches.
        classes, fingerprint: see ``TrainingSet``.
        steps_per_epoch: training batches, the same on every rank.

    Raises:
        SemabenchError: the training set is missing, unfinished, or smaller than one batch.
    """

    def __init__(
        self,
        config: DataConfig,
        batch_size: int,
        seed: int,
        val_batch_size: int | None = None,
        repeats: int = 1,
        schedule: Schedule | None = None,
        mixed: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.batch_size = batch_size
        self.seed = seed
        self.val_batch_size = val_batch_size
        self.repeats = repeats
        self.sizes = Sizes(config.resolution, schedule or (), mixed or ())
        self.augment: PixelAugment | None = None
        self.dataset = open_dataset(config)
        about = self.dataset.describe()
        self.classes, self.fingerprint = about.classes, about.fingerprint
        self.steps_per_epoch = about.samples // batch_size
        if self.steps_per_epoch == 0:
            raise SemabenchError(
                f"{config.name} has {about.samples} training images, fewer than one batch: set "
                f"recipe.batch_size to at most that, not {batch_size}."
            )

    @property
    def val_resolution(self) -> int:
        """Of validation during training, in pixels."""
        return self.config.val_resolution or self.config.resolution

    def require_files(self, resolutions: list[int]) -> None:
        """Open what the run will need, before it begins: hours later is too late.

        Args:
            resolutions: of the evaluation after training, in pixels.

        Raises:
            SemabenchError: a file is missing, damaged, or of other classes.
        """
        self.prepare_data()
        self.train_dataloader()
        self.val_dataloader()
        self.dataset.require_eval(resolutions)

    def prepare_data(self) -> None:
        """Verify checksums, on one process of a machine."""
        self.dataset.prepare([self.val_resolution])

    def train_dataloader(self) -> EpochLoader:
        """Return this rank's training loader, at the epoch the run has reached."""
        return create_train_loader(
            self.config,
            batch_size=self.batch_size // self._world_size,
            seed=self.seed,
            repeats=self.repeats,
            augment=self.augment,
            schedule=self.sizes.schedule,
            mixed=self.sizes.mixed,
            **self._share(),
        )

    def val_dataloader(self) -> EpochLoader:
        """Return this rank's validation loader: each sample on one rank, once."""
        loader = create_eval_loader(
            self.config,
            self.val_resolution,
            batch_size=self.val_batch_size or self.batch_size // self._world_size,
            holdout=self.config.holdout,
            **self._share(),
        )
        if loader.classes != self.classes:
            raise SemabenchError(
                f"{self.config.name}: the training set has {len(self.classes)} classes, the "
                f"validation set {len(loader.classes)}, and they are not the same: pack and render "
                "again."
            )
        return loader

    def _workers(self) -> int | None:
        """Share the cores among the processes of this machine, unless told a number.

        torchrun binds its processes to no cores, srun where Slurm is set up to: then their share
        is what they may use, and not to be shared once more.
        """
        if self.config.num_workers is not None:
            return self.config.num_workers
        if "LOCAL_WORLD_SIZE" in os.environ:
            return max(1, worker_count(None) // int(os.environ["LOCAL_WORLD_SIZE"]))
        if "SLURM_STEP_ID" in os.environ:
            on_node = int(os.environ.get("SLURM_CPUS_ON_NODE", worker_count(None)))
            tasks = int(os.environ.get("SLURM_NTASKS_PER_NODE", "1"))
            return max(1, min(worker_count(None), on_node // tasks))
        return None

    @property
    def _world_size(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    def _share(self) -> dict[str, Any]:
        rank = 0 if self.trainer is None else self.trainer.global_rank
        return {"rank": rank, "world_size": self._world_size, "num_workers": self._workers()}
