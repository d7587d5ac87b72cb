"""Reading golden files of the official models, and comparing with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn


class Golden(NamedTuple):
    """What is in a file."""

    config: dict[str, Any]
    weights: dict[str, Tensor]  # by the official names
    tensors: dict[str, Tensor]  # all: also "x", "y", "act/…", "grad/…"


def read_golden(path: Path) -> Golden:
    """Read one ``.safetensors`` file of ``tests/golden``."""
    tensors = load_file(path)
    with safe_open(path, "pt") as opened:
        config = json.loads(opened.metadata()["config"])
    weights = {k: v for k, v in tensors.items() if "/" not in k and k not in "xy"}
    return Golden(config, weights, tensors)


def in_type(
    model: nn.Module, tensors: dict[str, Tensor], dtype: torch.dtype
) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return both in a floating-point type, the model in eval mode."""
    return model.to(dtype).eval(), {k: v.to(dtype) for k, v in tensors.items()}


def close(ours: Tensor, official: Tensor, relative: float) -> None:
    """Compare relative to the largest official value."""
    limit = relative * official.abs().max().item()
    torch.testing.assert_close(ours, official, rtol=0, atol=limit)


def assert_official_gradients(
    model: nn.Module, tensors: dict[str, Tensor], our_key: Callable[[str], str] = str
) -> None:
    """Compare the gradients of the input and of the three weights that are in the file.

    Args:
        model: ours, with the official weights.
        tensors: of the file.
        our_key: our name of an official weight.
    """
    x = tensors["x"].requires_grad_()
    model(x).square().sum().backward()
    close(x.grad, tensors["grad/x"], 1e-5)
    parameters = dict(model.named_parameters())
    keys = [k.removeprefix("grad/") for k in tensors if k.startswith("grad/") and k != "grad/x"]
    assert len(keys) == 3
    for key in keys:
        close(parameters[our_key(key)].grad, tensors[f"grad/{key}"], 1e-5)
