"""How corruption is shown: errors relative to AlexNet's, their mean, and accuracy by severity."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from operator import attrgetter

from semabench.evaluation.corruption.schema import ALEXNET_ERRORS, SEVERITIES
from semabench.results.csv_file import rows_csv
from semabench.results.record import Record
from semabench.results.summary import (
    Estimate,
    Line,
    Place,
    Series,
    errors_of,
    group,
    of_others,
    setting_of,
)
from semabench.results.text_table import Cell, Grid, Row
from semabench.results.view import Table, View, with_error

SERIES = Series(
    always=("mixer", "recipe", "corruption"),
    shown=(
        *("options", "weights", "epochs", "train_resolution", "dataset", "resolution"),
        *("crop_pct", "interpolation", "precision", "device"),
    ),
    apart=("backend", "layout", "n", "train_resolutions", "config", "checkpoint"),
    derived={"checkpoint": of_others},
    place=(attrgetter("severity"),),
)
_MODEL = tuple(name for name in SERIES.same if name != "corruption")


def lines(records: Sequence[Record]) -> list[Line]:
    """Return a line for each corruption and models that differ by their seed alone."""
    return group(records, SERIES)


def corruption_error(records: Sequence[Record]) -> Estimate | None:
    """Return a corruption's error over its severities relative to AlexNet's, in percent.

    CE = Σ_s E_s / Σ_s E_s(AlexNet), eq. 1 of arXiv 1903.12261; of several seeds the mean. None
    where a severity is missing.
    """
    found = [value for value in _by_seed(records).values() if value is not None]
    return Estimate.over_seeds(found) if found else None


def _by_seed(records: Sequence[Record]) -> dict[int | None, float | None]:
    if not records:
        return {}
    errors: dict[int | None, dict[int | None, float]] = {}
    for row in records:
        if row.top1 is not None:
            errors.setdefault(row.seed, {})[row.severity] = 100 - row.top1
    scale = ALEXNET_ERRORS[records[0].corruption] / 100
    return {
        seed: statistics.fmean(of.values()) / scale if len(of) == SEVERITIES else None
        for seed, of in errors.items()
    }


def error_table(found: Sequence[Line]) -> list[Grid]:
    """Return each model's corruption errors and, where it has all fifteen, their mean."""
    models: dict[tuple[object, ...], list[Line]] = {}
    for line in found:
        same = dict(zip(line.series.same, line.key, strict=True))
        models.setdefault(tuple(same[name] for name in _MODEL), []).append(line)
    names = [n for n in ALEXNET_ERRORS if any(line.first.corruption == n for line in found)]
    rows = []
    for of_model in models.values():
        by_name = {line.first.corruption: line for line in of_model}
        cells = [
            _cell(corruption_error(by_name[n].records) if n in by_name else None) for n in names
        ]
        first = of_model[0]
        label = ", ".join(part for part in first.name.split(", ") if part != first.first.corruption)
        mean = _cell(mean_error(of_model))
        rows.append(Row(first.first.model, first.mixer, [Cell(label, label), mean, *cells]))
    header = ["model", "mCE", *(name.replace("_", "\n") for name in names)]
    title = "Error under corruption, of AlexNet's (%); lower is better"
    return [Grid(title, header, rows)] if rows else []


def mean_error(of_model: Sequence[Line]) -> Estimate | None:
    """Return the mean corruption error of a model; None unless it has all corruptions."""
    by_seed: dict[int | None, list[float]] = {}
    for line in of_model:
        for seed, value in _by_seed(line.records).items():
            if value is not None:
                by_seed.setdefault(seed, []).append(value)
    whole = [statistics.fmean(of) for of in by_seed.values() if len(of) == len(ALEXNET_ERRORS)]
    return Estimate.over_seeds(whole) if whole else None


def _cell(value: Estimate | None) -> Cell:
    return Cell("", None) if value is None else Cell(with_error(value), value.mean)


def _severity(line: Line, place: Place) -> tuple[tuple[int, ...], str]:
    return place, f"severity {place[0]}"


def notes(found: Sequence[Line]) -> list[str]:
    """Return what all lines share, what mCE is, and what the errors of accuracies are."""
    mean = "mCE: the mean over all fifteen corruptions (arXiv 1903.12261)"
    return [*setting_of(found), mean, errors_of(found, "top1")]


_BY_SEVERITY = Table(
    "Top-1 accuracy by severity (%)", "top1", with_error, column=_severity, brief=False
)

VIEW = View(
    measure="corruption",
    title="Corruption",
    about="Trained models on the corrupted images of ImageNet-C, five severities of each "
    "corruption.",
    lines=lines,
    tables=(_BY_SEVERITY,),
    figures=(),
    notes=notes,
    csv=(("corruption.csv", rows_csv),),
    more=error_table,
)
