"""What hierarchical models share: stem, stages, norm, head, and the habits of a timm model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers.classifier import ClassifierHead
from timm.layers.weight_init import trunc_normal_
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from semabench.errors import SemabenchError
from semabench.models.drop_path import run_blocks


class Stage(nn.Module):
    """Downsampling (or none), then blocks of one width. Grids are (B, H, W, C)."""

    def __init__(self, downsample: nn.Module, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, in_dim) -> (B, ceil(H/2), ceil(W/2), dim); the first stage keeps the size."""
        x = self.downsample(x)
        return run_blocks(self.blocks, x, self.grad_checkpointing and self.training)


class StagedModel(nn.Module):
    """Images (B, in_chans, H, W) -> logits (B, num_classes), at any size.

    A subclass builds the stem, which divides height and width by 4 (rounding up), and the stages,
    each of which but the first divides them by 2; no weight may depend on the size.

    Args:
        stem: (B, in_chans, H, W) -> (B, H/4, W/4, C).
        stages: from the widest grid to the narrowest.
        dims: channels of each stage.
        in_chans: channels of the images.
        num_classes: 0 leaves the head out.
        global_pool: timm's pooling of the last grid; "" keeps the grid.
        drop_rate: dropout before the classifier.
    """

    output_fmt = "NHWC"

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[Stage],
        dims: Sequence[int],
        *,
        in_chans: int,
        num_classes: int,
        global_pool: str,
        drop_rate: float,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.feature_info = [
            {"num_chs": dim, "reduction": 4 * 2**i, "module": f"stages.{i}"}
            for i, dim in enumerate(dims)
        ]
        self.num_features = self.head_hidden_size = dims[-1]
        self.norm: nn.Module = nn.LayerNorm(dims[-1])
        self.head = ClassifierHead(
            dims[-1], num_classes, pool_type=global_pool, drop_rate=drop_rate, input_fmt="NHWC"
        )

    def no_weight_decay(self) -> set[str]:
        """Return parameters to spare beyond norms and biases: those of state-space mixers."""
        return undecayed(self)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return patterns that sort parameters into layers, for layer-wise rates."""
        blocks: Any = [
            (r"^stages\.(\d+)\.downsample", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^norm", (99999,)),
        ]
        return {"stem": r"^(?:stem|positions)", "blocks": r"^stages\.(\d+)" if coarse else blocks}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks' activations in the backward pass instead of keeping them."""
        for stage in self.stages:
            assert isinstance(stage, Stage)
            stage.grad_checkpointing = enable

    def compiled_parts(self) -> list[nn.Module]:
        """Return what is compiled by itself; blocks of one stage are one program."""
        parts = [self.stem]
        for stage in self.stages:
            assert isinstance(stage, Stage)
            parts += [stage.downsample, *stage.blocks]
        return [part for part in parts if not isinstance(part, nn.Identity)]

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer."""
        return self.head.fc

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
            x: images (B, in_chans, H, W).
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
        x = self.embed(x)
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
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop what the given intermediates do not need; returns their indices."""
        take, last = feature_take_indices(len(self.stages), indices)
        self.stages = self.stages[: last + 1]
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
        return take

    def embed(self, x: Tensor) -> Tensor:
        """Images -> the first grid."""
        grid: Tensor = self.stem(x)
        return grid

    def forward_features(self, x: Tensor) -> Tensor:
        """Images -> normalised last grid, (B, ceil(H/32), ceil(W/32), C)."""
        return self.norm(self.stages(self.embed(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Last grid -> logits, or the pooled features before the classifier."""
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        """Images -> logits."""
        return self.forward_head(self.forward_features(x))


def init_linear(module: nn.Module) -> None:
    """Initialise as published for MILA and VMamba: linear layers truncated normal, no more."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def undecayed(model: nn.Module) -> set[str]:
    """Return the parameters of a model's state spaces that weight decay must spare, by name."""
    return {
        f"{path}.{parameter}" if path else parameter
        for path, module in model.named_modules()
        for parameter in getattr(module, "undecayed", ())
    }


_CFG = {
    "url": "",
    "num_classes": 1000,
    "input_size": (3, 224, 224),
    "pool_size": (7, 7),
    "crop_pct": 0.875,
    "interpolation": "bicubic",
    "fixed_input_size": False,
    "mean": IMAGENET_DEFAULT_MEAN,
    "std": IMAGENET_DEFAULT_STD,
    "first_conv": "stem.conv1",
    "classifier": "head.fc",
    "license": "apache-2.0",
}
"""timm's description of a model: published at 224 px, any size allowed."""


def register_variants(
    model_class: type[nn.Module],
    variants: Mapping[str, dict[str, Any]],
    *,
    official: str,
    stages: int = 0,
    **cfg: Any,
) -> None:
    """Make named models known to timm, each as a function of the class's module.

    No weights are hosted here for any: ``pretrained=True`` is a SemabenchError, unless the name is
    of somebody's repository or folder, "hf-hub:OWNER/NAME" or "local-dir:PATH".

    Args:
        model_class: of all of them.
        variants: arguments of the class by the model's name; a caller's come before them.
        official: whose checkpoints fit, for the message.
        stages: how many there are to take features from; 0: the model is not built for features.
        **cfg: where timm's description differs from the usual one.
    """
    module: Any = sys.modules[model_class.__module__]
    module.default_cfgs = generate_default_cfgs(dict.fromkeys(variants, _CFG | cfg))

    def entry(name: str) -> Callable[..., nn.Module]:
        def build(pretrained: bool = False, **kwargs: Any) -> nn.Module:
            if pretrained and not kwargs.get("pretrained_cfg"):
                raise SemabenchError(
                    f"No pretrained weights of {name} are known; for an official {official} "
                    "checkpoint name its file (checkpoint=...)."
                )
            features = {"out_indices": tuple(range(stages)), "feature_cls": "getter"}
            arguments = {"feature_cfg": features if stages else None} | variants[name] | kwargs
            return build_model_with_cfg(model_class, name, pretrained, **arguments)

        build.__name__, build.__module__ = name, module.__name__
        return build

    for name in variants:
        setattr(module, name, register_model(entry(name)))
