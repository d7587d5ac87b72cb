"""Records become lines: repetitions over seeds averaged, one cell a resolution."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
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
_ERRORS = ("_stderr", "_spread")  # binomial over the samples; half the interquartile range


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error, which is None where nothing tells it."""

    mean: float
    stderr: float | None  # over seeds s/√k, s with k - 1; of one seed its own: `_ERRORS`
    count: int  # seeds averaged


@dataclass(frozen=True)
class Cell:
    """One line's numbers at one resolution, behind which is a record a seed."""

    records: tuple[Record, ...]

    def estimate(self, field: str) -> Estimate | None:
        """Return the mean over seeds of any numeric field; None where no record has it."""
        known = [record for record in self.records if getattr(record, field) is not None]
        values = [getattr(record, field) for record in known]
        if not values:
            return None
        if len(values) == 1:
            errors = (getattr(known[0], field + suffix, None) for suffix in _ERRORS)
            error = next((error for error in errors if error is not None), None)
            return Estimate(values[0], error, 1)
        stderr = statistics.stdev(values) / math.sqrt(len(values))
        return Estimate(statistics.fmean(values), stderr, len(values))

    @property
    def top1(self) -> Estimate | None:
        """Top-1 accuracy in percent."""
        return self.estimate("top1")

    @property
    def images_per_second(self) -> Estimate | None:
        """Throughput."""
        return self.estimate("images_per_second")


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

    Repetitions are records that agree in ``record.SERIES_FIELDS``: their mean is taken over the
    k seeds, with the standard error s/√k, s being their sample standard deviation (k - 1). It holds
    what training draws; the samples are the same for all seeds. A single seed keeps its own
    error: of an accuracy the binomial one over the samples.
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


def describe_errors(
    lines: Sequence[Line], over_seeds: str = "± is the", of_one: str = "± is the"
) -> str:
    """Return what the errors of accuracies are, in one sentence.

    Args:
        over_seeds, of_one: how errors are drawn where a line has several seeds, or one.
    """
    one = "binomial standard error over the samples of one run, not over seeds"
    return _describe(_counts(lines, "top1"), one, over_seeds, of_one)


def describe_speed_errors(
    lines: Sequence[Line], over_seeds: str = "± is the", of_one: str = "± is"
) -> str:
    """Return what the errors of throughput are, in one sentence, as `describe_errors` does."""
    one = "half the interquartile range over the batches of one run"
    return _describe(_counts(lines, "images_per_second"), one, over_seeds, of_one)


def _describe(counts: set[int], one: str, over_seeds: str, of_one: str) -> str:
    many = f"standard error of the mean over {_span(counts - {1} or {1})} seeds, s/√seeds"
    if not counts:
        return ""
    if counts == {1}:
        return f"{of_one} {one}."
    if 1 not in counts:
        return f"{over_seeds} {many}."
    drawn = "" if of_one == over_seeds else f"{of_one[:1].lower()}{of_one[1:]} "
    return f"{over_seeds} {many}; where there is a single seed, {drawn}{one}."


def _counts(lines: Sequence[Line], field: str) -> set[int]:
    """Return over how many seeds the errors are that there are."""
    found = [cell.estimate(field) for line in lines for cell in line.cells.values()]
    return {e.count for e in found if e and e.stderr is not None}


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
        cells={r: Cell(tuple(newest[r].values())) for r in sorted(newest)},
        seeds=max(len(seeds) for seeds in newest.values()),
    )


def _text(name: str, value: object) -> str:
    if value is None:
        return ""
    return str(value)[:7] if name in _HASH_FIELDS else str(value)


def _span(counts: set[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
