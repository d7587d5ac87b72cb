"""The worker's side: answers, failures in one line, and an end with the parent's."""

import multiprocessing
import subprocess
import sys
import threading

import pytest

from semabench.evaluation.workers.serve import serve


class Adder:
    def __init__(self, first):
        self.first = first

    def add(self, second):
        return self.first + second


def test_requests_are_answered_until_the_parent_hangs_up(capsys):
    ours, theirs = multiprocessing.Pipe()
    thread = threading.Thread(target=serve, args=[theirs], daemon=True)
    thread.start()
    ours.send((Adder, (40,)))

    def ask(method, *arguments):
        ours.send((method, arguments))
        assert ours.poll(30)
        return ours.recv()

    assert ask("add", 2) == (True, 42)
    assert ask("add", "2") == (False, "unsupported operand type(s) for +: 'int' and 'str'")
    assert "Traceback" in capsys.readouterr().err  # for the process's log
    assert ask("add", 3) == (True, 43)
    ours.close()
    thread.join(30)
    assert not thread.is_alive()


def test_a_process_ends_with_its_parent_amid_an_answer():
    code = (
        "import sys, time; from multiprocessing.connection import Connection;"
        "from semabench.evaluation.workers.serve import end_with_parent;"
        "connection = Connection(int(sys.argv[1])); end_with_parent(connection);"
        "connection.send('busy'); time.sleep(600)"
    )
    ours, theirs = multiprocessing.Pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(theirs.fileno())], pass_fds=[theirs.fileno()]
    )
    theirs.close()
    try:
        assert ours.recv() == "busy"
        ours.send("a message is no hang-up")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        ours.close()  # as the kernel does when the parent dies
        assert process.wait(30) == 1
    finally:
        process.kill()
