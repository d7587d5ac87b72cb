"""W&B may fail in mid-run: the training goes on, and says so once."""

from __future__ import annotations

import errno
import logging
import os

from semabench.training.loggers import StepLogger


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
