"""The run's loggers: one W&B run, CSV files, TensorBoard's, MLflow's, trackio's."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import (
    CSVLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from semabench.config.schema import TrainConfig
from semabench.errors import SemabenchError, first_line
from semabench.files import atomic_write
from semabench.processes import global_rank
from semabench.results.curves import MLFLOW_RUN, missing, mlflow_uri
from semabench.results.wandb_log import finish_run, keep_artifact, run_id, start_run, wandb_mode

log = logging.getLogger(__name__)


class StepLogger(WandbLogger):
    """Logs at the optimiser's step, so that a resumed run goes on where its curves ended.

    W&B's own process may be gone: Slurm ends every process of a job, that one at once, ours when
    its step is stored; or its disk is full. No training fails for it; the next start logs on, in
    the same run.
    """

    gone = False

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log under W&B's step ``step``; Lightning leaves W&B to count its own calls."""
        if self.gone:
            return
        row = {**metrics, "trainer/global_step": step}
        try:
            self.experiment.log(row, step=step)
        except Exception as error:  # which, depends on where it finds out
            self._lost(error)

    def close(self) -> None:
        """End the W&B run."""
        try:
            with _no_tracebacks():
                self.gone = not finish_run(self.experiment) or self.gone
        except Exception as error:
            self._lost(error)
        if self.gone:
            import wandb

            # Or it would try once more when Python ends.
            with contextlib.suppress(Exception), _no_tracebacks():
                wandb.teardown()

    def _lost(self, error: Exception) -> None:
        if not self.gone:
            reason = first_line(error)
            log.warning("W&B fails (%s): it logs no more in this start.", reason)
        self.gone = True


@contextlib.contextmanager
def _no_tracebacks() -> Iterator[None]:
    """Let W&B's own log fail in silence, where its disk is full."""
    before, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    finally:
        logging.raiseExceptions = before


def create_loggers(config: TrainConfig, run_dir: Path) -> list[Logger]:
    """Return the loggers that the config names; on ranks other than 0, W&B is not started.

    The id of the W&B run is kept in the run directory: a resumed run, and its evaluation, log to
    the same one.

    Raises:
        SemabenchError: a tracker is not installed; W&B cannot write its files.
    """
    made = {
        "wandb": _wandb,
        "csv": _csv,
        "tensorboard": _tensorboard,
        "mlflow": _mlflow,
        "trackio": _trackio,
    }
    names = dict.fromkeys([config.logger.name, *config.logger.also])
    loggers = (made[name](config, run_dir) for name in names)
    return [logger for logger in loggers if logger is not None]


def _csv(config: TrainConfig, run_dir: Path) -> Logger:
    # One folder per start: a resumed run must not delete the metrics of its first start.
    return CSVLogger(save_dir=run_dir, name="csv")


def _tensorboard(config: TrainConfig, run_dir: Path) -> Logger:
    try:
        return TensorBoardLogger(save_dir=run_dir, name="tensorboard", version="")
    except ModuleNotFoundError as error:
        raise missing("tensorboard", "tensorboard") from error


def _mlflow(config: TrainConfig, run_dir: Path) -> Logger | None:
    """Return Lightning's logger on this run of MLflow's, which later starts go on with."""
    if global_rank() != 0:
        return None
    marker = run_dir / MLFLOW_RUN
    try:
        logger = MLFlowLogger(
            experiment_name=config.logger.project,
            run_name=run_dir.name,
            tracking_uri=mlflow_uri(run_dir),
            run_id=marker.read_text().strip() if marker.exists() else None,
        )
    except ModuleNotFoundError as error:
        raise missing("mlflow", "mlflow") from error
    try:
        logger.log_hyperparams(asdict(config))
    except Exception as error:  # a server's, a file's: MLflow raises many kinds
        raise SemabenchError(
            f"MLflow at {mlflow_uri(run_dir)} fails ({first_line(error)}): set "
            f"MLFLOW_TRACKING_URI, or remove {marker} if the run is gone from there."
        ) from error
    atomic_write(marker, f"{logger.run_id}\n")
    return logger


class TrackioLogger(Logger):
    """Logs to trackio, which has W&B's functions and keeps its runs in files."""

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.run = run

    @property
    def name(self) -> str:
        """Name of the project."""
        return str(self.run.project)

    @property
    def version(self) -> str:
        """Name of the run."""
        return str(self.run.name)

    def log_hyperparams(self, *arguments: Any, **more: Any) -> None:
        """Nothing: the run was given its config when it began."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log under the optimiser's step."""
        self.run.log(dict(metrics), step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.run.finish()


def _trackio(config: TrainConfig, run_dir: Path) -> Logger | None:
    if global_rank() != 0:
        return None
    try:
        import trackio
    except ImportError as error:
        raise missing("trackio", "trackio") from error
    run = trackio.init(
        project=config.logger.project,
        name=run_dir.name,
        group=config.experiment,
        config=asdict(config),
        resume="allow",
        embed=False,
    )
    return TrackioLogger(run)


def _wandb(config: TrainConfig, run_dir: Path) -> Logger | None:
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


def keep_checkpoint(loggers: Iterable[Logger], path: Path) -> None:
    """Upload a finished run's last checkpoint to W&B, where it logs there, on the first process."""
    for logger in loggers:
        if isinstance(logger, StepLogger) and not logger.gone:
            keep_artifact(logger.experiment, path, "model", {"run": path.parent.parent.name})


def close_loggers(loggers: Iterable[Logger]) -> None:
    """End the W&B run, so that an evaluation in this process can join it."""
    for logger in loggers:
        if isinstance(logger, StepLogger):
            logger.close()
