"""Jobs on this machine, several at a time: each in a process of its own, with a GPU of its own."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from hydra.core.utils import JobReturn, JobStatus

from semabench.app import RESULT_FILE, JobFailed
from semabench.files import make_directory
from semabench.sweep import failure, job_texts

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@dataclass(frozen=True)
class Slot:
    """What a job may use: a GPU, if there are any, and some of the cores."""

    gpu: str | None  # as CUDA_VISIBLE_DEVICES names it
    cores: frozenset[int]


def slots(count: int | None) -> list[Slot]:
    """Return as many slots as jobs shall run at a time: one for each GPU, or one, if not given."""
    gpus = _gpus()
    count = count or len(gpus) or 1
    cores = sorted(os.sched_getaffinity(0))
    shares = [frozenset(cores[k::count] or cores) for k in range(count)]
    return [Slot(gpus[k % len(gpus)] if gpus else None, shares[k]) for k in range(count)]


def _gpus() -> list[str]:
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return visible.split(",")[:count] if visible else [str(k) for k in range(count)]


class ProcessPool:
    """Runs commands, as many at a time as there are slots, and hands signals on to them.

    A job that is killed, or takes its process down with it, takes no other along.

    Args:
        command: of each job, before its overrides.
        log_dir: of the jobs' output, ``<number>.log``.
        slots: see ``slots``.
    """

    def __init__(self, command: Sequence[str], log_dir: Path, slots: Sequence[Slot]) -> None:
        self.command = list(command)
        self.log_dir = log_dir
        self.stopped_by = 0
        self._slots: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in slots:
            self._slots.put(slot)
        self._count = len(slots)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def run(self, jobs: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
        """Run all jobs; return their results in order. The first one's number is ``first``.

        Raises:
            SystemExit: on SIGTERM and SIGUSR1, when all jobs have stored and ended.
            KeyboardInterrupt: on SIGINT, likewise.
        """
        make_directory(self.log_dir)
        print(f"{len(jobs)} job(s), {self._count} at a time; output: {self.log_dir}", flush=True)
        with self._signals(), ThreadPoolExecutor(self._count) as pool:
            futures: dict[Future[JobReturn], int] = {
                pool.submit(self._run, f"#{first + k}", list(job), text): k
                for k, (job, text) in enumerate(zip(jobs, job_texts(jobs), strict=True))
            }
            for future in as_completed(futures):
                future.result()
        if self.stopped_by == signal.SIGINT:
            raise KeyboardInterrupt
        if self.stopped_by:
            raise SystemExit(128 + self.stopped_by)
        return [future.result() for future in futures]

    def _run(self, number: str, overrides: list[str], text: str) -> JobReturn:
        slot = self._slots.get()
        try:
            if self.stopped_by:
                return failure(JobFailed("not started"))
            start = time.monotonic()
            self._tell(f"{number} {text}: running")
            returned = self._start(self.log_dir / f"{number[1:]}.log", overrides, slot)
            minutes, seconds = divmod(round(time.monotonic() - start), 60)
            done = returned.status == JobStatus.COMPLETED
            what = "finished" if done else f"failed ({returned._return_value})"
            self._tell(f"{number} {text}: {what} after {minutes}:{seconds:02d}")
            return returned
        finally:
            self._slots.put(slot)

    def _start(self, log: Path, overrides: list[str], slot: Slot) -> JobReturn:
        variables = {} if slot.gpu is None else {"CUDA_VISIBLE_DEVICES": slot.gpu}
        with log.open("wb") as output, tempfile.TemporaryDirectory() as directory:
            result = Path(directory) / "result"
            process = subprocess.Popen(
                [*self.command, *overrides],
                env={**os.environ, **variables, RESULT_FILE: str(result)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # ctrl-C comes from us, once
            )
            with contextlib.suppress(OSError):
                os.sched_setaffinity(process.pid, slot.cores)
            with self._lock:
                self._running.add(process)
                late = self.stopped_by
            if late:
                process.send_signal(late)
            code = process.wait()
            with self._lock:
                self._running.discard(process)
            if code == 0 and result.exists():
                returned = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
                returned.return_value = json.loads(result.read_text())
                return returned
        return failure(JobFailed(_reason(log, code)))

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._forward) for number in FORWARDED}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self.stopped_by = number
        for process in list(self._running):
            process.send_signal(number)

    def _tell(self, line: str) -> None:
        with self._lock:
            print(line, flush=True)


def _reason(log: Path, code: int) -> str:
    """Return why a job ended with this code, as far as its output tells."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}; see {log}"
    lines = log.read_text(errors="replace").splitlines()
    for line in reversed(lines):
        if line.startswith("error: "):
            return line.removeprefix("error: ")
    return f"{lines[-1] if lines else f'exit code {code}'}; see {log}"


def python_command(app: str) -> list[str]:
    """Return how an app, ``train`` or ``eval``, is started, wherever it is installed."""
    return [sys.executable, "-m", "semabench", app]
