"""Write the page: one HTML file that loads nothing, from a file system as well as from a server."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from semabench._version import __version__
from semabench.errors import SemabenchError
from semabench.files import atomic_write
from semabench.results.looks import looks, style_sheet
from semabench.results.page.families import FAMILIES
from semabench.results.page.family import Family, Line
from semabench.results.page.figures import figures
from semabench.results.page.provenance import provenance
from semabench.results.page.tables import tables
from semabench.results.record import Record

_SCRIPTS = ("scale.js", "draw.js", "figure.js", "table.js", "filter.js", "page.js")


def write_page(
    records: Sequence[Record], path: Path, families: Sequence[Family] = FAMILIES
) -> Path:
    """Write one self-contained page of all rows, atomically; the same rows give the same bytes.

    Args:
        records: rows of any measures; those of no family are counted on the page, not shown.

    Returns:
        ``path``.

    Raises:
        SemabenchError: no row that a family shows, or the file cannot be written.
    """
    grouped = [(f, [r for r in records if r.measure == f.measure]) for f in families]
    lined = [(family, rows, _lines(family, rows)) for family, rows in grouped if rows]
    shown = [(family, rows, lines) for family, rows, lines in lined if lines]
    if not shown:
        raise SemabenchError("no rows that the page can show: evaluate a run first.")
    known = {family.measure for family, *_ in shown}
    left_out = Counter(record.measure for record in records if record.measure not in known)
    atomic_write(path, _render(records, shown, left_out))
    return path


def _lines(family: Family, rows: Sequence[Record]) -> list[Line]:
    fields = dict.fromkeys(axis for figure in family.figures for axis in (figure.x, figure.y))
    return family.lines(rows, list(fields))


def _render(
    records: Sequence[Record],
    shown: Sequence[tuple[Family, Sequence[Record], Sequence[Line]]],
    left_out: Counter[str],
) -> str:
    import jinja2

    every = [line for _, _, lines in shown for line in lines]
    look = looks((line.mixer_or_model, line.name) for line in every)
    sections = []
    for family, rows, lines in shown:
        shared, differing = provenance(lines)
        sections.append(
            {
                "id": family.measure,
                "title": family.title,
                "about": family.about,
                "figures": figures(family, lines, look),
                "tables": tables(family, lines) + (family.more(rows) if family.more else []),
                "shared": shared,
                "differing": differing,
                "rows": len(rows),
            }
        )
    style = style_sheet() + _asset("page.css")
    script = "\n".join(_asset(f"js/{name}") for name in _SCRIPTS)
    script = f'"use strict";\n(() => {{\n{script}\n}})();\n'
    # Autoescaping: whatever a row calls its model is text, in the tables and in the JSON.
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_asset("page.html.jinja")).render(
        version=__version__,
        rows=len(records),
        runs=len({record.run for record in records if record.run}),
        dates=_dates(records),
        sections=sections,
        mixers=_counted(line.mixer_or_model for line in every),
        models=_counted(line.model for line in every),
        left_out=left_out,
        data=_data(sections),
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _data(sections: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {figure["id"]: figure for section in sections for figure in section["figures"]}


def _counted(names: Any) -> list[str]:
    return list(dict.fromkeys(names))


def _dates(records: Sequence[Record]) -> str:
    first, last = (pick(record.time for record in records)[:10] for pick in (min, max))
    return first if first == last else f"{first} to {last}"


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
