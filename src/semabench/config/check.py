"""Values of a training that must fit together, beyond what each key's declaration says."""

from __future__ import annotations

import re

from semabench.config.key import check_declared
from semabench.config.schema import MIN_RESOLUTION, ModelConfig, RecipeConfig, TrainConfig
from semabench.errors import SemabenchError


def check_train(config: TrainConfig) -> None:
    """Raise a SemabenchError that names the first key whose value cannot be used."""
    check_declared(config)
    check_model(config.model)
    _check_names(config)
    if config.data.holdout and config.evaluate_at:
        raise SemabenchError(
            f"data.holdout={config.data.holdout:g} is for choosing, not for reporting: set "
            "evaluate_at=[], and train what was chosen on all training images."
        )
    _check_pairs(config)
    _check_recipe(config.recipe)
    _check_schedule(config)
    _check_mixed(config)
    world_size = config.trainer.devices * config.trainer.num_nodes
    if config.recipe.batch_size % world_size:
        raise SemabenchError(
            f"recipe.batch_size={config.recipe.batch_size} is global and must be a multiple of the "
            f"number of devices, {world_size}."
        )
    share = config.recipe.batch_size // world_size
    if share % config.trainer.accumulate:
        raise SemabenchError(
            f"trainer.accumulate={config.trainer.accumulate} does not divide the {share} images "
            "of a batch on each device."
        )


def check_model(model: ModelConfig | None) -> None:
    """Raise a SemabenchError if two keys say which weights to take."""
    if model is not None and model.pretrained and model.checkpoint is not None:
        raise SemabenchError(
            "model.pretrained=true has no effect beside model.checkpoint=PATH, whose weights are "
            "taken: give one of them."
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
    parts = {"experiment": config.experiment, "name": config.name}
    parts |= {"data.name": config.data.name, "recipe.name": config.recipe.name}
    for key, value in parts.items():
        if value is not None and len(value) > 64:  # W&B's names, and most file systems', are short
            raise SemabenchError(f"{key} has {len(value)} characters: at most 64 make a name.")
        if value is not None and not re.fullmatch(r"[\w+=,@-][\w.+=,@-]*", value):
            raise SemabenchError(
                f"{key}='{value}' cannot name a directory: use letters, digits and . _ - + = , @, "
                "and no dot in front."
            )


def _check_recipe(recipe: RecipeConfig) -> None:
    if recipe.rand_augment is not None and recipe.color_jitter > 0:
        raise SemabenchError(
            f"recipe.color_jitter={recipe.color_jitter:g} has no effect beside RandAugment, as in "
            "timm: leave it at 0, or set recipe.rand_augment=null."
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


def _check_mixed(config: TrainConfig) -> None:
    mixed = config.recipe.mixed_resolutions
    if mixed is None:
        return
    key = "recipe.mixed_resolutions"
    if config.recipe.resolution_schedule is not None:
        raise SemabenchError(f"{key} and resolution_schedule both set sizes: leave one out.")
    if len(set(mixed)) < 2 or len(set(mixed)) < len(mixed):
        raise SemabenchError(f"{key} must be at least two sizes, each once, not {mixed}.")
    if config.data.resolution not in mixed:
        raise SemabenchError(
            f"{key}={mixed} lack data.resolution={config.data.resolution}, which the run is "
            "validated at: add it, or set data.resolution to one of them."
        )


def _check_schedule(config: TrainConfig) -> None:
    schedule = config.recipe.resolution_schedule
    if schedule is None:
        return
    key = "recipe.resolution_schedule"
    if not schedule or any(len(pair) != 2 for pair in schedule):
        raise SemabenchError(f"{key} must be pairs of epoch and pixels, [[0, 128], [100, 224]].")
    for _, pixels in schedule:
        if pixels < MIN_RESOLUTION:
            raise SemabenchError(f"{key} must be at least {MIN_RESOLUTION} pixels, not {pixels}.")
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
