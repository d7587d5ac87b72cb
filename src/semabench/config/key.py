"""A config key's declaration: beside its type and default, all that follows from what it is.

From here come the ranges that are checked, what would have no effect, the names of runs, the YAML
files' defaults and the reference that ``semabench config`` prints.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, get_args, get_type_hints

from omegaconf import MISSING

from semabench.errors import SemabenchError, nearest

ABOVE_0 = 1e-30
"""As ``low``: what is as good as nothing."""


@dataclass(frozen=True)
class Need:
    """What a key needs beside it to have an effect.

    Attributes:
        met: tells it of the whole config.
        when: "<key> has no effect <when>: leave it out, or <remedy>."
        remedy: what would give it one, if anything.
    """

    met: Callable[[Any], bool]
    when: str
    remedy: str = ""


@dataclass(frozen=True)
class Key:
    """A key as declared; see ``key``."""

    help: str
    low: float | None
    high: float | None
    unit: str
    choices: tuple[str, ...]
    needs: tuple[Need, ...]
    each: Callable[[str], Need] | None
    names_run: str


def key(
    default: Any,
    help: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
    choices: Iterable[str] = (),
    needs: Iterable[Need] = (),
    each: Callable[[str], Need] | None = None,
    names_run: str = "always",
) -> Any:
    """Declare a key of a config.

    Args:
        default: its value where nothing else is said; MISSING if something must be.
        help: its meaning, in a line.
        low, high: inclusive bounds of a number, or of each in a list; a null is not checked.
        unit: of the number, said beside the bounds.
        choices: the words that a string, or each in a list, may be.
        needs: without which it has no effect.
        each: of a mapping: what an entry needs, by its name.
        names_run: "always": it is part of what a run is; "never": where, how fast, or only said;
            "changed": it came after the first runs, and names a run only where it is not at its
            default. So runs from before it keep their names: every new key is one.
    """
    told = Key(help, low, high, unit, tuple(choices), tuple(needs), each, names_run)
    metadata = {"key": told}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Declared:
    """A key in its place: its dotted name, type, default, and declaration."""

    name: str
    type: Any
    default: Any
    key: Key


_PLAIN = Key("", None, None, "", (), (), None, "always")


def declared(schema: type, prefix: str = "") -> Iterator[Declared]:
    """Yield all keys of a schema, those of its groups after the group's own."""
    hints = get_type_hints(schema)
    for f in fields(schema):
        kind = next((t for t in (hints[f.name], *get_args(hints[f.name])) if is_dataclass(t)), None)
        default = f.default_factory() if callable(f.default_factory) else f.default
        told = f.metadata.get("key", _PLAIN)
        yield Declared(f"{prefix}{f.name}", hints[f.name], default, told)
        if isinstance(kind, type):
            yield from declared(kind, f"{prefix}{f.name}.")


def defaults(schema: type, *, without: Iterable[str] = ()) -> dict[str, Any]:
    """Return a schema's keys with their defaults as plain values: what its YAML files differ from.

    Args:
        without: keys that are groups of their own.
    """
    found = {f.name: f for f in fields(schema) if f.name not in set(without)}
    return {
        name: f.default_factory() if callable(f.default_factory) else f.default
        for name, f in found.items()
    }


def check_declared(config: Any) -> None:
    """Raise a SemabenchError that names the first key whose value is not among what is declared."""
    for declaration in declared(type(config)):
        value = config
        for name in declaration.name.split("."):
            value = getattr(value, name, None)
        for one in value if isinstance(value, list) else [value]:
            _check_choice(declaration, one)
            if isinstance(one, int | float) and not isinstance(one, bool):
                _check_range(declaration, one)


def _check_choice(declaration: Declared, value: Any) -> None:
    choices = declaration.key.choices
    if choices and value is not None and value not in choices:
        raise SemabenchError(
            f"{declaration.name}={value} is not known.{nearest(str(value), choices)}"
        )


def _check_range(declaration: Declared, value: float) -> None:
    told = declaration.key
    if not math.isfinite(value):
        raise SemabenchError(f"{declaration.name} must be a finite number, not {value}.")
    if (told.low is None or value >= told.low) and (told.high is None or value <= told.high):
        return
    raise SemabenchError(f"{declaration.name} must be {bounds(told)}, not {value}.")


def bounds(told: Key) -> str:
    """Return the range of a key in words; of one without, nothing."""
    unit = f" {told.unit}" if told.unit else ""
    low = "" if told.low is None else f"at least {told.low:g}{unit}"
    low = "above 0" if told.low == ABOVE_0 else low
    high = "" if told.high is None else f"at most {told.high:g}{unit}"
    return " and ".join(filter(None, (low, high)))


_OFF = ("", "null", "0", "0.0")  # who asks for nothing gets it


def check_asked(config: Any, words: Iterable[str]) -> None:
    """Raise a SemabenchError that names the first option asked for that has no effect.

    A YAML file may state what has none: a recipe says when MESA starts, and leaves it off. What a
    user wants, the words of the command line tell.

    Args:
        config: what was composed.
        words: of the command line: ``recipe.lr=0.1``, ``data=shapes``.
    """
    known = {one.name: one.key for one in declared(type(config))}
    for word in words:
        name, _, value = word.lstrip("+").partition("=")
        if value in _OFF:
            continue
        for need in _needs(name, known):
            if not need.met(config):
                remedy = f", or {need.remedy}" if need.remedy else ""
                raise SemabenchError(f"{name} has no effect {need.when}: leave it out{remedy}.")


def _needs(name: str, known: dict[str, Key]) -> Iterator[Need]:
    """Yield what a key needs, the groups that it is in first."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        told = known.get(".".join(parts[:count]), _PLAIN)
        yield from told.needs
        if told.each and count < len(parts):
            yield told.each(parts[count])


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


def unknown_key(name: str, names: list[str]) -> str:
    """Name the nearest valid key, or those that could stand in its place.

    >>> unknown_key("lr", ["recipe", "recipe.lr", "seed"])
    "unknown config key 'lr'. Did you mean 'recipe.lr'?"
    """
    told = f"unknown config key '{name}'."
    if name.startswith("model.options."):
        return f"{told} An option that conf/model does not list is added: +{name}=..."
    parent = name.rpartition(".")[0]
    beside = [known for known in names if known.rpartition(".")[0] == parent]
    elsewhere = [known for known in names if known.endswith(f".{name}")]
    for choices in (beside, elsewhere, names):
        hint = nearest(name, choices)
        if hint.startswith(" Did you mean"):
            return told + hint
        if choices is elsewhere and len(elsewhere) == 1:
            return f"{told} Did you mean '{elsewhere[0]}'?"
    return told + nearest(name, elsewhere or beside or names)
