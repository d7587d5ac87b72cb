"""One process at a time trains in a run directory, and a dead one is never in the way."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from semabench.errors import SemabenchError
from semabench.training.lock import run_lock

HOLD = """
import os, sys, time
from pathlib import Path
from semabench.training.lock import run_lock
with run_lock(Path(sys.argv[1])):
    if os.fork() == 0:
        time.sleep(60)
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    run_dir = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run_dir)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        what = rf"run is in use by process {holder.pid} on .+, since 20.*name="
        with pytest.raises(SemabenchError, match=what), run_lock(run_dir, patience=0.3):
            pass
        holder.kill()  # SIGKILL; its forked child lives on
        holder.wait()
        assert (run_dir / "lock").exists()
        with run_lock(run_dir):
            (run_dir / "something").touch()
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.stdout.close()  # type: ignore[union-attr]
    assert [path.name for path in run_dir.iterdir()] == ["something"]


def test_nothing_is_left_of_a_run_that_did_nothing(tmp_path):
    with pytest.raises(ValueError, match="mistake"), run_lock(tmp_path / "run"):
        raise ValueError("mistake")
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_told_and_used(tmp_path, monkeypatch, caplog):
    def flock(descriptor, how):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "flock", flock)
    with run_lock(tmp_path):
        pass
    assert "cannot be locked" in caplog.text


def test_a_lock_whose_file_was_removed_is_taken_again(tmp_path, monkeypatch):
    """The holder removes the file and lets go between our opening and locking it."""
    flock, calls = fcntl.flock, []

    def first_removes(descriptor, how):
        if not calls:
            (tmp_path / "lock").unlink()
        calls.append(descriptor)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", first_removes)
    with run_lock(tmp_path):
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")
    assert len(calls) == 2
