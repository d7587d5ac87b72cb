"""One training and its tests: procedural images drawn on the device, and the process that asks."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from semabench.config.schema import RecipeConfig
from semabench.data.augment.batch import Normalize
from semabench.data.procedural.draw import CALIBRATION_EPOCH, TEST_EPOCH, draw
from semabench.data.procedural.tasks import CELL, Task
from semabench.errors import SemabenchError
from semabench.models.flops import count_gmacs
from semabench.results.record import Record, accuracy
from semabench.study.plan import TEST_SEED, Job, Training, build_probe
from semabench.training.device import free_memory
from semabench.training.optim import create_optimizer, learning_rate
from semabench.training.step import Objective, TrainStep

RUN = 8  # steps at one size before the next size's turn


@dataclass(frozen=True)
class Trained:
    """A model after its training, in eval mode, with the images' normalisation in front."""

    model: nn.Module
    loss: float  # mean over the last tenth of the steps
    seconds: float


@dataclass(frozen=True)
class DrawImages:
    """Prepares batches of a task: of samples' numbers, int64 (B,), it makes images and labels."""

    task: Task
    seed: int
    normalize: Normalize

    def __call__(self, images: Tensor, labels: Tensor, samples: Any) -> tuple[Tensor, Tensor]:
        """Draw those numbers at a size in cells, which is what ``samples`` holds."""
        images, labels = draw(self.task, samples, seed=self.seed, epoch=0, index=images)
        return self.normalize(images), labels

    def fixed(self, images: Tensor, samples: Any) -> _Sized:
        """Return the same at one size: its launches do not depend on what is drawn."""
        return _Sized(self, samples)


@dataclass(frozen=True)
class _Sized:
    prepare: DrawImages
    size: int

    def load(self, samples: Any) -> None:
        """Send nothing: draws are made on the device."""

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.prepare(images, labels, self.size)


def train(training: Training, device: torch.device, *, graph: bool = True) -> Trained:
    """Train one model.

    Args:
        training: what to train, and how.
        device: where.
        graph: replay CUDA graphs; False takes every step launch by launch, as a CPU does.

    Raises:
        SemabenchError: the loss is not finite at the end.
    """
    model = build_probe(training).to(device).train()
    # TF32 rounds matrix products of the training; all sums stay in float32, and so do tests.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    normalize = Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD).to(device)
    recipe = training.recipe
    step = TrainStep(
        model,
        *_optimizer(model, training),
        Objective(clip_grad=recipe.clip_grad),
        prepare=DrawImages(training.drawn(), training.seed, normalize),
        graph=graph,
    )
    begin = time.monotonic()
    sizes = [resolution // CELL for resolution in training.train_resolutions]
    first = torch.arange(recipe.batch_size, device=device)
    losses = torch.zeros(recipe.steps, device=device)
    for number in range(recipe.steps):
        size = sizes[number // RUN % len(sizes)]
        index = first + number * recipe.batch_size
        losses[number] = step(index, index, size, number, kind=size)
    loss = float(losses[-max(1, len(losses) // 10) :].mean())
    if not math.isfinite(loss):
        raise SemabenchError(f"{training.title}: the loss is not finite.")
    return Trained(nn.Sequential(normalize, model).eval(), loss, time.monotonic() - begin)


def _optimizer(model: nn.Module, training: Training) -> tuple[torch.optim.Optimizer, Any]:
    """Return AdamW and its rate, which is rounded to float32 as a GPU has it."""
    recipe = training.recipe
    schedule = RecipeConfig(
        name="study",
        epochs=1,
        warmup_epochs=min(recipe.warmup_steps / recipe.steps, 1.0),
        lr=recipe.lr,
        min_lr=0.01 * recipe.lr,
        warmup_lr=0.01 * recipe.lr,
        weight_decay=recipe.weight_decay,
    )
    optimizer = create_optimizer(model, schedule, fused=True)
    for group in optimizer.param_groups:
        group["lr"] = 1.0
    at = learning_rate(schedule, recipe.steps)
    rates = torch.tensor([at(step) for step in range(recipe.steps)]).tolist()
    return optimizer, rates.__getitem__


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
