"""Accuracy and throughput against resolution, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from semabench.files import atomic_path
from semabench.results.looks import looks
from semabench.results.summary import (
    Cell,
    Estimate,
    Line,
    describe_errors,
    describe_setting,
    describe_speed_errors,
)
from semabench.results.summary import resolutions as all_resolutions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import ErrorbarContainer
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")

_INK, _FAINT = "#222222", "#8a8a8a"


def plot_accuracy(lines: Sequence[Line], stem: Path) -> list[Path]:
    """Draw top-1 against resolution, one standard error as a band or bars, chance dashed if known.

    A band is over seeds; bars are of one seed, or of a line that has several only at some sizes.

    Args:
        lines: 1 … 21 of them keep a look of their own.
        stem: path without suffix; ``.png`` and ``.svg`` are written.

    Returns:
        The files; none if no line has an accuracy.
    """
    figure, axes = _axes(lines)
    ends = _draw(axes, lines, lambda cell: cell.top1)
    chances = {100 / line.first.classes for line in lines if line.first.classes}
    for chance in chances:
        axes.axhline(chance, color=_FAINT, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
        axes.annotate(
            "chance",
            (1, chance),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 3),
            textcoords="offset points",
            ha="right",
            color=_FAINT,
            fontsize=8,
        )
    note = describe_errors(lines, *_marks(lines, "top1"))
    _finish(axes, lines, "Top-1 accuracy against resolution", "top-1 accuracy (%)", note)
    _legend(axes, ends)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -2), min(high, 102))
    return save_figure(figure, stem) if ends else []


def plot_throughput(lines: Sequence[Line], stem: Path) -> list[Path]:
    """Draw images per second against resolution, both axes logarithmic: a power law is straight.

    Returns:
        The files; none if no line has a throughput.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    figure, axes = _axes(lines)
    ends = _draw(axes, lines, lambda cell: cell.images_per_second)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    widen = max(1, (4 / (high / low)) ** 0.5)  # a lone point is no reason to zoom in on its bar
    axes.set_ylim(low / widen, high * widen)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda speed, _: f"{speed:,.0f}" if speed >= 10 else f"{speed:.3g}")
    )
    axes.yaxis.set_minor_locator(NullLocator())
    note = describe_speed_errors(lines, *_marks(lines, "images_per_second"))
    _finish(axes, lines, "Throughput against resolution", "images per second (log)", note)
    _legend(axes, ends)
    return save_figure(figure, stem) if ends else []


def _axes(lines: Sequence[Line]) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    width = 7.2 if len(lines) <= 4 else 9.2  # room for a legend beside the picture
    height = 4.6 + 0.12 * max(0, len(lines) - 8)
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    sizes = all_resolutions(lines)
    axes.set_xscale("log")
    ticks = spread_ticks(sizes)
    axes.set_xticks(ticks, [str(size) for size in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(sizes[0] / 1.06, sizes[-1] * 1.06)
    return figure, axes


def spread_ticks(sizes: Sequence[int]) -> list[int]:
    """Return the sizes that can be labelled without running into each other on a log axis."""
    ticks = [sizes[0]]
    gap = (sizes[-1] / sizes[0]) ** (1 / 14)
    for size in sizes[1:]:
        if size / ticks[-1] >= gap:
            ticks.append(size)
    return ticks


def _draw(
    axes: Axes, lines: Sequence[Line], value: Callable[[Cell], Estimate | None]
) -> list[tuple[float, ErrorbarContainer]]:
    """Draw every line that has values; return for each its last value and its legend handle."""
    ends = []
    look = looks((line.first.mixer_or_model, line.name) for line in lines)
    for line in lines:
        points = [(r, e) for r, cell in line.cells.items() if (e := value(cell)) is not None]
        if not points:
            continue
        style = look[line.first.mixer_or_model, line.name].style()
        errors = [e.stderr or 0 for _, e in points]
        band = _has_band([e for _, e in points])
        if band:
            axes.fill_between(
                [r for r, _ in points],
                [e.mean - error for (_, e), error in zip(points, errors, strict=True)],
                [e.mean + error for (_, e), error in zip(points, errors, strict=True)],
                color=style["color"],
                alpha=0.2,
                linewidth=0,
                zorder=2,
            )
        drawn = axes.errorbar(
            [r for r, _ in points],
            [e.mean for _, e in points],
            yerr=None if band else errors,
            label=line.name,
            **style,
            markersize=4.5,
            linewidth=1.6,
            elinewidth=1,
            capsize=2.5,
            zorder=3,
        )
        ends.append((points[-1][1].mean, drawn))
    return ends


def _has_band(estimates: Sequence[Estimate]) -> bool:
    """Return whether a line's errors are over seeds everywhere, and make an area."""
    return len(estimates) > 1 and all(e.count > 1 for e in estimates)


def _marks(lines: Sequence[Line], field: str) -> tuple[str, str]:
    """Return what errors over seeds, and those of one seed, are drawn as."""
    found = [[e for cell in x.cells.values() if (e := cell.estimate(field))] for x in lines]
    several = [estimates for estimates in found if any(e.count > 1 for e in estimates)]
    kinds = [_has_band(estimates) for estimates in several]
    return "Bands:" if all(kinds) else "Bands and bars:" if any(kinds) else "Bars:", "Bars:"


def _finish(axes: Axes, lines: Sequence[Line], title: str, unit: str, note: str) -> None:
    wide = 100 if len(lines) <= 4 else 130
    captions = [part for text in (describe_setting(lines), note) for part in wrap(text, wide)]
    style_axes(axes, title, unit, captions)


def style_axes(axes: Axes, title: str, unit: str, captions: Sequence[str]) -> None:
    """Give axes over resolution their title, captions below it, labels and a light grid."""
    axes.set_title(
        title, loc="left", fontsize=11, fontweight="bold", color=_INK, pad=6 + 12 * len(captions)
    )
    axes.annotate(
        "\n".join(captions),
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 5),
        textcoords="offset points",
        va="bottom",
        fontsize=8,
        color=_FAINT,
    )
    axes.set_xlabel("resolution (px)", color=_INK)
    axes.set_ylabel(unit, color=_INK)
    axes.grid(axis="y", which="major", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.tick_params(colors=_INK, labelsize=9)


def _legend(axes: Axes, ends: Sequence[tuple[float, ErrorbarContainer]]) -> None:
    """List the lines as they end, from top to bottom: few inside, many beside the picture."""
    handles = [handle for _, handle in sorted(ends, key=lambda end: -end[0])]
    if len(handles) > 4:
        axes.legend(
            handles=handles, frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5)
        )
    elif handles:
        axes.legend(handles=handles, frameon=False, fontsize=9)


def save_with_legend(figure: Figure, axes: Axes, stem: Path, columns: int) -> list[Path]:
    """Name the lines of ``axes`` below the figure, in so many columns as fit, at most; write it."""
    handles, names = axes.get_legend_handles_labels()
    for count in range(min(columns, len(names)), 0, -1):
        legend = figure.legend(
            handles,
            names,
            frameon=False,
            fontsize=9,
            loc="outside lower center",
            ncols=count,
        )
        if count == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()
    return save_figure(figure, stem)


def save_figure(figure: Figure, stem: Path) -> list[Path]:
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
