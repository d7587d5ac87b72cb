"""The numbers behind the figures, as tables: a row a line, a column for each x."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from semabench.results.page.family import Family, Figure, Line
from semabench.results.page.figures import title_of
from semabench.results.page.quantity import QUANTITIES, Value


@dataclass(frozen=True)
class Cell:
    """A cell's text, what it is sorted by, and what a pointer that rests on it is told."""

    text: str
    value: float | str | None = None
    title: str = ""


@dataclass(frozen=True)
class Row:
    """A line of the page, by which it is filtered."""

    model: str
    mixer: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """The first ``words`` columns are words, the others numbers."""

    title: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    words: int


def tables(family: Family, lines: Sequence[Line]) -> list[Table]:
    """Return one table for each figure that has one and has numbers."""
    found = []
    for figure in family.figures:
        shown = [line for line in lines if any(figure.y in p.values for p in line.points)]
        if figure.table and shown:
            found.append(_table(figure, shown))
    return found


def _table(figure: Figure, lines: Sequence[Line]) -> Table:
    x, y = QUANTITIES[figure.x], QUANTITIES[figure.y]
    places = sorted({_place(p.values[figure.x]) for line in lines for p in line.points})
    panels = len({line.panel for line in lines}) > 1
    seeds = any(len(_seeds(line)) > 1 for line in lines)
    samples = any(line.records[0].n for line in lines)
    units = f" {x.unit}" if x.unit else ""
    header = ["model", "mixer", *(["what"] if panels else [])]
    words = len(header)
    header += ["params M", *(["n"] if samples else []), *(["seeds"] if seeds else [])]
    header += [f"{'n ' if not x.unit else ''}{place:,.0f}{units}" for place in places]
    rows = []
    for line in lines:
        first = line.records[0]
        cells = [Cell(line.name, line.name), Cell(line.mixer_or_model, line.mixer_or_model)]
        cells += [Cell(line.panel, line.panel)] if panels else []
        millions = None if first.params is None else first.params / 1e6
        cells.append(Cell("" if millions is None else f"{millions:.2f}", millions))
        cells += [Cell(f"{first.n:,}", first.n)] if samples else []
        cells += [Cell(str(len(_seeds(line))), len(_seeds(line)))] if seeds else []
        at = {_place(p.values[figure.x]): p for p in line.points if figure.y in p.values}
        for place in places:
            if place not in at:
                cells.append(Cell(""))
                continue
            value = at[place].values[figure.y]
            facts = ", ".join(f"{name} {text}" for name, text in at[place].facts.items())
            few = value.seeds if seeds and value.seeds != len(_seeds(line)) else 0
            text = y.text(value) + (f" ({few} seed{'s'[: few - 1]})" if few else "")
            cells.append(Cell(text, value.mean, facts))
        rows.append(Row(line.model, line.mixer_or_model, tuple(cells)))
    unit = f" ({y.unit})" if y.unit else ""
    return Table(title_of(figure) + unit, tuple(header), tuple(rows), words)


def _place(value: Value) -> float:
    return round(value.mean, 6)


def _seeds(line: Line) -> set[int | None]:
    return {row.seed for row in line.records}
