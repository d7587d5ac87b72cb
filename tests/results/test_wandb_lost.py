"""A W&B server that is lost in mid-run: what it has missed comes later; nobody waits for long."""

from __future__ import annotations

import threading
import time

import pytest
import wandb

from helpers.wandb_server import WandbServer
from semabench.results import wandb_log
from semabench.training.loggers import StepLogger


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server, and a client that tries again at short intervals."""
    settings = wandb_log._settings

    def quick(silent: bool) -> wandb.Settings:
        told = settings(silent)
        told.x_file_stream_retry_wait_min_seconds = 0.1
        told.x_file_stream_retry_wait_max_seconds = 0.2
        return told

    monkeypatch.setattr(wandb_log, "_settings", quick)
    wandb.teardown()  # a process of its own, with these surroundings
    with WandbServer() as running:
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        yield running
    wandb.teardown()


def wait_for(condition) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_lost_and_back_nothing_is_missing(server, tmp_path):
    """Its client sends every 15 s, and at the end: then, here, it is refused at first."""
    run = wandb_log.start_run(tmp_path, "abc", project="p", name="n", mode="online")
    server.lost = True
    for step in range(10):
        run.log({"a": step})
    ending = threading.Thread(target=run.finish, daemon=True)
    ending.start()
    wait_for(lambda: server.refused >= 2)
    assert not server.rows
    server.lost = False
    ending.join(timeout=60)
    assert [row["a"] for row in server.rows] == list(range(10))


def test_lost_for_good_a_finished_run_ends_and_says_how_to_upload(
    server, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(wandb_log, "FINISH_SECONDS", 2.0)
    run = wandb_log.start_run(tmp_path, "abc", project="p", name="n", mode="online")
    logger = StepLogger(experiment=run, save_dir=tmp_path)
    server.lost = True
    run.log({"a": 1})
    began = time.monotonic()
    logger.close()
    assert time.monotonic() - began < 20
    told = f"W&B does not answer: `wandb sync {tmp_path}/wandb/run-"
    assert sum(record.message.startswith(told) for record in caplog.records) == 1
