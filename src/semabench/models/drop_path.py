"""Stochastic depth, and blocks that make their activations anew in the backward pass."""

from __future__ import annotations

from collections.abc import Iterable

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
        """Return 1 where an image of ``x`` (B, ...) keeps the branch, else 0, (B,); None: all."""
        if self.drop_prob == 0.0 or not self.training:
            return None
        return x.new_empty(len(x)).bernoulli_(1 - self.drop_prob)

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return the branch (B, ...) where it is kept, scaled; by ``kept``, or by its own draw."""
        kept = self.draw(x) if kept is None else kept
        if kept is None:
            return x
        scale = kept.to(x.dtype) / (1 - self.drop_prob)
        return x * scale.view(-1, *[1] * (x.ndim - 1))

    def extra_repr(self) -> str:
        """Say how often."""
        return f"drop_prob={self.drop_prob:.3f}"


def run_recomputing(blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Run blocks that keep nothing but their input, and run again in the backward pass.

    Their drops are drawn beforehand, so that the generator's state need not be put back, which a
    CUDA graph could not hold.

    Args:
        blocks: ``block(x, drops)``, with a draw for each of its `DropPath`, in their order; they
            must not draw anything else.
        x: input of the first.
    """
    for block in blocks:
        drops = [part.draw(x) for part in block.modules() if isinstance(part, DropPath)]
        x = checkpoint(block, x, drops, use_reentrant=False, preserve_rng_state=False)
    return x
