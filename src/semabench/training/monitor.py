"""How a run is doing: speed, waiting for data, use of the device, memory, and when it will end."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from torch.profiler import ProfilerActivity, profile

from semabench.errors import SemabenchError
from semabench.files import atomic_path
from semabench.models.flops import count_gmacs
from semabench.training.device import Mark, mark, seconds_between
from semabench.training.lightning_compat import log_values
from semabench.training.module import Classifier
from semabench.training.optim import learning_rate

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
        """Of the epoch's sizes, which are equally likely, the mean."""
        sizes: Sequence[int] = trainer.datamodule.sizes.in_epoch(trainer.current_epoch)  # type: ignore[attr-defined]
        for resolution in sizes:
            if resolution not in self._gmacs:
                self._gmacs[resolution] = count_gmacs(module.model, resolution)
        gmacs = sum(self._gmacs[resolution] for resolution in sizes) / len(sizes)
        return flops_per_image(gmacs, passes=4 if module.mesa_is_on else 3)


#: Dense TFLOP/s of 16-bit matrix products with 32-bit sums, by words of torch's device name; the
#: first entry counts whose words are all there. NVIDIA's data sheets mostly have the figures "with
#: sparsity", twice these: H200 1,979 (NVL 1,671), H100 1,979 (PCIe 1,513, NVL 1,671 a GPU),
#: HGX B200 4,500, GB200 5,000 a GPU, A100 624, A40 299.4, A10 250, L40S 733, L40 362.1, L4 242.
#: torchtitan's ``get_peak_flops`` has the same for A100, H100, H200, B200 and L40S, rounded. A10G
#: is left out: sources say 62.5, 70 and 125.
PEAK_TFLOPS: tuple[tuple[str, float], ...] = (
    ("GB200", 2500.0),
    ("B200", 2250.0),
    ("GH200", 989.5),
    ("H200 NVL", 835.5),
    ("H200", 989.5),
    ("H100 PCIe", 756.5),
    ("H100 NVL", 835.5),
    ("H100", 989.5),
    ("A100", 312.0),
    ("A40", 149.7),
    ("A10", 125.0),
    ("L40S", 362.05),
    ("L40", 181.05),
    ("L4", 121.0),
)
_SIXTEEN_BITS = ("bf16-mixed", "16-mixed")


def peak_flops(device_name: str, precision: str) -> float | None:
    """Return FLOP/s of a whole device at a precision of Lightning's; None where it is not known.

    It is for 16 bits alone: in ``32-true`` it depends on whether TF32 is allowed. Of a slice (MIG)
    nothing is known: its name is that of the device it is a part of.
    """
    words = set(re.split(r"[\s-]+", device_name))
    if precision not in _SIXTEEN_BITS or "MIG" in words:
        return None
    for name, tera in PEAK_TFLOPS:
        if words.issuperset(name.split()):
            return tera * 1e12
    return None


def flops_per_image(gmacs: float, passes: float) -> float:
    """Return the FLOPs of one picture in training: two for each multiply-add of each pass.

    Args:
        gmacs: of one forward pass, as ``count_gmacs`` counts it.
        passes: 3 with the backward pass, which costs twice the forward one; a teacher adds 1.
    """
    return 2e9 * gmacs * passes


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
        if module.step.mesa_term is not None:  # or the curve would jump where MESA sets in
            told["train/mesa"] = module.step.mesa_term
            loss = loss - module.step.mesa_term
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
