"""`eval.py measure=dispersion` through the command line: random inputs, and a trained run."""

from __future__ import annotations

import csv

import pytest

from helpers.apps import run_here
from semabench.cli import main as semabench
from semabench.results.store import read_rows

RANDOM = ("measure=dispersion", "tokens=[16,49]", "queries=9", "seeds=[0,1]", "accelerator=cpu")
MODEL = ("measure=dispersion", "images=10", "batch_size=8", "queries=20", "accelerator=cpu")


def test_random_inputs_give_rows_tables_and_plots_and_are_measured_once(
    tmp_path, monkeypatch, capfd
):
    assert run_here("eval.py", *RANDOM, cwd=tmp_path, patch=monkeypatch) == 0
    output = capfd.readouterr().out
    assert "20 of 20 to measure" in output
    assert "Effective number of keys" in output
    path = tmp_path / "outputs/dispersion/random/results.jsonl"
    rows = read_rows(path)
    assert len(rows) == 5 * 2 * 2
    assert {row.measure for row in rows} == {"dispersion"}
    assert {(row.tokens, row.resolution) for row in rows} == {(16, 4), (49, 7)}
    assert {file.name for file in (path.parent / "report").iterdir()} == {
        "report.md",
        "dispersion.csv",
        "dispersion-random.png",
        "dispersion-random.svg",
    }
    path.write_bytes(path.read_bytes()[:-40])  # killed as it wrote the last row
    assert run_here("eval.py", *RANDOM, cwd=tmp_path, patch=monkeypatch) == 0
    assert "1 of 20 to measure" in capfd.readouterr().out
    again = read_rows(path)
    assert [row.key for row in again] == [row.key for row in rows]
    assert again[-1].effective_keys == rows[-1].effective_keys


def test_a_trained_run_tells_each_head_of_each_layer(copied, monkeypatch, capfd):
    arguments = (*MODEL, f"checkpoint={copied.run_dir}", "resolutions=[32,48]")
    before = (copied.run_dir / "results.jsonl").read_bytes()
    assert run_here("eval.py", *arguments, cwd=copied.cwd, patch=monkeypatch) == 0
    assert "stage 1" in capfd.readouterr().out
    assert (copied.run_dir / "results.jsonl").read_bytes() == before  # accuracy's own
    path = copied.run_dir / "dispersion/results.jsonl"
    rows = read_rows(path)
    assert len(rows) == 2 * (1 + 2 + 4 + 4 + 8)
    assert len({row.key for row in rows}) == len(rows)
    assert {(row.n, row.weights, row.mixer) for row in rows} == {(10, "ema", "sema")}
    first = [row for row in rows if row.layer.startswith("stages.0.")]
    assert [(row.resolution, row.tokens, row.keys) for row in first] == [
        (32, 64, 49),
        (48, 144, 49),
    ]
    for row in rows:
        assert 1 <= row.effective_keys <= row.keys + 1e-9
        assert row.n_max_weight <= row.n_max_weight_highest <= row.weight_bound * (1 + 1e-9)
        assert row.weight_sum == pytest.approx(1)
        assert row.softmax_distance is not None

    assert run_here("eval.py", *arguments, cwd=copied.cwd, patch=monkeypatch) == 0
    assert capfd.readouterr().out.count("measured before") == 2
    assert len(read_rows(path)) == len(rows)

    semabench(["report", str(copied.run_dir), "--out", str(copied.cwd / "all")])
    lines = list(csv.DictReader((copied.cwd / "all/dispersion.csv").open()))
    assert len(lines) == len(rows)
    assert len(list(csv.DictReader((copied.cwd / "all/results.csv").open()))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*RANDOM, "tokens=[50]"), "49 is near"),
        ((*RANDOM, "kernels=[sofmax]"), "Did you mean 'softmax'"),
        ((*RANDOM, "kernel=[softmax]"), "Did you mean 'kernels'"),
        ((*RANDOM, "measure=dispertion"), "Did you mean 'dispersion'"),
        ((*RANDOM, "checkpoint=RUN", "resolutions=[32]"), "tokens has no effect beside a model"),
        ((*RANDOM, "images=9"), "images has no effect on random inputs"),
        ((*MODEL, "checkpoint=nowhere", "resolutions=[32]"), "no checkpoint nowhere"),
        ((*MODEL, "model=convnext_tiny", "data=shapes", "resolutions=[32]"), "has no weights"),
        ((*MODEL, "checkpoint=RUN", "data=shapes", "data.hflip=0.1", "resolutions=[32]"),
         "data.hflip has no effect in an evaluation"),
        ((*MODEL, "checkpoint=RUN", "data=needle", "data.crop_pct=0.9", "resolutions=[72]"),
         "shown whole"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_one_line(tmp_path, monkeypatch, capfd, arguments, message):
    code = run_here("eval.py", *arguments, cwd=tmp_path, patch=monkeypatch)
    errors = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
    assert code == 2
    assert len(errors) == 1
    assert message in errors[0]
    assert not (tmp_path / "outputs").exists()
