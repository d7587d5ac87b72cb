"""How accuracy is shown: tables and figures against resolution, and files of the rows."""

from __future__ import annotations

from collections.abc import Sequence

from semabench.results.csv_file import timm_csv, write_csv
from semabench.results.record import Record
from semabench.results.summary import Line, Series, errors_of, group, of_others, setting_of
from semabench.results.view import (
    POWER_LAW,
    Figure,
    Panel,
    Table,
    View,
    chance,
    on_page,
    three_figures,
    trained_at,
    with_error,
)

SERIES = Series(
    always=("mixer", "recipe"),
    shown=(
        *("options", "weights", "epochs", "train_resolution", "dataset", "labels"),
        *("crop_pct", "interpolation", "precision", "device"),
    ),
    apart=(
        *("backend", "execution", "layout", "n", "fingerprint", "logits"),
        *("train_resolutions", "config", "checkpoint"),
    ),
    derived={"checkpoint": of_others},
)


def lines(records: Sequence[Record]) -> list[Line]:
    """Return a line for runs that differ by their seed alone."""
    return group(records, SERIES)


def notes(lines: Sequence[Line]) -> list[str]:
    """Return what all lines share, and what the errors of accuracies are."""
    return [*setting_of(lines), errors_of(lines, "top1")]


def summary_csv(records: Sequence[Record]) -> str:
    """Return a row a line and resolution: means over seeds, their standard errors, and of what.

    ``_error_of`` is ``seeds``: s/√seeds between them; or ``samples``: of one run, binomial for an
    accuracy, half the interquartile range over its batches for throughput.
    """
    numbers = ("top1", "top5", "images_per_second")
    rows: list[dict[str, object]] = []
    for line in lines(records):
        for place, found in line.points.items():
            row: dict[str, object] = {**line.label, "resolution": place[0], "n": line.first.n}
            row["seeds"] = len(found)
            for name in numbers:
                if estimate := line.estimate(place, name):
                    of = "seeds" if estimate.of == "seeds" else "samples" if estimate.of else None
                    row |= {name: estimate.mean, f"{name}_error": estimate.stderr}
                    row[f"{name}_error_of"] = of
            memory = line.estimate(place, "peak_memory_mib")
            rows.append({**row, "peak_memory_mib": memory and memory.mean})
    told = [name for name in rows[0] if not name.startswith((*numbers, "peak"))]
    parts = [f"{name}{part}" for name in numbers for part in ("", "_error", "_error_of")]
    return write_csv([*told, *parts, "peak_memory_mib"], rows)


VIEW = View(
    measure="accuracy",
    title="Accuracy",
    about="Trained models, evaluated at several resolutions on the same images. Throughput and "
    "memory are those of the evaluation; speed measured by itself is under Cost.",
    lines=lines,
    tables=(
        Table("Top-1 accuracy (%)", "top1", with_error),
        Table("Images per second", "images_per_second", three_figures),
        Table("Top-5 accuracy (%)", "top5", with_error, brief=False),
        Table("Peak memory (MiB)", "peak_memory_mib", three_figures, brief=False),
    ),
    figures=(
        Figure(
            "accuracy",
            "resolution",
            (
                Panel(
                    "top1",
                    "Higher is better. A mixer that holds up as images grow keeps its line from "
                    "falling to the right of the training size. A difference of less than two "
                    "standard errors shows nothing.",
                    rules=lambda lines: [*chance(lines), *trained_at(lines)],
                ),
            ),
            captions=setting_of,
        ),
        Figure(
            "throughput",
            "resolution",
            (Panel("images_per_second", f"Higher is better. {POWER_LAW}", rules=trained_at),),
            captions=setting_of,
        ),
        on_page(
            "resolution",
            "peak_memory_mib",
            f"Lower is better. {POWER_LAW} On a CPU this is the whole process, with libraries.",
            trained_at,
        ),
        on_page(
            "images_per_second",
            "top1",
            "Up and to the right is better: more accurate and faster. Each line follows one model "
            "through its resolutions; a point to the upper right of another beats it.",
            chance,
        ),
        on_page(
            "gmacs",
            "top1",
            "Up and to the left is better: more accurate for less arithmetic. Each line follows "
            "one model through its resolutions. Multiply-adds are counted, not timed.",
            chance,
        ),
    ),
    notes=notes,
    csv=(("results.csv", timm_csv), ("summary.csv", summary_csv)),
)
