"""Accuracy, cost, dispersion, study: `python eval.py checkpoint=RUN resolutions=[224]`."""

import sys

import hydra
from omegaconf import DictConfig

from semabench.app import asked_for, run_app, run_job
from semabench.config.cost import CostConfig
from semabench.config.dispersion import DispersionConfig
from semabench.config.measures import check_measure, schema_asked_for, schema_of
from semabench.config.no_effect import check_asked
from semabench.config.schema import known_keys, to_config
from semabench.config.study import StudyConfig


@hydra.main(version_base="1.3", config_path="conf", config_name="eval")
def main(composed: DictConfig) -> None:
    """Evaluate at each resolution; rows are appended to results.jsonl as they are measured."""
    run_job(_evaluate, composed)


def _evaluate(composed: DictConfig) -> None:
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
        from semabench.evaluation.run import evaluate

        evaluate(config)


def keys() -> list[str]:
    """Return the valid keys of what the command line asks for."""
    return known_keys(schema_asked_for(sys.argv[1:]))


if __name__ == "__main__":
    run_app(main, keys)
