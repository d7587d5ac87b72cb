"""The wheel, installed without the clone: it trains, sweeps and evaluates from any directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from helpers.apps import REPOSITORY, environment

BLOCKER = """
import sys


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ffcv", "cv2"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources, put it into a new environment; its `bin`."""
    root = tmp_path_factory.mktemp("wheel")
    source = root / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "conf"):
        shutil.copytree(REPOSITORY / name, source / name, symlinks=True, ignore=ignored)
    build = "from setuptools.build_meta import build_wheel; build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    shutil.rmtree(source)
    venv.create(root / "venv", with_pip=False)
    here = Path(sysconfig.get_paths(vars={"base": str(root / "venv")})["purelib"])
    # What semabench needs comes from this environment; semabench itself from the wheel alone.
    (here / "needs.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    (wheel,) = root.glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(here)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    return root / "venv" / "bin"


def semabench(installed: Path, *words: str, cwd: Path, **extra: str) -> str:
    kept = {k: v for k, v in environment().items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(installed / "python"), "-m", "semabench", *words],
        cwd=cwd,
        env={**kept, "WANDB_MODE": "offline", **extra},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_it_trains_sweeps_and_evaluates_without_ffcv(installed, tmp_path):
    """With `ffcv` and `cv2` not to be had: packed, rendered, read."""
    work, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    own = work / "own" / "experiment"
    own.mkdir(parents=True)
    elsewhere.mkdir()
    (own / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /recipe: demo\nexperiment: mine\n"
        "recipe: {epochs: 1, batch_size: 16}\n"
    )
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "sitecustomize.py").write_text(BLOCKER)
    without = {"PYTHONPATH": str(tmp_path / "blocked")}
    shapes = ["data", "shapes", "data/shapes", "--train", "36", "--val", "18", "--size", "64"]
    semabench(installed, *shapes, cwd=work, **without)
    packing = ["data/shapes", "data/packed"]
    semabench(installed, "data", "pack", *packing, cwd=work, **without)
    semabench(
        installed, "data", "render", *packing, "--resolution", "32", "48", cwd=work, **without
    )
    told = semabench(
        installed, "train", "-m", "--config-dir", "own", "experiment=mine",
        "model=sema_nano,mila_nano", "data=shapes", "data.packed=data/packed",
        "data.resolution=32", "data.crop_pct=0.875", "data.num_workers=1", "logger=csv",
        "hydra/launcher=processes", "hydra.launcher.n_jobs=2", cwd=work, **without,
    )  # fmt: skip
    assert "2 job(s), 2 at a time" in told
    first, second = sorted((work / "outputs" / "mine").glob("*_nano-*"))
    assert (first / "finished.json").exists()
    assert (second / "finished.json").exists()
    words = ("eval", f"checkpoint={second}", "resolutions=[48]")
    assert "48 px  top-1" in semabench(installed, *words, cwd=elsewhere, **without)


def test_its_files_are_those_of_the_repository(installed, tmp_path):
    script = "import semabench.commands as c, pathlib; print(pathlib.Path(c.CONF).resolve())"
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [str(installed / "python"), "-c", script]
    told = subprocess.run(command, cwd=tmp_path, env=kept, capture_output=True, text=True)
    conf = Path(told.stdout.strip())
    assert conf.is_relative_to(installed.parent.resolve())
    ours = {p.relative_to(REPOSITORY / "conf") for p in (REPOSITORY / "conf").rglob("*.yaml")}
    assert {p.relative_to(conf) for p in conf.rglob("*.yaml")} == ours
    for name in ours:
        assert (conf / name).read_bytes() == (REPOSITORY / "conf" / name).read_bytes()
    assert "semabench train" in semabench(installed, "--help", cwd=tmp_path)
