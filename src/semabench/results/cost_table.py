"""Tables of cost: for the terminal, in Markdown, as CSV, and in the columns of timm's benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

from semabench.results.cost_summary import (
    Subject,
    conditions,
    curves,
    executions,
    meetings,
    scaling,
)
from semabench.results.record import Record
from semabench.results.scaling import PowerLaw
from semabench.results.text_table import TextTable


def cost_tables(chosen: Sequence[Subject]) -> list[TextTable]:
    """Return what there are numbers for: speed, latency, memory, energy; then size and scaling."""
    tables = []
    for (title, cell), execution in product(_MEASURES, executions(chosen)):
        table = _table(f"{title}, {execution}", chosen, execution, cell)
        if any(any(row[2:]) for row in table.rows):
            tables.append(table)
    return [*tables, _size_table(chosen), *scaling_tables(chosen)]


def _table(
    title: str, chosen: Sequence[Subject], execution: str, cell: Callable[[Record], str]
) -> TextTable:
    columns = [
        place
        for place in conditions(chosen)
        if any((execution, place) in subject.rows for subject in chosen)
    ]
    rows = []
    for subject in chosen:
        found = [subject.rows.get((execution, place)) for place in columns]
        if any(found):
            texts = [cell(row) + _shrunk(row) if row else "" for row in found]
            rows.append([subject.name, subject.backend, *texts])
    names = [f"{mode}\n{size} px\nbatch {batch}" for mode, size, batch in columns]
    return TextTable(title, ["model", "backend", *names], rows, words=2)


def _shrunk(row: Record) -> str:
    return "" if row.asked_batch_size is None else f" (b {row.batch_size})"


def _speed(row: Record) -> str:
    return _with_spread(row.images_per_second, row.images_per_second_spread)


def _latency(row: Record) -> str:
    return _with_spread(row.latency_ms, row.latency_ms_spread)


def _energy(row: Record) -> str:
    return _with_spread(row.joules_per_image, row.joules_per_image_spread)


def _memory(row: Record) -> str:
    return "" if row.peak_memory_mib is None else f"{row.peak_memory_mib:,.0f}"


_MEASURES: tuple[tuple[str, Callable[[Record], str]], ...] = (
    ("Images per second", _speed),
    ("Milliseconds a batch", _latency),
    ("Peak memory (MiB)", _memory),
    ("Joules per image", _energy),
)


def _size_table(chosen: Sequence[Subject]) -> TextTable:
    sizes = sorted({size for subject in chosen for _, (_, size, _) in subject.rows})
    rows = []
    for subject in chosen:
        gmacs = {row.resolution: row.gmacs for row in subject.rows.values() if row.gmacs}
        params = next((row.params for row in subject.rows.values() if row.params), None)
        cells = [f"{gmacs[size]:.2f}" if size in gmacs else "" for size in sizes]
        rows.append([subject.name, "" if params is None else f"{params / 1e6:.2f}", *cells])
    header = ["model", "params M", *(f"{size} px" for size in sizes)]
    return TextTable("GMACs of one image's forward pass", header, rows)


def scaling_tables(chosen: Sequence[Subject]) -> list[TextTable]:
    """Return the exponents k of cost ∝ tokens^k, and where curves cross; only what there is."""
    fits, crossed = [], []
    for mode, execution in product(("train", "infer"), executions(chosen)):
        lines = curves(chosen, mode, execution)
        for found in map(scaling, lines):
            if found.latency is not None:
                batches = _batches(list(found.curve.batches.values()))
                exponents = [_exponent(found.latency), _exponent(found.memory)]
                fits.append([found.curve.name, mode, execution, batches, *exponents])
        for meeting in meetings(lines):
            names, crossing = meeting.names, meeting.crossing
            clear = "" if crossing.clear else "within the spread"
            where = f"{crossing.resolution:.0f}"
            sides = [names[crossing.below], names[crossing.above]]
            crossed.append([*sides, mode, execution, clear, where])
    tables = []
    if fits:
        header = ["model", "mode", "execution", "batch", "k, time", "k, memory"]
        tables.append(TextTable("Cost of an image ∝ tokens^k", header, fits, words=4))
    if crossed:
        header = ["cheaper below", "cheaper above", "mode", "execution", "", "crossing, px"]
        tables.append(TextTable("Where time per image crosses", header, crossed, words=5))
    return tables


def _with_spread(value: float | None, spread: float | None) -> str:
    if value is None:
        return ""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 4
    text = f"{value:,.{digits}f}"
    return text if spread is None else f"{text} ±{spread:,.{digits}f}"


def _exponent(law: PowerLaw | None) -> str:
    return "" if law is None else f"{law.exponent:.2f} ±{law.stderr:.2f}"


def _batches(sizes: Sequence[int]) -> str:
    return "/".join(map(str, sizes if len(set(sizes)) > 1 else sizes[:1]))
