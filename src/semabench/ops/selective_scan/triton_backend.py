"""Selective scan on a GPU: how a call is cut and launched, and what surrounds the two kernels.

The kernels of VMamba-T's last stages run for a tenth of a millisecond, so a call must cost the CPU
less. What follows from dtypes, shapes and strides is worked out once and kept, and so is the
compiled kernel: finding it by its 40 arguments costs Triton ten times what launching it does.

In eager mode an ``autograd.Function`` launches them. Under torch.compile both passes are operators
of their own (``semabench::selective_scan_forward``, ``_backward``), so that it sees one node with a
known output and leaves the kernels alone; called eagerly, operators cost the CPU several times as
much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from semabench.ops.selective_scan.triton_kernels import (
    ALL,
    NONE,
    RUN,
    SOME,
    backward_kernel,
    forward_kernel,
)

RUN_LENGTH: int = RUN.value
Layout: TypeAlias = tuple[torch.dtype, tuple[int, ...], tuple[int, ...], bool]


class Config(NamedTuple):
    """How a kernel is cut: ``warps`` per program, ``entries`` of a tile per thread (8, 16, ...).

    ``runs`` is the most that a tile has along L, at most 32: one thread holds a run, so that a scan
    along L never leaves its warp. Both passes of a scan must agree on it, for they share chunks.
    """

    warps: int
    entries: int
    runs: int
    max_registers: int | None = None


# Chosen by benchmarks/selective_scan.py --sweep on an H200; the first entry whose N is not less
# than the scan's. One tile along all of L spares N > 1 the way of N states through memory.
FORWARD = {1: Config(4, 16, 16), 1 << 30: Config(4, 8, 32)}
BACKWARD = {1: Config(4, 8, 16, max_registers=128), 1 << 30: Config(4, 16, 32)}


def config_for(table: dict[int, Config], N: int) -> Config:
    """Return the entry of FORWARD or BACKWARD for N states."""
    return next(config for limit, config in table.items() if limit >= N)


def tile_runs(config: Config, L: int) -> int:
    """Return the runs of a tile along L: a power of two, no more than L needs."""
    return min(max(triton.next_power_of_2(triton.cdiv(L, RUN_LENGTH)), 4), config.runs)


def chunk_count(config: Config, L: int) -> int:
    """Return the tiles that L is walked in."""
    return triton.cdiv(L, tile_runs(config, L) * RUN_LENGTH)


def layout(x: Tensor | None) -> Layout | None:
    """Return all that the choice of a kernel and its arguments depend on."""
    return None if x is None else (x.dtype, x.shape, x.stride(), x.data_ptr() % 16 == 0)


@dataclass(slots=True)
class Plan:
    """One launch: ``arguments`` follow the tensors, in the order of the kernel's signature."""

    grid: tuple[int, int, int]
    arguments: tuple[int | bool, ...]
    options: dict[str, int]
    chunks: int
    blocks: int  # of channels in a group
    compiled: Any = None  # the kernel as Triton compiled it, once it has run

    def launch(self, kernel: Any, device: torch.device, *tensors: Tensor | None) -> None:
        """Run ``kernel`` on tensors whose layouts this plan was made for."""
        if device.type == "cuda" and device.index != torch.cuda.current_device():
            with torch.cuda.device(device):
                self._launch(kernel, tensors)
        else:
            self._launch(kernel, tensors)

    def _launch(self, kernel: Any, tensors: tuple[Tensor | None, ...]) -> None:
        if self.compiled is None:  # always, in the interpreter, which returns None
            self.compiled = kernel[self.grid](*tensors, *self.arguments, **self.options)
        else:
            self.compiled[self.grid](*tensors, *self.arguments)


@lru_cache(maxsize=1024)
def plan(
    config: Config, device: torch.device, layouts: tuple[Any, ...],
    softplus: bool, flips: int, save: bool,
) -> Plan:  # fmt: skip
    """Plan a pass over u, delta, A, B, C, D, z, delta_bias and, backwards, dout.

    Only the backward pass has a dout, so no plan ever serves both kernels.

    Args:
        config: from FORWARD or BACKWARD.
        device: where the kernel will run; compiled kernels are kept for each.
        layouts: of those tensors, None for each that is not given.
        softplus, flips: as in ``scan_forward``.
        save: whether states between chunks are to be stored (forward) or read (backward).
    """
    u, delta, _, B, C, D, z, bias, *dout = layouts
    (batch, dim, L), (groups, N, BC_length) = delta[1], B[1][1:]
    dim_per_group = dim // groups
    runs, chunks = tile_runs(config, L), chunk_count(config, L)

    warps = config.warps
    channels = config.entries * 32 * warps // (runs * RUN_LENGTH)
    channels = max(1, min(channels, triton.next_power_of_2(dim_per_group)))
    warps = max(1, min(warps, channels * runs // 32))
    blocks = triton.cdiv(dim_per_group, channels)

    # Lengths and strides in units as large as all of them allow: so wide may a load be.
    rows = [x for x in (u, delta, z, *dout) if x is not None]
    align = math.gcd(16, L, *(stride for x in rows for stride in x[2][:2]))
    strides = [x[2][i] // align if x is not None else 0 for x in (u, delta, z) for i in (0, 1)]
    BC_strides = [stride for x in (B, C) for stride in x[2][:3]]
    BC_align = math.gcd(RUN_LENGTH, BC_length, *BC_strides)
    strides += [stride // BC_align for stride in BC_strides]
    strides += [stride // align for x in dout if x is not None for stride in x[2][:2]]
    everywhere = (1 << groups) - 1
    flip = NONE if flips == 0 else ALL if flips == everywhere else SOME

    options = {"num_warps": warps}
    if config.max_registers is not None:
        options["maxnreg"] = config.max_registers
    return Plan(
        grid=(batch * groups * blocks, 1, 1),
        arguments=(
            *(L // align, BC_length // BC_align, dim_per_group, groups, u[1][1], flips, chunks),
            *strides,
            *(N, channels, runs, align, BC_align, flip.value, softplus),
            *(D is not None, z is not None, bias is not None, save and chunks > 1),
        ),
        options=options,
        chunks=chunks,
        blocks=blocks,
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
