"""From uint8 pixels to the model's input, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """``(x / 255 - mean) / std`` per channel: (B, 3, R, R) uint8 to float32, layout kept."""

    shift: Tensor
    scale: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        shift = 255 * torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1)
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise a batch; the result is a new tensor."""
        return (images - self.shift).mul_(self.scale)
