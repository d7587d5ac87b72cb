import csv
import io
import statistics
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image
from rich.console import Console

from helpers.rows import row
from semabench.errors import SemabenchError
from semabench.results import append_record
from semabench.results.plot import plot_accuracy, plot_throughput
from semabench.results.report import print_tables, report
from semabench.results.summary import summarise


def _lines(count, sizes=(48, 64, 96, 128)):
    return summarise(
        row(f"model{i}_nano", r, correct=40 + 3 * i + j, images_per_second=1e6 / r / (i + 1))
        for i in range(count)
        for j, r in enumerate(sizes)
    )


@pytest.fixture
def run_dir(tmp_path):
    for model in ("sema_nano", "mila_nano"):
        for resolution in (64, 96):
            append_record(tmp_path / "runs" / model / "results.jsonl", row(model, resolution))
    return tmp_path / "runs"


def test_report_writes_all_views(run_dir, tmp_path):
    made = report([run_dir], tmp_path / "out")
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
    text = made.markdown.read_text()
    assert "90.0 ±3.0" in text
    assert "accuracy.png" in text


def test_report_without_accuracy_has_no_accuracy_plot(tmp_path):
    append_record(tmp_path / "results.jsonl", row(top1=None, top5=None, top1_stderr=None))
    made = report([tmp_path], tmp_path / "out")
    assert [path.stem for path in made.plots] == ["throughput", "throughput"]
    assert "accuracy.png" not in made.markdown.read_text()


def test_report_without_results_writes_nothing(tmp_path):
    with pytest.raises(SemabenchError, match="no results"):
        report([tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_printed_tables_explain_the_error(run_dir, tmp_path):
    console = Console(width=120, file=io.StringIO(), record=True)
    print_tables(report([run_dir], tmp_path / "out").lines, console)
    text = console.export_text()
    assert "mila_nano" in text
    assert "binomial" in text


@pytest.mark.parametrize("count", [1, 2, 12])
def test_plots_show_every_line_and_chance(tmp_path, count):
    png, svg = plot_accuracy(_lines(count), tmp_path / "accuracy")
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
    made = report([tmp_path / "sweep"], tmp_path / "out")
    text = made.markdown.read_text()
    assert "| sema_nano | sema | 0.50 | 3 | 85.0 ±3.2 | 82.0 ±2.0 (2 seeds) |" in text
    assert "| mila_nano | mila | 0.50 | 1 | 90.0 ±3.0 |  |" in text
    assert "mean over 2 to 3 seeds, s/√seeds; where there is a single seed, binomial" in text
    lone, mean, _ = csv.DictReader(io.StringIO(made.csv[1].read_text()))
    assert (mean["seeds"], mean["top1"], mean["top1_error_of"]) == ("3", "85.0", "seeds")
    assert float(mean["top1_error"]) == pytest.approx(statistics.stdev((80, 84, 91)) / 3**0.5)
    assert (lone["seeds"], lone["top1_error"], lone["top1_error_of"]) == ("1", "3.0", "samples")
    assert len(made.csv[0].read_text().splitlines()) == 1 + 6
    console = Console(width=120, file=io.StringIO(), record=True)
    print_tables(made.lines, console)
    assert "85.0 ±3.2" in console.export_text()


def test_errors_over_seeds_are_bands_and_those_of_one_seed_bars(tmp_path):
    def drawn(records):
        _, svg = plot_accuracy(summarise(records), tmp_path / "a")
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
    band, bars, captions = drawn(several[:2])  # one resolution has no area
    assert (band, bars) == (False, True)
    assert "Bars: standard error of the mean over 2 seeds" in captions


def test_same_results_give_the_same_files(tmp_path):
    for name in ("a", "b"):
        plot_throughput(_lines(3), tmp_path / name)
    for suffix in (".png", ".svg"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_throughput_axis_is_logarithmic(tmp_path):
    _, svg = plot_throughput(_lines(2), tmp_path / "throughput")
    texts = {element.text for element in ElementTree.parse(svg).iter()}
    assert {"5,000", "10,000", "20,000"} <= texts


def test_a_single_point_is_drawn(tmp_path):
    assert plot_throughput(_lines(1, sizes=(96,)), tmp_path / "t")
    assert plot_accuracy(_lines(1, sizes=(96,)), tmp_path / "a")
