"""`hydra/launcher=processes` and `hydra/launcher=slurm`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from semabench.errors import SemabenchError


class ProcessLauncher(Launcher):
    """Starts each job as a process of its own, several at a time.

    Args:
        n_jobs: at a time; one for each GPU if not given, or one where there is none.
    """

    def __init__(self, n_jobs: int | None) -> None:
        if n_jobs is not None and n_jobs < 1:
            raise SemabenchError(f"hydra.launcher.n_jobs must be at least 1, not {n_jobs}.")
        self.n_jobs = n_jobs

    def setup(self, *, config: DictConfig, **context: Any) -> None:
        """Keep what the jobs' command lines need."""
        self.config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run all jobs; return their results in order."""
        from semabench.sweep.processes import ProcessPool, python_command, slots

        hydra = self.config.hydra
        app = "eval" if "measure" in self.config else "train"
        command = [*python_command(app), "--config-name", str(hydra.job.config_name)]
        for source in hydra.runtime.config_sources:
            if source.provider == "command-line":
                command += ["--config-dir", source.path]
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        log_dir = Path(str(hydra.sweep.dir)) / ".jobs" / name
        return ProcessPool(command, log_dir, slots(self.n_jobs)).run(job_overrides, initial_job_idx)


class SlurmLauncher(Launcher):
    """Submits each job to Slurm and waits for all.

    Args:
        params: see conf/hydra/launcher/slurm.yaml.
    """

    def __init__(self, **params: Any) -> None:
        try:
            from semabench.sweep.slurm import SlurmJobs
        except ImportError as error:
            raise SemabenchError(
                f"hydra/launcher=slurm needs submitit ({error}): pip install 'semabench[sweep]'."
            ) from error
        self.jobs = SlurmJobs(**params)

    def setup(self, **context: Any) -> None:
        """Keep what the jobs need."""
        self.jobs.setup(**context)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Submit all jobs; wait; return their results in order."""
        return self.jobs.launch(job_overrides, initial_job_idx)
