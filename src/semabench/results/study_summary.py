"""Rows of a study become curves against n: seeds averaged, one curve a task, m and mixer."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from semabench.results.record import Record
from semabench.results.summary import Estimate

TASKS = ("texture", "majority", "needle", "recall")
CALIBRATION = "calibration"
ORDER = ("sema", "window", "mean", "softmax", "linear", "mila", "focused", "ssm", "none")
"""Of mixers in tables and figures; whatever finished first. Others come after, by name."""


@dataclass(frozen=True)
class Panel:
    """One task, of recall with one m, under one way of training.

    Attributes:
        task: its name.
        pairs: m; None but for recall.
        curves: by mixer, by resolution tested on, ascending: the mean over seeds.
        first: one of its rows, for what all share.
        device: named where its title must tell; else empty.
    """

    task: str
    pairs: int | None
    curves: dict[str, dict[int, Estimate]]
    first: Record
    device: str = ""

    @property
    def title(self) -> str:
        """Name the task, m and the device."""
        pairs = "" if self.pairs is None else f"{self.pairs} pairs"
        return ", ".join(filter(None, (self.task, pairs, self.device)))

    @property
    def chance(self) -> float:
        """The accuracy of guessing, in percent."""
        return 100 / (self.first.classes or 1)


@dataclass(frozen=True)
class Way:
    """Trainings that differ by task, mixer and seed alone, and their panels.

    Attributes:
        name: for file names: ``96-112-128px``, then read-out and depth where they are not usual.
        title: the same as words.
        sizes: trained at, in pixels.
        usual: read out at the query, from one block.
        device: what it ran on, where the rows are of several; else empty.
        panels: of each task and m.
    """

    name: str
    title: str
    sizes: tuple[int, ...]
    usual: bool
    device: str
    panels: tuple[Panel, ...]


def study_ways(records: Iterable[Record]) -> list[Way]:
    """Group rows of a study, in the order first met.

    Tasks have settings of their own (``config``) within one way; a second one for the same task,
    of another learning rate, say, is another way.
    """
    ways: dict[tuple[object, ...], list[Record]] = {}
    configs: dict[tuple[object, ...], list[str]] = {}
    for row in records:
        pictures = row.tested_on == CALIBRATION
        key = (row.train_resolutions, row.readout, row.depth, pictures, row.device)
        known = configs.setdefault((*key, row.dataset), [])
        if row.config not in known:
            known.append(row.config)
        ways.setdefault((known.index(row.config), *key), []).append(row)
    devices = len({key[-1] for key in ways})
    return [_way(rows, devices > 1, key[0] != 0) for key, rows in ways.items()]


def trained_at_each(ways: Sequence[Way]) -> list[Panel]:
    """Return panels of models tested at the one size that they were trained at, of several."""
    Place = tuple[str, int | None, str]
    merged: dict[Place, dict[str, dict[int, Estimate]]] = {}
    firsts: dict[Place, Record] = {}
    for way in ways:
        if len(way.sizes) != 1 or not way.usual:
            continue
        (size,) = way.sizes
        for panel in way.panels:
            place = panel.task, panel.pairs, way.device
            firsts.setdefault(place, panel.first)
            for mixer, points in panel.curves.items():
                if size in points:
                    merged.setdefault(place, {}).setdefault(mixer, {})[size] = points[size]
    return [
        Panel(task, pairs, curves, firsts[task, pairs, device], device)
        for (task, pairs, device), curves in merged.items()
        if len({size for points in curves.values() for size in points}) > 1
    ]


def _way(rows: Sequence[Record], with_device: bool, with_config: bool) -> Way:
    first = rows[0]
    sizes = first.train_resolutions
    readout = {"query": "", "attention": "attention-pooled", "avg": "averaged"}[first.readout]
    blocks = "" if first.depth == 1 else f"{first.depth} blocks"
    calibration = "calibration pictures" if first.tested_on == CALIBRATION else ""
    config = f"config {first.config}" if with_config else ""
    device = first.device if with_device else ""
    unusual = [text for text in (readout, blocks, calibration, config) if text]
    extra = [*unusual, device] if device else unusual
    trained = "trained at " + ", ".join(map(str, sizes)) + " px"
    groups: dict[tuple[str, int | None], list[Record]] = {}
    for row in rows:
        groups.setdefault((row.dataset, row.pairs), []).append(row)
    return Way(
        name="-".join(["-".join(map(str, sizes)) + "px", *extra]).replace(" ", "-"),
        title=", ".join([trained, *extra]),
        sizes=sizes,
        usual=not unusual,
        device=device,
        panels=tuple(_panel(*place, groups[place]) for place in sorted(groups, key=_by_task)),
    )


def _by_task(place: tuple[str, int | None]) -> tuple[int, str, int]:
    task, pairs = place
    return (TASKS.index(task) if task in TASKS else len(TASKS), task, pairs or 0)


def _panel(task: str, pairs: int | None, rows: Sequence[Record]) -> Panel:
    found: dict[str, dict[int, dict[int | None, Record]]] = {}
    for row in rows:
        seeds = found.setdefault(row.mixer, {}).setdefault(row.resolution, {})
        if row.seed not in seeds or row.time >= seeds[row.seed].time:
            seeds[row.seed] = row
    curves = {
        mixer: {size: _estimate(list(seeds.values())) for size, seeds in sorted(sizes.items())}
        for mixer, sizes in sorted(found.items(), key=lambda item: by_mixer(item[0]))
    }
    return Panel(task, pairs, curves, rows[0])


def by_mixer(mixer: str) -> tuple[int, str]:
    """Return what mixers are sorted by: their place in `ORDER`."""
    return (ORDER.index(mixer) if mixer in ORDER else len(ORDER), mixer)


def _estimate(rows: Sequence[Record]) -> Estimate:
    """Mean over seeds with its standard error; of a single seed the binomial one."""
    values = [row.top1 or 0.0 for row in rows]
    if len(values) == 1:
        return Estimate(values[0], rows[0].top1_stderr, 1)
    stderr = statistics.stdev(values) / math.sqrt(len(values))
    return Estimate(statistics.fmean(values), stderr, len(values))
