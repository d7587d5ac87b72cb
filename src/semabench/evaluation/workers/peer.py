"""The parent's side of a worker process: start it, ask it, outlive it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import semabench


class PeerError(Exception):
    """A worker could not do what it was asked: one line. The others go on."""


class Peer:
    """A worker in a process of its own, which is started when it is first asked.

    A process that has died, or does not answer, is replaced at the next request.

    Args:
        kind: class of the worker, which the process imports by its name.
        told: arguments of ``kind``.
        log: file for what the process prints.
        patience: seconds without an answer after which it is taken for hung.
        threads: processes that it may compile kernels with.
    """

    entry = "from semabench.evaluation.workers.serve import main; main()"

    def __init__(
        self,
        kind: type,
        *told: Any,
        log: Path,
        patience: float = 600,
        threads: int = 1,
    ) -> None:
        self.kind = kind
        self.told = told
        self.log = log
        self.patience = patience
        self.threads = threads
        self.process: subprocess.Popen[bytes] | None = None
        self.connection: Connection | None = None

    def ask(self, method: str, *arguments: Any) -> Any:
        """Have the worker call one of its methods, and return what that returned.

        Raises:
            PeerError: it failed, died, or was killed for not answering.
        """
        if self.process is None:
            self._start()
        connection = self.connection
        assert connection is not None
        try:
            connection.send((method, arguments))
            if not connection.poll(self.patience):
                self.stop()
                raise PeerError(f"no answer within {self.patience:g} s, see {self.log}")
            done, answer = connection.recv()
        except (EOFError, OSError) as error:
            raise PeerError(self._obituary()) from error
        if not done:
            raise PeerError(answer)
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
        paths = [str(Path(semabench.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = {
            "TORCHINDUCTOR_COMPILE_THREADS": str(self.threads),
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", self.entry, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # ctrl-C is the parent's to handle
            )
        theirs.close()  # the worker's copy alone: its death is then the end of the pipe
        self.connection = ours
        with contextlib.suppress(BrokenPipeError):  # `ask` will find it dead
            ours.send((self.kind, self.told))

    def _obituary(self) -> str:
        process = self.process
        if process is None:
            return "stopped"
        code = process.wait()
        self.stop()
        end = f"exit code {code}"
        if code < 0:
            end = f"killed by {signal.Signals(-code).name}"
        return f"its process died ({end}), see {self.log}"


@contextlib.contextmanager
def stopped_at_the_end(peers: Sequence[Peer]) -> Iterator[None]:
    """End all processes when the block ends, however it does."""
    try:
        yield
    finally:
        for peer in peers:
            peer.stop()


@dataclass(frozen=True)
class Request:
    """What to ask a peer, and what to call the answer."""

    peer: Peer
    tag: Any
    method: str
    arguments: tuple[Any, ...] = ()


def ask_at_once(requests: Iterable[Request], answered: Callable[[Any, Any], None]) -> None:
    """Let all peers work at the same time, each through its own requests in their order.

    Args:
        requests: of any peers.
        answered: called, in threads, with the tag of a request and its answer, which is a
            PeerError where it failed.
    """
    queues: dict[int, list[Request]] = {}
    for request in requests:
        queues.setdefault(id(request.peer), []).append(request)

    def work(queue: list[Request]) -> None:
        for request in queue:
            try:
                answer = request.peer.ask(request.method, *request.arguments)
            except PeerError as error:
                answer = error
            answered(request.tag, answer)

    with ThreadPoolExecutor(max(1, len(queues))) as threads:
        try:
            for future in [threads.submit(work, queue) for queue in queues.values()]:
                future.result()
        except BaseException:  # ctrl-C: the threads wait for answers that nobody needs now
            threads.shutdown(wait=False, cancel_futures=True)
            for queue in queues.values():
                queue[0].peer.stop()
            raise
