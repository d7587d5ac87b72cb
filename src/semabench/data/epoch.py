"""What every loader is: batches of one epoch after another, in an order known beforehand."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

from semabench.config.schema import DataConfig
from semabench.data.draws import STREAM_SIZE, Samples, eval_order, philox, train_order
from semabench.errors import SemabenchError

Batch = tuple[torch.Tensor, torch.Tensor]  # images, labels
TrainBatch = tuple[torch.Tensor, torch.Tensor, Samples]


class EpochLoader(ABC):
    """An iterable over the batches of one epoch, on one rank: ``(images, labels, samples)`` in
    training, ``(images, labels)`` in evaluation.

    ``images``: uint8 (B, 3, R, R), channels-last in memory; ``labels``: int64 (B,), −1 for an entry
    that only fills an evaluation batch; ``samples``: what further random draws depend on, on the
    CPU and not as a tensor, so that nobody moves it. Batches are the consumer's own: nothing writes
    to one after it was handed out.

    A training epoch is a function of ``(seed, epoch)``; ``set_epoch`` chooses it and is honoured
    until the first batch is asked for, even after ``iter()``: Lightning 2.6 calls ``iter`` first in
    a process's first epoch, which is not epoch 0 in a resumed run. The epoch does not advance by
    itself. Evaluation is the same in every epoch.

    ``state_dict`` and ``load_state_dict`` are Lightning's protocol for resuming in mid-epoch. An
    iteration that was started at batch k ends where the epoch does; ``len`` stays the whole.

    Attributes:
        batch_size: samples in a batch of this rank.
        num_samples: images in the dataset, over all ranks.
        resolution: R of the batches, where no schedule says otherwise.
        sizes: R of each batch, in training.
        repeats: times that an image comes in a training epoch, which stays as long.
        classes: directory names or WordNet ids; a label is an index into it.
        names: human-readable class names, in the same order.
        fingerprint: identity of the source images.
        paths: of each image in its source; None where it has none, or they were not kept.
    """

    paths: list[str] | None = None

    def __init__(
        self,
        *,
        train: bool,
        resolution: int,
        batch_size: int,
        num_samples: int,
        classes: list[str],
        names: list[str],
        fingerprint: str,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        repeats: int = 1,
        schedule: Schedule = (),
        mixed: Sequence[int] = (),
    ) -> None:
        if batch_size < 1:
            raise SemabenchError(f"batch_size must be at least 1, got {batch_size}.")
        if not 0 <= rank < world_size:
            raise SemabenchError(f"rank {rank} is not one of {world_size} processes.")
        if repeats < 1:
            raise SemabenchError(f"repeats must be at least 1, got {repeats}.")
        if not 0 <= seed < 1 << 64:
            raise SemabenchError(f"seed must be between 0 and 2**64 - 1, got {seed}.")
        self.train = train
        self.resolution = resolution
        self.batch_size = batch_size
        self.num_samples = num_samples
        self.classes = classes
        self.names = names
        self.fingerprint = fingerprint
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.repeats = repeats
        self.sizes = Sizes(resolution, schedule, mixed)
        self.epoch = 0
        self._position = 0  # batches of the epoch handed out
        self._resume_at: tuple[int, int] | None = None  # (epoch, batch), used once
        share = {"batch_size": batch_size, "rank": rank, "world_size": world_size}
        if train:
            self._order = partial(train_order, num_samples, seed=seed, repeats=repeats, **share)
        else:
            self._order = partial(eval_order, num_samples, **share)
        global_batch = batch_size * world_size
        self._batches = num_samples // global_batch if train else -(-num_samples // global_batch)
        if self._batches == 0:
            self.order(0)  # raises

    @property
    def sampler(self) -> EpochLoader:
        """The loader itself: Lightning looks here for ``set_epoch``."""
        return self

    @property
    def batch_sampler(self) -> None:
        """None: Lightning looks for it in whatever has a ``sampler``."""
        return None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of iterations whose first batch has not been asked for yet."""
        if epoch != self.epoch:
            self.epoch = epoch
            self._position = 0

    def order(self, epoch: int) -> np.ndarray:
        """Return the keys of the samples of every batch in an epoch, int64 (batches, batch_size).

        Row b belongs to the b-th batch; −1 stands for padding. A key is the sample's index, plus
        ``num_samples`` times the number of its copy (see ``draws``).
        """
        return self._order(epoch=epoch) if self.train else self._order()

    def resolution_of(self, epoch: int, batch: int) -> int:
        """Return R of a batch: on all ranks the same, wherever an epoch is started."""
        return self.sizes.of(self.seed, epoch, batch)

    def start_at(self, epoch: int, batch: int) -> None:
        """Let the next iteration over ``epoch`` begin with batch number ``batch``."""
        if not 0 <= batch <= len(self):
            raise SemabenchError(f"there is no batch {batch} in an epoch of {len(self)} batches.")
        self.epoch, self._position = epoch, batch
        self._resume_at = (epoch, batch)

    def state_dict(self) -> dict[str, Any]:
        """Return where the current epoch stands: after the batch that was handed out last."""
        return {
            "epoch": self.epoch,
            "batch": self._position,
            "batches": len(self),
            "seed": self.seed,
            "num_samples": self.num_samples,
            "global_batch_size": self.batch_size * self.world_size,
            "fingerprint": self.fingerprint,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken, on this or another number of devices.

        Raises:
            SemabenchError: the state is from the middle of an epoch of other batches.
        """
        if 0 < state["batch"] < state["batches"]:
            for key, mine in self.state_dict().items():
                if key not in ("epoch", "batch") and state[key] != mine:
                    raise SemabenchError(
                        f"cannot resume in mid-epoch: the checkpoint was written with {key} "
                        f"{state[key]}, this run has {mine}."
                    )
        self.start_at(state["epoch"], min(state["batch"], len(self)))

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Generator[Any, None, None]:
        # A generator: nothing below happens before the first `next`.
        epoch, first = self.epoch, 0
        if self._resume_at is not None and self._resume_at[0] == epoch:
            first = self._resume_at[1]
        self._resume_at = None
        self._position = first
        order = self.order(epoch)[first:]
        with contextlib.closing(self._load(order, epoch, first)) as batches:
            for row, (images, labels) in zip(order, batches, strict=True):
                self._position += 1
                yield (images, labels, Samples(epoch, row)) if self.train else (images, labels)

    @abstractmethod
    def _load(self, order: np.ndarray, epoch: int, first: int) -> Generator[Batch, None, None]:
        """Yield the batch of each row of ``order``; row 0 is batch number ``first``."""


#: Pairs of an epoch, counted from 0, and the resolution from then on, in pixels.
Schedule = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Sizes:
    """The resolutions of training batches, in pixels.

    Attributes:
        resolution: of all, where the others say nothing.
        schedule: in the order of epochs.
        mixed: each batch has one of these, drawn.
    """

    resolution: int
    schedule: Schedule = ()
    mixed: Sequence[int] = ()

    def of(self, seed: int, epoch: int, batch: int) -> int:
        """Return the size of a batch, which its epoch's number, or its own, and the seed decide."""
        sizes = self.in_epoch(epoch)
        word = philox(seed, epoch, batch, STREAM_SIZE)[0] if len(sizes) > 1 else 0
        return sizes[word * len(sizes) >> 32]

    def in_epoch(self, epoch: int) -> Sequence[int]:
        """Return the sizes that batches of an epoch may have, equally likely."""
        if self.mixed:
            return self.mixed
        begun = [pixels for start, pixels in self.schedule if epoch >= start]
        return (begun[-1] if begun else self.resolution,)

    @property
    def all(self) -> list[int]:
        """The sizes that batches of any epoch may have, each once."""
        grown = [pixels for _, pixels in self.schedule]
        if not self.schedule or self.schedule[0][0] > 0:
            grown.insert(0, self.resolution)
        return list(dict.fromkeys(self.mixed or grown))


@dataclass(frozen=True)
class TrainingSet:
    """The number of training images, their classes in label order, and their identity."""

    samples: int
    classes: list[str]
    fingerprint: str


class Dataset(ABC):
    """A dataset as one kind of loader reads it: what the file of a loader gives to `loader`.

    ``options`` are ``batch_size, rank, world_size, num_workers`` and, in training,
    ``seed, repeats, schedule, mixed``: see ``EpochLoader`` and the loader itself.

    Args:
        config: which images, and how they are cropped.
    """

    augments: ClassVar[bool] = False
    """Whether the loader's own workers can augment."""

    def __init__(self, config: DataConfig) -> None:
        self.config = config

    @abstractmethod
    def describe(self) -> TrainingSet:
        """Describe the training set without opening its pixels.

        Raises:
            SemabenchError: it is missing or was never finished.
        """

    @abstractmethod
    def train_loader(self, **options: Any) -> EpochLoader:
        """Open the training set; ``augment`` comes along if ``augments``."""

    @abstractmethod
    def eval_loader(
        self,
        resolution: int,
        *,
        split: str = "val",
        holdout: float | None = None,
        **options: Any,
    ) -> EpochLoader:
        """Open a split as evaluation sees it; with ``holdout`` parts of the training set."""

    @property
    def crops(self) -> dict[str, Any]:
        """What the config says of training crops, as the loaders call it."""
        config = self.config
        return {
            "resolution": config.resolution,
            "scale": (config.crop_scale[0], config.crop_scale[1]),
            "ratio": (config.crop_ratio[0], config.crop_ratio[1]),
            "hflip": config.hflip,
            "interpolation": config.interpolation,
        }

    def prepare(self, resolutions: list[int]) -> None:  # noqa: B027 - most have nothing to do
        """Do once a machine what else every process would do, with validation at these sizes."""

    def require_eval(  # noqa: B027 - likewise
        self, resolutions: list[int], split: str = "val"
    ) -> None:
        """Raise a SemabenchError unless the split can be read at all these resolutions."""
