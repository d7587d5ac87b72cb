"""The named models: {sema, mila, linear} × {nano, tiny, small, base}, known to timm.

All have MILA's macro-architecture; a name chooses the size and the default mixer. No weights are
published for SEMA and none are hosted here for any, so ``pretrained=True`` is an error.
"""

from __future__ import annotations

from typing import Any

from timm.models import generate_default_cfgs, register_model

from semabench.models.backbone import Backbone
from semabench.models.registration import create, default_cfg

NANO = {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8), "drop_path_rate": 0.0}
TINY = {"embed_dim": 64, "depths": (2, 4, 8, 4), "num_heads": (2, 4, 8, 16), "drop_path_rate": 0.2}
SMALL = {
    "embed_dim": 64,
    "depths": (3, 6, 21, 6),
    "num_heads": (2, 4, 8, 16),
    "drop_path_rate": 0.3,
}
BASE = {
    "embed_dim": 96,
    "depths": (3, 6, 21, 6),
    "num_heads": (3, 6, 12, 24),
    "drop_path_rate": 0.5,
}

MODEL_NAMES = [
    f"{family}_{size}"
    for family in ("sema", "mila", "linear")
    for size in ("nano", "tiny", "small", "base")
]


default_cfgs = generate_default_cfgs({name: default_cfg() for name in MODEL_NAMES})


def _create(
    name: str, size: dict[str, Any], mixer: str, pretrained: bool, kwargs: dict[str, Any]
) -> Backbone:
    arguments = {**size, "mixer": mixer, **kwargs}
    return create(Backbone, name, pretrained, arguments, official="MILA", stages=4)


@register_model
def sema_nano(pretrained: bool = False, **kwargs: Any) -> Backbone:
    """SEMA for demos and tests, under 1 M parameters."""
    return _create("sema_nano", NANO, "sema", pretrained, kwargs)


@register_model
def sema_tiny(pretrained: bool = False, **kwargs: Any) -> Backbone:
    """SEMA-T: window attention plus the mean of all values."""
    return _create("sema_tiny", TINY, "sema", pretrained, kwargs)


@register_model
def sema_small(pretrained: bool = False, **kwargs: Any) -> Backbone:
    """SEMA-S: window attention plus the mean of all values."""
    return _create("sema_small", SMALL, "sema", pretrained, kwargs)


@register_model
def sema_base(pretrained: bool = False, **kwargs: Any) -> Backbone:
    """SEMA-B: window attention plus the mean of all values."""
    return _create("sema_base", BASE, "sema", pretrained, kwargs)


@register_model
def mila_nano(pretrained: bool = False, **kwargs: Any) -> Backbone:
    """MILA for demos and tests, under 1 M parameters."""
    return _create("mila_nano", NANO, "mila", pretrained, kwargs)


@register_model
def mila_tiny(pretrained: bool = False, **kwargs: Any) -> Backbone:
    """MILA-T as the official code has it (Han et al., NeurIPS 2024)."""
    return _create("mila_tiny", TINY, "mila", pretrained, kwargs)


@register_model
def mila_small(pretrained: bool = False, **kwargs: Any) -> Backbone:
    """MILA-S as the official code has it (Han et al., NeurIPS 2024)."""
    return _create("mila_small", SMALL, "mila", pretrained, kwargs)


@register_model
def mila_base(pretrained: bool = False, **kwargs: Any) -> Backbone:
    """MILA-B as the official code has it (Han et al., NeurIPS 2024)."""
    return _create("mila_base", BASE, "mila", pretrained, kwargs)


@register_model
def linear_nano(pretrained: bool = False, **kwargs: Any) -> Backbone:
    """Linear attention for demos and tests, under 1 M parameters."""
    return _create("linear_nano", NANO, "linear", pretrained, kwargs)


@register_model
def linear_tiny(pretrained: bool = False, **kwargs: Any) -> Backbone:
    """MILA-T's macro-architecture with plain ELU+1 linear attention."""
    return _create("linear_tiny", TINY, "linear", pretrained, kwargs)


@register_model
def linear_small(pretrained: bool = False, **kwargs: Any) -> Backbone:
    """MILA-S's macro-architecture with plain ELU+1 linear attention."""
    return _create("linear_small", SMALL, "linear", pretrained, kwargs)


@register_model
def linear_base(pretrained: bool = False, **kwargs: Any) -> Backbone:
    """MILA-B's macro-architecture with plain ELU+1 linear attention."""
    return _create("linear_base", BASE, "linear", pretrained, kwargs)
