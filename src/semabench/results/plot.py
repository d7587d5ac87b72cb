"""Figures as PNG and SVG, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from semabench.files import atomic_path
from semabench.results.figures import Chart, Curve, charts, styles
from semabench.results.summary import Line
from semabench.results.view import QUANTITIES, Figure, Quantity, Rule

if TYPE_CHECKING:
    from matplotlib import figure as mpl
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg")

_INK, _FAINT = "#222222", "#8a8a8a"
_DASHED: dict[str, Any] = {"color": _FAINT, "linewidth": 1, "linestyle": (0, (3, 3)), "zorder": 1}
_LABEL: dict[str, Any] = {"textcoords": "offset points", "color": _FAINT, "fontsize": 8}


def plot_figure(figure: Figure, lines: Sequence[Line], out_dir: Path) -> list[Path]:
    """Draw a figure, a file a sheet: ``<stem>-<sheet>.png`` and ``.svg``.

    A band is an error over seeds; bars are of one seed, or of a line that has several only at some
    places.

    Returns:
        The files; none of a single point.
    """
    written = []
    for sheet, found in groupby(charts(figure, lines, plot=True), key=lambda chart: chart.sheet):
        drawn = list(found)
        stem = out_dir / "-".join(filter(None, (figure.stem, sheet.name)))
        written += save_figure(_single(drawn[0]) if len(drawn) == 1 else _several(drawn), stem)
    return written


def _single(chart: Chart) -> mpl.Figure:
    """Return one chart with its captions under its title: few names inside, many beside it."""
    from matplotlib import figure as mpl

    lines = chart.lines
    few = len(lines) <= 4
    height = 4.6 + 0.12 * max(0, len(lines) - 8)
    made = mpl.Figure(figsize=(7.2 if few else 9.2, height), layout="constrained")
    axes = made.subplots()
    handles = _draw(axes, chart)
    captions = [*chart.figure.captions(lines), chart.panel.note(lines), chart.errors]
    wrapped = [part for text in captions for part in wrap(text, 100 if few else 130)]
    _frame(axes, chart.figure.title(lines) or chart.title, wrapped)
    # As the lines end, from top to bottom.
    order = sorted(chart.curves, key=lambda curve: -curve.points[-1].y.mean)
    ordered = [handles[curve.line.mixer, curve.line.name] for curve in order]
    beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    place = {} if few else beside
    axes.legend(handles=ordered, frameon=False, fontsize=9 if few else 8, **place)
    return made


def _several(found: Sequence[Chart]) -> mpl.Figure:
    """Return charts side by side, their captions above and the lines' names below all."""
    from matplotlib import figure as mpl

    columns = 2 if len(found) in (2, 4) else 3
    rows = -(-len(found) // columns)
    size = ({2: 10.4, 3: 14.0}[columns], 3.7 * rows + 1.1)
    made = mpl.Figure(figsize=size, layout="constrained")
    lines = list({id(line): line for chart in found for line in chart.lines}.values())
    figure = found[0].figure
    errors = " ".join(dict.fromkeys(chart.errors for chart in found if chart.errors))
    captions = [figure.title(lines), *figure.captions(lines), errors]
    above = [part for text in captions for part in wrap(text, 110 if columns == 2 else 170)]
    made.suptitle("\n".join(above), x=0.01, ha="left", fontsize=9, color=_FAINT)
    every = list(made.subplots(rows, columns, squeeze=False).flat)
    handles: dict[tuple[str, str], Any] = {}
    one_panel = len({chart.panel for chart in found}) == 1
    for axes, chart in zip(every, found, strict=False):
        handles |= _draw(axes, chart)
        name = chart.panel.title or QUANTITIES[chart.panel.y].name
        _frame(axes, chart.name if one_panel else name, wrap(chart.panel.note(chart.lines), 70))
    for unused in every[len(found) :]:
        unused.set_axis_off()
    names = [name for _, name in handles]
    below: dict[str, Any] = {"frameon": False, "fontsize": 9, "loc": "outside lower center"}
    for count in range(min(9, len(names)), 0, -1):
        legend = made.legend(list(handles.values()), names, ncols=count, **below)
        if count == 1 or legend.get_window_extent().width <= made.bbox.width:
            break
        legend.remove()
    return made


def _draw(axes: Axes, chart: Chart) -> dict[tuple[str, str], Any]:
    """Draw a chart; return by mixer and name what stands for each line in a legend."""
    look = styles((line.mixer, line.name) for line in chart.lines)
    handles = {}
    for curve in chart.curves:
        key = curve.line.mixer, curve.line.name
        handles[key] = _line(axes, curve, look[key].keywords())
    x, y = QUANTITIES[chart.figure.x], QUANTITIES[chart.panel.y]
    _scale_x(axes, x, sorted({point.x for curve in chart.curves for point in curve.points}))
    for rule in chart.rules:
        _rule(axes, rule, chart.panel.limits)
    _scale_y(axes, y, chart.panel.limits)
    axes.set_xlabel(f"{x.title}, log" if x.log else x.title, color=_INK)
    axes.set_ylabel(f"{y.title}, log" if y.log else y.title, color=_INK)
    return handles


def _line(axes: Axes, curve: Curve, style: dict[str, Any]) -> Any:
    places = [point.x for point in curve.points]
    values = [point.y for point in curve.points]
    below, above = [v.mean - v.low for v in values], [v.high - v.mean for v in values]
    if curve.band:
        ends = [v.low for v in values], [v.high for v in values]
        axes.fill_between(places, *ends, color=style["color"], alpha=0.2, linewidth=0, zorder=2)
    bars = [below, above] if (any(below) or any(above)) and not curve.band else None
    means = [value.mean for value in values]
    style = {**style, "markersize": 4.5, "linewidth": 1.6, "elinewidth": 1, "capsize": 2.5}
    return axes.errorbar(places, means, yerr=bars, label=curve.line.name, zorder=3, **style)


def _scale_x(axes: Axes, quantity: Quantity, places: Sequence[float]) -> None:
    if quantity.log:
        axes.set_xscale("log")
    if quantity.discrete:
        ticks = spread_ticks(places)
        form = "{:.0f}" if quantity.unit else "{:,.0f}"
        axes.set_xticks(ticks, [form.format(tick) for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlim(places[0] / 1.06, places[-1] * 1.06)


def spread_ticks(places: Sequence[float]) -> list[float]:
    """Return the places that can be labelled without running into each other on a log axis."""
    ticks = [places[0]]
    gap = (places[-1] / places[0]) ** (1 / 14)
    for place in places[1:]:
        if place / ticks[-1] >= gap:
            ticks.append(place)
    return ticks


def _scale_y(axes: Axes, quantity: Quantity, limits: tuple[float, float] | None) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if quantity.log:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        widen = max(1, (4 / (high / low)) ** 0.5)  # close points are no reason to zoom in on them
        axes.set_ylim(low / widen, high * widen)
        subs = (1,) if high / low > 1000 else (1, 2, 5)
        axes.yaxis.set_major_locator(LogLocator(subs=subs))
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda v, _: f"{v:,.0f}" if v >= 10 else f"{v:.3g}")
        )
        axes.yaxis.set_minor_locator(NullLocator())
    elif limits is not None:
        axes.set_ylim(*limits)
    elif quantity.limits is not None:
        low, high = axes.get_ylim()
        room = 0.02 * (quantity.limits[1] - quantity.limits[0])
        axes.set_ylim(max(low, quantity.limits[0] - room), min(high, quantity.limits[1] + room))


def _rule(axes: Axes, rule: Rule, limits: tuple[float, float] | None) -> None:
    if rule.diagonal:
        low, high = axes.get_xlim()
        axes.plot([low, high], [low, high], **_DASHED)
        return
    if rule.x is not None and rule.to is not None:
        low, high = axes.get_xlim()
        axes.axvspan(rule.x / 1.04, rule.to * 1.04, color="#eeeeee", zorder=0, linewidth=0)
        axes.set_xlim(min(low, rule.x / 1.06), max(high, rule.to * 1.06))
        return
    label: dict[str, Any] = dict(_LABEL)
    if rule.x is not None:
        axes.axvline(rule.x, **_DASHED)
        label |= {"xycoords": ("data", "axes fraction"), "xytext": (3, 4)}
        axes.annotate(rule.label, (rule.x, 0), **label)
    elif rule.y is not None:
        axes.axhline(rule.y, **_DASHED)
        below = limits is not None and rule.y < sum(limits) / 2  # where there is room for it
        label |= {"xycoords": ("axes fraction", "data"), "xytext": (-2, -10 if below else 3)}
        label["ha"] = "right"
        axes.annotate(rule.label, (1, rule.y), **label)


def _frame(axes: Axes, title: str, captions: Sequence[str]) -> None:
    """Give axes their title, captions below it, and a light grid."""
    bold: dict[str, Any] = {"loc": "left", "fontsize": 11, "fontweight": "bold", "color": _INK}
    axes.set_title(title, pad=6 + 12 * len(captions), **bold)
    label: dict[str, Any] = {**_LABEL, "xycoords": "axes fraction", "xytext": (0, 5)}
    axes.annotate("\n".join(captions), (0, 1), va="bottom", **label)
    axes.grid(axis="y", which="major", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.tick_params(colors=_INK, labelsize=9)


def save_figure(figure: mpl.Figure, stem: Path) -> list[Path]:
    """Write a figure as ``.png`` and ``.svg``, each atomically; return the two paths."""
    from matplotlib import rc_context

    written = []
    # Without a date, and ids from a fixed salt: the same results give the same SVG.
    with rc_context({"svg.hashsalt": "semabench", "svg.fonttype": "none"}):
        for suffix in FORMATS:
            path = stem.with_name(stem.name + suffix)
            metadata = {"Date": None} if suffix == ".svg" else {}
            with atomic_path(path) as partial:
                figure.savefig(partial, format=suffix[1:], dpi=160, metadata=metadata)
            written.append(path)
    return written
