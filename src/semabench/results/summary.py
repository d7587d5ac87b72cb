"""Records become lines: equal rows once, repetitions averaged, one point a place."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Self

from semabench.results.record import Record, Take, newest_of_equals

Place = tuple[int, ...]

ERRORS = {
    "seeds": "standard error of the mean over {seeds} seeds, s/√seeds",
    "samples": "binomial standard error over the samples of one run, not over seeds",
    "batches": "half the interquartile range over the batches of one run",
    "windows": "half the interquartile range over the timed windows of one process",
    "range": "lowest to highest of heads, layers and seeds",
}
"""What an error is of; the key says so in `Estimate.of`."""


@dataclass(frozen=True)
class Sheet:
    """What is drawn in one file: ``name`` is part of the file's, ``title`` says it in words."""

    name: str = ""
    title: str = ""


@dataclass(frozen=True)
class Series:
    """How rows group into lines."""

    # fields that rows of a line share, as they do ``model``, and its label tells
    always: tuple[str, ...] = ("mixer",)
    # more of these, which the label tells where any two lines differ by them
    shown: tuple[str, ...] = ()
    # more of these, which it tells where lines differ by nothing told so far
    apart: tuple[str, ...] = ()
    # by name, how what is no field of the record is taken from a row
    derived: Mapping[str, Take] = field(default_factory=dict)
    # fields by which the rows of one point differ; of equal ones the newest counts
    averaged: tuple[str, ...] = ("seed",)
    # fields that tell the points of a line apart, ascending
    place: tuple[Take, ...] = (attrgetter("resolution"),)
    newest: str = ""  # a field of which each line and seed keeps the value measured last alone
    # sheet, panel: what no line goes across: the file it is drawn in, and the place there
    sheet: Callable[[Record], Sheet] = lambda _: Sheet()
    panel: Callable[[Record], str] = lambda _: ""
    # what lines are sorted by; equal ones stay in the order first met
    order: Callable[[Record], Any] = lambda _: 0
    own: str = "batches"  # what a lone row's spread is of, a key of `ERRORS`
    # whether an error is the range of the rows, not the standard error of their mean
    ranged: bool = False

    @property
    def same(self) -> dict[str, Take]:
        """By name, how what rows of a line share is taken from one."""
        names = ("model", *self.always, *self.shown, *self.apart)
        return {name: self.derived.get(name, attrgetter(name)) for name in names}


@dataclass(frozen=True)
class Estimate:
    """A mean with its error."""

    mean: float  # over the rows of a point
    # low, high: the ends of its error bar; the mean itself where nothing tells an error
    low: float
    high: float
    of: str = ""  # a key of `ERRORS`; empty without an error
    count: int = 1  # seeds behind it
    # half the error bar; None where nothing tells it, or it is a range
    stderr: float | None = None

    @classmethod
    def around(cls, mean: float, error: float, of: str, count: int = 1) -> Self:
        """Return a mean with an error to either side."""
        return cls(mean, mean - error, mean + error, of, count, error)

    @classmethod
    def over_seeds(cls, values: Sequence[float]) -> Self:
        """Return the mean of several seeds, with its standard error s/√k; of one, it alone."""
        mean = statistics.fmean(values)
        if len(values) == 1:
            return cls(mean, mean, mean)
        error = statistics.stdev(values) / math.sqrt(len(values))
        return cls.around(mean, error, "seeds", len(values))


@dataclass(frozen=True)
class Line:
    """Rows that belong together: one model, set up and trained in one way."""

    series: Series
    key: tuple[object, ...]  # what they share
    # the model, and what tells lines apart, as text by name: the same names in all lines
    label: dict[str, str]
    name: str  # for a legend: the model, then only what differs and is not implied by it
    sheet: Sheet
    panel: str
    points: dict[Place, tuple[Record, ...]]  # the rows behind each place, in the order of places

    @property
    def records(self) -> list[Record]:
        """All rows."""
        return [row for rows in self.points.values() for row in rows]

    @property
    def first(self) -> Record:
        """One of its rows, for what they all share."""
        return next(iter(self.points.values()))[0]

    @property
    def mixer(self) -> str:
        """The mixer; of a model that names none, the model."""
        return self.first.mixer_or_model

    @property
    def seeds(self) -> int:
        """The most seeds behind any point."""
        return max(map(self.count, self.points))

    def count(self, place: Place) -> int:
        """Return how many seeds are behind a point."""
        return len({row.seed for row in self.points[place]})

    def estimate(self, place: Place, quantity: str | Take) -> Estimate | None:
        """Return a number of the point at a place; None where no row has it.

        Of several rows the mean with its standard error s/√k, s being their sample standard
        deviation (k - 1): it holds what training draws, the samples are the same for all seeds.
        A lone row has its own error: ``_stderr`` or ``_spread``.
        """
        take = attrgetter(quantity) if isinstance(quantity, str) else quantity
        known = [(v, row) for row in self.points.get(place, ()) if (v := take(row)) is not None]
        values = [value for value, _ in known]
        if not values:
            return None
        mean, count = statistics.fmean(values), len({row.seed for _, row in known})
        if self.series.ranged:
            low, high = min(values), max(values)
            mean = min(max(mean, low), high)  # equal values' mean may be off by a rounding
            return Estimate(mean, low, high, "range" if low < high else "", count)
        if len(values) > 1:
            return Estimate.over_seeds(values)
        for suffix, of in (("_stderr", "samples"), ("_spread", self.series.own)):
            if (own := getattr(known[0][1], f"{quantity}{suffix}", None)) is not None:
                return Estimate.around(values[0], own, of)
        return Estimate(values[0], values[0], values[0])  # an integer stays one


def group(records: Iterable[Record], series: Series) -> list[Line]:
    """Group rows into lines, in their order; of equal rows the newest counts."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    takes = series.same.values()
    for row in sorted(records, key=series.order):
        same = tuple(take(row) for take in takes)
        groups.setdefault((series.sheet(row), series.panel(row), *same), []).append(row)
    labels = _labels([key[2:] for key in groups], series)
    lines = []
    for (key, rows), label in zip(groups.items(), labels, strict=True):
        points: dict[Place, list[Record]] = {}
        equal: list[str | Take] = [*series.place, *series.averaged]
        for row in newest_of_equals(_latest(rows, series.newest), equal):
            points.setdefault(tuple(take(row) for take in series.place), []).append(row)
        ordered = {place: tuple(points[place]) for place in sorted(points)}
        sheet, panel = series.sheet(rows[0]), series.panel(rows[0])
        lines.append(
            Line(series, key[2:], label, _name(label, labels, series), sheet, panel, ordered)
        )
    return lines


def rows_of(lines: Iterable[Line]) -> list[Record]:
    """Return all rows of some lines."""
    return [row for line in lines for row in line.records]


def errors_of(lines: Iterable[Line], quantity: str) -> str:
    """Return what the errors of a quantity are at all points of some lines, in one sentence."""
    found = (line.estimate(place, quantity) for line in lines for place in line.points)
    return describe_errors(estimate for estimate in found if estimate)


def describe_shared(
    records: Sequence[Record], names: Iterable[str], forms: Mapping[str, str] | None = None
) -> str:
    """Return what all rows share of these fields; ``{"n": "n = {:,}"}`` says how one is written."""
    parts = []
    for name in names:
        form = (forms or {}).get(name, "{}")
        values = {getattr(row, name) for row in records}
        if len(values) == 1 and (value := values.pop()):
            parts.append(form.format(value))
    return ", ".join(parts)


_SHARED = ("recipe", "dataset", "n", "crop_pct", "interpolation", "train_resolution", "epochs")
_FORMS = {
    "recipe": "recipe {}",
    "n": "n = {:,}",
    "crop_pct": "crop {:g}",
    "train_resolution": "trained at {} px",
    "epochs": "{} epochs",
}


def of_others(row: Record) -> str:
    """Return which weights a row is of, where nothing tells how they were trained."""
    return row.checkpoint if row.seed is None else ""


def setting_of(lines: Iterable[Line]) -> list[str]:
    """Return what lines of accuracies share: the data, how it was shown, and on what it ran."""
    rows = [line.first for line in lines]
    return [describe_shared(rows, (*_SHARED, "precision", "device"), _FORMS)]


def describe_errors(
    estimates: Iterable[Estimate], several: str = "± is the", one: str = "± is the"
) -> str:
    """Return what errors are, in one sentence; nothing where there is none.

    Args:
        several, one: how errors are drawn over seeds, and where there is a single row.
    """
    errors = [estimate for estimate in estimates if estimate.of]
    counts = [estimate.count for estimate in errors if estimate.of == "seeds"]
    over_seeds = f"{several} {ERRORS['seeds'].format(seeds=span(counts))}" if counts else ""
    kinds = sorted({estimate.of for estimate in errors} - {"seeds"})
    own = " or ".join(ERRORS[kind] for kind in kinds)
    if not over_seeds or not own:
        half = own.startswith("half") and one == "± is the"
        alone = f"{'± is' if half else one} {own}" if own else ""
        return f"{over_seeds or alone}." if errors else ""
    drawn = "" if one == several else f"{one[:1].lower()}{one[1:]} "
    return f"{over_seeds}; where there is a single seed, {drawn}{own}."


def span(numbers: Iterable[int]) -> str:
    """Return the lowest and the highest, as ``2 to 3``, or the only one."""
    found = [f"{number:,}" for number in sorted(set(numbers))]
    return " to ".join(dict.fromkeys((found[0], found[-1]))) if found else ""


def _latest(rows: Sequence[Record], name: str) -> list[Record]:
    """Keep of each seed the rows whose field is as in the one measured last."""
    if not name:
        return list(rows)
    last = {row.seed: row for row in sorted(rows, key=lambda row: row.time)}
    return [row for row in rows if getattr(row, name) == getattr(last[row.seed], name)]


def _labels(keys: Sequence[tuple[object, ...]], series: Series) -> list[dict[str, str]]:
    """Return the model, and what tells lines apart, as text; the same fields of all lines."""
    lines = [dict(zip(series.same, key, strict=True)) for key in keys]
    named = ["model", *series.always]
    named += [name for name in series.shown if len({line[name] for line in lines}) > 1]
    for name in series.apart:
        told = {tuple(line[n] for n in named) for line in lines}
        if len({tuple(line[n] for n in [*named, name]) for line in lines}) > len(told):
            named.append(name)
    return [{name: _text(name, line[name]) for name in named} for line in lines]


_HASHES = ("fingerprint", "config", "checkpoint")


def _text(name: str, value: object) -> str:
    text = "" if value is None else str(value)
    return text[:7] if name in _HASHES and " " not in text else text


def _name(label: dict[str, str], labels: Sequence[dict[str, str]], series: Series) -> str:
    """Return ``sema_nano``, or ``sema_nano, mean, epochs 6`` as far as needed."""
    rivals = [other for other in labels if other["model"] == label["model"]]
    parts = [label["model"]]
    for name, text in label.items():
        others = rivals if name in series.apart else labels
        implied = name == "model" or (name == "mixer" and text in label["model"].split("_"))
        if text and not implied and len({other[name] for other in others}) > 1:
            bare = text.replace(".", "").isdigit()
            parts.append(f"{name.replace('_', ' ')} {text}" if bare else text)
    return ", ".join(parts)
