"""Tables of a study: a row a mixer, a column a resolution."""

from __future__ import annotations

from collections.abc import Sequence

from semabench.results.study_summary import Panel, Way, trained_at_each
from semabench.results.summary import Estimate
from semabench.results.text_table import TextTable

CELL = 8  # pixels of a token's side


def study_tables(ways: Sequence[Way]) -> list[TextTable]:
    """Return a table for each way of training, task and m, then those trained at each size."""
    tables = [_table(panel, f"{panel.title}, {way.title}") for way in ways for panel in way.panels]
    each = [_table(p, f"{p.title}, trained at each size") for p in trained_at_each(ways)]
    return tables + each


def tokens(resolution: int) -> int:
    """Return n at a resolution."""
    return (resolution // CELL) ** 2


def _table(panel: Panel, title: str) -> TextTable:
    sizes = _sizes(panel)
    header = ["top-1 %", *(f"{size} px\nn {tokens(size):,}" for size in sizes)]
    rows = [
        [mixer, *(_cell(points.get(size)) for size in sizes)]
        for mixer, points in panel.curves.items()
    ]
    return TextTable(title, header, rows)


def _sizes(panel: Panel) -> list[int]:
    return sorted({size for points in panel.curves.values() for size in points})


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    error = "" if estimate.stderr is None else f" ±{estimate.stderr:.1f}"
    return f"{estimate.mean:.1f}{error}"
