"""The macro-architecture of MILA as a timm model: stem, four stages, norm, head."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from timm.layers.classifier import ClassifierHead
from timm.layers.weight_init import trunc_normal_
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from semabench.errors import SemabenchError, nearest
from semabench.mixers import list_mixers, mixer_options
from semabench.models.block import Stage
from semabench.models.convs import Stem


class Backbone(nn.Module):
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

    output_fmt = "NHWC"

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
        super().__init__()
        check_options(mixer, options)
        if len(num_heads) != len(depths):
            raise SemabenchError(
                f"num_heads={tuple(num_heads)} does not name one number for each of the "
                f"{len(depths)} stages."
            )
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.mixer = mixer
        self.feature_info = []

        self.stem = Stem(in_chans, embed_dim)
        rates = [drop_path_rate * block / max(sum(depths) - 1, 1) for block in range(sum(depths))]
        stages = []
        dim = embed_dim
        for i, heads in enumerate(num_heads):
            in_dim, dim = dim, embed_dim * 2**i
            stages.append(
                Stage(
                    in_dim,
                    dim,
                    heads,
                    mixer=mixer,
                    mixer_options=options,
                    mlp_ratio=mlp_ratio,
                    drop_path=rates[sum(depths[:i]) : sum(depths[: i + 1])],
                )
            )
            self.feature_info += [{"num_chs": dim, "reduction": 4 * 2**i, "module": f"stages.{i}"}]
        self.stages = nn.Sequential(*stages)
        self.num_features = self.head_hidden_size = dim
        self.norm: nn.Module = nn.LayerNorm(dim)
        self.head = ClassifierHead(
            dim, num_classes, pool_type=global_pool, drop_rate=drop_rate, input_fmt="NHWC"
        )
        self.apply(_init_weights)

    def no_weight_decay(self) -> set[str]:
        """Return parameters to spare beyond norms and biases: none."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return patterns that sort parameters into layers, for layer-wise rates."""
        blocks: Any = [
            (r"^stages\.(\d+)\.downsample", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^norm", (99999,)),
        ]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else blocks}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks' activations in the backward pass instead of keeping them."""
        for stage in self.stages:
            assert isinstance(stage, Stage)
            stage.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer."""
        fc: nn.Module = self.head.fc
        return fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a fresh classifier in place; 0 classes leave it out."""
        self.num_classes = num_classes
        self.head.reset(num_classes, pool_type=global_pool)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the outputs of stages, with or without the final features.

        Args:
            x: pictures (B, in_chans, H, W).
            indices: the last n stages if an int, all if None, or which.
            norm: apply the final norm to the last stage's output, the only one it fits.
            stop_early: skip the stages after the last one asked for.
            output_fmt: "NCHW" or "NHWC".
            intermediates_only: leave the final features out.

        Raises:
            SemabenchError: unknown ``output_fmt``.
        """
        if output_fmt not in ("NCHW", "NHWC"):
            raise SemabenchError(f"output_fmt must be NCHW or NHWC, not '{output_fmt}'.")
        take, last = feature_take_indices(len(self.stages), indices)
        intermediates = []
        x = self.stem(x)
        for i, stage in enumerate(self.stages[: last + 1] if stop_early else self.stages):
            x = stage(x)
            if i in take:
                final = norm and i == len(self.feature_info) - 1
                y = self.norm(x) if final else x
                intermediates.append(y.permute(0, 3, 1, 2) if output_fmt == "NCHW" else y)
        if intermediates_only:
            return intermediates
        return self.norm(x) if len(self.stages) == len(self.feature_info) else x, intermediates

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Drop what the given intermediates do not need; returns their indices."""
        take, last = feature_take_indices(len(self.stages), indices)
        self.stages = self.stages[: last + 1]
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
        return take

    def forward_features(self, x: Tensor) -> Tensor:
        """Pictures -> normalised last grid, (B, ceil(H/32), ceil(W/32), C)."""
        y: Tensor = self.norm(self.stages(self.stem(x)))
        return y

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Last grid -> logits, or the pooled features before the classifier."""
        y: Tensor = self.head(x, pre_logits=pre_logits)
        return y

    def forward(self, x: Tensor) -> Tensor:
        """Pictures -> logits."""
        return self.forward_head(self.forward_features(x))


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
