"""VMamba (Liu et al., NeurIPS 2024) as a timm model: the published versions "v05_noz".

"VMamba-T" alone names three published models; the names here are size, then ssm_ratio ("s") and
blocks of stage 3 ("l"). Widths, depths and drop-path rates are those of the official configs
(VMamba@2ed52ea), 224 px. Official checkpoints of any age load by their key names and shapes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

from semabench.errors import SemabenchError, nearest
from semabench.mixers import SSM
from semabench.mixers.base import DepthwiseConv, grid_conv
from semabench.models.drop_path import DropPath
from semabench.models.staged import Stage, StagedModel, init_linear, register_variants


class Stem(nn.Module):
    """Images to tokens, (B, in_chans, H, W) -> (B, ceil(H/4), ceil(W/4), dim)."""

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, dim // 2, 3, stride=2, padding=1)
        self.norm1 = nn.LayerNorm(dim // 2)
        self.conv2 = nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the grid of tokens."""
        x = F.gelu(self.norm1(self.conv1(x).permute(0, 2, 3, 1)))
        return self.norm2(grid_conv(x, self.conv2))


class Downsample(nn.Module):
    """Half the grid, other channels: (B, H, W, dim) -> (B, ceil(H/2), ceil(W/2), out_dim)."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, out_dim, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the smaller grid."""
        return self.norm(grid_conv(x, self.conv))


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
        self.conv2d = DepthwiseConv(inner, bias=False)
        # The rank follows the channels outside, whatever the ratio.
        self.mixer = SSM(inner, 1, d_state=d_state, dt_rank=math.ceil(dim / 16), backend=backend)
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        u = self.conv2d(self.in_proj(x), silu=True)
        return self.out_proj(self.mixer(u))


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
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Tensor, drops: Sequence[Tensor | None] = (None, None)) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C); ``drops`` as of `drop_path.run_blocks`."""
        x = x + self.drop_path1(self.op(self.norm(x)), drops[0])
        return x + self.drop_path2(self.mlp(self.norm2(x)), drops[1])


class VMamba(StagedModel):
    """Images (B, in_chans, H, W) -> logits (B, num_classes), at any size.

    Args:
        in_chans, num_classes, global_pool, drop_rate: see ``StagedModel``.
        img_size: taken for timm's sake and not used: no weight depends on a size.
        embed_dim: channels of the first stage; every stage doubles them.
        depths: blocks per stage.
        ssm_ratio: channels that are scanned, over those of the stage.
        d_state: numbers in the state of a channel.
        mlp_ratio: hidden over outer channels of the MLP.
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


def _init_kaiming(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


_INITIALISATIONS = {"published": init_linear, "kaiming": _init_kaiming}


def _variant(width: int, ratio: int, blocks: int, drop_path_rate: float) -> dict[str, Any]:
    depths = (2, 2, blocks, 2)
    scan = {"ssm_ratio": float(ratio), "drop_path_rate": drop_path_rate}
    return {"embed_dim": width, "depths": depths, **scan}


VARIANTS: dict[str, dict[str, Any]] = {
    # For demos and tests, under 1 M parameters: too narrow for the published initial weights.
    "vmamba_nano": {"embed_dim": 16, "depths": (1, 1, 2, 1), "weight_init": "kaiming"},
    # Published; those that are not in `build.PUBLISHED` with their top-1 at 224 px.
    "vmamba_tiny_s1l8": _variant(96, 1, 8, 0.2),
    "vmamba_tiny_s2l5": _variant(96, 2, 5, 0.2),
    "vmamba_small_s2l15": _variant(96, 2, 15, 0.3),
    "vmamba_small_s1l20": _variant(96, 1, 20, 0.3),  # 83.3
    "vmamba_base_s2l15": _variant(128, 2, 15, 0.6),
    "vmamba_base_s1l20": _variant(128, 1, 20, 0.5),  # 83.8
}
register_variants(VMamba, VARIANTS, official="VMamba", stages=4)


_OFFICIAL = ("patch_embed.", "layers.")
# Names of early checkpoints, which the official loader turns into today's in the same way.
_OLD = (
    (r"^patch_embed\.proj\.", "patch_embed.0."),
    (r"^patch_embed\.norm\.", "patch_embed.2."),
    (r"(^layers\.\d+\.blocks\.\d+)\.ln_1\.", r"\1.norm."),
    (r"(^layers\.\d+\.blocks\.\d+)\.self_attention\.", r"\1.op."),
    (r"^norm\.", "classifier.norm."),
    (r"^head\.", "classifier.head."),
)
# Today's names, whose numbers count activations and permutations too, and ours.
_NEW = (
    (r"^patch_embed\.0\.", "stem.conv1."),
    (r"^patch_embed\.2\.", "stem.norm1."),
    (r"^patch_embed\.5\.", "stem.conv2."),
    (r"^patch_embed\.7\.", "stem.norm2."),
    (r"^layers\.(\d+)\.downsample\.1\.", r"layers.\1.downsample.conv."),
    (r"^layers\.(\d+)\.downsample\.3\.", r"layers.\1.downsample.norm."),
    (r"\.op\.(x_proj_weight|dt_projs_\w+|A_logs|Ds|out_norm)", r".op.mixer.\1"),
    (r"^layers\.", "stages."),
    (r"^classifier\.norm\.", "norm."),
    (r"^classifier\.head\.", "head.fc."),
)
_LINEAR = re.compile(r"\.(in_proj|out_proj|fc1|fc2)\.weight$")


def from_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring keys and shapes of the official VMamba code (VMamba@2ed52ea) to ours.

    Older names are understood. Linear layers that were saved as 1×1 convolutions lose their last
    two dimensions. A state dict with our own names is returned as it is.
    """
    if not any(key.startswith(_OFFICIAL) for key in state_dict):
        return dict(state_dict)
    pointwise = {
        key
        for key, value in state_dict.items()
        if _LINEAR.search(key) and value.ndim == 4 and value.shape[2:] == (1, 1)
    }
    return {our_key(k): v.flatten(1) if k in pointwise else v for k, v in state_dict.items()}


def our_key(official: str) -> str:
    """Return our name of one official key. Ours puts a stage's downsampling before its blocks."""
    key = official
    for pattern, name in _OLD + _NEW:
        key = re.sub(pattern, name, key)
    return re.sub(
        r"^stages\.(\d+)\.downsample\.",
        lambda match: f"stages.{int(match[1]) + 1}.downsample.",
        key,
    )
