"""Ordered results, bounded work in flight, and no hang however a worker ends."""

import os
import signal
import subprocess
import sys
import time

import pytest

from semabench.data.workers import WINDOW, Workers, worker_count
from semabench.errors import SemabenchError


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
    with Workers(square, count) as workers:
        assert [x for result in workers.map(chunks) for x in result] == [x * x for x in range(60)]
        assert list(workers.map([])) == []
        assert list(workers.map(chunks[:2])) == [[0, 1, 4], [9, 16, 25]]


def test_a_slow_chunk_holds_back_the_rest_but_not_the_order():
    with Workers(slow_first, 3) as workers:
        results = list(workers.map(range(30)))
    assert [chunk for chunk, _ in results] == list(range(30))
    assert len({pid for _, pid in results}) > 1


def test_work_in_flight_is_bounded(tmp_path):
    def mark(chunk):
        (tmp_path / str(chunk)).touch()

    with Workers(mark, 2) as workers:
        results = workers.map(range(100))
        next(results)
        time.sleep(0.3)
        assert len(list(tmp_path.iterdir())) <= 1 + 2 * WINDOW


def test_results_larger_than_a_pipe():
    with Workers(large, 2) as workers:
        assert [len(r) for r in workers.map(range(7))] == [3_000_000] * 7


@pytest.mark.parametrize(
    ("function", "message"), [(die, "SIGKILL, often the sign"), (leave, "exit code 7")]
)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.timeout(20)
def test_a_dead_worker_is_an_error(function, message, count):
    with (
        Workers(function, count) as workers,
        pytest.raises(SemabenchError, match=f"a worker process died \\({message}"),
    ):
        list(workers.map(range(20)))


def test_a_bug_shows_its_traceback():
    with Workers(fail, 2) as workers, pytest.raises(RuntimeError, match="that is a bug"):
        list(workers.map(range(3)))


def test_leaving_ends_all_workers_at_once():
    with Workers(time.sleep, 3) as workers:
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
        "from semabench.data.workers import Workers\n"
        "with Workers(time.sleep, 3) as w:\n"
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
