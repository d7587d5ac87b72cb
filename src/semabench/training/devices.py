"""Which device and precision a run gets, said before anything is built."""

from __future__ import annotations

import os

import torch

from semabench.errors import SemabenchError, nearest

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")


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


def global_rank() -> int:
    """Return this process's rank as torchrun or srun gave it; 0 where neither started it."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))


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
