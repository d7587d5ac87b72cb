"""Check, tune and time the selective scan on a GPU.

    PYTHONPATH=src python3 benchmarks/selective_scan.py --sweep --out $OUT

About four minutes on an H200, most of it compilation; less than half without --sweep. Checks the
Triton kernels against float64, tries the cuts of ``selective_scan_triton.Config`` at the shapes of
VMamba-T (224 px, batch 128) and Vim-S, then times those in the tables, next to the official CUDA
kernels' times on an H200, to mamba_ssm's where it is installed, and to the floor by bytes. Times
are medians in milliseconds. Exits with 1 if a check failed.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
import triton
from torch import Tensor

from semabench.ops import selective_scan, selective_scan_triton

BYTES_PER_MS = 4.25e9  # a large copy on an H200
MIXED = (False, False, True, True)


@dataclass(frozen=True)
class Shape:
    """A scan, and the official kernel's milliseconds for it: forward, forward and backward."""

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
    "forward": [(w, e, r) for r in (32, 16) for w, e in ((2, 16), (4, 8), (4, 16), (8, 8))],
    "backward": [
        (w, e, r, m)
        for r in (32, 16)
        for w, e, m in ((4, 8, 128), (8, 8, None), (8, 8, 128), (4, 16, None))
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


def check(shape: Shape, dtype: torch.dtype, reverse: object, parts: int) -> dict:
    """Compare the output and all gradients with float64, and two runs with each other."""
    tensors = inputs(shape, dtype, parts)
    exact = {name: x.detach().double().requires_grad_() for name, x in tensors.items()}
    reference = run(exact, "torch", reverse)
    dout = torch.randn_like(reference).to(dtype)
    expected = [reference, *torch.autograd.grad(reference, list(exact.values()), dout.double())]
    runs = []
    for _ in range(2):
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
    print(
        f"{'ok  ' if good else 'FAIL'} {shape.name:16} {str(dtype)[6:]:9} reverse={reverse!s:28}"
        f" out {errors['out']:.1e}, worst {worst} {errors[worst]:.1e}"
        + ("" if repeats else ", NOT REPRODUCIBLE"),
        flush=True,
    )
    return {"shape": shape.name, "dtype": str(dtype), "good": good, "errors": errors}


def check_all() -> list[dict]:
    """Check every shape in float32 and bfloat16, and directions, shared u, float16, long L."""
    results = []
    for shape in CHECKS:
        mixed = tuple(g >= shape.groups / 2 for g in range(shape.groups))
        for dtype in (torch.float32, torch.bfloat16):
            results.append(check(shape, dtype, mixed if shape.groups > 1 else True, 1))
    results.append(check(CHECKS[1], torch.bfloat16, False, 1))
    results.append(check(CHECKS[1], torch.bfloat16, MIXED, 2))
    results.append(check(CHECKS[1], torch.float16, MIXED, 2))
    results.append(check(LONG, torch.bfloat16, (False, True), 1))
    return results


def floors(shape: Shape, parts: int = 1) -> tuple[float, float]:
    """Least milliseconds of a forward pass and of both, in bf16: each tensor moves once."""
    dim = shape.groups * shape.channels
    row = 2 * shape.batch * dim * shape.L
    coefficients = 2 * shape.batch * shape.groups * shape.N * shape.L
    forward = (2 + 1 / parts + shape.gate) * row + 2 * coefficients
    backward = (3 + 2 / parts + 2 * shape.gate) * row + 4 * coefficients
    return forward / BYTES_PER_MS, (forward + backward) / BYTES_PER_MS


def median(call: object, milliseconds: int) -> float:
    """Return the median time of a call."""
    return triton.testing.do_bench(call, warmup=10, rep=milliseconds, return_mode="median")


def sweep(shape: Shape) -> dict[str, list]:
    """Time the two kernels by themselves for every cut in SWEEP; fastest first."""
    scan = selective_scan_triton
    tensors = {name: x.detach() for name, x in inputs(shape, torch.bfloat16).items()}
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
    arguments = [tensors.get(name) for name in names]
    flips = 0 if shape.groups == 1 else 0b1100
    times: dict[str, list] = {}
    for kind, cuts in SWEEP.items():
        times[kind] = []
        for cut in cuts:
            if shape.L <= cut[2] * scan.RUN_LENGTH < scan.MAX_RUNS * scan.RUN_LENGTH:
                continue  # one tile either way
            table = scan.FORWARD if kind == "forward" else scan.BACKWARD
            saved, runs = dict(table), scan.MAX_RUNS
            try:
                scan.MAX_RUNS = cut[2]
                out, states = scan.scan_forward(*arguments, True, flips, True)
                config = scan.Config(cut[0], cut[1], *cut[3:])
                table.update(dict.fromkeys(table, config))
                if kind == "forward":
                    call = partial(scan.scan_forward, *arguments, True, flips, True)
                else:
                    call = partial(scan.scan_backward, out, *arguments, states, True, flips)
                spent = median(call, 30)
                times[kind].append((spent, cut))
            except Exception as error:  # a cut that the card has no room for is a result, too
                print(f"  {kind} {cut}: {error!s:.120}", flush=True)
            finally:
                scan.MAX_RUNS = runs
                table.clear()
                table.update(saved)
        times[kind].sort(key=lambda item: item[0])
        best = ", ".join(f"{cut} {spent:.3f}" for spent, cut in times[kind])
        print(f"{shape.name} {kind} (warps, entries, runs, registers): {best}", flush=True)
    return times


def speed(shape: Shape, parts: int = 1) -> dict:
    """Time the scan as called by a model, with autograd."""
    tensors = inputs(shape, torch.bfloat16, parts)
    reverse = MIXED if shape.groups == 4 else False
    dout = torch.randn_like(run(tensors, "triton", reverse))

    def measure(backend: str, reverse: object) -> tuple[float, float]:
        def both() -> None:
            torch.autograd.grad(run(tensors, backend, reverse), list(tensors.values()), dout)

        with torch.no_grad():
            forward = median(partial(run, tensors, backend, reverse), 100)
        return forward, median(both, 200)

    times, floor = measure("triton", reverse), floors(shape, parts)
    line = f"{shape.name:17} u×{parts}"
    for kind, spent, least, official in zip(
        ("fwd", "fwd+bwd"), times, floor, shape.official or (0, 0), strict=True
    ):
        line += f" | {kind} {spent:.3f} ({spent / least:.1f}× floor {least:.3f})"
        line += f" official {official:.2f}: {official / spent:.1f}×" if official else ""
    result = {"shape": asdict(shape), "u_parts": parts, "times": times, "floors": floor}
    if parts == 1 and find_spec("mamba_ssm"):  # forwards only: no time goes to turning copies
        result["mamba_ssm"] = measure("mamba_ssm", False)
        line += " | mamba_ssm here {:.3f}, {:.3f}".format(*result["mamba_ssm"])
    print(line, flush=True)
    return result


def main() -> int:
    """Parse the command line, run, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sweep", action="store_true", help="also try every cut (minutes)")
    parser.add_argument("--out", type=Path, help="folder for selective_scan.json")
    options = parser.parse_args()

    results: dict = {"device": torch.cuda.get_device_name(), "triton": triton.__version__}
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
