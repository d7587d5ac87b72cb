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
    rows = rows_of()
    assert len(rows) == 21
    assert [line for line in page.splitlines() if line.startswith("| sema_")] == rows
    few = rows_of("--cores", "8", "--gpus", "8", "--models", "sema_tiny")[0]
    assert re.search(r"(\d+ %) \(`--cores 8`\)", page)[1] == few.split("|")[5].strip()


def times_of_two_gpus() -> tuple[list[dict], dict[tuple, list[float]]]:
    """The rows, and steps in ms by batch, Lightning, execution, source, devices and DDP."""
    lines = (BENCHMARKS.parent / "results/ddp-h100.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    steps: dict[tuple, list[float]] = {}
    for row in rows:
        key = row["batch_per_device"], row["lightning_as_it_is"], row["execution"]
        key += row["data"], row["devices"], row["ddp"]
        steps.setdefault(key, []).append(row["step_ms"])
    return rows, steps


def listed(times: list[float]) -> str:
    return ", ".join(f"{ms:.1f}" for ms in times)


def test_the_page_shows_what_two_gpus_did():
    rows, steps = times_of_two_gpus()
    page = (BENCHMARKS.parent / "docs/scaling.md").read_text()
    for label, data in (("synthetic", "synthetic"), ("FFCV", "ffcv")):
        for as_it_is, more in ((False, ""), (True, ", Lightning as it is, twice")):
            one, two = (
                steps.pop((512, as_it_is, "compiled", data, devices, devices > 1))
                for devices in (1, 2)
            )
            part = ", ".join(f"{100 * a / b:.1f}" for a, b in zip(one, two, strict=True))
            assert f"| {label}{more} | {listed(one)} | {listed(two)} | {part} % |" in page
        slow = 256, True, "compiled", data
        one, two = steps.pop((*slow, 1, False)), steps.pop((*slow, 2, True))
        single = listed(steps.pop((*slow, 1, True), []))
        efficiency = ", ".join(f"{100 * a / b:.0f}" for a, b in zip(one, two, strict=True))
        cells = label, listed(one), single, listed(two), f"{efficiency} %"
        assert f"| {' | '.join(cells)} |".replace("  ", " ") in page
    (whole,) = steps.pop((512, True, "whole", "synthetic", 2, True))
    assert f"two processes took {whole:.1f} ms" in page
    assert not steps
    measured = []
    for batch, told in ((512, "104 MB takes {} ms by itself"), (256, "all-reduce took {} ms.")):
        two = [row for row in rows if (row["batch_per_device"], row["devices"]) == (batch, 2)]
        reduce = [row["all_reduce_ms"] for row in two]
        assert told.format(f"{min(reduce):.2f} to {max(reduce):.2f}") in " ".join(page.split())
        measured += [row["gradient_bytes"] / 1e6 / row["all_reduce_ms"] for row in two]
    assert min(measured) < Machine().intra < statistics.median(measured)  # no better than seen


def test_the_page_says_how_sure_two_gpus_are():
    rows, _ = times_of_two_gpus()
    page = " ".join((BENCHMARKS.parent / "docs/scaling.md").read_text().split())
    spreads: dict[bool, list[float]] = {True: [], False: []}
    for row in rows:
        if (row["batch_per_device"], row["execution"]) == (512, "compiled"):
            far = max(abs(ms / row["step_ms"] - 1) for ms in row["step_ms_windows"])
            spreads[row["lightning_as_it_is"]].append(100 * far)
    told = re.search(r"windows within ([\d.]+) % .*? are of two, within ([\d.]+) %", page)
    for as_it_is, percent in ((False, told[1]), (True, told[2])):
        assert max(spreads[as_it_is]) <= float(percent) < max(spreads[as_it_is]) + 0.1
    ours = [row for row in rows if not row["lightning_as_it_is"]]
    assert (len(ours), len(spreads[True])) == (4, 8)
    launching = [row["launch_ms"] for row in ours]
    assert f"launching for {min(launching):.0f} to {max(launching):.0f} ms of a step" in page
    (alone,) = (r for r in ours if (r["data"], r["devices"]) == ("ffcv", 1))
    assert f"a GPU trains on {alone['images_per_second']:,.0f} through it" in page
    line = (BENCHMARKS.parent / "results/loader-h100.jsonl").read_text().splitlines()[1]
    (windows,) = json.loads(line)["images_per_second"].values()
    (median,) = json.loads(line)["median"].values()
    told = f"made {median:,.0f} pictures a second (three windows: {min(windows):,.0f} to"
    assert f"{told} {max(windows):,.0f};" in page


def test_the_page_shows_what_the_loader_did_there():
    line = (BENCHMARKS.parent / "results/loader-h100.jsonl").read_text().splitlines()[0]
    row = json.loads(line)
    page = " ".join((BENCHMARKS.parent / "docs/scaling.md").read_text().split())
    windows = row["images_per_second"]["semabench, bicubic"]
    ours, area, stock = (f"{rate:,.0f}" for rate in row["median"].values())
    assert f"made {ours} pictures a second (three windows: {min(windows):,.0f} to" in page
    assert f'to {max(windows):,.0f}; "area" {area}, stock FFCV {stock};' in page
    rate = row["median"]["semabench, bicubic"]
    assert f"a batch of 256 takes that loader {256e3 / rate:.0f} ms" in page
    slow = rows_of("--loader", f"{rate / row['cores']:.0f}", "--gpus", "8", "--models", "sema_tiny")
    told = re.search(r"(\d+ %) \(`--loader (\d+)`\)", page)
    assert told.groups() == (slow[0].split("|")[5].strip(), f"{rate / row['cores']:.0f}")
    assert f"{ours}, {area} and {stock}." in (
        BENCHMARKS.parent / "docs/h100.md"
    ).read_text().replace("\n", " ")
