"""From a config to the model and the module that trains it."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from semabench.config.schema import TrainConfig
from semabench.data.augment.batch import PixelAugment, pixel_augment
from semabench.data.datamodule import ImageDataModule
from semabench.errors import SemabenchError
from semabench.models import build_model, model_names, set_resolution
from semabench.models.resolution import takes_any_size
from semabench.training.checkpoint import DIRECTORY
from semabench.training.checkpoint_file import read_checkpoint
from semabench.training.module import Classifier
from semabench.training.resume import newest_checkpoint

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
    )
    if before not in (None, resolution):
        set_resolution(model, resolution)
    if config.recipe.resolution_schedule and not takes_any_size(model):
        raise SemabenchError(
            f"{name} is built for one resolution: leave recipe.resolution_schedule out."
        )
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
            "classes": data.classes,
            "fingerprint": data.fingerprint,
            "mean": list(mean),
            "std": list(std),
        },
        pixels=pixels,
        parts=config.trainer.accumulate,
    )
