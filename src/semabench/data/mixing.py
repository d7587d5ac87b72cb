"""Mixup and cutmix of a batch, on its device (Zhang et al. 2018; Yun et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.transforms import v2


class Mix(nn.Module):
    """Mix each batch with itself rolled by one, with torchvision's MixUp or CutMix.

    One coefficient serves the whole batch, as in timm's default "batch" mode. All draws come
    from torch's CPU generator, which training seeds at every step from (seed, step, rank).

    Args:
        num_classes: of the labels.
        mixup: alpha of the Beta distribution; 0 turns mixup off.
        cutmix: likewise.
        prob: that a batch is mixed at all.
        switch_prob: that cutmix is used, where both are on.
    """

    def __init__(
        self, num_classes: int, *, mixup: float, cutmix: float, prob: float, switch_prob: float
    ) -> None:
        super().__init__()
        self.prob = prob if mixup > 0 or cutmix > 0 else 0.0
        self.cutmix_prob = switch_prob if mixup > 0 and cutmix > 0 else float(cutmix > 0)
        self.mixup = v2.MixUp(alpha=mixup, num_classes=num_classes) if mixup > 0 else None
        self.cutmix = v2.CutMix(alpha=cutmix, num_classes=num_classes) if cutmix > 0 else None

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return mixed images and (B, num_classes) targets, or both unchanged.

        Args:
            images: (B, 3, R, R), float.
            labels: (B,) int64.
        """
        if self.prob == 0 or float(torch.rand(())) >= self.prob:
            return images, labels
        chosen = self.cutmix if float(torch.rand(())) < self.cutmix_prob else self.mixup
        assert chosen is not None
        mixed, targets = chosen(images, labels)
        return mixed, targets
