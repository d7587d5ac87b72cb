"""The page's content: whose numbers, from where, escaped, and loading nothing."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import pytest

from helpers.page_rows import EVIL, VIEWS, figures_of, grid, head_row, random_row, rows
from helpers.rows import row
from semabench.cli import main
from semabench.errors import SemabenchError
from semabench.results import append_record
from semabench.results.page import write_page
from semabench.results.summary import Estimate, Series, Sheet, group
from semabench.results.view import QUANTITIES, Column, Figure, Panel, Table, View, with_error


def content(tmp_path, records, views=VIEWS) -> str:
    return write_page(records, tmp_path / "report.html", views).read_text()


def table_of(text: str, title: str) -> list[list[str]]:
    (found,) = re.findall(
        rf"<summary>{re.escape(title)}</summary>.*?<table>(.*?)</table>", text, re.S
    )
    lines = re.findall(r"<tr.*?>(.*?)</tr>", found, re.S)
    cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", line, re.S) for line in lines]
    return [[html.unescape(re.sub(r"<.*?>", "", cell)) for cell in line] for line in cells]


def test_the_tables_hold_means_errors_n_and_seeds(tmp_path):
    header, *lines = table_of(content(tmp_path, rows()), "Top-1 accuracy (%)")
    assert header == ["model", "mixer", "params M", "seeds", "64 px", "96 px"]
    assert ["sema_nano", "sema", "0.50", "3", "70.0 ±1.2", "74.0 ±1.2"] in lines
    assert ["mila_nano", "mila", "0.50", "1", "70.0 ±4.6", "70.0 ±4.6"] in lines


def test_the_figures_hold_the_same_numbers_and_say_what_their_errors_are(tmp_path):
    figure = figures_of(content(tmp_path, rows()))["accuracy-top1-resolution-0"]
    sema, mila = figure["lines"]
    assert (sema["band"], mila["band"]) == (True, False)
    first = sema["points"][0]
    assert (first["x"], first["y"], first["seeds"]) == (64, 70.0, 3)
    assert first["high"] - first["low"] == pytest.approx(2 * 2 / 3**0.5)
    assert ["seeds", "3 (0, 1, 2)"] in first["facts"]
    assert ["n", "100"] in first["facts"]
    assert figure["errors"].startswith("Bands: standard error of the mean over 3 seeds, s/√seeds")
    assert "bars: binomial" in figure["errors"]
    assert {"y": pytest.approx(100 / 9), "label": "chance"} in figure["rules"]


def test_seeds_that_are_missing_at_a_resolution_are_said(tmp_path):
    kept = [
        r for r in rows() if not (r.measure == "accuracy" and (r.resolution, r.seed) == (96, 2))
    ]
    _, *lines = table_of(content(tmp_path, kept), "Top-1 accuracy (%)")
    assert lines[0][-1] == "73.0 ±1.0 (2 seeds)"


def test_cost_and_dispersion_have_a_figure_a_panel_with_their_own_errors(tmp_path):
    more = [*grid(mode="train"), random_row(seed=1), random_row(n=256, seed=1)]
    more.append(replace(head_row(), resolution=96, tokens=576))
    text = content(tmp_path, [*rows(), *more])
    figures = figures_of(text)
    titles = {figure["title"]: figure for figure in figures.values()}
    for panel in ("training step, eager", "inference, eager"):
        cost = titles[f"Throughput against resolution: {panel}"]
        assert "interquartile range over the timed windows" in cost["errors"]
        assert ["batch", "64"] in cost["lines"][0]["points"][0]["facts"]
    for panel in ("random inputs", "images"):
        assert f"Entropy / log n against tokens n: {panel}" in titles
    assert "1 seed" not in text
    assert "Energy of an image against resolution" not in " ".join(titles)  # nobody measured it


def test_cost_has_every_batch_exponents_and_crossings_that_sort_by_their_numbers(tmp_path):
    text = content(tmp_path, [*rows(), *grid(batch_size=8)])
    header, *speeds = table_of(text, "Images per second, eager")
    assert header[2:] == [f"infer {r} px batch {b}" for r in (64, 128, 256) for b in (8, 64)]
    assert all(all(line) for line in speeds)
    header, *fits = table_of(text, "Cost of an image ∝ tokens^k")
    assert header[-2:] == ["k, time", "k, memory"]
    assert [[line[0], line[4]] for line in fits] == [
        ["sema_nano", "1.00 ±0.00"],
        ["vit_nano", "2.00 ±0.00"],
    ]
    header, crossing = table_of(text, "Where time per image crosses")
    assert header[4:] == ["note", "crossing, px"]
    assert crossing == ["vit_nano", "sema_nano", "infer", "eager", "", "181"]
    assert re.search(r'<td class="number" data-value="181\.0\d+">181</td>', text)
    assert ">2.00 ±0.00</td>" in text
    alone = content(tmp_path, [r for r in grid() if r.resolution < 256])
    assert "tokens^k" not in alone  # two sizes tell no law
    assert "Where time per image crosses" not in alone


def test_a_mixer_has_one_colour_all_over_the_page_and_lines_differ_by_more(tmp_path):
    sizes = (64, 96)
    many = [row(f"model{i}_nano", n, mixer=f"mixer{i}") for i in range(20) for n in sizes]
    twins = [row(f"sema_{size}", n, mixer="sema") for size in ("nano", "tiny") for n in sizes]
    cost = [replace(r, measure="cost", mode="infer", execution="eager") for r in twins]
    figures = figures_of(content(tmp_path, [*many, *twins, *cost]))
    every = [line for figure in figures.values() for line in figure["lines"]]
    looks = {(x["mixer"], x["name"]): (x["colour"], x["marker"], x["dash"]) for x in every}
    assert len({look[0] for (mixer, _), look in looks.items() if mixer == "sema"}) == 1
    assert len(set(looks.values())) == len(looks) == 22


def test_where_the_numbers_come_from_is_on_the_page(tmp_path):
    told = {"versions": "torch 9.9", "commit": "c0ffee", "device": "Some GPU", "recipe": "mine"}
    text = content(tmp_path, [replace(record, **told) for record in rows()])
    for value in (
        *told.values(),
        "f" * 12,
        "shapes, 100 samples",
        "abc0, abc1, abc2",
        "2026-01-01",
    ):
        assert value in text


def test_a_name_from_a_row_is_text_everywhere(tmp_path):
    told = {"mixer": EVIL, "device": EVIL, "recipe": EVIL, "dataset": EVIL, "options": EVIL}
    evil = [row(EVIL, size, **told) for size in (64, 96)]
    text = content(tmp_path, [*evil, row(measure=EVIL)])
    assert "<script>window" not in text
    assert "<img" not in text
    assert text.count("</script>") == 2
    assert html.escape(EVIL, quote=False).replace("'", "&#39;") in text
    assert figures_of(text)["accuracy-top1-resolution-0"]["lines"][0]["model"] == EVIL


def test_the_page_loads_nothing_and_is_the_same_for_the_same_rows(tmp_path):
    text = content(tmp_path, rows())
    assert not re.findall(r"\bsrc=|url\(|@import|<link|<iframe|\bfetch\(|import\(", text)
    assert set(re.findall(r"https?://[^\s\"']+", text)) == {"http://www.w3.org/2000/svg"}
    assert set(re.findall(r'href="([^"]*)"', text)) == {"#accuracy", "#cost", "#dispersion"}
    assert "default-src 'none'" in text
    assert content(tmp_path, rows()) == text
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


TRIAL = View(
    measure="trial",
    title="Trial",
    about="Four tasks.",
    lines=lambda rows: group(
        rows,
        Series(
            sheet=lambda row: Sheet(row.dataset, row.dataset),
        ),
    ),
    tables=(
        Table(
            "Top-1",
            "top1",
            with_error,
            column=lambda _, place: (place, f"n {(place[0] // 8) ** 2:,}"),
            columns=lambda _: [Column("what", lambda line: line.name)],
        ),
    ),
    figures=(Figure("trial", "tokens", (Panel("top1", "Higher is better."),)),),
    notes=lambda _: ["a trial"],
)


def test_a_new_measure_is_one_description(tmp_path):
    made = [
        row("nano", 8 * n, 50 + seed, measure="trial", mixer=mixer, dataset=task, seed=seed)
        for n in (16, 64)
        for mixer in ("sema", "none")
        for task in ("needle", "recall")
        for seed in (0, 1)
    ]
    made = [replace(record, tokens=(record.resolution // 8) ** 2) for record in made]
    text = content(tmp_path, [row(), *made])
    assert "Not shown: 16 rows of measure trial" in text
    text = content(tmp_path, [row(), *made], [*VIEWS, TRIAL])
    assert "Not shown" not in text
    titles = [figure["title"] for figure in figures_of(text).values()]
    assert "Top-1 accuracy against tokens n: needle" in titles
    header, *lines = table_of(text, "Top-1, recall")
    assert header == ["what", "n 256", "n 4,096"]
    assert ["nano, none", "50.5 ±0.5", "50.5 ±0.5"] in lines


def test_a_study_has_a_panel_for_each_task_and_way_of_training(tmp_path):
    shared = {
        "measure": "study",
        "train_resolutions": (96, 112, 128),
        "readout": "query",
        "depth": 1,
    }
    shared |= {"classes": 8, "params": None}
    made = [
        row("probe", size, 50 + seed, mixer="sema", dataset=task, pairs=pairs, seed=seed, **shared)
        for task, pairs in (("needle", None), ("recall", 4), ("recall", 32))
        for seed in (0, 1)
        for size in (128, 256)
    ]
    deep = shared | {"depth": 2}
    made += [row("probe", n, 90, mixer="sema", dataset="needle", **deep) for n in (128, 256)]
    made = [replace(record, tokens=(record.resolution // 8) ** 2) for record in made]
    text = content(tmp_path, made)
    titles = [figure["title"].partition(": ")[2] for figure in figures_of(text).values()]
    way = "trained at 96, 112, 128 px"
    assert "<dt>trained at</dt><dd>96, 112, 128 px</dd>" in text
    assert titles == [
        f"needle, {way}",
        f"recall, 4 pairs, {way}",
        f"recall, 32 pairs, {way}",
        f"needle, {way}, 2 blocks",
        f"128 px, n 256, {way}",
        f"256 px, n 1,024, {way}",
    ]


def test_models_trained_at_each_size_are_one_line(tmp_path):
    shared = {"measure": "study", "readout": "query", "depth": 1, "classes": 8, "dataset": "needle"}

    def trained(size, config, tested=None, seed=0):
        told = {"train_resolutions": (size,), "train_resolution": size, "config": config}
        tokens = ((tested or size) // 8) ** 2
        return row(
            "probe", tested or size, 50, mixer="sema", seed=seed, tokens=tokens, **shared | told
        )

    pair = [trained(size, f"c{size}", seed=seed) for size in (128, 256) for seed in (0, 1)]
    (figure,) = figures_of(content(tmp_path, pair)).values()
    assert figure["title"].endswith("needle, trained at each size")
    (line,) = figure["lines"]
    assert [(point["x"], point["seeds"]) for point in line["points"]] == [(256, 2), (1024, 2)]

    def panels(records):
        titles = [figure["title"] for figure in figures_of(content(tmp_path, records)).values()]
        return [title.split(", ")[1] for title in titles]

    assert panels([*pair, trained(128, "c128", 512)]) == [
        "trained at 128 px",
        "trained at each size",
    ]
    assert panels(pair[:2]) == []  # of a single size
    assert "128 px" in content(tmp_path, pair[:2])


def test_every_figure_is_explained():
    for view in VIEWS:
        for figure in view.figures:
            assert {figure.x, *(panel.y for panel in figure.panels)} <= set(QUANTITIES)
            assert all(panel.read.endswith(".") for panel in figure.panels)


def test_of_a_single_size_the_page_has_a_table_and_no_figure(tmp_path):
    text = content(tmp_path, [row(), row("mila_nano"), *grid()])
    titles = [figure["title"] for figure in figures_of(text).values()]
    assert "Top-1 accuracy against resolution" not in titles
    assert "Throughput against resolution: inference, eager" in titles
    assert len(table_of(text, "Top-1 accuracy (%)")) == 3


def test_the_command_writes_the_page_and_names_it(tmp_path, capsys):
    append_record(tmp_path / "run" / "results.jsonl", row())
    main(["report", str(tmp_path), "--html", "--out", str(tmp_path / "out")])
    assert str(tmp_path / "out" / "report.html") in capsys.readouterr().out.splitlines()
    assert "<h2>Accuracy</h2>" in (tmp_path / "out" / "report.html").read_text()


def test_without_rows_there_is_no_page(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["report", str(tmp_path), "--html"])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "no results" in line
    with pytest.raises(SemabenchError, match="no rows that the page can show"):
        write_page([row(measure="other")], tmp_path / "report.html", VIEWS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("top1", Estimate(95.63, 94.9, 96.36, "samples"), "95.6 ±0.7"),
        ("top1", Estimate(95.63, 95.59, 95.67, "seeds", 3), "95.63 ±0.04"),
        ("top1", Estimate(100, 100, 100, "samples"), "100.0 ±0.0"),
        ("images_per_second", Estimate(12345.6, 12300.6, 12390.6, "windows"), "12,346 ±45"),
        ("images_per_second", Estimate(3.14159, 3.14159, 3.14159), "3.14"),
        ("entropy_ratio", Estimate(0.9, 0.85, 0.951, "range"), "0.900 (0.850 to 0.951)"),
        ("mean_distance", Estimate(7.6e-4, 7.6e-4, 7.6e-4), "0.000760"),
        ("effective_keys", Estimate(99.97, 99.97, 99.97), "100"),
    ],
)
def test_numbers_are_written_with_their_errors(field, value, text):
    assert QUANTITIES[field].text(value) == text
