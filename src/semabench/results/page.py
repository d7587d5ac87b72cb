"""The page: one HTML file that loads nothing, from a file system as well as from a server."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from semabench import __version__
from semabench.errors import SemabenchError
from semabench.files import atomic_write
from semabench.results.figures import Chart, Curve, Style, charts, style_sheet, styles
from semabench.results.record import Record
from semabench.results.summary import Line
from semabench.results.tables import Section, sections_of
from semabench.results.text_table import Cell, Grid, Row
from semabench.results.view import QUANTITIES, Quantity, View, estimate, facts

_SCRIPTS = ("scale.js", "draw.js", "figure.js", "table.js", "filter.js", "page.js")
_SHORT = 12  # of a hash: enough to tell and to look up

Styles = Mapping[tuple[str, str], Style]


def write_page(
    records: Sequence[Record], path: Path, views: Sequence[View], pictures: Sequence[Path] = ()
) -> Path:
    """Write one self-contained page of all rows, atomically, and return its path.

    The same rows give the same bytes. Rows of no view are counted on the page, not shown.

    Args:
        records: the rows.
        path: of the page.
        views: of the measures, in the page's order.
        pictures: PNGs of runs, ``<run>/…/<name>.png``, which become part of the page.

    Raises:
        SemabenchError: no row that a view shows, or the file cannot be written.
    """
    sections = sections_of(records, views)
    if not sections:
        raise SemabenchError("no rows that the page can show: evaluate a run first.")
    atomic_write(path, _render(records, sections, pictures))
    return path


def _render(records: Sequence[Record], shown: Sequence[Section], pictures: Sequence[Path]) -> str:
    import jinja2

    every = [line for section in shown for line in section.lines]
    look = styles((line.mixer, line.name) for line in every)
    sections: list[dict[str, Any]] = []
    for section in shown:
        view = section.view
        shared, differing = _provenance(section.lines)
        drawn = [chart for figure in view.figures for chart in charts(figure, section.lines)]
        figures = [
            {"id": f"{view.measure}-{chart.panel.y}-{chart.figure.x}-{number}"}
            | _figure(chart, look)
            for number, chart in enumerate(drawn)
        ]
        sections.append(
            {
                "id": view.measure,
                "title": view.title,
                "about": view.about,
                "figures": figures,
                "tables": section.tables,
                "shared": shared,
                "differing": differing,
                "rows": len(section.records),
            }
        )
    known = {section["id"] for section in sections}
    style = style_sheet() + _asset("page.css")
    script = "\n".join(_asset(f"js/{name}") for name in _SCRIPTS)
    script = f'"use strict";\n(() => {{\n{script}\n}})();\n'
    # Autoescaping: whatever a row calls its model is text, in the tables and in the JSON.
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    days = sorted(record.time[:10] for record in records)
    return environment.from_string(_asset("page.html.jinja")).render(
        version=__version__,
        rows=len(records),
        runs=len({record.run for record in records if record.run}),
        dates=" to ".join(dict.fromkeys((days[0], days[-1]))),
        sections=sections,
        mixers=list(dict.fromkeys(line.mixer for line in every)),
        models=list(dict.fromkeys(line.first.model for line in every)),
        left_out=Counter(row.measure for row in records if row.measure not in known),
        data={figure["id"]: figure for section in sections for figure in section["figures"]},
        style=style,
        script=script,
        pictures=[_embedded(picture) for picture in pictures],
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _figure(chart: Chart, look: Styles) -> dict[str, Any]:
    """Return a chart as data for the page's script: axes, lines, points and what to say of each."""
    lines = [_line(chart, curve, look) for curve in chart.curves]
    positive = all(point["y"] > 0 for line in lines for point in line["points"])
    return {
        "title": chart.title,
        "read": chart.panel.read,
        "errors": chart.errors,
        "x": _axis(QUANTITIES[chart.figure.x]),
        "y": _axis(QUANTITIES[chart.panel.y]) | {"either": positive},
        "rules": [
            {"label": rule.label} | ({"y": rule.y} if rule.x is None else {"x": rule.x})
            for rule in chart.rules
            if rule.label
        ],
        "lines": lines,
    }


def _axis(quantity: Quantity) -> dict[str, Any]:
    told = ("log", "discrete", "limits")
    return {"label": quantity.title} | {name: getattr(quantity, name) for name in told}


def _line(chart: Chart, curve: Curve, look: Styles) -> dict[str, Any]:
    line = curve.line
    points = []
    for point in curve.points:
        told = facts(line, point.place)
        said = {}
        for name in (chart.panel.y, chart.figure.x):
            value = estimate(line, point.place, name)
            if value is not None and name not in told:
                quantity = QUANTITIES[name]
                said[quantity.name] = f"{quantity.text(value)} {quantity.unit}".strip()
        points.append(
            {
                "x": point.x,
                "y": point.y.mean,
                "low": point.y.low,
                "high": point.y.high,
                "of": point.y.of,
                "seeds": point.y.count,
                "facts": [[name, text] for name, text in (said | told).items()],
            }
        )
    return {
        "name": line.name,
        "model": line.first.model,
        "mixer": line.mixer,
        "band": curve.band,
        **asdict(look[line.mixer, line.name]),
        "points": points,
    }


def _one(field: str, form: str = "{}", most: int | None = None) -> Callable[[Record], str]:
    def tell(row: Record) -> str:
        value = getattr(row, field)
        return "" if value in (None, "") else form.format(str(value)[:most])

    return tell


def _fingerprint(row: Record) -> str:
    text = row.fingerprint  # of a task its settings
    parts = text.split("+")
    return "+".join(part[:_SHORT] for part in parts) if all(map(str.isalnum, parts)) else text


_TOLD: dict[str, Callable[[Record], str]] = {
    "recipe": _one("recipe"),
    "training config": _one("config", most=_SHORT),
    "epochs": _one("epochs"),
    "trained at": lambda row: row.trained_at,
    "weights": _one("weights"),
    "checkpoint": _one("checkpoint", most=_SHORT),
    "seed": _one("seed"),
    "dataset": lambda row: f"{row.dataset}, {row.n:,} samples" if row.n else row.dataset,
    "fingerprint": _fingerprint,
    "inputs": lambda row: row.inputs,
    "tested on": lambda row: f"{row.tested_on} images {row.test_seed}" if row.tested_on else "",
    "crop": _one("crop_pct"),
    "interpolation": _one("interpolation"),
    "precision": _one("precision"),
    "backend": _one("backend"),
    "execution": _one("execution"),
    "layout": _one("layout"),
    "device": _one("device"),
    "versions": _one("versions"),
    "commit": _one("commit"),
    "options": _one("options"),
    "measured": lambda row: row.time[:10],
}
"""Where a line's numbers come from."""


def _provenance(lines: Sequence[Line]) -> tuple[list[tuple[str, str]], Grid | None]:
    """Return what all lines share, and a table of the rest; None where they share all."""
    merged: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        merged.setdefault((line.mixer, line.name), []).append(line)
    told: dict[str, list[str]] = {}
    for name, tell in _TOLD.items():
        for same in merged.values():
            said = {tell(row) for line in same for row in line.records} - {""}
            ordered = sorted(said, key=lambda text: (len(text), text))
            told.setdefault(name, []).append(", ".join(ordered))
    shared = [(name, t[0]) for name, t in told.items() if len(set(t)) == 1 and t[0]]
    varied = {name: texts for name, texts in told.items() if len(set(texts)) > 1}
    if not varied:
        return shared, None
    rows = []
    for place, ((mixer, name), same) in enumerate(merged.items()):
        texts = [name, *(column[place] for column in varied.values())]
        rows.append(Row(same[0].first.model, mixer, [Cell(text, text) for text in texts]))
    header = ["model", *varied]
    return shared, Grid("Where they differ", header, rows, len(header))


def _embedded(picture: Path) -> dict[str, str]:
    data = base64.b64encode(picture.read_bytes()).decode()
    name = picture.stem.replace("-", " ")
    return {"run": picture.parent.parent.name, "name": name, "data": data}


def _asset(name: str) -> str:
    return resources.files("semabench.results").joinpath("assets", name).read_text("utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
