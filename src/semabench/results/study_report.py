"""The part of a report that is about a study: tables, plots and a CSV file of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from semabench.files import atomic_write
from semabench.results.csv_file import compact_csv
from semabench.results.record import Record
from semabench.results.study_plot import plot_each, plot_pairs, plot_way
from semabench.results.study_summary import Way, trained_at_each
from semabench.results.study_table import study_tables
from semabench.results.text_table import markdown, print_table

if TYPE_CHECKING:
    from rich.console import Console


def write_study(records: Sequence[Record], ways: Sequence[Way], out_dir: Path) -> tuple[Path, ...]:
    """Write ``study.csv``, and for each way of training ``study-<way>.{png,svg}``.

    A way that was tested at one size has a table alone. With recall, ``study-pairs-<way>``,
    too; with models trained at several single sizes, ``study-each.{png,svg}``.

    Args:
        records: rows of a study, at least one.
        ways: the same, grouped.
        out_dir: created if need be.

    Returns:
        The files.
    """
    rows = out_dir / "study.csv"
    atomic_write(rows, compact_csv(records))
    plots: list[Path] = []
    for way in ways:
        captions = _captions([way])
        if any(len(points) > 1 for panel in way.panels for points in panel.curves.values()):
            plots += plot_way(way, captions, out_dir / f"study-{way.name}")
        plots += plot_pairs(way, captions, out_dir / f"study-pairs-{way.name}")
    singles = [way for way in ways if len(way.sizes) == 1 and way.usual]
    if panels := trained_at_each(singles):
        plots += plot_each(panels, _captions(singles), out_dir / "study-each")
    return rows, *plots


def study_markdown(ways: Sequence[Way], files: Sequence[Path]) -> str:
    """Return the tables in GitHub's Markdown, with the plots among ``files`` below them."""
    parts = ["## Study\n", describe_study(ways) + "\n"]
    parts += [markdown(table) for table in study_tables(ways)]
    parts += [f"![{p.stem.replace('-', ', ')}]({p.name})\n" for p in files if p.suffix == ".png"]
    return "\n".join(parts)


def print_study(ways: Sequence[Way], console: Console) -> None:
    """Print all tables on a terminal."""
    if not ways:
        return
    for table in study_tables(ways):
        print_table(table, console)
    console.print(describe_study(ways), style="dim", highlight=False)


def describe_study(ways: Sequence[Way]) -> str:
    """Return what the numbers are, and what all rows share."""
    return ". ".join(_captions(ways)) + "."


def _captions(ways: Sequence[Way]) -> list[str]:
    rows = [panel.first for way in ways for panel in way.panels]
    shared = [
        next(iter(values))
        for name in ("model", "device", "versions")
        if len(values := {getattr(row, name) for row in rows}) == 1
    ]
    estimates = [
        estimate
        for way in ways
        for panel in way.panels
        for points in panel.curves.values()
        for estimate in points.values()
    ]
    counts = sorted({estimate.count for estimate in estimates})
    seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    error = "the standard error of the mean over seeds"
    if 1 in counts:
        error = "binomial" if counts == [1] else f"{error}, of a single one binomial"
    samples = sorted({row.n for row in rows})
    n = f"{samples[0]:,}" if len(samples) == 1 else f"{samples[0]:,} to {samples[-1]:,}"
    word = "seed" if seeds == "1" else "seeds"
    return [", ".join(filter(None, shared)), f"{seeds} {word}, {n} pictures each; ± is {error}"]
