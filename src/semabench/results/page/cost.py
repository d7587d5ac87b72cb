"""The report's own tables of cost, of every batch size: a figure shows one, and fits none."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from semabench.results.cost_summary import subjects
from semabench.results.cost_table import cost_tables
from semabench.results.page.tables import Cell, Row, Table
from semabench.results.record import Record
from semabench.results.text_table import TextTable


def tables_of_cost(records: Sequence[Record]) -> list[Table]:
    """Return what `cost_table.cost_tables` does, with what its cells are sorted by.

    A crossing is filtered with the model that is cheaper below it.
    """
    chosen = subjects(records)
    first = {subject.name: next(iter(subject.rows.values())) for subject in chosen}
    return [_table(text, first) for text in cost_tables(chosen)]


def _table(text: TextTable, first: dict[str, Record]) -> Table:
    header = tuple(name.replace("\n", " ") or "note" for name in text.header)
    rows = []
    for cells in text.rows:
        owner = first[cells[0]]
        told = tuple(Cell(cell, _value(cell, i < text.words)) for i, cell in enumerate(cells))
        rows.append(Row(owner.model, owner.mixer_or_model, told))
    return Table(text.title, header, tuple(rows), text.words)


def _value(text: str, is_word: bool) -> float | str | None:
    """Return what a cell is sorted by: of ``1.12 ±0.07`` the number before its error."""
    if is_word:
        return text
    with contextlib.suppress(ValueError, IndexError):
        return float(text.split()[0].replace(",", ""))
    return None
