"""Small arrays to the device in one copy that nobody waits for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def send(arrays: Sequence[np.ndarray], device: torch.device) -> list[Tensor]:
    """Return the arrays as tensors on ``device``, views of one buffer.

    From pinned memory, since the driver may let a copy from other memory wait for the stream.
    """
    starts = np.cumsum([0, *(-(-array.nbytes // 8) * 8 for array in arrays)])  # aligned for views
    buffer = torch.empty(int(starts[-1]), dtype=torch.uint8, pin_memory=device.type == "cuda")
    for start, array in zip(starts, arrays, strict=False):
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        buffer.numpy()[start : start + array.nbytes] = flat
    sent = buffer.to(device, non_blocking=True)
    return [
        sent[start : start + array.nbytes].view(_torch_dtype(array)).view(array.shape)
        for start, array in zip(starts.tolist(), arrays, strict=False)
    ]


def _torch_dtype(array: np.ndarray) -> torch.dtype:
    return torch.from_numpy(np.empty(0, array.dtype)).dtype
