"""The same lines as a terminal table, as Markdown, and the rows as CSV in timm's columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from semabench.results.summary import Cell, Estimate, Line, resolutions
from semabench.results.text_table import TextTable

Measure = Callable[[Cell], str]


def accuracy_cell(cell: Cell) -> str:
    """Return top-1 with its standard error, as ``95.6 ±0.7``."""
    return _with_error(cell.top1, "{:.1f}")


def throughput_cell(cell: Cell) -> str:
    """Return images per second, to three figures."""
    if cell.images_per_second is None:
        return ""
    speed = cell.images_per_second.mean
    return f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}"


def text_table(lines: Sequence[Line], measure: Measure, title: str) -> TextTable:
    """Return a table for the terminal: a row a line, a column a resolution."""
    header, texts, rows = grid(lines, measure)
    return TextTable(title, header, rows, words=texts)


def markdown_table(lines: Sequence[Line], measure: Measure) -> str:
    """Return the same table in GitHub's Markdown, ending with a newline."""
    header, texts, rows = grid(lines, measure)
    rule = ["---" if i < texts else "---:" for i in range(len(header))]
    escaped = ([cell.replace("|", "\\|") for cell in row] for row in [header, rule, *rows])
    return "".join(f"| {' | '.join(row)} |\n" for row in escaped)


def grid(lines: Sequence[Line], measure: Measure) -> tuple[list[str], int, list[list[str]]]:
    """Return the header, how many of its columns are words, and the rows as text.

    Model and mixer are always there; what is the same for all lines is left to the caption
    (``describe_setting``).
    """
    words = [
        name
        for name in lines[0].label
        if name in ("model", "mixer") or len({line.label[name] for line in lines}) > 1
    ]
    columns = [[line.label[name] for line in lines] for name in words]
    header = [name.replace("_", " ") for name in words]
    extra = {
        "params M": [_millions(line.first.params) for line in lines],
        "seeds": [str(line.seeds) for line in lines],
        "n": [f"{line.first.n:,}" for line in lines],
    }
    for name, texts in extra.items():
        shown = name == "params M" or (name == "seeds" and set(texts) != {"1"})
        if any(texts) and (shown or len(set(texts)) > 1):
            header.append(name)
            columns.append(texts)
    for size in resolutions(lines):
        header.append(f"{size} px")
        columns.append([_cell_text(line, size, measure) for line in lines])
    return header, len(words), [list(row) for row in zip(*columns, strict=True)]


def _cell_text(line: Line, size: int, measure: Measure) -> str:
    """Return a cell, with its own count of seeds where that is not the line's."""
    if size not in line.cells or not (text := measure(line.cells[size])):
        return ""
    count = len(line.cells[size].records)
    return text if count == line.seeds else f"{text} ({count} seed{'s'[: count - 1]})"


def summary_csv(lines: Sequence[Line]) -> str:
    """Return a row a line and resolution: means over seeds, their standard errors, and of what.

    ``_error_of`` is ``seeds``: s/√seeds between them; or ``samples``: of one run, binomial for an
    accuracy, half the interquartile range over its batches for throughput.
    """
    fields = ("top1", "top5", "images_per_second")
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    numbers = [f"{field}{part}" for field in fields for part in ("", "_error", "_error_of")]
    writer.writerow([*lines[0].label, "resolution", "n", "seeds", *numbers, "peak_memory_mib"])
    for line in lines:
        for size, cell in line.cells.items():
            row: list[object] = [*line.label.values(), size, line.first.n, len(cell.records)]
            for field in fields:
                estimate = cell.estimate(field)
                row += [None] * 3 if estimate is None else _with_source(estimate)
            memory = cell.estimate("peak_memory_mib")
            writer.writerow([*row, memory and memory.mean])
    return buffer.getvalue()


def _with_source(estimate: Estimate) -> list[object]:
    if estimate.stderr is None:
        return [estimate.mean, None, None]
    return [estimate.mean, estimate.stderr, "seeds" if estimate.count > 1 else "samples"]


def _millions(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.2f}"


def _with_error(estimate: Estimate | None, form: str) -> str:
    if estimate is None:
        return ""
    text = form.format(estimate.mean)
    return text if estimate.stderr is None else f"{text} ±{form.format(estimate.stderr)}"
