"""The part of a report that is about dispersion: tables, plots and a CSV file of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from semabench.files import atomic_write
from semabench.results.csv_file import rows_csv
from semabench.results.dispersion_plot import plot_dispersion
from semabench.results.dispersion_summary import Curve, inputs_of
from semabench.results.dispersion_table import NOTES, dispersion_tables
from semabench.results.record import Record
from semabench.results.text_table import markdown, print_table

if TYPE_CHECKING:
    from rich.console import Console


def write_dispersion(
    records: Sequence[Record], curves: Sequence[Curve], out_dir: Path
) -> tuple[Path, ...]:
    """Write ``dispersion.csv`` and ``dispersion-{random,pictures}.{png,svg}``.

    Args:
        records: rows of dispersion, at least one.
        curves: the same, grouped.
        out_dir: created if need be.

    Returns:
        The files.
    """
    rows = out_dir / "dispersion.csv"
    atomic_write(rows, rows_csv(records))
    plots: list[Path] = []
    for random, name in ((True, "random"), (False, "pictures")):
        chosen = [curve for curve in curves if curve.random is random]
        stem = out_dir / f"dispersion-{name}"
        plots += plot_dispersion(chosen, _captions(chosen), stem) if chosen else []
    return rows, *plots


def dispersion_markdown(curves: Sequence[Curve], files: Sequence[Path]) -> str:
    """Return the tables in GitHub's Markdown, with the plots among ``files`` below them."""
    parts = ["## Dispersion\n", describe_dispersion(curves) + "\n"]
    parts += [markdown(table) for table in dispersion_tables(curves)]
    parts += [f"![{p.stem.replace('-', ', ')}]({p.name})\n" for p in files if p.suffix == ".png"]
    return "\n".join(parts)


def print_dispersion(curves: Sequence[Curve], console: Console) -> None:
    """Print all tables on a terminal."""
    if not curves:
        return
    for table in dispersion_tables(curves):
        print_table(table, console)
    console.print(describe_dispersion(curves), style="dim", highlight=False)


def describe_dispersion(curves: Sequence[Curve]) -> str:
    """Return what the numbers are, and what all rows share."""
    rows = _rows(curves)
    shared = [
        next(iter(values))
        for name in ("precision", "device", "versions")
        if len(values := {getattr(row, name) for row in rows}) == 1
    ]
    return ". ".join(filter(None, [", ".join(filter(None, shared)), NOTES])) + "."


def _captions(curves: Sequence[Curve]) -> list[str]:
    """Say in one line what was measured; the bars in a second."""
    rows = _rows(curves)
    queries = f"{max(row.queries or 0 for row in rows)} queries"
    if curves[0].random:
        seeds = len({row.seed for row in rows})
        inputs = {inputs_of(row) for row in rows}
        what = inputs.pop() if len(inputs) == 1 else "random inputs"
        bars = f"bars: lowest to highest of {seeds} seeds" if seeds > 1 else "one seed, no bars"
        return [f"{what}, {queries}", bars]
    pictures = max(row.n for row in rows)
    datasets = "+".join(sorted({row.dataset for row in rows}))
    several = len({curve.name for curve in curves}) > 1
    seeds = max(len(seeds) for seeds in _seeds(curves))
    bars = "bars: lowest to highest head" + (f" of {seeds} seeds" if seeds > 1 else "")
    bars += ", first stage of each model" if several else ""
    return [f"{datasets}, {pictures} pictures, {queries} each", bars]


def _seeds(curves: Sequence[Curve]) -> list[set[int | None]]:
    return [{row.seed for row in _rows([curve])} for curve in curves]


def _rows(curves: Sequence[Curve]) -> list[Record]:
    return [row for curve in curves for rows in curve.points.values() for row in rows]
