"""How rows tell what was measured, in the same words for every measure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def device_label(device: torch.device) -> str:
    """Return the name that a GPU has by its driver, or ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def options_label(options: Mapping[str, Any]) -> str:
    """Return a model's options, but those that are None: ``backend=reference,window_size=14``."""
    return ",".join(f"{k}={v}" for k, v in sorted(options.items()) if v is not None)


def layout_label(channels_last: bool) -> str:
    """Return ``nchw``; of channels-last, which is usual, nothing."""
    return "" if channels_last else "nchw"
