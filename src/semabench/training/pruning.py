"""A run that is a trial of a search reports its epochs, and ends early where it is told to."""

from __future__ import annotations

import logging
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback

from semabench.errors import SemabenchError, first_line
from semabench.processes import global_rank
from semabench.training.module import Classifier

log = logging.getLogger(__name__)


class Prune(Callback):
    """Reports each validation's top-1 to the search; a run that ends early is not finished.

    Args:
        output_root: of the run.
        trial: its key ``trial``.

    Raises:
        SemabenchError: Optuna is not installed, or there is no such trial.
    """

    def __init__(self, output_root: Path, trial: str) -> None:
        try:
            from semabench.sweep.tuning import TrialReport
        except ImportError as error:
            raise SemabenchError(
                f"trial= is a search's, which needs Optuna ({error}): pip install "
                "'semabench[sweep]'."
            ) from error
        self.report = TrialReport(output_root, trial) if global_rank() == 0 else None

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Ask rank 0, which alone talks to the search, whether to go on."""
        assert isinstance(pl_module, Classifier)
        ends = False
        last = trainer.current_epoch + 1 == trainer.max_epochs
        if self.report is not None and not last:
            top1 = float(trainer.callback_metrics[pl_module.monitor])
            try:
                ends = self.report.ends(top1, trainer.current_epoch)
            except Exception as error:  # a full disk, a lock: no reason not to train, nor to hang
                log.warning("the search cannot be told of this epoch: %s.", first_line(error))
        if trainer.strategy.broadcast(ends):
            trainer.should_stop = True
            if trainer.is_global_zero:
                epoch = trainer.current_epoch + 1
                print(f"ended after epoch {epoch}: below the median of the search", flush=True)
