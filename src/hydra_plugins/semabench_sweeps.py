"""Where Hydra looks for plugins: launchers and sweepers; what they do is in `semabench.sweep`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from semabench.config.run_name import run_name
from semabench.config.schema import TrainConfig, to_config
from semabench.errors import SemabenchError
from semabench.sweep.processes import KeepGoing


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


class GridSweeper(BasicSweeper):
    """Hydra's own; a failed job stops no other."""

    def setup(self, **context: Any) -> None:
        """Set the launcher up, and stand between."""
        super().setup(**context)
        assert self.launcher is not None
        self.launcher = KeepGoing(self.launcher)


class TuningSweeper(Sweeper):
    """A search by Optuna, on a held-out part of the training images only.

    Args:
        params: what is searched, in Hydra's words; the command line's come before them.
        settings: of ``semabench.sweep.tuning.Settings``.
    """

    def __init__(self, params: DictConfig | None, **settings: Any) -> None:
        try:
            from semabench.sweep import tuning
        except ImportError as error:
            raise SemabenchError(
                f"hydra/sweeper=tune needs Optuna ({error}): pip install 'semabench[sweep]'."
            ) from error
        self.tuning = tuning
        self.ranges = {str(name): str(told) for name, told in (params or {}).items()}
        self.settings = tuning.Settings(**settings)

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Set the launcher up.

        Raises:
            SemabenchError: the search would see the validation set that is reported.
        """
        if not config.data.holdout:
            raise SemabenchError(
                "a search must not see the validation set that is reported: set data.holdout=0.1, "
                "which validates on a tenth of the training images (docs/sweeps.md)."
            )
        if config.name is not None:
            raise SemabenchError(
                "a search has a run for each trial: leave name out, and set experiment or "
                "output_root."
            )
        self.composed = config
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.jobs = KeepGoing(launcher)

    def sweep(self, arguments: list[str]) -> None:
        """Search; the best values go to ``<output root>/optimization_results.yaml``."""
        overrides, space = self.tuning.split(arguments, self.ranges)
        if not space:
            raise SemabenchError("nothing to search: name ranges in hydra.sweeper.params.")
        plain = OmegaConf.masked_copy(self.composed, [f.name for f in fields(TrainConfig)])
        name = run_name(to_config(plain, TrainConfig))
        root = Path(str(self.composed.output_root))
        search = self.tuning.Search(root, name, overrides, space, self.settings)

        def launch(jobs: list[list[str]], number: int) -> list[Any]:
            return [one.return_value for one in self.jobs.launch(jobs, number)]

        search.run(launch)
