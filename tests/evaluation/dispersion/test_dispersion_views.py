"""Rows of dispersion in the report: grouped rightly, apart from accuracy and cost."""

import csv
import io
from dataclasses import replace

import pytest
from PIL import Image
from rich.console import Console

from helpers.page_rows import VIEWS, head_row, random_row
from helpers.rows import row
from semabench.evaluation.dispersion.views import VIEW, first_stages, lines, stage_of
from semabench.results import append_record
from semabench.results.plot import plot_figure
from semabench.results.report import print_section, write_report
from semabench.results.tables import build_tables
from semabench.results.view import two_figures


def tables(rows):
    return {table.title: table.text() for table in build_tables(VIEW, lines(rows))}


def test_seeds_are_averaged_and_the_newest_of_equal_rows_counts():
    rows = [random_row(seed=s) for s in (0, 1, 2)]
    rows.append(random_row(seed=2, n_max_weight=10.0, time="2026-02-01T00:00:00Z"))
    (line,) = lines(rows)
    value = line.estimate((7,), "n_max_weight")
    assert (value.low, value.high, value.of, value.count) == (2.0, 10.0, "range", 3)
    assert value.mean == pytest.approx(5.0)
    assert line.estimate((7,), "softmax_distance") is None


def test_equal_values_have_no_error_however_their_mean_is_rounded(tmp_path):
    rows = [random_row(n=n, seed=s, weight_sum=0.1) for n in (16, 49) for s in (0, 1, 2)]
    (line,) = lines(rows)
    value = line.estimate((7,), "weight_sum")
    assert (value.low, value.mean, value.high, value.of) == (0.1, 0.1, 0.1, "")
    assert plot_figure(VIEW.figures[0], [line], tmp_path)


def test_a_small_grid_and_a_large_one_are_one_line():
    (line,) = lines([random_row(n=n) for n in (16, 49, 1024)])
    assert [line.estimate(p, "tokens").mean for p in line.points] == [16, 49, 1024]


def test_other_inputs_are_another_line_that_says_so():
    names = [line.name for line in lines([random_row(), random_row(bound=3.0)])]
    assert names == ["softmax, q, k in ±1, d 32, v keys", "softmax, q, k in ±3, d 32, v keys"]


def test_layers_join_their_stage_and_mixers_tell_models_apart():
    layers = [f"stages.{s}.blocks.{b}.mixer" for s, b in ((0, 0), (1, 0), (1, 1))]
    rows = [head_row(layer=layer, mixer=m) for m in ("sema", "softmax") for layer in layers]
    found = lines(rows)
    named = {"sema": "sema_nano", "softmax": "sema_nano, softmax"}
    assert [line.name for line in found] == [
        f"{named[mixer]}, stage {s}" for mixer in ("sema", "softmax") for s in (1, 2)
    ]
    assert [len(line.points[64,]) for line in found] == [1, 2, 1, 2]
    assert [line.name for line in first_stages(found)] == [found[0].name, found[2].name]
    assert first_stages(found[:2]) == found[:2]


def test_trainings_that_differ_by_their_seed_are_one_line():
    def trained(seed, checkpoint, value, **changes):
        told = {"seed": seed, "checkpoint": checkpoint, "n_max_weight": value, "config": "abc"}
        return replace(head_row(), **(told | changes))

    rows = [trained(0, "first", 2.0), trained(0, "first", 2.0, resolution=96)]
    rows += [trained(1, "other", 4.0)]
    rows += [trained(0, "again", 6.0, time="2026-02-01T00:00:00Z")]  # in place of the first
    (line,) = lines(rows)
    assert line.name == "sema_nano, stage 1"
    assert list(line.points) == [(64,)]  # of the first checkpoint nothing is left
    value = line.estimate((64,), "n_max_weight")
    assert (value.low, value.mean, value.high) == (4.0, 5.0, 6.0)
    names = [line.name for line in lines([*rows, trained(0, "best", 1.0, epochs=9)])]
    assert names == [
        "sema_nano, abc after None epochs, stage 1",
        "sema_nano, abc after 9 epochs, stage 1",
    ]
    assert len(lines([trained(0, "a", 1.0), trained(1, "b", 1.0, config="d")])) == 2


def test_stages_are_told_by_the_path():
    assert stage_of("stages.2.blocks.5.mixer") == "stage 3"
    assert stage_of("blocks.3.attn") == ""


def test_a_report_keeps_the_three_measures_apart(tmp_path):
    cost = row("sema_nano", 64, measure="cost", mode="infer", execution="eager", rounds=3)
    rows = [row("sema_nano", 64), cost, random_row(), random_row(n=256), head_row()]
    rows.append(replace(head_row(), resolution=96, tokens=576))
    for record in rows:
        append_record(tmp_path / "results.jsonl", record)
    made = write_report([tmp_path], tmp_path / "out", VIEWS)
    assert {path.name for path in made.files} == {p.name for p in (tmp_path / "out").iterdir()}
    assert len(list(csv.DictReader((tmp_path / "out/results.csv").open()))) == 1
    found = list(csv.DictReader((tmp_path / "out/dispersion.csv").open()))
    assert [line["measure"] for line in found] == ["dispersion"] * 4
    text = (tmp_path / "out/report.md").read_text()
    assert text.index("## Cost") < text.index("## Dispersion")
    assert "dispersion-random.png" in text
    assert "dispersion-images.png" in text
    assert "1 seed" in (tmp_path / "out/dispersion-random.svg").read_text()
    console = Console(width=100, file=io.StringIO(), record=True)
    print_section(made.sections[-1], console)
    assert "Effective number of keys" in console.export_text()


def test_the_largest_weight_stands_beside_its_bound():
    made = tables([random_row()])
    (line,) = made["n · largest weight of any query (bound), random inputs"].rows
    assert line == ["softmax", "4.0 (9.0)"]
    assert not any("Sum of weights" in title or "Tokens" in title for title in made)
    made = tables([random_row(weight_bound=None, weight_sum=0.8)])
    (line,) = made["n · largest weight of any query (bound), random inputs"].rows
    assert line[1].endswith("(none)")
    assert made["Sum of weights, where it is not 1, random inputs"].rows[0][1] == "0.80"
    assert tables([head_row()])["Tokens n, images"].rows == [["sema_nano, stage 1", "256"]]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7.6e-4, "8e-4"),
        (0.0123, "0.012"),
        (0.123, "0.12"),
        (0.996, "1.0"),
        (9.96, "10"),
        (1234.0, "1,234"),
        (4.3e17, "4e17"),
        (0.0, "0"),
    ],
)
def test_numbers_are_short(value, text):
    assert two_figures(value) == text


def test_the_plot_is_drawn_and_repeatable(tmp_path):
    rows = [random_row(k, n, s) for k in ("softmax", "window") for n in (49, 256) for s in (0, 1)]
    (figure,) = VIEW.figures
    png, svg = plot_figure(figure, lines(rows), tmp_path / "a")
    again = plot_figure(figure, lines(rows), tmp_path / "b")
    assert Image.open(png).width > 1000
    assert svg.read_bytes() == again[1].read_bytes()
    for text in ("softmax", "window", "Entropy / log n", "256 queries, 2 seeds", "lowest to"):
        assert text in svg.read_text()
    assert plot_figure(figure, [], tmp_path / "c") == []
