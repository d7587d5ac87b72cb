"""How a run is doing: speed, waiting for data, use of the device, memory, and when it will end."""

from __future__ import annotations

import logging
import time

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from semabench.models.flops import count_gmacs
from semabench.training.host_values import log_values
from semabench.training.marks import Mark, mark, seconds_between
from semabench.training.module import Classifier
from semabench.training.utilisation import flops_per_image, peak_flops

log = logging.getLogger(__name__)

STARVED = 0.2  # share of the time spent waiting for data that is worth a warning
SETTLED = 30.0  # seconds of training over which that share is taken


class Waiting(Callback):
    """Measures how long the device has had nothing to do since the step before: no data.

    The last of the callbacks, so that what the others do after a step is not waiting. On a GPU the
    marks are events in its own stream, and nobody waits for them: time in which it still works off
    earlier steps, while the host waits for a batch, does not count.
    """

    def __init__(self) -> None:
        self._left: Mark | None = None
        self._gaps: list[tuple[Mark, Mark]] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Wait for the epoch's first batch."""
        self._left = mark(pl_module.device)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """The batch is here."""
        if self._left is not None:
            self._gaps.append((self._left, mark(pl_module.device)))

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Wait for the next."""
        self._left = mark(pl_module.device)

    def take(self) -> float:
        """Return the seconds waited since the last call; the device has done the steps by now."""
        gaps, self._gaps = self._gaps, []
        return sum(seconds_between(start, end) for start, end in gaps)


class Throughput(Callback):
    """Logs training img/s over all devices, validation and checkpoints left out, and the rest.

    ``train/data_wait_percent``, the most of any process; ``train/mfu_percent``, where the device's
    peak is known; ``train/memory_gib``, the most allocated on this GPU so far;
    ``train/hours_left``, by the pace of this start, validation included.

    Args:
        every: steps between two looks.
        global_batch_size: pictures a step, over all devices.
        waiting: measures the time without data.
    """

    def __init__(self, every: int, global_batch_size: int, waiting: Waiting) -> None:
        self.every = every
        self.global_batch_size = global_batch_size
        self.waiting = waiting
        self.images = 0
        self.seconds = 0.0
        self.hours_left: float | None = None
        self._start = 0.0
        self._steps = 0
        self._pace: tuple[float, int] | None = None  # time and step of the first look
        self._waited = self._settling = 0.0
        self._warned = False
        self._gmacs: dict[int, float] = {}  # of a picture's forward pass, by resolution
        self._peak: float | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock: an epoch that is resumed in its middle has no start of its own."""
        if pl_module.device.type == "cuda":
            name = torch.cuda.get_device_name(pl_module.device)
            self._peak = peak_flops(name, str(trainer.precision))
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock again after validation."""
        self.images, self.seconds = 0, 0.0
        self._start, self._steps = time.perf_counter(), 0

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Read the clock where the loss is read, so that the device has done the work."""
        self._steps += 1
        if trainer.global_step % self.every == 0 or trainer.is_last_batch:
            if trainer.is_last_batch and pl_module.device.type == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            images, seconds = self._steps * self.global_batch_size, now - self._start
            self.images += images
            self.seconds += seconds
            self._start, self._steps = now, 0
            assert isinstance(pl_module, Classifier)
            self._log(trainer, pl_module, images / seconds, seconds, now)

    def _log(
        self, trainer: L.Trainer, module: Classifier, speed: float, seconds: float, now: float
    ) -> None:
        found = {"images_per_second": speed}
        here = torch.tensor(self.waiting.take(), dtype=torch.float32, device=module.device)
        waited = min(float(trainer.strategy.reduce(here, reduce_op="max")), seconds)
        found["data_wait_percent"] = 100 * waited / seconds
        if self._peak is not None:
            flops = self._flops_per_image(trainer, module)
            found["mfu_percent"] = 100 * speed * flops / (self._peak * trainer.world_size)
        if module.device.type == "cuda":
            found["memory_gib"] = torch.cuda.max_memory_allocated(module.device) / 2**30
        if self._pace is None:
            self._pace = now, trainer.global_step  # compiled, filled: from here it is steady
        elif trainer.global_step > self._pace[1]:
            left = module.total_steps - trainer.global_step
            pace = (now - self._pace[0]) / (trainer.global_step - self._pace[1])
            found["hours_left"] = self.hours_left = left * pace / 3600
            self._look_for_hunger(trainer, waited, seconds)
        told = {f"train/{name}": value for name, value in found.items()}
        log_values(module, told, in_bar=True)

    def _look_for_hunger(self, trainer: L.Trainer, waited: float, seconds: float) -> None:
        """Warn once if the loader cannot keep up."""
        self._waited += waited
        self._settling += seconds
        if self._settling < SETTLED:
            return
        share, self._waited, self._settling = self._waited / self._settling, 0.0, 0.0
        if share > STARVED and not self._warned:
            self._warned = True
            if trainer.is_global_zero:
                log.warning(
                    "the device waits for data %.0f %% of the time: give each process more cores "
                    "(data.num_workers), or pack smaller pictures (semabench data pack "
                    "--max-resolution) or raw ones (--mode raw).",
                    100 * share,
                )

    def _flops_per_image(self, trainer: L.Trainer, module: Classifier) -> float:
        resolution: int = trainer.datamodule.resolution_at(trainer.current_epoch)  # type: ignore[attr-defined]
        if resolution not in self._gmacs:
            self._gmacs[resolution] = count_gmacs(module.model, resolution)
        return flops_per_image(self._gmacs[resolution], passes=4 if module.mesa_is_on else 3)
