"""Selective scan in plain PyTorch for CPUs: time and memory linear in L, in both directions.

A loop that autograd records costs O(L²) in its backward pass, since every slice returns a gradient
as long as the whole. Here one operation a position updates the state, everything else is done for a
chunk of positions at once, and the backward pass is the reverse recurrence, written down:

    g_l = C_l dy_l + q_{l+1},   q_l = exp(dt_l A) g_l         (g, the gradient of the state h_l)
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ENTRIES = 1 << 17  # states held at once: half a MiB of float32 stays in a core's cache


def selective_scan_torch(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, delta_softplus: bool, reverse: tuple[bool, ...],
) -> Tensor:  # fmt: skip
    """Compute ``selective_scan``; what is pointwise is left to autograd."""
    dtype, state = u.dtype, torch.promote_types(u.dtype, torch.float32)
    batch, dim, L = delta.shape
    groups = B.shape[1]
    u = u.to(state).repeat(1, dim // u.shape[1], 1)
    dt = delta.to(state)
    if delta_bias is not None:
        dt = dt + delta_bias.to(state)[:, None]
    if delta_softplus:
        dt = F.softplus(dt)

    sizes, flips = _stretches(reverse)
    # Positions first, (L, batch, groups, ...), so that each step works on contiguous numbers.
    grouped = (
        [
            part.permute(3, 0, 1, 2).contiguous()
            for part in x.to(state).reshape(batch, groups, -1, L).split(sizes, dim=1)
        ]
        for x in (dt * u, dt, B, C)
    )
    A_parts = A.to(state).reshape(groups, dim // groups, -1).mT.split(sizes)
    parts = [
        _Scan.apply(dtu_part, dt_part, A_part, B_part, C_part, flip)
        for dtu_part, dt_part, B_part, C_part, A_part, flip in zip(
            *grouped, A_parts, flips, strict=True
        )
    ]
    y = torch.cat(parts, dim=2)
    out = y.permute(1, 2, 3, 0).reshape(batch, dim, L)
    if D is not None:
        out = out + D.to(state)[:, None] * u
    if z is not None:
        out = out * F.silu(z.to(state))
    return out.to(dtype)


def _stretches(reverse: tuple[bool, ...]) -> tuple[list[int], list[bool]]:
    """Cut the groups into stretches of one direction: (groups of each, direction of each)."""
    stretches = [(len(list(same)), flip) for flip, same in itertools.groupby(reverse)]
    return [size for size, _ in stretches], [flip for _, flip in stretches]


class _Scan(torch.autograd.Function):
    """(dt·u, dt (L, b, G, c); A (G, N, c); B, C (L, b, G, N); reverse) -> Σ_n C h, (L, b, G, c)."""

    @staticmethod
    def forward(
        ctx: Any, dtu: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, reverse: bool
    ) -> Tensor:
        """Scan chunk after chunk and keep the state that enters each."""
        batch, groups, channels = dt.shape[1:]
        h = dt.new_zeros(batch, groups, A.shape[1], channels)
        y, entering = torch.empty_like(dtu, memory_format=torch.contiguous_format), []
        for chunk in _chunks(dt, A, reverse):
            entering.append(h)
            states = _states(h, dtu[chunk], dt[chunk], A, B[chunk], reverse)[1]
            torch.sum(_by_state(C[chunk]) * states, dim=-2, out=y[chunk])
            h = states[0 if reverse else -1].clone()
        ctx.save_for_backward(dtu, dt, A, B, C, *entering)
        ctx.reverse = reverse
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Scan the other way, with the states of a chunk made again from the one entering it."""
        dtu, dt, A, B, C, *entering = ctx.saved_tensors
        reverse = ctx.reverse
        dy = dy.contiguous()
        d_dtu, d_dt, dB, dC = (torch.empty_like(x) for x in (dtu, dt, B, C))
        dA = torch.zeros_like(A)
        q = torch.zeros_like(entering[0])
        chunks = _chunks(dt, A, reverse)
        for chunk, h in zip(reversed(chunks), reversed(entering), strict=True):
            decay, states = _states(h, dtu[chunk], dt[chunk], A, B[chunk], reverse)
            dy_chunk = _by_channel(dy[chunk])
            torch.sum(states * dy_chunk, dim=-1, out=dC[chunk])
            g = _by_state(C[chunk]) * dy_chunk
            rows, decays = g.unbind(), decay.unbind()
            for i in range(len(rows)) if reverse else range(len(rows) - 1, -1, -1):
                q = torch.mul(rows[i].add_(q), decays[i])

            torch.sum(g * _by_state(B[chunk]), dim=-2, out=d_dtu[chunk])
            torch.sum(g * _by_channel(dtu[chunk]), dim=-1, out=dB[chunk])
            before = torch.cat([states[1:], h[None]] if reverse else [h[None], states[:-1]])
            d_exponent = before.mul_(decay).mul_(g)
            torch.sum(d_exponent * A, dim=-2, out=d_dt[chunk])
            dA += d_exponent.mul_(_by_channel(dt[chunk])).sum((0, 1))
        return d_dtu, d_dt, dA, dB, dC, None


def _by_state(x: Tensor) -> Tensor:
    """B or C, (l, b, G, N), beside states (l, b, G, N, c)."""
    return x[..., :, None]


def _by_channel(x: Tensor) -> Tensor:
    """(l, b, G, c) beside states (l, b, G, N, c)."""
    return x[..., None, :]


def _chunks(dt: Tensor, A: Tensor, reverse: bool) -> list[slice]:
    """Cut the positions into chunks of CHUNK_ENTRIES states, in the order of the scan."""
    length = max(1, CHUNK_ENTRIES // (dt[0].numel() * A.shape[1]))
    chunks = [slice(i, min(i + length, len(dt))) for i in range(0, len(dt), length)]
    return chunks[::-1] if reverse else chunks


def _states(
    h: Tensor, dtu: Tensor, dt: Tensor, A: Tensor, B: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Return exp(dt A) and the states of a chunk, both (l, b, G, N, c); h enters it."""
    decay = (_by_channel(dt) * A).exp_()
    states = _by_channel(dtu) * _by_state(B)
    rows, decays = states.unbind(), decay.unbind()
    for i in range(len(rows) - 1, -1, -1) if reverse else range(len(rows)):
        h = rows[i].addcmul_(decays[i], h)
    return decay, states
