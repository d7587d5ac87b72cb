"""The process that trains and tests, one job after another, as it is told."""

from __future__ import annotations

from dataclasses import replace

import torch

from semabench.data.procedural.tasks import CELL
from semabench.models.flops import count_gmacs
from semabench.results.record import Record, accuracy
from semabench.study.plan import TEST_SEED, Job
from semabench.study.probe import build_probe
from semabench.study.testing import count_correct
from semabench.study.training import Trained, train


class StudyWorker:
    """What one process can be asked.

    Args:
        device: "cuda" or "cpu".
    """

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
            pictures=job.pictures,
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
