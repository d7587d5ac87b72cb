"""A model without weights, built for one resolution, and what its rows say of how it computes."""

from __future__ import annotations

import os

import torch
from timm.layers import set_fused_attn
from torch import nn

from semabench.config_cost import CostModel
from semabench.errors import SemabenchError
from semabench.models import backend_name, build_model


def build_bare(spec: CostModel, resolution: int, device: torch.device) -> nn.Module:
    """Build a model with random weights on ``device``, with as many classes as it has by itself.

    Models whose weights depend on the size of the pictures are built for it. Swin's windows keep
    their size: where it does not divide the grid, timm pads.

    Args:
        spec: the model.
        resolution: height and width in pixels.
        device: where its weights are to be; meta for none.

    Raises:
        SemabenchError: unknown model, mixer or option, or one that cannot take this resolution.
    """
    _choose_attention(spec.fused_attention)
    try:
        with torch.device(device):  # drawing the weights is slow on a CPU
            return _build(spec, resolution)
    except SemabenchError:  # some constructors look at numbers, and need the CPU for that
        return _build(spec, resolution).to(device)


def _build(spec: CostModel, resolution: int) -> nn.Module:
    return build_model(
        spec.name,
        num_classes=None,
        resolution=resolution,
        mixer=spec.mixer,
        options=spec.options,
    )


def _choose_attention(fused: bool | None) -> None:
    """Set what timm's models built from here on do; None: what its environment variable says.

    Swin and some others are fused at level 2 only, which timm calls experimental.
    """
    asked = os.environ.get("TIMM_FUSED_ATTN", "1")
    level = (int(asked) if asked.isdigit() else 1) if fused is None else 2 * fused
    set_fused_attn(enable=level > 0, experimental=level > 1)


def backend_label(model: nn.Module, device: torch.device) -> str:
    """Return the backend of a model's ops: of our mixers, or of timm's attention.

    timm's attention is ``sdpa`` where it calls torch's fused one, else ``unfused``; a model
    without a choice is ``torch``.
    """
    fused = {
        "sdpa" if module.fused_attn else "unfused"
        for module in model.modules()
        if isinstance(getattr(module, "fused_attn", None), bool)
    }
    return "+".join(sorted(fused)) or backend_name(model, device)
