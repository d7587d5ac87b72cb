"""Selective scan on a GPU: shapes, strides and launches around the two Triton kernels.

Both passes are operators of their own (``semabench::selective_scan_forward``, ``_backward``), so
that torch.compile sees one node with a known output and leaves the kernels alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from semabench.ops.selective_scan_tiles import ALL, NONE, RUN, SOME
from semabench.ops.selective_scan_triton_backward import backward_kernel
from semabench.ops.selective_scan_triton_forward import forward_kernel

RUN_LENGTH: int = RUN.value
MAX_RUNS = 32  # runs of a tile: one thread each, so that a scan along L never leaves its warp


@dataclass(frozen=True)
class Config:
    """How a kernel is cut: ``warps`` per program, ``entries`` of a tile per thread (8, 16, ...)."""

    warps: int
    entries: int
    max_registers: int | None = None


# Measured by benchmarks/selective_scan.py; the first entry whose N is not less than the scan's.
FORWARD = {1: Config(warps=4, entries=16), 1 << 30: Config(warps=4, entries=16)}
BACKWARD = {1: Config(8, 8, max_registers=128), 1 << 30: Config(8, 8, max_registers=128)}


def _config(table: dict[int, Config], N: int) -> Config:
    return next(config for limit, config in table.items() if limit >= N)


@dataclass(frozen=True)
class _Launch:
    """Everything about one launch that is no tensor."""

    runs: int
    chunks: int
    channels: int  # of a tile
    blocks: int  # of channels in a group
    grid: tuple[int]
    sizes: tuple[int, ...]
    constants: dict[str, int | bool]
    options: dict[str, int]


def _launch(
    config: Config, u: Tensor, delta: Tensor, B: Tensor, C: Tensor, z: Tensor | None,
    flips: int, dout: Tensor | None = None,
) -> _Launch:  # fmt: skip
    batch, dim, L = delta.shape
    groups, N = B.shape[1:3]
    dim_per_group = dim // groups
    runs = min(max(triton.next_power_of_2(triton.cdiv(L, RUN_LENGTH)), 4), MAX_RUNS)
    chunks = triton.cdiv(L, runs * RUN_LENGTH)

    warps = config.warps
    channels = config.entries * 32 * warps // (runs * RUN_LENGTH)
    channels = max(1, min(channels, triton.next_power_of_2(dim_per_group)))
    warps = max(1, min(warps, channels * runs // 32))
    blocks = triton.cdiv(dim_per_group, channels)

    rows = [x for x in (u, delta, z, dout) if x is not None]
    align = math.gcd(16, L, *(stride for x in rows for stride in x.stride()[:2]))
    strides = [x.stride(i) // align if x is not None else 0 for x in (u, delta, z) for i in (0, 1)]
    strides += [x.stride(i) // RUN_LENGTH for x in (B, C) for i in (0, 1, 2)]
    if dout is not None:
        strides += [dout.stride(0) // align, dout.stride(1) // align]
    everywhere = (1 << groups) - 1
    flip = NONE if flips == 0 else ALL if flips == everywhere else SOME
    options = {"num_warps": warps}
    if config.max_registers is not None:
        options["maxnreg"] = config.max_registers
    return _Launch(
        runs=runs,
        chunks=chunks,
        channels=channels,
        blocks=blocks,
        grid=(batch * groups * blocks,),
        sizes=(
            L // align, B.shape[3] // RUN_LENGTH, dim_per_group, groups, u.shape[1], flips, chunks,
            *strides,
        ),
        constants={"N": N, "R": channels, "T": runs, "ALIGN": align, "FLIP": flip.value},
        options=options,
    )  # fmt: skip


def _padded(x: Tensor) -> Tensor:
    """B or C with whole runs at aligned addresses: itself where it has them, else a copy."""
    missing = -x.shape[-1] % RUN_LENGTH
    if missing:
        return F.pad(x, (0, missing))
    aligned = x.data_ptr() % 16 == 0 and all(s % RUN_LENGTH == 0 for s in x.stride()[:3])
    return x if aligned and x.stride(-1) == 1 else x.clone(memory_format=torch.contiguous_format)


def _rows(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


@torch.library.custom_op("semabench::selective_scan_forward", mutates_args=())
def scan_forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, delta_softplus: bool, flips: int, save: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the output and, for the backward pass, the states between chunks.

    Args:
        u, delta, A, B, C, D, z, delta_bias, delta_softplus: as in ``selective_scan``, with A, D and
            delta_bias in float32.
        flips: bit g says that group g is scanned in reverse.
        save: whether a backward pass will follow.
    """
    u, delta, z = _rows(u), _rows(delta), None if z is None else _rows(z)
    B, C, A = _padded(B), _padded(C), A.contiguous()
    batch, dim, L = delta.shape
    N = A.shape[1]
    launch = _launch(_config(FORWARD, N), u, delta, B, C, z, flips)
    save = launch.chunks > 1 and (save or N > 1)
    out = torch.empty(batch, dim, L, dtype=u.dtype, device=u.device)
    states = torch.empty(
        (batch, dim, launch.chunks, N) if save else 0, dtype=torch.float32, device=u.device
    )
    with torch.cuda.device_of(u):
        forward_kernel[launch.grid](
            u, delta, A, B, C, D, z, delta_bias, out, states, *launch.sizes, **launch.constants,
            SOFTPLUS=delta_softplus, HAS_D=D is not None, HAS_Z=z is not None,
            HAS_BIAS=delta_bias is not None, SAVE=save, **launch.options,
        )  # fmt: skip
    return out, states


@scan_forward.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, delta_softplus, flips, save):  # type: ignore[no-untyped-def]
    batch, dim, L = delta.shape
    chunks = _chunks(L)
    keep = chunks > 1 and (save or A.shape[1] > 1)
    out = torch.empty(batch, dim, L, dtype=u.dtype, device=u.device)
    shape = (batch, dim, chunks, A.shape[1]) if keep else (0,)
    return out, torch.empty(shape, dtype=torch.float32, device=u.device)


def _chunks(L: int) -> int:
    return max(1, -(-L // (MAX_RUNS * RUN_LENGTH)))


@torch.library.custom_op("semabench::selective_scan_backward", mutates_args=())
def scan_backward(
    dout: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
    z: Tensor | None, delta_bias: Tensor | None, states: Tensor, delta_softplus: bool, flips: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of u, delta, A, B, C, D, z, delta_bias; empty where there is none."""
    dout, u, delta = _rows(dout), _rows(u), _rows(delta)
    z = None if z is None else _rows(z)
    B_padded, C_padded, A = _padded(B), _padded(C), A.contiguous()
    batch, dim, L = delta.shape
    groups, N = B.shape[1:3]
    launch = _launch(_config(BACKWARD, N), u, delta, B_padded, C_padded, z, flips, dout)
    chunks, many = launch.chunks, launch.chunks > 1

    def empty(*shape: int, like: Tensor | None = None) -> Tensor:
        dtype = torch.float32 if like is None else like.dtype
        return torch.empty(shape, dtype=dtype, device=u.device)

    du, ddelta = empty(batch, dim, L, like=u), empty(batch, dim, L, like=delta)
    dz = empty(0) if z is None else empty(batch, dim, L, like=z)
    dA = empty(batch, chunks, dim, N)
    dD = empty(0) if D is None else empty(batch, chunks, dim)
    dbias = empty(0) if delta_bias is None else empty(batch, chunks, dim)
    dB, dC = (
        empty(batch, groups, launch.blocks, N, chunks * launch.runs * RUN_LENGTH) for _ in range(2)
    )
    q_states = empty(batch, dim, N) if many and N > 1 else empty(0)
    with torch.cuda.device_of(u):
        backward_kernel[launch.grid](
            dout, u, delta, A, B_padded, C_padded, D, z, delta_bias, states, q_states,
            du, ddelta, dA, dB, dC, dD, dz, dbias, *launch.sizes, **launch.constants,
            SOFTPLUS=delta_softplus, HAS_D=D is not None, HAS_Z=z is not None,
            HAS_BIAS=delta_bias is not None, MANY=many, **launch.options,
        )  # fmt: skip
    if u.shape[1] != dim:
        du = du.unflatten(1, (-1, u.shape[1])).sum(1)
    return (
        du,
        ddelta,
        dA.sum((0, 1)),
        dB.sum(2)[..., :L].to(B.dtype),
        dC.sum(2)[..., :L].to(C.dtype),
        dD.sum((0, 1)) if D is not None else dD,
        dz,
        dbias.sum((0, 1)) if delta_bias is not None else dbias,
    )


@scan_backward.register_fake
def _(dout, u, delta, A, B, C, D, z, delta_bias, states, delta_softplus, flips):  # type: ignore[no-untyped-def]
    def like(x: Tensor | None) -> Tensor:
        return A.new_empty(0) if x is None else torch.empty(x.shape, dtype=x.dtype, device=x.device)

    return tuple(like(x) for x in (u, delta, A, B, C, D, z, delta_bias))


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *tensors, softplus, flips, _ = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.softplus, ctx.flips = softplus, flips


def _backward(ctx, dout, _):  # type: ignore[no-untyped-def]
    *tensors, states = ctx.saved_tensors
    gradients = scan_backward(dout, *tensors, states, ctx.softplus, ctx.flips)
    present = (g if x is not None else None for g, x in zip(gradients, tensors, strict=True))
    return (*present, None, None, None)


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
    return scan_forward(*tensors, delta_softplus, flips, save)[0]
