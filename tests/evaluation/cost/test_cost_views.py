"""Rows of cost in the report: apart from accuracy, nothing lost, nothing that is not there."""

import csv
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from helpers.page_rows import VIEWS, cost, grid
from helpers.rows import row
from semabench.evaluation.cost.views import (
    VIEW,
    Point,
    common_batch,
    crossings,
    crossovers,
    exponents,
    fit_power_law,
    lines,
    one_batch,
    tokens,
)
from semabench.results import append_record
from semabench.results.csv_file import TIMM_BENCHMARK_COLUMNS, timm_benchmark_csv
from semabench.results.plot import plot_figure
from semabench.results.report import print_section, write_report
from semabench.results.tables import build_tables


def curves(rows):
    return one_batch(lines(rows))


def tables(rows):
    return {table.title: table.text() for table in build_tables(VIEW, lines(rows))}


def test_cost_and_accuracy_never_share_a_table(tmp_path):
    for record in [row("sema_nano", 64), *grid()]:
        append_record(tmp_path / "results.jsonl", record)
    made = write_report([tmp_path], tmp_path / "out", VIEWS)
    assert [section.view.measure for section in made.sections] == ["accuracy", "cost"]
    accuracy = list(csv.DictReader(io.StringIO((tmp_path / "out/results.csv").read_text())))
    assert [line["measure"] for line in accuracy] == ["accuracy"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out/cost.csv").read_text())))
    assert len(rows) == 6
    assert {line["top1"] for line in rows} == {""}
    assert {path.name for path in made.files} == {p.name for p in (tmp_path / "out").iterdir()}
    text = (tmp_path / "out/report.md").read_text()
    assert text.index("Top-1 accuracy") < text.index("## Cost")
    assert "cost-infer-eager.png" in text


def test_a_report_of_cost_alone_has_no_table_of_accuracy(tmp_path):
    for record in grid():
        append_record(tmp_path / "results.jsonl", record)
    made = write_report([tmp_path], tmp_path / "out", VIEWS)
    assert not (tmp_path / "out/results.csv").exists()
    assert "accuracy" not in (tmp_path / "out/report.md").read_text()
    console = Console(width=120, file=io.StringIO(), record=True)
    (section,) = made.sections
    print_section(section, console)
    text = console.export_text()
    assert "k, time" in text
    assert "half the interquartile range" in text
    assert "Milliseconds" not in text  # which report.md has
    assert "top-1" not in text.lower()


def test_exponents_and_the_crossing_are_those_of_the_rows():
    linear, quadratic = curves(grid())
    assert [exponents(line)[0].exponent for line in (linear, quadratic)] == pytest.approx([1, 2])
    assert exponents(linear)[1].exponent == pytest.approx(1)
    ((below, above, crossover),) = crossings([linear, quadratic])
    assert crossover.resolution == pytest.approx(64 * 8**0.5)
    assert (below.name, above.name) == ("vit_nano", "sema_nano")


def test_memory_is_not_fitted_over_other_batches_nor_on_a_cpu():
    mixed = [cost(resolution=r, batch_size=b) for r, b in ((64, 64), (128, 16), (256, 4))]
    (curve,) = curves(mixed)
    assert list(curve.points) == [(64, 64), (128, 16), (256, 4)]
    time, memory = exponents(curve)
    assert (time is None, memory) == (False, None)
    assert exponents(curves(grid(device="cpu"))[0])[1] is None


def test_curves_of_other_batches_do_not_cross():
    records = [
        cost("sema_nano", 64, 10.0, batch_size=8),
        cost("sema_nano", 128, 10.0, batch_size=8),
        cost("vit_nano", 64, 20.0, batch_size=4),
        cost("vit_nano", 128, 5.0, batch_size=4),
    ]
    assert crossings(curves(records)) == []


def test_a_row_without_a_speed_is_no_point_and_the_newest_of_equals_counts():
    rows = [cost(), cost(resolution=128, images_per_second=None)]
    rows.append(cost(speed=7.0, time="2026-02-01T00:00:00Z"))
    (curve,) = curves(rows)
    assert [curve.estimate(place, "images_per_second").mean for place in curve.points] == [7.0]


def test_one_model_set_up_in_two_ways_is_two_lines_and_two_executions_are_two_tables():
    rows = [cost(), cost(backend="reference"), cost(execution="compiled")]
    names = list(dict.fromkeys(line.name for line in lines(rows)))
    assert names == ["sema_nano, sdpa", "sema_nano, reference"]
    made = tables(rows)
    assert len(made["Images per second, eager"].rows) == 2
    assert len(made["Images per second, compiled"].rows) == 1


def test_training_and_inference_of_a_model_share_a_row_and_sizes_are_told():
    rows = [cost(), cost(mode="train", speed=250.0), cost(resolution=128)]
    made = tables(rows)
    table = made["Images per second, eager"]
    heads = [name.replace("\n", " ") for name in table.header]
    assert heads[2:] == [
        "train 64 px batch 64",
        "infer 64 px batch 64",
        "infer 128 px batch 64",
    ]
    assert table.rows == [["sema_nano", "sdpa", "250 ±5", "1,000 ±5", "1,000 ±5"]]
    sizes = made["GMACs of one image's forward pass"]
    assert sizes.header == ["model", "params M", "64 px", "128 px"]
    assert sizes.rows == [["sema_nano", "0.50", "0.50", "0.50"]]


def test_a_halved_batch_is_said_in_the_table():
    table = tables([cost(batch_size=32, asked_batch_size=128)])["Images per second, eager"]
    assert table.header[-1].split() == ["infer", "64", "px", "batch", "128"]
    assert table.rows[0][-1].endswith("(b 32)")


def test_timm_columns_join_inference_and_training():
    rows = [cost(), cost(mode="train", speed=250.0), cost(resolution=128)]
    first, second = csv.DictReader(io.StringIO(timm_benchmark_csv(rows)))
    assert tuple(first)[: len(TIMM_BENCHMARK_COLUMNS)] == TIMM_BENCHMARK_COLUMNS
    assert first["infer_samples_per_sec"] == "1000.0"
    assert first["train_samples_per_sec"] == "250.0"
    assert (first["train_step_time"], first["infer_gmacs"]) == ("256.0", "0.5")
    assert (first["infer_macts"], first["param_count"]) == ("", "0.5")
    assert second["infer_img_size"] == "128"
    assert second["train_samples_per_sec"] == ""


def test_the_plot_is_drawn_and_repeatable(tmp_path):
    (figure,) = VIEW.figures
    png, svg = plot_figure(figure, lines(grid()), tmp_path / "a")
    again = plot_figure(figure, lines(grid()), tmp_path / "b")
    assert Image.open(png).width > 1000
    assert svg.read_bytes() == again[1].read_bytes()
    for name in ("sema_nano", "vit_nano", "batch 64", "half the interquartile"):
        assert name in svg.read_text()
    assert "Peak memory per image" not in svg.read_text()  # at equal batches it tells nothing
    assert plot_figure(figure, [], tmp_path / "c") == []


def test_a_single_size_is_a_table_and_no_figure(tmp_path):
    rows = [cost(mode="train"), cost("vit_nano", mode="train"), *grid()]
    names = [path.name for path in plot_figure(VIEW.figures[0], lines(rows), tmp_path)]
    assert names == ["cost-infer-eager.png", "cost-infer-eager.svg"]
    assert "train 64 px" in tables(rows)["Images per second, eager"].header[2].replace("\n", " ")


def test_where_batches_differ_memory_per_image_stands_beside_peak_memory(tmp_path):
    rows = [cost(resolution=r, batch_size=b) for r, b in ((64, 64), (128, 16), (256, 4))]
    _, svg = plot_figure(VIEW.figures[0], lines(rows), tmp_path)
    assert "Peak memory per image" in svg.read_text()
    assert "batch 64 at 64, 16 at 128, 4 at 256 px" in svg.read_text()


@settings(deadline=None)
@given(st.floats(-1, 3), st.floats(1e-3, 1e3))
def test_an_exact_power_law_is_found_with_no_error(exponent, factor):
    law = fit_power_law({r: factor * tokens(r) ** exponent for r in (64, 128, 224, 512)})
    assert law.exponent == pytest.approx(exponent, abs=1e-9)
    assert law.stderr == pytest.approx(0, abs=1e-6)
    assert law.points == 4


def test_slope_and_standard_error_equal_numpys():
    costs = {64: 1.0, 96: 2.5, 128: 3.9, 224: 14.0, 384: 30.0}
    x = np.log([tokens(r) for r in costs])
    (slope, _), covariance = np.polyfit(x, np.log(list(costs.values())), 1, cov=True)
    law = fit_power_law(costs)
    assert law.exponent == pytest.approx(slope)
    assert law.stderr == pytest.approx(math.sqrt(covariance[0, 0]))


def test_two_resolutions_are_too_few_to_fit():
    assert fit_power_law({64: 1.0, 128: 4.0}) is None


def curve(costs, spread=0.0):
    return {r: Point(c, spread) for r, c in costs.items()}


def test_a_crossing_of_power_laws_is_found_exactly():
    """Linear and quadratic cost meet where 1·n = n² / 300: n = 300, or 16·√300 px."""
    sizes = (64, 128, 256, 512, 1024)
    linear = curve({r: tokens(r) for r in sizes})
    quadratic = curve({r: tokens(r) ** 2 / 300 for r in sizes})
    (found,) = crossovers(linear, quadratic)
    assert found.resolution == pytest.approx(16 * math.sqrt(300))
    assert (found.below, found.above) == (1, 0)
    assert found.clear
    (other,) = crossovers(quadratic, linear)
    assert other.resolution == pytest.approx(found.resolution)
    assert (other.below, other.above) == (0, 1)


def test_nothing_is_extrapolated():
    first = curve({64: 1.0, 128: 4.0, 2048: 1.0})
    second = curve({64: 2.0, 128: 4.1})  # the same trend crosses soon after
    assert crossovers(first, second) == []


def test_equal_costs_at_a_point_are_a_crossing_only_if_sides_change():
    through = crossovers(curve({1: 1.0, 2: 2.0, 4: 4.0}), curve({1: 2.0, 2: 2.0, 4: 2.0}))
    assert [round(c.resolution) for c in through] == [2]
    touched = crossovers(curve({1: 1.0, 2: 2.0, 4: 1.0}), curve({1: 2.0, 2: 2.0, 4: 2.0}))
    assert touched == []


def test_a_crossing_within_the_spread_is_not_clear():
    first, second = {64: 1.00, 128: 1.02}, {64: 1.01, 128: 1.01}
    assert crossovers(curve(first), curve(second))[0].clear
    assert not crossovers(curve(first, 0.01), curve(second, 0.01))[0].clear


def test_the_largest_batch_that_all_resolutions_share():
    assert common_batch({224: [64, 128], 512: [32, 64], 1024: [64]}) == 64
    assert common_batch({224: [64, 128], 512: [64, 128]}) == 128
    assert common_batch({224: [128], 512: [32]}) is None
    assert common_batch({}) is None
