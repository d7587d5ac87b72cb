"""One group of peers, timed in turn: A B C A B C, so that what drifts drifts for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from semabench.evaluation.cost.plan import Job
from semabench.evaluation.cost.worker import Prepared
from semabench.evaluation.cost.workload import Window
from semabench.evaluation.workers.peer import PeerError
from semabench.results.record import Record
from semabench.training.timing import median_and_spread

Item = TypeVar("Item")
Ask = Callable[..., Any]
"""``ask(job, method, *arguments)``: have the job's worker do something; raises PeerError."""


@dataclass(frozen=True)
class Told:
    """What a group tells as it goes: a window done, a job failed (with the reason), or a row."""

    job: Job
    failure: str = ""
    row: Record | None = None


def interleave(items: Sequence[Item], rounds: int) -> Iterator[Item]:
    """Yield all items, then all again, ``rounds`` times."""
    for _ in range(rounds):
        yield from items


def measure_group(jobs: Sequence[Job], ask: Ask, rounds: int) -> Iterator[Told]:
    """Warm each peer up, time ``rounds`` windows of each in turn, and yield what comes of it.

    A peer that fails is left out from there on; it gets no row, whatever it had.
    """
    ready: dict[Job, Prepared] = {}
    windows: dict[Job, list[Window]] = {job: [] for job in jobs}
    for job in jobs:
        c = job.condition
        try:
            ready[job] = ask(job, "prepare", c.resolution, c.execution, c.batch_size)
        except PeerError as error:
            yield Told(job, failure=str(error))
    for job in interleave(list(ready), rounds):
        if job not in ready:
            continue
        c, prepared = job.condition, ready[job]
        arguments = (c.resolution, c.execution, prepared.batch_size, prepared.steps)
        try:
            windows[job].append(ask(job, "window", *arguments))
        except PeerError as error:
            del ready[job]
            yield Told(job, failure=str(error))
        else:
            yield Told(job)
    for job, prepared in ready.items():
        yield Told(job, row=complete(job.row, prepared.batch_size, windows[job]))


def complete(row: Record, batch_size: int, windows: Sequence[Window]) -> Record:
    """Return the row with medians over the windows and half their interquartile ranges."""
    speed, speed_spread = median_and_spread([batch_size / w.seconds for w in windows])
    latency, latency_spread = median_and_spread([1e3 * w.seconds for w in windows])
    joules, joules_spread = median_and_spread([w.joules for w in windows if w.joules is not None])
    peaks = [w.peak_memory_mib for w in windows if w.peak_memory_mib is not None]
    return replace(
        row,
        batch_size=batch_size,
        asked_batch_size=row.batch_size if batch_size != row.batch_size else None,
        rounds=len(windows),
        images_per_second=speed,
        images_per_second_spread=speed_spread,
        latency_ms=latency,
        latency_ms_spread=latency_spread,
        joules_per_image=joules,
        joules_per_image_spread=joules_spread,
        peak_memory_mib=max(peaks, default=None),
    )
