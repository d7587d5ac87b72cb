"""The macro-architecture of MILA as a timm model: stem, four stages, norm, head."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from timm.layers.weight_init import trunc_normal_
from torch import nn

from semabench.errors import SemabenchError, nearest
from semabench.mixers import list_mixers, mixer_options
from semabench.models.block import create_stage
from semabench.models.convs import Stem
from semabench.models.staged import StagedModel


class Backbone(StagedModel):
    """Pictures (B, in_chans, H, W) -> logits (B, num_classes), at any size.

    Args:
        in_chans: channels of the pictures.
        num_classes: 0 leaves the head out.
        global_pool: timm's pooling of the last grid; "" keeps the grid.
        img_size: taken for timm's sake and not used: no weight depends on a size.
        embed_dim: channels of the first stage; every stage doubles them.
        depths: blocks per stage.
        num_heads: heads per stage.
        mlp_ratio: hidden over outer channels of the MLP.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0.
        mixer: name of the token mixer (``semabench.mixers``).
        **options: its options.

    Raises:
        SemabenchError: the mixer's name, one of its options, or the stages do not fit.
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
        **options: Any,
    ) -> None:
        check_options(mixer, options)
        if len(num_heads) != len(depths):
            raise SemabenchError(
                f"num_heads={tuple(num_heads)} does not name one number for each of the "
                f"{len(depths)} stages."
            )
        rates = [drop_path_rate * block / max(sum(depths) - 1, 1) for block in range(sum(depths))]
        dims = [embed_dim * 2**i for i in range(len(depths))]
        stem = Stem(in_chans, embed_dim)
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
            stem,
            stages,
            dims,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            drop_rate=drop_rate,
        )
        self.mixer = mixer
        self.apply(_init_weights)


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


def _init_weights(module: nn.Module) -> None:
    """MILA's initialisation: linear layers truncated normal, convolutions as torch does."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
