"""Vim's class token and table of positions: in the middle of the patches, at any grid."""

from __future__ import annotations

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor

Grid = tuple[int, int]


def middle(patches: int) -> int:
    """Return where the class token stands among so many patches: after half of them."""
    return patches // 2


def insert_middle(patches: Tensor, token: Tensor) -> Tensor:
    """Put a token, (B, 1, C), into the middle of patches: (B, M, C) -> (B, M + 1, C)."""
    at = middle(patches.shape[1])
    return torch.cat((patches[:, :at], token, patches[:, at:]), dim=1)


def split_middle(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Take the middle token out: (B, M + 1, C) -> patches (B, M, C) and token (B, 1, C)."""
    at = middle(tokens.shape[1] - 1)
    return torch.cat((tokens[:, :at], tokens[:, at + 1 :]), dim=1), tokens[:, at : at + 1]


def resample_positions(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """Interpolate a table of positions, (1, h·w + 1, C), from one grid of patches to another.

    Bicubic, antialiased where the grid shrinks, as timm does it for ViT. The class token's row is
    the middle one and is not interpolated: it moves to the middle of the new table. (The official
    fine-tuning code takes row 0 for it, and so shifts half of the positions.)
    """
    if new == old:
        return table
    patches, token = split_middle(table)
    resampled: Tensor = resample_abs_pos_embed(
        patches, new_size=list(new), old_size=list(old), num_prefix_tokens=0
    )
    return insert_middle(resampled, token)
