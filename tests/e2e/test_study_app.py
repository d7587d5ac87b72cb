"""`eval.py measure=study` through the command line: trained once, resumed, and told of mistakes."""

from __future__ import annotations

import signal
import time

import pytest

from helpers.apps import run_here, start
from semabench.results.store import read_rows

STUDY = (
    "measure=study",
    "tasks=[needle,recall]",
    "mixers=[sema,none]",
    "seeds=[0]",
    "train_resolutions=[96,104]",
    "resolutions=[96,128]",
    "pairs=[2,4]",
    "steps={needle:9,recall:9}",
    "batch_size=8",
    "samples=16",
    "accelerator=cpu",
)


def test_a_study_is_trained_once_and_goes_on_after_kill_9_and_failures(
    tmp_path, monkeypatch, capfd
):
    path = tmp_path / "outputs/study/results.jsonl"
    process = start("eval.py", *STUDY, "steps.recall=4000", cwd=tmp_path)
    deadline = time.monotonic() + 120
    while len(read_rows(path)) < 4 and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)  # in a training of recall
    process.communicate()
    before = read_rows(path)
    assert len(before) == 4

    # Beside what is left, a training that cannot end well: it stops no other.
    cases = "cases=[{tasks:[needle],mixers:[none],lr:1e30},{}]"
    assert run_here("eval.py", *STUDY, cases, cwd=tmp_path, patch=monkeypatch) == 2
    told = capfd.readouterr()
    assert "3 trainings, 2 done before" in told.out
    assert "failed: needle none, 96,104 px, seed 0" in told.out
    assert "recall, 4 pairs" in told.out
    assert "the same command tries the rest again" in told.err
    rows = read_rows(path)
    assert rows[:4] == before
    assert len({row.key for row in rows}) == len(rows) == 2 * 2 + 2 * 4
    assert {row.measure for row in rows} == {"study"}
    assert {row.params for row in rows if row.mixer == "none"} == {60_744}
    assert {(row.resolution, row.tokens) for row in rows} == {(96, 144), (128, 256)}
    assert (path.parent / "report/study-96-104px.png").exists()

    path.write_bytes(path.read_bytes()[:-40])  # killed as it wrote the last row
    assert run_here("eval.py", *STUDY, "max_seconds=0", cwd=tmp_path, patch=monkeypatch) == 0
    output = capfd.readouterr().out
    assert "1 trainings, 3 done before" in output
    assert "max_seconds is over, 1 trainings left" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tasks=[neddle]",), "Did you mean 'needle'"),
        (("mixer=[sema]",), "Did you mean 'mixers'"),
        (("resolutions=[100]",), "multiples of 8"),
        (("precision=bf16-mixed",), "leave precision"),
        (("measure=studdy",), "Did you mean 'study'"),
        (("tasks=[needle]",), "pairs has no effect without recall"),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path, monkeypatch, capfd, arguments, message):
    code = run_here("eval.py", *STUDY, *arguments, cwd=tmp_path, patch=monkeypatch)
    errors = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
    assert code == 2
    assert len(errors) == 1
    assert message in errors[0]
    assert not (tmp_path / "outputs").exists()
