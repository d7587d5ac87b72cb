"""Run a study: worker processes share the device and one queue; rows are stored as they come."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from semabench.errors import SemabenchError
from semabench.files import make_directory
from semabench.processes import Worker, WorkerError, stopped_at_the_end
from semabench.progress import Screen
from semabench.results.record import Record
from semabench.results.report import print_report
from semabench.results.store import RESULTS_NAME, append_record, read_rows
from semabench.study.plan import Job, plan_jobs
from semabench.study.schema import StudyConfig
from semabench.study.training import StudyWorker
from semabench.study.views import VIEW
from semabench.training.device import choose_accelerator

LOGS = "logs"


def measure_study(config: StudyConfig) -> list[Record]:
    """Train and test what ``config`` asks for and is not in results.jsonl yet; report all of it.

    Returns:
        The rows asked for that there are, measured now or before.

    Raises:
        SemabenchError: bad input, before anything is trained; or, once all else is done, that
            some trainings failed.
    """
    start = time.monotonic()
    device = "cuda" if choose_accelerator(config.accelerator) == "gpu" else "cpu"
    jobs = plan_jobs(config, torch.device(device))
    out_dir = Path(config.output_dir or "outputs/study")
    make_directory(out_dir)
    path = out_dir / RESULTS_NAME
    stored = set() if config.redo else {row.key for row in read_rows(path)}
    todo = [job.without(stored) for job in jobs]
    todo = [job for job in todo if job.rows]
    with Screen(len(todo)) as screen:
        before = f", {len(jobs) - len(todo)} done before" if len(todo) < len(jobs) else ""
        screen.say(f"{len(todo)} trainings{before}: {path}")
        crew = Crew(config, device, path, screen, start)
        crew.work(todo)
    if read_rows(path):
        print_report([path], path.parent / "report", [VIEW])
    _complain(crew, path)
    wanted = {row.key for job in jobs for row in job.rows}
    return [row for row in read_rows(path) if row.key in wanted]


class Crew:
    """The workers of one call, what is left to them, and what failed.

    Args:
        config: how many, and the time there is.
        device: "cuda" or "cpu".
        path: of results.jsonl; the processes' logs are beside it.
        screen: told what goes on.
        start: of the call, on `time.monotonic`'s clock.
    """

    def __init__(
        self, config: StudyConfig, device: str, path: Path, screen: Screen, start: float
    ) -> None:
        self.config = config
        self.path = path
        self.screen = screen
        self.start = start
        self.todo: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self.left = 0
        self.failed: dict[str, str] = {}
        self._interrupted = False
        self._lock = threading.Lock()
        logs = path.parent / LOGS
        self.workers = [
            Worker(StudyWorker, device, log=logs / f"worker-{number}.log", patience=config.patience)
            for number in range(config.workers or (4 if device == "cuda" else 1))
        ]

    def work(self, jobs: Sequence[Job]) -> None:
        """Do all jobs, in their order, as workers become free; one that fails stops no other."""
        for job in jobs:
            self.todo.put(job)
        workers = self.workers[: max(1, len(jobs))]
        with stopped_at_the_end(workers), ThreadPoolExecutor(len(workers)) as threads:
            try:
                for future in [threads.submit(self._serve, worker) for worker in workers]:
                    future.result()
            except BaseException:  # ctrl-C: the threads wait for answers that nobody needs now
                self._interrupted = True
                self._drain()
                for worker in workers:
                    worker.stop()
                raise
        self.left = self._drain()

    def _serve(self, worker: Worker) -> None:
        while not self._late():
            try:
                job = self.todo.get_nowait()
            except queue.Empty:
                return
            try:
                rows = worker.ask("do", job)
            except WorkerError as error:
                if self._interrupted:
                    return
                with self._lock:
                    self.failed[job.training.title] = str(error)
                    self.screen.say(f"failed: {job.training.title}: {error}")
                continue
            with self._lock:
                for row in rows:
                    append_record(self.path, row)
                self.screen.say(_line(job, rows, time.monotonic() - self.start))
                self.screen.advance()

    def _late(self) -> bool:
        limit = self.config.max_seconds
        return limit is not None and time.monotonic() - self.start >= limit

    def _drain(self) -> int:
        count = 0
        while not self.todo.empty():
            self.todo.get_nowait()
            count += 1
        return count


def _line(job: Job, rows: Sequence[Record], seconds: float) -> str:
    sizes: dict[int, list[float]] = {}
    for row in rows:
        sizes.setdefault(row.resolution, []).append(row.top1 or 0.0)
    told = "  ".join(
        f"{size} px " + "/".join(f"{top1:.0f}" for top1 in values) for size, values in sizes.items()
    )
    first = rows[0]
    return (
        f"{seconds:5.0f} s  {job.training.title:<44} loss {first.train_loss:.3f}  {told}  "
        f"({first.train_seconds:.1f} s)"
    )


def _complain(crew: Crew, path: Path) -> None:
    """Say at the end what there is no row of.

    Raises:
        SemabenchError: a training failed.
    """
    if crew.left:
        print(f"max_seconds is over, {crew.left} trainings left: the same command goes on")
    if crew.failed:
        title, reason = next(iter(crew.failed.items()))
        more = f" and {len(crew.failed) - 1} more" if len(crew.failed) > 1 else ""
        raise SemabenchError(
            f"failed: {title}{more} ({reason}); all other rows are in {path}, the same command "
            "tries the rest again."
        )
