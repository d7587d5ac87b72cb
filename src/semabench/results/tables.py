"""A view of some rows: its lines, and the tables that it describes of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from semabench.results.record import Record
from semabench.results.summary import Line, Place
from semabench.results.text_table import Cell, Grid, Row
from semabench.results.view import QUANTITIES, Table, View, estimate, facts


@dataclass(frozen=True)
class Section:
    """The rows of one measure, as lines and tables."""

    view: View
    records: list[Record]
    lines: list[Line]
    tables: list[Grid]

    @property
    def notes(self) -> str:
        """What all lines share and what their errors are, in sentences."""
        told = (note.removesuffix(".") for note in self.view.notes(self.lines))
        return ". ".join(filter(None, told)) + "."


def sections_of(records: Sequence[Record], views: Iterable[View]) -> list[Section]:
    """Return a section for each view that there are rows of."""
    found = []
    for view in views:
        if rows := [record for record in records if record.measure == view.measure]:
            lines = view.lines(rows)
            found.append(Section(view, rows, lines, build_tables(view, lines)))
    return found


def build_tables(view: View, lines: Sequence[Line]) -> list[Grid]:
    """Return what there is something to show of, in the view's order."""
    found = []
    for table in view.tables:
        for title in dict.fromkeys(map(table.split, lines)):
            grid = _grid(table, title, [line for line in lines if table.split(line) == title])
            if grid:
                found.append(grid)
    return [*found, *view.more(lines)]


def _grid(table: Table, title: str, lines: Sequence[Line]) -> Grid | None:
    """Return the table of these lines; those that share what identifies them share a row."""
    rows: dict[tuple[object, ...], list[tuple[Line, Place, str]]] = {}
    for line in lines:
        told = [(line, p, text) for p in line.points if (text := _text(table, line, p))]
        if told:
            rows.setdefault(line.key, []).extend(told)
    if not rows:
        return None
    columns = table.columns([told[0][0] for told in rows.values()])
    heads = dict(sorted({table.column(line, p) for told in rows.values() for line, p, _ in told}))
    made = []
    for told in rows.values():
        line = told[0][0]
        cells = []
        for column in columns:
            text = column.text(line)
            number = float(text.replace(",", "")) if text and column.number else None
            cells.append(Cell(text, number if column.number else text))
        at = {table.column(line, place)[0]: (line, place, text) for line, place, text in told}
        cells += [_cell(table, *at[head]) if head in at else Cell("") for head in heads]
        made.append(Row(line.first.model, line.mixer, cells))
    words = sum(not column.number for column in columns)
    header = [*(column.name for column in columns), *heads.values()]
    return Grid(", ".join(filter(None, (table.title, title))), header, made, words, table.brief)


def _text(table: Table, line: Line, place: Place) -> str:
    if table.cell is not None:
        return table.cell(line, place)
    value = estimate(line, place, table.quantity)
    return "" if value is None else table.form(value)


def _cell(table: Table, line: Line, place: Place, text: str) -> Cell:
    """Return a cell, with its own count of seeds where that is not the line's."""
    value = estimate(line, place, table.quantity)
    told = [f"{name} {said}" for name, said in facts(line, place).items()]
    if value is not None and value.of:
        told.insert(0, QUANTITIES[table.quantity].text(value))
    count = line.count(place)
    if count != line.seeds and not line.series.ranged:
        text = f"{text} ({count} seed{'s'[: count - 1]})"
    return Cell(text, None if value is None else value.mean, ", ".join(told))
