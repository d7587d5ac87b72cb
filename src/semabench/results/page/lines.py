"""Rows become the page's lines, through the same summaries as the report's tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product

from semabench.results import cost_summary, dispersion_summary, summary
from semabench.results.page.family import Line, Lines, Point
from semabench.results.page.quantity import Value
from semabench.results.record import Record


def over_seeds(
    panel: Callable[[Record], str] = lambda _: "",
    order: Callable[[Record], tuple[int, str]] = lambda _: (0, ""),
) -> Lines:
    """Return what makes lines of runs that differ by their seed alone: means over seeds.

    Args:
        panel: what separates rows that no line may join: the task of a study, say.
        order: what the lines of a panel are sorted by; equal ones stay as they come.
    """

    def lines(records: Sequence[Record], fields: Sequence[str]) -> list[Line]:
        panels: dict[str, list[Record]] = {}
        for record in records:
            panels.setdefault(panel(record), []).append(record)
        found = []
        for name, rows in panels.items():
            for line in summary.summarise(sorted(rows, key=order)):
                points = tuple(_mean(cell, fields) for cell in line.cells.values())
                behind = tuple(row for cell in line.cells.values() for row in cell.records)
                first = line.first
                found.append(Line(line.name, first.model, first.mixer, name, points, behind))
        return found

    return lines


def _mean(cell: summary.Cell, fields: Sequence[str]) -> Point:
    first = cell.records[0]
    values = {}
    for field in fields:
        if (estimate := cell.estimate(field)) is None:
            continue
        error = estimate.stderr or 0
        kind = "samples" if hasattr(first, f"{field}_stderr") else "batches"
        of = "seeds" if estimate.count > 1 else kind
        values[field] = Value(
            estimate.mean,
            estimate.mean - error,
            estimate.mean + error,
            of if estimate.stderr is not None and (error or kind == "samples") else "",
            estimate.count,
        )
    facts = {"resolution": f"{first.resolution} px"}
    if first.n:
        facts["n"] = f"{first.n:,}"
    facts["seeds"] = _listed(record.seed for record in cell.records)
    return Point(values, facts)


def of_cost(records: Sequence[Record], fields: Sequence[str]) -> list[Line]:
    """Return a line for each model, mode and execution."""
    chosen = cost_summary.subjects(records)
    found = []
    for mode, execution in product(("train", "infer"), cost_summary.executions(chosen)):
        panel = f"{'training step' if mode == 'train' else 'inference'}, {execution}"
        for curve in cost_summary.curves(chosen, mode, execution):
            rows = tuple(curve.rows.values())
            points = tuple(_measured(row, fields) for row in rows)
            found.append(Line(curve.name, rows[0].model, rows[0].mixer, panel, points, rows))
    return found


def _measured(row: Record, fields: Sequence[str]) -> Point:
    values = {}
    for field in fields:
        if (value := getattr(row, field)) is not None:
            spread = getattr(row, f"{field}_spread", None)
            of = "" if spread is None else "windows"
            values[field] = Value(value, value - (spread or 0), value + (spread or 0), of)
    facts = {"resolution": f"{row.resolution} px", "batch": str(row.batch_size)}
    if row.asked_batch_size:
        facts["batch"] += f" (memory ran out at {row.asked_batch_size})"
    if row.rounds:
        facts["windows"] = str(row.rounds)
    return Point(values, facts)


def of_dispersion(records: Sequence[Record], fields: Sequence[str]) -> list[Line]:
    """Return a line for each kernel on random inputs, and each stage of a trained model."""
    found = []
    for curve in dispersion_summary.dispersion_curves(records):
        rows = tuple(row for point in curve.points.values() for row in point)
        points = tuple(_dispersed(curve, size, fields) for size in curve.points)
        panel = "random inputs" if curve.random else "pictures"
        found.append(Line(curve.title, rows[0].model, rows[0].mixer, panel, points, rows))
    return found


def _dispersed(curve: dispersion_summary.Curve, size: int, fields: Sequence[str]) -> Point:
    rows = curve.points[size]
    seeds = {row.seed for row in rows}
    values = {}
    for field in fields:
        if spread := curve.spread(size, field):
            of = "range" if spread.low < spread.high else ""
            values[field] = Value(spread.mean, spread.low, spread.high, of, len(seeds))
    facts = {"grid": f"{size} × {size}"} if curve.random else {"resolution": f"{size} px"}
    facts["queries"] = str(max(row.queries or 0 for row in rows))
    facts["seeds"] = _listed(seeds)
    if not curve.random:
        heads = {(row.layer, row.head) for row in rows}
        facts |= {"pictures": f"{rows[0].n:,}", "heads and layers": str(len(heads))}
    return Point(values, facts)


def _listed(seeds: Iterable[int | None]) -> str:
    known = sorted({seed for seed in seeds if seed is not None})
    return f"{len(known)} ({', '.join(map(str, known))})" if known else "not told"
