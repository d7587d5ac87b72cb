"""VMamba (Liu et al., NeurIPS 2024) as a timm model: the published versions "v05_noz"."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch.nn.functional as F
from timm.layers import DropPath, Mlp, trunc_normal_
from torch import Tensor, nn

from semabench.errors import SemabenchError, nearest
from semabench.mixers import SSM
from semabench.mixers.base import grid_conv
from semabench.models.staged import Stage, StagedModel


class Stem(nn.Module):
    """Pictures to tokens, (B, in_chans, H, W) -> (B, ceil(H/4), ceil(W/4), dim)."""

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, dim // 2, 3, stride=2, padding=1)
        self.norm1 = nn.LayerNorm(dim // 2)
        self.conv2 = nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the grid of tokens."""
        x = F.gelu(self.norm1(self.conv1(x).permute(0, 2, 3, 1)))
        y: Tensor = self.norm2(grid_conv(x, self.conv2))
        return y


class Downsample(nn.Module):
    """Half the grid, other channels: (B, H, W, dim) -> (B, ceil(H/2), ceil(W/2), out_dim)."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, out_dim, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the smaller grid."""
        y: Tensor = self.norm(grid_conv(x, self.conv))
        return y


class SS2D(nn.Module):
    """VMamba's mixing branch: Linear(SSM(SiLU(DWConv3(Linear(x))))), nothing with a bias.

    Args:
        dim: channels outside.
        ratio: channels that are scanned, over those outside.
        d_state: numbers in the state of a channel.
        backend: of ``ops.selective_scan``.
    """

    def __init__(self, dim: int, *, ratio: float, d_state: int, backend: str) -> None:
        super().__init__()
        inner = int(ratio * dim)
        self.in_proj = nn.Linear(dim, inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        # The rank follows the channels outside, whatever the ratio.
        self.mixer = SSM(inner, 1, d_state=d_state, dt_rank=math.ceil(dim / 16), backend=backend)
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        u = F.silu(grid_conv(self.in_proj(x), self.conv2d))
        y: Tensor = self.out_proj(self.mixer(u))
        return y


class Block(nn.Module):
    """x + DropPath(SS2D(LayerNorm(x))), then x + DropPath(MLP(LayerNorm(x)))."""

    def __init__(
        self,
        dim: int,
        *,
        ssm_ratio: float,
        d_state: int,
        mlp_ratio: float,
        drop_path: float,
        backend: str,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.op = SS2D(dim, ratio=ssm_ratio, d_state=d_state, backend=backend)
        self.drop_path1 = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path2 = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        x = x + self.drop_path1(self.op(self.norm(x)))
        y: Tensor = x + self.drop_path2(self.mlp(self.norm2(x)))
        return y


class VMamba(StagedModel):
    """Pictures (B, in_chans, H, W) -> logits (B, num_classes), at any size.

    Args:
        in_chans: channels of the pictures.
        num_classes: 0 leaves the head out.
        global_pool: timm's pooling of the last grid; "" keeps the grid.
        img_size: taken for timm's sake and not used: no weight depends on a size.
        embed_dim: channels of the first stage; every stage doubles them.
        depths: blocks per stage.
        ssm_ratio: channels that are scanned, over those of the stage.
        d_state: numbers in the state of a channel.
        mlp_ratio: hidden over outer channels of the MLP.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0.
        weight_init: "published" (std 0.02 for linear layers, torch's default for convolutions) or
            "kaiming", which keeps the variance at any width (He et al., 2015): at a width of 16 the
            published one shrinks a branch's input to a tenth, layer by layer.
        backend: of ``ops.selective_scan``.

    Raises:
        SemabenchError: unknown backend or initialisation, or a state below 1.
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        img_size: int | tuple[int, int] | None = None,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 8, 2),
        ssm_ratio: float = 1.0,
        d_state: int = 1,
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        weight_init: str = "published",
        backend: str = "auto",
    ) -> None:
        if weight_init not in _INITIALISATIONS:
            raise SemabenchError(
                f"Unknown weight_init '{weight_init}'.{nearest(weight_init, _INITIALISATIONS)}"
            )
        rates = iter(drop_path_rate * i / max(sum(depths) - 1, 1) for i in range(sum(depths)))
        dims = [embed_dim * 2**i for i in range(len(depths))]
        stages = [
            Stage(
                Downsample(dims[i - 1], dim) if i else nn.Identity(),
                [
                    Block(
                        dim,
                        ssm_ratio=ssm_ratio,
                        d_state=d_state,
                        mlp_ratio=mlp_ratio,
                        drop_path=next(rates),
                        backend=backend,
                    )
                    for _ in range(depths[i])
                ],
            )
            for i, dim in enumerate(dims)
        ]
        super().__init__(
            Stem(in_chans, embed_dim),
            stages,
            dims,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            drop_rate=drop_rate,
        )
        self.apply(_INITIALISATIONS[weight_init])


def _init_published(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _init_kaiming(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


_INITIALISATIONS: dict[str, Callable[[nn.Module], None]] = {
    "published": _init_published,
    "kaiming": _init_kaiming,
}
