"""Predict img/s, hours and GPU-hours of 300 epochs of ImageNet-1k on 8 to 256 H200s.

    python3 benchmarks/scaling.py [--models sema_tiny ...] [--gpus 1 8 64] [--inter 25] ...

A model of measured figures (`benchmarks/scaling.json`) and of assumptions, each an option; what
they are and what the table means: docs/scaling.md. Nothing here has been measured on more than
one GPU.

For N GPUs with a batch of b each, a step takes

    max(compute + exposed, b / loader)
    exposed   = max(0, reduce - overlap · compute)
    reduce    = 2 (g-1)/g · bytes / intra + 2 (m-1)/m · bytes / g / inter + latency · log2(N)

with g GPUs a node and m nodes: a ring within nodes, then one ring for each of the g shares between
them (the two-level all-reduce that NCCL's rings and trees come close to). An epoch adds validation
and a checkpoint.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEASURED = Path(__file__).with_suffix(".json")
TRAIN_IMAGES, VAL_IMAGES = 1_281_167, 50_000


@dataclass(frozen=True)
class Measured:
    """One model on one GPU.

    Attributes:
        batch: of a GPU.
        step_seconds: of a training step without waiting for a loader or another GPU.
        gradient_bytes: that all GPUs reduce in a step.
        validation_images_per_second: of inference.
    """

    batch: int
    step_seconds: float
    gradient_bytes: int
    validation_images_per_second: float


@dataclass(frozen=True)
class Machine:
    """The assumptions.

    Attributes:
        node: GPUs of a node.
        intra, inter: GB/s that an all-reduce gets a GPU, within a node and between nodes.
        latency: microseconds of an all-reduce for each doubling of the GPUs, all buckets together.
        overlap: share of a step behind which an all-reduce can hide.
        cores: of the CPU, for each GPU.
        loader: images per second that a core makes.
        checkpoint: seconds an epoch.
        validations: passes over the validation set an epoch (the weights and their average).
    """

    node: int = 8
    intra: float = 215.0
    inter: float = 40.0
    latency: float = 100.0
    overlap: float = 0.5
    cores: float = 16
    loader: float = 300.0
    checkpoint: float = 3.0
    validations: int = 2


@dataclass(frozen=True)
class Prediction:
    """What a run on ``gpus`` GPUs does; ``limit`` is gpu, network or loader."""

    gpus: int
    step_seconds: float
    images_per_second: float
    efficiency: float
    hours: float
    limit: str

    @property
    def gpu_hours(self) -> float:
        """Hours times GPUs."""
        return self.hours * self.gpus


def reduce_seconds(size: int, gpus: int, machine: Machine) -> float:
    """Return the seconds of an all-reduce of ``size`` bytes."""
    if gpus == 1:
        return 0.0
    inside = min(gpus, machine.node)
    nodes = math.ceil(gpus / machine.node)
    seconds = 2 * (inside - 1) / inside * size / (1e9 * machine.intra)
    seconds += 2 * (nodes - 1) / nodes * size / inside / (1e9 * machine.inter)
    return seconds + 1e-6 * machine.latency * math.log2(gpus)


def predict(measured: Measured, gpus: int, machine: Machine, epochs: int = 300) -> Prediction:
    """Return the prediction for one number of GPUs."""
    compute = measured.step_seconds
    reduce = reduce_seconds(measured.gradient_bytes, gpus, machine)
    exposed = max(0.0, reduce - machine.overlap * compute)
    loading = measured.batch / (machine.cores * machine.loader)
    step = max(compute + exposed, loading)
    limit = "gpu"
    if loading > compute + exposed:
        limit = "loader"
    elif exposed > 0:
        limit = "network"
    images = measured.batch * gpus / step
    steps = TRAIN_IMAGES // (measured.batch * gpus)
    validation = machine.validations * VAL_IMAGES / (measured.validation_images_per_second * gpus)
    epoch = steps * step + validation + machine.checkpoint
    return Prediction(
        gpus=gpus,
        step_seconds=step,
        images_per_second=images,
        efficiency=images / (gpus * measured.batch / compute),
        hours=epochs * epoch / 3600,
        limit=limit,
    )


def cores_wanted(measured: Measured, machine: Machine) -> float:
    """Return the cores a GPU below which the loader is the limit."""
    return measured.batch / measured.step_seconds / machine.loader


def bandwidth_wanted(measured: Measured, gpus: int, machine: Machine) -> float:
    """Return the GB/s a GPU between nodes below which the network is the limit; inf: none helps."""
    nodes = math.ceil(gpus / machine.node)
    if nodes == 1:
        return 0.0
    endless = Machine(**{**vars(machine), "inter": math.inf})
    left = machine.overlap * measured.step_seconds
    left -= reduce_seconds(measured.gradient_bytes, gpus, endless)
    share = 2 * (nodes - 1) / nodes * measured.gradient_bytes / machine.node
    return share / left / 1e9 if left > 0 else math.inf


def load(path: Path = MEASURED) -> tuple[dict[str, Measured], float, dict[str, Any]]:
    """Return the measured models, the loader's images per second of a core, and their origin."""
    told = json.loads(path.read_text())
    models = {
        name: Measured(
            batch=row["batch"],
            step_seconds=row["step_ms"] / 1e3,
            gradient_bytes=row["gradient_bytes"],
            validation_images_per_second=row["validation_images_per_second"],
        )
        for name, row in told["models"].items()
    }
    loader = told["loader"]
    return models, loader["images_per_second"] / loader["cores"], told["origin"]


def table(models: dict[str, Measured], gpus: Sequence[int], machine: Machine) -> list[str]:
    """Return the lines of docs/scaling.md's table."""
    lines = [
        "| model | GPUs | global batch | img/s | efficiency | hours | GPU-hours | limit |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, measured in models.items():
        for count in gpus:
            p = predict(measured, count, machine)
            lines.append(
                f"| {name} | {count} | {count * measured.batch:,} | {p.images_per_second:,.0f} | "
                f"{100 * p.efficiency:.0f} % | {p.hours:,.1f} | {p.gpu_hours:,.0f} | {p.limit} |"
            )
    return lines


def limits(models: dict[str, Measured], machine: Machine, gpus: int) -> list[str]:
    """Return the lines of docs/scaling.md's table of limits."""
    lines = [
        "| model | cores a GPU that the loader needs | GB/s between nodes, a GPU, at "
        f"{gpus} GPUs |",
        "| --- | ---: | ---: |",
    ]
    for name, measured in models.items():
        cores, wanted = cores_wanted(measured, machine), bandwidth_wanted(measured, gpus, machine)
        lines.append(f"| {name} | {cores:.1f} | {wanted:.2f} |")
    return lines


ABOUT = {
    "node": "GPUs of a node",
    "intra": "GB/s, an all-reduce in a node; the default was measured with two H100s",
    "inter": "GB/s between nodes, a GPU: one 400 Gbit/s adapter each, at 80 %%",
    "latency": "µs, for each doubling of the GPUs",
    "overlap": "share of a step behind which an all-reduce hides",
    "cores": "CPU cores for each GPU",
    "loader": "images per second that a core makes",
    "checkpoint": "seconds an epoch",
    "validations": "passes over the validation set an epoch",
}


def main() -> None:
    """Parse the command line and print the tables."""
    models, loader, origin = load()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(models), choices=list(models))
    parser.add_argument("--gpus", nargs="+", type=int, default=[8, 16, 32, 64, 128, 256])
    for name, default in {**vars(Machine()), "loader": loader}.items():
        said = f"{ABOUT[name]} ({default:g})"
        parser.add_argument(f"--{name}", type=type(default), default=default, help=said)
    options = parser.parse_args()
    machine = Machine(**{name: getattr(options, name) for name in vars(Machine())})
    chosen = {name: models[name] for name in options.models}
    print(f"measured: {origin}")
    print("\n".join(table(chosen, options.gpus, machine)))
    print()
    print("\n".join(limits(chosen, machine, max(options.gpus))))


if __name__ == "__main__":
    main()
