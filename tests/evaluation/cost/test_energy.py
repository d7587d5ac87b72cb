"""The GPU's energy counter, with a stand-in: what a block took, and when nothing tells."""

import pytest
import torch

from semabench.evaluation.cost import energy
from semabench.evaluation.cost.energy import EnergyMeter

CUDA = torch.device("cuda", 0)


def measured(monkeypatch, *readings):
    """Joules of a block before and after which the counter reads these millijoules."""
    told = iter(readings)
    monkeypatch.setattr(energy, "_counter", lambda index: lambda: next(told))
    with EnergyMeter(CUDA) as meter:
        assert meter.joules is None
    return meter.joules


@pytest.mark.parametrize(
    ("before", "after", "joules"),
    [(5_000, 8_500, 3.5), (5_000, 5_000, None), (None, 8_500, None), (5_000, None, None)],
)
def test_a_block_takes_what_the_counter_moved_by(monkeypatch, before, after, joules):
    assert measured(monkeypatch, before, after) == joules


def test_without_a_counter_there_is_no_energy(monkeypatch):
    monkeypatch.setattr(energy, "_counter", lambda index: None)
    for device in (CUDA, torch.device("cpu")):
        with EnergyMeter(device) as meter:
            pass
        assert meter.joules is None
