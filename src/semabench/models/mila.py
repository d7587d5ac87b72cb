"""MILA's macro-architecture (Han et al., NeurIPS 2024), in which the token mixer alone changes.

Stem and downsampling, block, backbone, the named models {sema, mila, linear} × {nano, tiny, small,
base} known to timm, and the official checkpoints' names as ours. Grids are (B, H, W, C). No weights
are published for SEMA and none are hosted here for any, so ``pretrained=True`` is an error.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.mlp import Mlp
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from semabench.errors import SemabenchError, nearest
from semabench.mixers import create_mixer, list_mixers, mixer_options
from semabench.mixers.base import DepthwiseConv
from semabench.models.drop_path import DropPath
from semabench.models.staged import Stage, StagedModel, init_linear, register_variants
from semabench.ops import depthwise_conv_backend, depthwise_down


class ConvLayer(nn.Module):
    """Convolution, optional BatchNorm, optional ReLU; padded so that stride 1 keeps the size."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = True,
        norm: bool = True,
        act: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=bias,
        )
        self.norm = nn.BatchNorm2d(out_channels) if norm else nn.Identity()
        self.act = nn.ReLU() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, ceil(H/stride), ceil(W/stride))."""
        return self.act(self.norm(self.conv(x)))


class Stem(nn.Module):
    """Images to tokens, (B, in_chans, H, W) -> (B, ceil(H/4), ceil(W/4), dim)."""

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        half = dim // 2
        self.conv1 = ConvLayer(in_chans, half, 3, stride=2, bias=False)
        self.conv2 = nn.Sequential(
            ConvLayer(half, half, 3, bias=False), ConvLayer(half, half, 3, bias=False, act=False)
        )
        self.conv3 = nn.Sequential(
            ConvLayer(half, 4 * dim, 3, stride=2, bias=False),
            ConvLayer(4 * dim, dim, 1, bias=False, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the grid of tokens."""
        x = self.conv1(x)
        x = self.conv3(x + self.conv2(x))
        # In memory as it reads, whatever the images' format: all convolutions of the stages then
        # run channels-last, and no linear layer copies its input. Free if it is so already.
        return x.permute(0, 2, 3, 1).contiguous()


class PatchStem(nn.Module):
    """Patches of 4×4 pixels to tokens, as ViT's: (B, in_chans, H, W) -> (B, ⌈H/4⌉, ⌈W/4⌉, dim)."""

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        self.conv1 = ConvLayer(in_chans, dim, 4, stride=4, norm=False, act=False)
        self.conv1.conv.padding = (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the grid of tokens; what the patches overlap is zeros."""
        x = F.pad(x, (0, -x.shape[-1] % 4, 0, -x.shape[-2] % 4))
        return self.conv1(x).permute(0, 2, 3, 1).contiguous()


STEMS: dict[str, type[nn.Module]] = {"mila": Stem, "patch": PatchStem}


class Positions(nn.Module):
    """Learned positions, added to a grid: a table for one size, bicubic for all others."""

    def __init__(self, dim: int, side: int = 56) -> None:
        super().__init__()
        self.side = side
        self.table = nn.Parameter(torch.empty(1, side * side, dim))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        H, W, C = x.shape[1:]
        table: Tensor = self.table
        # An exported file takes other sizes only if it holds the general way.
        if torch.compiler.is_exporting() or (self.side, self.side) != (H, W):
            table = resample_abs_pos_embed(
                table, new_size=[H, W], old_size=[self.side] * 2, num_prefix_tokens=0
            )
        return x + table.view(1, H, W, C).to(x.dtype)


class Downsample(nn.Module):
    """Half the grid, other channels: (B, H, W, dim) -> (B, ceil(H/2), ceil(W/2), out_dim)."""

    def __init__(self, dim: int, out_dim: int, ratio: float = 4.0) -> None:
        super().__init__()
        hidden = int(out_dim * ratio)
        self.conv = nn.Sequential(
            ConvLayer(dim, hidden, 1, norm=False),
            ConvLayer(hidden, hidden, 3, stride=2, groups=hidden, norm=False),
            ConvLayer(hidden, out_dim, 1, act=False),
        )
        self.backend = "auto"

    def forward(self, x: Tensor) -> Tensor:
        """Return the smaller grid."""
        parts: Any = self.conv
        widen, halve, narrow = parts
        weight = widen.conv.weight
        if depthwise_conv_backend(self.backend, x.device, weight.dtype) != "triton":
            return self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        # The same, with both biases and ReLUs of the wide grid where it is read.
        x = F.linear(x, weight.flatten(1))
        x = depthwise_down(
            x, halve.conv.weight, halve.conv.bias, widen.conv.bias, backend=self.backend
        )
        x = F.linear(x, narrow.conv.weight.flatten(1), narrow.conv.bias)
        return narrow.norm(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


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
        self.cpe1 = DepthwiseConv(dim)
        self.norm1 = nn.LayerNorm(dim)
        self.in_proj = nn.Linear(dim, dim)
        self.act_proj = nn.Linear(dim, dim)
        self.dwc = DepthwiseConv(dim)
        self.mixer = create_mixer(mixer, dim, num_heads, **mixer_options)
        self.out_proj = nn.Linear(dim, dim)
        self.drop_path1 = DropPath(drop_path)
        self.cpe2 = DepthwiseConv(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Tensor, drops: Sequence[Tensor | None] = (None, None)) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C); ``drops`` as of `drop_path.run_blocks`."""
        x = self.cpe1(x, add=x)
        y = self.norm1(x)
        gate = F.silu(self.act_proj(y))
        u = self.dwc(self.in_proj(y), silu=True)
        x = x + self.drop_path1(self.out_proj(self.mixer(u) * gate), drops[0])
        x = self.cpe2(x, add=x)
        return x + self.drop_path2(self.mlp(self.norm2(x)), drops[1])


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


class Backbone(StagedModel):
    """Images (B, in_chans, H, W) -> logits (B, num_classes), at any size.

    Args:
        in_chans, num_classes, global_pool, drop_rate: see ``StagedModel``.
        img_size: taken for timm's sake and not used: no weight depends on a size.
        embed_dim: channels of the first stage; every stage doubles them.
        depths: blocks per stage.
        num_heads: heads per stage.
        mlp_ratio: hidden over outer channels of the MLP.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0.
        mixer: name of the token mixer (``semabench.mixers``).
        conv_backend: of ``ops.depthwise_conv``, for the depthwise convolutions.
        stem: "mila", overlapping convolutions, or "patch". No paper states SEMA's for images;
            VideoSEMA's tokenizer is a convolution that does not overlap.
        positions: add learned ones after the stem, as VideoSEMA's tokenizer does.
        **options: its options.

    Raises:
        SemabenchError: the mixer's name, one of its options, the stem, or the stages do not fit.
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        img_size: int | tuple[int, int] | None = None,
        embed_dim: int = 64,
        depths: Sequence[int] = (2, 4, 8, 4),
        num_heads: Sequence[int] = (2, 4, 8, 16),
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        mixer: str = "sema",
        conv_backend: str = "auto",
        stem: str = "mila",
        positions: bool = False,
        **options: Any,
    ) -> None:
        depthwise_conv_backend(conv_backend)  # a wrong name is an error at once
        if stem not in STEMS:
            raise SemabenchError(f"There is no stem '{stem}'.{nearest(str(stem), STEMS)}")
        check_options(mixer, options)
        if len(num_heads) != len(depths):
            raise SemabenchError(
                f"num_heads={tuple(num_heads)} does not name one number for each of the "
                f"{len(depths)} stages."
            )
        rates = [drop_path_rate * block / max(sum(depths) - 1, 1) for block in range(sum(depths))]
        dims = [embed_dim * 2**i for i in range(len(depths))]
        first = STEMS[stem](in_chans, embed_dim)  # before the stages: so initial weights are drawn
        stages = [
            create_stage(
                dims[max(i - 1, 0)],
                dims[i],
                heads,
                mixer=mixer,
                mixer_options=options,
                mlp_ratio=mlp_ratio,
                drop_path=rates[sum(depths[:i]) : sum(depths[: i + 1])],
            )
            for i, heads in enumerate(num_heads)
        ]
        super().__init__(
            first,
            stages,
            dims,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            drop_rate=drop_rate,
        )
        self.mixer = mixer
        self.positions = Positions(embed_dim) if positions else None
        for module in self.modules():
            if isinstance(module, DepthwiseConv | Downsample):
                module.backend = conv_backend
        self.apply(init_linear)

    def embed(self, x: Tensor) -> Tensor:
        """Images -> the first grid, with its positions."""
        x = super().embed(x)
        return x if self.positions is None else self.positions(x)

    def no_weight_decay(self) -> set[str]:
        """Return parameters to spare beyond norms and biases: the positions, and a mixer's own."""
        return super().no_weight_decay() | ({"positions.table"} if self.positions else set())


def check_options(mixer: str, options: dict[str, Any]) -> None:
    """Refuse what neither the mixer nor the model understands, naming the nearest of both.

    Raises:
        SemabenchError: unknown mixer or option.
    """
    known = mixer_options(mixer)
    parameters = inspect.signature(Backbone).parameters.values()
    own = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    for option in options:
        if option not in known:
            owners = [other for other in list_mixers() if option in mixer_options(other)]
            hint = (
                f" Mixers with it: {', '.join(owners)}."
                if owners
                else nearest(option, [*known, *own])
            )
            raise SemabenchError(
                f"A model with the mixer '{mixer}' has no option '{option}'.{hint}"
            )


DEEP = (3, 6, 21, 6)
SIZES: dict[str, dict[str, Any]] = {
    # For demos and tests, under 1 M parameters.
    "nano": {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)},
    # Half of T in width and depth: photographs in minutes.
    "micro": {"embed_dim": 32, "depths": (1, 2, 4, 2), "num_heads": (1, 2, 4, 8)},
    # MILA-T, -S and -B as the official code has them.
    "tiny": {"drop_path_rate": 0.2},
    "small": {"depths": DEEP, "drop_path_rate": 0.3},
    "base": {"embed_dim": 96, "depths": DEEP, "num_heads": (3, 6, 12, 24), "drop_path_rate": 0.5},
}
VARIANTS = {
    f"{mixer}_{size}": {**arguments, "mixer": mixer}
    for mixer in ("sema", "mila", "linear")
    for size, arguments in SIZES.items()
}
register_variants(Backbone, VARIANTS, official="MILA", stages=4, first_conv="stem.conv1.conv")


_OFFICIAL = ("patch_embed.", "layers.")
# Their tables of rotations depend on the resolution of training; ours are made on the fly.
_ROPE_TABLE = re.compile(r"\.attn\.rope\.rotations$")


def from_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of the official MILA code (MLLA@66b6d29) to ours; drop RoPE's tables.

    A state dict with our own names is returned as it is.
    """
    if not any(key.startswith(_OFFICIAL) for key in state_dict):
        return dict(state_dict)
    return {our_key(key): value for key, value in state_dict.items() if not _ROPE_TABLE.search(key)}


def our_key(official: str) -> str:
    """Return our name of one official key. Ours puts a stage's downsampling before its blocks."""
    key = re.sub(
        r"^layers\.(\d+)\.downsample\.",
        lambda match: f"stages.{int(match[1]) + 1}.downsample.",
        official,
    )
    key = re.sub(r"^layers\.", "stages.", key)
    key = re.sub(r"^patch_embed\.", "stem.", key)
    key = re.sub(r"^head\.", "head.fc.", key)
    return key.replace(".attn.", ".mixer.")
