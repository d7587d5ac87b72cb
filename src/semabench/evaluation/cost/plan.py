"""What is to be measured: every model under every condition, as rows that lack their numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from typing import Any

import torch

from semabench.errors import SemabenchError
from semabench.evaluation.cost.schema import EXPORTED, CostConfig, CostModel, cost_models, products
from semabench.evaluation.cost.workload import Setting, backend_label, build_bare
from semabench.models import mixer_name
from semabench.processes import worker_count
from semabench.results.record import Record, git_commit, software_versions
from semabench.training.device import device_label, layout_label, options_label

# Rough, for the estimate alone: seconds of a process's start, of one compilation, of what a window
# takes beyond its timed part (allocation, warm-up), and of a model's warm-up.
_START, _COMPILE, _BESIDE, _PREPARE = 20.0, {"infer": 80.0, "train": 180.0}, 0.3, 1.0


@dataclass(frozen=True)
class Condition:
    """What peers have in common when they are measured in turn."""

    execution: str
    mode: str
    resolution: int
    batch_size: int

    @property
    def title(self) -> str:
        """Say it in words."""
        return f"{self.mode} {self.execution}  {self.resolution} px  batch {self.batch_size}"


@dataclass(frozen=True, eq=False)
class Job:
    """One model under one condition, and its row as known beforehand."""

    place: int  # of the model in the list
    spec: CostModel
    condition: Condition
    row: Record

    @property
    def title(self) -> str:
        """Say which measurement this is."""
        return f"{self.row.model}  {self.condition.title}"


def is_compiled(execution: str) -> bool:
    """Return whether an execution is of a compiled model."""
    return execution.startswith("compiled")


def conditions(config: CostConfig) -> list[Condition]:
    """Return all conditions, each once: first those that bring rows while nothing compiles."""
    found = [
        Condition(execution, mode, resolution, size)
        for case in products(config)
        for execution, mode, resolution, size in product(
            case.executions or (), case.modes or (), case.resolutions or (), case.batch_sizes or ()
        )
    ]
    return sorted(dict.fromkeys(found), key=lambda c: is_compiled(c.execution))


def plan_jobs(config: CostConfig, setting: Setting) -> list[Job]:
    """Return a job for every model and condition; models are built, without weights, to check them.

    Raises:
        SemabenchError: a model that cannot be built, or not for one of the resolutions; a CUDA
            graph without a GPU.
    """
    wanted = conditions(config)
    for condition in wanted:
        if "graph" in condition.execution and setting.device != "cuda":
            raise SemabenchError(f"executions={condition.execution} needs a GPU.")
        if condition.execution in EXPORTED:
            _check_exported(condition, setting)
    device = torch.device(setting.device)
    jobs = []
    for place, spec in enumerate(cost_models(config)):
        about = _about(spec, {c.resolution for c in wanted}, device)
        for condition in wanted:
            row = Record(
                measure="cost",
                **about,
                resolution=condition.resolution,
                mode=condition.mode,
                execution=condition.execution,
                layout=layout_label(setting.channels_last),
                batch_size=condition.batch_size,
                precision=setting.precision,
                device=device_label(device),
                versions=software_versions(),
                commit=git_commit(),
            )
            jobs.append(Job(place, spec, condition, row))
    return jobs


def _check_exported(condition: Condition, setting: Setting) -> None:
    """Raise a SemabenchError where a file cannot be measured so: it is of float32, to infer."""
    what = f"executions={condition.execution}"
    if condition.mode != "infer":
        raise SemabenchError(f"{what} infers alone: set 'modes=[infer]'.")
    if setting.precision != "32-true":
        raise SemabenchError(f"{what} computes in float32: set precision=32-true.")
    if condition.execution == "onnx" and setting.device != "cpu":
        raise SemabenchError(f"{what} runs on the CPU: set accelerator=cpu.")


def _about(spec: CostModel, resolutions: Iterable[int], device: torch.device) -> dict[str, Any]:
    for resolution in sorted(resolutions):
        model = build_bare(spec, resolution, torch.device("meta"))
    return {
        "model": spec.name,
        "mixer": mixer_name(model) or "",
        "options": options_label(spec.options),
        "backend": backend_label(model, device),
    }


def in_turn(jobs: Sequence[Job], peers: int) -> Iterator[list[Job]]:
    """Yield the jobs of at most ``peers`` models at a time, in the models' order."""
    places = sorted({job.place for job in jobs})
    for start in range(0, len(places), peers):
        chosen = places[start : start + peers]
        yield [job for job in jobs if job.place in chosen]


def by_condition(jobs: Iterable[Job], execution: str) -> Iterator[list[Job]]:
    """Yield the groups of jobs that share a condition of this execution: peers."""
    order: dict[Condition, int] = {}
    chosen = [job for job in jobs if job.condition.execution == execution]
    for job in chosen:
        order.setdefault(job.condition, len(order))
    ranked = sorted(chosen, key=lambda job: (order[job.condition], job.place))
    for _, group in groupby(ranked, key=lambda job: job.condition):
        yield list(group)


def waves(jobs: Iterable[Job], order: Sequence[Condition]) -> Iterator[list[Job]]:
    """Yield the compiled jobs in portions that are compiled, then timed, before the next.

    Every mode's conditions are spread over as many waves as the mode with the fewest has, so that
    all processes have work in each. What a wave has timed is kept when a later one does not fit.
    """
    chosen = [job for job in jobs if is_compiled(job.condition.execution)]
    queues: dict[str, list[Condition]] = {}
    for condition in sorted({job.condition for job in chosen}, key=order.index):
        queues.setdefault(condition.mode, []).append(condition)
    count = min(map(len, queues.values()), default=0)
    for number in range(count):
        wave = {c for queue in queues.values() for c in queue[number::count]}
        yield [job for job in chosen if job.condition in wave]


def estimate_seconds(jobs: Sequence[Job], config: CostConfig) -> float:
    """Return roughly how long ``jobs`` take: processes start and compile at once, then take turns.

    A guess for one data-centre GPU; slow steps, as on a CPU, make windows longer than this.
    """
    total = 0.0
    for group in in_turn(jobs, config.peers):
        processes = len({(job.place, job.condition.mode) for job in group})
        window = 2.5 * config.min_seconds + _BESIDE  # timed, then again for its power
        total += _START * max(1.0, processes / worker_count(None))
        total += sum(compile_seconds(wave) for wave in waves(group, conditions(config)))
        total += len(group) * (_PREPARE + config.rounds * window)
    return total


def compile_seconds(jobs: Iterable[Job]) -> float:
    """Return roughly how long the compiled ones among ``jobs`` compile, all processes at once."""
    shapes = {
        (job.place, job.condition.mode, job.condition.resolution, job.condition.batch_size)
        for job in jobs
        if is_compiled(job.condition.execution)
    }
    queues: dict[tuple[int, str], float] = {}
    for place, mode, *_ in shapes:
        queues[place, mode] = queues.get((place, mode), 0.0) + _COMPILE[mode]
    longest = max(queues.values(), default=0.0)
    return max(longest, sum(queues.values()) / worker_count(None))
