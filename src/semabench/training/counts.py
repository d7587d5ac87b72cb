"""Exact counts of correct predictions over all samples of all processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


class Counts:
    """Sums n, top-1, top-5 and the cross-entropy on the device, without waiting for it.

    Samples labelled -1 are padding, which keeps batches full and ranks in step; they never count.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start again from zero."""
        # No module's buffer: DDP would broadcast rank 0's.
        self.sums = torch.zeros(4, dtype=torch.float64)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count one batch.

        Args:
            logits: (B, classes), any float type.
            labels: (B,) int64; -1 is padding.
        """
        logits = logits.float()
        real = labels >= 0
        loss = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices
        hits = (best == labels[:, None]) & real[:, None]
        parts = [real.sum(), hits[:, 0].sum(), hits.any(dim=1).sum(), loss]
        self.sums = self.sums.to(logits.device) + torch.stack([part.double() for part in parts])

    def result(self, sums: Tensor | None = None) -> dict[str, float]:
        """Return ``n``, ``top1`` and ``top5`` in percent, and the mean ``loss``.

        Args:
            sums: these counts summed over all processes, where there are several.
        """
        n, top1, top5, loss = (self.sums if sums is None else sums).tolist()
        n = max(n, 1)
        return {"n": n, "top1": 100 * top1 / n, "top5": 100 * top5 / n, "loss": loss / n}

    def correct(self) -> tuple[int, int, int]:
        """Return (n, top-1 hits, top-5 hits) of this process."""
        n, top1, top5, _ = self.sums.tolist()
        return int(n), int(top1), int(top5)
