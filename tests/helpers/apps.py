"""Run the apps as a user does, in this process (quick) or in one of their own (killable)."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from semabench.processes import STOP

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = ("experiment=stress", "evaluate_at=[32,48]")


def environment() -> dict[str, str]:
    """One thread per process, no terminal width, nobody logged in to W&B."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "COV_"))}
    return {**kept, "OMP_NUM_THREADS": "1", "NETRC": "/nonexistent"}


def start(app: str, *arguments: str, cwd: Path, **extra: str) -> subprocess.Popen[str]:
    """Start an app in a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / app), *arguments],
        cwd=cwd,
        env={**environment(), **extra},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for an app that should succeed; return what it printed."""
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def run_here(app: str, *arguments: str, cwd: Path, patch: pytest.MonkeyPatch) -> int:
    """Run an app in this process; return its exit code."""
    patch.chdir(cwd)
    patch.setenv("NETRC", "/nonexistent")
    patch.setattr(sys, "argv", [str(REPOSITORY / app), *arguments])
    heard = {number: signal.getsignal(number) for number in STOP}
    try:
        runpy.run_path(str(REPOSITORY / app), run_name="__main__")
    except SystemExit as stopped:
        return int(stopped.code or 0)
    finally:
        for number, handler in heard.items():  # a run that stops hears no more
            signal.signal(number, handler)
    return 0
