"""Accuracy of a study against n, and of recall against m, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from semabench.results.looks import look_of
from semabench.results.plot import save_with_legend, style_axes
from semabench.results.study_summary import Panel, Way
from semabench.results.study_table import tokens
from semabench.results.summary import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FAINT = "#8a8a8a"


def plot_way(way: Way, captions: Sequence[str], stem: Path) -> list[Path]:
    """Draw a panel for each task, of recall for the least and the greatest m, against n.

    Args:
        way: trained in one way.
        captions: what all share, and what the bands are.
        stem: path without suffix; ``.png`` and ``.svg`` are written.

    Returns:
        The files.
    """
    panels = _extremes(way.panels)
    title = f"Accuracy against the number of tokens, {way.title} (shaded)"
    return _draw(panels, title, captions, stem, way.sizes)


def plot_each(panels: Sequence[Panel], captions: Sequence[str], stem: Path) -> list[Path]:
    """Draw the same for models that are tested at the one size that they were trained at."""
    title = "Accuracy against the number of tokens, trained at each size"
    return _draw(_extremes(panels), title, captions, stem, ())


def plot_pairs(way: Way, captions: Sequence[str], stem: Path) -> list[Path]:
    """Draw recall against m, at the smallest resolution and the largest.

    Returns:
        The files; none without two values of m.
    """
    recall = sorted((p for p in way.panels if p.pairs is not None), key=lambda p: p.pairs or 0)
    if len(recall) < 2:
        return []
    sizes = sorted({s for p in recall for points in p.curves.values() for s in points})
    figure, axes = _figure(min(2, len(sizes)), captions, f"Recall against m, {way.title}")
    for one, size in zip(axes, dict.fromkeys([sizes[0], sizes[-1]]), strict=True):
        for mixer in dict.fromkeys(mixer for panel in recall for mixer in panel.curves):
            found = {p.pairs or 0: p.curves.get(mixer, {}).get(size) for p in recall}
            _curve(one, mixer, {m: e for m, e in found.items() if e is not None})
        style_axes(one, f"{size} px, n = {tokens(size):,}", "top-1 accuracy (%)", [])
        one.set_xscale("log", base=2)
        choices = [p.pairs or 0 for p in recall]
        one.set_xticks(choices, [str(m) for m in choices])
        one.set_xlabel("m, pairs in the picture")
        _frame(one, recall[0].chance)
    return save_with_legend(figure, axes[0], stem, 9)


def _draw(
    panels: Sequence[Panel],
    title: str,
    captions: Sequence[str],
    stem: Path,
    trained: Sequence[int],
) -> list[Path]:
    figure, axes = _figure(len(panels), captions, title)
    for one, panel in zip(axes, panels, strict=True):
        for mixer, points in panel.curves.items():
            _curve(one, mixer, {tokens(size): e for size, e in points.items()})
        style_axes(one, panel.title, "top-1 accuracy (%)", [])
        one.set_xscale("log")
        sizes = sorted({tokens(s) for points in panel.curves.values() for s in points})
        one.set_xticks(sizes, [f"{n:,}" for n in sizes])
        one.set_xticks([], minor=True)
        one.set_xlabel("n, tokens (log)")
        if trained:
            low, high = tokens(min(trained)), tokens(max(trained))
            one.axvspan(low / 1.04, high * 1.04, color="#eeeeee", zorder=0, linewidth=0)
        _frame(one, panel.chance)
    return save_with_legend(figure, axes[0], stem, 9)


def _extremes(panels: Sequence[Panel]) -> list[Panel]:
    """Return all panels but those of recall with an m between the least and the greatest."""
    choices = [panel.pairs for panel in panels if panel.pairs is not None]
    ends = {min(choices), max(choices)} if choices else set()
    return [panel for panel in panels if panel.pairs is None or panel.pairs in ends]


def _figure(count: int, captions: Sequence[str], title: str) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    columns = min(3, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(max(7.5, 4.4 * columns), 3.6 * rows + 1.0), layout="constrained")
    figure.suptitle("\n".join([title, *captions]), x=0.01, ha="left", fontsize=9, color=_FAINT)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[count:]:
        unused.set_axis_off()
    return figure, axes[:count]


def _curve(axes: Axes, mixer: str, points: dict[int, Estimate]) -> None:
    style = look_of(mixer).style()
    places = sorted(points)
    means = [points[place].mean for place in places]
    errors = [points[place].stderr or 0.0 for place in places]
    axes.plot(places, means, label=mixer, markersize=4.5, linewidth=1.6, zorder=3, **style)
    low = [mean - error for mean, error in zip(means, errors, strict=True)]
    high = [mean + error for mean, error in zip(means, errors, strict=True)]
    axes.fill_between(places, low, high, color=style["color"], alpha=0.18, linewidth=0, zorder=2)


def _frame(axes: Axes, chance: float) -> None:
    """Draw chance and ceiling, and leave room for both."""
    for height, name, up in ((chance, "chance", -10), (100.0, "ceiling", 3)):
        axes.axhline(height, color=_FAINT, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
        axes.annotate(
            name,
            (1, height),
            xycoords=("axes fraction", "data"),
            xytext=(-2, up),
            textcoords="offset points",
            ha="right",
            color=_FAINT,
            fontsize=8,
        )
    axes.set_ylim(0, 108)
