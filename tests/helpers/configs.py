"""Compose configs as the apps do."""

from __future__ import annotations

from collections.abc import Iterable

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from semabench.commands import CONF  # stores what the YAML files differ from, too


def composed(app: str, overrides: Iterable[str] = ()) -> DictConfig:
    """Return what ``train`` or ``eval`` is given."""
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose(app, overrides=list(overrides))
