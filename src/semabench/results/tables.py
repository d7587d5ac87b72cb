"""The tables that a view describes, made of its lines."""

from __future__ import annotations

from collections.abc import Sequence

from semabench.results.summary import Line, Place
from semabench.results.text_table import Cell, Grid, Row
from semabench.results.view import QUANTITIES, Column, Table, View, estimate, facts


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
    shown = [told[0][0] for told in rows.values()]
    columns = table.columns(shown)
    heads = dict(sorted({table.column(line, p) for told in rows.values() for line, p, _ in told}))
    made = []
    for told in rows.values():
        line = told[0][0]
        cells = [_head(column, line) for column in columns]
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


def _head(column: Column, line: Line) -> Cell:
    text = column.text(line)
    if not column.number:
        return Cell(text, text)
    return Cell(text, float(text.replace(",", "")) if text else None)


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
