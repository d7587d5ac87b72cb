"""Workers alive at the same time: counted and compiled at once, timed in turn: A B C A B C."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from semabench.evaluation.cost.plan import (
    Job,
    by_condition,
    compile_seconds,
    conditions,
    is_compiled,
    waves,
)
from semabench.evaluation.cost.schema import EXECUTIONS, CostConfig
from semabench.evaluation.cost.worker import CostWorker, Prepared
from semabench.evaluation.cost.workload import Setting, Window
from semabench.processes import (
    Request,
    Worker,
    WorkerError,
    ask_at_once,
    stopped_at_the_end,
    worker_count,
)
from semabench.progress import Screen
from semabench.results.record import Record
from semabench.results.store import RESULTS_NAME, append_record
from semabench.training.device import median_and_spread

LOGS = "logs"
Place = tuple[int, str]  # of a process: the model's place in the list, and the mode


class Session:
    """The state of one call: what failed, what is left, and what was counted.

    Args:
        config: rounds, and the time there is.
        setting: what all processes share.
        out_dir: of results.jsonl and the processes' logs.
        screen: told what goes on.
        start: of the call, on `time.monotonic`'s clock.
    """

    def __init__(
        self, config: CostConfig, setting: Setting, out_dir: Path, screen: Screen, start: float
    ) -> None:
        self.config = config
        self.setting = setting
        self.out_dir = out_dir
        self.screen = screen
        self.start = start
        self.failed: dict[Job, str] = {}
        self.left: list[Job] = []
        self.counts: dict[tuple[int, int], tuple[int, float]] = {}  # by place and resolution

    def measure(self, jobs: Sequence[Job]) -> None:
        """Measure jobs of models that are all alive at once: eager, then compiled in waves.

        Every row is stored when its group is done. A job that fails stops no other.
        """
        if self._late():
            self.left += jobs
            return
        workers = self._workers(jobs)
        with stopped_at_the_end(list(workers.values())):
            self._count(jobs, workers)
            for execution in EXECUTIONS:
                if not is_compiled(execution):
                    for group in by_condition(jobs, execution):
                        self._time(group, workers)
            for wave in waves(jobs, conditions(self.config)):
                self._compile(wave, workers)
                left = [job for job in wave if job not in self.left]
                for execution in filter(is_compiled, EXECUTIONS):
                    for group in by_condition(left, execution):
                        self._time(group, workers)

    def _workers(self, jobs: Sequence[Job]) -> dict[Place, Worker]:
        """Return a process for each model and mode: so that both compile at the same time."""
        specs = {_place(job): job.spec for job in jobs}
        # A compilation is Python on one core most of the time, and wants many for its kernels.
        cores = worker_count(None)
        threads = max(1, cores // 4, cores // len(specs))
        workers = {}
        for (place, mode), spec in specs.items():
            name = spec.name.replace("/", "_").replace(":", "_")
            log = self.out_dir / LOGS / f"{name}-{mode}.log"
            workers[place, mode] = Worker(
                CostWorker,
                spec,
                mode,
                self.setting,
                log=log,
                patience=self.config.patience,
                threads=threads,
            )
        return workers

    def _count(self, jobs: Sequence[Job], workers: dict[Place, Worker]) -> None:
        """Start all processes; the first of each model counts its size and multiply-adds."""
        self.screen.doing(f"starting {len(workers)} processes")

        def requests() -> Iterator[Request]:
            seen: set[tuple[int, int]] = set()
            for job in jobs:
                size = _size(job)
                if size not in seen:
                    seen.add(size)
                    yield Request(workers[_place(job)], size, "count", size[1:])
            for worker in workers.values():
                yield Request(worker, None, "ready")

        def answered(size: tuple[int, int] | None, answer: Any) -> None:
            if size is not None and not isinstance(answer, WorkerError):
                self.counts[size] = answer

        ask_at_once(requests(), answered)  # who fails here fails again, and is told of, when timed

    def _compile(self, jobs: Sequence[Job], workers: dict[Place, Worker]) -> None:
        """Compile a wave, each process its own, all at the same time: it is the CPU's work."""
        if self._late(compile_seconds(jobs)):
            self.left += jobs
            return
        begin = time.monotonic()
        self.screen.doing(f"compiling {len(jobs)}")

        def answered(job: Job, answer: Any) -> None:
            self.screen.advance()
            if isinstance(answer, WorkerError):
                self._fail(job, str(answer))

        ask_at_once(
            (
                Request(workers[_place(job)], job, "compile", (c.resolution, c.batch_size))
                for job in jobs
                for c in [job.condition]
            ),
            answered,
        )
        done = sum(job not in self.failed for job in jobs)
        self.screen.say(f"compiled {done} of {len(jobs)} in {minutes(time.monotonic() - begin)}")

    def _time(self, group: Sequence[Job], workers: dict[Place, Worker]) -> None:
        if self._late():
            self.left += group
            return
        group = [job for job in group if job not in self.failed]
        if group:
            self.screen.doing(group[0].condition.title)

        def ask(job: Job, method: str, *arguments: Any) -> Any:
            return workers[_place(job)].ask(method, *arguments)

        for told in measure_group(group, ask, self.config.rounds):
            if told.failure:
                self._fail(told.job, told.failure)
            elif told.row is None:
                self.screen.advance()
            else:
                params, gmacs = self.counts.get(_size(told.job), (None, None))
                row = replace(told.row, params=params, gmacs=gmacs)
                append_record(self.out_dir / RESULTS_NAME, row)
                self.screen.say(line_of(row))

    def _fail(self, job: Job, reason: str) -> None:
        self.failed[job] = reason
        self.screen.say(f"{job.title}  NOT MEASURED: {reason}")

    def _late(self, needed: float = 0) -> bool:
        limit = self.config.max_seconds
        return limit is not None and time.monotonic() - self.start + needed > limit


def _place(job: Job) -> Place:
    return job.place, job.condition.mode


def _size(job: Job) -> tuple[int, int]:
    return job.place, job.condition.resolution


Item = TypeVar("Item")
Ask = Callable[..., Any]
"""``ask(job, method, *arguments)``: have the job's worker do something; raises WorkerError."""


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
    """Warm each worker up, time ``rounds`` windows of each in turn, and yield what comes of it.

    A worker that fails is left out from there on; it gets no row, whatever it had.
    """
    ready: dict[Job, Prepared] = {}
    windows: dict[Job, list[Window]] = {job: [] for job in jobs}
    for job in jobs:
        c = job.condition
        try:
            ready[job] = ask(job, "prepare", c.resolution, c.execution, c.batch_size)
        except WorkerError as error:
            yield Told(job, failure=str(error))
    for job in interleave(list(ready), rounds):
        if job not in ready:
            continue
        c, prepared = job.condition, ready[job]
        arguments = (c.resolution, c.execution, prepared.batch_size, prepared.steps)
        try:
            windows[job].append(ask(job, "window", *arguments))
        except WorkerError as error:
            del ready[job]
            yield Told(job, failure=str(error))
        else:
            yield Told(job)
    for job, prepared in ready.items():
        c = job.condition
        try:
            busy = ask(job, "busy", c.resolution, c.execution, prepared.batch_size)
        except WorkerError as error:
            yield Told(job, failure=str(error))
        else:
            row = replace(job.row, busy_ms=busy)
            yield Told(job, row=complete(row, prepared.batch_size, windows[job]))


def complete(row: Record, batch_size: int, windows: Sequence[Window]) -> Record:
    """Return the row with medians over the windows and half their interquartile ranges."""
    speed, speed_spread = median_and_spread([batch_size / w.seconds for w in windows])
    latency, latency_spread = median_and_spread([1e3 * w.seconds for w in windows])
    launch, _ = median_and_spread(
        [1e3 * w.launch_seconds for w in windows if w.launch_seconds is not None]
    )
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
        launch_ms=launch,
        joules_per_image=joules,
        joules_per_image_spread=joules_spread,
        peak_memory_mib=max(peaks, default=None),
    )


def minutes(seconds: float) -> str:
    """Return a duration to read, as ``40 s`` or ``6.5 min``."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def line_of(row: Record) -> str:
    """Return one line about a measured row."""
    parts = [
        f"{row.model:<{max(12, len(row.model))}}",
        f"{row.mode} {row.execution}",
        f"{row.resolution:>4} px",
        f"batch {row.batch_size}",
        f"{_number(row.images_per_second, row.images_per_second_spread)} img/s",
        f"{_number(row.latency_ms, None)} ms",
    ]
    if row.busy_ms is not None and row.launch_ms is not None:
        parts.append(f"(busy {row.busy_ms:.3g}, launching {row.launch_ms:.3g})")
    if row.peak_memory_mib is not None:
        parts.append(f"{row.peak_memory_mib:,.0f} MiB")
    if row.joules_per_image is not None:
        parts.append(f"{row.joules_per_image:.3g} J/img")
    if row.asked_batch_size is not None:
        parts.append(f"(out of memory at batch {row.asked_batch_size})")
    return "  ".join(parts)


def _number(value: float | None, spread: float | None) -> str:
    if value is None:
        return "-"
    text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    if spread is None:
        return text
    return f"{text} ±{spread:,.0f}" if value >= 100 else f"{text} ±{spread:.2g}"
