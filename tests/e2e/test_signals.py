"""Signals to a run, where there is no step to store them at: rows of docs/failures.md."""

from __future__ import annotations

import os
import signal

from helpers.apps import run_here
from helpers.mishaps import SHORT, assert_it_goes_on, at_step, error_line, last
from semabench.training.checkpoint import read_checkpoint
from semabench.training.loggers import close_loggers
from semabench.training.module import Classifier
from semabench.training.monitor import Throughput


def test_a_signal_before_the_first_step(trained, tmp_path, monkeypatch, capfd):
    """While the loaders start or the compiler works: there is nothing to store."""
    arguments = (*SHORT, f"output_root={tmp_path}")
    closed: list[int] = []

    def start(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def close(logger: object) -> None:
        closed.append(1)
        close_loggers(logger)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Throughput, "on_train_start", start)
        patch.setattr("semabench.training.run.close_loggers", close)
        assert run_here("train.py", *arguments, cwd=trained.cwd, patch=patch) == 143
    line = error_line(capfd.readouterr().err)
    assert line == "error: stopped by SIGTERM before its first step; start it again."
    assert closed == [1]
    assert not list(tmp_path.rglob("*.ckpt*"))


def test_a_second_ctrl_c_is_heard_while_the_loggers_close(trained, tmp_path, monkeypatch):
    """Which may take long where W&B does not answer."""
    arguments = (*SHORT, f"output_root={tmp_path}")

    def press() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    def close(logger: object) -> None:
        close_loggers(logger)  # type: ignore[arg-type]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    at_step(monkeypatch, 3, press)
    monkeypatch.setattr("semabench.training.run.close_loggers", close)
    assert run_here("train.py", *arguments, cwd=trained.cwd, patch=monkeypatch) == 130


def test_sigterm_during_validation(trained, tmp_path, monkeypatch, capfd):
    """It waits for the end of the epoch, whose checkpoint holds the validation.

    A second one, as the loggers are closed, is not heard: of several processes one may get its only
    one that late, and would die of it.
    """
    arguments = (*SHORT, f"output_root={tmp_path}")
    validate = Classifier.validation_step
    done: list[int] = []

    def step(self: Classifier, *batch: object) -> None:
        if self.current_epoch == 1 and not done:
            done.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
        validate(self, *batch)  # type: ignore[arg-type]

    def close(logger: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        close_loggers(logger)  # type: ignore[arg-type]

    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "validation_step", step)
        patch.setattr("semabench.training.run.close_loggers", close)
        assert run_here("train.py", *arguments, cwd=trained.cwd, patch=patch) == 143
    signal.signal(signal.SIGTERM, before)
    assert heard == []
    assert "stopped by SIGTERM at step 18 of 36" in error_line(capfd.readouterr().err)
    assert read_checkpoint(last(tmp_path))["global_step"] == 18
    assert_it_goes_on(arguments, trained.cwd, capfd, monkeypatch, trained)
