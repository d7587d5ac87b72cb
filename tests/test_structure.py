"""The rooms of the house and their arrows: who may import whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "semabench"
LADDER = [
    "ops",
    "mixers",
    "models",
    "training",
    "evaluation",
    "study",
]  # each knows those before it
ALLOWED = {
    "config": set(),
    "results": set(),
    "data": {"config"},
    "sweep": set(),
    **{room: set(LADDER[:k]) for k, room in enumerate(LADDER[:3])},
    **{
        room: {*LADDER[:k], "config", "data", "results", "sweep"}
        for k, room in enumerate(LADDER)
        if k >= 3
    },
}
MEASURES = ["accuracy", "corruption", "cost", "dispersion", "probe"]  # rooms within evaluation


def imported(path: Path) -> set[str]:
    """Dotted names of all that a file imports, deferred or for types alone included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def imported_rooms(path: Path, house: Path = SOURCE) -> set[str]:
    names = imported(path)
    assert not any(f"{name}.".startswith("semabench.cli.") for name in names), path
    prefix = ".".join(house.relative_to(SOURCE.parent).parts) + "."
    inside = {name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)}
    return {name for name in inside if (house / name).is_dir()}


def test_every_room_is_on_the_plan():
    rooms = {p.name for p in SOURCE.iterdir() if p.is_dir() and any(p.glob("*.py"))}
    assert rooms == ALLOWED.keys()


@pytest.mark.parametrize("room", ALLOWED)
def test_arrows_point_down(room):
    files = list((SOURCE / room).rglob("*.py"))
    assert files
    for path in files:
        assert imported_rooms(path) - {room} <= ALLOWED[room], path


@pytest.mark.parametrize("room", MEASURES)
def test_measures_know_nothing_of_each_other(room):
    house = SOURCE / "evaluation"
    files = list((house / room).rglob("*.py"))
    assert files
    for path in files:
        others = imported_rooms(path, house) - {room}
        assert others.isdisjoint(MEASURES), path


def modules() -> dict[str, Path]:
    """All modules by their dotted names; a package is named by itself."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def test_there_are_no_circles():
    """Deferred imports and those for types alone count, too; a package's own parts know it not."""
    paths = modules()
    arrows = {
        name: {
            known
            for target in imported(path)
            for known in (target, target.rpartition(".")[0])
            if known in paths and known != name and not name.startswith(f"{known}.")
        }
        for name, path in paths.items()
    }
    while leaves := {name for name, targets in arrows.items() if not targets & arrows.keys()}:
        for name in leaves:
            del arrows[name]
    assert not arrows
