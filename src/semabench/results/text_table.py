"""A table as text, for the terminal and in Markdown."""

from __future__ import annotations

import sys
from dataclasses import dataclass
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


def markdown(table: TextTable) -> str:
    """Return a heading and the table in GitHub's Markdown, ending with a newline."""
    rule = ["---" if i < table.words else "---:" for i in range(len(table.header))]
    header = [name.replace("\n", " ") for name in table.header]
    lines = [header, rule, *table.rows]
    return f"### {table.title}\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in lines)


def print_table(table: TextTable, console: Console) -> None:
    """Print a table whole: its numbers in as many parts, one below another, as the width demands.

    Before that, a number's standard error goes below it. Nothing is ever cut, unless the words and
    one column of numbers are wider than the console.
    """
    start, end = table.words, len(table.header)
    unbounded = console.options.update(max_width=sys.maxsize)  # or rich cuts what it measures, too
    while start < end:
        for stop in range(end, start, -1):
            ways = [_rich(table, start, stop, tall) for tall in (False, True)]
            widths = [console.measure(way, options=unbounded).maximum for way in ways]
            fitting = [w for w, width in zip(ways, widths, strict=True) if width <= console.width]
            if fitting or stop == start + 1:
                more = " (continued)" if start > table.words else ""
                console.print(f"{table.title}{more}", style="bold", highlight=False, markup=False)
                console.print((fitting or ways[-1:])[0])
                start = stop
                break


def _rich(table: TextTable, start: int, stop: int, tall: bool) -> Table:
    """Return the words and the columns from ``start`` to ``stop`` for rich's console.

    Args:
        table: the whole.
        start: first column of numbers.
        stop: end of these columns.
        tall: whether headers are broken at each space, and numbers before their standard error.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, pad_edge=False)
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
