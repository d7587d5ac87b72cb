"""What all measures share on a device: precision, the memory it took, giving it back."""

from __future__ import annotations

import contextlib
import gc
from pathlib import Path

import torch


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Return the context that Lightning's name of a precision stands for."""
    dtypes = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    if precision in dtypes:
        return torch.autocast(device.type, dtypes[precision])
    return contextlib.nullcontext()


def reset_peak_memory(device: torch.device) -> None:
    """Forget the peak so far, where the system lets one."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):  # Linux, of one's own process: resets VmHWM
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mib(device: torch.device) -> float | None:
    """Return the most memory since the reset, in MiB; None where the system does not tell.

    Of the device's allocations; on a CPU of the process's resident set.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    return None


def free_memory() -> None:
    """Return to the device what nothing in this process uses, so that others can have it."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
