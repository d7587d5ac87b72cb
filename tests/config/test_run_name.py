"""The names of runs are those that the same configs had before: nobody's runs are lost."""

from __future__ import annotations

import json
from dataclasses import asdict, field, fields, make_dataclass
from pathlib import Path
from typing import Any

import pytest

from helpers.configs import composed
from semabench.config import run_name as naming
from semabench.config.key import key as declare
from semabench.config.schema import RecipeConfig, TrainConfig, to_config

CONF = Path(__file__).resolve().parents[2] / "conf"
OLD = json.loads(Path(__file__).with_name("run_names.json").read_text())
"""Overrides, and the names that they had at commit d7cf55f (2026-11-26), or when they came."""


def config(overrides: list[str]) -> TrainConfig:
    return to_config(composed("train", overrides), TrainConfig)


@pytest.mark.parametrize(("overrides", "name"), OLD, ids=lambda v: v[0] if v else "none")
def test_old_configs_keep_their_names(overrides, name):
    assert naming.run_name(config(overrides)) == name


def test_they_cover_experiments_models_recipes_and_data():
    words = {word for overrides, _ in OLD for word in overrides}
    for group in ("experiment", "recipe", "data"):
        for path in (CONF / group).glob("*.yaml"):
            assert f"{group}={path.stem}" in words
    assert len({name for _, name in OLD}) > 50


def with_a_new_key(default: Any) -> type:
    """RecipeConfig with one key more, as a later version may have it."""
    old = [(f.name, f.type, field(default=None)) for f in fields(RecipeConfig)]
    return make_dataclass(
        "Later", [*old, ("new_key", float, default)], namespace={"__module__": __name__}
    )


def test_a_later_key_at_its_default_renames_nothing(monkeypatch):
    values = asdict(config(["recipe=demo"]))
    before = naming.config_digest(values, seed=True)
    monkeypatch.setattr(naming, "RecipeConfig", with_a_new_key(declare(0.5, names_run="changed")))
    kept = {"layer_decay", "resolution_schedule", "schedule", "warmup_prefix", "mixed_resolutions"}
    for key in kept:
        del values["recipe"][key]  # at their defaults they named nothing either
    assert naming.config_digest(values, seed=True) == before
    values["recipe"]["new_key"] = 0.5
    assert naming.config_digest(values, seed=True) == before
    values["recipe"]["new_key"] = 0.6
    assert naming.config_digest(values, seed=True) != before


def test_a_new_key_that_is_not_marked_is_noticed(monkeypatch):
    values = asdict(config(["recipe=demo"]))
    before = naming.config_digest(values, seed=True)
    monkeypatch.setattr(naming, "RecipeConfig", with_a_new_key(field(default=0.5)))
    values["recipe"]["new_key"] = 0.5
    assert naming.config_digest(values, seed=True) != before
