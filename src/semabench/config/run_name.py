"""A run's identity and directory: functions of its config, so that a repeated job finds its own."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from semabench.config.key import declared
from semabench.config.schema import DataConfig, ModelConfig, RecipeConfig, TrainConfig


def identity(config: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a training config, given as plain values, that makes a run what it is.

    Model, data, recipe, precision and seed count; devices, workers, paths and loggers may change
    between two starts of one run.
    """
    parts = {"model": ModelConfig, "data": DataConfig, "recipe": RecipeConfig}
    named = {part: _naming(config[part], schema) for part, schema in parts.items()}
    return named | {"precision": config["trainer"]["precision"], "seed": config["seed"]}


def _naming(values: dict[str, Any], schema: type) -> dict[str, Any]:
    """Return the values that name a run, as their declarations say."""
    rules = {one.name: one for one in declared(schema)}
    kept = {}
    for name, value in values.items():
        rule = rules[name].key.names_run if name in rules else "always"
        if rule == "always" or (rule == "changed" and value != rules[name].default):
            kept[name] = value
    return kept


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
