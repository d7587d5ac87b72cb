"""The run's logger: one W&B run, or CSV files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from semabench.config import TrainConfig
from semabench.results.wandb_log import start_run, wandb_mode
from semabench.run_id import run_id
from semabench.training.devices import global_rank


class StepLogger(WandbLogger):
    """Logs at the optimiser's step, so that a resumed run goes on where its curves ended."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log under W&B's step ``step``; Lightning leaves W&B to count its own calls."""
        row = {**metrics, "trainer/global_step": step}
        self.experiment.log(row, step=step)


def create_logger(config: TrainConfig, run_dir: Path) -> Logger | None:
    """Return the logger that the config names; on ranks other than 0, W&B is not started.

    The id of the W&B run is kept in the run directory: a resumed run, and its evaluation, log to
    the same one.
    """
    if config.logger.name == "csv":
        # One folder per start: a resumed run must not delete the metrics of its first start.
        return CSVLogger(save_dir=run_dir, name="csv")
    mode = wandb_mode(config.logger.mode)
    if mode == "disabled" or global_rank() != 0:
        return None
    run = start_run(
        run_dir,
        run_id=run_id(run_dir),
        project=config.logger.project,
        name=run_dir.name,
        group=config.experiment,
        tags=[config.model.name, config.recipe.name, config.data.name],
        config=asdict(config),
        mode=mode,
        job_type="train",
    )
    return StepLogger(experiment=run, save_dir=run_dir)


def close_logger(logger: Logger | None) -> None:
    """End the W&B run, so that an evaluation in this process can join it."""
    if isinstance(logger, WandbLogger):
        logger.experiment.finish()
