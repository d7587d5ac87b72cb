"""`semabench train` and `semabench eval`, as Hydra apps; train.py and eval.py are the same."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from semabench.app import asked_for, run_app, run_job
from semabench.config.check import check_train
from semabench.config.key import check_asked, defaults
from semabench.config.schema import GROUPS, TrainConfig, known_keys, to_config
from semabench.errors import SemabenchError
from semabench.measures import measure_asked_for, measure_of, measures
from semabench.processes import global_rank

CONF = str(Path(__file__).parent / "conf")


def store_defaults() -> None:
    """Let YAML files state differences only: each group's ``_base`` holds what is declared.

    Plain values, so that what a user mistypes is told by `to_config`, not by Hydra.
    """
    store = ConfigStore.instance()
    store.store("_train", defaults(TrainConfig, without=GROUPS))
    for group, schema in GROUPS.items():
        store.store("_base", defaults(schema), group=group)
    for name, measure in measures().items():
        own = defaults(measure.schema, without=GROUPS)
        store.store(f"_{name}", own, group="measure", package="_global_")


store_defaults()


def train() -> None:
    """Run `semabench train` with the words of the command line."""
    run_app(_train, lambda: known_keys(TrainConfig))


def evaluate() -> None:
    """Run `semabench eval` with the words of the command line."""
    run_app(_evaluate, lambda: known_keys(measure_asked_for(sys.argv[1:]).schema))


@hydra.main(version_base="1.3", config_path=CONF, config_name="train")
def _train(composed: DictConfig) -> float | None:
    return run_job(train_job, composed)


@hydra.main(version_base="1.3", config_path=CONF, config_name="eval")
def _evaluate(composed: DictConfig) -> None:
    run_job(evaluate_job, composed)


def train_job(composed: DictConfig) -> float | None:
    """Train, then evaluate at `evaluate_at`; return what a search would maximise."""
    config = to_config(composed, TrainConfig)
    check_train(config)
    require_effect(config, asked_for())
    mixer = f" with {config.model.mixer}" if config.model.mixer else ""
    recipe = f"recipe {config.recipe.name}, seed {config.seed}"
    say(f"{config.model.name}{mixer} on {config.data.name}, {recipe}")
    from semabench.evaluation.accuracy.run import evaluate_trained
    from semabench.training.run import objective, train

    run_dir = train(config)
    if config.evaluate_at:
        evaluate_trained(run_dir, config)
    return objective(run_dir) if config.data.holdout else None  # the rest is for reporting


def evaluate_job(composed: DictConfig) -> None:
    """Measure; rows are appended to results.jsonl as they are measured."""
    measure = measure_of(composed)
    config: Any = to_config(composed, measure.schema)
    measure.check(config)
    require_effect(config, asked_for())
    say(f"measuring {measure.name}")
    measure.run(config)


def say(line: str) -> None:
    """Print a line, of many processes once, before seconds go into importing torch and the rest."""
    if global_rank() == 0:
        print(line, flush=True)


def require_effect(config: Any, words: list[str]) -> None:
    """Raise a SemabenchError that names the first option asked for that has no effect."""
    check_asked(config, words)
    heads = "model.options.num_heads"
    if not any(word.lstrip("+").startswith(f"{heads}=") for word in words):
        return
    from semabench.mixers import headless_mixers

    if (mixer := config.model.mixer) in headless_mixers():
        raise SemabenchError(
            f"{heads} has no effect on a mixer without heads ({mixer}): leave it out."
        )
