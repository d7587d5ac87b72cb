"""Sweeps: many runs from one command, locally or through Slurm; one that fails stops no other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.plugins.launcher import Launcher

from semabench.app import JobFailed, failed_jobs
from semabench.errors import SemabenchError


class KeepGoing(Launcher):
    """Stands between a sweeper and a launcher: a failed job has no result, and is noted.

    Hydra's sweepers stop at the first failure that they see. ``run_app`` lists what is noted here
    and ends with an exit code that is not 0.
    """

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher

    def setup(self, **context: Any) -> None:
        """Nothing to do: the launcher has been set up."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Launch; return as many results as there are jobs, ``None`` for the failed.

        Raises:
            SemabenchError: the launcher itself failed, and no job's result is known.
        """
        try:
            returns = self.launcher.launch(job_overrides, initial_job_idx)
        except (SemabenchError, KeyboardInterrupt, SystemExit):
            raise
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            raise SemabenchError(
                f"{type(self.launcher).__name__} failed ({type(error).__name__}: {reason}); what "
                "its jobs have stored is kept, and the same command goes on there."
            ) from error
        texts = job_texts(job_overrides)
        return [_settled(text, returned) for text, returned in zip(texts, returns, strict=True)]


def job_texts(job_overrides: Sequence[Sequence[str]]) -> list[str]:
    """Return what jobs are called in messages: the overrides in which they differ."""
    jobs = [filter_overrides(overrides) for overrides in job_overrides]
    common = set(jobs[0]).intersection(*jobs) if len(jobs) > 1 else set()
    return [" ".join(o for o in job if o not in common) or "the job" for job in jobs]


def failure(error: BaseException) -> JobReturn:
    """Return what a launcher gives for a failed job."""
    returned = JobReturn(status=JobStatus.FAILED)
    returned.return_value = error
    return returned


def _settled(text: str, returned: JobReturn) -> JobReturn:
    if returned.status == JobStatus.COMPLETED:
        return returned
    error = returned._return_value
    reason = error if isinstance(error, JobFailed) else f"{type(error).__name__}: {error}"
    failed_jobs.append(f"{text}: {reason}")
    return JobReturn(status=JobStatus.COMPLETED)
