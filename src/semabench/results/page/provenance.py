"""Where each line's numbers come from: what all lines share, and what they do not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from semabench.results.page.family import Line
from semabench.results.page.tables import Cell, Row, Table
from semabench.results.record import Record

_SHORT = 12  # of a hash: enough to tell and to look up


def _one(field: str, form: str = "{}", most: int | None = None) -> Callable[[Record], str]:
    def tell(row: Record) -> str:
        value = getattr(row, field)
        return "" if value in (None, "") else form.format(str(value)[:most])

    return tell


def _dataset(row: Record) -> str:
    return f"{row.dataset}, {row.n:,} samples" if row.n else row.dataset


def _fingerprint(row: Record) -> str:
    text = row.fingerprint  # of a task its settings
    return text[:_SHORT] if text.isalnum() else text


_TOLD: tuple[tuple[str, Callable[[Record], str]], ...] = (
    ("recipe", _one("recipe")),
    ("training config", _one("config", most=_SHORT)),
    ("epochs", _one("epochs")),
    ("trained at", lambda row: row.trained_at),
    ("weights", _one("weights")),
    ("checkpoint", _one("checkpoint", most=_SHORT)),
    ("seed", _one("seed")),
    ("dataset", _dataset),
    ("fingerprint", _fingerprint),
    ("crop", _one("crop_pct")),
    ("interpolation", _one("interpolation")),
    ("precision", _one("precision")),
    ("backend", _one("backend")),
    ("device", _one("device")),
    ("versions", _one("versions")),
    ("commit", _one("commit")),
    ("options", _one("options")),
    ("measured", lambda row: row.time[:10]),
)


def provenance(lines: Sequence[Line]) -> tuple[list[tuple[str, str]], Table | None]:
    """Return what all lines share, and a table of the rest; None where they share all."""
    merged: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        merged.setdefault((line.mixer_or_model, line.name), []).append(line)
    told = {
        name: [_told(tell, (row for x in same for row in x.records)) for same in merged.values()]
        for name, tell in _TOLD
    }
    shared = [(name, texts[0]) for name, texts in told.items() if len(set(texts)) == 1]
    varied = {name: texts for name, texts in told.items() if len(set(texts)) > 1}
    if not varied:
        return [(name, text) for name, text in shared if text], None
    rows = []
    for place, ((mixer, name), same) in enumerate(merged.items()):
        texts = [name, *(column[place] for column in varied.values())]
        rows.append(Row(same[0].model, mixer, tuple(Cell(text, text) for text in texts)))
    table = Table("Where they differ", ("model", *varied), tuple(rows), len(varied) + 1)
    return [(name, text) for name, text in shared if text], table


def _told(tell: Callable[[Record], str], rows: Iterable[Record]) -> str:
    found = sorted({tell(row) for row in rows} - {""}, key=lambda text: (len(text), text))
    return ", ".join(found)
