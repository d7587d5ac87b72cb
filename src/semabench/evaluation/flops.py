"""The size and the cost of a model, counted."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Count parameters, trainable or not; buffers are none."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_gmacs(model: nn.Module, resolution: int, in_chans: int = 3) -> float:
    """Count the multiply-adds of one picture's forward pass, in 1e9 (papers call them GFLOPs).

    Matrix products, convolutions and attention are counted, by torch's FLOP counter at two FLOPs a
    multiply-add; elementwise work and normalisation are not, as is the custom. The backends that
    the model is set to are counted as they run, padding of windows included. The model is left as
    it is: a copy without data runs, so large models and resolutions cost neither time nor memory.
    Only a model that looks at its data to decide is run on the CPU.

    Args:
        model: at this resolution already (``semabench.models.set_resolution``).
        resolution: height and width in pixels.
        in_chans: channels of the picture.
    """
    try:
        return _count(_without_data(model), in_chans, resolution, torch.device("meta"))
    except (NotImplementedError, RuntimeError):
        cpu = torch.device("cpu")
        return _count(copy.deepcopy(model).to(cpu), in_chans, resolution, cpu)


def _without_data(model: nn.Module) -> nn.Module:
    """Copy a model with its weights on meta; ``deepcopy(model).to("meta")`` would copy data."""
    memo: dict[int, Tensor] = {
        id(buffer): torch.empty_like(buffer, device="meta") for buffer in model.buffers()
    }
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"))
    return copy.deepcopy(model, memo)


def _count(model: nn.Module, in_chans: int, resolution: int, device: torch.device) -> float:
    model.eval().requires_grad_(False)  # the counter trips over parameters passed as inputs
    pictures = torch.zeros(1, in_chans, resolution, resolution, device=device)
    # The math backend is two matrix products, which every version of the counter knows.
    with (
        FlopCounterMode(display=False) as counter,
        sdpa_kernel(SDPBackend.MATH),
        torch.no_grad(),
    ):
        model(pictures)
    return counter.get_total_flops() / 2e9
