"""A tiny data set made with the command line, and one run trained on it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.apps import TINY, finish, start
from semabench.cli import main as semabench


@dataclass(frozen=True)
class Trained:
    """A finished run, in the working directory it was started in."""

    cwd: Path
    run_dir: Path
    output: str


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with data/shapes: 144 training and 45 validation pictures."""
    cwd = tmp_path_factory.mktemp("workplace")
    shapes = str(cwd / "data" / "shapes")
    semabench(["data", "shapes", shapes, "--train", "144", "--val", "45", "--size", "96"])
    semabench(["data", "pack", shapes, shapes])
    semabench(["data", "render", shapes, shapes, "--resolution", "32", "48", "--crop-pct", "1.0"])
    return cwd


@pytest.fixture(scope="session")
def trained(workplace: Path) -> Trained:
    """The undisturbed run: four epochs with averaged weights, mixing and drop path."""
    secrets = {"WANDB_API_KEY": "", "PLANTED_SECRET": "planted-environment-value"}
    output = finish(start("train.py", *TINY, cwd=workplace, **secrets))
    (run_dir,) = (workplace / "outputs" / "stress").iterdir()
    return Trained(workplace, run_dir, output)


@pytest.fixture
def copied(trained: Trained, tmp_path: Path) -> Trained:
    """The same run and data in a directory that the test may change."""
    cwd = tmp_path / "copied"
    shutil.copytree(trained.cwd, cwd)
    return Trained(cwd, cwd / trained.run_dir.relative_to(trained.cwd), trained.output)
