"""A table as text, for the terminal and in Markdown."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@dataclass(frozen=True)
class TextTable:
    """A table as text: the first ``words`` columns are words, the others numbers.

    Line breaks in the header are where it is best broken.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    words: int = 1


@dataclass(frozen=True)
class Cell:
    """A cell's text, what it is sorted by, and what a pointer that rests on it is told."""

    text: str
    value: float | str | None = None
    hint: str = ""


@dataclass(frozen=True)
class Row:
    """Cells, and by what the page filters them."""

    model: str
    mixer: str
    cells: list[Cell]


@dataclass(frozen=True)
class Grid:
    """A table of results, which the page can sort and filter."""

    title: str
    header: list[str]  # header, words: as in `TextTable`
    rows: list[Row]
    words: int = 1
    brief: bool = True  # whether the terminal shows it, too

    def text(self) -> TextTable:
        """Return it as text."""
        rows = [[cell.text for cell in row.cells] for row in self.rows]
        return TextTable(self.title, self.header, rows, self.words)


def markdown(table: TextTable) -> str:
    """Return the table in GitHub's Markdown, ending with a newline."""
    rule = ["---" if i < table.words else "---:" for i in range(len(table.header))]
    header = [name.replace("\n", " ") for name in table.header]
    lines = ([cell.replace("|", "\\|") for cell in row] for row in [header, rule, *table.rows])
    return "".join(f"| {' | '.join(row)} |\n" for row in lines)


def print_table(table: TextTable, console: Console) -> None:
    """Print a table whole: its numbers in as many parts, one below another, as the width demands.

    Before that, a number's standard error goes below it, columns move closer, and, if that leaves
    one part, names go on in a second line. Nothing is ever cut, unless the words and one column of
    numbers are wider than the console.
    """
    table = _folded(table, console)
    start, end = table.words, len(table.header)
    while start < end:
        for stop in range(end, start, -1):
            ways = [_rich(table, start, stop, *way) for way in _WAYS]
            fitting = [way for way in ways if _width(way, console) <= console.width]
            if fitting or stop == start + 1:
                more = " (continued)" if start > table.words else ""
                console.print(f"{table.title}{more}", style="bold", highlight=False, markup=False)
                console.print((fitting or ways[-1:])[0])
                start = stop
                break


_WAYS = ((False, False), (True, False), (True, True))  # tall, close: the first that fits is taken
_LEAST = 20  # characters of a name's first line


def _width(made: Table, console: Console) -> int:
    """Return how wide a table is, whatever the console's width: rich cuts what it measures, too."""
    return console.measure(made, options=console.options.update(max_width=sys.maxsize)).maximum


def _folded(table: TextTable, console: Console) -> TextTable:
    """Break the names in the widest column of words, if that is what keeps a table in one part."""
    lengths = [max((len(row[i]) for row in table.rows), default=0) for i in range(table.words)]
    surplus = _width(_rich(table, table.words, len(table.header), *_WAYS[-1]), console)
    surplus -= console.width
    limit = max(lengths, default=0) - surplus
    if surplus <= 0 or limit < _LEAST:
        return table
    widest = lengths.index(max(lengths))
    rows = [[*row[:widest], fold(row[widest], limit), *row[widest + 1 :]] for row in table.rows]
    folded = replace(table, rows=rows)
    made = _rich(folded, table.words, len(table.header), *_WAYS[-1])
    return folded if _width(made, console) <= console.width else table


def fold(name: str, limit: int) -> str:
    """Break a name into lines of at most ``limit`` characters: behind dots, else any mark or space.

    >>> fold("swin_base_patch4_window7_224.ms_in1k", 30)
    'swin_base_patch4_window7_224.\\n  ms_in1k'
    """
    for marks in (".", "_./ -"):
        lines = [""]
        for part in re.findall(f"[^{marks}]*[{marks}]|[^{marks}]+$", name):
            if lines[-1].strip() and len(lines[-1] + part) > limit:
                lines.append("  ")
            lines[-1] += part
        if max(map(len, lines)) <= limit:
            break
    return "\n".join(lines)


def _rich(table: TextTable, start: int, stop: int, tall: bool, close: bool) -> Table:
    """Return the words and the columns of numbers from ``start`` to ``stop`` for rich's console.

    A ``tall`` one breaks headers at each space, and numbers before their standard error; in a
    ``close`` one columns are two characters apart, not three.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=close)
    shown = [*range(table.words), *range(start, stop)]

    def text(cell: str, position: int, space: str) -> str:
        broken = tall and position >= table.words
        return cell.replace(space, f"\n{space.strip()}") if broken else cell

    for position in shown:
        justify: Literal["left", "right"] = "right" if position >= table.words else "left"
        name = text(table.header[position], position, " ")
        made.add_column(name, justify=justify, no_wrap=True)
    for row in table.rows:
        made.add_row(*(text(row[position], position, " ±") for position in shown))
    return made
