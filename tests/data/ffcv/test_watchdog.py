"""A loading thread that fails, hangs, dies or is left behind never blocks its consumer."""

import ctypes
import itertools
import threading
import time

import pytest

from semabench.data.ffcv.loader import prefetch
from semabench.errors import SemabenchError


def items(produce, count=10, **options):
    return prefetch(produce, range(count), what=lambda i: f"train.beton, batch {i}", **options)


def test_items_come_in_order_and_work_runs_ahead():
    made = []
    batches = items(lambda step: made.append(step) or step, ahead=2)
    assert next(batches) == 0
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert made == [0, 1, 2, 3]  # one taken, two waiting, one waiting to be put
    assert list(batches) == list(range(1, 10))


def test_nothing_starts_before_the_first_item_is_asked_for():
    before = threading.active_count()
    batches = items(lambda step: step)
    assert threading.active_count() == before
    next(batches)
    assert threading.active_count() == before + 1
    batches.close()
    assert threading.active_count() == before


def test_an_exception_reaches_the_consumer_with_batch_and_cause():
    def produce(step):
        if step == 3:
            raise ZeroDivisionError("a\nb")
        return step

    batches = items(produce)
    assert list(itertools.islice(batches, 3)) == [0, 1, 2]
    started = time.monotonic()
    with pytest.raises(SemabenchError, match=r"^train.beton, batch 3: .*ZeroDivisionError: a b$"):
        next(batches)
    assert time.monotonic() - started < 2


def test_an_error_for_the_user_is_passed_on_as_it_is():
    def produce(step):
        raise SemabenchError("sample 7 cannot be decoded")

    with pytest.raises(SemabenchError, match=r"^sample 7 cannot be decoded$"):
        next(items(produce))


def test_a_thread_that_hangs_is_given_up():
    release = threading.Event()
    try:
        batches = items(lambda step: release.wait() if step else step, timeout=0.5)
        assert next(batches) == 0
        with pytest.raises(SemabenchError, match=r"batch 1: .* done nothing for 0.5 s"):
            next(batches)
    finally:
        release.set()


def test_slow_progress_is_no_hang():
    done = []

    def produce(step):
        for _ in range(6):
            time.sleep(0.2)
            done.append(step)
        return step

    assert list(items(produce, 2, timeout=0.75, progress=lambda: len(done))) == [0, 1]


def test_a_thread_that_is_killed_is_noticed():
    idents = []

    def produce(step):
        idents.append(threading.get_ident())
        while step:
            time.sleep(0.01)
        return step

    batches = items(produce)
    assert next(batches) == 0
    kill = ctypes.pythonapi.PyThreadState_SetAsyncExc
    assert kill(ctypes.c_ulong(idents[0]), ctypes.py_object(SystemExit)) == 1
    with pytest.raises(SemabenchError, match=r"batch 1: .*SystemExit"):
        next(batches)


def test_a_thread_that_ends_without_a_word_is_noticed(monkeypatch):
    monkeypatch.setattr("semabench.data.ffcv.loader._Producer.run", lambda self: None)
    with pytest.raises(SemabenchError, match="died without a word"):
        next(items(lambda step: step))


def test_partial_iterations_leave_no_threads():
    before = threading.active_count()
    for _ in range(20):
        for item in items(lambda step: step, count=1000):
            if item == 2:
                break
    assert threading.active_count() == before
