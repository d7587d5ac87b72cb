"""Dispersion against the number of keys, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semabench.results.dispersion_summary import Curve, first_stages
from semabench.results.looks import looks
from semabench.results.plot import save_with_legend, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ZERO = 1e-6
_DASHED: dict[str, Any] = {
    "color": "#222222",
    "linewidth": 1,
    "linestyle": (0, (3, 3)),
    "zorder": 4,
}
_LINEAR = ("entropy_ratio", "weight_sum")
# The field, the title, what to compare with, and the unit.
_PANELS = (
    ("n_max_weight", "n · largest weight", "dashed: all keys weigh the same", "n · max |α| (log)"),
    ("entropy_ratio", "Entropy / log n", "dashed: all keys weigh the same", "entropy / log n"),
    ("effective_keys", "Effective number of keys", "dashed: all n keys", "exp(entropy) (log)"),
    (
        "mean_distance",
        "Attention against mean(V)",
        "0: the output is mean(V)",
        "‖attention − mean‖ / ‖mean‖ (log)",
    ),
    (
        "softmax_distance",
        "Full softmax against mean(V)",
        "softmax over all n tokens, also where the model has windows",
        "‖softmax − mean‖ / ‖mean‖ (log)",
    ),
    ("weight_sum", "Sum of weights", "1 but with MILA's rotation", "Σ α"),
)


def plot_dispersion(curves: Sequence[Curve], captions: Sequence[str], stem: Path) -> list[Path]:
    """Draw n·max weight, entropy, effective keys and the distance from mean(V) against n.

    Of several models, the first stage of each is drawn; of one, all its stages.

    Args:
        curves: all on random inputs, or none.
        captions: what they share, and what the bars are.
        stem: path without suffix; ``.png`` and ``.svg`` are written.

    Returns:
        The files; none without a curve.
    """
    from matplotlib.figure import Figure

    if not curves:
        return []
    drawn = list(curves) if len({curve.name for curve in curves}) == 1 else first_stages(curves)
    rows = -(-len(drawn) // 6)
    figure = Figure(figsize=(14, 8.2 + 0.25 * rows), layout="constrained")
    figure.suptitle("; ".join(captions), x=0.01, ha="left", fontsize=9, color="#8a8a8a")
    for axes, (field, title, note, unit) in zip(figure.subplots(2, 3).flat, _PANELS, strict=True):
        _panel(axes, drawn, field)
        style_axes(axes, title, unit, [note])
        axes.set_xlabel("n, tokens (log)")
    return save_with_legend(figure, axes, stem, 6)


def _panel(axes: Axes, curves: Sequence[Curve], field: str) -> None:
    axes.set_xscale("log")
    look = looks((curve.mixer, curve.title) for curve in curves)
    for curve in curves:
        found = [(curve.tokens(r), curve.spread(r, field)) for r in curve.points]
        # A lone token's distance is zero up to rounding: no point of a logarithmic axis.
        known = [(n, s) for n, s in found if s is not None and (s.mean > _ZERO or field in _LINEAR)]
        below = [s.mean - s.low for _, s in known]
        above = [s.high - s.mean for _, s in known]
        axes.errorbar(
            [n for n, _ in known],
            [s.mean for _, s in known],
            yerr=[below, above] if any(below) or any(above) else None,
            label=curve.title,
            **look[curve.mixer, curve.title].style(),
            markersize=4.5,
            linewidth=1.6,
            elinewidth=1,
            capsize=2.5,
            zorder=3,
        )
    if field in _LINEAR:
        axes.set_ylim(0, 1.05)
    else:
        axes.set_yscale("log")
    if field in ("n_max_weight", *_LINEAR):
        axes.axhline(1, **_DASHED)
    if field == "effective_keys":
        sizes = sorted({curve.tokens(r) for curve in curves for r in curve.points})
        axes.plot(sizes, sizes, **_DASHED)
