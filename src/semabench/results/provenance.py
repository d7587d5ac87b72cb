"""Where a number comes from: the software's versions and the commit of the code."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

from semabench import __version__


@cache
def software_versions() -> str:
    """Return the versions that move results, as ``"torch 2.8.0, timm 1.0.20, semabench 0.1.0"``."""
    installed = [f"{name} {metadata.version(name)}" for name in ("torch", "timm")]
    return ", ".join([*installed, f"semabench {__version__}"])


@cache
def git_commit() -> str:
    """Return the commit of this source tree, with ``+`` if it has changes; empty outside git."""
    here = Path(__file__).resolve().parent
    try:
        commit = _git(here, "rev-parse", "--short=12", "HEAD")
        makers = ":/src", ":/conf", ":/benchmarks"  # of numbers
        changed = _git(here, "status", "--porcelain", "--untracked-files=no", "--", *makers)
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
