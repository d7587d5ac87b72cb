"""One training run, from its config to `finished.json` in its directory."""

from __future__ import annotations

import json
import logging
import signal
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import OmegaConf
from torch import nn

from semabench.config import TrainConfig
from semabench.data.augment.batch import PixelAugment, pixel_augment
from semabench.data.module import ImageDataModule
from semabench.files import atomic_write
from semabench.models import build_model
from semabench.run_id import forget_run_id
from semabench.run_name import run_dir as run_dir_of
from semabench.training.callbacks import create_callbacks
from semabench.training.checkpoint import (
    BEST,
    CONFIG,
    DIRECTORY,
    LAST,
    AtomicCheckpointIO,
    Checkpoints,
    link,
)
from semabench.training.devices import (
    check_processes,
    choose_accelerator,
    choose_precision,
    global_rank,
    slurm_environment,
)
from semabench.training.loggers import close_logger, create_logger
from semabench.training.module import Classifier
from semabench.training.resume import check_same_run, resume_path
from semabench.training.stopping import StopOnSignal, Stopped

log = logging.getLogger(__name__)

FINISHED = "finished.json"


def train(config: TrainConfig) -> Path:
    """Train, or resume, or find finished, the run of this config.

    Returns:
        The run directory: config.yaml, checkpoints/, finished.json and the logs.

    Raises:
        SemabenchError: what the user can mend, before anything is written where possible.
    """
    accelerator = choose_accelerator(config.trainer.accelerator)
    precision = choose_precision(config.trainer.precision, accelerator)
    config.trainer.precision = precision  # part of the run's name: resolved, not as asked for
    check_processes(config.trainer.devices, config.trainer.num_nodes, accelerator)
    run_dir = run_dir_of(config)
    L.seed_everything(config.seed, workers=True, verbose=False)
    data = ImageDataModule(
        config.data,
        config.recipe.batch_size,
        config.seed,
        config.trainer.val_batch_size,
        config.recipe.repeated_augmentation,
    )
    module = _module(config, _model(config, len(data.classes)), data)
    resume = resume_path(config.resume, run_dir)
    if resume is not None:
        check_same_run(resume, module.describe)
    if (run_dir / FINISHED).exists() and config.resume == "auto":
        _tell(f"finished already: {run_dir} (resume=never trains it again)")
        return run_dir
    if global_rank() == 0:
        data.require_files(config.evaluate_at)
        _prepare_directory(config, run_dir, resume)
    trainer = _trainer(config, run_dir, accelerator, precision, module)
    _tell(f"{f'resuming {resume}' if resume else 'training'}: {run_dir}")
    _fit(trainer, module, data, resume)
    if trainer.is_global_zero and trainer.global_step == module.total_steps:
        _finish(trainer, run_dir)
    return run_dir


def _prepare_directory(config: TrainConfig, run_dir: Path, resume: Path | None) -> None:
    if resume == run_dir / DIRECTORY / BEST:  # the last is damaged, and may never be written again
        link(resume, run_dir / DIRECTORY / LAST)
    atomic_write(run_dir / CONFIG, OmegaConf.to_yaml(OmegaConf.structured(config)))
    (run_dir / FINISHED).unlink(missing_ok=True)
    if config.resume == "never":
        forget_run_id(run_dir)


def _fit(
    trainer: L.Trainer, module: Classifier, data: ImageDataModule, resume: Path | None
) -> None:
    """Train; end on a signal with the shell's code for it. Ctrl-C, Lightning makes an exit."""
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    except Stopped as stopped:
        if trainer.is_global_zero:
            step = f"at step {trainer.global_step} of {module.total_steps}"
            print(f"error: {stopped} {step}; the same command resumes there.", file=sys.stderr)
        raise SystemExit(stopped.exit_code) from stopped
    except SystemExit as interrupted:
        if trainer.received_sigterm:  # before the first step: there is nothing to store
            print("error: terminated; the same command starts again.", file=sys.stderr)
            raise SystemExit(128 + signal.SIGTERM) from interrupted
        raise KeyboardInterrupt from interrupted
    finally:
        close_logger(trainer.logger)


def _tell(text: str) -> None:
    if global_rank() == 0:
        print(text, flush=True)


def _model(config: TrainConfig, num_classes: int) -> nn.Module:
    options = {k: v for k, v in config.model.options.items() if v is not None}
    return build_model(
        config.model.name,
        num_classes=num_classes,
        resolution=config.data.resolution,
        drop_path_rate=config.model.drop_path_rate,
        checkpoint=config.model.checkpoint,
        pretrained=config.model.pretrained,
        mixer=config.model.mixer,
        fused_attention=config.model.fused_attention,
        options=options,
    )


def _module(config: TrainConfig, model: nn.Module, data: ImageDataModule) -> Classifier:
    normalisation: Any = getattr(model, "pretrained_cfg", {})
    mean = tuple(normalisation.get("mean", (0.485, 0.456, 0.406)))
    std = tuple(normalisation.get("std", (0.229, 0.224, 0.225)))
    if config.trainer.channels_last:
        model.to(memory_format=torch.channels_last)
    pixels = pixel_augment(
        config.recipe, seed=config.seed, mean=mean, interpolation=config.data.interpolation
    )
    if config.data.augment_on == "cpu":
        data.augment, pixels = pixels, PixelAugment()
    module = Classifier(
        model,
        config.recipe,
        num_classes=len(data.classes),
        steps_per_epoch=data.steps_per_epoch,
        mean=mean,
        std=std,
        seed=config.seed,
        describe={
            "format": 1,
            "config": asdict(config),
            "classes": data.classes,
            "fingerprint": data.fingerprint,
            "mean": list(mean),
            "std": list(std),
        },
        pixels=pixels,
    )
    if config.trainer.compile:
        model.compile()
    return module


def _trainer(
    config: TrainConfig, run_dir: Path, accelerator: str, precision: str, module: Classifier
) -> L.Trainer:
    options = config.trainer
    many = options.devices * options.num_nodes > 1
    _quiet_lightning()
    logger = create_logger(config, run_dir)
    bar = sys.stdout.isatty() if options.progress_bar is None else options.progress_bar
    every = min(options.log_every_n_steps, module.steps_per_epoch)
    checkpoints = Checkpoints(run_dir / DIRECTORY, module.monitor, options.save_every_n_steps)
    return L.Trainer(
        accelerator=accelerator,
        devices=options.devices,
        num_nodes=options.num_nodes,
        strategy=DDPStrategy(gradient_as_bucket_view=True) if many else "auto",
        precision=precision,  # type: ignore[arg-type]
        max_epochs=config.recipe.epochs,
        check_val_every_n_epoch=options.val_every_n_epochs,
        gradient_clip_val=config.recipe.clip_grad,
        log_every_n_steps=every,
        logger=logger if logger is not None else False,
        callbacks=[
            *create_callbacks(every, config.recipe.batch_size, bar),
            checkpoints,
            StopOnSignal(checkpoints.save, agree_every=every),
        ],
        plugins=[AtomicCheckpointIO(), *slurm_environment()],
        enable_progress_bar=bar,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        benchmark=accelerator == "gpu",
        default_root_dir=run_dir,
    )


def _quiet_lightning() -> None:
    """Keep to what a user can act on; the sharding, seeding and exact metrics are our own."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*recommended to use `self.log.*sync_dist=True.*",
        ".*treespec, LeafSpec.*",
        ".*`srun` command is available on your system but is not used.*",
        ".*module.s. in eval mode at the start of training.*",  # the averaged weights
    ):
        warnings.filterwarnings("ignore", message=message)


def _finish(trainer: L.Trainer, run_dir: Path) -> None:
    metrics = {
        name: float(value)
        for name, value in trainer.callback_metrics.items()
        if name.startswith("val")
    }
    summary = {"epochs": trainer.current_epoch, "steps": trainer.global_step, "metrics": metrics}
    atomic_write(run_dir / FINISHED, json.dumps(summary, indent=2) + "\n")
