"""The rooms of the house and their arrows: who may import whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "semabench"
ROOMS = ["ops", "mixers", "models", "data", "training", "evaluation"]
ALLOWED = {
    "results": set(),
    "sweep": set(),
    "data": set(),
    **{room: {*ROOMS[: ROOMS.index(room)], "results"} for room in ("training", "evaluation")},
    "ops": set(),
    "mixers": {"ops"},
    "models": {"ops", "mixers"},
}
MEASURES = ["cost", "dispersion", "study"]  # rooms within evaluation


def imported_rooms(path: Path, house: Path = SOURCE) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    assert not any(f"{name}.".startswith("semabench.cli.") for name in names), path
    prefix = ".".join(house.relative_to(SOURCE.parent).parts) + "."
    inside = {name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)}
    return {name for name in inside if (house / name).is_dir()}


@pytest.mark.parametrize("room", ALLOWED)
def test_arrows_point_down(room):
    files = list((SOURCE / room).rglob("*.py"))
    assert files
    for path in files:
        assert imported_rooms(path) - {room} <= ALLOWED[room], path


@pytest.mark.parametrize("room", [*MEASURES, "workers"])
def test_measures_know_nothing_of_each_other(room):
    house = SOURCE / "evaluation"
    files = list((house / room).rglob("*.py"))
    assert files
    for path in files:
        others = imported_rooms(path, house) - {room}
        assert others.isdisjoint(MEASURES), path


def test_files_are_short():
    for path in SOURCE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 250, path
