"""The kernels of SEMA-T's blocks at the sizes that it runs, beside their floors and torch.

    python benchmarks/kernels.py [--resolution 224] [--batch 128] [--sweep] [--out DIR]

For every stage: a pass of ``ops.depthwise_conv`` (with the residual, and with SiLU), one of
``ops.window_mean_fused`` (with mean and local term) and, after it, one of ``ops.depthwise_down``,
forwards and backwards, in bfloat16. The floor
is what a pass must read and write, at the rate at which a copy runs here. Times are medians, of
replays (torch's of runs); grids below 50 MB come from the second-level cache in part. ``--sweep``
tries other cuts and names the best.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import torch
from torch import Tensor
from triton.testing import do_bench, do_bench_cudagraph

from semabench.ops import depthwise_down, window_mean
from semabench.ops.depthwise_conv import depthwise_conv_torch
from semabench.ops.depthwise_conv import triton_backend as conv
from semabench.ops.depthwise_down import triton_backend as down
from semabench.ops.window_mean import triton_backend as attention
from semabench.results.record import git_commit

STAGES = ((4, 64, 2), (8, 128, 4), (16, 256, 8), (32, 512, 16))  # stride, channels, heads
WINDOW = (7, 7)
GIB = 1 << 30


def milliseconds(run: Callable[[], object]) -> float:
    """Return the median time of a run, replayed by a graph: the host's launches are not in it."""
    return float(do_bench_cudagraph(run, rep=20, return_mode="median"))


def copy_rate() -> float:
    """Return the bytes that a copy reads and writes in a millisecond."""
    x = torch.empty(GIB, dtype=torch.uint8, device="cuda")
    y = torch.empty_like(x)
    return 2 * GIB / milliseconds(lambda: y.copy_(x))


def backwards(run: Callable[[], Tensor], leaves: list[Tensor]) -> Callable[[], object]:
    """Return the backward pass of a run, alone."""
    y = run()
    dy = torch.randn_like(y)
    return lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True)


def passes(
    side: int, channels: int, heads: int, batch: int
) -> Iterator[tuple[str, Callable[[], object], Callable[[], object], int]]:
    """Yield name, ours, torch's and the grids that must be moved, for each pass of a stage."""

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, device="cuda", dtype=torch.bfloat16).requires_grad_()

    x, grad = normal(batch, side, side, channels), normal(batch, side, side, channels).detach()
    weight, bias = normal(channels, 1, 3, 3), normal(channels)
    leaves = [x, weight, bias]
    for name, silu, moved in (("residual", False, (2, 3)), ("silu", True, (3, 4))):
        add = None if silu else x

        def plain(add: Tensor | None = add, silu: bool = silu) -> Tensor:
            return depthwise_conv_torch(x, weight, bias, add, silu)

        def ours(silu: bool = silu) -> object:
            return conv.conv_forward(x, weight, bias, None, not silu, silu, True)

        with torch.no_grad():
            s = conv.conv_forward(x, weight, bias, None, not silu, silu, True)[1]
        yield f"conv {name} forward", ours, plain, moved[0]

        def ours_back(s: Tensor = s, silu: bool = silu) -> object:
            return conv.conv_backward(grad, x.detach(), weight.detach(), s, not silu, silu)

        yield f"conv {name} backward", ours_back, backwards(plain, leaves), moved[1]

    if heads < STAGES[-1][2]:
        yield from downsampling(side, 8 * channels, batch)
    qkv = normal(batch, side, side, 3 * channels)
    options = (heads, list(WINDOW), [0, 0], 32**-0.5, True)

    def sdpa() -> Tensor:
        q, k, v = (t.unflatten(-1, (heads, -1)) for t in qkv.chunk(3, dim=-1))
        y = window_mean(q, k, v, WINDOW, backend="sdpa").flatten(3)
        return depthwise_conv_torch(v.flatten(3), weight, bias, y, False)

    yield (
        "sema forward",
        lambda: attention.node_forward(qkv.detach(), weight.detach(), bias.detach(), *options),
        sdpa,
        4,
    )
    yield (
        "sema backward",
        lambda: attention.node_backward(grad, qkv.detach(), weight.detach(), *options),
        backwards(sdpa, [qkv, weight, bias]),
        7,
    )


def downsampling(
    side: int, channels: int, batch: int
) -> Iterator[tuple[str, Callable[[], object], Callable[[], object], int]]:
    """Yield the same of a downsampling's wide grid; one of the stage's has an eighth of it."""
    x = torch.randn(batch, side, side, channels, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(channels, 1, 3, 3, device="cuda", dtype=torch.bfloat16)
    bias, in_bias = torch.randn(2, channels, device="cuda", dtype=torch.bfloat16)
    leaves = [t.requires_grad_() for t in (x, weight, bias, in_bias)]

    def plain() -> Tensor:
        return depthwise_down(*leaves, backend="torch")

    with torch.no_grad():
        y = down.down_forward(*leaves)
    dy = torch.randn_like(y)
    yield "down forward", lambda: down.down_forward(*[t.detach() for t in leaves]), plain, 10

    def ours_back() -> object:
        return down.down_backward(dy, y, x.detach(), weight.detach(), in_bias.detach())

    yield "down backward", ours_back, backwards(plain, leaves), 20


def sweep(
    side: int, channels: int, heads: int, batch: int, direction: str
) -> Iterator[dict[str, object]]:
    """Yield the time of every cut of every pass."""
    tiles = (conv.forward_tile, conv.backward_tile, down.forward_tile, down.backward_tile)
    runs = {name: ours for name, ours, _, _ in passes(side, channels, heads, batch)}
    runs = {name: run for name, run in runs.items() if name.endswith(direction)}
    for cut in product((7, 14, 28), (4, 8, 16), (32, 64, 128), (2, 4, 8), (1, 2)):
        tile = conv.Tile(*cut)
        each = tile.columns * tile.channels / (32 * tile.warps)
        if tile.rows > side or not 2 <= each <= 8:
            continue
        conv.forward_tile = conv.backward_tile = lambda *_, tile=tile: tile
        down.forward_tile = down.backward_tile = lambda *_, tile=tile: tile
        for name in runs:
            if not name.startswith("sema"):
                yield {"pass": name, "cut": cut, "ms": milliseconds(runs[name])}
    conv.forward_tile, conv.backward_tile, down.forward_tile, down.backward_tile = tiles
    for kernel, name in (
        (attention.forward_kernel, "sema forward"),
        (attention.backward_kernel, "sema backward"),
    ):
        for warps in (1, 2, 4, 8) if name in runs else ():
            attention.WARPS[kernel] = warps
            yield {"pass": name, "cut": warps, "ms": milliseconds(runs[name])}
        attention.WARPS[kernel] = 4


def main() -> None:
    """Parse the command line, print and append the rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--stages", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--sweep", choices=("forward", "backward"))
    parser.add_argument("--out", type=Path, default=Path("outputs/kernels"))
    options = parser.parse_args()
    rate = copy_rate()
    about = {
        "device": torch.cuda.get_device_name(), "torch": torch.__version__, "commit": git_commit(),
        "resolution": options.resolution, "batch": options.batch, "copied_gb_s": rate / 1e6,
    }  # fmt: skip
    print(json.dumps(about), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    for stage in options.stages:
        stride, channels, heads = STAGES[stage]
        side = -(-options.resolution // stride)
        if options.sweep:
            found = sorted(
                sweep(side, channels, heads, options.batch, options.sweep),
                key=lambda row: row["ms"],
            )
            for name in dict.fromkeys(row["pass"] for row in found):
                best = [row for row in found if row["pass"] == name][:4]
                told = "; ".join(f"{row['cut']} {row['ms']:.4f}" for row in best)
                print(f"stage {stage} {name}: {told}", flush=True)
            continue
        for name, ours, plain, moved in passes(side, channels, heads, options.batch):
            floor = moved * options.batch * side * side * channels * 2 / rate
            row = about | {
                "stage": stage, "pass": name, "floor_ms": floor, "triton_ms": milliseconds(ours),
                "torch_ms": float(do_bench(plain, rep=60, return_mode="median")),
            }  # fmt: skip
            print(
                f"stage {stage} {name}: floor {floor:.3f} ms, triton {row['triton_ms']:.3f} "
                f"({row['triton_ms'] / floor:.1f} x), torch {row['torch_ms']:.3f}",
                flush=True,
            )
            with open(options.out / "kernels.jsonl", "a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
