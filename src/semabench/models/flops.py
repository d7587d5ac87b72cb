"""The size and the cost of a model, counted."""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from semabench.mixers.ssm import Scan


def count_parameters(model: nn.Module) -> int:
    """Count parameters, trainable or not; buffers are none."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_gmacs(model: nn.Module, resolution: int, in_chans: int = 3) -> float:
    """Count the multiply-adds of one image's forward pass, in 1e9 (papers call them GFLOPs).

    Matrix products, convolutions and attention are counted, by torch's FLOP counter at two FLOPs a
    multiply-add; elementwise work and normalisation are not, as is the custom. The backends that
    the model is set to are counted as they run, padding of windows included. A selective scan is
    not run: whatever its backend, it counts 9·B·L·D·N (``scan_flops``). The model is left as
    it is: a copy without data runs, so large models and resolutions cost neither time nor memory.
    Only a model that looks at its data to decide is run on the CPU.

    Args:
        model: at this resolution already (``semabench.models.set_resolution``).
        resolution: height and width in pixels.
        in_chans: channels of the image.
    """
    try:
        return _count(without_data(model), in_chans, resolution, torch.device("meta"))
    except (NotImplementedError, RuntimeError):
        cpu = torch.device("cpu")
        return _count(copy.deepcopy(model).to(cpu), in_chans, resolution, cpu)


def without_data(model: nn.Module) -> nn.Module:
    """Copy a model with its weights on meta; ``deepcopy(model).to("meta")`` would copy data."""
    memo: dict[int, Tensor] = {
        id(buffer): torch.empty_like(buffer, device="meta") for buffer in model.buffers()
    }
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"))
    return copy.deepcopy(model, memo)


def _count(model: nn.Module, in_chans: int, resolution: int, device: torch.device) -> float:
    model.eval().requires_grad_(False)  # the counter trips over parameters passed as inputs
    scans: list[int] = []
    for module in model.modules():
        if isinstance(module, Scan):
            module.forward = partial(_count_scan, scans)  # type: ignore[method-assign]
    images = torch.zeros(1, in_chans, resolution, resolution, device=device)
    # The math backend is two matrix products, which every version of the counter knows.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(images)
    return (counter.get_total_flops() / 2 + sum(scans)) / 1e9


def scan_flops(batch: int, length: int, dim: int, d_state: int) -> int:
    """Return the cost of a selective scan as papers count it: 9·B·L·D·N, beside multiply-adds.

    Mamba's authors count nine operations for each number of the state (state-spaces/mamba#110).
    VMamba's published GFLOPs add them, undivided, to the multiply-adds of everything else, and so
    does ``count_gmacs``. Vim's, 1.5 and 5.1 for tiny and small, are others' and less: five
    operations, and the projections of one direction only (hunto/LocalMamba#36).
    """
    return 9 * batch * length * dim * d_state


def _count_scan(scans: list[int], u: Tensor, delta: Tensor, A: Tensor, *_: Tensor) -> Tensor:
    """Stand in for a scan: note its cost, return an output of its shape."""
    batch, dim, length = delta.shape
    scans.append(scan_flops(batch, length, dim, A.shape[1]))
    return torch.zeros_like(delta, dtype=u.dtype)
