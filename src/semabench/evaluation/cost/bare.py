"""A model without weights, built for one resolution, and what its rows say of how it computes."""

from __future__ import annotations

import torch
from torch import nn

from semabench.config.cost import CostModel
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
        fused_attention=spec.fused_attention,
        options=spec.options,
    )


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
