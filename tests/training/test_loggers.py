"""W&B may fail in mid-run: the training goes on, and says so once."""

from __future__ import annotations

import errno
import logging
import os
import sys
from types import SimpleNamespace

import pytest

from semabench.config.schema import LoggerConfig, TrainConfig
from semabench.errors import SemabenchError
from semabench.results.curves import mlflow_uri
from semabench.training.loggers import StepLogger, create_loggers


class Run:
    """A W&B run on a full disk: its own log, too, finds no room."""

    id = "0"

    def __init__(self):
        self.own_log = logging.getLogger("wandb-of-a-full-disk")
        self.own_log.propagate = False
        self.own_log.setLevel(logging.INFO)
        self.own_log.addHandler(logging.FileHandler("/dev/full"))

    def define_metric(self, *_, **__):
        pass

    def log(self, row, step):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def finish(self):
        self.own_log.info("restore done")


def test_a_full_disk_is_one_warning_and_no_traceback(monkeypatch, caplog, capfd):
    run = Run()
    logger = StepLogger(experiment=run)
    monkeypatch.setattr(StepLogger, "experiment", run)
    run.finish()
    assert "Message: 'restore done'" in capfd.readouterr().err  # what the test is about
    for step in (1, 2):
        logger.log_metrics({"train/loss": 1.0}, step=step)
    logger.close()
    assert caplog.text.count("W&B fails ([Errno 28] No space left on device)") == 1
    assert "restore done" not in capfd.readouterr().err
    assert logging.raiseExceptions


def test_several_at_once_and_one_that_is_not_installed(tmp_path, monkeypatch):
    config = TrainConfig(logger=LoggerConfig("csv", also=["tensorboard", "csv"]))
    kinds = [type(logger).__name__ for logger in create_loggers(config, tmp_path)]
    assert kinds == ["CSVLogger", "TensorBoardLogger"]

    def absent(*_, **__):
        raise ModuleNotFoundError("neither tensorboard nor tensorboardX")

    monkeypatch.setattr("semabench.training.loggers.TensorBoardLogger", absent)
    with pytest.raises(SemabenchError, match="pip install tensorboard"):
        create_loggers(config, tmp_path)


def test_a_resumed_run_goes_on_in_mlflow(tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = TrainConfig(logger=LoggerConfig("mlflow"), seed=3)
    directory = tmp_path / "outputs" / "demo" / "run"
    directory.mkdir(parents=True)
    for step in (1, 2):
        (logger,) = create_loggers(config, directory)
        logger.log_metrics({"train/loss": 1.0 / step}, step=step)
        logger.finalize("success")
    client = MlflowClient(mlflow_uri(directory))
    (run,) = client.search_runs([logger.experiment_id])
    assert run.data.params["seed"] == "3"
    assert [p.step for p in client.get_metric_history(run.info.run_id, "train/loss")] == [1, 2]
    (directory / "mlflow_run_id").write_text("0" * 32)
    with pytest.raises(SemabenchError, match=r"MLflow at sqlite:.* fails .*remove .*mlflow_run_id"):
        create_loggers(config, directory)


def test_trackio_is_given_steps_and_goes_on(tmp_path, monkeypatch):
    told = []
    run = SimpleNamespace(
        project="p", name="run", finish=lambda: told.append("finished"),
        log=lambda metrics, step: told.append((metrics, step)),
    )  # fmt: skip
    begun = []
    trackio = SimpleNamespace(init=lambda **options: begun.append(options) or run)
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    (logger,) = create_loggers(TrainConfig(logger=LoggerConfig("trackio")), tmp_path / "run")
    logger.log_metrics({"train/loss": 1.0}, step=7)
    logger.finalize("success")
    assert told == [({"train/loss": 1.0}, 7), "finished"]
    assert (begun[0]["name"], begun[0]["resume"]) == ("run", "allow")
    assert (logger.name, logger.version) == ("p", "run")
