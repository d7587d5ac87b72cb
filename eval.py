"""Accuracy and throughput against resolution: `python eval.py checkpoint=RUN resolutions=[224]`."""

import hydra
from omegaconf import DictConfig

from semabench.app import one_line_errors, run_app
from semabench.config import EvalConfig, known_keys, to_config
from semabench.config_checks import check_values


@hydra.main(version_base="1.3", config_path="conf", config_name="eval")
def main(composed: DictConfig) -> None:
    """Evaluate at each resolution; rows are appended to results.jsonl as they are measured."""
    with one_line_errors():
        config = to_config(composed, EvalConfig)
        check_values(config)
        from semabench.evaluation.run import evaluate

        evaluate(config)


if __name__ == "__main__":
    run_app(main, lambda: known_keys(EvalConfig))
