"""Rows of dispersion become curves against n: heads, layers of a stage and seeds averaged."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from semabench.results.record import Record

RANDOM = "random"  # the data set of random inputs
_TO_TELL_APART = (
    "mixer",
    "options",
    "checkpoint",
    "weights",
    "dataset",
    "fingerprint",
    "n",
    "queries",
    "precision",
    "device",
)
_SHORT = {"checkpoint": 7, "fingerprint": 7}


@dataclass(frozen=True)
class Spread:
    """The mean over heads, layers and seeds, and the lowest and the highest of them."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """One stage of one model, or one kernel on random inputs.

    Attributes:
        name: the model or the kernel, and what tells it from others.
        stage: path of the stage; empty where there is but one.
        random: whether the inputs are random.
        points: rows by resolution, ascending; on random inputs that is the side of the grid.
    """

    name: str
    stage: str
    random: bool
    points: dict[int, list[Record]]

    @property
    def mixer(self) -> str:
        """Return the mixer or kernel; of a model that names none, the model."""
        return next(iter(self.points.values()))[0].mixer_or_model

    @property
    def title(self) -> str:
        """Name and stage."""
        return f"{self.name}, {self.stage}" if self.stage else self.name

    def tokens(self, resolution: int) -> int:
        """Return n at a resolution."""
        return self.points[resolution][0].tokens or 0

    def spread(self, resolution: int, field: str) -> Spread | None:
        """Return a number of the rows at a resolution; None where there is none."""
        rows = self.points.get(resolution, [])
        values = [v for row in rows if (v := getattr(row, field)) is not None]
        if not values:
            return None
        return Spread(statistics.fmean(values), min(values), max(values))


def dispersion_curves(records: Iterable[Record]) -> list[Curve]:
    """Group rows of dispersion, in the order first met; of equal measurements the newest counts.

    Trainings that differ by their seed alone are one curve, with one checkpoint a seed: the newest.
    """
    newest: dict[tuple[object, ...], Record] = {}
    for record in records:
        if record.key not in newest or record.time >= newest[record.key].time:
            newest[record.key] = record
    last: dict[tuple[object, ...], Record] = {}  # of each training
    for record in newest.values():
        training = *_identity(record), record.seed
        if training not in last or record.time >= last[training].time:
            last[training] = record
    groups: dict[tuple[str, ...], dict[str, list[Record]]] = {}
    for record in newest.values():
        if record.checkpoint != last[*_identity(record), record.seed].checkpoint:
            continue
        stages = groups.setdefault(_identity(record), {})
        stages.setdefault(stage_of(record.layer), []).append(record)
    curves = []
    for identity, stages in groups.items():
        name = _name(identity, list(groups))
        for stage, rows in stages.items():
            points: dict[int, list[Record]] = {}
            for row in sorted(rows, key=lambda row: row.resolution):
                points.setdefault(row.resolution, []).append(row)
            curves.append(Curve(name, stage, rows[0].dataset == RANDOM, points))
    return curves


def stage_of(layer: str) -> str:
    """Return a layer's stage, as ``stage 1``: blocks of a stage see the same grid.

    >>> stage_of("stages.0.blocks.1.mixer"), stage_of("blocks.3.attn")
    ('stage 1', '')
    """
    found = re.match(r"(?:stages|layers)\.(\d+)\.", layer)
    return f"stage {int(found[1]) + 1}" if found else ""


def first_stages(curves: Sequence[Curve]) -> list[Curve]:
    """Return each model's first stage, which has the most tokens."""
    first: dict[str, Curve] = {}
    for curve in curves:
        first.setdefault(curve.name, curve)
    return list(first.values())


def _identity(record: Record) -> tuple[str, ...]:
    told = {name: str(getattr(record, name)) for name in _TO_TELL_APART}
    if record.dataset == RANDOM:
        told["fingerprint"] = inputs_of(record)
        told["queries"] = ""  # small grids have fewer
    elif record.config and record.seed is not None:
        told["checkpoint"] = f"{record.config[:7]} after {record.epochs} epochs"
    return record.model, *told.values()


def inputs_of(record: Record) -> str:
    """Return how random inputs were drawn, but for the seed."""
    parts = (
        f"q, k in ±{record.input_bound:g}",
        f"d {record.input_dim}" if record.input_dim else "",
        f"v {record.input_values}" if record.input_values else "",
    )
    return ", ".join(filter(None, parts))


def _name(identity: tuple[str, ...], all_of_them: Sequence[tuple[str, ...]]) -> str:
    rivals = [other for other in all_of_them if other[0] == identity[0]]
    varied = []
    for place, field in enumerate(_TO_TELL_APART, start=1):
        if len({other[place] for other in rivals}) > 1 and identity[place]:
            text = identity[place]
            hashed = field in _SHORT and " " not in text  # unlike what only says how
            varied.append(text[: _SHORT[field]] if hashed else text)
    mixer_tells = len({other[1] for other in rivals}) == len(rivals)
    return ", ".join([identity[0], *(varied[:1] if mixer_tells else varied)])
