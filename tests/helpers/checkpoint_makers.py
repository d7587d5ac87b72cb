"""Checkpoints as train.py writes them, of whatever a test puts in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from semabench.training.lightning_compat import AtomicCheckpointIO


def save(path: Path, **content: Any) -> None:
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "epoch": 0, **content}, path)
