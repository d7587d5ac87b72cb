"""Vim's named models, known to timm: nano, tiny, small, base, and the stride-8 fine-tuning form.

Widths and drop-path rates are those of the official code and scripts (Vim@dd0358a), 224 px.
"""

from __future__ import annotations

from typing import Any

from timm.models import generate_default_cfgs, register_model

from semabench.models.registration import create, default_cfg
from semabench.models.vim import Vim

VARIANTS: dict[str, dict[str, Any]] = {
    "vim_nano": {"patch_size": 8, "embed_dim": 96, "depth": 4, "d_state": 4},
    "vim_tiny": {"embed_dim": 192},
    "vim_small": {"embed_dim": 384, "drop_path_rate": 0.05},
    "vim_base": {"embed_dim": 768, "drop_path_rate": 0.1},
    "vim_tiny_plus": {"embed_dim": 192, "stride": 8},
    "vim_small_plus": {"embed_dim": 384, "stride": 8},
}

default_cfgs = generate_default_cfgs(
    {
        name: default_cfg(first_conv="patch_embed.proj", classifier="head", pool_size=None)
        for name in VARIANTS
    }
)


def _create(name: str, pretrained: bool, kwargs: dict[str, Any]) -> Vim:
    return create(Vim, name, pretrained, {**VARIANTS[name], **kwargs}, official="Vim")


@register_model
def vim_nano(pretrained: bool = False, **kwargs: Any) -> Vim:
    """Vim for demos and tests, under 1 M parameters; patches of 8 px, states of 4."""
    return _create("vim_nano", pretrained, kwargs)


@register_model
def vim_tiny(pretrained: bool = False, **kwargs: Any) -> Vim:
    """Vim-Ti: 7.15 M parameters, published top-1 76.1 at 224 px."""
    return _create("vim_tiny", pretrained, kwargs)


@register_model
def vim_small(pretrained: bool = False, **kwargs: Any) -> Vim:
    """Vim-S: 25.80 M parameters, published top-1 80.5 at 224 px."""
    return _create("vim_small", pretrained, kwargs)


@register_model
def vim_base(pretrained: bool = False, **kwargs: Any) -> Vim:
    """Vim-B: 97.60 M parameters, published top-1 81.9 at 224 px."""
    return _create("vim_base", pretrained, kwargs)


@register_model
def vim_tiny_plus(pretrained: bool = False, **kwargs: Any) -> Vim:
    """Vim-Ti with patches every 8 px, to fine-tune at a finer grain: published top-1 78.3."""
    return _create("vim_tiny_plus", pretrained, kwargs)


@register_model
def vim_small_plus(pretrained: bool = False, **kwargs: Any) -> Vim:
    """Vim-S with patches every 8 px, to fine-tune at a finer grain: published top-1 81.6."""
    return _create("vim_small_plus", pretrained, kwargs)
