"""Energy that a NVIDIA GPU counts itself, through its driver's management library (NVML)."""

from __future__ import annotations

import contextlib
import ctypes
from functools import cache
from typing import Self

import torch


class EnergyMeter:
    """Measures the energy of a block: ``with EnergyMeter(device) as meter: ...``; ``meter.joules``.

    The counter (``nvmlDeviceGetTotalEnergyConsumption``, mJ since the driver was loaded) is of the
    whole GPU, idle power and other processes included, and moves in steps of some 20 to 100 ms:
    short blocks are known no better than that. ``joules`` is None on a CPU, without the library,
    and where the GPU does not count or has not moved its counter.
    """

    def __init__(self, device: torch.device) -> None:
        self.read = _counter(device.index or 0) if device.type == "cuda" else None
        self.joules: float | None = None

    def __enter__(self) -> Self:
        self._start = self.read() if self.read else None
        return self

    def __exit__(self, *_: object) -> None:
        end = self.read() if self.read else None
        if self._start is not None and end is not None and end > self._start:
            self.joules = (end - self._start) / 1e3


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
