"""Train one model: `python train.py experiment=demo model=sema_nano`. See conf/ for all options."""

import hydra
from omegaconf import DictConfig

from semabench.app import one_line_errors, run_app
from semabench.config import TrainConfig, known_keys, to_config
from semabench.config_checks import check_values


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(composed: DictConfig) -> None:
    """Train, then evaluate at `evaluate_at`."""
    with one_line_errors():
        config = to_config(composed, TrainConfig)
        check_values(config)
        from semabench.evaluation.run import evaluate_trained
        from semabench.training.run import train

        run_dir = train(config)
        if config.evaluate_at:
            evaluate_trained(run_dir, config)


if __name__ == "__main__":
    run_app(main, lambda: known_keys(TrainConfig))
