"""Selective scan on a GPU: what surrounds the launches of the two Triton kernels.

In eager mode an ``autograd.Function`` launches them. Under torch.compile both passes are operators
of their own (``semabench::selective_scan_forward``, ``_backward``), so that it sees one node with a
known output and leaves the kernels alone; called eagerly, operators cost the CPU several times as
much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from semabench.ops.selective_scan.backward import backward_kernel
from semabench.ops.selective_scan.forward import forward_kernel
from semabench.ops.selective_scan.plan import (
    BACKWARD,
    FORWARD,
    RUN_LENGTH,
    chunk_count,
    config_for,
    layout,
    plan,
)

_CONTIGUOUS = torch.contiguous_format


def _rows(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _coefficients(x: Tensor) -> Tensor:
    """B or C so that a load takes four entries or more: itself, or a copy in whole runs.

    Entry by entry, the many addresses cost more registers than there are.
    """
    L = x.shape[-1]
    wide = x.data_ptr() % 16 == 0 and not any(step % 4 for step in (L, *x.stride()[:3]))
    if wide and x.stride(-1) == 1:
        return x
    missing = -L % RUN_LENGTH
    return _rows(F.pad(x, (0, missing))) if missing else x.clone(memory_format=_CONTIGUOUS)


def _readable(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Return the tensors as the kernels read them, copied only where they must be."""
    return (
        _rows(u),
        _rows(delta),
        A.contiguous(),
        _coefficients(B),
        _coefficients(C),
        None if D is None else D.contiguous(),
        None if z is None else _rows(z),
        None if delta_bias is None else delta_bias.contiguous(),
    )


def _launch_forward(
    tensors: Sequence[Any], softplus: bool, flips: int, save: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the output and the states between chunks, if there are any to keep."""
    u, delta, A = tensors[:3]
    N = A.shape[1]
    save = save or N > 1
    config = config_for(FORWARD, N)
    cut = plan(config, u.device, tuple(map(layout, tensors)), softplus, flips, save)
    out = torch.empty_like(delta, dtype=u.dtype, memory_format=_CONTIGUOUS)
    states = None
    if save and cut.chunks > 1:
        batch, dim, _ = delta.shape
        states = A.new_empty(batch, dim, cut.chunks, N)
    cut.launch(forward_kernel, u.device, *tensors, out, states)
    return out, states


def _launch_backward(
    dout: Tensor, tensors: Sequence[Any], states: Tensor | None, softplus: bool, flips: int
) -> tuple[Tensor, ...]:
    """Return the gradients of u and delta, of A, D, delta_bias in a row, of B beside C, of z."""
    u, delta, A, B, C, D, z, delta_bias = tensors
    dout = _rows(dout)
    (batch, dim, L), (groups, N) = delta.shape, B.shape[1:3]
    config = config_for(BACKWARD, N)
    cut = plan(config, u.device, tuple(map(layout, (*tensors, dout))), softplus, flips, True)
    many = cut.chunks > 1

    ddelta = torch.empty_like(delta, memory_format=_CONTIGUOUS)
    du = torch.empty_like(ddelta, dtype=u.dtype)
    dz = None if z is None else torch.empty_like(ddelta, dtype=z.dtype)
    weights = N + (D is not None) + (delta_bias is not None)
    d_weights = A.new_empty(batch * cut.chunks, dim * weights)
    whole = -(-L // RUN_LENGTH) * RUN_LENGTH
    d_coefficients = A.new_empty(2, batch, groups, cut.blocks, N, whole)
    q_states = A.new_empty(batch, dim, N) if many and N > 1 else None
    cut.launch(
        backward_kernel, u.device, dout, *tensors, states if many else None, q_states,
        du, ddelta, dz, d_weights, d_coefficients,
    )  # fmt: skip
    if u.shape[1] != dim:
        du = du.unflatten(1, (-1, u.shape[1])).sum(1, dtype=u.dtype)
    d_coefficients = d_coefficients.sum(3) if cut.blocks > 1 else d_coefficients.squeeze(3)
    if whole != L:
        d_coefficients = d_coefficients[..., :L]
    dtype = B.dtype if B.dtype == C.dtype else torch.promote_types(B.dtype, C.dtype)
    d_coefficients = d_coefficients.to(dtype).contiguous()
    return du, ddelta, d_weights.sum(0), d_coefficients, A.new_empty(0) if dz is None else dz


def _gradients(parts: Sequence[Tensor], tensors: Sequence[Any]) -> tuple[Tensor | None, ...]:
    """Sort what ``_launch_backward`` returns by the tensors that the scan was called with."""
    du, ddelta, d_weights, d_coefficients, dz = parts
    _, _, A, _, _, D, z, delta_bias = tensors
    dim, N = A.shape
    dB, dC = d_coefficients.unbind()
    dA = d_weights[: dim * N].view(dim, N)
    dD = None if D is None else d_weights[dim * N : dim * N + dim]
    d_bias = None if delta_bias is None else d_weights[-dim:]
    return du, ddelta, dA, dB, dC, dD, None if z is None else dz, d_bias


class _Scan(torch.autograd.Function):
    """(u, delta, A, B, C, D, z, delta_bias, softplus, flips) -> out, in eager mode."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        *inputs, ctx.softplus, ctx.flips = arguments
        tensors = _readable(*inputs)
        out, states = _launch_forward(tensors, ctx.softplus, ctx.flips, save=True)
        ctx.save_for_backward(*tensors, states)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, states = ctx.saved_tensors
        parts = _launch_backward(dout, tensors, states, ctx.softplus, ctx.flips)
        return (*_gradients(parts, tensors), None, None)


@torch.library.custom_op("semabench::selective_scan_forward", mutates_args=())
def scan_forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, delta_softplus: bool, flips: int, save: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the output and, for the backward pass, the states between chunks (or nothing).

    Args:
        u, delta, A, B, C, D, z, delta_bias, delta_softplus: as in ``selective_scan``, with A, D and
            delta_bias in float32.
        flips: bit g says that group g is scanned in reverse.
        save: whether a backward pass will follow.
    """
    tensors = _readable(u, delta, A, B, C, D, z, delta_bias)
    out, states = _launch_forward(tensors, delta_softplus, flips, save)
    return out, A.new_empty(0) if states is None else states


@scan_forward.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, delta_softplus, flips, save):  # type: ignore[no-untyped-def]
    (batch, dim, L), N = delta.shape, A.shape[1]
    chunks = chunk_count(config_for(FORWARD, N), L)
    keep = chunks > 1 and (save or N > 1)
    out = torch.empty(batch, dim, L, dtype=u.dtype, device=u.device)
    return out, A.new_empty((batch, dim, chunks, N) if keep else (0,))


@torch.library.custom_op("semabench::selective_scan_backward", mutates_args=())
def scan_backward(
    dout: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
    z: Tensor | None, delta_bias: Tensor | None, states: Tensor, delta_softplus: bool, flips: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients as ``_launch_backward`` does."""
    tensors = _readable(u, delta, A, B, C, D, z, delta_bias)
    return _launch_backward(dout, tensors, states, delta_softplus, flips)  # type: ignore[return-value]


@scan_backward.register_fake
def _(dout, u, delta, A, B, C, D, z, delta_bias, states, delta_softplus, flips):  # type: ignore[no-untyped-def]
    def like(x: Tensor) -> Tensor:
        return torch.empty(x.shape, dtype=x.dtype, device=x.device)

    dim, N = A.shape
    weights = N + (D is not None) + (delta_bias is not None)
    dtype = torch.promote_types(B.dtype, C.dtype)
    return (
        like(u),
        like(delta),
        A.new_empty(dim * weights),
        torch.empty((2, *B.shape), dtype=dtype, device=B.device),
        A.new_empty(0) if z is None else like(z),
    )


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *tensors, ctx.softplus, ctx.flips, _ = inputs
    ctx.save_for_backward(*tensors, output[1])


def _backward(ctx, dout, _):  # type: ignore[no-untyped-def]
    *tensors, states = ctx.saved_tensors
    parts = scan_backward(dout, *tensors, states, ctx.softplus, ctx.flips)
    return (*_gradients(parts, tensors), None, None, None)


scan_forward.register_autograd(_backward, setup_context=_setup_context)


def selective_scan_triton(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, delta_softplus: bool, reverse: tuple[bool, ...],
) -> Tensor:  # fmt: skip
    """Compute ``selective_scan`` with the Triton kernels; one launch whatever the directions."""
    A = A.float()
    D = None if D is None else D.float()
    delta_bias = None if delta_bias is None else delta_bias.float()
    flips = sum(1 << group for group, flip in enumerate(reverse) if flip)
    tensors = (u, delta, A, B, C, D, z, delta_bias)
    save = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    if torch.compiler.is_compiling():
        return scan_forward(*tensors, delta_softplus, flips, save)[0]
    if save:
        return _Scan.apply(*tensors, delta_softplus, flips)
    return _launch_forward(_readable(*tensors), delta_softplus, flips, save)[0]
