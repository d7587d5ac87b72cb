"""`eval.py measure=cost` through the command line, on a CPU, with processes of its own."""

from __future__ import annotations

import csv

import pytest

from helpers.apps import run_here
from semabench.cli import main as semabench
from semabench.processes import Worker
from semabench.results.store import read_rows

QUICK = (
    "measure=cost",
    "models=[sema_nano,mila_nano]",
    "modes=[infer]",
    "executions=[eager]",
    "batch_sizes=[2]",
    "rounds=2",
    "min_steps=2",
    "min_seconds=0",
    "accelerator=cpu",
)

# A worker whose mila_nano is killed as it warms up, and whose sema_nano fits only one picture.
TROUBLE = """
import os, torch
from semabench.evaluation.cost import worker
from semabench.processes import main
prepare, forward = worker.CostWorker.prepare, worker.Workload.forward

def killed(self, *arguments):
    if self.spec.name == "mila_nano":
        os.kill(os.getpid(), 9)
    return prepare(self, *arguments)

def limited(self, execution):
    def run(images):
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, execution)(images)
    return run

worker.CostWorker.prepare, worker.Workload.forward = killed, limited
main()
"""


def run(cwd, patch, *arguments):
    patch.setenv("OMP_NUM_THREADS", "1")
    return run_here("eval.py", *QUICK, *arguments, cwd=cwd, patch=patch)


def test_rows_tables_and_plots_and_nothing_is_measured_twice(tmp_path, monkeypatch, capfd):
    sizes = "resolutions=[32,48,64]"
    assert run(tmp_path, monkeypatch, sizes) == 0
    output = capfd.readouterr().out
    assert "6 measurements, 0 to compile; about" in output
    assert "k, time" in output
    path = tmp_path / "outputs" / "cost" / "results.jsonl"
    rows = read_rows(path)
    assert [(row.model, row.resolution) for row in rows] == [
        (model, size) for size in (32, 48, 64) for model in ("sema_nano", "mila_nano")
    ]
    for row in rows:
        assert (row.measure, row.mode, row.execution, row.rounds) == ("cost", "infer", "eager", 2)
        assert row.images_per_second * row.latency_ms == pytest.approx(2e3, rel=0.5)
        assert row.params > 1e5
        assert row.gmacs > 0
        assert (row.top1, row.joules_per_image, row.asked_batch_size) == (None, None, None)
    made = {file.name for file in (path.parent / "report").iterdir()}
    assert made == {
        "report.md",
        "cost.csv",
        "timm-benchmark.csv",
        "cost-infer-eager.png",
        "cost-infer-eager.svg",
    }

    # Killed while it wrote the last row: the same command measures that one, and no other.
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert run(tmp_path, monkeypatch, sizes) == 0
    assert "1 measurements, 0 to compile, 5 measured before" in capfd.readouterr().out
    assert [row.key for row in read_rows(path)] == [row.key for row in rows]
    assert read_rows(path)[:5] == rows[:5]

    before = path.read_bytes()
    assert run(tmp_path, monkeypatch, sizes) == 0
    assert "all 6 measurements are in" in capfd.readouterr().out
    assert path.read_bytes() == before

    semabench(["report", str(path.parent), "--out", str(tmp_path / "again")])
    assert len(list(csv.DictReader((tmp_path / "again" / "cost.csv").open()))) == 6


def test_an_exported_file_is_timed_like_the_model(tmp_path, monkeypatch):
    words = ("models=[sema_nano]", "resolutions=[32]", "executions=[eager,onnx]", "rounds=1")
    assert run(tmp_path, monkeypatch, *words, "precision=32-true") == 0
    rows = read_rows(tmp_path / "outputs" / "cost" / "results.jsonl")
    assert [row.execution for row in rows] == ["eager", "onnx"]
    assert all(row.latency_ms > 0 for row in rows)


def test_a_dead_worker_and_short_memory_leave_the_rest_standing(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(Worker, "entry", TROUBLE)
    assert run(tmp_path, monkeypatch, "resolutions=[32]", "batch_sizes=[4]") == 2
    told = capfd.readouterr()
    assert "NOT MEASURED" in told.out
    assert "(out of memory at batch 4)" in told.out
    (error,) = [line for line in told.err.splitlines() if line.startswith("error:")]
    assert "mila_nano" in error
    assert "SIGKILL" in error
    (row,) = read_rows(tmp_path / "outputs/cost/results.jsonl")
    assert (row.model, row.batch_size, row.asked_batch_size) == ("sema_nano", 1, 4)


def test_when_the_time_is_over_what_is_left_is_said(tmp_path, monkeypatch, capfd):
    assert run(tmp_path, monkeypatch, "resolutions=[32]", "max_seconds=0") == 0
    assert "2 measurements left: the same command goes on" in capfd.readouterr().out
    assert not (tmp_path / "outputs/cost/results.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("models=[]", "resolutions=[32]"), "no models"),
        ((), "no resolutions"),
        (("resolutions=[24]",), "at least 32 pixels"),
        (("resolutions=[32]", "models=[sema_nanno]"), "Did you mean 'sema_nano'"),
        (("resolutions=[32]", "accelerator=gpu"), "a GPU is asked for"),
        (("resolutions=[32]", "precision=fp16"), "precision=fp16 is not known"),
        (("resolutions=[32]", "executions=[onnx]", "modes=[train]"), "set 'modes=[infer]'"),
        (("resolutions=[32]", "executions=[aoti]", "precision=bf16-mixed"), "in float32"),
        (("resolutions=[32]", "batch_size=[2]"), "Did you mean 'batch_sizes'"),
        (("resolutions=[32]", "checkpoint=RUN"), "unknown config key 'checkpoint'"),
        (("resolutions=[32]", "measure=csot"), "Did you mean 'cost'"),
        (("resolutions=[32]", "cases=[{resolutions:[64]}]"), "resolutions has no effect beside"),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path, monkeypatch, capfd, arguments, message):
    if "accelerator=gpu" in arguments:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code = run(tmp_path, monkeypatch, *arguments)
    errors = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
    assert code == 2
    assert len(errors) == 1
    assert message in errors[0]
    assert not (tmp_path / "outputs").exists()
