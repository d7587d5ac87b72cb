"""What the device itself tells of a block: its mean power, and the time it was at work."""

from __future__ import annotations

import contextlib
import ctypes
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Self

import torch
from torch.profiler import ProfilerActivity, profile

ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")


def busy_milliseconds(run: Callable[[], object], device: torch.device) -> float | None:
    """Return how long a GPU works at what ``run`` launches, its idle gaps left out; None of a CPU.

    By torch's profiler, which slows launching down, so that it is a call of its own.
    """
    if device.type != "cuda":
        return None
    with profile(activities=[ProfilerActivity.CUDA]) as watched:
        run()
        torch.cuda.synchronize(device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        watched.export_chrome_trace(str(path))
        return busy_of(json.loads(path.read_text())["traceEvents"])


def busy_of(events: Iterable[dict[str, Any]]) -> float:
    """Return the milliseconds of a trace in which a kernel or copy runs, however many at once."""
    spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e.get("cat") in ON_DEVICE)
    busy, until = 0.0, float("-inf")
    for start, end in spans:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return busy / 1e3


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


_SIGNS = (
    "out of memory",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "could not create a primitive",  # oneDNN's, on a CPU: it does not say why
)


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory, of the device or the machine, was short."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
