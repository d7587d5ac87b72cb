"""Measure the cost of models under every condition; each row is stored once its group is done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from semabench.errors import SemabenchError
from semabench.evaluation.cost.plan import Job, estimate_seconds, in_turn, is_compiled, plan_jobs
from semabench.evaluation.cost.schema import CostConfig
from semabench.evaluation.cost.session import Session, minutes
from semabench.evaluation.cost.views import VIEW
from semabench.evaluation.cost.workload import Setting
from semabench.files import make_directory
from semabench.progress import Screen
from semabench.results.record import Record
from semabench.results.report import print_report
from semabench.results.store import RESULTS_NAME, read_rows
from semabench.training.device import choose_accelerator, choose_precision


def measure_cost(config: CostConfig) -> list[Record]:
    """Measure what ``config`` asks for and is not in results.jsonl yet, and report all of it.

    Returns:
        The rows asked for that there are, measured now or before.

    Raises:
        SemabenchError: bad input, before anything is measured; or, once all else is measured,
            that some measurements failed.
    """
    start = time.monotonic()
    accelerator = choose_accelerator(config.accelerator)
    setting = Setting(
        device="cuda" if accelerator == "gpu" else "cpu",
        precision=choose_precision(config.precision, accelerator),
        channels_last=config.channels_last,
        min_steps=config.min_steps,
        min_seconds=config.min_seconds,
    )
    jobs = plan_jobs(config, setting)
    out_dir = Path(config.output_dir or "outputs/cost")
    make_directory(out_dir)
    path = out_dir / RESULTS_NAME
    stored = {} if config.redo else {row.key: row for row in read_rows(path)}
    todo = [job for job in jobs if job.row.key not in stored]
    with Screen(sum(_steps(job, config) for job in todo)) as screen:
        screen.say(_opening(jobs, todo, config, path))
        session = Session(config, setting, out_dir, screen, start)
        for group in in_turn(todo, config.peers):
            session.measure(group)
    if read_rows(path):
        print_report([path], out_dir / "report", [VIEW])
    _complain(session, path)
    wanted = {job.row.key for job in jobs}
    return [row for row in read_rows(path) if row.key in wanted]


def _steps(job: Job, config: CostConfig) -> int:
    return config.rounds + is_compiled(job.condition.execution)


def _opening(jobs: Sequence[Job], todo: Sequence[Job], config: CostConfig, path: Path) -> str:
    if not todo:
        return f"all {len(jobs)} measurements are in {path} already (redo=true repeats them)"
    compiled = sum(is_compiled(job.condition.execution) for job in todo)
    before = f", {len(jobs) - len(todo)} measured before" if len(todo) < len(jobs) else ""
    return (
        f"{len(todo)} measurements, {compiled} to compile{before}; "
        f"about {minutes(estimate_seconds(todo, config))}: {path}"
    )


def _complain(session: Session, path: Path) -> None:
    """Say at the end what there is no row of.

    Raises:
        SemabenchError: a measurement failed.
    """
    if session.left:
        print(
            f"max_seconds is over, {len(session.left)} measurements left: the same command goes on"
        )
    if session.failed:
        job, reason = next(iter(session.failed.items()))
        more = f" and {len(session.failed) - 1} more" if len(session.failed) > 1 else ""
        raise SemabenchError(
            f"not measured: {job.title}{more} ({reason}); what was measured is in {path}, the same "
            "command tries the rest again."
        )
