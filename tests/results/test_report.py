import csv
import io
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image
from rich.console import Console

from helpers.page_rows import VIEWS, grid
from helpers.rows import row
from semabench.cli import main
from semabench.errors import SemabenchError
from semabench.evaluation.accuracy.views import VIEW as ACCURACY
from semabench.results import append_record
from semabench.results.csv_file import compact_csv
from semabench.results.plot import plot_figure
from semabench.results.report import print_section, write_report
from semabench.results.tables import build_tables

TOP1, SPEED = ACCURACY.figures[:2]


def _lines(count, sizes=(48, 64, 96, 128)):
    return ACCURACY.lines(
        [
            row(f"model{i}_nano", r, correct=40 + 3 * i + j, images_per_second=1e6 / r / (i + 1))
            for i in range(count)
            for j, r in enumerate(sizes)
        ]
    )


@pytest.fixture
def run_dir(tmp_path):
    for model in ("sema_nano", "mila_nano"):
        for resolution in (64, 96):
            append_record(tmp_path / "runs" / model / "results.jsonl", row(model, resolution))
    return tmp_path / "runs"


def test_report_writes_all_views(run_dir, tmp_path):
    made = write_report([run_dir], tmp_path / "out", VIEWS)
    assert sorted(path.name for path in made.files) == [
        "accuracy.png",
        "accuracy.svg",
        "report.md",
        "results.csv",
        "summary.csv",
        "throughput.png",
        "throughput.svg",
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in made.files
    )
    text = (tmp_path / "out/report.md").read_text()
    assert "90.0 ±3.0" in text
    assert "accuracy.png" in text


def test_report_without_accuracy_has_no_accuracy_plot(tmp_path):
    for size in (64, 96):
        record = row(resolution=size, top1=None, top5=None, top1_stderr=None)
        append_record(tmp_path / "results.jsonl", record)
    made = write_report([tmp_path], tmp_path / "out", VIEWS)
    assert [p.stem for p in made.files if p.suffix in (".png", ".svg")] == ["throughput"] * 2
    assert "accuracy.png" not in (tmp_path / "out/report.md").read_text()


def test_report_without_results_writes_nothing(tmp_path):
    with pytest.raises(SemabenchError, match="no results"):
        write_report([tmp_path], tmp_path / "out", VIEWS)
    assert not (tmp_path / "out").exists()


def test_printed_tables_explain_the_error(run_dir, tmp_path):
    console = Console(width=120, file=io.StringIO(), record=True)
    print_section(write_report([run_dir], tmp_path / "out", VIEWS).sections[0], console)
    text = console.export_text()
    assert "mila_nano" in text
    assert "binomial" in text


@pytest.mark.parametrize("count", [1, 2, 12])
def test_plots_show_every_line_and_chance(tmp_path, count):
    png, svg = plot_figure(TOP1, _lines(count), tmp_path)
    texts = [element.text for element in ElementTree.parse(svg).iter() if element.text]
    for index in range(count):
        assert f"model{index}_nano" in texts
    assert "chance" in texts
    assert {"48", "64", "96", "128"} <= set(texts)
    assert Image.open(png).width > 1000


def test_a_sweeps_seeds_are_one_line_with_their_mean_in_every_view(tmp_path):
    """Three seeds of one model, one of another; the first has but two of them at 96 px."""
    for seed, correct in enumerate((80, 84, 91)):
        for resolution in (64, 96)[: 2 - seed // 2]:
            record = row("sema_nano", resolution, correct, seed=seed, checkpoint=f"s{seed}")
            append_record(tmp_path / f"sweep/s{seed}/results.jsonl", record)
    append_record(tmp_path / "sweep/mila/results.jsonl", row("mila_nano", 64))
    made = write_report([tmp_path / "sweep"], tmp_path / "out", VIEWS)
    text = (tmp_path / "out/report.md").read_text()
    assert "| sema_nano | sema | 0.50 | 3 | 85.0 ±3.2 | 82.0 ±2.0 (2 seeds) |" in text
    assert "| mila_nano | mila | 0.50 | 1 | 90.0 ±3.0 |  |" in text
    assert "mean over 2 to 3 seeds, s/√seeds; where there is a single seed, binomial" in text
    lone, mean, _ = csv.DictReader(io.StringIO((tmp_path / "out/summary.csv").read_text()))
    assert (mean["seeds"], mean["top1"], mean["top1_error_of"]) == ("3", "85.0", "seeds")
    assert float(mean["top1_error"]) == pytest.approx(statistics.stdev((80, 84, 91)) / 3**0.5)
    assert (lone["seeds"], lone["top1_error"], lone["top1_error_of"]) == ("1", "3.0", "samples")
    assert len((tmp_path / "out/results.csv").read_text().splitlines()) == 1 + 6
    console = Console(width=120, file=io.StringIO(), record=True)
    print_section(made.sections[0], console)
    assert "85.0 ±3.2" in console.export_text()


def test_errors_over_seeds_are_bands_and_those_of_one_seed_bars(tmp_path):
    def drawn(records):
        _, svg = plot_figure(TOP1, ACCURACY.lines(records), tmp_path)
        text = svg.read_text()
        captions = " ".join(e.text for e in ElementTree.parse(svg).iter() if e.text)
        return "FillBetween" in text, "LineCollection" in text, captions

    several = [row(resolution=r, correct=60 + r // 8 + s, seed=s) for r in (64, 96) for s in (0, 1)]
    band, bars, captions = drawn(several)
    assert (band, bars) == (True, False)
    assert "Bands: standard error of the mean over 2 seeds" in captions
    assert drawn(several[::2])[:2] == (False, True)
    band, bars, captions = drawn([*several, row("mila_nano", 64), row("mila_nano", 96)])
    assert (band, bars) == (True, True)
    assert "where there is a single seed, bars: binomial" in captions
    band, bars, captions = drawn(several[:3])  # one seed alone at 96 px
    assert (band, bars) == (False, True)
    assert "Bars: standard error of the mean over 2 seeds" in captions


def test_same_results_give_the_same_files(tmp_path):
    for name in ("a", "b"):
        plot_figure(SPEED, _lines(3), tmp_path / name)
    for name in ("throughput.png", "throughput.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_throughput_axis_is_logarithmic(tmp_path):
    _, svg = plot_figure(SPEED, _lines(2), tmp_path)
    texts = {element.text for element in ElementTree.parse(svg).iter()}
    assert {"5,000", "10,000", "20,000"} <= texts


def test_of_a_single_size_there_is_a_table_and_no_figure(tmp_path):
    for figure in (TOP1, SPEED):
        assert plot_figure(figure, _lines(3, sizes=(96,)), tmp_path) == []
    assert build_tables(ACCURACY, _lines(3, sizes=(96,)))


def test_tables_of_rows_are_printed_and_kept_in_a_document(tmp_path, capsys):
    rows = tmp_path / "rows.csv"
    rows.write_text(compact_csv([row(), *grid()]))
    main(["tables", str(rows), "--only", "Top-1", "Where time"])
    text = capsys.readouterr().out
    assert "**Top-1 accuracy (%)**\n\n| model | mixer | params M | 96 px |\n" in text
    assert "| sema_nano | sema | 0.50 | 90.0 ±3.0 |" in text
    assert "| vit_nano | sema_nano | infer | eager |  | 181 |" in text
    assert "Images per second" not in text
    document = tmp_path / "doc.md"
    document.write_text(
        f"before\n\n<!-- tables {rows}: Top-1; Where time -->\nold\n<!-- end of tables -->\nafter\n"
    )
    for _ in range(2):
        main(["tables", str(document)])
        begin, end = document.read_text().split(text)
        assert begin.endswith("Where time -->\n\n")
        assert end == "\n<!-- end of tables -->\nafter\n"
    with pytest.raises(SystemExit):
        main(["tables", str(rows), "--only", "Nothing"])
    assert "no table's title begins with 'Nothing'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "module",
    [
        "results.record",
        "results.store",
        "results.report",
        "evaluation.accuracy.views",
        "evaluation.cost.views",
        "evaluation.dispersion.views",
        "study.views",
    ],
)
def test_importing_results_brings_in_nothing_that_draws(module):
    heavy = "{'torch', 'matplotlib', 'rich', 'jinja2', 'wandb'}"
    code = f"import sys; sys.argv = ['semabench']; import semabench.{module}"
    code += f"; print(*{heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\n", "")
