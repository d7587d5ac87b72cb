"""`semabench train` and `semabench eval`, as Hydra apps; train.py and eval.py are the same."""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from semabench.app import asked_for, run_app, run_job
from semabench.config.check import check_values
from semabench.config.cost import CostConfig
from semabench.config.dispersion import DispersionConfig
from semabench.config.measures import check_measure, schema_asked_for, schema_of
from semabench.config.no_effect import check_asked
from semabench.config.schema import TrainConfig, known_keys, to_config
from semabench.config.study import StudyConfig

CONF = str(Path(__file__).parent / "conf")


def train() -> None:
    """Run `semabench train` with the words of the command line."""
    run_app(_train, lambda: known_keys(TrainConfig))


def evaluate() -> None:
    """Run `semabench eval` with the words of the command line."""
    run_app(_evaluate, lambda: known_keys(schema_asked_for(sys.argv[1:])))


@hydra.main(version_base="1.3", config_path=CONF, config_name="train")
def _train(composed: DictConfig) -> float | None:
    return run_job(train_job, composed)


@hydra.main(version_base="1.3", config_path=CONF, config_name="eval")
def _evaluate(composed: DictConfig) -> None:
    run_job(evaluate_job, composed)


def train_job(composed: DictConfig) -> float | None:
    """Train, then evaluate at `evaluate_at`; return what a search would maximise."""
    config = to_config(composed, TrainConfig)
    check_values(config)
    check_asked(config, asked_for())
    from semabench.evaluation.run import evaluate_trained
    from semabench.training.run import objective, train

    run_dir = train(config)
    if config.evaluate_at:
        evaluate_trained(run_dir, config)
    return objective(run_dir) if config.data.holdout else None  # the rest is for reporting


def evaluate_job(composed: DictConfig) -> None:
    """Evaluate at each resolution; rows are appended to results.jsonl as they are measured."""
    config = to_config(composed, schema_of(composed))
    check_measure(config)
    check_asked(config, asked_for())
    if isinstance(config, CostConfig):
        from semabench.evaluation.cost.run import measure_cost

        measure_cost(config)
    elif isinstance(config, DispersionConfig):
        from semabench.evaluation.dispersion.run import measure_dispersion

        measure_dispersion(config)
    elif isinstance(config, StudyConfig):
        from semabench.study.run import measure_study

        measure_study(config)
    else:
        from semabench.evaluation.run import evaluate as evaluate_model

        evaluate_model(config)
