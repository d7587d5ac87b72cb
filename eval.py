"""Accuracy or cost against resolution: `python eval.py checkpoint=RUN resolutions=[224]`."""

import sys

import hydra
from omegaconf import DictConfig

from semabench.app import one_line_errors, run_app
from semabench.config import EvalConfig, known_keys, to_config
from semabench.config_checks import check_values
from semabench.config_cost import CostConfig, check_cost, schema_of


@hydra.main(version_base="1.3", config_path="conf", config_name="eval")
def main(composed: DictConfig) -> None:
    """Evaluate at each resolution; rows are appended to results.jsonl as they are measured."""
    with one_line_errors():
        config = to_config(composed, schema_of(composed))
        if isinstance(config, CostConfig):
            check_cost(config)
            from semabench.evaluation.cost.run import measure_cost

            measure_cost(config)
        else:
            check_values(config)
            from semabench.evaluation.run import evaluate

            evaluate(config)


def keys() -> list[str]:
    """Return the valid keys of what the command line asks for."""
    cost = any(word.startswith("measure=cost") for word in sys.argv[1:])
    return known_keys(CostConfig if cost else EvalConfig)


if __name__ == "__main__":
    run_app(main, keys)
