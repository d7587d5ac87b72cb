"""The train step: what a CUDA graph replays is what the same step does launch by launch."""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
import torch
from torch import nn

from helpers.small_run import BATCH, small_batches, small_module
from semabench.data.draws import Samples
from semabench.training import step as step_module
from semabench.training.graphs import WARMUP
from semabench.training.optim import create_optimizer
from semabench.training.step import Objective, TrainStep


class Dropping(nn.Module):
    """Convolution, BatchNorm and dropout: draws and statistics of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU())
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(8, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stem(x).mean((2, 3)))


def batches_of(size: int, steps: int) -> list[tuple[torch.Tensor, torch.Tensor, Samples]]:
    generator = torch.Generator().manual_seed(size)
    return [
        (
            torch.randint(
                0, 256, (BATCH, 3, size, size), dtype=torch.uint8, generator=generator
            ).contiguous(memory_format=torch.channels_last),
            torch.randint(0, 4, (BATCH,), generator=generator),
            Samples(step // 3, np.arange(BATCH) + BATCH * step),
        )
        for step in range(steps)
    ]


def trained(graph: bool, device: str, **options) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Twelve steps at two sizes in turn, MESA from the sixth on."""
    torch.manual_seed(0)
    recipe = {"mixup": 0.8, "cutmix": 1.0, "mix_prob": 0.8} | options
    module = small_module(12, graph=graph, model=Dropping(), **recipe).to(device).train()
    assert module.ema is not None
    module.ema.module.eval()
    optimizer = create_optimizer(module.model, module.recipe, fused=device == "cuda")
    step = module.create_step(optimizer, "bf16-mixed")
    small, large = batches_of(8, 12), batches_of(16, 12)
    losses = []
    for number in range(12):
        images, labels, samples = (large if number % 6 > 3 else small)[number]
        loss = step(images.to(device), labels.to(device), samples, number, mesa=number > 5)
        losses.append(loss.clone())
    recorded = [program.graph is not None for program in step._programs.values()]
    assert any(recorded) is (graph and device == "cuda" and step_module.WARMUP == WARMUP)
    return torch.stack(losses).tolist(), module.state_dict()


@pytest.mark.gpu
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_steps_of_fixed_launches_learn_what_the_others_do(micro_batches):
    """Their preparation sums in another order, which bfloat16 and twelve steps make more of."""
    plain, _ = trained(False, "cuda", micro_batches=micro_batches)
    graphed, _ = trained(True, "cuda", micro_batches=micro_batches)
    assert len(set(plain)) == 12
    np.testing.assert_allclose(graphed[:2], plain[:2], rtol=2e-3)
    np.testing.assert_allclose(graphed, plain, rtol=0.05)


@pytest.mark.gpu
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_recorded_step_equals_one_not_yet_recorded(micro_batches, monkeypatch):
    """To the bit: the same launches on the same buffers, their draws included."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    graphed, weights = trained(True, "cuda", micro_batches=micro_batches)
    monkeypatch.setattr(step_module, "WARMUP", 10**9)
    launched, same = trained(True, "cuda", micro_batches=micro_batches)
    assert graphed == launched
    for name, value in weights.items():
        assert torch.equal(same[name], value), name


@pytest.mark.gpu
def test_what_cannot_be_recorded_runs_without_and_says_why(caplog):
    class Asking(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.flatten(1)) * float(x.sum() > -1e9)  # waits for the device

    model = Asking(48, 4).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    step = TrainStep(model, optimizer, lambda _: 1.0, Objective(), graph=True)
    labels = torch.zeros(BATCH, dtype=torch.int64, device="cuda")
    losses = []
    with caplog.at_level(logging.WARNING):
        for number in range(WARMUP + 3):
            images = torch.ones(BATCH, 3, 4, 4, device="cuda")
            losses.append(float(step(images, labels, Samples(0, np.arange(BATCH)), number)))
    assert not step.graph
    assert losses == sorted(losses, reverse=True)
    (line,) = [record.message for record in caplog.records]
    assert line.startswith("steps run without a CUDA graph: ")
    assert "\n" not in line


def test_a_cpu_takes_steps_as_they_stand():
    losses, _ = trained(True, "cpu")
    assert len(set(losses)) == 12
    assert losses == trained(False, "cpu")[0]


def test_rates_and_state_go_on_from_a_loaded_optimiser():
    """As in a checkpoint, whose groups hold the rate of a step, not the peak."""
    first = small_module(8)
    step = first.create_step(create_optimizer(first.model, first.recipe))
    for number, batch in enumerate(small_batches(4)):
        step(*batch, number)
    second = small_module(8)
    second.load_state_dict(first.state_dict())
    optimizer = create_optimizer(second.model, second.recipe)
    resumed = second.create_step(optimizer)
    optimizer.load_state_dict(copy.deepcopy(step.optimizer.state_dict()))
    resumed.restored()
    for number, batch in enumerate(small_batches(8)):
        if number >= 4:
            assert torch.equal(resumed(*batch, number), step(*batch, number))
            assert resumed.rates == step.rates
