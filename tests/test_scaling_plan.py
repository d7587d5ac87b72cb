"""benchmarks/scaling.py: limits that can be worked out by hand."""

from __future__ import annotations

import json
import math
import re
import statistics
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from scaling import (
    TRAIN_IMAGES,
    Machine,
    Measured,
    bandwidth_wanted,
    cores_wanted,
    load,
    predict,
    reduce_seconds,
)

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
MODEL = Measured(
    batch=100, step_seconds=0.1, gradient_bytes=100_000_000, validation_images_per_second=1e9
)
IDLE = Machine(checkpoint=0.0, loader=1e9, latency=0.0)


def test_one_gpu_is_what_was_measured():
    one = predict(MODEL, 1, IDLE)
    assert (one.images_per_second, one.efficiency, one.limit) == (1000, 1, "gpu")
    assert one.hours == pytest.approx(300 * (TRAIN_IMAGES // 100) * 0.1 / 3600)


@pytest.mark.parametrize("name", load()[0])
def test_more_gpus_are_faster_and_less_efficient(name):
    models, loader, _ = load()
    runs = [predict(models[name], count, Machine(loader=loader)) for count in COUNTS]
    for fewer, more in pairwise(runs):
        assert more.images_per_second > fewer.images_per_second
        assert more.hours < fewer.hours
        assert more.efficiency <= fewer.efficiency


def test_an_all_reduce_by_hand():
    # 8 GPUs of one node: 2 · 7/8 · 100 MB at 100 GB/s.
    machine = Machine(intra=100, inter=10, latency=0, node=8)
    assert reduce_seconds(100_000_000, 8, machine) == pytest.approx(1.75e-3)
    # 4 nodes: and 2 · 3/4 · 12.5 MB at 10 GB/s between them.
    assert reduce_seconds(100_000_000, 32, machine) == pytest.approx(1.75e-3 + 1.875e-3)
    assert reduce_seconds(100_000_000, 1, machine) == 0


def test_a_slow_network_is_the_limit_once_the_overlap_is_used_up():
    # 2 nodes: 12.5 MB at 0.1 GB/s take 125 ms, of which half a step hides.
    slow = Machine(inter=0.1, intra=math.inf, latency=0, loader=1e9, checkpoint=0, overlap=0.5)
    two = predict(MODEL, 16, slow)
    assert two.limit == "network"
    assert two.step_seconds == pytest.approx(0.1 + 0.125 - 0.05)
    wanted = bandwidth_wanted(MODEL, 16, slow)
    assert wanted == pytest.approx(0.25)  # 12.5 MB in 50 ms
    assert predict(MODEL, 16, Machine(**{**vars(slow), "inter": 1.001 * wanted})).limit == "gpu"
    assert predict(MODEL, 16, Machine(**{**vars(slow), "inter": 0.999 * wanted})).limit == "network"


def test_few_cores_make_the_loader_the_limit():
    machine = Machine(cores=4, loader=100, checkpoint=0, latency=0)
    short = predict(MODEL, 8, machine)
    assert short.limit == "loader"
    assert short.images_per_second == pytest.approx(8 * 400)  # whatever the GPUs could do
    assert cores_wanted(MODEL, machine) == pytest.approx(10)
    assert predict(MODEL, 8, Machine(**{**vars(machine), "cores": 10.01})).limit == "gpu"


def test_validation_and_checkpoints_are_added_to_an_epoch():
    plain = predict(MODEL, 1, IDLE).hours
    machine = Machine(**{**vars(IDLE), "checkpoint": 6.0})
    assert predict(MODEL, 1, machine).hours - plain == pytest.approx(300 * 6 / 3600)


def rows_of(*options: str) -> list[str]:
    told = subprocess.run(
        [sys.executable, BENCHMARKS / "scaling.py", *options],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [line for line in told.splitlines() if line.startswith("| sema_")]


def test_the_page_shows_what_the_script_prints():
    page = (BENCHMARKS.parent / "docs/scaling.md").read_text()
    rows = rows_of("--models", "sema_tiny")
    assert len(rows) == 7
    assert [line for line in page.splitlines() if line.startswith("| sema_")] == rows
    for options in (["--cores", "8"], ["--loader", "138"]):
        few = rows_of(*options, "--gpus", "8", "--models", "sema_tiny")[0]
        told = re.search(rf"(\d+ %)\s+\(`{' '.join(options)}`\)", page)
        assert told[1] == few.split("|")[5].strip()


def test_the_page_shows_what_two_gpus_did():
    lines = (BENCHMARKS.parent / "results/ddp-h100.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    page = (BENCHMARKS.parent / "docs/scaling.md").read_text()

    def steps(**wanted) -> list[float]:
        return [r["step_ms"] for r in rows if all(r[k] == v for k, v in wanted.items())]

    def listed(times: list[float]) -> str:
        return ", ".join(f"{ms:.1f}" for ms in times)

    for label, data in (("synthetic", "synthetic"), ("FFCV", "ffcv")):
        for as_it_is, more in ((False, ""), (True, ", Lightning as it is, twice")):
            same = {"batch_per_device": 512, "execution": "compiled", "data": data}
            same["lightning_as_it_is"] = as_it_is
            one, two = steps(**same, devices=1), steps(**same, devices=2)
            part = ", ".join(f"{100 * a / b:.1f}" for a, b in zip(one, two, strict=True))
            assert f"| {label}{more} | {listed(one)} | {listed(two)} | {part} % |" in page
    slow = {"batch_per_device": 256, "execution": "compiled"}
    efficiency = []
    for data in ("synthetic", "ffcv"):
        one = steps(**slow, data=data, devices=1, ddp=False)
        two = steps(**slow, data=data, devices=2)
        efficiency += [100 * a / b for a, b in zip(one, two, strict=True)]
    assert f"{min(efficiency):.0f} to {max(efficiency):.0f} % at 256 a GPU" in " ".join(
        page.split()
    )


def test_the_bandwidth_assumed_in_a_node_is_no_better_than_seen():
    lines = (BENCHMARKS.parent / "results/ddp-h100.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["devices"] == 2]
    measured = [row["gradient_bytes"] / 1e6 / row["all_reduce_ms"] for row in rows]
    assert min(measured) < Machine().intra < statistics.median(measured)
