"""Rows of cost in the report: apart from accuracy, nothing lost, nothing that is not there."""

import csv
import io

import pytest
from PIL import Image
from rich.console import Console

from helpers.page_rows import cost, grid
from helpers.rows import row
from semabench.results import append_record
from semabench.results.cost_plot import plot_cost
from semabench.results.cost_summary import curves, meetings, scaling, subjects
from semabench.results.cost_table import cost_tables
from semabench.results.csv_file import TIMM_BENCHMARK_COLUMNS as TIMM_COLUMNS
from semabench.results.csv_file import timm_benchmark_csv
from semabench.results.report import print_report, report


def test_cost_and_accuracy_never_share_a_table(tmp_path):
    for record in [row("sema_nano", 64), *grid()]:
        append_record(tmp_path / "results.jsonl", record)
    made = report([tmp_path], tmp_path / "out")
    assert len(made.lines) == 1
    assert made.lines[0].cells.keys() == {64}
    accuracy = list(csv.DictReader(io.StringIO(made.csv[0].read_text())))
    assert [line["measure"] for line in accuracy] == ["accuracy"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out/cost.csv").read_text())))
    assert len(rows) == 6
    assert {line["top1"] for line in rows} == {""}
    assert {path.name for path in made.files} == {p.name for p in (tmp_path / "out").iterdir()}
    text = made.markdown.read_text()
    assert text.index("Top-1 accuracy") < text.index("## Cost")
    assert "cost-infer-eager.png" in text


def test_a_report_of_cost_alone_has_no_table_of_accuracy(tmp_path):
    for record in grid():
        append_record(tmp_path / "results.jsonl", record)
    made = report([tmp_path], tmp_path / "out")
    assert made.csv == ()
    assert "accuracy" not in made.markdown.read_text()
    console = Console(width=120, file=io.StringIO(), record=True)
    print_report(made, console)
    text = console.export_text()
    assert "k, time" in text
    assert "half the interquartile range" in text
    assert "top-1" not in text.lower()


def test_exponents_and_the_crossing_are_those_of_the_rows():
    linear, quadratic = curves(subjects(grid()), "infer", "eager")
    assert scaling(linear).latency.exponent == pytest.approx(1)
    assert scaling(quadratic).latency.exponent == pytest.approx(2)
    assert scaling(linear).memory.exponent == pytest.approx(1)
    (meeting,) = meetings([linear, quadratic])
    assert meeting.crossing.resolution == pytest.approx(64 * 8**0.5)
    assert meeting.names[meeting.crossing.below] == "vit_nano"


def test_memory_is_not_fitted_over_other_batches_nor_on_a_cpu():
    mixed = [cost(resolution=r, batch_size=b) for r, b in ((64, 64), (128, 16), (256, 4))]
    (curve,) = curves(subjects(mixed), "infer", "eager")
    assert curve.batches == {64: 64, 128: 16, 256: 4}
    assert scaling(curve).memory is None
    assert scaling(curve).latency is not None
    (curve, _) = curves(subjects(grid(device="cpu")), "infer", "eager")
    assert scaling(curve).memory is None


def test_curves_of_other_batches_do_not_meet():
    records = [
        cost("sema_nano", 64, 10.0, batch_size=8),
        cost("sema_nano", 128, 10.0, batch_size=8),
        cost("vit_nano", 64, 20.0, batch_size=4),
        cost("vit_nano", 128, 5.0, batch_size=4),
    ]
    assert meetings(curves(subjects(records), "infer", "eager")) == []


def test_one_model_set_up_in_two_ways_is_two_lines():
    rows = [cost(), cost(backend="reference"), cost(execution="compiled")]
    names = [subject.name for subject in subjects(rows)]
    assert names == ["sema_nano, sdpa", "sema_nano, reference"]


def test_a_halved_batch_is_said_in_the_table():
    table = cost_tables(subjects([cost(batch_size=32, asked_batch_size=128)]))[0]
    assert table.header[-1].split() == ["infer", "64", "px", "batch", "128"]
    assert table.rows[0][-1].endswith("(b 32)")


def test_timm_columns_join_inference_and_training():
    rows = [cost(), cost(mode="train", speed=250.0), cost(resolution=128)]
    first, second = csv.DictReader(io.StringIO(timm_benchmark_csv(rows)))
    assert tuple(first)[: len(TIMM_COLUMNS)] == TIMM_COLUMNS
    assert first["infer_samples_per_sec"] == "1000.0"
    assert first["train_samples_per_sec"] == "250.0"
    assert (first["train_step_time"], first["infer_gmacs"]) == ("256.0", "0.5")
    assert (first["infer_macts"], first["param_count"]) == ("", "0.5")
    assert second["infer_img_size"] == "128"
    assert second["train_samples_per_sec"] == ""


@pytest.mark.parametrize("sizes", [(64,), (64, 128, 256)])
def test_the_plot_is_drawn_and_repeatable(tmp_path, sizes):
    lines = curves(subjects([r for r in grid() if r.resolution in sizes]), "infer", "eager")
    png, svg = plot_cost(lines, tmp_path / "a")
    again = plot_cost(lines, tmp_path / "b")
    assert Image.open(png).width > 1000
    assert svg.read_bytes() == again[1].read_bytes()
    for name in ("sema_nano", "vit_nano", "batch 64"):
        assert name in svg.read_text()
    assert plot_cost([], tmp_path / "c") == []
