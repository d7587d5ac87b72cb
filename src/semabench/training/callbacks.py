"""What watches a run: finite losses, and a line an epoch."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar
from rich.console import Console

from semabench.errors import SemabenchError
from semabench.training.host_values import log_values
from semabench.training.module import Classifier
from semabench.training.optimizer import learning_rate
from semabench.training.throughput import Throughput


class LossWatch(Callback):
    """Logs the loss and stops the run at the first that is not finite.

    The step of that loss is noted on the device at every step and read every ``every`` steps and
    at the end of an epoch, before a checkpoint is written: no step waits for it, and no
    checkpoint holds its damage.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.first_bad: torch.Tensor | None = None

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Note the loss of this step, counted from 0."""
        loss = outputs["loss"].detach()
        step = trainer.global_step - 1
        if self.first_bad is None:
            self.first_bad = torch.full((), -1, dtype=torch.int64, device=loss.device)
        new = (self.first_bad < 0) & ~torch.isfinite(loss)
        self.first_bad = torch.where(new, step, self.first_bad)
        if (step + 1) % self.every == 0 or trainer.is_last_batch:
            self._read(trainer, pl_module, loss)

    def _read(self, trainer: L.Trainer, module: L.LightningModule, loss: torch.Tensor) -> None:
        assert self.first_bad is not None
        assert isinstance(module, Classifier)
        rate_at = learning_rate(module.recipe, module.steps_per_epoch)
        # One rank must not stop while the others wait for it.
        if (bad := int(trainer.strategy.reduce(self.first_bad, reduce_op="max"))) >= 0:
            epoch = bad // module.steps_per_epoch + 1
            rate = rate_at(bad)
            raise SemabenchError(
                f"the loss is not finite since step {bad} (epoch {epoch}, learning rate {rate:.3g})"
                ": lower recipe.lr, lengthen recipe.warmup_epochs, or train with "
                "trainer.precision=32-true; no checkpoint has been written since."
            )
        told: dict[str, torch.Tensor | float] = {"train/lr": rate_at(trainer.global_step - 1)}
        if module.mesa_term is not None:  # or the curve would jump where MESA sets in
            told["train/mesa"] = module.mesa_term
            loss = loss - module.mesa_term
        log_values(module, told, in_bar=False)
        log_values(module, {"train/loss": loss}, in_bar=True)


class EpochLine(Callback):
    """Prints one line an epoch: for logs, where a progress bar says nothing."""

    def __init__(self, throughput: Throughput) -> None:
        self.throughput = throughput
        self.console = Console(highlight=False, soft_wrap=True)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print epoch, loss, accuracy, learning rate and speed."""
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Classifier)
        metrics = trainer.callback_metrics
        parts = [f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"]
        every = trainer.check_val_every_n_epoch or 1
        if (trainer.current_epoch + 1) % every:  # not validated: the numbers there are older
            metrics = {k: v for k, v in metrics.items() if not k.startswith("val")}
        for label, key in (("loss", "train/loss"), ("val loss", "val/loss")):
            if key in metrics:
                parts.append(f"{label} {float(metrics[key]):.3f}")
        for label, key in (("top-1", "top1"), ("top-5", "top5")):
            if f"val/{key}" in metrics:
                parts.append(f"{label} {float(metrics[f'val/{key}']):.2f} %")
        if "val_ema/top1" in metrics:
            parts.append(f"EMA top-1 {float(metrics['val_ema/top1']):.2f} %")
        if "train/lr" in metrics:
            parts.append(f"lr {float(metrics['train/lr']):.2e}")
        speed = self.throughput.images / max(self.throughput.seconds, 1e-9)
        parts.append(f"{speed:,.0f} img/s")
        hours = self.throughput.hours_left
        if hours is not None and hours >= 1 / 60:
            parts.append(f"{int(hours)} h {int(hours % 1 * 60):02d} min left")
        self.console.print("  ".join(parts))


class Bar(RichProgressBar):
    """Lightning's bar, but what stands beside it is read once every ``every`` steps.

    Reading waits for the device; the bar itself moves more often.
    """

    def __init__(self, every: int) -> None:
        super().__init__(refresh_rate=max(1, min(every, 10)), leave=False)
        self.every = every
        self._read: int | None = None  # number of the window whose metrics are shown
        self._shown: dict[str, Any] = {}

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Return the metrics of the last look; fresh ones during validation."""
        window = trainer.global_step // self.every
        if window != self._read or not trainer.training:
            self._read, self._shown = window, dict(super().get_metrics(trainer, pl_module))
            self._shown.pop("v_num", None)
        return self._shown
