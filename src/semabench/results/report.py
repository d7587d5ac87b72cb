"""One report for any set of runs: tables, files of the rows, plots and, if asked for, a page.

Rows of different measures never share a table. How each is shown, its `view.View` says.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from semabench.errors import SemabenchError
from semabench.files import atomic_write
from semabench.results.page import write_page
from semabench.results.plot import plot_figure
from semabench.results.store import read_results
from semabench.results.tables import Section, sections_of
from semabench.results.text_table import markdown, print_table
from semabench.results.view import View

if TYPE_CHECKING:
    from rich.console import Console

PICTURES = "pictures"  # in a run's directory, see `evaluation.pictures`


@dataclass(frozen=True)
class Report:
    """What was written, and the sections behind it."""

    files: tuple[Path, ...]
    sections: tuple[Section, ...]


def write_report(
    paths: Iterable[Path], out_dir: Path, views: Sequence[View], html: bool = False
) -> Report:
    """Write ``report.md``, and for each measure the CSV files and plots that its view describes.

    Args:
        paths: results files, run directories or folders above them.
        out_dir: created if need be; files of an earlier report are replaced, each atomically.
        views: of the measures, in the report's order.
        html: write ``report.html``, too (`page.write_page`).

    Raises:
        SemabenchError: no results, damaged results, or ``out_dir`` cannot be written.
    """
    paths = list(paths)
    records = read_results(paths)
    sections = sections_of(records, views)
    text, files = ["# Results\n"], []
    for section in sections:
        for name, make in section.view.csv:
            files.append(out_dir / name)
            atomic_write(files[-1], make(section.records))
        plots: list[Path] = []
        for figure in section.view.figures:
            plots += plot_figure(figure, section.lines, out_dir)
        files += plots
        text += [f"## {section.view.title}\n", section.notes + "\n"]
        text += [f"### {grid.title}\n\n{markdown(grid.text())}" for grid in section.tables]
        images = (path for path in plots if path.suffix == ".png")
        text += [f"![{path.stem.replace('-', ', ')}]({path.name})\n" for path in images]
    pictures = find_pictures(paths)
    if pictures:
        text.append("## Pictures\n")
        text += [
            f"![{path.parent.parent.name}, {path.stem}]({os.path.relpath(path, out_dir)})\n"
            for path in pictures
        ]
    atomic_write(out_dir / "report.md", "\n".join(text))
    page = [write_page(records, out_dir / "report.html", views, pictures)] if html else []
    return Report((out_dir / "report.md", *page, *files), tuple(sections))


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """Return what `semabench show` has drawn of the runs at or below some paths, sorted."""
    folders = [path for path in paths if path.is_dir()]
    return sorted({png for path in folders for png in path.rglob(f"{PICTURES}/*.png")})


def print_report(
    paths: Iterable[Path], out_dir: Path, views: Sequence[View], html: bool = False
) -> None:
    """Write a report; print its brief tables and the files written on the terminal."""
    from rich.console import Console

    written = write_report(paths, out_dir, views, html)
    for section in written.sections:
        print_section(section, Console())
    for file in written.files:
        print(file)


def print_section(section: Section, console: Console) -> None:
    """Print the brief tables of a measure, with what all lines share and what ± means."""
    for grid in section.tables:
        if grid.brief:
            print_table(grid.text(), console)
    console.print(section.notes, style="dim", highlight=False)


def markdown_tables(paths: Iterable[Path], views: Sequence[View], only: Sequence[str] = ()) -> str:
    """Return tables of rows in Markdown, each under its title in bold.

    Args:
        only: beginnings of titles; none: all tables.

    Raises:
        SemabenchError: no results, or none of the titles begins so.
    """
    sections = sections_of(read_results(paths), views)
    tables = [grid for section in sections for grid in section.tables]
    for start in only:
        if not any(grid.title.startswith(start) for grid in tables):
            known = "; ".join(dict.fromkeys(grid.title for grid in tables))
            raise SemabenchError(f"no table's title begins with '{start}'. There are: {known}.")
    chosen = [g for start in only for g in tables if g.title.startswith(start)] if only else tables
    return "\n".join(f"**{grid.title}**\n\n{markdown(grid.text())}" for grid in chosen)


_BLOCK = re.compile(
    r"(<!-- tables (\S+)(?:: ([^\n]*))? -->\n).*?(<!-- end of tables -->)", re.DOTALL
)


def update_tables(document: Path, views: Sequence[View]) -> None:
    """Write the tables of committed rows into a Markdown document, between comments.

    ``<!-- tables results/cost.csv: Images per second; Peak memory -->`` begins a block: a path,
    relative to the working directory, and the beginnings of the titles that are wanted, or none for
    all. ``<!-- end of tables -->`` ends it.

    Raises:
        SemabenchError: there is no such block, or the rows or titles are not there.
    """

    def block(found: re.Match[str]) -> str:
        begin, path, titles, end = found.groups()
        only = [title.strip() for title in (titles or "").split(";") if title.strip()]
        return f"{begin}\n{markdown_tables([Path(path)], views, only)}\n{end}"

    text = document.read_text(encoding="utf-8")
    updated, count = _BLOCK.subn(block, text)
    if not count:
        raise SemabenchError(
            f"{document} has no '<!-- tables FILE: TITLE; TITLE -->' with an end of tables."
        )
    if updated != text:
        atomic_write(document, updated)
