"""VMamba's four-way selective scan."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from semabench.errors import SemabenchError
from semabench.mixers.base import Mixer, register_mixer
from semabench.mixers.scan import Scan, decay_logarithm, step_bias, step_weight

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
        mixed: Tensor = self.out_norm(merge(y.view_as(delta), x.shape[1], x.shape[2]))
        return mixed

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
