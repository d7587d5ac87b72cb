"""The device: which one and in what precision, its memory, marks in its time, and its labels."""

from __future__ import annotations

import contextlib
import gc
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from semabench.errors import SemabenchError, nearest

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")
PRECISION_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}  # of products


def choose_accelerator(requested: str) -> str:
    """Return ``gpu`` or ``cpu``.

    Raises:
        SemabenchError: a GPU is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if requested == "gpu" and not available:
        raise SemabenchError(
            "a GPU is asked for (accelerator=gpu) but torch sees none: check the driver and "
            "CUDA_VISIBLE_DEVICES, or use accelerator=cpu."
        )
    if requested == "auto":
        return "gpu" if available else "cpu"
    return requested


def choose_precision(requested: str | None, accelerator: str) -> str:
    """Return Lightning's name of the precision; by default bf16-mixed on a GPU, 32-true on a CPU.

    Raises:
        SemabenchError: another name.
    """
    if requested is None:
        return "bf16-mixed" if accelerator == "gpu" else "32-true"
    if requested not in PRECISIONS:
        raise SemabenchError(f"precision={requested} is not known.{nearest(requested, PRECISIONS)}")
    return requested


def check_processes(devices: int, num_nodes: int, accelerator: str) -> None:
    """Check that one process a device has been started, and that the devices exist.

    Raises:
        SemabenchError: too few GPUs, or the processes were not started by torchrun or srun.
    """
    if accelerator == "gpu" and devices > torch.cuda.device_count():
        raise SemabenchError(
            f"trainer.devices={devices}, but this node has {torch.cuda.device_count()} GPU(s)."
        )
    wanted = devices * num_nodes
    in_step = "SLURM_STEP_ID" in os.environ  # started by srun, not merely inside an allocation
    slurm = os.environ.get("SLURM_NTASKS", "1") if in_step else "1"
    started = int(os.environ.get("WORLD_SIZE", slurm))
    if started != wanted:
        raise SemabenchError(
            f"trainer.devices={devices} x trainer.num_nodes={num_nodes} needs {wanted} process(es),"
            f" {started} started: torchrun --nproc-per-node {devices} train.py ..., or srun."
        )


def autocast(
    device: torch.device, precision: str, keep: bool = True
) -> contextlib.AbstractContextManager:
    """Return the context that Lightning's name of a precision stands for.

    Args:
        device: where it counts.
        precision: Lightning's name.
        keep: weights that have been cast, until the outermost context ends.
    """
    if precision in PRECISION_DTYPES:
        return torch.autocast(device.type, PRECISION_DTYPES[precision], cache_enabled=keep)
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


def device_label(device: torch.device) -> str:
    """Return the name that a GPU has by its driver, or ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def options_label(options: Mapping[str, Any]) -> str:
    """Return a model's options, but those that are None: ``backend=reference,window_size=14``."""
    return ",".join(f"{k}={v}" for k, v in sorted(options.items()) if v is not None)


def execution_label(compiled: bool, graph: bool) -> str:
    """Return ``eager``, ``compiled``, ``graph`` (one CUDA graph a step) or ``compiled-graph``."""
    parts = [name for name, wanted in (("compiled", compiled), ("graph", graph)) if wanted]
    return "-".join(parts) or "eager"


def layout_label(channels_last: bool) -> str:
    """Return ``nchw``; of channels-last, which is usual, nothing."""
    return "" if channels_last else "nchw"


Mark = float | torch.cuda.Event


def mark(device: torch.device) -> Mark:
    """Return now; on a GPU, when it will have done all that it has been asked so far."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds_between(start: Mark, end: Mark) -> float:
    """Return the seconds from one mark to another; a GPU must have passed both."""
    if isinstance(start, torch.cuda.Event):
        assert isinstance(end, torch.cuda.Event)
        return start.elapsed_time(end) / 1e3
    assert not isinstance(end, torch.cuda.Event)
    return end - start


def median_and_spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the median and half the interquartile range (quartiles inclusive, as numpy's).

    Fewer than two values have no range, none no median.
    """
    if len(values) < 2:
        return (values[0] if values else None), None
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return median, (high - low) / 2
