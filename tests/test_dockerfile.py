"""The lines of the Dockerfile, which no test builds: that would need a daemon and a network."""

import re
import tomllib

from helpers.apps import REPOSITORY

LINES = re.sub(r"\\\n\s*", "", (REPOSITORY / "Dockerfile").read_text()).splitlines()


def arguments(instruction: str) -> list[str]:
    return [line.partition(" ")[2] for line in LINES if line.startswith(f"{instruction} ")]


def test_what_it_copies_is_there_and_is_not_left_out():
    kept = {
        line[1:]
        for line in (REPOSITORY / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        name
        for words in arguments("COPY")
        if not words.startswith("--from=")
        for name in words.split()[:-1]
    }
    assert copied == kept
    assert all((REPOSITORY / name).exists() for name in copied)


def test_a_wheel_builds_from_what_it_copies():
    """All that the build reads is copied before it; tests/e2e/test_wheel.py builds from that."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    first, _ = [i for i, line in enumerate(LINES) if line.startswith("FROM ")]
    build = next(i for i, line in enumerate(LINES) if "pip wheel" in line)
    copied = " ".join(LINES[first:build])
    assert project["project"]["readme"] in copied
    assert all(name in copied for name in ("src", "conf", "LICENSE"))
    assert "semabench" in project["project"]["scripts"]
    assert arguments("ENTRYPOINT") == ['["semabench"]']


def test_it_runs_as_no_root_with_a_home_for_anybody():
    assert arguments("USER") == ["1000"]
    home = dict(pair.split("=") for pair in arguments("ENV")[0].split())["HOME"]
    assert f"mkdir -m 1777 {home}" in arguments("RUN")
