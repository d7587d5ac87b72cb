"""The model of the procedural tasks: one token a cell, one block or a few, an answer at the query.

Small enough to reason about: whatever is asked of distant cells must pass through the mixer, since
the convolutions reach a known number of tokens (``reach``).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.weight_init import trunc_normal_
from torch import Tensor, nn

from semabench.errors import SemabenchError, nearest
from semabench.mixers import Mixer, NoMixing, WindowedMixer, mixer_options
from semabench.models.mila import Block, check_options, create_stage
from semabench.models.staged import StagedModel, register_variants
from semabench.ops.window_mean import window_labels

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


CELL = 8  # pixels of a token's side
# Convolutions beside the mixing are off: the mixer is then the only way past the block's own.
LOCAL_TERMS = {"lepe": False, "kernel_size": 1}


class Probe(StagedModel):
    """Images (B, in_chans, H, W) -> logits (B, num_classes); a token for each 8×8 pixels.

    Args:
        in_chans, num_classes, drop_rate: see ``StagedModel``.
        global_pool: how the question is answered, see ``ReadOut``; "query" at the central token.
        img_size: taken for timm's sake and not used: no weight depends on a size.
        embed_dim: channels C.
        depth: blocks.
        num_heads: heads of the mixers.
        mlp_ratio: hidden over outer channels of the MLP.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0.
        mixer: name of the token mixer.
        **options: its options; LePE and FLatten's convolution are off unless asked for.

    Raises:
        SemabenchError: the mixer's name or one of its options does not fit, or a rate of
            stochastic depth is given to a single block.
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "query",
        img_size: int | tuple[int, int] | None = None,
        embed_dim: int = 64,
        depth: int = 1,
        num_heads: int = 2,
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        mixer: str = "sema",
        **options: Any,
    ) -> None:
        check_options(mixer, options)
        if depth == 1 and drop_path_rate > 0:
            raise SemabenchError(
                f"drop_path_rate={drop_path_rate:g} has no effect on a single block, as it grows "
                "from 0 at the first: leave it out, or set depth."
            )
        off = {key: value for key, value in LOCAL_TERMS.items() if key in mixer_options(mixer)}
        stage = create_stage(
            embed_dim,
            embed_dim,
            num_heads,
            mixer=mixer,
            mixer_options={**off, **options},
            mlp_ratio=mlp_ratio,
            drop_path=[drop_path_rate * i / max(depth - 1, 1) for i in range(depth)],
        )
        super().__init__(
            PatchEmbed(in_chans, embed_dim),
            [stage],
            [embed_dim],
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool="avg",
            drop_rate=drop_rate,
        )
        self.feature_info = [{"num_chs": embed_dim, "reduction": CELL, "module": "stages.0"}]
        head = ReadOut(embed_dim, num_classes, global_pool, drop_rate)
        self.head = head  # type: ignore[assignment]
        self.mixer = mixer
        self.apply(_init_weights)


def _init_weights(module: nn.Module) -> None:
    """Keep the variance: at 64 channels, MILA's std of 0.02 would leave all attention flat."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=module.in_features**-0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class PatchEmbed(nn.Module):
    """Images to tokens, (B, in_chans, H, W) -> (B, H // 8, W // 8, dim), linear in the pixels."""

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, dim, CELL, stride=CELL)

    def forward(self, x: Tensor) -> Tensor:
        """Return the grid of tokens."""
        y: Tensor = self.conv(x)
        return y.permute(0, 2, 3, 1).contiguous()


def reach(model: Probe, height: int, width: int) -> Tensor:
    """Return which tokens the token at the query can learn of, bool (height, width).

    From the last layer to the first: a convolution widens the region by half its kernel, a window
    to whole windows, any other mixer to the whole grid. For a mixer of windows with a mean, that
    is the window's part alone: what the mean adds is known of everywhere.
    """
    region = torch.zeros(1, 1, height, width)
    region[..., height // 2, width // 2] = 1
    for block in reversed(list(model.stages[0].blocks)):  # type: ignore[arg-type]
        assert isinstance(block, Block)
        region = _widen(region, block.cpe2)
        region = torch.maximum(region, _widen(_through(block.mixer, region), block.dwc))
        region = _widen(region, block.cpe1)
    return region[0, 0] > 0


def _widen(region: Tensor, conv: nn.Conv2d) -> Tensor:
    size = int(conv.kernel_size[0])
    return F.max_pool2d(region, size, stride=1, padding=size // 2)


def _through(mixer: Mixer, region: Tensor) -> Tensor:
    convolution = getattr(mixer, "dwc", None) or mixer.lepe
    local = region if convolution is None else _widen(region, convolution)
    if isinstance(mixer, NoMixing):
        return local
    if not isinstance(mixer, WindowedMixer):
        return torch.ones_like(region)
    height, width = region.shape[-2:]
    labels = window_labels(height, width, mixer.window_size, mixer.border_shift, region.device)
    seen = torch.isin(labels, labels[region[0, 0] > 0])
    return torch.maximum(local, seen.float()[None, None])


# One block of 64 channels, for the procedural tasks.
VARIANTS: dict[str, dict[str, Any]] = {"probe_nano": {}}
register_variants(Probe, VARIANTS, official="probe", stages=1, first_conv="stem.conv", crop_pct=1.0)
