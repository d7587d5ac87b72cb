"""The diagnostics on a GPU: the CPU's images, fast enough to be drawn in every step."""

import time

import pytest
import torch

from semabench.data.procedural.draw import draw
from semabench.data.procedural.tasks import TASKS, task_named

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("size", [16, 23])
def test_a_gpu_draws_the_cpus_images(name, size):
    index = torch.tensor([0, 1, 77, 2**31, 2**32 - 1])
    there = draw(task_named(name), size, seed=2**63 - 1, epoch=5, index=index.cuda())
    here = draw(task_named(name), size, seed=2**63 - 1, epoch=5, index=index)
    for mine, expected in zip(there, here, strict=True):
        assert torch.equal(mine.cpu(), expected)


@pytest.mark.parametrize("name", TASKS)
def test_twenty_thousand_images_of_128_px_a_second(name):
    task, batch = task_named(name), 2048
    index = torch.arange(batch, device="cuda")
    draw(task, 16, seed=0, epoch=0, index=index)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for step in range(1, 11):
        draw(task, 16, seed=0, epoch=0, index=index + step * batch)
    torch.cuda.synchronize()
    speed = 10 * batch / (time.perf_counter() - begin)
    print(f"{name}: {speed:,.0f} img/s at 128 px")
    assert speed >= 20_000
