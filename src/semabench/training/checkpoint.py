"""The checkpoints that a run keeps, each written whole or not at all."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import CheckpointIO

from semabench.errors import SemabenchError
from semabench.files import atomic_path, atomic_write
from semabench.training.checkpoint_file import read_checkpoint

CONFIG = "config.yaml"  # of the run, beside the directory of its checkpoints
DIRECTORY = "checkpoints"
LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"  # what was the last before it, should that prove damaged
BEST = "best.ckpt"
SET_ASIDE = "checkpoints.before"  # those of the run that this one has taken the place of


class AtomicCheckpointIO(CheckpointIO):
    """Replaces a checkpoint in one step; Lightning's own goes through /tmp and copies."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Serialise in memory, so that a full disk shows as such, then write atomically."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        atomic_write(Path(path), buffer.getvalue())

    def load_checkpoint(
        self,
        path: Any,
        map_location: Callable | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read tensors and plain values only: nothing in a checkpoint is executed."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint that a better one has replaced."""
        Path(path).unlink(missing_ok=True)


class Checkpoints(Callback):
    """Keeps ``last.ckpt``, the one before it, and, by a metric in percent, ``best.ckpt``.

    The last and the best are written when an epoch is over, validation included, so that a
    resumed run starts with the next epoch; the last one also every so many steps, and then a
    resumed run goes on with the next step. The previous is a link, or a copy where there are none.
    (Lightning's ModelCheckpoint renews its last only where it renews its best.)

    Args:
        directory: created if need be.
        monitor: name of a logged metric; higher is better, the first of equals is kept.
        every: steps between checkpoints within an epoch; ``None``: none there.
    """

    def __init__(self, directory: Path, monitor: str, every: int | None = None) -> None:
        self.directory = directory
        self.monitor = monitor
        self.every = every
        self.best = -1.0

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write the last checkpoint if its time has come; an epoch's last step waits for its end.

        Raises:
            SemabenchError: as ``save``.
        """
        if self.every and trainer.global_step % self.every == 0 and not trainer.is_last_batch:
            self.save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the last checkpoint; link it as the best if it is.

        Raises:
            SemabenchError: as ``save``.
        """
        metric = trainer.callback_metrics.get(self.monitor)
        better = metric is not None and float(metric) > self.best
        if better:
            self.best = float(metric)  # type: ignore[arg-type]
        self.save(trainer)
        if better and trainer.is_global_zero:
            link(self.directory / LAST, self.directory / BEST)

    def save(self, trainer: L.Trainer) -> None:
        """Write the last checkpoint; the old one stays as the previous.

        Raises:
            SemabenchError: a parameter is not finite, or the file cannot be written; what there
                was stays.
        """
        for name, parameter in trainer.lightning_module.named_parameters():
            if not torch.isfinite(parameter).all():
                raise SemabenchError(
                    f"{name} is not finite in epoch {trainer.current_epoch + 1}, at step "
                    f"{trainer.global_step}: lower recipe.lr or lengthen recipe.warmup_epochs; "
                    "no checkpoint of it is written."
                )
        if trainer.is_global_zero and (self.directory / LAST).exists():
            link(self.directory / LAST, self.directory / PREVIOUS)
        trainer.save_checkpoint(self.directory / LAST)

    def state_dict(self) -> dict[str, Any]:
        """Go into the checkpoint."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Come from the checkpoint."""
        self.best = state_dict["best"]


def link(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``, or a copy where links cannot be had."""
    with atomic_path(target) as partial:
        partial.unlink(missing_ok=True)
        try:
            partial.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, partial)


def set_aside(directory: Path) -> Path | None:
    """Take a run's checkpoints out of the way of a run that starts anew in its place, in one step.

    What was set aside before makes room, but not for a directory without checkpoints: a run that
    dies before its first has nothing to show for what it would take away.

    Returns:
        Where they are now; None if there were none.

    Raises:
        SemabenchError: they cannot be moved, or ``directory`` is a symbolic link.
    """
    if not any((directory / name).exists() for name in (LAST, PREVIOUS, BEST)):
        return None
    target = directory.with_name(SET_ASIDE)
    if directory.is_symlink():  # moved, it would take with it where checkpoints shall be
        raise SemabenchError(
            f"{directory} is a link: resume=never cannot set its checkpoints aside; move those in "
            f"{directory.resolve()} yourself, or start with another output_root."
        )
    try:
        if target.exists():
            shutil.rmtree(target)
        directory.rename(target)
    except OSError as error:
        raise SemabenchError(
            f"cannot move {directory} to {target}: {error.strerror or error}."
        ) from error
    return target
