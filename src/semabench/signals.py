"""Signals that ask a run to stop: Slurm sends them to every process of a job."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

STOP = (signal.SIGTERM, signal.SIGUSR1)  # preemption; time is short


@contextmanager
def postponed() -> Iterator[None]:
    """Let them come when the block is over; processes started within never get them by default.

    A process, and each of its threads, starts with the signals blocked that its parent blocks.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
