"""What a run has trained: the weights of its checkpoint, and what it says of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from semabench.errors import SemabenchError
from semabench.training.checkpoint import DIRECTORY, LAST
from semabench.training.checkpoint_file import OFFICIAL, read_checkpoint
from semabench.training.resume import newest_checkpoint


@dataclass(frozen=True)
class TrainedModel:
    """What a checkpoint of ours holds for an evaluation."""

    path: Path
    digest: str  # first 12 hex digits of the file's SHA-256
    describe: dict[str, Any]  # model, data, recipe, seed, classes, mean, std
    epochs: int  # trained to their end so far
    weights: dict[str, dict[str, Tensor]]  # "model", and "ema" where there is one


def load_trained(path: Path) -> TrainedModel:
    """Read a checkpoint, or the newest sound one of a run directory.

    Raises:
        SemabenchError: missing, damaged, or not one of ours.
    """
    if path.is_dir():
        runs = [last.parents[1] for last in sorted(path.glob(f"*/{DIRECTORY}/{LAST}"))]
        last = path / DIRECTORY / LAST
        path = newest_checkpoint(path / DIRECTORY) or last  # whose reading tells what is wrong
        if runs and not path.exists():
            raise SemabenchError(f"there is no checkpoint {last}: name a run, e.g. {runs[0]}.")
    digest = hashlib.sha256()
    checkpoint = read_checkpoint(path, digest)
    if "semabench" not in checkpoint:
        raise SemabenchError(f"{path} is not a checkpoint of train.py's; {OFFICIAL}.")
    state = checkpoint["state_dict"]
    weights = {"model": _under(state, "model."), "ema": _under(state, "ema.module.")}
    return TrainedModel(
        path=path,
        digest=digest.hexdigest()[:12],
        describe=checkpoint["semabench"],
        epochs=checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"],
        weights={name: tensors for name, tensors in weights.items() if tensors},
    )


def _under(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
