"""Pools and workers: results in order, failures told with their cause, and no hang ever."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from semabench.errors import SemabenchError
from semabench.processes import (
    WINDOW,
    Request,
    Worker,
    WorkerError,
    WorkerPool,
    ask_at_once,
    serve,
    stopped_at_the_end,
    worker_count,
)


def square(chunk):
    return [x * x for x in chunk]


def slow_first(chunk):
    time.sleep(0.3 if chunk == 0 else 0)
    return chunk, os.getpid()


def die(chunk):
    if chunk == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return chunk


def leave(chunk):
    os._exit(7)


def fail(chunk):
    raise ValueError("that is a bug")


def large(chunk):
    return bytes(3_000_000)


@pytest.mark.parametrize("count", [1, 3])
def test_results_in_order(count):
    chunks = [range(i, i + 3) for i in range(0, 60, 3)]
    with WorkerPool(square, count) as workers:
        assert [x for result in workers.map(chunks) for x in result] == [x * x for x in range(60)]
        assert list(workers.map([])) == []
        assert list(workers.map(chunks[:2])) == [[0, 1, 4], [9, 16, 25]]


def test_a_slow_chunk_holds_back_the_rest_but_not_the_order():
    with WorkerPool(slow_first, 3) as workers:
        results = list(workers.map(range(30)))
    assert [chunk for chunk, _ in results] == list(range(30))
    assert len({pid for _, pid in results}) > 1


def test_work_in_flight_is_bounded(tmp_path):
    def mark(chunk):
        (tmp_path / str(chunk)).touch()

    with WorkerPool(mark, 2) as workers:
        results = workers.map(range(100))
        next(results)
        time.sleep(0.3)
        assert len(list(tmp_path.iterdir())) <= 1 + 2 * WINDOW


def test_results_larger_than_a_pipe():
    with WorkerPool(large, 2) as workers:
        assert [len(r) for r in workers.map(range(7))] == [3_000_000] * 7


@pytest.mark.parametrize(
    ("function", "message"), [(die, "killed by SIGKILL, often the sign"), (leave, "exit code 7")]
)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.timeout(20)
def test_a_dead_worker_is_an_error(function, message, count):
    with (
        WorkerPool(function, count) as workers,
        pytest.raises(SemabenchError, match=f"a worker process died \\({message}"),
    ):
        list(workers.map(range(20)))


def test_a_bug_shows_its_traceback():
    with WorkerPool(fail, 2) as workers, pytest.raises(RuntimeError, match="that is a bug"):
        list(workers.map(range(3)))


def test_leaving_ends_all_workers_at_once():
    with WorkerPool(time.sleep, 3) as workers:
        next(workers.map([0, 60, 60, 60, 60, 60]))
        processes = list(workers._processes.values())
        start = time.monotonic()
    assert time.monotonic() - start < 5
    assert not any(process.is_alive() for process in processes)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.timeout(60)
def test_workers_do_not_outlive_a_killed_parent():
    program = (
        "import time\n"
        "from semabench.processes import WorkerPool\n"
        "with WorkerPool(time.sleep, 3) as w:\n"
        "    print(*[p.pid for p in w._processes.values()], flush=True)\n"
        "    list(w.map([60] * 9))\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 3
        assert all(alive(pid) for pid in pids)
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def test_worker_count():
    assert worker_count(None) == len(os.sched_getaffinity(0))
    assert worker_count(5) == 5
    with pytest.raises(SemabenchError, match="at least 1, got 0"):
        worker_count(0)


# A stand-in for the worker, told nothing: without torch to import it starts at once.
ENTRY = """
import os, sys, time
from multiprocessing.connection import Connection
connection = Connection(int(sys.argv[1]))
connection.recv()
try:
    while True:
        method, arguments = connection.recv()
        if method == "die":
            os.kill(os.getpid(), 9)
        if method == "sleep":
            time.sleep(arguments[0])
        connection.send(
            ((arguments[0], ""), None) if method == "fail" else
            (None, arguments[0] if arguments else os.getpid())
        )
except EOFError:
    pass
"""


@pytest.fixture
def pair(tmp_path, monkeypatch):
    monkeypatch.setattr(Worker, "entry", ENTRY)
    made = [Worker(dict, log=tmp_path / f"{name}.log") for name in "ab"]
    with stopped_at_the_end(made):
        yield made


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_each_worker_is_a_process_of_its_own_and_stays(pair):
    pids = [worker.ask("pid") for worker in pair]
    assert len({*pids, os.getpid()}) == 3
    assert [worker.ask("pid") for worker in pair] == pids
    for worker in pair:
        worker.stop()
    assert all(gone(pid) for pid in pids)


def test_a_dead_worker_says_how_it_died_and_is_replaced(pair):
    first, other = pair[0].ask("pid"), pair[1].ask("pid")
    with pytest.raises(WorkerError, match=r"killed by SIGKILL.*a\.log"):
        pair[0].ask("die")
    assert pair[0].ask("pid") != first
    assert pair[1].ask("pid") == other


def test_one_killed_while_idle_is_told_at_the_next_request(pair):
    os.kill(pair[0].ask("pid"), signal.SIGTERM)
    pair[0].process.wait()
    with pytest.raises(WorkerError, match="SIGTERM"):
        pair[0].ask("pid")


def test_a_failure_is_its_message_and_the_process_lives(pair):
    pid = pair[0].ask("pid")
    with pytest.raises(WorkerError, match=r"^out of luck$"):
        pair[0].ask("fail", "out of luck")
    assert pair[0].ask("pid") == pid


def test_a_hung_worker_is_killed(pair):
    pid = pair[0].ask("pid")
    pair[0].patience = 0.1
    with pytest.raises(WorkerError, match=r"no answer within 0\.1 s"):
        pair[0].ask("sleep", 60)
    assert gone(pid)


def test_requests_of_one_worker_queue_those_of_two_do_not(pair):
    answers = []
    for worker in pair:
        worker.ask("pid")
    start = time.monotonic()
    ask_at_once(
        [
            *(Request(worker, tag, "sleep", (0.5,)) for tag, worker in enumerate(pair)),
            Request(pair[0], "dies", "die"),
            Request(pair[0], "again", "pid"),
        ],
        lambda tag, answer: answers.append((tag, type(answer).__name__)),
    )
    assert time.monotonic() - start < 5
    assert sorted(map(str, answers)) == sorted(
        map(str, [(0, "float"), (1, "float"), ("dies", "WorkerError"), ("again", "int")])
    )
    tags = [tag for tag, _ in answers]
    assert tags.index(0) < tags.index("dies") < tags.index("again")


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

    assert ask("add", 2) == (None, 42)
    (line, trace), _ = ask("add", "2")
    assert line == "unsupported operand type(s) for +: 'int' and 'str'"
    assert "Traceback" in trace
    assert "Traceback" in capsys.readouterr().err  # for the process's log
    assert ask("add", 3) == (None, 43)
    ours.close()
    thread.join(30)
    assert not thread.is_alive()


def test_a_process_ends_with_its_parent_amid_an_answer():
    code = (
        "import sys, time; from multiprocessing.connection import Connection;"
        "from semabench.processes import end_with_parent;"
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
