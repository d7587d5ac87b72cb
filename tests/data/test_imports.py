"""What importing the room costs, and that no two of its modules need each other."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import semabench

HOUSE = Path(semabench.__file__).parent
ALONE = """
import importlib, sys, types
package = types.ModuleType("semabench")  # without what the package itself imports
package.__path__ = [sys.argv[1]]
package.__version__ = "0"
sys.modules["semabench"] = package
importlib.import_module(sys.argv[2])
print(*sorted(sys.modules.keys() & set(sys.argv[3:])))
"""


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("augment.plan", ["torch", "timm", "torchvision", "numba", "cv2"]),
        ("procedural.tasks", ["torch", "numpy", "timm"]),
        ("ffcv.pack", ["torch", "timm", "torchvision", "numba", "ffcv", "cv2"]),
        ("loader", ["timm", "torchvision", "numba", "ffcv", "cv2"]),
        ("datamodule", ["timm", "numba", "ffcv", "cv2"]),
    ],
)
def test_only_what_is_used_is_imported(module, absent):
    command = [sys.executable, "-c", ALONE, str(HOUSE), f"semabench.data.{module}", *absent]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() == []


def test_there_is_no_circle_deferred_imports_included():
    names = {
        ".".join(path.relative_to(HOUSE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in (HOUSE / "data").rglob("*.py")
    }
    graph = {}
    for name in names:
        path = HOUSE.parent.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        found = graph[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                whole = {f"{node.module}.{alias.name}" for alias in node.names} & names
                found |= whole or ({node.module} & names)
    TopologicalSorter(graph).prepare()  # raises CycleError
