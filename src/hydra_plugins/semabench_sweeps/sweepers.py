"""`hydra/sweeper=grid`, every combination, and `hydra/sweeper=tune`, a search."""

from __future__ import annotations

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig

from semabench.app import failed_jobs
from semabench.errors import SemabenchError
from semabench.sweep import KeepGoing


class GridSweeper(BasicSweeper):
    """Hydra's own; a failed job stops no other."""

    def setup(self, **context: Any) -> None:
        """Set the launcher up, and stand between."""
        super().setup(**context)
        assert self.launcher is not None
        self.launcher = KeepGoing(self.launcher)


class TuningSweeper(Sweeper):
    """hydra-optuna-sweeper's, on a held-out part of the training pictures only.

    Its sampler is seeded: the same command again asks for the same trials, finds those finished
    that are, and goes on from there.
    """

    def __init__(self, **options: Any) -> None:
        try:
            from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper as Theirs

            self.theirs = Theirs(**options)
        except ImportError as error:
            raise SemabenchError(
                f"hydra/sweeper=tune needs Optuna ({error}): pip install 'semabench[sweep]'."
            ) from error

    def setup(self, *, config: DictConfig, **context: Any) -> None:
        """Set the launcher up.

        Raises:
            SemabenchError: the search would see the validation set that is reported.
        """
        if not config.data.holdout:
            raise SemabenchError(
                "a search must not see the validation set that is reported: set data.holdout=0.1, "
                "which validates on a tenth of the training pictures (docs/sweeps.md)."
            )
        self.theirs.setup(config=config, **context)
        launcher = self.theirs.sweeper.launcher
        assert launcher is not None
        self.theirs.sweeper.launcher = KeepGoing(launcher)

    def sweep(self, arguments: list[str]) -> None:
        """Search; the best values go to ``<output root>/optimization_results.yaml``."""
        try:
            self.theirs.sweep(arguments)
        except ValueError:
            if not failed_jobs:
                raise  # else: no trial has a result, which the end tells
