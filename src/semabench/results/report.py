"""One report for any set of runs: the tables, the rows as CSV, and the plots.

Rows of accuracy, of cost, of dispersion and of a study never share a table.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from semabench.files import atomic_write
from semabench.results.cost_report import cost_markdown, print_cost, write_cost
from semabench.results.cost_summary import Subject, subjects
from semabench.results.csv_file import timm_csv
from semabench.results.dispersion_report import (
    dispersion_markdown,
    print_dispersion,
    write_dispersion,
)
from semabench.results.dispersion_summary import Curve, dispersion_curves
from semabench.results.page.write import write_page
from semabench.results.plot import plot_accuracy, plot_throughput
from semabench.results.store import read_results
from semabench.results.study_report import print_study, study_markdown, write_study
from semabench.results.study_summary import Way, study_ways
from semabench.results.summary import Line, describe_errors, describe_setting, summarise
from semabench.results.table import (
    Measure,
    accuracy_cell,
    markdown_table,
    summary_csv,
    text_table,
    throughput_cell,
)
from semabench.results.text_table import print_table

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
    csv: tuple[Path, ...]  # of accuracy: every row, and the means over seeds
    plots: tuple[Path, ...]
    lines: tuple[Line, ...]
    cost: tuple[Path, ...] = ()
    subjects: tuple[Subject, ...] = ()  # of cost
    dispersion: tuple[Path, ...] = ()
    curves: tuple[Curve, ...] = ()  # of dispersion
    page: Path | None = None
    study: tuple[Path, ...] = ()
    ways: tuple[Way, ...] = ()  # of a study

    @property
    def files(self) -> tuple[Path, ...]:
        """All files written."""
        page = [self.page] if self.page else []
        parts = self.csv, self.plots, self.cost, self.dispersion, self.study
        return self.markdown, *page, *itertools.chain(*parts)


def report(paths: Iterable[Path], out_dir: Path, html: bool = False) -> ReportPaths:
    """Write ``report.md``, ``results.csv``, ``summary.csv``, ``{accuracy,throughput}.{png,svg}``.

    Runs that differ by their seed alone are one line: a mean over seeds with its standard error
    (`summary.summarise`). Rows of cost give the files of `cost_report.write_cost`, those of
    dispersion the files of `dispersion_report.write_dispersion`, those of a study the files of
    `study_report.write_study`.

    Args:
        paths: results files, run directories or folders above them.
        out_dir: created if need be; files of an earlier report are replaced, each atomically.
        html: write ``report.html``, too (`page.write.write_page`).

    Raises:
        SemabenchError: no results, damaged results, or ``out_dir`` cannot be written.
    """
    records = read_results(paths)
    markdown = out_dir / "report.md"
    accuracy = [record for record in records if record.measure == "accuracy"]
    cost = [record for record in records if record.measure == "cost"]
    text = ["# Results\n"]
    csv: tuple[Path, ...] = ()
    plots, lines = [], []
    if accuracy:
        lines, csv = summarise(accuracy), (out_dir / "results.csv", out_dir / "summary.csv")
        atomic_write(csv[0], timm_csv(accuracy))
        atomic_write(csv[1], summary_csv(lines))
        plots = [*plot_accuracy(lines, out_dir / "accuracy")]
        plots += plot_throughput(lines, out_dir / "throughput")
        text.append(_markdown(lines, plots))
    chosen = subjects(cost)
    files: tuple[Path, ...] = ()
    if cost:
        files = write_cost(cost, chosen, out_dir)
        text.append(cost_markdown(chosen, files))
    dispersed = [record for record in records if record.measure == "dispersion"]
    curves = dispersion_curves(dispersed)
    drawn: tuple[Path, ...] = ()
    if dispersed:
        drawn = write_dispersion(dispersed, curves, out_dir)
        text.append(dispersion_markdown(curves, drawn))
    studied = [record for record in records if record.measure == "study"]
    ways = study_ways(studied)
    shown: tuple[Path, ...] = ()
    if studied:
        shown = write_study(studied, ways, out_dir)
        text.append(study_markdown(ways, shown))
    atomic_write(markdown, "\n".join(text))
    page = write_page(records, out_dir / "report.html") if html else None
    return ReportPaths(
        markdown,
        csv,
        tuple(plots),
        tuple(lines),
        cost=files,
        subjects=tuple(chosen),
        dispersion=drawn,
        curves=tuple(curves),
        study=shown,
        ways=tuple(ways),
        page=page,
    )


def tell_report(paths: Iterable[Path], out_dir: Path, html: bool = False) -> None:
    """Write a report as ``report`` does; print its tables and the files written on the terminal."""
    from rich.console import Console

    written = report(paths, out_dir, html)
    print_report(written, Console())
    for file in written.files:
        print(file)


def print_report(written: ReportPaths, console: Console) -> None:
    """Print all tables of a report on a terminal."""
    if written.lines:
        print_tables(written.lines, console)
    print_cost(written.subjects, console)
    print_dispersion(written.curves, console)
    print_study(written.ways, console)


def print_tables(lines: Sequence[Line], console: Console) -> None:
    """Print the report's tables on a terminal, with what all lines share and what ± means."""
    for title, _, measure in _SECTIONS:
        if _has_numbers(lines, measure):
            print_table(text_table(lines, measure, title), console)
    notes = ". ".join(filter(None, [describe_setting(lines), describe_errors(lines)]))
    console.print(notes, style="dim", highlight=False)


def _markdown(lines: Sequence[Line], plots: Sequence[Path]) -> str:
    parts = [describe_setting(lines) + "\n"]
    for title, stem, measure in _SECTIONS:
        if not _has_numbers(lines, measure):
            continue
        parts += [f"## {title}\n", markdown_table(lines, measure)]
        parts += [f"![{title} against resolution]({p.name})\n" for p in plots if p.stem == stem][:1]
    parts.append(describe_errors(lines) + "\n")
    return "\n".join(part for part in parts if part.strip())


def _has_numbers(lines: Sequence[Line], measure: Measure) -> bool:
    return any(measure(cell) for line in lines for cell in line.cells.values())
