"""A table as text, for the terminal and in Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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


def terminal(table: TextTable) -> Table:
    """Return the table for rich's console."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(title=table.title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for position, name in enumerate(table.header):
        numeric = position >= table.words
        made.add_column(name, justify="right" if numeric else "left", no_wrap=not numeric)
    for row in table.rows:
        made.add_row(*row)
    return made
