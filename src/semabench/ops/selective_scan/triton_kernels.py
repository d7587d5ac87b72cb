"""The Triton kernels of the selective scan: one program per (batch, group, R channels).

A program walks along L in chunks of T·RUN positions, forwards with the state h, backwards with its
gradient g, last chunk first. With y = Σ C h + D u the output before the gate,

    g_l = C_l dy_l + q_{l+1},  q_l = exp(dt_l A) g_l        a scan against the forward's direction

    dB_l = Σ_channels g_l dt_l u_l      d(dt u)_l = Σ_n g_l B_l        dA = Σ_l dt_l q_l h_{l-1}
    dC_l = Σ_channels dy_l h_l          d(dt)_l  += Σ_n A q_l h_{l-1}

Every input is read once and every output written once; only B and C are read again, by each block
of channels of their group, and the backward pass makes the states of a chunk again from the one
that entered it. Nothing is added up between programs: sums over channel blocks, chunks and the
batch are left to the caller, so the gradients are the same in every run.

A tile is [R, T·RUN]: R channels, T runs of RUN = 8 neighbouring positions. A thread holds whole
runs, so that within a run the recurrence is plain sequential code on a tuple of RUN tensors [R, T],
and only one number in RUN takes part in the shuffles between threads.

Everything here is in *scan order*: run t + 1 follows run t, entry s + 1 of a tuple follows entry s.
Where a group is scanned from the last position to the first, the addresses and the tuples are
turned round as they are loaded and stored, nothing is copied. FLIP says who is: NONE, ALL, or
SOME (then the scalar ``flip`` says whether this program's group is).
"""

# Triton compiles a dialect: tuples grow by +, conditions on constants stand alone.
# ruff: noqa: RUF005, SIM102
# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

RUN = tl.constexpr(8)
NONE, ALL, SOME = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def unzip(tile, FLIP: tl.constexpr, flip):
    """[R, T·RUN] as loaded -> RUN tensors [R, T] in scan order. By itself this moves no data."""
    R: tl.constexpr = tile.shape[0]
    T: tl.constexpr = tile.shape[1] // RUN
    even, odd = tl.split(tl.reshape(tile, (R, T, 2, 2, 2)))  # s = 4i + 2j + k, split along k
    even_even, even_odd = tl.split(even)
    odd_even, odd_odd = tl.split(odd)
    x0, x4 = tl.split(even_even)
    x2, x6 = tl.split(even_odd)
    x1, x5 = tl.split(odd_even)
    x3, x7 = tl.split(odd_odd)
    return turn((x0, x1, x2, x3, x4, x5, x6, x7), FLIP, flip)


@triton.jit
def rezip(x, FLIP: tl.constexpr, flip):
    """Undo ``unzip``: RUN tensors [R, T] in scan order -> [R, T·RUN] as it is stored."""
    x = turn(x, FLIP, flip)
    even = tl.join(tl.join(x[0], x[4]), tl.join(x[2], x[6]))
    odd = tl.join(tl.join(x[1], x[5]), tl.join(x[3], x[7]))
    tile = tl.join(even, odd)
    return tl.reshape(tile, (tile.shape[0], tile.shape[1] * RUN))


@triton.jit
def turn(x, FLIP: tl.constexpr, flip):
    """Reverse a tuple of RUN tensors where the scan is reversed."""
    turned = (x[7], x[6], x[5], x[4], x[3], x[2], x[1], x[0])
    if FLIP == NONE:
        out = x
    elif FLIP == ALL:
        out = turned
    else:
        out = ()
        for s in tl.static_range(RUN):
            out = out + (tl.where(flip, turned[s], x[s]),)
    return out


@triton.jit
def turned_index(i, count, FLIP: tl.constexpr, flip):
    """Return i, or count - 1 - i where the scan is reversed."""
    if FLIP == NONE:
        out = i
    elif FLIP == ALL:
        out = count - 1 - i
    else:
        out = tl.where(flip, count - 1 - i, i)
    return out


@triton.jit
def tile_positions(T: tl.constexpr, FLIP: tl.constexpr, flip):
    """[1, T·RUN]: where a tile's entries lie. Runs are in scan order, a run itself is not turned.

    So the RUN entries of a thread are neighbours in memory, and are loaded at once.
    """
    i = tl.arange(0, T * RUN)[None, :]
    if FLIP != NONE:
        i = turned_index(i // RUN, T, FLIP, flip) * RUN + i % RUN
    return i


@triton.jit
def is_flipped(flip_mask, group):
    """Whether bit ``group`` of the mask is set."""
    return ((flip_mask >> group) & 1) != 0


@triton.jit
def softplus(x):
    """log(1 + exp(x)) = max(x, 0) + log(1 + e), where e = exp(-|x|).

    The polynomial is log(1 + e) / e interpolated on [0, 1] at Chebyshev's points, to a relative
    3e-7: unlike a logarithm of 1 + e it keeps the digits of a small e, and it costs less.
    """
    e = tl.exp2(-tl.abs(x) * LOG2E)
    p = -0.008371152549 * e + 0.04349389982
    p = p * e - 0.1068500286
    p = p * e + 0.176874767
    p = p * e - 0.2447477418
    p = p * e + 0.3327192838
    p = p * e - 0.4999717452
    p = p * e + 0.9999997808
    return p * e + tl.maximum(x, 0.0)


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)), the derivative of softplus, finite for every x."""
    e = tl.exp2(-tl.abs(x) * LOG2E)
    return tl.where(x > 0.0, 1.0, e) / (1.0 + e)


@triton.jit
def _then(a1, b1, a2, b2):
    """h -> a1 h + b1, followed by h -> a2 h + b2."""
    return a1 * a2, a2 * b1 + b2


@triton.jit
def carry_forward(product, local, carry, t, T: tl.constexpr):
    """Join the runs of a tile: (state entering each run [R, T], state leaving the tile [R, 1]).

    ``product`` and ``local`` [R, T] say what a run does to the state: h -> product h + local;
    ``carry`` [R, 1] enters run 0.
    """
    local = tl.where(t == 0, product * carry + local, local)
    _, after = tl.associative_scan((product, local), 1, _then)
    before = tl.gather(after, tl.broadcast_to(tl.maximum(t - 1, 0), after.shape), 1)
    leaving = tl.sum(tl.where(t == T - 1, after, 0.0), axis=1, keep_dims=True)
    return tl.where(t == 0, carry, before), leaving


@triton.jit
def carry_backward(product, local, carry, t, T: tl.constexpr):
    """Do the same against scan order: ``carry`` enters run T - 1 and leaves from run 0."""
    local = tl.where(t == T - 1, product * carry + local, local)
    _, after = tl.associative_scan((product, local), 1, _then, reverse=True)
    before = tl.gather(after, tl.broadcast_to(tl.minimum(t + 1, T - 1), after.shape), 1)
    leaving = tl.sum(tl.where(t == 0, after, 0.0), axis=1, keep_dims=True)
    return tl.where(t == T - 1, carry, before), leaving


@triton.jit
def sum_channels(tile):
    """[R, L] -> [L], by halves: the halves of a thread first, then one exchange between threads.

    tl.sum does the same with a shuffle for every entry, at several times the cost.
    """
    R: tl.constexpr = tile.shape[0]
    L: tl.constexpr = tile.shape[1]
    if R == 1:
        out = tl.reshape(tile, (L,))
    else:
        upper, lower = tl.split(tl.permute(tl.reshape(tile, (2, R // 2, L)), (1, 2, 0)))
        out = sum_channels(upper + lower)
    return out


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


@triton.jit(do_not_specialize=[*SIZES, "dout_b", "dout_d"])
def backward_kernel(
    dout, u, delta, A, B, C, D, z, delta_bias, states, q_states,
    du, ddelta, dz, d_weights, d_coefficients,
    length, BC_length, dim_per_group, groups, u_dim, flip_mask, chunks,
    u_b, u_d, delta_b, delta_d, z_b, z_d, B_b, B_g, B_n, C_b, C_g, C_n, dout_b, dout_d,
    N: tl.constexpr, R: tl.constexpr, T: tl.constexpr, ALIGN: tl.constexpr, BC_ALIGN: tl.constexpr,
    FLIP: tl.constexpr, SOFTPLUS: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr,
    HAS_BIAS: tl.constexpr, MANY: tl.constexpr,
):  # fmt: skip
    """Write the gradients of one tile after the other.

    ``du``, ``ddelta``, ``dz`` are (batch, dim, L). The others are float32 parts of sums:
    ``d_weights`` (batch, chunks, dim·(N + HAS_D + HAS_BIAS)) of A, D and delta_bias, one after the
    other; ``d_coefficients`` (2, batch, groups, blocks, N, L in whole runs) of B and of C. If there
    are MANY (more than one) chunks, ``states`` comes from the forward kernel, and for N > 1
    ``q_states`` (batch, dim, N) float32 is scratch; otherwise they may be None.
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
    dout += batch * dout_b * ALIGN + channel * dout_d * ALIGN
    if HAS_Z:
        z += batch * z_b * ALIGN + channel * z_d * ALIGN
    gradient_row = batch * dim * L + channel * L
    B += (batch * B_b + group * B_g) * BC_ALIGN + row * 0
    C += (batch * C_b + group * C_g) * BC_ALIGN + row * 0
    whole = tl.cdiv(L, RUN) * RUN
    dB = d_coefficients + ((batch * groups + group) * blocks + block) * N * whole
    dC = dB + tl.num_programs(0).to(tl.int64) * N * whole
    if MANY:
        states += (batch * dim + channel) * chunks * N
        if N > 1:
            q_states += (batch * dim + channel) * N
    bias = tl.load(delta_bias + channel, mask=inside, other=0.0) if HAS_BIAS else 0.0
    skip = tl.load(D + channel, mask=inside, other=0.0) if HAS_D else 0.0

    q_carry = tl.zeros((R, 1), tl.float32)
    for i in range(chunks):
        chunk = chunks - 1 - i
        first = turned_index(chunk, chunks, FLIP, flip) * (T * RUN)
        at = first + tile_positions(T, FLIP, flip)  # [1, T·RUN]
        mask = (at < L) & inside
        at_weights = (batch * chunks + chunk) * dim * (N + HAS_D + HAS_BIAS)
        known = (at < BC_length * BC_ALIGN) & inside
        u_run = unzip(tl.load(u + at, mask=mask, other=0.0), FLIP, flip)
        delta_run = unzip(tl.load(delta + at, mask=mask, other=0.0), FLIP, flip)
        dout_run = unzip(tl.load(dout + at, mask=mask, other=0.0), FLIP, flip)
        if HAS_Z:
            z_run = unzip(tl.load(z + at, mask=mask, other=0.0), FLIP, flip)
        dt, dtu, dy, y, d_dt, d_dtu = (), (), (), (), (), ()
        zero = tl.zeros((R, T), tl.float32)
        for s in tl.static_range(RUN):
            x = u_run[s].to(tl.float32)
            d = delta_run[s].to(tl.float32) + bias
            if SOFTPLUS:
                d = softplus(d)
            d = tl.where(first + run + turned_index(s, RUN, FLIP, flip) < L, d, 0.0)
            g = dout_run[s].to(tl.float32)
            if HAS_Z:
                gate = z_run[s].to(tl.float32)
                g = g * gate * sigmoid(gate)
                y = y + (skip * x,)
            dt, dtu, dy = dt + (d,), dtu + (d * x,), dy + (g,)
            d_dt, d_dtu = d_dt + (zero,), d_dtu + (zero,)

        for n in range(N):
            A_n = tl.load(A + channel * N + n, mask=inside, other=0.0)
            B_tile = unzip(tl.load(B + n * B_n * BC_ALIGN + at, mask=known, other=0.0), FLIP, flip)
            C_tile = unzip(tl.load(C + n * C_n * BC_ALIGN + at, mask=known, other=0.0), FLIP, flip)
            h = tl.zeros((R, 1), tl.float32)
            if MANY:
                if chunk > 0:
                    h = tl.load(states + chunk * N + n, mask=inside, other=0.0)
            if N > 1:
                q_carry = tl.zeros((R, 1), tl.float32)
                if MANY:
                    if i > 0:
                        q_carry = tl.load(q_states + n, mask=inside, other=0.0)

            # The runs as wholes, forward (h) and backward (q), to know what enters each of them.
            decay, B_run, C_run = (), (), ()
            for s in tl.static_range(RUN):
                decay = decay + (tl.exp2(dt[s] * (A_n * LOG2E)),)
                B_run = B_run + (B_tile[s].to(tl.float32),)
                C_run = C_run + (C_tile[s].to(tl.float32),)
            product, local = decay[0], dtu[0] * B_run[0]
            for s in tl.static_range(1, RUN):
                product, local = product * decay[s], decay[s] * local + dtu[s] * B_run[s]
            q = zero
            for s in tl.static_range(RUN):
                q = decay[RUN - 1 - s] * (C_run[RUN - 1 - s] * dy[RUN - 1 - s] + q)
            h, _ = carry_forward(product, local, h, t, T)
            q, q_carry = carry_backward(product, q, q_carry, t, T)

            h_before, dC_run, y_next = (), (), ()
            for s in tl.static_range(RUN):
                h_before = h_before + (h,)
                h = decay[s] * h + dtu[s] * B_run[s]
                dC_run = dC_run + (dy[s] * h,)
                if HAS_Z:
                    y_next = y_next + (y[s] + C_run[s] * h,)
            y = y_next

            dB_back, d_dt_back, d_dtu_back = (), (), ()
            d_rate = zero
            for k in tl.static_range(RUN):
                g = C_run[RUN - 1 - k] * dy[RUN - 1 - k] + q
                q = decay[RUN - 1 - k] * g
                d_decay = q * h_before[RUN - 1 - k]
                d_rate += dt[RUN - 1 - k] * d_decay
                dB_back = dB_back + (g * dtu[RUN - 1 - k],)
                d_dt_back = d_dt_back + (d_dt[RUN - 1 - k] + A_n * d_decay,)
                d_dtu_back = d_dtu_back + (d_dtu[RUN - 1 - k] + B_run[RUN - 1 - k] * g,)
            d_dt, d_dtu, dB_run = (), (), ()
            for s in tl.static_range(RUN):
                d_dt = d_dt + (d_dt_back[RUN - 1 - s],)
                d_dtu = d_dtu + (d_dtu_back[RUN - 1 - s],)
                dB_run = dB_run + (dB_back[RUN - 1 - s],)

            at_n = tl.reshape(at, (T * RUN,))
            dB_tile = sum_channels(rezip(dB_run, FLIP, flip))
            tl.store(dB + n * whole + at_n, dB_tile, mask=at_n < whole)
            dC_tile = sum_channels(rezip(dC_run, FLIP, flip))
            tl.store(dC + n * whole + at_n, dC_tile, mask=at_n < whole)
            d_rate = tl.sum(d_rate, axis=1, keep_dims=True)
            tl.store(d_weights + at_weights + channel * N + n, d_rate, mask=inside)
            if MANY and N > 1:
                tl.store(q_states + n, q_carry, mask=inside)

        # Read again rather than held in registers all the while.
        u_run = unzip(tl.load(u + at, mask=mask, other=0.0), FLIP, flip)
        delta_run = unzip(tl.load(delta + at, mask=mask, other=0.0), FLIP, flip)
        if HAS_Z:
            z_run = unzip(tl.load(z + at, mask=mask, other=0.0), FLIP, flip)
            dout_run = unzip(tl.load(dout + at, mask=mask, other=0.0), FLIP, flip)
        du_run, ddelta_run, dz_run = (), (), ()
        d_skip, d_bias = zero, zero
        for s in tl.static_range(RUN):
            x = u_run[s].to(tl.float32)
            du_run = du_run + (d_dtu[s] * dt[s] + skip * dy[s],)
            d_skip += dy[s] * x
            d = d_dt[s] + d_dtu[s] * x
            if SOFTPLUS:
                d = d * sigmoid(delta_run[s].to(tl.float32) + bias)
            ddelta_run = ddelta_run + (d,)
            d_bias += tl.where(first + run + turned_index(s, RUN, FLIP, flip) < L, d, 0.0)
            if HAS_Z:
                gate = z_run[s].to(tl.float32)
                open_ = sigmoid(gate)
                slope = open_ * (1.0 + gate * (1.0 - open_))
                dz_run = dz_run + (dout_run[s].to(tl.float32) * y[s] * slope,)
        at_row = gradient_row + at
        tl.store(du + at_row, rezip(du_run, FLIP, flip).to(du.dtype.element_ty), mask=mask)
        ddelta_tile = rezip(ddelta_run, FLIP, flip).to(ddelta.dtype.element_ty)
        tl.store(ddelta + at_row, ddelta_tile, mask=mask)
        if HAS_Z:
            tl.store(dz + at_row, rezip(dz_run, FLIP, flip).to(dz.dtype.element_ty), mask=mask)
        at_weights += dim * N + channel
        if HAS_D:
            d_skip = tl.sum(d_skip, axis=1, keep_dims=True)
            tl.store(d_weights + at_weights, d_skip, mask=inside)
        if HAS_BIAS:
            d_bias = tl.sum(d_bias, axis=1, keep_dims=True)
            tl.store(d_weights + at_weights + dim * HAS_D, d_bias, mask=inside)
        if MANY and N > 1:
            tl.debug_barrier()  # the next chunk reads q_states that other threads wrote
