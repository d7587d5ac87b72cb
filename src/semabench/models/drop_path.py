"""Stochastic depth, and blocks that make their activations anew in the backward pass."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class DropPath(nn.Module):
    """Leaves a residual branch out of each image of a batch by chance (Huang et al. 2016).

    Draws as `timm.layers.DropPath` does, and takes draws that have been made beforehand: what a
    block drops must be the same when it runs again.

    Args:
        drop_prob: how often; what stays is divided by 1 - drop_prob.
    """

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def draw(self, x: Tensor) -> Tensor | None:
        """Return 1 / (1 - drop_prob) where an image of ``x`` (B, ...) keeps the branch, else 0.

        float32 (B,); None where no branch is left out.
        """
        if not self.training or self.drop_prob == 0.0:
            return None
        kept = torch.empty(len(x), device=x.device).bernoulli_(1 - self.drop_prob)
        return kept / (1 - self.drop_prob) if self.drop_prob < 1.0 else kept

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Return the branch (B, ...) by ``scale``, or by its own draw."""
        scale = self.draw(x) if scale is None else scale
        return x if scale is None else x * scale.to(x.dtype).view(-1, *[1] * (x.ndim - 1))

    def extra_repr(self) -> str:
        """Say how often."""
        return f"drop_prob={self.drop_prob:.3f}"


def run_blocks(blocks: Iterable[nn.Module], x: Tensor, recompute: bool = False) -> Tensor:
    """Run blocks one after another, what each drops drawn before it.

    So two blocks of one shape are one program to ``torch.compile``, whatever their rates, and a
    block that runs again in the backward pass drops the same without the generator's state, which a
    CUDA graph could not hold.

    Args:
        blocks: ``block(x, drops)``, with a draw for each of its `DropPath`, in their order; to
            recompute they must not draw anything else.
        x: input of the first.
        recompute: keep nothing of a block but its input.
    """
    for block in blocks:
        drops = [part.draw(x) for part in block.children() if isinstance(part, DropPath)]
        if recompute:
            x = checkpoint(block, x, drops, use_reentrant=False, preserve_rng_state=False)
        else:
            x = block(x, drops)
    return x
