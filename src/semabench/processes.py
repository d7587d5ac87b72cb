"""Other processes: pools that map a function, workers that are asked, commands that are run.

Whatever way, a death is told with its cause and takes nobody along, nothing outlives its parent,
and ctrl-C is the parent's to handle.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from semabench.errors import SemabenchError, first_line

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")

STOP = (signal.SIGTERM, signal.SIGUSR1)
"""Signals that ask a run to stop, preempted or short of time; Slurm sends them to every process."""

#: Chunks under way for each process of a pool: one being worked on, one waiting.
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


@contextlib.contextmanager
def postponed() -> Iterator[None]:
    """Let `STOP` come when the block is over; processes started within never get them by default.

    A process, and each of its threads, starts with the signals blocked that its parent blocks.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def global_rank() -> int:
    """Return this process's rank as torchrun or srun gave it; 0 where neither started it."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))


def describe_exit(code: int | None) -> str:
    """Say how a process ended: ``exit code 3``, ``killed by SIGKILL``."""
    if code is None or code >= 0:
        return f"exit code {code}"
    return f"killed by {signal.Signals(-code).name}"


def start(
    command: Sequence[str], log: Any, variables: Mapping[str, str], pass_fds: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own: no ctrl-C reaches it but through us.

    Args:
        command: and its arguments.
        log: open file for what it prints.
        variables: beside those of this process's environment.
        pass_fds: file descriptors that it inherits.
    """
    return subprocess.Popen(
        command,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=pass_fds,
        start_new_session=True,
    )


def end_with_parent(connection: Connection) -> None:
    """End this process once the parent's end of its pipe is closed, also amid an answer.

    Else, after kill -9 of the parent, a compilation or a training would go on to its end. The
    thread sleeps in the kernel until then: it takes no time from what is measured.
    """

    def watch() -> None:
        hangup = select.poll()
        hangup.register(connection.fileno(), 0)  # 0: nothing but the hang-up itself
        hangup.poll()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _answer_all(
    connection: Connection, answer: Callable[[Any], Any], after: Callable[[], None]
) -> None:
    """Answer requests until the parent hangs up: (None, result), or (the error, None)."""
    with contextlib.suppress(EOFError, ConnectionError, KeyboardInterrupt):
        while True:
            request = connection.recv()
            try:
                reply: tuple[Any, Any] = (None, answer(request))
            except Exception as error:
                reply = (first_line(error), traceback.format_exc()), None
            after()
            connection.send(reply)


class WorkerPool(Generic[Chunk, Result]):
    """Forked processes that compute ``function(chunk)``; a context manager that always ends them.

    ``multiprocessing.Pool`` waits for ever when a worker is killed, and a ``ProcessPoolExecutor``
    does not say how it died, nor ends those at work; both read ahead without bound.

    Enter it before anything starts threads or takes file locks.

    Args:
        function: called in the workers; whatever it returns is pickled.
        count: number of processes, at least one.
    """

    def __init__(self, function: Callable[[Chunk], Result], count: int) -> None:
        self._function = function
        self._count = count
        self._processes: dict[Connection, Any] = {}

    def __enter__(self) -> Self:
        context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        for _ in range(self._count):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_work, args=(self._function, theirs, [*self._processes, ours]), daemon=True
            )
            process.start()
            # With no copy of the other end left here or in later workers, a death is an EOF.
            theirs.close()
            self._processes[ours] = process
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
        for connection, process in self._processes.items():
            process.join()
            connection.close()
        self._processes.clear()

    def map(self, chunks: Sequence[Chunk]) -> Iterator[Result]:
        """Yield ``function(chunk)`` for every chunk, in order, ``WINDOW`` a worker under way.

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
                    with self._alive(idlest):
                        idlest.send(chunks[sent])
                    running[idlest].append(sent)
                    sent += 1
                if wanted in done:
                    break
                for ready in wait([c for c, queue in running.items() if queue]):
                    assert isinstance(ready, Connection)
                    with self._alive(ready):
                        failure, result = ready.recv()
                    if failure:
                        raise RuntimeError(f"in a worker process:\n{failure[1]}")
                    done[running[ready].popleft()] = result
            yield done.pop(wanted)

    @contextlib.contextmanager
    def _alive(self, connection: Connection) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError) as error:
            process = self._processes[connection]
            process.join(5)
            how = describe_exit(process.exitcode)
            if process.exitcode == -signal.SIGKILL:
                how += ", often the sign of too little memory: try fewer workers"
            raise SemabenchError(f"a worker process died ({how}).") from error


def _work(
    function: Callable[[Any], Any], connection: Connection, parents: Iterable[Connection]
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    for end in parents:  # inherited: held here, they would hide the parent's death
        end.close()
    end_with_parent(connection)
    _answer_all(connection, function, lambda: None)


class WorkerError(Exception):
    """A worker could not do what it was asked: one line. The others go on."""


class Worker:
    """An object in a fresh process of its own, which is started when it is first asked.

    A process that has died, or does not answer, is replaced at the next request.

    Args:
        kind: class of the object, which the process imports by its name; it may have a method
            ``rest``, called after every answer.
        told: arguments of ``kind``.
        log: file for what the process prints.
        patience: seconds without an answer after which it is taken for hung.
        threads: processes that it may compile kernels with.
    """

    entry = "from semabench.processes import main; main()"

    def __init__(
        self, kind: type, *told: Any, log: Path, patience: float = 600, threads: int = 1
    ) -> None:
        self.kind = kind
        self.told = told
        self.log = log
        self.patience = patience
        self.threads = threads
        self.process: subprocess.Popen[bytes] | None = None
        self.connection: Connection | None = None

    def ask(self, method: str, *arguments: Any) -> Any:
        """Have the object call one of its methods, and return what that returned.

        Raises:
            WorkerError: it failed, died, or was killed for not answering.
        """
        if self.process is None:
            self._start()
        connection = self.connection
        assert connection is not None
        try:
            connection.send((method, arguments))
            if not connection.poll(self.patience):
                self.stop()
                raise WorkerError(f"no answer within {self.patience:g} s, see {self.log}")
            failure, answer = connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerError(self._describe_failure()) from error
        if failure:
            raise WorkerError(failure[0])
        return answer

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        process, connection = self.process, self.connection
        self.process = self.connection = None
        if process is not None:
            process.kill()
            process.wait()
        if connection is not None:
            connection.close()

    def _start(self) -> None:
        ours, theirs = multiprocessing.Pipe()
        # The same code as this process runs, wherever that was imported from.
        paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        variables = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        compiling = "TORCHINDUCTOR_COMPILE_THREADS"
        if compiling not in os.environ:
            variables[compiling] = str(self.threads)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-c", self.entry, str(theirs.fileno())]
        with open(self.log, "ab") as log:
            self.process = start(command, log, variables, [theirs.fileno()])
        theirs.close()  # the worker's copy alone: its death is then the end of the pipe
        self.connection = ours
        with contextlib.suppress(BrokenPipeError):  # `ask` will find it dead
            ours.send((self.kind, self.told))

    def _describe_failure(self) -> str:
        process = self.process
        if process is None:
            return "stopped"
        code = process.wait()
        self.stop()
        return f"its process died ({describe_exit(code)}), see {self.log}"


def main() -> None:
    """Serve the parent at the file descriptor that is the first argument."""
    connection = Connection(int(sys.argv[1]))
    end_with_parent(connection)
    serve(connection)


def serve(connection: Connection) -> None:
    """Answer a `Worker`'s requests until it hangs up.

    The first message is the object's class and its arguments; then each is (method, arguments).
    """
    with contextlib.suppress(EOFError, ConnectionError, KeyboardInterrupt):
        kind, told = connection.recv()
        served = kind(*told)

        def answer(request: tuple[str, tuple[Any, ...]]) -> Any:
            try:
                return getattr(served, request[0])(*request[1])
            except Exception:
                traceback.print_exc()  # into the log
                raise

        _answer_all(connection, answer, getattr(served, "rest", lambda: None))


@contextlib.contextmanager
def stopped_at_the_end(workers: Sequence[Worker]) -> Iterator[None]:
    """End all processes when the block ends, however it does."""
    try:
        yield
    finally:
        for worker in workers:
            worker.stop()


@dataclass(frozen=True)
class Request:
    """What to ask a worker, and what to call the answer."""

    worker: Worker
    tag: Any
    method: str
    arguments: tuple[Any, ...] = ()


def ask_at_once(requests: Iterable[Request], answered: Callable[[Any, Any], None]) -> None:
    """Let all workers work at the same time, each through its own requests in their order.

    Args:
        requests: of any workers.
        answered: called, in threads, with the tag of a request and its answer, which is a
            WorkerError where it failed.
    """
    queues: dict[int, list[Request]] = {}
    for request in requests:
        queues.setdefault(id(request.worker), []).append(request)

    def work(queue: list[Request]) -> None:
        for request in queue:
            try:
                answer = request.worker.ask(request.method, *request.arguments)
            except WorkerError as error:
                answer = error
            answered(request.tag, answer)

    with ThreadPoolExecutor(max(1, len(queues))) as threads:
        try:
            for future in [threads.submit(work, queue) for queue in queues.values()]:
                future.result()
        except BaseException:  # ctrl-C: the threads wait for answers that nobody needs now
            threads.shutdown(wait=False, cancel_futures=True)
            for queue in queues.values():
                queue[0].worker.stop()
            raise
