"""Rows as a CSV file that can be committed, and read back by ``semabench report``."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from semabench.errors import SemabenchError
from semabench.results.record import Record, field_types


def compact_csv(records: Sequence[Record]) -> str:
    """Return every row with the fields that some row has a value for; numbers in full."""
    rows = [record.to_dict() for record in records]
    used = [name for name in rows[0] if any(row[name] not in (None, "") for row in rows)]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, used, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


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


def _value(name: str, text: str) -> object:
    """Return a cell as the type of its field; of an unknown one, as it is, to be refused."""
    for kind in (int, float):
        if kind in field_types().get(name, ()):
            return kind(text)
    return text
