"""Which checkpoint a run goes on from, and whether it is one of the same run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from semabench.config.run_name import identity
from semabench.errors import SemabenchError
from semabench.training.checkpoint import BEST, DIRECTORY, LAST, PREVIOUS
from semabench.training.checkpoint_file import read_checkpoint

log = logging.getLogger(__name__)


def resume_path(resume: str, run_dir: Path) -> Path | None:
    """Return the checkpoint to go on from: with ``auto``, the newest of the run that is sound.

    Args:
        resume: ``auto``, ``never``, or the path of a checkpoint or of a run directory.

    Raises:
        SemabenchError: there are checkpoints, but none can be read: going on without them would
            overwrite them; or there is none where ``resume`` says.
    """
    if resume == "never":
        return None
    if resume != "auto":
        path = Path(resume)
        if not path.exists():
            raise SemabenchError(
                f"resume={resume}: there is no checkpoint of that name; besides a path, auto and "
                "never are known."
            )
        if not path.is_dir():
            read_checkpoint(path)
            return path
        found = newest_checkpoint(path / DIRECTORY)
        if found is None:
            raise SemabenchError(f"resume={resume} is no run's directory: it has no checkpoint.")
        return found
    found = newest_checkpoint(run_dir / DIRECTORY)
    if found is None and any((run_dir / DIRECTORY / n).exists() for n in (LAST, PREVIOUS, BEST)):
        raise SemabenchError(
            f"no checkpoint in {run_dir / DIRECTORY} can be read: bring one back, or start anew "
            "with resume=never, which keeps them beside the new ones."
        )
    return found


def newest_checkpoint(directory: Path) -> Path | None:
    """Return the sound checkpoint of the most steps, or None; damaged ones are told and skipped.

    The last has the most, whatever the clocks of the nodes say; only if it is missing or damaged,
    the others are opened.
    """
    last = _step(directory / LAST)
    if last is not None:
        return directory / LAST
    steps = {path: _step(path) for path in (directory / name for name in (PREVIOUS, BEST))}
    sound = {path: step for path, step in steps.items() if step is not None}
    return max(sound, key=sound.__getitem__) if sound else None


def _step(path: Path) -> int | None:
    """Return the optimiser step that a checkpoint was written at; None if it is of no use."""
    if not path.exists():
        return None
    try:
        return int(read_checkpoint(path).get("global_step", 0))
    except SemabenchError as error:
        log.warning("%s It is skipped.", error)
        return None


def check_same_run(path: Path, describe: dict[str, Any]) -> None:
    """Refuse to go on from a checkpoint of another run: other settings, classes or pictures.

    Args:
        path: a sound checkpoint.
        describe: what this run would store in its own.

    Raises:
        SemabenchError: it is not one of ours, or they differ.
    """
    theirs = read_checkpoint(path).get("semabench")
    if theirs is None:
        raise SemabenchError(f"{path} is not a checkpoint of train.py's: it cannot be resumed.")
    what = ("classes", "fingerprint")
    old, new = (
        {**_flat(identity(d["config"]), ""), **{key: d[key] for key in what}}
        for d in (theirs, describe)
    )
    for key in [*new, *old]:
        if old.get(key) != new.get(key):
            values = f" {old.get(key)}, not {new.get(key)}"
            detail = values if len(values) < 60 else " of another value"
            name = {"fingerprint": "training pictures, by their fingerprint,"}.get(key, key)
            raise SemabenchError(
                f"{path} was trained with {name}{detail}: give this run another name=..., or "
                "start it anew with resume=never."
            )


def _flat(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Return nested values under dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat
