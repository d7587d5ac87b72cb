"""The forward kernel of the Triton selective scan: one program per (batch, group, R channels).

A program walks along L in chunks of T·RUN positions and carries the state from chunk to chunk. It
reads every input once and writes every output once; only B and C are read again, by each block of
channels of their group.
"""

# Triton compiles a dialect: tuples grow by +, conditions on constants stand alone.
# ruff: noqa: RUF005, SIM102
# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

from semabench.ops.selective_scan.tiles import (
    LOG2E,
    RUN,
    carry_forward,
    is_flipped,
    rezip,
    sigmoid,
    softplus,
    tile_positions,
    turned_index,
    unzip,
)

# Sizes and strides: specialising on them would compile again for every resolution.
SIZES = [
    *("length", "BC_length", "dim_per_group", "groups", "u_dim", "flip_mask", "chunks"),
    *("u_b", "u_d", "delta_b", "delta_d", "z_b", "z_d"),
    *("B_b", "B_g", "B_n", "C_b", "C_g", "C_n"),
]


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(
    u, delta, A, B, C, D, z, delta_bias, out, states,
    length, BC_length, dim_per_group, groups, u_dim, flip_mask, chunks,
    u_b, u_d, delta_b, delta_d, z_b, z_d, B_b, B_g, B_n, C_b, C_g, C_n,
    N: tl.constexpr, R: tl.constexpr, T: tl.constexpr, ALIGN: tl.constexpr, BC_ALIGN: tl.constexpr,
    FLIP: tl.constexpr, SOFTPLUS: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr,
    HAS_BIAS: tl.constexpr, SAVE: tl.constexpr,
):  # fmt: skip
    """Write ``out`` (batch, dim, L) and, if SAVE, the state entering each chunk but the first.

    ``length`` and the strides count units of ALIGN elements, those of B and C of BC_ALIGN, so that
    the compiler knows how wide a load may be. B and C may be longer than L. ``states`` is (batch,
    dim, chunks, N) float32, or None without SAVE, which only one chunk or N = 1 can do without.
    """
    blocks = tl.cdiv(dim_per_group, R)
    block = tl.program_id(0) % blocks
    group = (tl.program_id(0) // blocks) % groups
    batch = (tl.program_id(0) // (blocks * groups)).to(tl.int64)
    flip = is_flipped(flip_mask, group)
    L = length * ALIGN

    row = block * R + tl.arange(0, R)[:, None]  # [R, 1]
    inside = row < dim_per_group
    channel = group * dim_per_group + row
    dim = groups * dim_per_group
    t = tl.arange(0, T)[None, :]  # [1, T]
    run = turned_index(t, T, FLIP, flip) * RUN

    u += batch * u_b * ALIGN + channel % u_dim * u_d * ALIGN
    delta += batch * delta_b * ALIGN + channel * delta_d * ALIGN
    out += batch * dim * L + channel * L
    if HAS_Z:
        z += batch * z_b * ALIGN + channel * z_d * ALIGN
    # Every channel loads B and C for itself, out of L1: in u's layout threads exchange nothing.
    B += (batch * B_b + group * B_g) * BC_ALIGN + row * 0
    C += (batch * C_b + group * C_g) * BC_ALIGN + row * 0
    if SAVE:
        states += (batch * dim + channel) * chunks * N
    bias = tl.load(delta_bias + channel, mask=inside, other=0.0) if HAS_BIAS else 0.0
    skip = tl.load(D + channel, mask=inside, other=0.0) if HAS_D else 0.0

    carry = tl.zeros((R, 1), tl.float32)
    for chunk in range(chunks):
        first = turned_index(chunk, chunks, FLIP, flip) * (T * RUN)
        at = first + tile_positions(T, FLIP, flip)  # [1, T·RUN]
        mask = (at < L) & inside
        known = (at < BC_length * BC_ALIGN) & inside
        u_run = unzip(tl.load(u + at, mask=mask, other=0.0), FLIP, flip)
        delta_run = unzip(tl.load(delta + at, mask=mask, other=0.0), FLIP, flip)
        dt, dtu, y = (), (), ()
        for s in tl.static_range(RUN):
            x = u_run[s].to(tl.float32)
            d = delta_run[s].to(tl.float32) + bias
            if SOFTPLUS:
                d = softplus(d)
            # A step of size 0 leaves the state alone: positions beyond L take none.
            d = tl.where(first + run + turned_index(s, RUN, FLIP, flip) < L, d, 0.0)
            dt, dtu, y = dt + (d,), dtu + (d * x,), y + (skip * x,)

        for n in range(N):
            rate = tl.load(A + channel * N + n, mask=inside, other=0.0) * LOG2E
            B_run = unzip(tl.load(B + n * B_n * BC_ALIGN + at, mask=known, other=0.0), FLIP, flip)
            C_run = unzip(tl.load(C + n * C_n * BC_ALIGN + at, mask=known, other=0.0), FLIP, flip)
            if N > 1:
                carry = tl.zeros((R, 1), tl.float32)
                if SAVE:
                    if chunk > 0:
                        carry = tl.load(states + chunk * N + n, mask=inside, other=0.0)
            elif SAVE:
                tl.store(states + chunk, carry, mask=inside)

            decay, step = (), ()
            for s in tl.static_range(RUN):
                decay = decay + (tl.exp2(dt[s] * rate),)
                step = step + (dtu[s] * B_run[s].to(tl.float32),)
            product, local = decay[0], step[0]
            for s in tl.static_range(1, RUN):
                product, local = product * decay[s], decay[s] * local + step[s]
            h, carry = carry_forward(product, local, carry, t, T)
            y_next = ()
            for s in tl.static_range(RUN):
                h = decay[s] * h + step[s]
                y_next = y_next + (y[s] + C_run[s].to(tl.float32) * h,)
            y = y_next
            if N > 1 and SAVE:
                if chunk + 1 < chunks:
                    tl.store(states + (chunk + 1) * N + n, carry, mask=inside)

        if HAS_Z:
            z_run = unzip(tl.load(z + at, mask=mask, other=0.0), FLIP, flip)
            gated = ()
            for s in tl.static_range(RUN):
                gate = z_run[s].to(tl.float32)
                gated = gated + (y[s] * gate * sigmoid(gate),)
            y = gated
        tl.store(out + at, rezip(y, FLIP, flip).to(out.dtype.element_ty), mask=mask)
        if N > 1 and SAVE:
            tl.debug_barrier()  # the next chunk reads states that other threads wrote
