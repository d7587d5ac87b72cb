"""A checkpoint's file, read: with its sums checked, and an error that says what is wrong."""

from __future__ import annotations

import hashlib
import logging
import pickle
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from semabench.config.run_name import identity
from semabench.errors import SemabenchError, first_line
from semabench.files import atomic_path

OFFICIAL = "official weights are loaded with model=NAME model.checkpoint=PATH"


def read_checkpoint(path: Path, digest: hashlib._Hash | None = None) -> dict[str, Any]:
    """Load a checkpoint file on the CPU.

    Args:
        path: of the file. A training may put another in its place at any moment.
        digest: is updated with the bytes of the file that is loaded.

    Raises:
        SemabenchError: no such file, or damaged.
    """
    try:
        with open(path, "rb") as file:
            _check_sums(file)
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
            if digest is not None:
                file.seek(0)
                hashlib.file_digest(file, lambda: digest)
            return checkpoint
    except FileNotFoundError as error:
        raise SemabenchError(f"there is no checkpoint {path}.") from error
    except Exception as error:  # damage shows as nearly any of them
        reason = first_line(error).split(". ")[0][:100]
        if isinstance(error, pickle.UnpicklingError):
            reason = f"or no checkpoint of train.py's; {OFFICIAL}"
        raise SemabenchError(f"checkpoint {path} is damaged ({reason}).") from error


def _check_sums(file: BinaryIO) -> None:
    """Compare the file's own sums with its bytes, which torch.load does not."""
    if zipfile.is_zipfile(file) and (damaged := zipfile.ZipFile(file).testzip()) is not None:
        raise ValueError(f"the sum of {damaged} differs")
    file.seek(0)


CONFIG = "config.yaml"  # of the run, beside the directory of its checkpoints
DIRECTORY = "checkpoints"
LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"  # what was the last before it, should that prove damaged
BEST = "best.ckpt"
SET_ASIDE = "checkpoints.before"  # those of the run that this one has taken the place of


class Checkpoints(Callback):
    """Keeps ``last.ckpt``, the one before it, and, by a metric in percent, ``best.ckpt``.

    The last and the best are written when an epoch is over, validation included, so that a
    resumed run starts with the next epoch; the last one also every so many steps, and then a
    resumed run goes on with the next step. The previous is a link, or a copy where there are none.
    (Lightning's ModelCheckpoint renews its last only where it renews its best.)

    Args:
        directory: created if need be.
        monitor: name of a logged metric; higher is better, the first of equals is kept.
        every: steps between checkpoints within an epoch; ``None``: none there.
    """

    def __init__(self, directory: Path, monitor: str, every: int | None = None) -> None:
        self.directory = directory
        self.monitor = monitor
        self.every = every
        self.best = -1.0

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write the last checkpoint if its time has come; an epoch's last step waits for its end.

        Raises:
            SemabenchError: as ``save``.
        """
        if self.every and trainer.global_step % self.every == 0 and not trainer.is_last_batch:
            self.save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the last checkpoint; link it as the best if it is.

        Raises:
            SemabenchError: as ``save``.
        """
        metric = trainer.callback_metrics.get(self.monitor)
        better = metric is not None and float(metric) > self.best
        if better:
            self.best = float(metric)  # type: ignore[arg-type]
        self.save(trainer)
        if better and trainer.is_global_zero:
            link(self.directory / LAST, self.directory / BEST)

    def save(self, trainer: L.Trainer) -> None:
        """Write the last checkpoint; the old one stays as the previous.

        Raises:
            SemabenchError: a parameter is not finite, or the file cannot be written; what there
                was stays.
        """
        for name, parameter in trainer.lightning_module.named_parameters():
            if not torch.isfinite(parameter).all():
                raise SemabenchError(
                    f"{name} is not finite in epoch {trainer.current_epoch + 1}, at step "
                    f"{trainer.global_step}: lower recipe.lr or lengthen recipe.warmup_epochs; "
                    "no checkpoint of it is written."
                )
        if trainer.is_global_zero and (self.directory / LAST).exists():
            link(self.directory / LAST, self.directory / PREVIOUS)
        trainer.save_checkpoint(self.directory / LAST)

    def state_dict(self) -> dict[str, Any]:
        """Go into the checkpoint."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Come from the checkpoint."""
        self.best = state_dict["best"]


def link(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``, or a copy where links cannot be had."""
    with atomic_path(target) as partial:
        partial.unlink(missing_ok=True)
        try:
            partial.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, partial)


def set_aside(directory: Path) -> Path | None:
    """Take a run's checkpoints out of the way of a run that starts anew in its place, in one step.

    What was set aside before makes room, but not for a directory without checkpoints: a run that
    dies before its first has nothing to show for what it would take away.

    Returns:
        Where they are now; None if there were none.

    Raises:
        SemabenchError: they cannot be moved, or ``directory`` is a symbolic link.
    """
    if not any((directory / name).exists() for name in (LAST, PREVIOUS, BEST)):
        return None
    target = directory.with_name(SET_ASIDE)
    if directory.is_symlink():  # moved, it would take with it where checkpoints shall be
        raise SemabenchError(
            f"{directory} is a link: resume=never cannot set its checkpoints aside; move those in "
            f"{directory.resolve()} yourself, or start with another output_root."
        )
    try:
        if target.exists():
            shutil.rmtree(target)
        directory.rename(target)
    except OSError as error:
        raise SemabenchError(
            f"cannot move {directory} to {target}: {error.strerror or error}."
        ) from error
    return target


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


def check_same_run(path: Path, describe: dict[str, Any], *, chosen: bool = False) -> None:
    """Refuse to go on from a checkpoint of another run: other settings, classes or pictures.

    Args:
        path: a sound checkpoint.
        describe: what this run would store in its own.
        chosen: whether the user named this checkpoint.

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
    if "+" not in old["fingerprint"]:  # from before packing's settings were in it
        new["fingerprint"] = new["fingerprint"].partition("+")[0]
    for key in [*new, *old]:
        if old.get(key) != new.get(key):
            values = f" {old.get(key)}, not {new.get(key)}"
            detail = values if len(values) < 60 else " of another value"
            name = {
                "fingerprint": "training images, by their fingerprint or how they were packed,"
            }.get(key, key)
            advice = "give this run another name=..., or start it anew with resume=never"
            if chosen:
                advice = f"to begin another run with its weights, take model.checkpoint={path}"
            raise SemabenchError(f"{path} was trained with {name}{detail}: {advice}.")


def _flat(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Return nested values under dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


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
