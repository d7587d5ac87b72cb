"""A trace of a few training steps, for chrome://tracing or ui.perfetto.dev."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch.profiler import ProfilerActivity, profile

from semabench.files import atomic_path
from semabench.training.module import Classifier

WARMUP = 10  # steps of a start that are left out: they compile and fill caches


class Profile(Callback):
    """Traces ``steps`` steps of rank 0 with torch's profiler, once a start.

    The trace is written to ``directory/steps-<first>-<last>.json``, counted from 0, where the
    steps end, or the run does.

    Args:
        directory: created if need be.
        steps: how many.
    """

    def __init__(self, directory: Path, steps: int) -> None:
        self.directory = directory
        self.steps = steps
        self._first = 0
        self._profiler: profile | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Choose the steps: after some warm-up, if the run is long enough."""
        assert isinstance(pl_module, Classifier)
        latest = pl_module.total_steps - self.steps
        self._first = max(trainer.global_step, min(trainer.global_step + WARMUP, latest))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Start at the first of them."""
        if trainer.global_step == self._first and trainer.is_global_zero:
            activities = [ProfilerActivity.CPU]
            if pl_module.device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            self._profiler = profile(activities=activities, record_shapes=True)
            self._profiler.start()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Write the trace after the last."""
        if trainer.global_step == self._first + self.steps:
            self._write(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write what there is of it."""
        self._write(trainer)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Stop, so that the process can end."""
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler = None

    def _write(self, trainer: L.Trainer) -> None:
        if self._profiler is None:
            return
        profiler, self._profiler = self._profiler, None
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        profiler.stop()
        path = self.directory / f"steps-{self._first}-{trainer.global_step - 1}.json"
        with atomic_path(path) as partial:
            profiler.export_chrome_trace(str(partial))
        print(f"traced: {path}", flush=True)
