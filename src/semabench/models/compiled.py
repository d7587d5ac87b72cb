"""Models compiled by torch, part by part where they say which."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def compile_model(model: nn.Module) -> None:
    """Have a model run compiled from now on, for each shape by itself.

    A model of ours is compiled part by part (``compiled_parts``), and blocks of one shape share one
    program: a fraction of the time that the whole takes, and gradients are there block by block,
    for other processes to wait for. Launching the parts costs nothing once they are recorded.
    """
    config = torch._dynamo.config
    config.recompile_limit = 256  # shapes, modes: beyond it, silently eager
    config.accumulated_recompile_limit = 1024
    for part in _parts(model):
        if part._compiled_call_impl is None:
            part.compile(dynamic=False)


def leave_uncompiled(model: nn.Module) -> None:
    """Have a model run as it is from now on; what is compiled serves when it is compiled again."""
    for part in _parts(model):
        part._compiled_call_impl = None


def _parts(model: nn.Module) -> list[nn.Module]:
    parts: Callable[[], list[nn.Module]] = getattr(model, "compiled_parts", lambda: [model])
    return parts()
