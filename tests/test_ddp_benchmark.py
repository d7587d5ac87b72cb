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
sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import efficiency  # noqa: E402


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


STAND_IN = """
import json, os, sys
from pathlib import Path

processes = int(os.environ.get("WORLD_SIZE", "1"))
with open(Path(__file__).with_name("started"), "a") as file:
    print(processes, len(os.sched_getaffinity(0)), "--out" in sys.argv, file=file)
if "--fail" in sys.argv:
    sys.exit("no such GPU")
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

    def run(*options):
        told = ["--processes", "2", "--out", str(tmp_path / "out"), "--", *options]
        monkeypatch.setattr(sys, "argv", ["efficiency.py", *told])
        efficiency.main()

    return run


def test_one_and_two_take_turns_on_equal_shares(compared, tmp_path, capsys):
    compared("--batch", "4")
    cores = len(os.sched_getaffinity(0))
    one, both = f"1 {cores // 2}", f"2 {cores}"
    begun = (tmp_path / "started").read_text().splitlines()
    assert sorted(begun[:3]) == [f"{one} False", f"{both} False", f"{both} False"]
    assert begun[3:] == [f"{one} True", f"{both} True", f"{both} True"] * 2
    row = "| m | eager | synthetic | 10.0, 10.0 | 20.0, 20.0 | 3, 3 ms | 66.7, 66.7 % | 66.7 % |"
    assert capsys.readouterr().out.splitlines()[-1] == row


def test_a_failure_names_its_log_and_rows_are_not_mixed(compared, tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"ddp.py failed \(exit code \d+\): see .*\.log"):
        compared("--fail")
    assert "no such GPU" in (tmp_path / "out/1.log").read_text()
    with pytest.raises(SystemExit):
        compared()
    assert "is not empty" in capsys.readouterr().err
