"""W&B may fail in mid-run: the training goes on, and says so once."""

from __future__ import annotations

import errno
import logging
import os
import sys
from types import SimpleNamespace

import pytest
from mlflow.tracking import MlflowClient

from semabench.config.schema import LoggerConfig, TrainConfig
from semabench.errors import SemabenchError
from semabench.results.trackers import mlflow_uri
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

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SemabenchError, match="pip install tensorboard"):
        create_loggers(config, tmp_path)


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """Of a run; MLflow's runs are beside its experiment."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # put back whatever is set in between
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    made = tmp_path / "outputs" / "demo" / "run"
    made.mkdir(parents=True)
    return made


def test_a_resumed_run_goes_on_in_mlflow_though_its_config_changed(directory):
    for step, workers in ((1, 2), (2, 4)):
        config = TrainConfig(logger=LoggerConfig("mlflow"), seed=3)
        config.data.num_workers = workers
        (logger,) = create_loggers(config, directory)
        assert logger.experiment.get_run(logger.run_id).info.status == "RUNNING"
        logger.log_metrics({"train/loss": 1.0 / step}, step=step)
        logger.finalize("success")
    assert "MLFLOW_TRACKING_URI" not in os.environ
    client = MlflowClient(mlflow_uri(directory))
    (run,) = client.search_runs([logger.experiment_id])
    assert (run.data.params["seed"], run.data.params["data/num_workers"]) == ("3", "2")
    assert run.info.status == "FINISHED"
    assert [p.step for p in client.get_metric_history(run.info.run_id, "train/loss")] == [1, 2]


def test_mlflow_that_fails_in_mid_run_ends_no_training(directory, monkeypatch, caplog):
    (logger,) = create_loggers(TrainConfig(logger=LoggerConfig("mlflow")), directory)

    def fails(*_, **__):
        raise RuntimeError("database is locked")

    monkeypatch.setattr(logger.experiment, "log_batch", fails)
    for step in (1, 2):
        logger.log_metrics({"train/loss": 1.0}, step=step)
    logger.finalize("success")
    assert caplog.text.count("MLflow fails (database is locked): it logs no more") == 1


def test_mlflow_that_cannot_begin_is_told(directory, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/no/such/place.db")
    with pytest.raises(SemabenchError, match=r"MLflow at sqlite:.* fails"):
        create_loggers(TrainConfig(logger=LoggerConfig("mlflow")), directory)


def test_trackio_is_given_steps_and_goes_on(directory, monkeypatch, caplog):
    told = []
    run = SimpleNamespace(
        project="p", name="run", finish=lambda: told.append("finished"),
        log=lambda metrics, step: told.append((metrics, step)),
    )  # fmt: skip
    begun = []
    trackio = SimpleNamespace(init=lambda **options: begun.append(options) or run)
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    (logger,) = create_loggers(TrainConfig(logger=LoggerConfig("trackio")), directory)
    logger.log_metrics({"train/loss": 1.0}, step=7)
    logger.finalize("success")
    assert told == [({"train/loss": 1.0}, 7), "finished"]
    assert begun[0]["name"].startswith("demo/run-")
    assert begun[0]["resume"] == "allow"
    run.log = None  # it fails
    logger.log_metrics({"train/loss": 1.0}, step=8)
    assert "trackio fails" in caplog.text
    assert (logger.name, logger.version) == ("p", "run")
