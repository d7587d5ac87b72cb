"""One training run, from its config to `finished.json` in its directory."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from omegaconf import OmegaConf
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from semabench.config.run_name import run_dir as run_dir_of
from semabench.config.schema import TrainConfig
from semabench.data.augment.batch import PixelAugment, pixel_augment
from semabench.data.datamodule import ImageDataModule
from semabench.data.loader import check_data
from semabench.errors import SemabenchError, first_line
from semabench.files import atomic_write
from semabench.models import build_model, model_names, set_resolution
from semabench.models.resolution import say_unseen, takes_any_size, try_size
from semabench.processes import global_rank
from semabench.results.trackers import forget_runs
from semabench.results.wandb_log import forget_run_id
from semabench.training.checkpoint import (
    CONFIG,
    DIRECTORY,
    LAST,
    check_same_run,
    link,
    newest_checkpoint,
    read_checkpoint,
    resume_path,
    set_aside,
)
from semabench.training.compiling import Compile
from semabench.training.device import (
    check_processes,
    choose_accelerator,
    choose_precision,
)
from semabench.training.lock import run_lock
from semabench.training.loggers import close_loggers, keep_checkpoint
from semabench.training.module import Classifier
from semabench.training.signals import Stopped, listening
from semabench.training.trainer import create_trainer

log = logging.getLogger(__name__)

FINISHED = "finished.json"


def train(config: TrainConfig) -> Path:
    """Train, or resume, or find finished, the run of this config.

    Returns:
        The run directory: config.yaml, checkpoints/, finished.json and the logs.

    Raises:
        SemabenchError: what the user can mend, before anything is written where possible.
    """
    check_data(config.data, config.recipe)
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
        config.recipe.resolution_schedule,
        config.recipe.mixed_resolutions,
    )
    if len(data.classes) < 2:
        raise SemabenchError(
            f"{config.data.name} has one class alone, '{data.classes[0]}': is there a folder level "
            "too many? Expected train/<class>/<image>."
        )
    model = create_model(config, len(data.classes))
    check_memory(model, accelerator)
    _try_sizes(config, model, data.sizes.all, len(data.classes))
    module = create_module(config, model, data)
    if _finished(run_dir, config, module):
        _tell(f"finished already: {run_dir} (resume=never trains it again)")
        return run_dir
    if global_rank() == 0:
        data.require_files(config.evaluate_at)
    with run_lock(run_dir) if global_rank() == 0 else nullcontext():
        resume = _resume(config, run_dir, module)
        if global_rank() == 0:
            _prepare_directory(config, run_dir, resume)
        trainer = create_trainer(config, run_dir, accelerator, precision, module)
        _tell(f"{f'resuming {resume}' if resume else 'training'}: {run_dir}")
        _fit(trainer, module, data, resume, config.logger.artifacts)
    return run_dir


def check_memory(model: nn.Module, accelerator: str) -> None:
    """Raise a SemabenchError for the family that torch corrupts memory with, and dies."""
    if accelerator == "cpu" and type(model).__module__ == "timm.models.fastvit":
        raise SemabenchError(
            "FastViT cannot be trained on a CPU: torch (seen with 2.15) writes beyond its memory "
            "in the backward pass, channels last; train it on a GPU."
        )


def _try_sizes(config: TrainConfig, model: nn.Module, sizes: list[int], classes: int) -> None:
    """Raise a SemabenchError if the model cannot take a size that the run will ask of it."""
    share = config.recipe.batch_size // (config.trainer.devices * config.trainer.num_nodes)
    for pixels in sizes:
        try_size(model, pixels, share // config.trainer.accumulate, classes, train=True)
        if not hasattr(model, "set_input_size"):
            say_unseen(model, pixels)
    tested = [config.data.val_resolution or config.data.resolution, *config.evaluate_at]
    if not hasattr(model, "set_input_size"):  # which is resampled for each, when it comes to that
        for pixels in dict.fromkeys(tested):
            try_size(model, pixels, 1, classes, train=False)


def _finished(run_dir: Path, config: TrainConfig, module: Classifier) -> bool:
    """Tell whether there is nothing left to do."""
    if config.resume != "auto" or not (run_dir / FINISHED).exists():
        return False
    _resume(config, run_dir, module)  # raises if it was another run that has finished here
    return True


def _resume(config: TrainConfig, run_dir: Path, module: Classifier) -> Path | None:
    """Return the checkpoint to go on from, of the same run."""
    path = resume_path(config.resume, run_dir)
    if path is not None:
        chosen = config.resume not in ("auto", "never")
        check_same_run(path, module.describe, chosen=chosen)
    return path


def _prepare_directory(config: TrainConfig, run_dir: Path, resume: Path | None) -> None:
    last = run_dir / DIRECTORY / LAST
    if resume is not None and resume.parent == last.parent and resume != last:
        link(resume, last)  # it was damaged, and may never be written again
    atomic_write(run_dir / CONFIG, OmegaConf.to_yaml(OmegaConf.structured(config)))
    (run_dir / FINISHED).unlink(missing_ok=True)
    if config.resume == "never":
        forget_run_id(run_dir)
        forget_runs(run_dir)
        # The last thing: until here the next start would go on with the old run, from here never.
        if kept := set_aside(run_dir / DIRECTORY):
            _tell(f"the checkpoints that were here are kept in {kept}")


def _fit(
    trainer: L.Trainer,
    module: Classifier,
    data: ImageDataModule,
    resume: Path | None,
    artifacts: bool,
) -> None:
    """Train; end on a signal with the shell's code for it. Ctrl-C, Lightning makes an exit."""
    try:
        with listening():
            trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
        if trainer.is_global_zero and trainer.global_step == module.total_steps:
            run_dir = Path(trainer.default_root_dir)
            _finish(trainer, run_dir)
            if artifacts:
                keep_checkpoint(trainer.loggers, run_dir / DIRECTORY / LAST)
    except Stopped as stopped:
        if trainer.is_global_zero:
            step = f"at step {trainer.global_step} of {module.total_steps}"
            when = f"{step}; the same command resumes there"
            if not stopped.begun:
                when = "before its first step; start it again"
            print(f"error: {stopped} {when}.", file=sys.stderr)
        raise SystemExit(stopped.exit_code) from stopped
    except RuntimeError as error:
        # torch tells of a dead worker from a signal handler: out of whatever the step was doing.
        if not str(error).startswith("DataLoader worker"):
            raise
        raise SemabenchError(
            f"a worker of the folder loader failed: {first_line(error)} (if memory ran "
            "out, set fewer data.num_workers); the same command goes on from the last checkpoint."
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise SemabenchError(  # metrics of a step: a checkpoint tells by itself
            f"cannot write to {error.filename or trainer.default_root_dir}: {error.strerror}; free "
            "some space, and the same command goes on from the last checkpoint."
        ) from error
    except SystemExit as interrupted:
        raise KeyboardInterrupt from interrupted
    finally:
        module.release()
        close_loggers(trainer.loggers)


def _tell(text: str) -> None:
    if global_rank() == 0:
        print(text, flush=True)


def _finish(trainer: L.Trainer, run_dir: Path) -> None:
    metrics = {
        name: float(value)
        for name, value in trainer.callback_metrics.items()
        if name.startswith("val")
    }
    summary = {
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "compiled": any(isinstance(c, Compile) and not c.failed for c in trainer.callbacks),  # type: ignore[attr-defined]
        "metrics": metrics,
    }
    atomic_write(run_dir / FINISHED, json.dumps(summary, indent=2) + "\n")


log = logging.getLogger(__name__)


def create_model(config: TrainConfig, num_classes: int) -> nn.Module:
    """Build the model, with the weights that it starts from.

    ``model.checkpoint`` may be a run's directory: then the newest sound checkpoint is taken. Of a
    checkpoint of ours with averaged weights these are, as in evaluation. What the weights hold of
    another resolution is brought to ``data.resolution``.

    Raises:
        SemabenchError: as ``build_model``; no checkpoint; a schedule of resolutions for a model
            that fixes its own.
    """
    name, resolution = config.model.name, config.data.resolution
    checkpoint = None if config.model.checkpoint is None else _resolve(config.model.checkpoint)
    _warn_of_a_random_start(config)
    # Our own models load weights of any resolution; timm's are built for theirs, then resampled.
    before = None
    if checkpoint is not None and name not in model_names():
        before = _trained_resolution(checkpoint)
    model = build_model(
        name,
        num_classes=num_classes,
        resolution=before or resolution,
        drop_path_rate=config.model.drop_path_rate,
        checkpoint=checkpoint,
        pretrained=config.model.pretrained,
        mixer=config.model.mixer,
        fused_attention=config.model.fused_attention,
        options=config.model.options,
        new_head=True,
    )
    if before not in (None, resolution):
        set_resolution(model, resolution)
    if not takes_any_size(model):
        for key in ("resolution_schedule", "mixed_resolutions"):
            if getattr(config.recipe, key):
                raise SemabenchError(f"{name} is built for one resolution: leave recipe.{key} out.")
    return model


def _resolve(path: str) -> Path:
    """Return the file that ``model.checkpoint`` means: itself, or a run's newest sound checkpoint.

    Raises:
        SemabenchError: a directory without one.
    """
    if not Path(path).is_dir():
        return Path(path)
    found = newest_checkpoint(Path(path) / DIRECTORY)
    if found is None:
        raise SemabenchError(
            f"model.checkpoint={path} is no run's directory: it has no checkpoint."
        )
    return found


def _warn_of_a_random_start(config: TrainConfig) -> None:
    """Say so if the recipe is one of fine-tuning, and there is nothing to fine-tune."""
    recipe, model = config.recipe, config.model
    constant = recipe.lr == recipe.min_lr == recipe.warmup_lr
    if constant and model.checkpoint is None and not model.pretrained:
        log.warning(
            "recipe.lr stays at %g, as in fine-tuning, but %s starts from random weights: give "
            "model.checkpoint=PATH or model.pretrained=true.",
            recipe.lr,
            model.name,
        )


def _trained_resolution(path: Path) -> int | None:
    """Return the resolution that a checkpoint of ours was trained at; None of any other file."""
    try:
        told = read_checkpoint(path).get("semabench")
    except SemabenchError:  # an official file, or a damaged one: loading it will tell
        return None
    return None if told is None else int(told["config"]["data"]["resolution"])


def create_module(config: TrainConfig, model: nn.Module, data: ImageDataModule) -> Classifier:
    """Wrap the model with its recipe; ``data`` is told what its workers have to augment."""
    normalisation: Any = getattr(model, "pretrained_cfg", {})
    mean = tuple(normalisation.get("mean", IMAGENET_DEFAULT_MEAN))
    std = tuple(normalisation.get("std", IMAGENET_DEFAULT_STD))
    if config.trainer.grad_checkpointing:
        _save_memory(model, config.model.name)
    if config.trainer.channels_last:
        model.to(memory_format=torch.channels_last)
    pixels = pixel_augment(
        config.recipe, seed=config.seed, mean=mean, interpolation=config.data.interpolation
    )
    if config.data.augment_on == "cpu":
        data.augment, pixels = pixels, PixelAugment()
    return Classifier(
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
            "directory": os.getcwd(),  # where its relative paths begin
            "classes": data.classes,
            "fingerprint": data.fingerprint,
            "mean": list(mean),
            "std": list(std),
        },
        pixels=pixels,
        micro_batches=config.trainer.accumulate,
        graph=config.trainer.graph,
    )


def _save_memory(model: nn.Module, name: str) -> None:
    """Have the model keep no activations, or raise a SemabenchError."""
    switch: Any = getattr(model, "set_grad_checkpointing", None)
    try:
        if switch is None:
            raise AssertionError
        switch(True)
    except AssertionError as error:  # timm's models that have no such thing
        raise SemabenchError(
            f"{name} knows no gradient checkpointing: leave trainer.grad_checkpointing out, and "
            "take trainer.accumulate."
        ) from error


def objective(run_dir: Path) -> float | None:
    """Return the validation top-1 (%) after the last epoch, of averaged weights if there are any.

    Not that of the best epoch, which would be chosen by the number it reports. On a held-out part
    of the training pictures (``data.holdout``) it may choose hyper-parameters; on the validation
    set it may not. ``None``: the run is not finished.
    """
    path = run_dir / FINISHED
    if not path.exists():  # on another process than the one that writes it
        return None
    metrics = json.loads(path.read_text())["metrics"]
    return metrics.get("val_ema/top1", metrics.get("val/top1"))
