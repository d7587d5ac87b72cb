"""The W&B id of a run, kept in its directory: training and evaluation share it."""

from __future__ import annotations

import secrets
from pathlib import Path

from semabench.files import atomic_write

NAME = "wandb_id"


def forget_run_id(run_dir: Path) -> None:
    """Let the next start of the run have an id of its own."""
    (run_dir / NAME).unlink(missing_ok=True)


def run_id(run_dir: Path) -> str:
    """Return the id, made at the first start of the run."""
    path = run_dir / NAME
    if not path.exists():
        atomic_write(path, secrets.token_hex(6) + "\n")
    return path.read_text().strip()
