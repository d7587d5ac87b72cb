"""Where we patch or work round Lightning (2.6), each with its reason. Nothing else does.

A new version of Lightning is tried against this file: what it names that is private is looked up
when training starts, and fails there if it has gone.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from semabench.files import atomic_write
from semabench.training.checkpoint import read_checkpoint


class PlainDDP(DDPStrategy):
    """Many processes, but no wrapper round the module (2.6 always makes one).

    `reduce.GradientReducer` averages gradients within the step; DDP's own reducer would average
    them once more, and keeps state on the host that a CUDA graph cannot hold.
    """

    def configure_ddp(self) -> None:
        """Begin with rank 0's weights everywhere, as DDP does."""
        assert self.model is not None
        for tensor in [*self.model.parameters(), *self.model.buffers()]:
            dist.broadcast(tensor.detach(), src=0)


def count_step(trainer: L.Trainer) -> None:
    """Count an optimiser step (2.6 counts only calls of its own wrapper round the optimiser)."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    progress.increment_ready()
    progress.increment_completed()


def bring_up_to_date(checkpoint: dict[str, Any]) -> None:
    """Let a checkpoint of our earlier versions, under automatic optimisation, go on under manual.

    2.6 counts the steps of the two in different places, and would restore a schedule that
    `step.TrainStep` no longer has.
    """
    loop = checkpoint["loops"]["fit_loop"]
    manual = loop["epoch_loop.manual_optimization.optim_step_progress"]
    if manual["total"]["completed"] < checkpoint["global_step"]:
        for part in ("total", "current"):
            manual[part] = dict.fromkeys(manual[part], checkpoint["global_step"])
    checkpoint["lr_schedulers"] = []


def take_over_signals(trainer: L.Trainer) -> None:
    """Let Lightning neither listen to signals nor ask about them.

    Its handlers would save nothing, and communicate from within a handler. And of several
    processes each asks rank 0, from 2.6 on, before every step, whether it has had SIGTERM, and
    waits for the answer: a GPU then runs out of work at every step (docs/scaling.md).

    Raises:
        AttributeError: Lightning has other names for what is replaced.
    """
    for owner, name in (
        (trainer._signal_connector, "register_signal_handlers"),
        (trainer.fit_loop.epoch_loop, "_broadcast_sigterm_tensor"),
    ):
        getattr(owner, name)
        setattr(owner, name, lambda: None)


def quiet_lightning() -> None:
    """Keep to what a user can act on; the sharding, seeding and exact metrics are our own."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*recommended to use `self.log.*sync_dist=True.*",
        ".*treespec, LeafSpec.*",
        ".*`srun` command is available on your system but is not used.*",
        ".*module.s. in eval mode at the start of training.*",  # the averaged weights
    ):
        warnings.filterwarnings("ignore", message=message)


def log_values(
    module: L.LightningModule, values: Mapping[str, Tensor | float], *, in_bar: bool
) -> None:
    """Log numbers of a step at which the device is waited for anyhow.

    Lightning puts a plain number onto the module's device, and reads all that stands in the bar
    again after *every* step: on a GPU each of them would be waited for. A tensor it leaves where it
    is, so they are given to it as tensors of the host.

    Args:
        module: whose step it is.
        values: by name; those on the device are fetched.
        in_bar: whether they stand beside the progress bar, too.
    """
    on_host = {
        name: torch.as_tensor(value).detach().float().cpu() for name, value in values.items()
    }
    module.log_dict(on_host, prog_bar=in_bar)


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


def slurm_environment() -> list[SLURMEnvironment]:
    """Return Lightning's view of a job step, where srun started us: without its own requeueing.

    Lightning would save a checkpoint of its own at SIGUSR1 and requeue the job; that is
    ``StopOnSignal``'s and the job script's.
    """
    if TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return []
    return [SLURMEnvironment(auto_requeue=False)]


class Bar(RichProgressBar):
    """Lightning's bar, but what stands beside it is read once every ``every`` steps.

    Reading waits for the device; the bar itself moves more often.
    """

    def __init__(self, every: int) -> None:
        super().__init__(refresh_rate=max(1, min(every, 10)), leave=False)
        self.every = every
        self._read: int | None = None  # number of the window whose metrics are shown
        self._shown: dict[str, Any] = {}

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Return the metrics of the last look; fresh ones during validation."""
        window = trainer.global_step // self.every
        if window != self._read or not trainer.training:
            self._read, self._shown = window, dict(super().get_metrics(trainer, pl_module))
            self._shown.pop("v_num", None)
        return self._shown
