"""VMamba's named models, known to timm: size, then ssm_ratio ("s") and blocks of stage 3 ("l").

"VMamba-T" alone names three published models; these names do not. Widths, depths and drop-path
rates are those of the official configs (VMamba@2ed52ea), 224 px.
"""

from __future__ import annotations

from typing import Any

from timm.models import generate_default_cfgs, register_model

from semabench.models.registration import create, default_cfg
from semabench.models.vmamba import VMamba

# Not a published model: it is too narrow for the published initial weights to train in minutes.
NANO: dict[str, Any] = {"embed_dim": 16, "depths": (1, 1, 2, 1), "weight_init": "kaiming"}
WIDTH = {"tiny": 96, "small": 96, "base": 128}


def _variant(size: str, ratio: int, blocks: int, drop_path_rate: float) -> dict[str, Any]:
    return {
        "embed_dim": WIDTH[size],
        "depths": (2, 2, blocks, 2),
        "ssm_ratio": float(ratio),
        "drop_path_rate": drop_path_rate,
    }


VARIANTS: dict[str, dict[str, Any]] = {
    "vmamba_nano": NANO,
    "vmamba_tiny_s1l8": _variant("tiny", 1, 8, 0.2),
    "vmamba_tiny_s2l5": _variant("tiny", 2, 5, 0.2),
    "vmamba_small_s2l15": _variant("small", 2, 15, 0.3),
    "vmamba_small_s1l20": _variant("small", 1, 20, 0.3),
    "vmamba_base_s2l15": _variant("base", 2, 15, 0.6),
    "vmamba_base_s1l20": _variant("base", 1, 20, 0.5),
}

default_cfgs = generate_default_cfgs(
    {name: default_cfg(first_conv="stem.conv1") for name in VARIANTS}
)


def _create(name: str, pretrained: bool, kwargs: dict[str, Any]) -> VMamba:
    arguments = {**VARIANTS[name], **kwargs}
    return create(VMamba, name, pretrained, arguments, official="VMamba", stages=4)


@register_model
def vmamba_nano(pretrained: bool = False, **kwargs: Any) -> VMamba:
    """VMamba for demos and tests, under 1 M parameters."""
    return _create("vmamba_nano", pretrained, kwargs)


@register_model
def vmamba_tiny_s1l8(pretrained: bool = False, **kwargs: Any) -> VMamba:
    """VMamba-T[s1l8]: 30.25 M parameters, published top-1 82.6 at 224 px."""
    return _create("vmamba_tiny_s1l8", pretrained, kwargs)


@register_model
def vmamba_tiny_s2l5(pretrained: bool = False, **kwargs: Any) -> VMamba:
    """VMamba-T[s2l5]: 30.71 M parameters, published top-1 82.5 at 224 px."""
    return _create("vmamba_tiny_s2l5", pretrained, kwargs)


@register_model
def vmamba_small_s2l15(pretrained: bool = False, **kwargs: Any) -> VMamba:
    """VMamba-S[s2l15]: 50.15 M parameters, published top-1 83.6 at 224 px."""
    return _create("vmamba_small_s2l15", pretrained, kwargs)


@register_model
def vmamba_small_s1l20(pretrained: bool = False, **kwargs: Any) -> VMamba:
    """VMamba-S[s1l20]: 49.01 M parameters, published top-1 83.3 at 224 px."""
    return _create("vmamba_small_s1l20", pretrained, kwargs)


@register_model
def vmamba_base_s2l15(pretrained: bool = False, **kwargs: Any) -> VMamba:
    """VMamba-B[s2l15]: 88.56 M parameters, published top-1 83.9 at 224 px."""
    return _create("vmamba_base_s2l15", pretrained, kwargs)


@register_model
def vmamba_base_s1l20(pretrained: bool = False, **kwargs: Any) -> VMamba:
    """VMamba-B[s1l20]: 86.61 M parameters, published top-1 83.8 at 224 px."""
    return _create("vmamba_base_s1l20", pretrained, kwargs)
