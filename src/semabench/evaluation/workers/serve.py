"""The worker's side: do what the parent asks, one thing after another, and end with it."""

from __future__ import annotations

import os
import select
import sys
import threading
import traceback
from multiprocessing.connection import Connection

from semabench.errors import first_line
from semabench.evaluation.on_device import free_memory


def serve(connection: Connection) -> None:
    """Answer requests until the parent hangs up.

    The first message is the worker's class and its arguments; then each is (method, arguments),
    answered by (True, result) or (False, one line). The parent's end is closed by its death, too.
    """
    try:
        kind, told = connection.recv()
        worker = kind(*told)
        while True:
            method, arguments = connection.recv()
            try:
                answer = True, getattr(worker, method)(*arguments)
            except Exception as error:
                traceback.print_exc()
                answer = False, first_line(error)
            free_memory()
            connection.send(answer)
    except (EOFError, ConnectionError, KeyboardInterrupt):
        return


def end_with_parent(connection: Connection) -> None:
    """End this process once the parent's end of the pipe is closed, also amid an answer.

    Else, after kill -9 of the parent, a compilation or a training would go on to its end. The
    thread sleeps in the kernel until then: it takes no time from what is measured.
    """

    def wait() -> None:
        hangup = select.poll()
        hangup.register(connection.fileno(), 0)  # 0: nothing but the hang-up itself
        hangup.poll()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    """Serve the parent at the file descriptor that is the first argument."""
    connection = Connection(int(sys.argv[1]))
    end_with_parent(connection)
    serve(connection)
