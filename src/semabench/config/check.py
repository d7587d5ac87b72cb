"""What a value must be beyond its type: choices, ranges, and values that must fit together."""

from __future__ import annotations

import math
import re
from typing import Any

from semabench.config.schema import (
    MIN_RESOLUTION,
    DataConfig,
    EvalConfig,
    ModelConfig,
    RecipeConfig,
    TrainConfig,
)
from semabench.data.augment.plan import parse_rand_augment
from semabench.data.procedural.tasks import task_named
from semabench.errors import SemabenchError, nearest


def _choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SemabenchError(f"{key}={value} is not known.{nearest(value, choices)}")


def _resolutions(key: str, values: list[int]) -> None:
    for value in values:
        if value < MIN_RESOLUTION:
            raise SemabenchError(
                f"{key}={value} is too small: the smallest resolution is {MIN_RESOLUTION} pixels."
            )


def check_model_and_data(model: ModelConfig | None, data: DataConfig | None) -> None:
    """Raise a SemabenchError that names the first key of either whose value cannot be used."""
    if model is not None and model.pretrained and model.checkpoint is not None:
        raise SemabenchError(
            "model.pretrained=true has no effect beside model.checkpoint=PATH, whose weights are "
            "taken: give one of them."
        )
    if data is not None:
        _check_data(data)


def _check_data(data: DataConfig) -> None:
    _choice("data.loader", data.loader, ("ffcv", "folder", "drawn"))
    _choice("data.augment_on", data.augment_on, ("device", "cpu"))
    if data.augment_on == "cpu" and data.loader != "folder":
        raise SemabenchError(
            "data.augment_on=cpu is the folder loader's: set data.loader=folder, or augment on "
            "the device."
        )
    if data.loader == "drawn":
        _check_drawn(data)
    _resolutions("data.resolution", [data.resolution])
    if data.val_resolution is not None:
        _resolutions("data.val_resolution", [data.val_resolution])


def _check_drawn(data: DataConfig) -> None:
    task_named(data.name)
    if data.num_workers is not None:
        raise SemabenchError("data.num_workers: pictures are drawn without workers; leave it out.")
    if data.holdout is not None:
        raise SemabenchError(
            "data.holdout: drawn test pictures are never those of training; leave it out."
        )
    whole = {"crop_pct": 1.0, "crop_scale": [1.0, 1.0], "crop_ratio": [1.0, 1.0], "hflip": 0.0}
    for key, value in whole.items():
        if getattr(data, key) != value:
            raise SemabenchError(
                f"data.{key}={getattr(data, key)}: drawn pictures are shown whole, as they are; "
                f"leave it at {value}."
            )


def _check_pairs(config: TrainConfig) -> None:
    for key, values in (
        ("recipe.betas", config.recipe.betas),
        ("data.crop_scale", config.data.crop_scale),
        ("data.crop_ratio", config.data.crop_ratio),
    ):
        if len(values) != 2:
            raise SemabenchError(f"{key} must be two numbers, not {values}.")
    if not all(0 <= beta < 1 for beta in config.recipe.betas):
        raise SemabenchError(f"recipe.betas must lie in [0, 1), not {config.recipe.betas}.")


def _check_names(config: TrainConfig) -> None:
    """The run directory is <output_root>/<experiment>/<name>: neither part may lead elsewhere."""
    for key, value in (("experiment", config.experiment), ("name", config.name)):
        if value is not None and not re.fullmatch(r"[\w+=,@-][\w.+=,@-]*", value):
            raise SemabenchError(
                f"{key}='{value}' cannot name a directory: use letters, digits and . _ - + = , @, "
                "and no dot in front."
            )


def _check_recipe(recipe: RecipeConfig) -> None:
    if recipe.rand_augment is not None:
        parse_rand_augment(recipe.rand_augment)
        if recipe.color_jitter > 0:
            raise SemabenchError(
                f"recipe.color_jitter={recipe.color_jitter:g} has no effect beside RandAugment, as "
                "in timm: leave it at 0, or set recipe.rand_augment=null."
            )
    if recipe.mesa > 0 and recipe.ema_decay is None:
        raise SemabenchError(
            f"recipe.mesa={recipe.mesa:g} learns from averaged weights: set recipe.ema_decay, too."
        )
    schedule = recipe.warmup_epochs + recipe.cooldown_epochs
    if schedule > recipe.epochs:
        raise SemabenchError(
            f"recipe.warmup_epochs and cooldown_epochs take {schedule:g} epochs, but "
            f"recipe.epochs={recipe.epochs}: shorten them."
        )


def _check_schedule(config: TrainConfig) -> None:
    schedule = config.recipe.resolution_schedule
    if schedule is None:
        return
    key = "recipe.resolution_schedule"
    if not schedule or any(len(pair) != 2 for pair in schedule):
        raise SemabenchError(f"{key} must be pairs of epoch and pixels, [[0, 128], [100, 224]].")
    _resolutions(key, [pixels for _, pixels in schedule])
    starts = [epoch for epoch, _ in schedule]
    if starts[0] != 0 or starts != sorted(set(starts)):
        raise SemabenchError(f"{key} must begin with epoch 0 and go on with later ones: {starts}.")
    if starts[-1] >= config.recipe.epochs:
        raise SemabenchError(
            f"{key} changes at epoch {starts[-1]}, but recipe.epochs={config.recipe.epochs}."
        )
    if schedule[-1][1] != config.data.resolution:
        raise SemabenchError(
            f"{key} ends at {schedule[-1][1]} px, but data.resolution={config.data.resolution}: "
            "the last must be what the run is trained for."
        )


def check_values(config: TrainConfig | EvalConfig) -> None:
    """Raise a SemabenchError that names the first key whose value cannot be used."""
    check_ranges(config)
    _choice("logger.name", config.logger.name, ("wandb", "csv"))
    _choice("logger.mode", config.logger.mode, ("auto", "online", "offline", "disabled"))
    check_model_and_data(config.model, config.data)
    if isinstance(config, EvalConfig):
        _choice("accelerator", config.accelerator, ("auto", "cpu", "gpu"))
        _choice("weights", config.weights, ("auto", "model", "ema"))
        _resolutions("resolutions", config.resolutions)
        return
    _check_names(config)
    _choice("trainer.accelerator", config.trainer.accelerator, ("auto", "cpu", "gpu"))
    _resolutions("evaluate_at", config.evaluate_at)
    if config.data.holdout and config.evaluate_at:
        raise SemabenchError(
            f"data.holdout={config.data.holdout:g} is for choosing, not for reporting: set "
            "evaluate_at=[], and train what was chosen on all training pictures."
        )
    _check_pairs(config)
    _check_recipe(config.recipe)
    _check_schedule(config)
    world_size = config.trainer.devices * config.trainer.num_nodes
    if config.recipe.batch_size % world_size:
        raise SemabenchError(
            f"recipe.batch_size={config.recipe.batch_size} is global and must be a multiple of the "
            f"number of devices, {world_size}."
        )
    share = config.recipe.batch_size // world_size
    if share % config.trainer.accumulate:
        raise SemabenchError(
            f"trainer.accumulate={config.trainer.accumulate} does not divide the {share} pictures "
            "of a batch on each device."
        )


# Inclusive bounds; None: unbounded. An option that is null is not checked.
_RANGES: dict[str, tuple[float | None, float | None]] = {
    "seed": (0, 2**63 - 1),
    "batch_size": (1, None),
    "window_size": (1, None),
    "data.num_workers": (1, 1024),
    "model.drop_path_rate": (0, 0.99),
    "data.crop_pct": (1e-3, 1),
    "data.hflip": (0, 1),
    "data.holdout": (1e-6, 0.99),
    "recipe.epochs": (1, None),
    "recipe.warmup_epochs": (0, None),
    "recipe.cooldown_epochs": (0, None),
    "recipe.batch_size": (1, None),
    "recipe.lr": (1e-30, None),
    "recipe.lr_batch_size": (1, None),
    "recipe.layer_decay": (1e-3, 1),
    "recipe.min_lr": (0, None),
    "recipe.warmup_lr": (0, None),
    "recipe.weight_decay": (0, None),
    "recipe.eps": (0, None),
    "recipe.clip_grad": (1e-30, None),
    "recipe.label_smoothing": (0, 1),
    "recipe.color_jitter": (0, None),
    "recipe.random_erase": (0, 1),
    "recipe.repeated_augmentation": (1, None),
    "recipe.mixup": (0, None),
    "recipe.cutmix": (0, None),
    "recipe.mix_prob": (0, 1),
    "recipe.mix_switch_prob": (0, 1),
    "recipe.ema_decay": (0, 1),
    "recipe.ema_batch_size": (1, None),
    "recipe.mesa": (0, None),
    "recipe.mesa_start": (0, 1),
    "trainer.devices": (1, None),
    "trainer.num_nodes": (1, None),
    "trainer.val_every_n_epochs": (1, None),
    "trainer.log_every_n_steps": (1, None),
    "trainer.save_every_n_steps": (1, None),
    "trainer.val_batch_size": (1, None),
    "trainer.compile_min_steps": (0, None),
    "trainer.accumulate": (1, None),
    "trainer.profile_steps": (1, None),
}


def check_ranges(config: TrainConfig | EvalConfig) -> None:
    """Raise a SemabenchError that names the first number out of its bounds, and these."""
    for key, (low, high) in _RANGES.items():
        value: Any = config
        for name in key.split("."):
            value = getattr(value, name, None)
        if value is None:
            continue
        if not math.isfinite(value):
            raise SemabenchError(f"{key} must be a finite number, not {value}.")
        if not ((low is None or value >= low) and (high is None or value <= high)):
            bounds = f"at least {low:g}" + ("" if high is None else f" and at most {high:g}")
            raise SemabenchError(f"{key} must be {bounds}, not {value}.")
