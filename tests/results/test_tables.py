import csv
import io

import pytest
from rich.console import Console

from helpers.rows import row
from semabench.evaluation.accuracy.views import VIEW
from semabench.results.csv_file import TIMM_COLUMNS, timm_csv
from semabench.results.tables import build_tables
from semabench.results.text_table import TextTable, markdown, print_table


def tables(rows):
    return {grid.title: grid for grid in build_tables(VIEW, VIEW.lines(rows))}


def accuracy_markdown(rows):
    return markdown(tables(rows)["Top-1 accuracy (%)"].text())


ROWS = [row(resolution=r, correct=c) for r, c in ((64, 70), (96, 80))] + [row("mila_nano", 96)]


def test_markdown():
    assert accuracy_markdown(ROWS) == (
        "| model | mixer | params M | 64 px | 96 px |\n"
        "| --- | --- | ---: | ---: | ---: |\n"
        "| sema_nano | sema | 0.50 | 70.0 ±4.6 | 80.0 ±4.0 |\n"
        "| mila_nano | mila | 0.50 |  | 90.0 ±3.0 |\n"
    )


def test_markdown_cells_cannot_break_the_table():
    text = accuracy_markdown([row(), row(recipe="a|b")])
    assert "a\\|b" in text


def test_columns_that_differ_are_shown():
    text = accuracy_markdown([row(), row(recipe="long"), row(seed=1)])
    assert text.splitlines()[0] == "| model | mixer | recipe | params M | seeds | 96 px |"


@pytest.mark.parametrize(
    "sizes", [(48, 64, 96, 128), (96, 128, 160, 192, 224, 288, 384, 512, 1024)]
)
def test_terminal_shows_every_number_at_80_columns(sizes):
    console = Console(width=80, file=io.StringIO(), record=True)
    rows = [row("swin_tiny_patch4_window7_224", r) for r in sizes]
    print_table(tables(rows)["Top-1 accuracy (%)"].text(), console)
    text = console.export_text()  # a standard error may stand below its number, never be cut
    assert text.count("90.0") == text.count("±3.0") == len(sizes)
    assert text.count("swin_tiny_patch4_window7_224") == 1 + text.count("(continued)")
    assert ("(continued)" in text) == (len(sizes) > 4)
    assert [word for word in text.split() if "…" in word] == []
    found = [int(word) for word in text.split() if word.isdigit()]
    assert found == list(sizes)


LONG = "vit_so150m2_patch16_reg1_gap_448.sbb_e200_in12k_ft_in1k"


@pytest.mark.parametrize(
    ("name", "width", "lines"),
    [
        ("swin_tiny_patch4_window7_224", 80, 1),
        ("swin_base_patch4_window7_224.ms_in1k", 80, 2),
        (LONG, 80, 2),
        (LONG, 120, 1),
    ],
)
def test_a_long_name_goes_on_in_a_second_line_rather_than_its_numbers_in_a_second_table(
    name, width, lines
):
    console = Console(width=width, file=io.StringIO(), record=True)
    header = ["model", "mixer", "params (M)", "GMACs", "published top-1", "by recipe"]
    rows = [
        [name, "-", "136.01", "27.917", "83.5", "mila_small"],
        ["vim", "-", "1.0", "2.0", "", ""],
    ]
    print_table(TextTable("t", header, rows, words=2), console)
    text = console.export_text()
    assert "(continued)" not in text
    shown = [line for line in text.splitlines() if line.strip()]
    place = next(i for i, line in enumerate(shown) if "136.01" in line)
    assert shown[place].split()[1:] == ["-", "136.01", "27.917", "83.5", "mila_small"]
    of_name = [shown[place].split()[0], *(line.strip() for line in shown[place + 1 : -1])]
    assert "".join(of_name) == name
    assert len(of_name) == lines


def test_a_column_too_wide_for_the_terminal_ends():
    console = Console(width=20, file=io.StringIO(), record=True)
    table = TextTable("t", ["a", "b", "c"], [["word" * 6, "1" * 30, "2" * 30]])
    print_table(table, console)
    assert "(continued)" in console.export_text()


def test_throughput_has_three_figures():
    for speed, text in ((12345.6, "12,346"), (123.4, "123"), (3.14159, "3.14")):
        (line,) = tables([row(images_per_second=speed)])["Images per second"].rows
        assert line.cells[-1].text == text
    assert "Images per second" not in tables([row(images_per_second=None)])


def test_cells_can_be_sorted_and_tell_their_point():
    (line,) = tables([row(correct=80)])["Top-1 accuracy (%)"].rows
    model, *_, cell = line.cells
    assert (line.model, line.mixer, model.value) == ("sema_nano", "sema", "sema_nano")
    assert (cell.text, cell.value) == ("80.0 ±4.0", 80.0)
    assert cell.hint == "80.0 ±4.0, resolution 96 px, n 100, seeds 1 (0)"


def test_csv_begins_with_the_columns_of_timm_and_holds_every_field():
    text = timm_csv([row(top5=None, gmacs=0.12)])
    (parsed,) = csv.DictReader(io.StringIO(text))
    assert tuple(parsed)[: len(TIMM_COLUMNS)] == TIMM_COLUMNS
    assert len(set(parsed)) == len(list(parsed))
    assert (parsed["img_size"], parsed["top1"], parsed["top1_err"]) == ("96", "90.0", "10.0")
    assert (parsed["top5"], parsed["param_count"], parsed["gmacs"]) == ("", "0.5", "0.12")
    known = {"resolution": "img_size", "params": "param_count"}
    assert {known.get(name, name) for name in row().to_dict()} <= set(parsed)
