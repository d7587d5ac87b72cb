"""The part of a report that is about cost: tables, plots and CSV files of their own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from semabench.files import atomic_write
from semabench.results.cost_plot import plot_cost
from semabench.results.cost_summary import Subject, curves, executions
from semabench.results.cost_table import cost_tables
from semabench.results.csv_file import rows_csv, timm_benchmark_csv
from semabench.results.record import Record
from semabench.results.text_table import markdown, print_table

if TYPE_CHECKING:
    from rich.console import Console

_ON_SCREEN = ("Images per second", "Peak memory", "Cost of an image", "Where time")


def write_cost(
    records: Sequence[Record], chosen: Sequence[Subject], out_dir: Path
) -> tuple[Path, ...]:
    """Write ``cost.csv``, ``timm-benchmark.csv`` and ``cost-<mode>-<execution>.{png,svg}``.

    Args:
        records: rows of cost, at least one.
        chosen: the same, grouped by `cost_summary.subjects`.
        out_dir: created if need be.

    Returns:
        The files.
    """
    rows, timm = out_dir / "cost.csv", out_dir / "timm-benchmark.csv"
    atomic_write(rows, rows_csv(records))
    atomic_write(timm, timm_benchmark_csv(records))
    plots: list[Path] = []
    for mode, execution in product(("train", "infer"), executions(chosen)):
        plots += plot_cost(curves(chosen, mode, execution), out_dir / f"cost-{mode}-{execution}")
    return rows, timm, *plots


def cost_markdown(chosen: Sequence[Subject], files: Sequence[Path]) -> str:
    """Return the tables in GitHub's Markdown, with the plots among ``files`` below them."""
    parts = ["## Cost\n", describe_cost(chosen) + "\n"]
    parts += [markdown(table) for table in cost_tables(chosen)]
    parts += [f"![{p.stem.replace('-', ', ')}]({p.name})\n" for p in files if p.suffix == ".png"]
    return "\n".join(parts)


def print_cost(chosen: Sequence[Subject], console: Console) -> None:
    """Print speed, memory and scaling on a terminal; the rest is in the report's files."""
    if not chosen:
        return
    for table in cost_tables(chosen):
        if table.title.startswith(_ON_SCREEN):
            print_table(table, console)
    console.print(describe_cost(chosen), style="dim", highlight=False)


def describe_cost(chosen: Sequence[Subject]) -> str:
    """Return what all rows share, and what the numbers are."""
    rows = [row for subject in chosen for row in subject.rows.values()]
    shared = [
        next(iter(values))
        for name in ("precision", "device", "versions")
        if len(values := {getattr(row, name) for row in rows}) == 1
    ]
    rounds = sorted({row.rounds for row in rows if row.rounds})
    windows = f"{rounds[0]}" if len(rounds) == 1 else f"{rounds[0]} to {rounds[-1]}"
    sentences = [
        ", ".join(filter(None, shared)),
        f"Medians of {windows} timed windows, peers in turn; ± is half the interquartile range",
    ]
    if any(row.asked_batch_size for row in rows):
        sentences.append("(b N): memory ran out, and the batch was halved to N")
    return ". ".join(filter(None, sentences)) + "."
