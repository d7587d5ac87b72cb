"""How a study is shown: accuracy of every task against the number of tokens, and against m."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from semabench.results.csv_file import compact_csv
from semabench.results.record import Record
from semabench.results.summary import (
    Line,
    Place,
    Series,
    Sheet,
    describe_shared,
    errors_of,
    group,
    rows_of,
    span,
)
from semabench.results.view import Column, Figure, Panel, Rule, Table, View, chance, with_error

TASKS = ("texture", "majority", "needle", "recall")
MIXERS = (
    *("sema", "window", "mean", "softmax", "linear", "mila"),
    *("focused", "rala", "ssd", "ssm", "none"),
)
"""Orders of tables and figures, whatever finished first. Others come after, by name."""

CELL = 8  # pixels of a token's side
EACH = "each"  # of the sheet of models that were trained at each size that they are tested at

_READOUTS = {"query": "", "attention": "attention-pooled", "avg": "averaged"}


def lines(records: Sequence[Record]) -> list[Line]:
    """Return a line for each mixer, task, m and way of training; then those trained at each size.

    Tasks have settings of their own (``config``) within one way; a second one for the same task,
    of another learning rate, say, is another way.
    """
    ways: dict[tuple[object, ...], Sheet] = {}
    configs: dict[tuple[object, ...], list[str]] = {}
    several = len({row.device for row in records}) > 1
    way_of: dict[int, tuple[object, ...]] = {}
    for row in records:
        key = row.train_resolutions, row.readout, row.depth, row.tested_on, row.device
        known = configs.setdefault((*key, row.dataset), [])
        if row.config not in known:
            known.append(row.config)
        way = (known.index(row.config) > 0 and row.config, *key)
        ways.setdefault(way, _sheet(row, several, config=bool(way[0])))
        way_of[id(row)] = way
    places = {way: number for number, way in enumerate(ways)}
    own = Series(
        sheet=lambda row: ways[way_of[id(row)]],
        panel=_panel,
        order=lambda row: (places[way_of[id(row)]], *_order(row)),
    )
    each = Series(
        sheet=lambda _: Sheet(EACH, "trained at each size"),
        panel=lambda row: ", ".join([_panel(row), *([row.device] if several else [])]),
        order=_order,
    )
    usual = [
        row
        for row in records
        if way_of[id(row)][0] is False
        and (row.readout, row.depth) == ("query", 1)
        and row.tested_on != "calibration"
        and row.train_resolutions == (row.resolution,)
    ]
    here = group(usual, each)
    sizes: dict[str, set[Place]] = {}
    for line in here:
        sizes.setdefault(line.panel, set()).update(line.points)
    found = group(records, own) + [line for line in here if len(sizes[line.panel]) > 1]
    return [replace(line, name=line.first.mixer_or_model) for line in found]


def _sheet(row: Record, with_device: bool, config: bool) -> Sheet:
    extra = [
        _READOUTS[row.readout],
        "" if row.depth == 1 else f"{row.depth} blocks",
        "calibration images" if row.tested_on == "calibration" else "",
        f"config {row.config}" if config else "",
        row.device if with_device else "",
    ]
    told = [text for text in extra if text]
    sizes = "-".join(map(str, row.train_resolutions)) + "px"
    name = "-".join([sizes, *told]).replace(" ", "-")
    return Sheet(name, ", ".join([f"trained at {row.trained_at}", *told]))


def _panel(row: Record) -> str:
    return row.dataset if row.pairs is None else f"{row.dataset}, {row.pairs} pairs"


def _order(row: Record) -> tuple[tuple[int, str], int, tuple[int, str]]:
    return _place(TASKS, row.dataset), row.pairs or 0, _place(MIXERS, row.mixer)


def _place(order: Sequence[str], name: str) -> tuple[int, str]:
    return (order.index(name) if name in order else len(order), name)


def by_pairs(lines: Sequence[Line]) -> list[Line]:
    """Return recall against m, in a panel for the smallest resolution and one for the largest."""
    found = []
    for sheet in dict.fromkeys(line.sheet for line in lines if line.sheet.name != EACH):
        of_sheet = rows_of(line for line in lines if line.sheet == sheet)
        rows = [row for row in of_sheet if row.pairs is not None]
        ends = {row.resolution for row in rows}
        ends &= {min(ends), max(ends)} if ends else set()
        against_m = Series(
            place=(lambda row: row.pairs,),
            sheet=lambda _, sheet=sheet: sheet,  # type: ignore[misc]
            panel=lambda row: f"{row.resolution} px, n {tokens(row.resolution):,}",
            order=lambda row: (row.resolution, _order(row)),
        )
        found += group([row for row in rows if row.resolution in ends], against_m)
    return [replace(line, name=line.first.mixer_or_model) for line in found]


def without_middle(lines: Sequence[Line]) -> list[Line]:
    """Leave out recall with an m between the least and the greatest of its sheet."""
    ends: dict[Sheet, set[int | None]] = {}
    for sheet in dict.fromkeys(line.sheet for line in lines):
        choices = [line.first.pairs for line in lines if line.sheet == sheet]
        known = [pairs for pairs in choices if pairs is not None]
        ends[sheet] = {None, min(known), max(known)} if known else {None}
    return [line for line in lines if line.first.pairs in ends[line.sheet]]


def tokens(resolution: int) -> int:
    """Return n at a resolution."""
    return (resolution // CELL) ** 2


def notes(lines: Sequence[Line]) -> list[str]:
    """Return what all rows share, and what the errors are."""
    return [*_captions(lines), errors_of(lines, "top1")]


def _captions(lines: Sequence[Line]) -> list[str]:
    rows = [line.first for line in lines]
    seeds = span(line.count(place) for line in lines for place in line.points)
    return [
        describe_shared(rows, ("model", "device", "versions")),
        f"{seeds} seed{'' if seeds == '1' else 's'}, {span(row.n for row in rows)} images each",
    ]


def _rules(lines: Sequence[Line]) -> list[Rule]:
    """Return chance, the ceiling, and the sizes of training."""
    sizes = [size for line in lines for size in line.first.train_resolutions]
    shaded = Rule(x=tokens(min(sizes)), to=tokens(max(sizes))) if sizes else None
    each = lines[0].sheet.name == EACH
    return [*chance(lines), Rule("ceiling", y=100), *([shaded] if shaded and not each else [])]


def _title(lines: Sequence[Line]) -> str:
    shaded = "" if lines[0].sheet.name == EACH else " (shaded)"
    return f"Accuracy against the number of tokens, {lines[0].sheet.title}{shaded}"


VIEW = View(
    measure="study",
    title="Study",
    about="Procedural tasks that isolate one ability each; a model is trained on small images and "
    "tested as they, and so the number of tokens n, grow (docs/study.md).",
    lines=lines,
    tables=(
        Table(
            "",
            "top1",
            with_error,
            column=lambda _, place: (place, f"{place[0]} px\nn {tokens(place[0]):,}"),
            columns=lambda _: [Column("top-1 %", lambda line: line.name)],
            split=lambda line: f"{line.panel}, {line.sheet.title}",
        ),
    ),
    figures=(
        Figure(
            "study",
            "tokens",
            (
                Panel(
                    "top1",
                    "Higher is better. Nothing but the size changes to the right: what a line "
                    "keeps there is what the mixer can still do at more tokens than it was trained "
                    "on. Where models are trained at each size, every point is a model of its own.",
                    limits=(0, 108),
                    rules=_rules,
                ),
            ),
            title=_title,
            captions=_captions,
            room=without_middle,
        ),
        Figure(
            "study-pairs",
            "pairs",
            (
                Panel(
                    "top1",
                    "Higher is better. To the right there is more to keep apart, in an image of "
                    "the same size: a line that falls has less room than the task asks for.",
                    limits=(0, 108),
                    rules=lambda lines: [*chance(lines), Rule("ceiling", y=100)],
                ),
            ),
            title=lambda lines: f"Recall against m, {lines[0].sheet.title}",
            captions=_captions,
            lines=by_pairs,
        ),
    ),
    notes=notes,
    csv=(("study.csv", compact_csv),),
)
