"""VMamba's four-way selective scan; the scan as a layer, which Vim has, too."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from semabench.errors import SemabenchError
from semabench.mixers.base import Mixer, register_mixer
from semabench.ops.selective_scan import selective_scan, selective_scan_backend


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
        self, u: Tensor, delta: Tensor, A_logarithm: Tensor, B: Tensor, C: Tensor, D: Tensor,
        delta_bias: Tensor,
    ) -> Tensor:  # fmt: skip
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
            u, delta, -torch.exp(A_logarithm.to(precise)), B, C, D, delta_bias=delta_bias,
            delta_softplus=True, reverse=self.reverse, backend=self.backend,
        )  # fmt: skip

    def resolved_backend(self, device: torch.device | None = None) -> str:
        """Return the backend of ``ops.selective_scan`` that runs on ``device``."""
        return selective_scan_backend(self.backend, device)

    def extra_repr(self) -> str:
        """Show the directions in ``print(model)``."""
        return f"reverse={self.reverse}"


def step_bias(*shape: int) -> Tensor:
    """Draw biases of delta so that softplus(bias) is log-uniform in [1e-3, 1e-1] (Mamba, §3.6)."""
    low, high = math.log(1e-3), math.log(1e-1)
    step = torch.exp(torch.rand(*shape) * (high - low) + low).clamp(min=1e-4)
    return step + torch.log(-torch.expm1(-step))  # the inverse of softplus


def step_weight(*shape: int) -> Tensor:
    """Draw weights (..., D, R) of the projection to delta, uniform in ±R^-1/2."""
    return torch.empty(*shape).uniform_(-(shape[-1] ** -0.5), shape[-1] ** -0.5)


def decay_logarithm(channels: int, d_state: int) -> Tensor:
    """Return log(-A), (channels, N): A = -1 … -N in every channel ("S4D-real")."""
    return torch.log(torch.arange(1.0, d_state + 1)).repeat(channels, 1)


# By rows, by columns, and both backwards: VMamba's order of directions.
REVERSE = (False, False, True, True)


@register_mixer("ssm")
class SSM(Mixer):
    """LayerNorm(Σ_k y_k) over four scans of the grid (VMamba, Liu et al., NeurIPS 2024, §4.2).

    Each direction k (rows, columns, rows backwards, columns backwards) is a sequence u_1 … u_L of
    its own, with projections of its own:

        Δ_t = softplus(W_Δ (W_r u_t) + b),  B_t = W_B u_t,  C_t = W_C u_t,  A = -exp(A_log) < 0
        h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t u_t,   y_t = C_t·h_t + D u_t

    The four y are put back on the grid and summed. What VMamba has around this (projections, a
    depthwise convolution and SiLU) is the block's part here, so the mixer scans its input: v = u.
    VMamba's weights fit as they are, under their official names.

    It has no q and k, hence no scale or RoPE; positions enter through the order of the scan, and D
    is its local term, so there is no LePE. Heads make no difference: every channel has a state.

    Args:
        dim, num_heads: see ``Mixer``.
        d_state: N, numbers in the state of a channel; VMamba has 1.
        dt_rank: R, inner width of the projection to Δ; ceil(dim / 16) if None.
        backend: of ``ops.selective_scan``.

    Raises:
        SemabenchError: d_state or dt_rank is below 1, or see ``Mixer``.
    """

    undecayed = ("A_logs", "Ds")
    has_heads = False

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        d_state: int = 1,
        dt_rank: int | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(dim, num_heads, value_projection=False, lepe=False, rope=False)
        rank = math.ceil(dim / 16) if dt_rank is None else dt_rank
        for option, value in (("d_state", d_state), ("dt_rank", rank)):
            if value < 1:
                raise SemabenchError(f"{option} must be at least 1, not {value}.")
        self.scan = Scan(REVERSE, backend)
        ways = len(REVERSE)
        bound = dim**-0.5  # as torch initialises a linear layer
        self.x_proj_weight = nn.Parameter(
            torch.empty(ways, rank + 2 * d_state, dim).uniform_(-bound, bound)
        )
        self.dt_projs_weight = nn.Parameter(step_weight(ways, dim, rank))
        self.dt_projs_bias = nn.Parameter(step_bias(ways, dim))
        self.A_logs = nn.Parameter(decay_logarithm(ways * dim, d_state))
        self.Ds = nn.Parameter(torch.ones(ways * dim))
        self.out_norm = nn.LayerNorm(dim)

    def project(self, dim: int) -> None:
        """Create nothing: there are no q, k and v."""

    def forward(self, x: Tensor) -> Tensor:
        """Scan a grid four ways, (B, H, W, C) -> (B, H, W, C)."""
        u = by_rows_and_columns(x)  # (B, 2, C, L)
        d_state, rank = self.A_logs.shape[1], self.dt_projs_weight.shape[2]
        # The two ways to read a sequence are projected by one product.
        weight = self.x_proj_weight.unflatten(0, (2, 2)).transpose(0, 1).flatten(1, 2)
        projected = (weight @ u).unflatten(2, (2, -1)).transpose(1, 2).flatten(1, 2)
        dt, B, C = projected.split([rank, d_state, d_state], dim=2)  # (B, 4, R or N, L)
        delta = self.dt_projs_weight @ dt
        y = self.scan(
            u.flatten(1, 2),
            delta.flatten(1, 2),
            self.A_logs,
            B,
            C,
            self.Ds,
            self.dt_projs_bias.flatten(),
        )
        return self.out_norm(merge(y.view_as(delta), x.shape[1], x.shape[2]))

    def resolved_backend(self, device: torch.device | None = None) -> str:
        """Return the backend of ``ops.selective_scan`` that runs on ``device``."""
        return self.scan.resolved_backend(device)


def by_rows_and_columns(x: Tensor) -> Tensor:
    """Lay a grid (B, H, W, C) out as two sequences, (B, 2, C, H·W).

    The other two directions are the same sequences: the scan walks them from their end.
    """
    rows = x.permute(0, 3, 1, 2).flatten(2)
    columns = x.permute(0, 3, 2, 1).flatten(2)
    return torch.stack((rows, columns), dim=1)


def merge(y: Tensor, H: int, W: int) -> Tensor:
    """Sum sequences (B, 4, C, H·W) of all directions on the grid, (B, H, W, C)."""
    rows, columns = (y[:, :2] + y[:, 2:]).unbind(1)
    from_rows = rows.unflatten(2, (H, W)).permute(0, 2, 3, 1)
    return from_rows + columns.unflatten(2, (W, H)).permute(0, 3, 2, 1)
