"""Figures as data for the page's script: axes, lines, points and what to say of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from semabench.results.looks import Look
from semabench.results.page.family import Family, Figure, Line
from semabench.results.page.quantity import ERRORS, QUANTITIES, Quantity, Value

Looks = Mapping[tuple[str, str], Look]


def figures(family: Family, lines: Sequence[Line], looks: Looks) -> list[dict[str, Any]]:
    """Return what there are numbers for: each figure once a panel, its panels side by side."""
    found: list[dict[str, Any]] = []
    for figure in family.figures:
        for panel in dict.fromkeys(line.panel for line in lines):
            shown = [line for line in lines if line.panel == panel and _points(line, figure)]
            if shown and figure.plot:
                name = f"{family.measure}-{figure.y}-{figure.x}-{len(found)}"
                found.append({"id": name, **_figure(figure, panel, shown, looks)})
    return found


def title_of(figure: Figure) -> str:
    """Return ``Top-1 accuracy against resolution``."""
    x = QUANTITIES[figure.x].name
    lower = x if len(x) > 1 and x[1].isupper() else x[:1].lower() + x[1:]
    return f"{QUANTITIES[figure.y].name} against {lower}"


def _figure(figure: Figure, panel: str, lines: Sequence[Line], looks: Looks) -> dict[str, Any]:
    drawn = [_line(line, figure, looks) for line in lines]
    values = [point["y"] for line in drawn for point in line["points"]]
    kinds = {(p["of"], line["band"]) for line in drawn for p in line["points"]}
    seeds = {p["seeds"] for line in drawn for p in line["points"] if p["of"] == "seeds"}
    return {
        "title": title_of(figure) + (f": {panel}" if panel else ""),
        "read": figure.read,
        "errors": _describe(kinds, seeds),
        "x": _axis(QUANTITIES[figure.x]),
        "y": _axis(QUANTITIES[figure.y]) | {"either": min(values) > 0},
        "rules": _rules(figure, lines),
        "lines": drawn,
    }


def _points(line: Line, figure: Figure) -> bool:
    return any(figure.x in p.values and figure.y in p.values for p in line.points)


def _axis(quantity: Quantity) -> dict[str, Any]:
    unit = f" ({quantity.unit})" if quantity.unit else ""
    return {
        "label": quantity.name + unit,
        "log": quantity.log,
        "discrete": quantity.discrete,
        "limits": quantity.limits,
    }


def _line(line: Line, figure: Figure, looks: Looks) -> dict[str, Any]:
    points = []
    for point in line.points:
        if figure.x not in point.values or figure.y not in point.values:
            continue
        x, y = point.values[figure.x], point.values[figure.y]
        said = {QUANTITIES[figure.y].name: _said(figure.y, y)}
        if not QUANTITIES[figure.x].discrete or figure.x not in point.facts:
            said[QUANTITIES[figure.x].name] = _said(figure.x, x)
        points.append(
            {"x": x.mean, "y": y.mean, "low": y.low, "high": y.high, "of": y.error_of}
            | {"seeds": y.seeds, "facts": [[k, v] for k, v in (said | point.facts).items()]}
        )
    band = len(points) > 1 and all(p["of"] == "seeds" for p in points)
    return {
        "name": line.name,
        "model": line.model,
        "mixer": line.mixer_or_model,
        "band": band,
        **asdict(looks[line.mixer_or_model, line.name]),
        "points": points,
    }


def _said(field: str, value: Value) -> str:
    quantity = QUANTITIES[field]
    return f"{quantity.text(value)} {quantity.unit}".strip()


def _rules(figure: Figure, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Return chance, across; and the training size where all lines share one, upright."""
    rules: list[dict[str, Any]] = []
    classes = {row.classes for line in lines for row in line.records}
    if figure.y == "top1":
        rules += [{"y": 100 / count, "label": "chance"} for count in classes if count]
    trained = {row.train_resolution for line in lines for row in line.records}
    if figure.x == "resolution" and len(trained) == 1 and (size := trained.pop()):
        rules.append({"x": size, "label": "trained at"})
    return rules


def _describe(kinds: set[tuple[str, bool]], seeds: set[int]) -> str:
    """Return what bands and bars are, in one sentence."""
    span = "" if not seeds else str(min(seeds))
    if len(seeds) > 1:
        span = f"{min(seeds)} to {max(seeds)}"
    drawn: dict[str, list[str]] = {}
    for of, band in sorted(kinds, key=lambda kind: (not kind[1], kind[0])):
        if of:
            marks = drawn.setdefault(ERRORS[of].format(seeds=span), [])
            marks.append("bands" if band else "bars")
    parts = [f"{' and '.join(dict.fromkeys(m))}: {text}" for text, m in drawn.items()]
    said = "; ".join(parts)
    return f"{said[0].upper()}{said[1:]}." if said else ""
