"""How probes of features are shown: the accuracy of each classifier against resolution."""

from __future__ import annotations

from collections.abc import Sequence

from semabench.results.csv_file import rows_csv
from semabench.results.record import Record
from semabench.results.summary import (
    Line,
    Series,
    Sheet,
    errors_of,
    group,
    of_others,
    setting_of,
)
from semabench.results.view import Figure, Panel, Table, View, chance, trained_at, with_error

_TITLES = {"knn": "nearest neighbours", "linear": "a linear layer"}

SERIES = Series(
    always=("mixer", "classifier", "recipe"),
    shown=(
        *("neighbors", "options", "weights", "epochs", "train_resolution", "dataset"),
        *("crop_pct", "interpolation", "precision", "device"),
    ),
    apart=(
        *("backend", "layout", "n", "train_n", "fingerprint", "temperature", "penalties"),
        *("train_resolutions", "config", "checkpoint"),
    ),
    derived={"checkpoint": of_others},
    sheet=lambda row: Sheet(row.classifier, _TITLES[row.classifier]),
)


def lines(records: Sequence[Record]) -> list[Line]:
    """Return a line for models that differ by their seed alone, and each classifier."""
    return group(records, SERIES)


def notes(lines: Sequence[Line]) -> list[str]:
    """Return what all lines share, and what the errors of accuracies are."""
    return [*setting_of(lines), errors_of(lines, "top1")]


VIEW = View(
    measure="probe",
    title="Frozen features",
    about="What a model's features before its last layer tell of the classes, without training it "
    "further: its nearest neighbours among the training images vote, or a linear layer is fitted.",
    lines=lines,
    tables=(Table("Top-1 of frozen features (%)", "top1", with_error),),
    figures=(
        Figure(
            "probe",
            "resolution",
            (
                Panel(
                    "top1",
                    "Higher is better. It tells how well the classes are apart in the features, "
                    "whatever the head has learnt; training images are shown at the same size.",
                    rules=lambda lines: [*chance(lines), *trained_at(lines)],
                ),
            ),
            captions=setting_of,
        ),
    ),
    notes=notes,
    csv=(("probe.csv", rows_csv),),
)
