"""Marks in time; on a GPU, `test_throughput` holds the device against the host."""

import time

import torch

from semabench.training.timing import mark, seconds_between


def test_on_a_cpu_marks_are_the_clock():
    start = mark(torch.device("cpu"))
    time.sleep(0.02)
    assert 0.02 <= seconds_between(start, mark(torch.device("cpu"))) < 10
