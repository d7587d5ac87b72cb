"""One model at one resolution, the steps of it that are timed, and the power they take."""

from __future__ import annotations

import contextlib
import ctypes
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Self

import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from semabench.data.augment.batch import Normalize
from semabench.errors import SemabenchError
from semabench.evaluation.cost.schema import CostModel
from semabench.models import backend_name, build_model
from semabench.training.device import autocast, peak_memory_mib, reset_peak_memory

WARMUP = 2  # first steps of all, not timed: they choose algorithms and fill caches
SETTLE = 1  # before each window: allocates again what was given back to the peers


@dataclass(frozen=True)
class Setting:
    """What all workers share.

    Attributes:
        device: ``cuda`` or ``cpu``.
        precision: Lightning's name of it.
        channels_last: memory format of models and pictures.
        min_steps, min_seconds: what a timed window has at least of both.
    """

    device: str
    precision: str
    channels_last: bool
    min_steps: int
    min_seconds: float


@dataclass(frozen=True)
class Window:
    """What one timed window found.

    Attributes:
        seconds: a step.
        joules: an image, of the whole device; None where nothing tells.
        peak_memory_mib: of this model's own; see `Workload.window`.
    """

    seconds: float
    joules: float | None
    peak_memory_mib: float | None


class Workload:
    """A model at one resolution, in one mode.

    An inference step is the forward pass; a training step is forward, cross-entropy, backward and
    AdamW. Both take random pictures that lie normalised on the device.

    Args:
        spec: the model.
        resolution: height and width in pixels.
        mode: ``infer`` or ``train``.
        setting: device, precision, memory format.

    Raises:
        SemabenchError: the model cannot be built.
    """

    def __init__(self, spec: CostModel, resolution: int, mode: str, setting: Setting) -> None:
        self.setting = setting
        self.resolution = resolution
        self.device = torch.device(setting.device)
        model = build_bare(spec, resolution, self.device)
        if setting.precision == "64-true":
            model.double()
        if setting.channels_last:
            model.to(memory_format=torch.channels_last)
        self.model = model.train(mode == "train")
        self.optimizer = None
        if mode == "train":
            fused = self.device.type == "cuda"
            self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused)
        self.scaler = torch.amp.GradScaler(setting.device, enabled=setting.precision == "16-mixed")
        self._compiled: Callable[[Tensor], Tensor] | None = None

    def forward(self, execution: str) -> Callable[[Tensor], Tensor]:
        """Return the model as it is, or compiled for each shape by itself."""
        if execution == "eager":
            return self.model
        if self._compiled is None:
            _expect_many_shapes()
            self._compiled = torch.compile(self.model, dynamic=False)
        assert self._compiled is not None
        return self._compiled

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Return random pictures, normalised, and random labels, on the device."""
        shape = (size, 3, self.resolution, self.resolution)
        pictures = torch.randint(0, 256, shape, dtype=torch.uint8, device=self.device)
        layout = torch.channels_last if self.setting.channels_last else torch.contiguous_format
        normalize = Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD).to(self.device)
        images = normalize(pictures.to(memory_format=layout))
        if self.setting.precision == "64-true":
            images = images.double()
        classes = int(getattr(self.model, "num_classes", 1000))
        return images, torch.randint(0, classes, (size,), device=self.device)

    def steps(self, execution: str, size: int, count: int) -> float:
        """Run ``count`` steps on one new batch; return the seconds of one, waited for."""
        return self._run(self.forward(execution), *self.batch(size), count)

    def window(self, execution: str, size: int, count: int, foreign_bytes: int) -> Window:
        """Time ``count`` steps, after ``SETTLE`` of them that are not timed.

        Where the device counts its energy as many follow, whose power is taken for the timed ones'.

        Args:
            execution: ``eager`` or ``compiled``.
            size: of a batch.
            count: steps of the window.
            foreign_bytes: on the device in this process, but not of this model: left out of the
                peak. On a CPU the peak is the whole process's.
        """
        run, (images, labels) = self.forward(execution), self.batch(size)
        self._run(run, images, labels, SETTLE)
        reset_peak_memory(self.device)
        seconds = self._run(run, images, labels, count)
        peak = peak_memory_mib(self.device)
        if peak is not None and self.device.type == "cuda":
            peak -= foreign_bytes / 2**20
        watts = self._watts(run, images, labels, count)
        return Window(seconds, None if watts is None else watts * seconds / size, peak)

    def _watts(
        self, run: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, count: int
    ) -> float | None:
        """Return the device's mean power during ``count`` steps; None where nothing tells."""
        power = PowerMeter(self.device)
        if not power:
            return None
        with power:
            self._run(run, images, labels, count)
        return power.watts

    def window_steps(self, seconds: float) -> int:
        """Return how many steps of this many seconds each a window needs."""
        wanted = math.ceil(self.setting.min_seconds / max(seconds, 1e-6))
        return max(self.setting.min_steps, wanted)

    def held_bytes(self) -> int:
        """Return what the model and its optimiser hold on the device between two windows."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        if self.optimizer is not None:
            for state in self.optimizer.state.values():
                tensors += [value for value in state.values() if isinstance(value, Tensor)]
        storages = [t.untyped_storage() for t in tensors if t.device.type == self.device.type]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    def _run(
        self, run: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, count: int
    ) -> float:
        step = self._infer if self.optimizer is None else self._train
        self.model.zero_grad(set_to_none=True)  # of a step that ran out of memory
        self._wait()
        start = time.perf_counter()
        for _ in range(count):
            step(run, images, labels)
        self._wait()
        return (time.perf_counter() - start) / count

    @torch.inference_mode()
    def _infer(self, run: Callable[[Tensor], Tensor], images: Tensor, _: Tensor) -> None:
        with autocast(self.device, self.setting.precision):
            run(images)

    def _train(self, run: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> None:
        assert self.optimizer is not None
        with autocast(self.device, self.setting.precision):
            logits = run(images)
            if isinstance(logits, tuple):  # of distilled models, one a head
                logits = logits[0]
            loss = F.cross_entropy(logits, labels)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _expect_many_shapes() -> None:
    """Let torch.compile keep a graph for each shape; beyond its limit it would go eager unsaid."""
    from torch._dynamo import config

    config.recompile_limit = 256
    config.accumulated_recompile_limit = 1024
    config.fail_on_recompile_limit_hit = True


def build_bare(spec: CostModel, resolution: int, device: torch.device) -> nn.Module:
    """Build a model with random weights on ``device``, with as many classes as it has by itself.

    Models whose weights depend on the size of the pictures are built for it. Swin's windows keep
    their size: where it does not divide the grid, timm pads.

    Args:
        spec: the model.
        resolution: height and width in pixels.
        device: where its weights are to be; meta for none.

    Raises:
        SemabenchError: unknown model, mixer or option, or one that cannot take this resolution.
    """
    try:
        with torch.device(device):  # drawing the weights is slow on a CPU
            return _build(spec, resolution)
    except SemabenchError:  # some constructors look at numbers, and need the CPU for that
        return _build(spec, resolution).to(device)


def _build(spec: CostModel, resolution: int) -> nn.Module:
    return build_model(
        spec.name,
        num_classes=None,
        resolution=resolution,
        mixer=spec.mixer,
        fused_attention=spec.fused_attention,
        options=spec.options,
    )


def backend_label(model: nn.Module, device: torch.device) -> str:
    """Return the backend of a model's ops: of our mixers, or of timm's attention.

    timm's attention is ``sdpa`` where it calls torch's fused one, else ``unfused``; a model
    without a choice is ``torch``.
    """
    fused = {
        "sdpa" if module.fused_attn else "unfused"
        for module in model.modules()
        if isinstance(getattr(module, "fused_attn", None), bool)
    }
    return "+".join(sorted(fused)) or backend_name(model, device)


_POLL_SECONDS = 0.002


class PowerMeter:
    """Measures a block's mean power: ``with PowerMeter(device) as meter: ...``; ``meter.watts``.

    The counter (``nvmlDeviceGetTotalEnergyConsumption``, mJ since the driver was loaded) is of the
    whole GPU, idle power and other processes included, and moves in steps of some 20 to 100 ms. A
    thread looks for these steps, and what counts is what lies between the first and the last one.
    So a block must do the same all the time, and last for at least two. ``watts`` is None on a CPU,
    without the library, and where the GPU does not count or the counter has not moved twice.

    The thread takes a little of a busy CPU: a block whose time is measured should be another one.
    """

    def __init__(self, device: torch.device) -> None:
        self.read = _counter(device.index or 0) if device.type == "cuda" else None
        self.watts: float | None = None
        self._steps: list[tuple[float, int]] = []
        self._stop = threading.Event()

    def __bool__(self) -> bool:
        """Tell whether there is a counter."""
        return self.read is not None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.watts = mean_watts(self._steps)

    def _look(self) -> None:
        before = self.read() if self.read else None
        while self.read and not self._stop.wait(_POLL_SECONDS):
            now, counted = time.perf_counter(), self.read()
            if counted is not None and counted != before:
                self._steps.append((now, counted))
                before = counted


def mean_watts(steps: Sequence[tuple[float, int]]) -> float | None:
    """Return the mean power between the first and the last of the counter's steps.

    Args:
        steps: seconds at which the counter moved, and the millijoules that it moved to.
    """
    if len(steps) < 2:
        return None
    (start, first), (end, last) = steps[0], steps[-1]
    return (last - first) / 1e3 / (end - start)


class _Counter:
    def __init__(self, library: ctypes.CDLL, handle: ctypes.c_void_p) -> None:
        self.library = library
        self.handle = handle

    def __call__(self) -> int | None:
        """Return the millijoules counted so far."""
        total = ctypes.c_ulonglong()
        failed = self.library.nvmlDeviceGetTotalEnergyConsumption(self.handle, ctypes.byref(total))
        return None if failed else total.value


@cache
def _counter(index: int) -> _Counter | None:
    """Return the counter of torch's GPU ``index``, found by its UUID; None if there is none."""
    uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None)
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libnvidia-ml.so.1")
        handle = ctypes.c_void_p()
        name = f"GPU-{uuid}".encode()
        if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByUUID(name, ctypes.byref(handle)):
            return None
        counter = _Counter(library, handle)
        return None if counter() is None else counter
    return None
