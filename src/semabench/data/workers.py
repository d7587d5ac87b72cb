"""Run a function over chunks in worker processes and get the results in order.

``multiprocessing.Pool`` waits for ever when a worker is killed, and reads ahead without bound;
here a dead worker is an error, at most ``WINDOW`` chunks a worker are under way, and no worker
outlives its parent.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Generic, TypeVar

from semabench.errors import SemabenchError

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")

#: Chunks under way for each worker: one being worked on, one waiting.
WINDOW = 2


def worker_count(workers: int | None) -> int:
    """Return ``workers``, or as many as the cores that this process may use if not given.

    Raises:
        SemabenchError: fewer than one.
    """
    if workers is None:
        affinity = getattr(os, "sched_getaffinity", None)
        return len(affinity(0)) if affinity else os.cpu_count() or 1
    if workers < 1:
        raise SemabenchError(f"workers must be at least 1, got {workers}.")
    return workers


class Workers(Generic[Chunk, Result]):
    """Processes that compute ``function(chunk)``; a context manager that always ends them.

    Enter it before anything starts threads or takes file locks: the processes are forked.

    Args:
        function: called in the workers; whatever it returns is pickled.
        count: number of processes, at least one.
    """

    def __init__(self, function: Callable[[Chunk], Result], count: int) -> None:
        self._function = function
        self._count = count
        self._processes: dict[Connection, Any] = {}

    def __enter__(self) -> Workers[Chunk, Result]:
        context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        for _ in range(self._count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(self._function, theirs), daemon=True)
            process.start()
            # With no copy of the other end left here or in later workers, a death is an EOF.
            theirs.close()
            self._processes[ours] = process
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes.values():
            process.kill()
        for connection, process in self._processes.items():
            process.join()
            connection.close()
        self._processes.clear()

    def map(self, chunks: Sequence[Chunk]) -> Iterator[Result]:
        """Yield ``function(chunk)`` for every chunk, in order.

        Raises:
            SemabenchError: a worker died; the message says how.
            RuntimeError: the function raised; the message holds its traceback.
        """
        done: dict[int, Result] = {}
        running: dict[Connection, deque[int]] = {c: deque() for c in self._processes}
        sent = 0
        for wanted in range(len(chunks)):
            while True:
                while sent < min(len(chunks), wanted + WINDOW * self._count):
                    idlest = min(running, key=lambda c: len(running[c]))
                    if len(running[idlest]) >= WINDOW:
                        break
                    self._send(idlest, chunks[sent])
                    running[idlest].append(sent)
                    sent += 1
                if wanted in done:
                    break
                for ready in wait([c for c, queue in running.items() if queue]):
                    assert isinstance(ready, Connection)
                    done[running[ready].popleft()] = self._receive(ready)
            yield done.pop(wanted)

    def _send(self, connection: Connection, chunk: Chunk) -> None:
        try:
            connection.send(chunk)
        except OSError as error:
            raise self._death(connection) from error

    def _receive(self, connection: Connection) -> Result:
        try:
            failure, result = connection.recv()
        except (EOFError, OSError) as error:
            raise self._death(connection) from error
        if failure:
            raise RuntimeError(f"in a worker process:\n{failure}")
        return result

    def _death(self, connection: Connection) -> SemabenchError:
        process = self._processes[connection]
        process.join(5)
        code = process.exitcode
        how = f"exit code {code}"
        if code is not None and code < 0:
            how = signal.Signals(-code).name
            if code == -signal.SIGKILL:
                how += ", often the sign of too little memory: try fewer workers"
        return SemabenchError(f"a worker process died ({how}).")


def _work(function: Callable[[Any], Any], connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    threading.Thread(target=_die_with_parent, daemon=True).start()
    while True:
        try:
            chunk = connection.recv()
            connection.send(_answer(function, chunk))
        except (EOFError, OSError):
            return


def _answer(function: Callable[[Any], Any], chunk: Any) -> tuple[str | None, Any]:
    """Return (traceback or None, result)."""
    try:
        return None, function(chunk)
    except Exception:
        return traceback.format_exc(), None


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
