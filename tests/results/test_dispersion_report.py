"""Rows of dispersion in the report: grouped rightly, apart from accuracy and cost."""

import csv
import io
from dataclasses import replace

import pytest
from PIL import Image
from rich.console import Console

from helpers.page_rows import head_row, random_row
from helpers.rows import row
from semabench.results import append_record
from semabench.results.dispersion_plot import plot_dispersion
from semabench.results.dispersion_summary import dispersion_curves, first_stages, stage_of
from semabench.results.dispersion_table import dispersion_tables, number
from semabench.results.report import print_report, report


def test_seeds_are_averaged_and_the_newest_of_equal_rows_counts():
    rows = [random_row(seed=s) for s in (0, 1, 2)]
    rows.append(random_row(seed=2, n_max_weight=10.0, time="2026-02-01T00:00:00Z"))
    (curve,) = dispersion_curves(rows)
    spread = curve.spread(7, "n_max_weight")
    assert (spread.low, spread.high) == (2.0, 10.0)
    assert spread.mean == pytest.approx(5.0)
    assert curve.spread(7, "softmax_distance") is None


def test_a_small_grid_and_a_large_one_are_one_curve():
    (curve,) = dispersion_curves([random_row(n=n) for n in (16, 49, 1024)])
    assert [curve.tokens(r) for r in curve.points] == [16, 49, 1024]


def test_other_inputs_are_another_curve_that_says_so():
    names = [c.name for c in dispersion_curves([random_row(), random_row(bound=3.0)])]
    assert names == [
        "softmax, q, k in ±1, d 32, v keys",
        "softmax, q, k in ±3, d 32, v keys",
    ]


def test_layers_join_their_stage_and_mixers_tell_models_apart():
    layers = [f"stages.{s}.blocks.{b}.mixer" for s, b in ((0, 0), (1, 0), (1, 1))]
    rows = [head_row(layer=layer, mixer=m) for m in ("sema", "softmax") for layer in layers]
    curves = dispersion_curves(rows)
    assert [curve.title for curve in curves] == [
        f"sema_nano, {mixer}, stage {s}" for mixer in ("sema", "softmax") for s in (1, 2)
    ]
    assert [len(curve.points[64]) for curve in curves] == [1, 2, 1, 2]
    assert [curve.stage for curve in first_stages(curves)] == ["stage 1", "stage 1"]


def test_trainings_that_differ_by_their_seed_are_one_curve():
    def trained(seed, checkpoint, value, **changes):
        told = {"seed": seed, "checkpoint": checkpoint, "n_max_weight": value, "config": "abc"}
        return replace(head_row(), **(told | changes))

    rows = [trained(0, "first", 2.0), trained(1, "other", 4.0)]
    rows += [trained(0, "again", 6.0, time="2026-02-01T00:00:00Z")]  # in place of the first
    (curve,) = dispersion_curves(rows)
    assert curve.title == "sema_nano, stage 1"
    spread = curve.spread(64, "n_max_weight")
    assert (spread.low, spread.mean, spread.high) == (4.0, 5.0, 6.0)
    names = [c.name for c in dispersion_curves([*rows, trained(0, "best", 1.0, epochs=9)])]
    assert names == ["sema_nano, abc after None epochs", "sema_nano, abc after 9 epochs"]
    assert len(dispersion_curves([trained(0, "a", 1.0), trained(1, "b", 1.0, config="d")])) == 2


def test_stages_are_told_by_the_path():
    assert stage_of("stages.2.blocks.5.mixer") == "stage 3"
    assert stage_of("blocks.3.attn") == ""


def test_a_report_keeps_the_three_measures_apart(tmp_path):
    cost = row("sema_nano", 64, measure="cost", mode="infer", execution="eager", rounds=3)
    for record in (row("sema_nano", 64), cost, random_row(), head_row()):
        append_record(tmp_path / "results.jsonl", record)
    made = report([tmp_path], tmp_path / "out")
    assert {path.name for path in made.files} == {p.name for p in (tmp_path / "out").iterdir()}
    assert len(list(csv.DictReader(io.StringIO(made.csv[0].read_text())))) == 1
    lines = list(csv.DictReader((tmp_path / "out/dispersion.csv").open()))
    assert [line["measure"] for line in lines] == ["dispersion"] * 2
    text = made.markdown.read_text()
    assert text.index("## Cost") < text.index("## Dispersion")
    assert "dispersion-random.png" in text
    assert "dispersion-pictures.png" in text
    assert "one seed, no bars" in (tmp_path / "out/dispersion-random.svg").read_text()
    console = Console(width=100, file=io.StringIO(), record=True)
    print_report(made, console)
    assert "Effective number of keys" in console.export_text()


def test_the_largest_weight_stands_beside_its_bound():
    tables = {t.title: t for t in dispersion_tables(dispersion_curves([random_row()]))}
    (line,) = tables["n · largest weight of any query (bound), random inputs"].rows
    assert line == ["softmax", "4.0 (9.0)"]
    assert not any("Sum of weights" in title for title in tables)
    unbounded = random_row(weight_bound=None, weight_sum=0.8)
    tables = {t.title: t for t in dispersion_tables(dispersion_curves([unbounded]))}
    assert (
        tables["n · largest weight of any query (bound), random inputs"]
        .rows[0][1]
        .endswith("(none)")
    )
    assert tables["Sum of weights, where it is not 1, random inputs"].rows[0][1] == "0.80"


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
    assert number(value) == text


def test_the_plot_is_drawn_and_repeatable(tmp_path):
    curves = dispersion_curves(
        [random_row(k, n, s) for k in ("softmax", "window") for n in (49, 256) for s in (0, 1)]
    )
    png, svg = plot_dispersion(curves, ["one", "two"], tmp_path / "a")
    again = plot_dispersion(curves, ["one", "two"], tmp_path / "b")
    assert Image.open(png).width > 1000
    assert svg.read_bytes() == again[1].read_bytes()
    for text in ("softmax", "window", "Entropy / log n", "one; two"):
        assert text in svg.read_text()
    assert plot_dispersion([], [], tmp_path / "c") == []
