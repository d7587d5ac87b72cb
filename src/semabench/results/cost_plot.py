"""Speed and memory against resolution, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from semabench.results.cost_summary import Curve
from semabench.results.looks import looks
from semabench.results.plot import save_with_legend, spread_ticks, style_axes
from semabench.results.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Value = Callable[[Record], tuple[float | None, float | None]]


def plot_cost(curves: Sequence[Curve], stem: Path) -> list[Path]:
    """Draw images per second and peak memory against resolution, all axes logarithmic.

    Args:
        curves: of one mode and execution.
        stem: path without suffix; ``.png`` and ``.svg`` are written.

    Returns:
        The files; none without a curve.
    """
    from matplotlib.figure import Figure

    if not curves:
        return []
    figure = Figure(figsize=(10.4, 4.8 + 0.1 * max(0, len(curves) - 8)), layout="constrained")
    left, right = figure.subplots(1, 2)
    _panel(left, curves, lambda row: (row.images_per_second, row.images_per_second_spread))
    _panel(right, curves, lambda row: (row.peak_memory_mib, None))
    row = next(iter(curves[0].rows.values()))
    style_axes(left, "Throughput", "images per second (log)", _caption(curves, row))
    style_axes(right, "Peak memory", "MiB (log)", _memory_caption(curves, row))
    return save_with_legend(figure, left, stem, 4)


def _panel(axes: Axes, curves: Sequence[Curve], value: Value) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    look = looks((curve.mixer, curve.name) for curve in curves)
    for curve in curves:
        points = [(r, *value(row)) for r, row in curve.rows.items()]
        known = [(r, v, s or 0) for r, v, s in points if v is not None]
        axes.errorbar(
            [r for r, _, _ in known],
            [v for _, v, _ in known],
            yerr=[s for _, _, s in known] if any(s for _, _, s in known) else None,
            label=curve.name,
            **look[curve.mixer, curve.name].style(),
            markersize=4.5,
            linewidth=1.6,
            elinewidth=1,
            capsize=2.5,
            zorder=3,
        )
    sizes = sorted({r for curve in curves for r in curve.rows})
    ticks = spread_ticks(sizes)
    axes.set_xticks(ticks, [str(size) for size in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(sizes[0] / 1.06, sizes[-1] * 1.06)
    low, high = axes.get_ylim()
    widen = max(1, (4 / (high / low)) ** 0.5)  # close points are no reason to zoom in on them
    axes.set_ylim(low / widen, high * widen)
    subs = (1,) if high / low > 1000 else (1, 2, 5)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda v, _: f"{v:,.0f}" if v >= 10 else f"{v:.3g}")
    )
    axes.yaxis.set_minor_locator(NullLocator())


def _caption(curves: Sequence[Curve], row: Record) -> list[str]:
    step = "training step" if row.mode == "train" else "inference"
    return [
        f"{step}, {row.execution}, {row.precision}, {row.device}",
        _batch_text(curves),
        f"median of {_rounds(curves)} windows, bars: half the interquartile range",
    ]


def _memory_caption(curves: Sequence[Curve], row: Record) -> list[str]:
    """Return as many lines as `_caption`, so that the panels are equally high."""
    if row.device == "cpu":
        return ["of the whole process,", "libraries included", _batch_text(curves)]
    held = (
        "weights, gradients, optimiser, activations"
        if row.mode == "train"
        else "weights, activations"
    )
    return ["of the model's own allocations:", held, _batch_text(curves)]


def _batch_text(curves: Sequence[Curve]) -> str:
    sizes: dict[int, set[int]] = {}
    for curve in curves:
        for resolution, batch in curve.batches.items():
            sizes.setdefault(resolution, set()).add(batch)
    if len(set.union(*sizes.values())) == 1:
        return f"batch {min(sizes[min(sizes)])}"
    each = ", ".join(f"{'/'.join(map(str, sorted(sizes[r])))} at {r}" for r in sorted(sizes))
    return f"batch {each} px"


def _rounds(curves: Sequence[Curve]) -> str:
    counts = {row.rounds or 0 for curve in curves for row in curve.rows.values()}
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
