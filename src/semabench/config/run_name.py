"""A run's identity and directory: functions of its config, so that a repeated job finds its own."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from semabench.config.schema import TrainConfig

# Where and how fast the data are read does not change what a run is.
_MODEL_TOLD = ("published_recipe", "compiles")
# Options that came later count where they are used, so that older runs keep their names.
_RECIPE_LATER = ("layer_decay", "resolution_schedule")
_DATA_LATER = ("holdout",)
_DATA_ELSEWHERE = ("packed", "source", "num_workers", "val_resolution")


def identity(config: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a training config, given as plain values, that makes a run what it is.

    Model, data, recipe, precision and seed count; devices, workers, paths and loggers may change
    between two starts of one run.
    """
    return {
        "model": {k: v for k, v in config["model"].items() if k not in _MODEL_TOLD},
        "data": {
            key: value
            for key, value in config["data"].items()
            if key not in _DATA_ELSEWHERE and (value is not None or key not in _DATA_LATER)
        },
        "recipe": {
            key: value
            for key, value in config["recipe"].items()
            if value is not None or key not in _RECIPE_LATER
        },
        "precision": config["trainer"]["precision"],
        "seed": config["seed"],
    }


def config_digest(config: dict[str, Any], *, seed: bool) -> str:
    """Return six hex digits that name a training config given as plain values.

    Without ``seed``, runs that differ by it alone are equal.
    """
    parts = identity(config)
    if not seed:
        del parts["seed"]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:6]


def run_name(config: TrainConfig) -> str:
    """Return e.g. ``sema_nano-shapes-demo-s0-1f3a9c``, or ``config.name`` where it is given."""
    if config.name is not None:
        return config.name
    mixer = f"-{config.model.mixer}" if config.model.mixer else ""
    name = config.model.name.replace("/", "_")
    digest = config_digest(asdict(config), seed=True)
    return f"{name}{mixer}-{config.data.name}-{config.recipe.name}-s{config.seed}-{digest}"


def run_dir(config: TrainConfig) -> Path:
    """Return ``<output_root>/<experiment>/<run name>``."""
    return Path(config.output_root) / config.experiment / run_name(config)
