"""Logging what the host knows, so that nobody waits for the device to learn it again."""

from __future__ import annotations

from collections.abc import Mapping

import lightning as L
import torch
from torch import Tensor


def log_values(
    module: L.LightningModule, values: Mapping[str, Tensor | float], *, in_bar: bool
) -> None:
    """Log numbers of a step at which the device is waited for anyhow.

    Lightning puts a plain number onto the module's device, and reads all that stands in the bar
    again after *every* step: on a GPU each of them would be waited for. A tensor it leaves where it
    is, so they are given to it as tensors of the host.

    Args:
        module: whose step it is.
        values: by name; those on the device are fetched.
        in_bar: whether they stand beside the progress bar, too.
    """
    on_host = {
        name: torch.as_tensor(value).detach().float().cpu() for name, value in values.items()
    }
    module.log_dict(on_host, prog_bar=in_bar)
