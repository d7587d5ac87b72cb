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


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "semabench" and len(parts) > 1 and (SOURCE / parts[1]).is_dir():
                rooms.add(parts[1])
            assert name != "semabench.cli", path
    return rooms


@pytest.mark.parametrize("room", ALLOWED)
def test_arrows_point_down(room):
    files = list((SOURCE / room).rglob("*.py"))
    assert files
    for path in files:
        assert imported_rooms(path) - {room} <= ALLOWED[room], path


def test_files_are_short():
    for path in SOURCE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 250, path
