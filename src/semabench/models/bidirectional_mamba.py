"""Vim's token mixer: one Mamba that reads a sequence both ways."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semabench.mixers.scan import Scan, decay_logarithm, step_bias, step_weight


class BidirectionalMamba(nn.Module):
    """(B, L, C) -> (B, L, C): Vim's "bimamba v2" (Zhu et al., ICML 2024, algorithm 1).

        x, z = Linear(input);  u = SiLU(conv(x)), conv causal in the direction of reading
        y = scan(u) forwards and backwards, each with its own conv, Δ, B, C, A and D
        out = Linear((y_forward + y_backward) / 2 · SiLU(z))

    Both directions share the projections in and out and the gate z. Attributes bear the official
    code's names; ``_b`` marks the backward ones. Nothing is flipped: the backward convolution has
    its padding and its kernel turned round, and the scan runs from the end.

    Args:
        dim: channels C; the inner ones are ``expand`` times as many.
        d_state: N, numbers in the state of an inner channel.
        d_conv: taps of the causal convolution.
        expand: inner over outer channels.
        backend: of ``ops.selective_scan``.
    """

    undecayed = ("A_log", "A_b_log", "D", "D_b")

    def __init__(
        self,
        dim: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.scan = Scan((False, True), backend)
        inner, rank = expand * dim, math.ceil(dim / 16)
        self.d_state, self.dt_rank = d_state, rank
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, d_conv, groups=inner)
        self.conv1d_b = nn.Conv1d(inner, inner, d_conv, groups=inner)
        self.x_proj = nn.Linear(inner, rank + 2 * d_state, bias=False)
        self.x_proj_b = nn.Linear(inner, rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.dt_proj_b = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(decay_logarithm(inner, d_state))
        self.A_b_log = nn.Parameter(decay_logarithm(inner, d_state))
        self.D = nn.Parameter(torch.ones(inner))
        self.D_b = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self.reset_steps()

    def reset_steps(self) -> None:
        """Initialise the projections to Δ as the official code leaves them.

        Its forward one gets Mamba's initialisation. Its backward one is an ordinary linear layer
        whose bias is set to zero, so that backward steps start at softplus(0) = 0.69.
        """
        with torch.no_grad():
            self.dt_proj.weight.copy_(step_weight(*self.dt_proj.weight.shape))
            self.dt_proj.bias.copy_(step_bias(len(self.dt_proj.bias)))
            self.dt_proj_b.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Mix a sequence, (B, L, C) -> (B, L, C)."""
        x, z = self.in_proj(x).transpose(1, 2).chunk(2, dim=1)  # (B, D, L)
        u = torch.stack((self.convolve(x), self.convolve_backward(x)), dim=1)  # (B, 2, D, L)
        projected = torch.stack((self.x_proj.weight, self.x_proj_b.weight)) @ u
        dt, B, C = projected.split([self.dt_rank, self.d_state, self.d_state], dim=2)
        delta = torch.stack((self.dt_proj.weight, self.dt_proj_b.weight)) @ dt
        y = self.scan(
            u.flatten(1, 2),
            delta.flatten(1, 2),
            torch.cat((self.A_log, self.A_b_log)),
            B,
            C,
            torch.cat((self.D, self.D_b)),
            torch.cat((self.dt_proj.bias, self.dt_proj_b.bias)),
        )
        y_forward, y_backward = y.view_as(u).unbind(1)
        mixed = (y_forward + y_backward) * (F.silu(z) / 2)
        out: Tensor = self.out_proj(mixed.transpose(1, 2))
        return out

    def convolve(self, x: Tensor) -> Tensor:
        """SiLU(causal convolution) of (B, D, L): a token sees itself and those before it."""
        return F.silu(self.conv1d(F.pad(x, (self.conv1d.kernel_size[0] - 1, 0))))

    def convolve_backward(self, x: Tensor) -> Tensor:
        """Return the same of the sequence read from its end."""
        conv = self.conv1d_b
        x = F.pad(x, (0, conv.kernel_size[0] - 1))
        return F.silu(F.conv1d(x, conv.weight.flip(-1), conv.bias, groups=conv.groups))
