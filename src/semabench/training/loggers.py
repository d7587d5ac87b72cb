"""The run's loggers: one W&B run, CSV files, TensorBoard's, MLflow's, trackio's."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from semabench.processes import global_rank
from semabench.results.trackers import join_mlflow, join_trackio, mlflow_uri, require_trackers
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
    require_trackers(names)
    loggers = (made[name](config, run_dir) for name in names)
    return [logger for logger in loggers if logger is not None]


def _csv(config: TrainConfig, run_dir: Path) -> Logger:
    # One folder per start: a resumed run must not delete the metrics of its first start.
    return CSVLogger(save_dir=run_dir, name="csv")


def _tensorboard(config: TrainConfig, run_dir: Path) -> Logger:
    return TensorBoardLogger(save_dir=run_dir, name="tensorboard", version="")


class _Forgiving:
    """Of a logger: no training fails for its tracker; what it cannot log is one warning."""

    gone = False
    tracker = ""

    def trying(self, do: Callable[[], object]) -> None:
        """Do it, unless that has failed before in this start."""
        if self.gone:
            return
        try:
            do()
        except Exception as error:  # a server's, a database's, a disk's
            self.gone = True
            log.warning(
                "%s fails (%s): it logs no more in this start.", self.tracker, first_line(error)
            )


class MLflow(_Forgiving, MLFlowLogger):
    """Lightning's logger, on a run that earlier starts have begun."""

    tracker = "MLflow"

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log under the optimiser's step."""
        self.trying(lambda: super(MLflow, self).log_metrics(metrics, step))

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Mark the run as ended."""
        self.trying(lambda: super(MLflow, self).finalize(status))


def _mlflow(config: TrainConfig, run_dir: Path) -> Logger | None:
    if global_rank() != 0:
        return None
    uri = mlflow_uri(run_dir)
    told = os.environ.get("MLFLOW_TRACKING_URI")
    try:
        client, run_id, fresh = join_mlflow(run_dir, config.logger.project)
        logger = MLflow(tracking_uri=uri, run_id=run_id)
        assert logger.experiment
        if fresh:  # MLflow refuses changes, which later starts may have
            logger.log_hyperparams(asdict(config))
        client.update_run(run_id, status="RUNNING")
    except Exception as error:
        raise SemabenchError(
            f"MLflow at {uri} fails ({first_line(error)}): set MLFLOW_TRACKING_URI, or another "
            "logger."
        ) from error
    finally:  # Lightning sets it, for all later runs of this process
        if told is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)
    return logger


class TrackioLogger(_Forgiving, Logger):
    """Logs to trackio, which has W&B's functions and keeps its runs in files."""

    tracker = "trackio"

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
        self.trying(lambda: self.run.log(dict(metrics), step=step))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.trying(self.run.finish)


def _trackio(config: TrainConfig, run_dir: Path) -> Logger | None:
    if global_rank() != 0:
        return None
    try:
        return TrackioLogger(
            join_trackio(
                run_dir, config.logger.project, group=config.experiment, config=asdict(config)
            )
        )
    except Exception as error:
        raise SemabenchError(f"trackio fails ({first_line(error)}): set another logger.") from error


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
