"""Records become lines: repetitions over seeds averaged, one cell a resolution."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from semabench.results.record import Record

ALWAYS_SHOWN = ("model", "mixer", "recipe")
SHOWN_IF_VARIED = (
    "options",
    "weights",
    "epochs",
    "train_resolution",
    "dataset",
    "crop_pct",
    "interpolation",
    "precision",
    "device",
)
SHOWN_TO_TELL_APART = ("backend", "n", "fingerprint", "config")
_HASH_FIELDS = ("fingerprint", "config")


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error, which is None where nothing tells it."""

    mean: float
    stderr: float | None
    count: int  # seeds averaged; with one, an accuracy's stderr is binomial over the samples


@dataclass(frozen=True)
class Cell:
    """One line's numbers at one resolution; accuracies in percent."""

    top1: Estimate | None
    top5: Estimate | None
    images_per_second: Estimate | None
    peak_memory_mib: float | None


@dataclass(frozen=True)
class Line:
    """Runs that differ by their seed alone.

    Attributes:
        label: model, mixer, recipe and the fields that tell this line from the others, as text.
        name: the same for a legend: the model, then only what differs and is not implied by it.
        first: one of its records, for what they all share.
        cells: by resolution, ascending.
        seeds: the most seeds behind any cell.
    """

    label: dict[str, str]
    name: str
    first: Record
    cells: dict[int, Cell]
    seeds: int


def summarise(records: Iterable[Record]) -> list[Line]:
    """Group records into lines, in the order first met; of equals (seed, resolution) the newest.

    Repetitions are records that agree in ``record.SERIES_FIELDS``: their mean is taken over
    seeds, its standard error is that between seeds, s/√k. A single seed keeps its own binomial
    standard error.
    """
    series: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        series.setdefault(record.series, []).append(record)
    groups = list(series.values())
    shown = _shown_fields([group[0] for group in groups])
    labels = [{name: _text(name, getattr(group[0], name)) for name in shown} for group in groups]
    varied = [name for name in shown if len({label[name] for label in labels}) > 1]
    return [
        _line(group, label, _name(label, varied))
        for group, label in zip(groups, labels, strict=True)
    ]


def resolutions(lines: Sequence[Line]) -> list[int]:
    """Return all resolutions of the lines, ascending."""
    return sorted({resolution for line in lines for resolution in line.cells})


def describe_errors(lines: Sequence[Line]) -> str:
    """Return what ± means for these lines, in one sentence."""
    cells = [cell for line in lines for cell in line.cells.values()]
    counts = {cell.top1.count for cell in cells if cell.top1}
    if not counts:
        return ""
    if counts == {1}:
        return "± is the binomial standard error over the samples of one run, not over seeds."
    if min(counts) > 1:
        return f"± is the standard error of the mean over {_span(counts)} seeds."
    return (
        "± is the standard error of the mean over seeds where a line has several, "
        "else binomial over the samples of one run."
    )


def describe_speed_errors(lines: Sequence[Line]) -> str:
    """Return what the bars of throughput mean, in one sentence."""
    cells = [cell for line in lines for cell in line.cells.values()]
    speeds = [cell.images_per_second for cell in cells if cell.images_per_second]
    one = "half the interquartile range over the batches of one run"
    many = "the standard error of the mean over seeds"
    if not any(speed.stderr for speed in speeds):
        return ""
    if all(speed.count == 1 for speed in speeds):
        return f"Bars: {one}."
    if all(speed.count > 1 for speed in speeds):
        return f"Bars: {many}."
    return f"Bars: {many} where a line has several, else {one}."


def describe_setting(lines: Sequence[Line]) -> str:
    """Return what all lines share: the data, how it was shown, and on what it ran."""
    parts: list[str] = []
    for name, text in {
        "recipe": "recipe {}",
        "dataset": "{}",
        "n": "n = {:,}",
        "crop_pct": "crop {:g}",
        "interpolation": "{}",
        "train_resolution": "trained at {} px",
        "epochs": "{} epochs",
        "precision": "{}",
        "device": "{}",
    }.items():
        values = {getattr(line.first, name) for line in lines}
        if len(values) == 1 and (value := values.pop()):
            parts.append(text.format(value))
    return ", ".join(parts)


def _shown_fields(records: Sequence[Record]) -> list[str]:
    varied = [name for name in SHOWN_IF_VARIED if len({getattr(r, name) for r in records}) > 1]
    shown = [*ALWAYS_SHOWN, *varied]
    for name in SHOWN_TO_TELL_APART:
        labels = {tuple(getattr(r, field) for field in shown) for r in records}
        finer = {tuple(getattr(r, field) for field in [*shown, name]) for r in records}
        if len(finer) > len(labels):
            shown.append(name)
    return shown


def _name(label: dict[str, str], varied: Sequence[str]) -> str:
    """Return ``sema_nano``, or ``sema_nano, mean, epochs 6`` as far as needed."""
    parts = [label["model"]]
    for name in varied:
        text = label[name]
        implied = name == "model" or (name == "mixer" and text in label["model"].split("_"))
        if text and not implied:
            bare = text.replace(".", "").isdigit()
            parts.append(f"{name.replace('_', ' ')} {text}" if bare else text)
    return ", ".join(parts)


def _line(group: Sequence[Record], label: dict[str, str], name: str) -> Line:
    newest: dict[int, dict[int | None, Record]] = {}
    for record in group:
        seeds = newest.setdefault(record.resolution, {})
        if record.seed not in seeds or record.time >= seeds[record.seed].time:
            seeds[record.seed] = record
    return Line(
        label=label,
        name=name,
        first=group[0],
        cells={r: _cell(list(newest[r].values())) for r in sorted(newest)},
        seeds=max(len(seeds) for seeds in newest.values()),
    )


def _cell(records: Sequence[Record]) -> Cell:
    memory = [r.peak_memory_mib for r in records if r.peak_memory_mib is not None]
    return Cell(
        top1=_estimate(records, lambda r: r.top1, lambda r: r.top1_stderr),
        top5=_estimate(records, lambda r: r.top5, lambda r: r.top5_stderr),
        images_per_second=_estimate(
            records, lambda r: r.images_per_second, lambda r: r.images_per_second_spread
        ),
        peak_memory_mib=max(memory, default=None),
    )


def _estimate(
    records: Sequence[Record],
    value: Callable[[Record], float | None],
    error: Callable[[Record], float | None],
) -> Estimate | None:
    known = [(v, error(r)) for r in records if (v := value(r)) is not None]
    if not known:
        return None
    values = [v for v, _ in known]
    if len(values) == 1:
        return Estimate(values[0], known[0][1], 1)
    stderr = statistics.stdev(values) / math.sqrt(len(values))
    return Estimate(statistics.fmean(values), stderr, len(values))


def _text(name: str, value: object) -> str:
    if value is None:
        return ""
    return str(value)[:7] if name in _HASH_FIELDS else str(value)


def _span(counts: set[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
