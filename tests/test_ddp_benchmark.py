"""benchmarks/ddp.py under torchrun, as docs/scaling.md has it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def timed(processes: int, folder: Path, gpu: bool) -> dict:
    tiny = "--models sema_nano --batch 4 --resolution 64 --warmup 1 --steps 2 --windows 2"
    launcher = f"-m torch.distributed.run --standalone --nproc-per-node {processes}"
    command = [sys.executable, *launcher.split(), str(REPOSITORY / "benchmarks/ddp.py")]
    paths = [str(REPOSITORY / "src"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    source = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    hidden = {} if gpu else {"CUDA_VISIBLE_DEVICES": ""}
    torchrun = subprocess.Popen(
        [*command, *tiny.split(), "--out", str(folder)],
        env={**os.environ, **source, **hidden},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        told = torchrun.communicate(timeout=240)[1]
    finally:
        if torchrun.poll() is None:  # torchrun's workers, too
            os.killpg(torchrun.pid, signal.SIGKILL)
            torchrun.wait()
    assert torchrun.returncode == 0, told[-3000:]
    (line,) = (folder / "ddp.jsonl").read_text().splitlines()
    return json.loads(line)


def check(row: dict, processes: int) -> None:
    assert (row["devices"], row["ddp"], row["data"]) == (processes, True, "synthetic")
    assert len(row["step_ms_windows"]) == 2
    assert row["images_per_second"] == pytest.approx(4 * processes / (row["step_ms"] / 1e3))
    assert row["all_reduce_ms"] > 0
    assert 0 < row["launch_ms"] < 2 * max(row["step_ms_windows"])


def test_two_processes_on_a_cpu_write_one_row(tmp_path):
    check(timed(2, tmp_path, gpu=False), 2)


@pytest.mark.gpu
def test_nccl_reduces_what_the_gpu_holds(tmp_path):
    """One GPU will do: gloo forgives a tensor on the wrong device, NCCL does not."""
    check(timed(1, tmp_path, gpu=True), 1)
