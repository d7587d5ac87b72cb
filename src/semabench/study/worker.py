"""The process that trains and tests, one job after another, as it is told."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from semabench.data.procedural.draw import CALIBRATION_EPOCH, TEST_EPOCH, draw
from semabench.data.procedural.tasks import CELL, Task
from semabench.models.flops import count_gmacs
from semabench.results.record import Record, accuracy
from semabench.study.plan import TEST_SEED, Job
from semabench.study.training import Trained, build_probe, train
from semabench.training.device import free_memory


class StudyWorker:
    """What one process can be asked.

    Args:
        device: "cuda" or "cpu".
    """

    rest = staticmethod(free_memory)

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        torch.set_num_threads(1)

    def do(self, job: Job) -> list[Record]:
        """Train, test, and return the job's rows, complete."""
        trained = train(job.training, self.device)
        model = build_probe(job.training)
        sizes = dict.fromkeys(row.resolution for row in job.rows)
        gmacs = {size: count_gmacs(model, size) for size in sizes}
        return [
            replace(self._test(trained, job, row), gmacs=gmacs[row.resolution]) for row in job.rows
        ]

    def _test(self, trained: Trained, job: Job, row: Record) -> Record:
        correct = count_correct(
            trained.model,
            job.training.drawn(row.pairs),
            row.resolution // CELL,
            seed=TEST_SEED,
            test_on=job.test_on,
            samples=row.n,
            device=self.device,
        )
        top1, stderr = accuracy(correct, row.n)
        return replace(
            row,
            top1=top1,
            top1_stderr=stderr,
            train_loss=trained.loss,
            train_seconds=trained.seconds,
        )


TOKENS = 2**18  # of a batch, at most, if it has more than one picture
EPOCHS = {"test": TEST_EPOCH, "calibration": CALIBRATION_EPOCH}


@torch.no_grad()
def count_correct(
    model: nn.Module,
    task: Task,
    size: int,
    *,
    seed: int,
    test_on: str,
    samples: int,
    device: torch.device,
) -> int:
    """Return how many of the first ``samples`` test pictures a model gets right, in float32.

    Args:
        model: uint8 images to logits.
        task: what to draw.
        size: cells of a side.
        seed: of the pictures.
        test_on: "test" or "calibration".
        samples: how many.
        device: where to draw and to compute.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    batch = max(1, TOKENS // size**2)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    for index in torch.arange(samples, device=device).split(batch):
        images, labels = draw(task, size, seed=seed, epoch=EPOCHS[test_on], index=index)
        correct += (model(images).argmax(dim=1) == labels).sum()
    return int(correct)
