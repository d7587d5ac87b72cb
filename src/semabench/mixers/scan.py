"""The selective scan as a layer, and the initial values of what it scans with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from semabench.ops.selective_scan import selective_scan, selective_scan_backend

DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 1e-1, 1e-4


class Scan(nn.Module):
    """``ops.selective_scan`` in some directions: a module, so that a count of FLOPs finds it.

    Args:
        reverse: for each group of channels, whether its sequence is read from the end.
        backend: of ``ops.selective_scan``.

    Raises:
        SemabenchError: unknown backend, or one that is not installed.
    """

    def __init__(self, reverse: Sequence[bool], backend: str) -> None:
        super().__init__()
        self.reverse = tuple(reverse)
        self.backend = backend
        selective_scan_backend(backend)  # a wrong name is an error now, not at the first batch

    def forward(
        self,
        u: Tensor,
        delta: Tensor,
        A_logarithm: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor,
        delta_bias: Tensor,
    ) -> Tensor:
        """Scan with A = -exp(A_logarithm) and steps softplus(delta + delta_bias).

        Args:
            u: (batch, dim / m, L), serving m times.
            delta: (batch, dim, L).
            A_logarithm: (dim, N).
            B, C: (batch, groups, N, L).
            D, delta_bias: (dim).

        Returns:
            (batch, dim, L) in the dtype of ``u``.
        """
        # In float32 or better, whatever the weights are: errors in A grow along the sequence.
        precise = torch.promote_types(A_logarithm.dtype, torch.float32)
        return selective_scan(
            u,
            delta,
            -torch.exp(A_logarithm.to(precise)),
            B,
            C,
            D,
            delta_bias=delta_bias,
            delta_softplus=True,
            reverse=self.reverse,
            backend=self.backend,
        )

    def resolved_backend(self, device: torch.device | None = None) -> str:
        """Return the backend of ``ops.selective_scan`` that runs on ``device``."""
        return selective_scan_backend(self.backend, device)

    def extra_repr(self) -> str:
        """Show the directions in ``print(model)``."""
        return f"reverse={self.reverse}"


def step_bias(*shape: int) -> Tensor:
    """Draw biases of delta so that softplus(bias) is log-uniform in [1e-3, 1e-1] (Mamba, §3.6)."""
    low, high = math.log(DT_MIN), math.log(DT_MAX)
    step = torch.exp(torch.rand(*shape) * (high - low) + low).clamp(min=DT_FLOOR)
    return step + torch.log(-torch.expm1(-step))  # the inverse of softplus


def step_weight(*shape: int) -> Tensor:
    """Draw weights (..., D, R) of the projection to delta, uniform in ±R^-1/2."""
    return torch.empty(*shape).uniform_(-(shape[-1] ** -0.5), shape[-1] ** -0.5)


def decay_logarithm(channels: int, d_state: int) -> Tensor:
    """Return log(-A), (channels, N): A = -1 … -N in every channel ("S4D-real")."""
    return torch.log(torch.arange(1.0, d_state + 1)).repeat(channels, 1)
