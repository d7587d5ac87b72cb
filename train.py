"""Train one model: `python train.py experiment=demo model=sema_nano`. See conf/ for all options."""

import hydra
from omegaconf import DictConfig

from semabench.app import asked_for, run_app, run_job
from semabench.config.check import check_values
from semabench.config.no_effect import check_asked
from semabench.config.schema import TrainConfig, known_keys, to_config


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(composed: DictConfig) -> float | None:
    """Train, then evaluate at `evaluate_at`; return what a search would maximise."""
    return run_job(_train, composed)


def _train(composed: DictConfig) -> float | None:
    config = to_config(composed, TrainConfig)
    check_values(config)
    check_asked(config, asked_for())
    from semabench.evaluation.run import evaluate_trained
    from semabench.training.run import objective, train

    run_dir = train(config)
    if config.evaluate_at:
        evaluate_trained(run_dir, config)
    return objective(run_dir) if config.data.holdout else None  # the rest is for reporting


if __name__ == "__main__":
    run_app(main, lambda: known_keys(TrainConfig))
