"""A sweep's jobs in Slurm: submitted by submitit, stopped and requeued as train.sbatch's are.

submitit would have handlers of its own for SIGTERM and a signal ahead of the time limit, and
requeue by itself. Here the run's handlers are the only ones (`training/signals.py`): the process
stores its step and exits with 143 or 138, upon which the job's script requeues it; started again,
the same pickled job finds its run directory and goes on. Results are looked for in submitit's
files and jobs in the queue, so that nothing depends on Slurm's accounting.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import submitit
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
from submitit.core.utils import pickle_load

from semabench.app import JobFailed
from semabench.errors import SemabenchError
from semabench.sweep import failure, job_texts

_GONE = 3  # polls without a trace in the queue, after which a job without result has failed


class SlurmJobs(SlurmLauncher):
    """The launcher of hydra-submitit-launcher, but for signals, failures and waiting.

    Args:
        poll_seconds: between two looks into the queue.
        params: submitit's, see conf/hydra/launcher/slurm.yaml.
    """

    def __init__(self, poll_seconds: float, **params: Any) -> None:
        super().__init__(**params)
        self.poll_seconds = poll_seconds

    def __call__(self, *arguments: Any, **options: Any) -> JobReturn:
        """Run a job, on a node; each of its tasks calls this.

        Raises:
            JobFailed: it failed. (Then its process ends with an exit code that says so.)
        """
        for number in (signal.SIGTERM, signal.SIGCONT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_DFL)  # submitit's go
        returned = super().__call__(*arguments, **options)
        if returned.status != JobStatus.COMPLETED:
            raise returned._return_value
        return returned

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Submit all jobs as one array; wait for all of them.

        Raises:
            SemabenchError: there is no Slurm here, or it refuses.
            KeyboardInterrupt: the jobs go on without us.
        """
        arguments = [
            (list(overrides), "hydra.sweep.dir", initial_job_idx + k, "", Singleton.get_state())
            for k, overrides in enumerate(job_overrides)
        ]
        try:
            jobs = self._executor().map_array(self, *zip(*arguments, strict=True))
        except (OSError, RuntimeError, submitit.core.utils.FailedJobError) as error:
            reason = " ".join(str(error).split()[-30:])
            raise SemabenchError(f"Slurm takes no jobs here: {reason}") from error
        main = jobs[0].job_id.split("_")[0]
        folder = Path(str(jobs[0].paths.folder)).parent
        print(f"{len(jobs)} job(s) submitted as {main}; output: {folder}", flush=True)
        try:
            return self._wait(jobs, job_texts(job_overrides))
        except KeyboardInterrupt:
            print(f"the jobs go on in Slurm; `scancel {main}` ends them.", flush=True)
            raise

    def _executor(self) -> submitit.AutoExecutor:
        params = dict(self.params)
        executor = submitit.AutoExecutor(folder=params.pop("submitit_folder"), cluster="slurm")
        common = set(BaseQueueConf.__dataclass_fields__)
        params = {key if key in common else f"slurm_{key}": v for key, v in params.items()}
        executor.update_parameters(**{key: v for key, v in params.items() if v is not None})
        return executor

    def _wait(self, jobs: Sequence[submitit.Job[JobReturn]], texts: Sequence[str]) -> list[Any]:
        results: dict[int, JobReturn] = {}
        told: dict[int, str] = {}
        absent = dict.fromkeys(range(len(jobs)), 0)
        while len(results) < len(jobs):
            states = _states()
            for number, job in enumerate(jobs):
                if number in results:
                    continue
                state = (states or {}).get(job.job_id, "")
                absent[number] = 0 if state or states is None else absent[number] + 1
                result = _result(job, gone=absent[number] >= _GONE)
                if result is not None:
                    results[number] = result
                    state = (
                        "finished"
                        if result.status == JobStatus.COMPLETED
                        else f"failed ({result._return_value})"
                    )
                if state and told.get(number) != state:
                    told[number] = state
                    print(f"#{number} {job.job_id} {texts[number]}: {state}", flush=True)
            if len(results) < len(jobs):
                time.sleep(self.poll_seconds)
        return [results[number] for number in range(len(jobs))]


def _states() -> dict[str, str] | None:
    """Return the state of each of the user's jobs in the queue; ``None``: nobody answers."""
    command = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i %T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    pairs = (line.split() for line in done.stdout.splitlines())
    return {pair[0]: pair[1].lower() for pair in pairs if len(pair) == 2}


def _result(job: submitit.Job[JobReturn], *, gone: bool) -> JobReturn | None:
    """Return the result of a job, or ``None`` while it may come: the first task's, or a failure."""
    tasks = [job.task(k) for k in range(job.num_tasks)]
    outcomes = [pickle_load(t.paths.result_pickle) for t in tasks if t.paths.result_pickle.exists()]
    for kind, value in outcomes:
        if kind == "error":  # a traceback, whose last line is the error
            line = str(value).strip().splitlines()[-1]
            return failure(JobFailed(line.removeprefix("semabench.app.JobFailed: ")))
    if len(outcomes) == len(tasks):
        return outcomes[0][1]
    if gone:
        log = job.paths.stderr if job.paths.stderr.exists() else job.paths.stdout
        return failure(JobFailed(f"it ended without a result; see {log}"))
    return None
