"""A run that is a trial of a search reports its epochs, and ends early where it is told to."""

from __future__ import annotations

from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback

from semabench.errors import SemabenchError
from semabench.training.module import Classifier


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
        self.report = TrialReport(output_root, trial)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Ask rank 0, which alone talks to the search, whether to go on."""
        assert isinstance(pl_module, Classifier)
        ends = False
        if trainer.is_global_zero:
            top1 = float(trainer.callback_metrics[pl_module.monitor])
            ends = self.report.ends(top1, trainer.current_epoch)
        if trainer.strategy.broadcast(ends):
            trainer.should_stop = True
            if trainer.is_global_zero:
                epoch = trainer.current_epoch + 1
                print(f"ended after epoch {epoch}: below the median of the search", flush=True)
