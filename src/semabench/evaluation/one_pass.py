"""One pass of a model over a dataset: what is right, how fast, in how much memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from rich.progress import track
from torch import Tensor

from semabench.errors import SemabenchError
from semabench.results.record import Record
from semabench.training.counts import Counts
from semabench.training.device import (
    Mark,
    mark,
    median_and_spread,
    peak_memory_mib,
    reset_peak_memory,
    seconds_between,
)
from semabench.training.graphs import WARMUP as GRAPH_WARMUP

WARMUP = GRAPH_WARMUP + 1  # batches not timed: they allocate, compile, fill caches, record


@dataclass(frozen=True)
class Measurement:
    """What one pass over a loader found.

    Attributes:
        n, top1, top5: samples, and how many of them are right at the first, the first five.
        images_per_second: batch size over the median time of a forward pass, normalisation
            included, loading excluded; None for an empty data set.
        spread: half the distance between the quartiles of images_per_second, over the batches.
        peak_memory_mib: of the device's allocations; on a CPU of the process's resident set.
            None where the system does not tell.
    """

    n: int
    top1: int
    top5: int
    images_per_second: float | None
    spread: float | None
    peak_memory_mib: float | None


def require_all(n: int, row: Record) -> None:
    """Raise a SemabenchError unless as many samples came as the row says."""
    if n != row.n:
        raise SemabenchError(
            f"{row.dataset} at {row.resolution} px gave {n} samples instead of {row.n}: "
            "check the file with `semabench data check`."
        )


def measure(
    run: Callable[[Tensor], Tensor],
    loader: Iterable[tuple[Tensor, Tensor]],
    counts: Counts,
    *,
    device: torch.device,
    batch_size: int,
    batches: int,
    title: str,
) -> Measurement:
    """Run over ``loader`` once.

    Args:
        run: uint8 images on ``device`` to logits.
        loader: batches as of the data room; full ones, padding labelled -1.
        counts: what is right.
        device: where to compute.
        batch_size: images a batch.
        batches: of the loader, for the progress bar.
        title: of the progress bar.
    """
    clock = _Clock(device)
    reset_peak_memory(device)
    bar = track(
        loader,
        description=title,
        total=batches,
        transient=True,
        disable=not sys.stdout.isatty(),
    )
    for images, labels in bar:
        images = images.to(device, non_blocking=True)
        labels = labels.to(device, non_blocking=True)
        with clock:
            logits = run(images)
        counts.add(logits, labels)
    # A small data set: the last batch again, for speed alone, until there is something to time.
    while len(clock.marks) < WARMUP + 3 and batches:
        with clock:
            run(images)
    n, top1, top5 = counts.correct()
    speed, spread = clock.images_per_second(batch_size)
    return Measurement(n, top1, top5, speed, spread, peak_memory_mib(device))


class _Clock:
    """Times forward passes; the times are read at the end."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list[tuple[Mark, Mark]] = []

    def __enter__(self) -> None:
        self.start = mark(self.device)

    def __exit__(self, *_: object) -> None:
        self.marks.append((self.start, mark(self.device)))

    def images_per_second(self, batch_size: int) -> tuple[float | None, float | None]:
        """Return the median and half the interquartile range, or None twice."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        speeds = [batch_size / seconds_between(*marks) for marks in self.marks[WARMUP:]]
        if len(speeds) < 3:
            return None, None
        return median_and_spread(speeds)
