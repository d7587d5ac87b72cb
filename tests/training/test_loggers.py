"""W&B may fail in mid-run: the training goes on, and says so once."""

from __future__ import annotations

import errno
import logging
import os

import pytest

from semabench.config.schema import LoggerConfig, TrainConfig
from semabench.errors import SemabenchError
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
