"""Peers are timed in turn, and who fails stops nobody."""

import pytest

from semabench.evaluation.cost.plan import Condition, Job
from semabench.evaluation.cost.schema import CostModel
from semabench.evaluation.cost.session import complete, interleave, measure_group
from semabench.evaluation.cost.worker import Prepared
from semabench.evaluation.cost.workload import Window
from semabench.processes import WorkerError
from semabench.results.record import Record


def job(name, place=0, size=8):
    row = Record(measure="cost", model=name, resolution=32, batch_size=size)
    return Job(place, CostModel(name), Condition("eager", "infer", 32, size), row)


class Fakes:
    """Answers as worker processes do; fails where it is told to."""

    def __init__(self, fail=(), batch_size=8):
        self.calls = []
        self.fail = fail
        self.batch_size = batch_size

    def __call__(self, job, method, *arguments):
        name = job.row.model
        self.calls.append((method, name))
        if (name, method, self.calls.count((method, name))) in self.fail:
            raise WorkerError("its process died (killed by SIGKILL)")
        if method == "prepare":
            return Prepared(self.batch_size, 5)
        if method == "busy":
            return 7.5
        return Window(0.01 * self.calls.count((method, name)), 0.002, 0.5, 100.0)

    def windows(self):
        return "".join(name for method, name in self.calls if method == "window")


def test_items_come_in_turn():
    assert list(interleave("ABC", 3)) == list("ABCABCABC")


def test_windows_are_interleaved_after_all_are_warm():
    fakes = Fakes()
    told = list(measure_group([job("A"), job("B"), job("C")], fakes, 3))
    assert [method for method, _ in fakes.calls[:3]] == ["prepare"] * 3
    assert fakes.windows() == "ABCABCABC"
    assert [t.row.model for t in told if t.row] == ["A", "B", "C"]
    assert {(t.row.busy_ms, t.row.launch_ms) for t in told if t.row} == {(7.5, 2.0)}
    assert sum(t.row is None and not t.failure for t in told) == 9


@pytest.mark.parametrize(
    ("failure", "order"),
    [(("B", "prepare", 1), "ACACAC"), (("B", "window", 2), "ABCABCAC")],
)
def test_a_dead_peer_gets_no_row_and_the_others_go_on(failure, order):
    fakes = Fakes(fail=[failure])
    told = list(measure_group([job("A"), job("B"), job("C")], fakes, 3))
    assert fakes.windows() == order
    assert [t.row.model for t in told if t.row] == ["A", "C"]
    assert [(t.job.row.model, "SIGKILL" in t.failure) for t in told if t.failure] == [("B", True)]


def test_a_row_has_medians_and_half_the_interquartile_range():
    windows = [
        Window(s, None, j, p) for s, j, p in ((0.1, 1.0, 5.0), (0.2, None, 7.0), (0.4, 3.0, 6.0))
    ]
    row = complete(job("A", size=8).row, 4, windows)
    assert (row.batch_size, row.asked_batch_size, row.rounds) == (4, 8, 3)
    assert row.images_per_second == pytest.approx(20)
    assert row.images_per_second_spread == pytest.approx((30 - 15) / 2)
    assert row.latency_ms == pytest.approx(200)
    assert row.joules_per_image == pytest.approx(2)
    assert row.peak_memory_mib == 7
    assert complete(job("A").row, 8, windows).asked_batch_size is None
