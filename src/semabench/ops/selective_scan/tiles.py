"""Building blocks of the Triton selective scan: a tile of channels × runs of positions.

A tile is [R, T·RUN]: R channels, T runs of RUN = 8 neighbouring positions. A thread holds whole
runs, so that within a run the recurrence is plain sequential code on a tuple of RUN tensors [R, T],
and only one number in RUN takes part in the shuffles between threads.

Everything here is in *scan order*: run t + 1 follows run t, entry s + 1 of a tuple follows entry s.
Where a group is scanned from the last position to the first, the addresses and the tuples are
turned round as they are loaded and stored, nothing is copied. FLIP says who is: NONE, ALL, or
SOME (then the scalar ``flip`` says whether this program's group is).
"""

# Triton compiles a dialect: tuples grow by +, conditions on constants stand alone.
# ruff: noqa: RUF005
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
