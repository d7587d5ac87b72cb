"""`make docs`: every page, every link, and nothing that is loaded from elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.apps import REPOSITORY


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "COLUMNS": "100"}
    command = [sys.executable, "-m", "mkdocs", "build", "-f", str(config)]
    return subprocess.run(
        [*command, "-d", str(site)], capture_output=True, text=True, env=environment, check=False
    )


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """What the site is made of, to be changed."""
    root = tmp_path / "repository"
    for name in (".ci", "docs", "slurm"):
        (root / name).mkdir(parents=True)
    for name in ("results", "tests", "src", "conf", "examples"):  # what pages link to
        (root / name).symlink_to(REPOSITORY / name)
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "mkdocs.yml", ".ci/site.py"):
        shutil.copy(REPOSITORY / name, root / name)
    shutil.copy(REPOSITORY / "slurm/README.md", root / "slurm/README.md")
    shutil.copytree(REPOSITORY / "docs", root / "docs", dirs_exist_ok=True)
    return root


def test_every_page_is_there_and_loads_nothing_from_elsewhere(tmp_path):
    done = build(REPOSITORY / "mkdocs.yml", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = {path.stem for path in tmp_path.glob("*.html")}
    assert {path.stem for path in (REPOSITORY / "docs").glob("*.md")} <= pages
    assert {"index", "commands", "changelog"} <= pages
    commands = (tmp_path / "commands.html").read_text()
    for name in ("semabench data pack", "semabench push", "semabench export", "--holdout"):
        assert name in commands
    assert (tmp_path / "source/results/step-h200.jsonl").is_file()
    loaded = r"<(?:script|img|link)[^>]*(?:src|href)=\"?(https?://[^\"\s>]+)"
    for path in tmp_path.glob("*.html"):
        assert re.findall(loaded, path.read_text()) == [], path.name


def test_links_that_lead_nowhere_stop_it(copied, tmp_path):
    links = ["gone.md", "../results/gone.csv", "data.md#no-such-heading"]
    page = copied / "docs" / "report.md"
    page.write_text(page.read_text() + "".join(f"\n[more]({link})\n" for link in links))
    done = build(copied / "mkdocs.yml", tmp_path / "site")
    assert done.returncode == 1
    assert "Aborted with 3 warnings in strict mode" in done.stdout + done.stderr
    assert all(link.removeprefix("../") in done.stderr for link in links)
