"""Mixup and cutmix of a batch, on its device (Zhang et al. 2018; Yun et al. 2019)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Beta
from torch.nn import functional as F

Box = tuple[int, int, int, int]  # top, bottom, left, right
MIXUP, CUTMIX = 1, 2


class MixDraw(NamedTuple):
    """How one batch is mixed.

    Attributes:
        mode: 0: not at all, `MIXUP`, or `CUTMIX`.
        lam: coefficient drawn.
        share: of each image's own label in its target.
        box: of cutmix.
    """

    mode: int
    lam: float
    share: float
    box: Box


class Mix(nn.Module):
    """Mix each batch with itself in reverse, as timm.data.Mixup does in its "batch" mode.

    One coefficient, and one box, serve the whole batch. All draws come from torch's CPU
    generator, which training seeds at every step from (seed, step, rank). Label smoothing is the
    loss's: it commutes with mixing.

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
        self.num_classes = num_classes
        self.alphas = {"mixup": mixup, "cutmix": cutmix}
        self.prob = prob if mixup > 0 or cutmix > 0 else 0.0
        self.cutmix_prob = switch_prob if mixup > 0 and cutmix > 0 else float(cutmix > 0)

    def draw(self, height: int, width: int) -> MixDraw:
        """Draw how the next batch of such images is mixed, from torch's CPU generator."""
        if self.prob == 0 or float(torch.rand(())) >= self.prob:
            return MixDraw(0, 1.0, 1.0, (0, 0, 0, 0))
        kind = "cutmix" if float(torch.rand(())) < self.cutmix_prob else "mixup"
        lam = float(Beta(self.alphas[kind], self.alphas[kind]).sample())
        if kind == "mixup":
            return MixDraw(MIXUP, lam, lam, (0, 0, 0, 0))
        centre = int(torch.randint(height, ())), int(torch.randint(width, ()))
        box = cutmix_box(height, width, lam, centre)
        share = 1 - (box[1] - box[0]) * (box[3] - box[2]) / (height * width)
        return MixDraw(CUTMIX, lam, share, box)

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return mixed images and (B, num_classes) targets, or both unchanged.

        Args:
            images: (B, 3, R, R), float.
            labels: (B,) int64.
        """
        draw = self.draw(*images.shape[-2:])
        if draw.mode == 0:
            return images, labels
        mixed = mixup(images, draw.lam) if draw.mode == MIXUP else cutmix(images, draw.box)
        return mixed, mix_labels(labels, draw.share, self.num_classes)

    def targets(self, labels: Tensor, share: Tensor) -> Tensor:
        """Return targets of mixed batches, share being on the device; labels if none is mixed."""
        return mix_labels(labels, share, self.num_classes) if self.prob > 0 else labels


def mixup(images: Tensor, lam: float) -> Tensor:
    """Return λ · images + (1 − λ) · images in reverse order."""
    return images.flip(0).mul_(1 - lam).add_(images, alpha=lam)


def cutmix(images: Tensor, box: Box) -> Tensor:
    """Return the images with the box taken from those in reverse order."""
    top, bottom, left, right = box
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[:, :, top:bottom, left:right].flip(0)
    return mixed


def cutmix_box(height: int, width: int, lam: float, centre: tuple[int, int]) -> Box:
    """Return a box of sides √(1 − λ) times the image's, cut off where it leaves the image."""
    ratio = math.sqrt(1 - lam)
    tall, wide = int(height * ratio), int(width * ratio)
    y, x = centre
    return (
        max(0, y - tall // 2),
        min(height, y + (tall + 1) // 2),
        max(0, x - wide // 2),
        min(width, x + (wide + 1) // 2),
    )


def mix_labels(labels: Tensor, lam: float | Tensor, num_classes: int) -> Tensor:
    """Return λ · one-hot + (1 − λ) · one-hot in reverse order, float32 (B, num_classes)."""
    hot = F.one_hot(labels, num_classes).float()
    return hot * lam + hot.flip(0) * (1 - lam)
