"""benchmarks/ddp.py under torchrun, as docs/scaling.md has it."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import ddp
import efficiency
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

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
    )
    try:
        told = torchrun.communicate(timeout=240)[1]
    finally:
        torchrun.terminate()  # upon which it ends its workers, which are in sessions of their own
        torchrun.wait(timeout=60)
    assert torchrun.returncode == 0, told[-3000:]
    (line,) = (folder / "ddp.jsonl").read_text().splitlines()
    return json.loads(line)


def check(row: dict, processes: int) -> None:
    assert (row["devices"], row["ddp"], row["data"]) == (processes, True, "synthetic")
    assert len(row["step_ms_windows"]) == 2
    assert row["images_per_second"] == pytest.approx(4 * processes / (row["step_ms"] / 1e3))
    assert row["all_reduce_ms"] > 0
    assert (row["launch_ms"] is None) == (row["device"] == "cpu")
    stand_in = set(re.findall(r'"(\w+)": ', STAND_IN))
    assert stand_in >= {"model", "execution", "data"}
    assert stand_in <= set(row)


def test_two_processes_on_a_cpu_write_one_row(tmp_path):
    check(timed(2, tmp_path, gpu=False), 2)


@pytest.mark.gpu
def test_nccl_reduces_what_the_gpu_holds(tmp_path):
    """One GPU will do: gloo forgives a tensor on the wrong device, NCCL does not."""
    check(timed(1, tmp_path, gpu=True), 1)


STAND_IN = """
import json, os, sys, time
from pathlib import Path

processes = int(os.environ.get("WORLD_SIZE", "1"))
with open(Path(__file__).with_name("started"), "a") as file:
    threads = os.environ["OMP_NUM_THREADS"]
    print(processes, len(os.sched_getaffinity(0)), threads, "--out" in sys.argv, file=file)
if "--fail" in sys.argv:
    if sys.argv[sys.argv.index("--fail") + 1] == str(processes):
        sys.exit("no such GPU")
    time.sleep(100)
if "--out" in sys.argv and os.environ.get("RANK", "0") == "0":
    out = Path(sys.argv[sys.argv.index("--out") + 1])
    out.mkdir(exist_ok=True)
    row = {"model": "m", "execution": "eager", "data": "synthetic", "devices": processes}
    row |= {"step_ms": 10.0 * processes, "launch_ms": 3, "images_per_second": 100 + 50 * processes}
    print(json.dumps(row), file=open(out / "ddp.jsonl", "a"))
"""


@pytest.fixture
def compared(tmp_path, monkeypatch):
    """Run efficiency.py with another program in ddp.py's place."""
    (tmp_path / "ddp.py").write_text(STAND_IN)
    monkeypatch.setattr(efficiency, "DDP", tmp_path / "ddp.py")

    def run(*options, flags=(), **more):
        own = [text for name, value in more.items() for text in (f"--{name}", value)]
        told = ["--processes", "2", "--out", str(tmp_path / "out"), *flags, *own, "--", *options]
        efficiency.main(told)

    return run


def test_one_and_two_take_turns_on_equal_shares(compared, tmp_path, capsys):
    compared("--batch", "4")
    both = f"2 {len(os.sched_getaffinity(0))} 1"
    one = f"1 {len(efficiency.share_of_cores(2))} 1"
    begun = (tmp_path / "started").read_text().splitlines()
    assert sorted(begun[:3]) == [f"{one} False", f"{both} False", f"{both} False"]
    assert begun[3:] == [f"{one} True", f"{both} True", f"{both} True"] * 2
    row = "| m | eager | synthetic | 10.0, 10.0 | 20.0, 20.0 | 3 ms, 3 ms | 66.7, 66.7 % | 66.7 % |"
    assert capsys.readouterr().out.splitlines()[-1] == row


@pytest.mark.parametrize(
    ("flag", "untimed"), [("--apart", ["1 False", "2 False", "2 False"]), ("--warm", [])]
)
def test_untimed_starts_go_apart_or_not_at_all(compared, tmp_path, flag, untimed):
    compared(flags=[flag], rounds="1")
    begun = [line.split() for line in (tmp_path / "started").read_text().splitlines()]
    told = [f"{processes} {out}" for processes, _, _, out in begun]
    assert told == [*untimed, "1 True", "2 True", "2 True"]


def test_hyper_threads_go_together(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for core in range(8):
        (tmp_path / str(core)).write_text(f"{core % 4},{core % 4 + 4}\n")
    monkeypatch.setattr(efficiency, "SIBLINGS", str(tmp_path / "{}"))
    assert efficiency.share_of_cores(2) == {0, 4, 1, 5}
    monkeypatch.setattr(efficiency, "SIBLINGS", str(tmp_path / "none{}"))
    assert efficiency.share_of_cores(2) == {0, 1, 2, 3}
    assert efficiency.share_of_cores(100) == {0}


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_failure_stops_the_other_and_names_its_log(compared, tmp_path, processes):
    with pytest.raises(SystemExit, match=rf"ddp.py failed .*: see .*{processes}\.log"):
        compared("--fail", processes)
    assert "no such GPU" in (tmp_path / f"out/{processes}.log").read_text()


def test_rows_are_not_mixed(compared, tmp_path, capsys):
    for more, message in (({"rounds": "0"}, "1 or more"), ({"processes": "1"}, "2 or more")):
        with pytest.raises(SystemExit):
            compared(**more)
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        compared("--out=elsewhere")
    assert "behind --" in capsys.readouterr().err
    (tmp_path / "out").write_text("")
    with pytest.raises(SystemExit):
        compared()
    assert "not an empty folder" in capsys.readouterr().err


def test_each_execution_is_compiled_for_itself(monkeypatch):
    compile_ = nn.Module.compile

    def eagerly(self, dynamic):
        compile_(self, dynamic=dynamic, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", eagerly)
    tiny = {"batch": 2, "resolution": 32, "warmup": 1, "steps": 2, "windows": 1}
    for execution in ("compiled", "compiled-graph"):
        counters.clear()
        row = ddp.measure("sema_nano", execution, None, argparse.Namespace(**tiny))
        assert (row["execution"], row["devices"]) == (execution, 1)
        assert counters["stats"]["unique_graphs"] > 0
    torch._dynamo.reset()
