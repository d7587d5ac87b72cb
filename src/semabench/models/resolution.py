"""Bring a built model to another resolution."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from semabench.errors import SemabenchError, first_line
from semabench.models.staged import StagedModel
from semabench.models.vim import Vim


def set_resolution(model: nn.Module, resolution: int) -> None:
    """Prepare a model for pictures of another size, before it is evaluated on them.

    Nothing to do for ours: Vim interpolates its table of positions as it runs. Other models with
    tables of positions resample them by timm's ``set_input_size``; of models that fix their size,
    one picture on the CPU tells.

    Args:
        model: any model of ``build_model``'s.
        resolution: height and width in pixels.

    Raises:
        SemabenchError: the model cannot take pictures of this size.
    """
    if isinstance(model, StagedModel | Vim):
        return
    config: dict[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    name = config.get("architecture", type(model).__name__)
    resize = getattr(model, "set_input_size", None)
    try:
        if resize is not None:
            resize(img_size=(resolution, resolution))
        elif config.get("fixed_input_size"):
            _try_forward(model, resolution)
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        reason = first_line(error)
        raise SemabenchError(f"{name} cannot be run at {resolution} px: {reason}") from error


def takes_any_size(model: nn.Module) -> bool:
    """Tell whether pictures of any size go through a model as it is, training included."""
    if isinstance(model, StagedModel | Vim):
        return True
    config: dict[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    return not (hasattr(model, "set_input_size") or config.get("fixed_input_size"))


def _try_forward(model: nn.Module, resolution: int) -> None:
    in_chans = int(getattr(model, "in_chans", 3))
    # On the CPU: an index out of a table's range goes unseen on meta, and poisons a CUDA device.
    shadow = copy.deepcopy(model).cpu().eval()
    with torch.no_grad():
        shadow(torch.zeros(1, in_chans, resolution, resolution))
