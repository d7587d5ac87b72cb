"""One report for any set of runs: the table, the rows as CSV, and the plots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from semabench.files import atomic_write
from semabench.results.plot import plot_accuracy, plot_throughput
from semabench.results.store import read_results
from semabench.results.summary import Line, describe_errors, describe_setting, summarise
from semabench.results.table import (
    Measure,
    accuracy_cell,
    csv_table,
    markdown_table,
    terminal_table,
    throughput_cell,
)

if TYPE_CHECKING:
    from rich.console import Console

_SECTIONS: tuple[tuple[str, str, Measure], ...] = (
    ("Top-1 accuracy (%)", "accuracy", accuracy_cell),
    ("Images per second", "throughput", throughput_cell),
)


@dataclass(frozen=True)
class ReportPaths:
    """What a report consists of. A plot without a single number is not drawn and not listed."""

    markdown: Path
    csv: Path
    plots: tuple[Path, ...]
    lines: tuple[Line, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """All files written."""
        return (self.markdown, self.csv, *self.plots)


def report(paths: Iterable[Path], out_dir: Path) -> ReportPaths:
    """Write ``report.md``, ``results.csv``, ``accuracy.{png,svg}`` and ``throughput.{png,svg}``.

    Args:
        paths: results files, run directories or folders above them.
        out_dir: created if need be; files of an earlier report are replaced, each atomically.

    Raises:
        SemabenchError: no results, damaged results, or ``out_dir`` cannot be written.
    """
    records = read_results(paths)
    lines = summarise(records)
    csv, markdown = out_dir / "results.csv", out_dir / "report.md"
    atomic_write(csv, csv_table(records))
    plots = [*plot_accuracy(lines, out_dir / "accuracy")]
    plots += plot_throughput(lines, out_dir / "throughput")
    atomic_write(markdown, _markdown(lines, plots))
    return ReportPaths(markdown, csv, tuple(plots), tuple(lines))


def print_tables(lines: Sequence[Line], console: Console) -> None:
    """Print the report's tables on a terminal, with what all lines share and what ± means."""
    for title, _, measure in _SECTIONS:
        if _has_numbers(lines, measure):
            console.print(terminal_table(lines, measure, title))
    notes = ". ".join(filter(None, [describe_setting(lines), describe_errors(lines)]))
    console.print(notes, style="dim", highlight=False)


def _markdown(lines: Sequence[Line], plots: Sequence[Path]) -> str:
    parts = ["# Results\n", describe_setting(lines) + "\n"]
    for title, stem, measure in _SECTIONS:
        if not _has_numbers(lines, measure):
            continue
        parts += [f"## {title}\n", markdown_table(lines, measure)]
        parts += [f"![{title} against resolution]({p.name})\n" for p in plots if p.stem == stem][:1]
    parts.append(describe_errors(lines) + "\n")
    return "\n".join(part for part in parts if part.strip())


def _has_numbers(lines: Sequence[Line], measure: Measure) -> bool:
    return any(measure(cell) for line in lines for cell in line.cells.values())
