"""How a Triton scan is cut and launched: everything about a call that is not a number in a tensor.

The kernels of VMamba-T's last stages run for a tenth of a millisecond, so a call must cost the CPU
less. What follows from dtypes, shapes and strides is worked out once and kept, and so is the
compiled kernel: finding it by its 40 arguments costs Triton ten times what launching it does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import torch
import triton
from torch import Tensor

from semabench.ops.selective_scan.tiles import ALL, NONE, RUN, SOME

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
