"""Rows of a study in the report: grouped rightly, seeds averaged, apart from all else."""

import csv
import io
import math
import re
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from helpers.page_rows import VIEWS, study_row
from semabench.errors import SemabenchError
from semabench.results import append_record, read_rows
from semabench.results.csv_file import compact_csv
from semabench.results.figures import style_of
from semabench.results.plot import plot_figure
from semabench.results.report import print_section, write_report
from semabench.results.tables import build_tables
from semabench.results.view import chance
from semabench.study.views import VIEW, lines

REPOSITORY = Path(__file__).resolve().parents[2]
PAIRS = VIEW.figures[1]


def sheets(found):
    return list(dict.fromkeys(line.sheet for line in found))


def curves(found, sheet):
    """By panel and mixer, by resolution: the mean over seeds."""
    panels = {}
    for line in found:
        if line.sheet == sheet:
            points = {place[0]: line.estimate(place, "top1") for place in line.points}
            panels.setdefault(line.panel, {})[line.name] = points
    return panels


def tables(rows):
    return {table.title: table.text() for table in build_tables(VIEW, lines(rows))}


def test_seeds_are_averaged_and_the_newest_of_equal_rows_counts():
    rows = [study_row(seed=seed, top1=top1) for seed, top1 in enumerate((40.0, 50.0, 0.0))]
    rows.append(study_row(seed=2, top1=60.0, time="2026-02-01T00:00:00Z"))
    (line,) = lines(rows)
    estimate = line.estimate((128,), "top1")
    assert (estimate.mean, estimate.count, line.panel) == (50.0, 3, "needle")
    assert estimate.stderr == pytest.approx(10 / math.sqrt(3))
    (single,) = lines([study_row()])
    assert single.estimate((128,), "top1").stderr == 2.0
    assert [rule.y for rule in chance([line])] == [12.5]


def test_what_is_trained_otherwise_never_shares_a_table():
    rows = [
        study_row(),
        study_row(readout="avg"),
        study_row(depth=2),
        study_row(train_resolutions=(128,)),
        study_row(tested_on="calibration"),
        study_row(config="other"),
    ]
    found = lines(rows)
    assert len(found) == len(tables(rows)) == 6
    assert len({line.sheet.name for line in found}) == 6
    assert [line.sheet.title for line in found] == [
        "trained at 96, 128 px",
        "trained at 96, 128 px, averaged",
        "trained at 96, 128 px, 2 blocks",
        "trained at 128 px",
        "trained at 96, 128 px, calibration images",
        "trained at 96, 128 px, config other",
    ]


def test_tasks_of_other_settings_are_one_way():
    found = lines([study_row(), study_row("recall", config="other")])
    assert len(sheets(found)) == 1
    assert [line.panel for line in found] == ["needle", "recall"]


def test_trained_at_each_takes_the_size_it_was_trained_at():
    rows = [
        study_row(train_resolutions=(trained,), resolution=tested, top1=top1)
        for trained, tested, top1 in ((128, 128, 90.0), (128, 256, 10.0), (256, 256, 80.0))
    ]
    each = sheets(lines(rows))[-1]
    points = curves(lines(rows), each)["needle"]["sema"]
    assert {size: points[size].mean for size in points} == {128: 90.0, 256: 80.0}
    table = tables(rows)["needle, trained at each size"]
    assert table.rows == [["sema", "90.0 ±2.0", "80.0 ±2.0"]]
    assert len(sheets(lines(rows[:2]))) == 1  # of one size there is nothing to compare
    other = [*rows, study_row(train_resolutions=(128,), config="other")]
    assert curves(lines(other), each) == curves(lines(rows), each)


def test_mixers_and_tasks_keep_their_order_whatever_finished_first():
    rows = [
        study_row(task, mixer)
        for task in ("recall", "texture", "other")
        for mixer in ("mine", "none", "sema")
    ]
    found = lines(rows)
    assert list(dict.fromkeys(line.panel for line in found)) == ["texture", "recall", "other"]
    assert [line.name for line in found[:3]] == ["sema", "none", "mine"]
    assert style_of("mine") == style_of("mine")


def test_the_report_has_tables_plots_and_a_csv_that_can_be_read_back(tmp_path):
    for seed in (0, 1):
        for size in (128, 256):
            for m in (4, 8):
                rows = [
                    study_row("recall", mixer, seed, size, pairs=m) for mixer in ("sema", "none")
                ]
                for row in rows:
                    append_record(tmp_path / "results.jsonl", row)
    written = write_report([tmp_path], tmp_path / "report", VIEWS)
    names = {path.name for path in written.files}
    assert names == {
        "report.md",
        "study.csv",
        *(f"study-{kind}96-128px{end}" for kind in ("", "pairs-") for end in (".png", ".svg")),
    }
    text = (tmp_path / "report/report.md").read_text()
    assert "### recall, 8 pairs, trained at 96, 128 px" in text
    assert "2 seeds, 512 images each" in text
    for path in written.files:
        if path.suffix == ".png":
            assert Image.open(path).size > (600, 400)
    screen = io.StringIO()
    print_section(written.sections[0], Console(file=screen, width=150))
    assert "recall, 4 pairs" in screen.getvalue()

    assert read_rows(tmp_path / "report/study.csv") == read_rows(tmp_path / "results.jsonl")
    assert "latency_ms" not in (tmp_path / "report/study.csv").read_text()
    write_report([tmp_path / "report/study.csv"], tmp_path / "again", VIEWS)
    assert (tmp_path / "again/report.md").read_text() == text


def test_a_study_that_was_cut_is_drawn_as_far_as_it_goes(tmp_path):
    rows = [study_row("recall", pairs=m) for m in (4, 8)]
    rows.append(study_row("recall", "none", pairs=8, resolution=256))
    assert len(plot_figure(PAIRS, lines(rows), tmp_path)) == 2


MIXERS = ("sema", "window", "mean", "softmax", "linear", "mila", "focused", "ssm", "none")


def test_trained_at_each_size_there_is_one_figure_with_every_mixer_named(tmp_path):
    rows = [
        study_row("needle", mixer, train_resolutions=(size,), resolution=size)
        for size in (128, 256)
        for mixer in MIXERS
    ]
    names = [path.name for f in VIEW.figures for path in plot_figure(f, lines(rows), tmp_path)]
    assert names == ["study-each.png", "study-each.svg"]
    drawing = (tmp_path / "study-each.svg").read_text()
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', drawing)[1])
    found = re.findall(r'<text [^>]* x="([-\d.]+)"[^>]*>(\w+)</text>', drawing)
    places = {name: float(x) for x, name in found}
    assert all(0 < places[mixer] < width - 20 for mixer in MIXERS)


def test_one_seed_is_one_and_its_error_binomial():
    _, told, errors = VIEW.notes(lines([study_row()]))
    assert told == "1 seed, 512 images each"
    assert errors.startswith("± is the binomial standard error")


def test_without_two_values_of_m_there_is_no_plot_against_m(tmp_path):
    assert plot_figure(PAIRS, lines([study_row("recall", pairs=4), study_row()]), tmp_path) == []


H200, H100 = (REPOSITORY / f"results/study-{card}.csv" for card in ("h200", "h100"))


def test_the_committed_rows_are_whole():
    for path, count in ((H200, 836), (H100, 39)):
        rows = read_rows(path)
        assert len({row.key for row in rows}) == len(rows) == count


def test_what_the_text_says_of_the_seeds_in_turn_is_in_the_rows():
    rows = [row for row in read_rows(H100) if row.train_resolutions == (128, 256)]
    text = " ".join((REPOSITORY / "docs/study.md").read_text().split())
    top1 = {mixer: sorted(r.top1 for r in rows if r.mixer == mixer) for mixer in MIXERS}
    stuck = [row for row in rows if abs(row.train_loss - math.log(8)) < 0.002]
    assert f"{len(stuck)} of the {len(rows)} trainings end with a loss of log 8" in text
    assert "of these only softmax came out with every seed" in text
    assert min(top1["softmax"]) == 100
    assert all(top1[name][0] < 90 for name in ("focused", "linear", "sema", "mean"))
    sema, linear, focused = (top1[name] for name in ("sema", "linear", "focused"))
    assert all(values[1] == values[2] == 100 for values in (sema, linear, focused))
    assert f"100 % with two seeds, {sema[0]:.0f} % with the third" in text
    readme = " ".join((REPOSITORY / "README.md").read_text().split())
    assert "Two of three seeds find it among 1,024 tokens" in readme


def test_how_many_trainings_were_run_and_where_their_seeds_disagree():
    rows = [row for path in (H200, H100) for row in read_rows(path)]
    text = " ".join((REPOSITORY / "docs/study.md").read_text().split())

    def count(asked):
        return len({(r.mixer, r.seed, r.config, r.device) for r in rows if asked(r)})

    each = count(lambda r: r.train_resolutions in ((128,), (256,), (128, 256)))
    assert f"{each} of 81 trainings run" in text
    readouts = count(lambda r: r.readout != "query")
    assert f"{readouts} of 30 trainings run" in text
    averaged = [r for r in rows if (r.readout, r.mixer, r.resolution) == ("avg", "linear", 512)]
    low, high = sorted(r.top1 for r in averaged)
    assert f"is at {low:.1f} % with one and at {high:.1f} % with the other" in text


def test_what_the_text_says_of_softmax_and_of_reading_out_is_in_the_rows():
    rows = read_rows(H200)
    text = " ".join((REPOSITORY / "docs/study.md").read_text().split())
    farthest = [r.top1 for r in rows if (r.mixer, r.dataset, r.readout, r.resolution,
        r.train_resolutions) == ("softmax", "needle", "query", 1024, (96, 112, 128))]  # fmt: skip
    assert len(farthest) == 3
    assert f"loses {100 - sum(farthest) / 3:.0f} points at 64 times the tokens" in text
    alone = [
        r.top1 for r in rows if r.mixer == "none" and r.readout != "query" and r.resolution == 128
    ]
    assert alone
    assert set(alone) == {100}
    at_256 = [r.top1 for r in rows if r.train_resolutions == (256,)]
    assert at_256
    assert max(at_256) < 20


def test_cards_are_kept_apart_in_one_report_of_both():
    both = lines([*read_rows(H200), *read_rows(H100)])
    averaged = [sheet for sheet in sheets(both) if "averaged" in sheet.title]
    assert [sheet.title.split(", ")[-1] for sheet in averaged] == [
        "NVIDIA H200",
        "NVIDIA H100 80GB HBM3",
    ]
    for sheet in averaged:
        (panel,) = curves(both, sheet).values()
        assert all(estimate.count == 1 for estimate in panel["sema"].values())
    alone = lines(read_rows(H200))
    each = curves(both, sheets(both)[-1])
    assert each == {"needle, NVIDIA H200": curves(alone, sheets(alone)[-1])["needle"]}


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("seed", "one", "invalid literal"),
        ("top1", "101", "percentage"),
        ("mixr", "sema", "Did you mean 'mixer'"),
    ],
)
def test_a_csv_with_a_mistake_names_the_line(tmp_path, column, value, message):
    (row,) = csv.DictReader(io.StringIO(compact_csv([study_row()])))
    path = tmp_path / "rows.csv"
    with open(path, "w") as file:
        writer = csv.DictWriter(file, [*row, *({column} - set(row))])
        writer.writeheader()
        writer.writerow(row | {column: value})
    with pytest.raises(SemabenchError, match=rf"rows\.csv:2: .*{message}"):
        read_rows(path)
