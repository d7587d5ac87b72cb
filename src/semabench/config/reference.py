"""The reference of all config keys, in Markdown, from their declarations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import MISSING

from semabench.config.key import Declared, bounds, declared
from semabench.config.schema import unknown_key
from semabench.errors import SemabenchError


def reference(part: str, schemas: Mapping[str, type]) -> str:
    """Return a table of the keys of an app or a measure, or of those of a group, or one key.

    Args:
        part: "all", a name of ``schemas``, or a dotted key of any of them.
        schemas: configs by the names of what takes them.

    Raises:
        SemabenchError: there is no such part.
    """
    if part == "all":
        parts, seen = [], set[str]()
        for name, schema in schemas.items():  # groups are the same wherever they are
            keys = [d for d in declared(schema) if "." not in d.name or d.name not in seen]
            seen |= {d.name for d in keys}
            parts.append(f"## {name}\n\n{_table(keys)}")
        return "\n".join(parts)
    if part in schemas:
        return _table(list(declared(schemas[part])))
    for schema in schemas.values():
        keys = [d for d in declared(schema) if f"{d.name}.".startswith(f"{part}.")]
        if keys:
            return _table(keys)
    names = [*schemas, *dict.fromkeys(d.name for s in schemas.values() for d in declared(s))]
    raise SemabenchError(unknown_key(part, names))


def _table(keys: list[Declared]) -> str:
    groups = {d.name for d in keys if any(e.name.startswith(f"{d.name}.") for e in keys)}
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for d in keys:
        if d.name not in groups:
            lines.append(f"| `{d.name}` | {_shown(d.default)} | {_meaning(d)} |")
    return "\n".join(lines) + "\n"


def _shown(default: Any) -> str:
    if default == MISSING:
        return "to be given"
    if isinstance(default, list):
        return f"[{', '.join(map(_shown, default))}]"
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    return f"{default:g}" if isinstance(default, float) else str(default) or '""'


def _meaning(d: Declared) -> str:
    told = d.key
    choices = "" if not told.choices or "|" in told.help else " | ".join(told.choices)
    needs = "; ".join(f"no effect {need.when}" for need in told.needs)
    named = {"always": "", "changed": "names a run where changed", "never": ""}[told.names_run]
    parts = [told.help, choices, bounds(told), needs, named]
    return "; ".join(filter(None, parts)).replace("|", "\\|")
