"""The GPU's energy counter, with a stand-in; and what a trace tells of its work."""

import itertools
import time

import pytest
import torch

from semabench.evaluation.cost import meters as energy
from semabench.evaluation.cost.meters import PowerMeter, busy_of, mean_watts

CUDA = torch.device("cuda", 0)


def test_power_is_counted_between_the_first_and_the_last_step():
    """Whatever the block took before the first and after the last."""
    assert mean_watts([(1.0, 5_000), (1.1, 40_000), (1.5, 255_000)]) == pytest.approx(500)
    assert mean_watts([(1.0, 5_000)]) is None
    assert mean_watts([]) is None


def test_a_block_is_watched_for_steps_of_the_counter(monkeypatch):
    """300 W, in steps of 20 ms."""
    began = time.perf_counter()
    monkeypatch.setattr(
        energy, "_counter", lambda index: lambda: int((time.perf_counter() - began) / 0.02) * 6_000
    )
    with PowerMeter(CUDA) as meter:
        time.sleep(0.5)
    assert meter.watts == pytest.approx(300, rel=0.25)  # a busy machine looks late


@pytest.mark.parametrize("readings", [itertools.repeat(5_000), itertools.repeat(None)])
def test_a_counter_that_does_not_move_or_tell_gives_no_power(monkeypatch, readings):
    monkeypatch.setattr(energy, "_counter", lambda index: lambda: next(readings))
    with PowerMeter(CUDA) as meter:
        time.sleep(0.02)
    assert meter
    assert meter.watts is None


def test_without_a_counter_there_is_no_power(monkeypatch):
    monkeypatch.setattr(energy, "_counter", lambda index: None)
    for device in (CUDA, torch.device("cpu")):
        with PowerMeter(device) as meter:
            pass
        assert not meter
        assert meter.watts is None


def test_time_at_work_counts_once_however_many_kernels_run():
    kernels = [(0, 1000), (500, 1000), (600, 100), (3000, 500)]  # microseconds
    events = [{"cat": "kernel", "ts": start, "dur": length} for start, length in kernels]
    events += [{"cat": "cpu_op", "ts": 0, "dur": 9000}, {"ph": "M", "name": "process_name"}]
    events += [{"cat": "gpu_memcpy", "ts": 3400, "dur": 200}]
    assert busy_of(events) == 1.5 + 0.6
