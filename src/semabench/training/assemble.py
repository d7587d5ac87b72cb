"""From a config to the model and the module that trains it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from semabench.config import TrainConfig
from semabench.data.augment.batch import PixelAugment, pixel_augment
from semabench.data.module import ImageDataModule
from semabench.models import build_model
from semabench.training.module import Classifier


def create_model(config: TrainConfig, num_classes: int) -> nn.Module:
    """Build the model, with the weights that it starts from.

    Raises:
        SemabenchError: as ``build_model``.
    """
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


def create_module(config: TrainConfig, model: nn.Module, data: ImageDataModule) -> Classifier:
    """Wrap the model with its recipe; ``data`` is told what its workers have to augment."""
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
