"""A study's rows as the page's lines: a panel for each task, m and way of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from semabench.results.page.family import Line
from semabench.results.page.lines import over_seeds
from semabench.results.record import Record
from semabench.results.study_summary import CALIBRATION, by_mixer


def of_study(records: Sequence[Record], fields: Sequence[str]) -> list[Line]:
    """Return lines over seeds; models trained and tested at several single sizes are one line."""
    each = _trained_at_each(records)
    tested: dict[str, set[int]] = {}
    for row in records:
        tested.setdefault(_panel(row), set()).add(row.resolution)
    merged = {id(row) for row in each}
    own = [r for r in records if id(r) not in merged or len(tested[_panel(r)]) > 1]
    as_one = [replace(r, config="", train_resolution=None, train_resolutions=()) for r in each]
    lines = over_seeds(_panel, order=lambda row: by_mixer(row.mixer))
    return lines(own, fields) + lines(as_one, fields)


def _trained_at_each(records: Sequence[Record]) -> list[Record]:
    """Return rows tested at the one size of their training, where there are several such sizes.

    Where one size was trained in several ways (``config``), nothing tells which belong together.
    """
    found: dict[str, dict[int, list[Record]]] = {}
    for row in records:
        if row.train_resolutions == (row.resolution,):
            place = _panel(replace(row, train_resolution=None, train_resolutions=()))
            found.setdefault(place, {}).setdefault(row.resolution, []).append(row)
    return [
        row
        for sizes in found.values()
        if len(sizes) > 1 and all(len({r.config for r in rows}) == 1 for rows in sizes.values())
        for rows in sizes.values()
        for row in rows
    ]


def _panel(row: Record) -> str:
    """Name what rows of a study must share to be in one panel."""
    parts = (
        row.dataset,
        f"{row.pairs} pairs" if row.pairs else "",
        f"trained at {row.trained_at or 'each size'}",
        "" if row.readout == "query" else f"read-out {row.readout}",
        "" if row.depth == 1 else f"{row.depth} blocks",
        "calibration" if row.tested_on == CALIBRATION else "",
        f"chance {100 / row.classes:g} %" if row.classes else "",
    )
    return ", ".join(filter(None, parts))
