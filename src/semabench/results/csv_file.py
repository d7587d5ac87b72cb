"""Rows as CSV: whole, compact to be committed and read back, and in the columns of timm's files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from semabench.errors import SemabenchError
from semabench.results.record import Record, field_types

TIMM_COLUMNS = (
    *("model", "img_size", "top1", "top1_err", "top5", "top5_err"),
    *("param_count", "crop_pct", "interpolation"),
)
"""The columns of timm's results/results-imagenet.csv; ``_err`` is 100 - accuracy there."""

TIMM_BENCHMARK_COLUMNS = (
    *("model", "infer_samples_per_sec", "infer_step_time", "infer_batch_size", "infer_img_size"),
    *("infer_gmacs", "infer_macts", "train_samples_per_sec", "train_step_time"),
    *("train_batch_size", "train_img_size", "param_count"),
)
"""What timm's benchmark.py writes; step times in ms, gmacs of one image, parameters in millions.
``infer_macts`` (activations) is not counted here and stays empty."""

_BESIDE = ("mixer", "options", "backend", "execution", "precision", "device", "versions")


def write_csv(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Return a header and rows; what a row has beyond the columns is left out."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def rows_csv(records: Sequence[Record]) -> str:
    """Return every row with all its fields."""
    return write_csv(list(records[0].to_dict()), map(_cells, records))


def compact_csv(records: Sequence[Record]) -> str:
    """Return every row with the fields that some row has a value for; numbers in full."""
    rows = [_cells(record) for record in records]
    return write_csv([n for n in rows[0] if any(row[n] not in (None, "") for row in rows)], rows)


def timm_csv(records: Sequence[Record]) -> str:
    """Return accuracies as one CSV row each: timm's columns first, then all our other fields."""
    rows = [
        _cells(record)
        | {
            "img_size": record.resolution,
            "top1": _rounded(record.top1, 1, 3),
            "top1_err": None if record.top1 is None else round(100 - record.top1, 3),
            "top5": _rounded(record.top5, 1, 3),
            "top5_err": None if record.top5 is None else round(100 - record.top5, 3),
            "param_count": _rounded(record.params, 1e6, 2),
        }
        for record in records
    ]
    ours = [name for name in records[0].to_dict() if name not in ("resolution", "params")]
    return write_csv(list(dict.fromkeys([*TIMM_COLUMNS, *ours])), rows)


def timm_benchmark_csv(records: Sequence[Record]) -> str:
    """Return timm's benchmark columns, then ours; rows that differ by mode alone share one."""
    joined: dict[tuple[object, ...], dict[str, object]] = {}
    for row in records:
        told = {name: getattr(row, name) for name in _BESIDE}
        asked = row.asked_batch_size or row.batch_size
        line = joined.setdefault((row.model, row.resolution, asked, *told.values()), {})
        line |= {"model": row.model, "param_count": _rounded(row.params, 1e6, 2), **told}
        line |= {
            f"{row.mode}_samples_per_sec": _rounded(row.images_per_second, 1, 2),
            f"{row.mode}_step_time": _rounded(row.latency_ms, 1, 3),
            f"{row.mode}_batch_size": row.batch_size,
            f"{row.mode}_img_size": row.resolution,
        }
        if row.mode == "infer":
            line["infer_gmacs"] = _rounded(row.gmacs, 1, 2)
    return write_csv([*TIMM_BENCHMARK_COLUMNS, *_BESIDE], joined.values())


def read_csv(path: Path) -> list[Record]:
    """Return the rows of a file that `compact_csv` wrote; an empty cell is a field left out.

    Raises:
        SemabenchError: the file cannot be read, or a row is not valid.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SemabenchError(f"cannot read {path}: {error}.") from error
    found = []
    for number, row in enumerate(rows, start=2):
        try:
            told = {name: _value(name, text) for name, text in row.items() if text}
            found.append(Record.from_dict(told))
        except (SemabenchError, ValueError, TypeError) as error:
            raise SemabenchError(f"{path}:{number}: {error}") from error
    return found


def _cells(record: Record) -> dict[str, object]:
    """Return the fields as cells: several integers as JSON, none of them as nothing."""
    return {
        name: (json.dumps(value) if value else "") if isinstance(value, tuple) else value
        for name, value in record.to_dict().items()
    }


def _value(name: str, text: str) -> object:
    """Return a cell as the type of its field; of an unknown one, as it is, to be refused."""
    kinds = field_types().get(name, ())
    if tuple in kinds and text.startswith("["):
        return json.loads(text)
    for kind in (int, float):
        if kind in kinds:
            return kind(text)
    return text


def _rounded(value: float | None, unit: float, digits: int) -> float | None:
    return None if value is None else round(value / unit, digits)
