"""Check, tune and time the selective scan on a GPU.

    PYTHONPATH=src python3 benchmarks/selective_scan.py --out $OUT

Checks the Triton kernels against float64, then times them at the shapes of VMamba-T (224 px, batch
128) and Vim-S, in turn with mamba-ssm's CUDA kernels where those are installed (A B A B …), beside
the floor by bytes. "call" is a call from Python; "device" is the same replayed from a CUDA graph,
which leaves out what the CPU does. Times are milliseconds, medians over rounds of medians; the L2
cache is cold. --sweep tries other cuts than the tables' (minutes, most of them compilation). Exits
with 1 if a check failed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
import triton
from torch import Tensor

from semabench.ops import selective_scan
from semabench.ops.selective_scan import triton_backend as selective_scan_triton
from semabench.ops.selective_scan.triton_backend import RUN_LENGTH, Config

BYTES_PER_MS = 4.25e9  # a large copy on an H200
MIXED = (False, False, True, True)
ROUNDS = 5


@dataclass(frozen=True)
class Shape:
    """A scan, and mamba-ssm's milliseconds for it once measured: forward, forward + backward."""

    name: str
    groups: int
    channels: int  # of a group
    N: int
    L: int
    gate: bool = False
    official: tuple[float, float] | None = None
    batch: int = 128


ANCHORS = (
    Shape("VMamba-T stage 1", 4, 96, 1, 3136, official=(1.06, 3.75)),
    Shape("VMamba-T stage 2", 4, 192, 1, 784, official=(0.53, 1.91)),
    Shape("VMamba-T stage 3", 4, 384, 1, 196, official=(0.30, 1.18)),
    Shape("VMamba-T stage 4", 4, 768, 1, 49, official=(0.31, 1.23)),
    Shape("Vim-S", 1, 768, 16, 197, gate=True, official=(0.78, 3.14)),
)
CHECKS = (
    Shape("stage 1", 4, 96, 1, 3136, batch=2),
    Shape("stage 3", 4, 384, 1, 196, batch=2),
    Shape("stage 4", 4, 768, 1, 49, batch=2),
    Shape("Vim", 1, 768, 16, 197, gate=True, batch=2),
    Shape("long Vim", 2, 40, 16, 785, gate=True, batch=2),
    Shape("odd", 3, 7, 5, 131, gate=True, batch=3),
    Shape("one position", 2, 8, 4, 1, batch=2),
)
LONG = Shape("65,536 positions", 2, 16, 1, 65536, batch=1)
SWEEP = {
    "forward": [
        Config(w, e, r) for r in (16, 32) for w, e in ((2, 16), (4, 8), (4, 16), (8, 8), (8, 16))
    ],
    "backward": [
        Config(w, e, r, m)
        for r in (16, 32)
        for w, e, m in ((4, 8, 128), (4, 8, 168), (8, 8, 128), (4, 16, None), (8, 16, None))
    ],
}


def inputs(shape: Shape, dtype: torch.dtype, parts: int = 1, seed: int = 0) -> dict[str, Tensor]:
    """Random inputs on the GPU, as a trained model has them; u for ``parts`` shares of dim."""
    dim = shape.groups * shape.channels
    generator = torch.Generator("cuda").manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, device="cuda")

    tensors = {
        "u": normal(shape.batch, dim // parts, shape.L).to(dtype),
        "delta": (0.5 * normal(shape.batch, dim, shape.L)).to(dtype),
        "A": -torch.exp(0.3 * normal(dim, shape.N)) * torch.arange(1.0, shape.N + 1, device="cuda"),
        "B": normal(shape.batch, shape.groups, shape.N, shape.L).to(dtype),
        "C": normal(shape.batch, shape.groups, shape.N, shape.L).to(dtype),
        "D": 1 + 0.3 * normal(dim),
        "delta_bias": -4 + normal(dim),
    }
    if shape.gate:
        tensors["z"] = normal(shape.batch, dim, shape.L).to(dtype)
    return {name: x.requires_grad_() for name, x in tensors.items()}


def run(tensors: dict[str, Tensor], backend: str, reverse: object = False) -> Tensor:
    """Call the scan as the models do."""
    return selective_scan(**tensors, delta_softplus=True, reverse=reverse, backend=backend)


def check(shape: Shape, dtype: torch.dtype, reverse: object, parts: int, autocast: bool) -> dict:
    """Compare the output and all gradients with float64, and two runs with each other."""
    tensors = inputs(shape, dtype, parts)
    exact = {name: x.detach().double().requires_grad_() for name, x in tensors.items()}
    reference = run(exact, "torch", reverse)
    dout = torch.randn_like(reference).to(dtype)
    expected = [reference, *torch.autograd.grad(reference, list(exact.values()), dout.double())]
    runs = []
    for _ in range(2):
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            out = run(tensors, "triton", reverse)
            runs.append([out, *torch.autograd.grad(out, list(tensors.values()), dout)])
    # Rounding an output to 16 bits moves its largest number by up to 4e-3: there, the norms count.
    order = torch.inf if dtype == torch.float32 else 2
    errors = {
        name: (
            torch.linalg.vector_norm(a.double() - b, order)
            / torch.linalg.vector_norm(b, order).clamp_min(1e-30)
        ).item()
        for name, a, b in zip(["out", *tensors], runs[0], expected, strict=True)
    }
    limit = 1e-5 if dtype == torch.float32 else 5e-3
    repeats = all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    good = repeats and all(error <= limit for error in errors.values())  # a NaN is not <=
    worst = max(errors, key=lambda name: errors[name])
    line = (
        f"{'ok  ' if good else 'FAIL'} {shape.name:16} {str(dtype)[6:]:9} reverse={reverse!s:28}"
        f" out {errors['out']:.1e}, worst {worst} {errors[worst]:.1e}"
    )
    line += (", autocast" if autocast else "") + ("" if repeats else ", NOT REPRODUCIBLE")
    return {"line": line, "shape": shape.name, "dtype": str(dtype), "good": good, "errors": errors}


def check_all() -> list[dict]:
    """Check every shape in float32 and bfloat16, and directions, shared u, float16, long L.

    In several processes, because compilation takes most of the time; the timings find their kernels
    in Triton's cache then.
    """
    cases: list[tuple] = []
    for shape in CHECKS:
        mixed = tuple(g >= shape.groups / 2 for g in range(shape.groups))
        for dtype in (torch.float32, torch.bfloat16):
            cases.append((shape, dtype, mixed if shape.groups > 1 else False, 1, False))
    cases += [
        (CHECKS[1], torch.bfloat16, False, 1, False),
        (CHECKS[1], torch.bfloat16, True, 1, False),
        (CHECKS[1], torch.bfloat16, MIXED, 2, False),
        (CHECKS[1], torch.float16, MIXED, 2, False),
        (LONG, torch.bfloat16, (False, True), 1, True),
    ]
    results = []
    workers = max(1, min(8, (os.cpu_count() or 1) - 1))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        for result in pool.map(check, *zip(*cases, strict=True)):
            print(result["line"], flush=True)
            results.append(result)
    return results


def floors(shape: Shape, parts: int = 1) -> tuple[float, float]:
    """Least milliseconds of a forward pass and of both, in bf16: each tensor moves once."""
    dim = shape.groups * shape.channels
    row = 2 * shape.batch * dim * shape.L
    coefficients = 2 * shape.batch * shape.groups * shape.N * shape.L
    forward = (2 + 1 / parts + shape.gate) * row + 2 * coefficients
    backward = (3 + 2 / parts + 2 * shape.gate) * row + 4 * coefficients
    return forward / BYTES_PER_MS, (forward + backward) / BYTES_PER_MS


def median(call: Callable[[], object], milliseconds: int = 30) -> float:
    """Return the median time of a call, the L2 cache emptied before each."""
    return triton.testing.do_bench(call, warmup=5, rep=milliseconds, return_mode="median")


def graphed(call: Callable[[], object]) -> Callable[[], None]:
    """Return what replays the device's part of a call."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # compiles, and lets autograd settle
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def sweep(shape: Shape) -> dict[str, list]:
    """Time the two passes on the device for every cut in SWEEP; fastest first."""
    scan = selective_scan_triton
    tensors = {name: x.detach() for name, x in inputs(shape, torch.bfloat16).items()}
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
    arguments = [tensors.get(name) for name in names]
    flips = 0 if shape.groups == 1 else 0b1100
    tables, times = {"forward": scan.FORWARD, "backward": scan.BACKWARD}, {}
    saved = {kind: dict(table) for kind, table in tables.items()}
    for kind, cuts in SWEEP.items():
        times[kind] = []
        for cut in cuts:
            if cut.runs < 32 and cut.runs * RUN_LENGTH >= shape.L:
                continue  # one tile either way
            try:
                for other, table in tables.items():
                    for N, config in saved[other].items():
                        table[N] = cut if other == kind else config._replace(runs=cut.runs)
                out, states = scan.scan_forward(*arguments, True, flips, True)
                if kind == "forward":
                    call = partial(scan.scan_forward, *arguments, True, flips, True)
                else:
                    call = partial(scan.scan_backward, out, *arguments, states, True, flips)
                times[kind].append((median(graphed(call)), cut))
            except Exception as error:  # a cut that the card has no room for is a result, too
                print(f"  {kind} {tuple(cut)}: {error!s:.120}", flush=True)
            finally:
                for other, table in tables.items():
                    table.update(saved[other])
        times[kind].sort(key=lambda item: item[0])
        best = ", ".join(f"{tuple(cut)} {spent:.3f}" for spent, cut in times[kind])
        print(f"{shape.name} {kind} (warps, entries, runs, registers): {best}", flush=True)
    return times


def peer(tensors: dict[str, Tensor]) -> Tensor:
    """Call mamba-ssm's kernel on the same tensors, all groups forwards: it knows no other way."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    t = tensors
    return selective_scan_fn(
        *(t["u"], t["delta"], t["A"], t["B"], t["C"], t["D"], t.get("z"), t["delta_bias"]),
        delta_softplus=True,
    )


def calls(
    scan: Callable[[dict[str, Tensor]], Tensor], tensors: dict[str, Tensor]
) -> dict[str, Callable[[], object]]:
    """Return a forward pass, and both passes, called from Python and replayed on the device."""
    dout = torch.randn_like(scan(tensors))

    def forward() -> None:
        with torch.no_grad():
            scan(tensors)

    def both() -> None:
        torch.autograd.grad(scan(tensors), list(tensors.values()), dout)

    return {
        "call fwd": forward,
        "call fwd+bwd": both,
        "device fwd": graphed(forward),
        "device fwd+bwd": graphed(both),
    }


def speed(shape: Shape, parts: int = 1) -> dict:
    """Time the scan as models call it, with autograd, in turn with mamba-ssm's."""
    tensors = inputs(shape, torch.bfloat16, parts)
    reverse = MIXED if shape.groups == 4 else False
    subjects = {"ours": calls(partial(run, backend="triton", reverse=reverse), tensors)}
    if parts == 1 and find_spec("mamba_ssm"):
        subjects["mamba_ssm"] = calls(peer, tensors)
    rounds: dict[str, dict[str, list[float]]] = {
        subject: {kind: [] for kind in kinds} for subject, kinds in subjects.items()
    }
    for _ in range(ROUNDS):
        for kind in subjects["ours"]:
            for subject, kinds in subjects.items():
                rounds[subject][kind].append(median(kinds[kind]))
    times = {
        subject: {kind: statistics.median(values) for kind, values in kinds.items()}
        for subject, kinds in rounds.items()
    }

    floor = dict(zip(("fwd", "fwd+bwd"), floors(shape, parts), strict=True))
    line = f"{shape.name:17} u×{parts}"
    for kind, spent in times["ours"].items():
        line += f" | {kind} {spent:.3f} ({spent / floor[kind.split()[1]]:.1f}× floor)"
        if "mamba_ssm" in times:
            official = times["mamba_ssm"][kind]
            line += f" mamba_ssm {official:.3f}: {official / spent:.2f}×"
        elif shape.official and parts == 1 and kind.startswith("call"):
            official = shape.official["+" in kind]
            line += f" mamba_ssm once {official:.2f}: {official / spent:.2f}×"
    print(line, flush=True)
    return {
        "shape": asdict(shape), "u_parts": parts, "times": times, "rounds": rounds, "floors": floor
    }  # fmt: skip


def main() -> int:
    """Parse the command line, run, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sweep", action="store_true", help="also try every cut (minutes)")
    parser.add_argument("--out", type=Path, help="folder for selective_scan.json")
    options = parser.parse_args()

    results: dict = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
    }
    results["checks"] = check_all()
    if options.sweep:
        results["sweep"] = {shape.name: sweep(shape) for shape in ANCHORS}
    results["speed"] = [speed(shape) for shape in ANCHORS]
    results["speed"] += [speed(shape, parts=2) for shape in ANCHORS if shape.groups == 4]
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "selective_scan.json").write_text(json.dumps(results, indent=1))
    return 0 if all(result["good"] for result in results["checks"]) else 1


if __name__ == "__main__":
    sys.exit(main())
