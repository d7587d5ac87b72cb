"""Peers that are alive at the same time: counted and compiled at once, timed one by one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from semabench.config.cost import CostConfig
from semabench.data.workers import worker_count
from semabench.evaluation.cost.lines import line_of, minutes
from semabench.evaluation.cost.plan import Job, by_condition, compile_seconds, conditions, waves
from semabench.evaluation.cost.turns import measure_group
from semabench.evaluation.cost.worker import CostWorker
from semabench.evaluation.cost.workload import Setting
from semabench.evaluation.screen import Screen
from semabench.evaluation.workers.peer import (
    Peer,
    PeerError,
    Request,
    ask_at_once,
    stopped_at_the_end,
)
from semabench.results.store import RESULTS_NAME, append_record

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
        peers = self._peers(jobs)
        with stopped_at_the_end(list(peers.values())):
            self._count(jobs, peers)
            for group in by_condition(jobs, "eager"):
                self._time(group, peers)
            for wave in waves(jobs, conditions(self.config)):
                self._compile(wave, peers)
                for group in by_condition(wave, "compiled"):
                    self._time([job for job in group if job not in self.left], peers)

    def _peers(self, jobs: Sequence[Job]) -> dict[Place, Peer]:
        """Return a process for each model and mode: so that both compile at the same time."""
        specs = {_place(job): job.spec for job in jobs}
        # A compilation is Python on one core most of the time, and wants many for its kernels.
        cores = worker_count(None)
        threads = max(1, cores // 4, cores // len(specs))
        peers = {}
        for (place, mode), spec in specs.items():
            name = spec.name.replace("/", "_").replace(":", "_")
            log = self.out_dir / LOGS / f"{name}-{mode}.log"
            peers[place, mode] = Peer(
                CostWorker,
                spec,
                mode,
                self.setting,
                log=log,
                patience=self.config.patience,
                threads=threads,
            )
        return peers

    def _count(self, jobs: Sequence[Job], peers: dict[Place, Peer]) -> None:
        """Start all processes; the first of each model counts its size and multiply-adds."""
        self.screen.doing(f"starting {len(peers)} processes")

        def requests() -> Iterator[Request]:
            seen: set[tuple[int, int]] = set()
            for job in jobs:
                size = _size(job)
                if size not in seen:
                    seen.add(size)
                    yield Request(peers[_place(job)], size, "count", size[1:])
            for peer in peers.values():
                yield Request(peer, None, "ready")

        def answered(size: tuple[int, int] | None, answer: Any) -> None:
            if size is not None and not isinstance(answer, PeerError):
                self.counts[size] = answer

        ask_at_once(requests(), answered)  # who fails here fails again, and is told of, when timed

    def _compile(self, jobs: Sequence[Job], peers: dict[Place, Peer]) -> None:
        """Compile a wave, each process its own, all at the same time: it is the CPU's work."""
        if self._late(compile_seconds(jobs)):
            self.left += jobs
            return
        begin = time.monotonic()
        self.screen.doing(f"compiling {len(jobs)}")

        def answered(job: Job, answer: Any) -> None:
            self.screen.advance()
            if isinstance(answer, PeerError):
                self._fail(job, str(answer))

        ask_at_once(
            (
                Request(peers[_place(job)], job, "compile", (c.resolution, c.batch_size))
                for job in jobs
                for c in [job.condition]
            ),
            answered,
        )
        done = sum(job not in self.failed for job in jobs)
        self.screen.say(f"compiled {done} of {len(jobs)} in {minutes(time.monotonic() - begin)}")

    def _time(self, group: Sequence[Job], peers: dict[Place, Peer]) -> None:
        if self._late():
            self.left += group
            return
        group = [job for job in group if job not in self.failed]
        if group:
            self.screen.doing(group[0].condition.title)

        def ask(job: Job, method: str, *arguments: Any) -> Any:
            return peers[_place(job)].ask(method, *arguments)

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
