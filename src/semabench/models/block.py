"""MILA's block and stage with an exchangeable token mixer. Grids are (B, H, W, C) throughout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from semabench.mixers import create_mixer
from semabench.mixers.base import grid_conv
from semabench.models.convs import Downsample
from semabench.models.staged import Stage


class Block(nn.Module):
    """One block of MILA (Han et al., NeurIPS 2024, fig. 3; the macro-architecture SEMA shares).

        x = x + DWConv3(x)
        y = LayerNorm(x);  g = SiLU(Linear(y));  u = SiLU(DWConv3(Linear(y)))
        x = x + DropPath(Linear(mixer(u) · g))
        x = x + DWConv3(x)
        x = x + DropPath(MLP(LayerNorm(x)))

    The attributes bear the official code's names.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mixer: str,
        mixer_options: dict[str, Any],
        mlp_ratio: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.cpe1 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1 = nn.LayerNorm(dim)
        self.in_proj = nn.Linear(dim, dim)
        self.act_proj = nn.Linear(dim, dim)
        self.dwc = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.mixer = create_mixer(mixer, dim, num_heads, **mixer_options)
        self.out_proj = nn.Linear(dim, dim)
        self.drop_path1 = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.cpe2 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path2 = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        x = x + grid_conv(x, self.cpe1)
        y = self.norm1(x)
        gate = F.silu(self.act_proj(y))
        u = F.silu(grid_conv(self.in_proj(y), self.dwc))
        x = x + self.drop_path1(self.out_proj(self.mixer(u) * gate))
        x = x + grid_conv(x, self.cpe2)
        return x + self.drop_path2(self.mlp(self.norm2(x)))


def create_stage(
    in_dim: int,
    dim: int,
    num_heads: int,
    *,
    mixer: str,
    mixer_options: dict[str, Any],
    mlp_ratio: float,
    drop_path: Sequence[float],
) -> Stage:
    """Build downsampling (except where the width stays, in the first stage), then the blocks.

    A mixer with ``shift`` shifts in the blocks with an odd index only, as in Swin.
    """
    downsample = Downsample(in_dim, dim) if in_dim != dim else nn.Identity()
    blocks = []
    for index, rate in enumerate(drop_path):
        options = dict(mixer_options)
        if "shift" in options:
            options["shift"] = bool(options["shift"]) and index % 2 == 1
        blocks.append(
            Block(
                dim,
                num_heads,
                mixer=mixer,
                mixer_options=options,
                mlp_ratio=mlp_ratio,
                drop_path=rate,
            )
        )
    return Stage(downsample, blocks)
