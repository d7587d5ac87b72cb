"""Rows of cost become tables, curves against resolution, exponents and crossings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from semabench.results.record import Record
from semabench.results.scaling import (
    Crossing,
    Point,
    PowerLaw,
    common_batch,
    crossings,
    fit_power_law,
)

_TO_TELL_APART = ("mixer", "options", "backend", "precision", "device", "versions")

Condition = tuple[str, int, int]
"""Mode, resolution, and the batch size that was asked for."""


@dataclass(frozen=True)
class Subject:
    """One model, set up in one way.

    Attributes:
        name: the model, and what tells it from others of its name.
        backend: of its ops.
        rows: the newest of each (execution, condition).
    """

    name: str
    backend: str
    rows: dict[tuple[str, Condition], Record]


@dataclass(frozen=True)
class Curve:
    """One model's cost against resolution, in one mode and execution.

    Attributes:
        batches: by resolution. One for all where the rows allow, otherwise the largest of each.
        rows: by resolution, ascending.
    """

    name: str
    batches: dict[int, int]
    rows: dict[int, Record]

    @property
    def mixer(self) -> str:
        """Return the mixer; of a model that names none, the model."""
        return next(iter(self.rows.values())).mixer_or_model

    @property
    def one_batch(self) -> bool:
        """Return whether all resolutions have the same batch size: memory compares then alone."""
        return len(set(self.batches.values())) == 1


@dataclass(frozen=True)
class Scaling:
    """How one curve grows: None where too few resolutions, or other batch sizes, cannot tell.

    On a CPU, memory is the process's, most of which is not the model's: it is not fitted.
    """

    curve: Curve
    latency: PowerLaw | None  # of one picture
    memory: PowerLaw | None  # peak


@dataclass(frozen=True)
class Meeting:
    """A crossing of two curves' time per picture, by name."""

    names: tuple[str, str]
    crossing: Crossing


def subjects(records: Iterable[Record]) -> list[Subject]:
    """Group rows of cost by model, in the order first met; the newest of equal ones counts."""
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        groups.setdefault((record.model, *map(_told(record), _TO_TELL_APART)), []).append(record)
    found = []
    for identity, rows in groups.items():
        rivals = [other for other in groups if other[0] == identity[0]]
        varied = [identity[i] for i in range(1, len(identity)) if len({o[i] for o in rivals}) > 1]
        newest: dict[tuple[str, Condition], Record] = {}
        for row in rows:
            place = row.execution, condition(row)
            if place not in newest or row.time >= newest[place].time:
                newest[place] = row
        name = ", ".join([identity[0], *filter(None, varied)])
        found.append(Subject(name, identity[1 + _TO_TELL_APART.index("backend")], newest))
    return found


def condition(row: Record) -> Condition:
    """Return what a row was asked for."""
    return row.mode, row.resolution, row.asked_batch_size or row.batch_size or 0


def conditions(chosen: Sequence[Subject]) -> list[Condition]:
    """Return all conditions of any of these, training first, then by resolution and batch."""
    found = {place for subject in chosen for _, place in subject.rows}
    return sorted(found, key=lambda c: (c[0] != "train", c[1], c[2]))


def executions(chosen: Sequence[Subject]) -> list[str]:
    """Return ``eager`` and ``compiled``, as far as there are rows of them."""
    found = {execution for subject in chosen for execution, _ in subject.rows}
    return [name for name in ("eager", "compiled") if name in found]


def curves(chosen: Sequence[Subject], mode: str, execution: str) -> list[Curve]:
    """Return each model's curve in one mode and execution; none of those without rows."""
    found = []
    for subject in chosen:
        rows: dict[int, dict[int, Record]] = {}
        for (how, (what, resolution, batch)), row in subject.rows.items():
            if (how, what) == (execution, mode) and row.images_per_second:
                rows.setdefault(resolution, {})[batch] = row
        if not rows:
            continue
        common = common_batch({r: list(sizes) for r, sizes in rows.items()})
        picked = {r: rows[r][max(rows[r]) if common is None else common] for r in sorted(rows)}
        batches = {r: row.batch_size or 0 for r, row in picked.items()}
        found.append(Curve(subject.name, batches, picked))
    return found


def scaling(curve: Curve) -> Scaling:
    """Fit time per picture and peak memory against tokens."""
    times = {r: point.cost for r, point in _times(curve).items()}
    peaks = {r: row.peak_memory_mib for r, row in curve.rows.items() if row.peak_memory_mib}
    on_cpu = any(row.device == "cpu" for row in curve.rows.values())
    fits = curve.one_batch and not on_cpu
    return Scaling(curve, fit_power_law(times), fit_power_law(peaks) if fits else None)


def meetings(chosen: Sequence[Curve]) -> list[Meeting]:
    """Return where the time per picture of any two curves crosses, at equal batch sizes."""
    found = []
    for first, second in combinations(chosen, 2):
        same = [r for r in first.rows if first.batches[r] == second.batches.get(r)]
        a, b = _times(first), _times(second)
        for crossing in crossings({r: a[r] for r in same}, {r: b[r] for r in same}):
            found.append(Meeting((first.name, second.name), crossing))
    return found


def _times(curve: Curve) -> dict[int, Point]:
    """Return milliseconds a picture, with their spread."""
    found = {}
    for resolution, row in curve.rows.items():
        speed = row.images_per_second
        assert speed is not None
        relative = (row.images_per_second_spread or 0) / speed
        found[resolution] = Point(1e3 / speed, relative * 1e3 / speed)
    return found


def _told(record: Record):  # type: ignore[no-untyped-def]
    def tell(name: str) -> str:
        text = str(getattr(record, name))
        return text.replace("+compile", "") if name == "backend" else text

    return tell
