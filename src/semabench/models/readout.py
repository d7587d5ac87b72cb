"""The head of a model that answers where it is asked: at one token, or by attention to all."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semabench.errors import SemabenchError, nearest

POOLS = ("query", "attention", "avg")


class ReadOut(nn.Module):
    """A grid (B, H, W, C) -> logits (B, num_classes).

    Args:
        dim: channels C.
        num_classes: 0 leaves the classifier out.
        pool_type: how the grid becomes one vector. "query": its token (H // 2, W // 2), where the
            diagnostics ask their question. "attention": Σ_i softmax_i(a·x_i) x_i with a learned a,
            which can itself focus. "avg": the mean, which itself disperses. "": not at all.
        drop_rate: dropout before the classifier.

    Raises:
        SemabenchError: there is no such ``pool_type``.
    """

    def __init__(self, dim: int, num_classes: int, pool_type: str, drop_rate: float) -> None:
        super().__init__()
        self.dim = dim
        self.drop = nn.Dropout(drop_rate)
        self.reset(num_classes, pool_type)

    def reset(self, num_classes: int, pool_type: str | None = None) -> None:
        """Put a fresh classifier in place, and another pooling if one is named."""
        if pool_type is not None:
            if pool_type and pool_type not in POOLS:
                raise SemabenchError(
                    f"global_pool={pool_type} is not known.{nearest(pool_type, POOLS)}"
                )
            self.pool_type = pool_type
            self.score = nn.Linear(self.dim, 1) if pool_type == "attention" else None
        self.fc = nn.Linear(self.dim, num_classes) if num_classes else nn.Identity()

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits, or the pooled features (B, C)."""
        x = self.drop(self.pool(x))
        return x if pre_logits else self.fc(x)

    def pool(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, C); without pooling, as it is."""
        if not self.pool_type:
            return x
        if self.pool_type == "query":
            return x[:, x.shape[1] // 2, x.shape[2] // 2]
        if self.score is None:
            return x.mean(dim=(1, 2))
        tokens = x.flatten(1, 2)
        weights = torch.softmax(self.score(tokens), dim=1)
        return (weights * tokens).sum(dim=1)
