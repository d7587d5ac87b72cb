"""Out of memory: how it looks, and the halving of the batch that answers it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from semabench.errors import SemabenchError
from semabench.evaluation.on_device import free_memory

Result = TypeVar("Result")

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


def halve_until_it_fits(attempt: Callable[[int], Result], size: int) -> tuple[int, Result]:
    """Call ``attempt`` with ``size``, and with half of it as long as memory runs out.

    Returns:
        The batch size that went through, and what came of it.

    Raises:
        SemabenchError: not even one picture fits.
    """
    while True:
        try:
            return size, attempt(size)
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
        # Outside the handler: its traceback would keep the tensors of the failed step alive.
        free_memory()
        if size == 1:
            told = f" ({reason})" if reason else ""
            raise SemabenchError(f"out of memory even at batch size 1{told}")
        size //= 2
