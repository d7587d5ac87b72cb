"""One training run, from its config to `finished.json` in its directory."""

from __future__ import annotations

import errno
import json
import logging
import sys
from contextlib import nullcontext
from pathlib import Path

import lightning as L
from omegaconf import OmegaConf

from semabench.config.run_name import run_dir as run_dir_of
from semabench.config.schema import TrainConfig
from semabench.data.datamodule import ImageDataModule
from semabench.errors import SemabenchError, first_line
from semabench.files import atomic_write
from semabench.results.run_id import forget_run_id
from semabench.training.assemble import create_model, create_module
from semabench.training.checkpoint import CONFIG, DIRECTORY, LAST, link, set_aside
from semabench.training.compiling import Compile
from semabench.training.devices import (
    check_cuda_graphs,
    check_processes,
    choose_accelerator,
    choose_precision,
    global_rank,
)
from semabench.training.lock import run_lock
from semabench.training.loggers import close_logger
from semabench.training.module import Classifier
from semabench.training.resume import check_same_run, resume_path
from semabench.training.stopping import Stopped, listening
from semabench.training.trainer import create_trainer

log = logging.getLogger(__name__)

FINISHED = "finished.json"


def train(config: TrainConfig) -> Path:
    """Train, or resume, or find finished, the run of this config.

    Returns:
        The run directory: config.yaml, checkpoints/, finished.json and the logs.

    Raises:
        SemabenchError: what the user can mend, before anything is written where possible.
    """
    accelerator = choose_accelerator(config.trainer.accelerator)
    precision = choose_precision(config.trainer.precision, accelerator)
    config.trainer.precision = precision  # part of the run's name: resolved, not as asked for
    check_cuda_graphs(config.trainer.cuda_graphs, accelerator)
    check_processes(config.trainer.devices, config.trainer.num_nodes, accelerator)
    run_dir = run_dir_of(config)
    L.seed_everything(config.seed, workers=True, verbose=False)
    data = ImageDataModule(
        config.data,
        config.recipe.batch_size,
        config.seed,
        config.trainer.val_batch_size,
        config.recipe.repeated_augmentation,
        config.recipe.resolution_schedule,
    )
    module = create_module(config, create_model(config, len(data.classes)), data)
    if _finished(run_dir, config, module):
        _tell(f"finished already: {run_dir} (resume=never trains it again)")
        return run_dir
    if global_rank() == 0:
        data.require_files(config.evaluate_at)
    with run_lock(run_dir) if global_rank() == 0 else nullcontext():
        resume = _resume(config, run_dir, module)
        if global_rank() == 0:
            _prepare_directory(config, run_dir, resume)
        trainer = create_trainer(config, run_dir, accelerator, precision, module)
        _tell(f"{f'resuming {resume}' if resume else 'training'}: {run_dir}")
        _fit(trainer, module, data, resume)
        if trainer.is_global_zero and trainer.global_step == module.total_steps:
            _finish(trainer, run_dir)
    return run_dir


def _finished(run_dir: Path, config: TrainConfig, module: Classifier) -> bool:
    """Tell whether there is nothing left to do."""
    if config.resume != "auto" or not (run_dir / FINISHED).exists():
        return False
    _resume(config, run_dir, module)  # raises if it was another run that has finished here
    return True


def _resume(config: TrainConfig, run_dir: Path, module: Classifier) -> Path | None:
    """Return the checkpoint to go on from, of the same run."""
    path = resume_path(config.resume, run_dir)
    if path is not None:
        check_same_run(path, module.describe)
    return path


def _prepare_directory(config: TrainConfig, run_dir: Path, resume: Path | None) -> None:
    last = run_dir / DIRECTORY / LAST
    if resume is not None and resume.parent == last.parent and resume != last:
        link(resume, last)  # it was damaged, and may never be written again
    atomic_write(run_dir / CONFIG, OmegaConf.to_yaml(OmegaConf.structured(config)))
    (run_dir / FINISHED).unlink(missing_ok=True)
    if config.resume == "never":
        forget_run_id(run_dir)
        # The last thing: until here the next start would go on with the old run, from here never.
        if kept := set_aside(run_dir / DIRECTORY):
            _tell(f"the checkpoints that were here are kept in {kept}")


def _fit(
    trainer: L.Trainer, module: Classifier, data: ImageDataModule, resume: Path | None
) -> None:
    """Train; end on a signal with the shell's code for it. Ctrl-C, Lightning makes an exit."""
    try:
        with listening():
            trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    except Stopped as stopped:
        if trainer.is_global_zero:
            step = f"at step {trainer.global_step} of {module.total_steps}"
            when = f"{step}; the same command resumes there"
            if not stopped.begun:
                when = "before its first step; start it again"
            print(f"error: {stopped} {when}.", file=sys.stderr)
        raise SystemExit(stopped.exit_code) from stopped
    except RuntimeError as error:
        # torch tells of a dead worker from a signal handler: out of whatever the step was doing.
        if not str(error).startswith("DataLoader worker"):
            raise
        raise SemabenchError(
            f"a worker of the folder loader failed: {first_line(error)} (if memory ran "
            "out, set fewer data.num_workers); the same command goes on from the last checkpoint."
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise SemabenchError(  # metrics of a step: a checkpoint tells by itself
            f"cannot write to {error.filename or trainer.default_root_dir}: {error.strerror}; free "
            "some space, and the same command goes on from the last checkpoint."
        ) from error
    except SystemExit as interrupted:
        raise KeyboardInterrupt from interrupted
    finally:
        close_logger(trainer.logger)


def _tell(text: str) -> None:
    if global_rank() == 0:
        print(text, flush=True)


def _finish(trainer: L.Trainer, run_dir: Path) -> None:
    metrics = {
        name: float(value)
        for name, value in trainer.callback_metrics.items()
        if name.startswith("val")
    }
    summary = {
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "compiled": any(isinstance(c, Compile) and not c.failed for c in trainer.callbacks),  # type: ignore[attr-defined]
        "metrics": metrics,
    }
    atomic_write(run_dir / FINISHED, json.dumps(summary, indent=2) + "\n")
