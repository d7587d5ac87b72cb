"""Lightning's trainer, set up so that only our own parts save, shard, seed and watch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from semabench.config.schema import TrainConfig
from semabench.training.checkpoint import DIRECTORY, Checkpoints
from semabench.training.compiling import Compile, wants_compile
from semabench.training.lightning_compat import (
    AtomicCheckpointIO,
    Bar,
    PlainDDP,
    quiet_lightning,
    slurm_environment,
    take_over_signals,
)
from semabench.training.loggers import create_loggers
from semabench.training.module import Classifier
from semabench.training.monitor import EpochLine, LossWatch, Profile, Throughput, Waiting
from semabench.training.pruning import Prune
from semabench.training.signals import StopOnSignal


def create_trainer(
    config: TrainConfig, run_dir: Path, accelerator: str, precision: str, module: Classifier
) -> L.Trainer:
    """Return the trainer of one start of a run, its logger started."""
    options = config.trainer
    many = options.devices * options.num_nodes > 1
    loggers = create_loggers(config, run_dir)
    bar = sys.stdout.isatty() if options.progress_bar is None else options.progress_bar
    every = min(options.log_every_n_steps, module.steps_per_epoch)
    checkpoints = Checkpoints(run_dir / DIRECTORY, module.monitor, options.save_every_n_steps)
    waiting = Waiting()
    throughput = Throughput(every, config.recipe.batch_size, waiting)
    # The loss is read first: it waits for the device, so that the clock reads work done.
    callbacks: list[Callback] = [LossWatch(every), throughput, EpochLine(throughput)]
    if bar:
        callbacks.append(Bar(every))
    if wants_compile(config, accelerator, module.total_steps):
        callbacks.append(Compile(required=bool(options.compile)))
    if config.trial is not None:
        callbacks.append(Prune(Path(config.output_root), config.trial))
    if options.profile_steps is not None:
        callbacks.append(Profile(run_dir / "profile", options.profile_steps))
    callbacks += [checkpoints, StopOnSignal(checkpoints.save, agree_every=every), waiting]
    return bare_trainer(
        accelerator,
        precision,
        ddp=many,
        devices=options.devices,
        num_nodes=options.num_nodes,
        max_epochs=config.recipe.epochs,
        check_val_every_n_epoch=options.val_every_n_epochs,
        log_every_n_steps=every,
        logger=loggers or False,
        callbacks=callbacks,
        enable_progress_bar=bar,
        default_root_dir=run_dir,
    )


def bare_trainer(accelerator: str, precision: str, *, ddp: bool, **options: Any) -> L.Trainer:
    """Return Lightning's trainer with what every run has, watched or only timed.

    Args:
        accelerator: ``gpu`` or ``cpu``.
        precision: Lightning's name of it.
        ddp: whether gradients are reduced over all processes.
        options: more of Lightning's.
    """
    quiet_lightning()
    trainer = L.Trainer(
        accelerator=accelerator,
        precision=precision,  # type: ignore[arg-type]
        strategy=PlainDDP() if ddp else "auto",
        plugins=[AtomicCheckpointIO(), *slurm_environment()],
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        benchmark=accelerator == "gpu",
        **options,
    )
    take_over_signals(trainer)
    return trainer
