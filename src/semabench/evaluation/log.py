"""Join an evaluation to the W&B run of its training."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import asdict
from pathlib import Path

from semabench.config.schema import EvalConfig
from semabench.evaluation.subject import Subject
from semabench.files import atomic_write
from semabench.results.record import Record
from semabench.results.wandb_log import log_evaluation, run_id, start_run, wandb_mode

log = logging.getLogger(__name__)

LOGGED = "wandb_logged"  # names the rows that were logged last


def log_rows(rows: list[Record], config: EvalConfig, subject: Subject) -> None:
    """Log all rows of a results file to the run that trained the model, or to one of their own.

    Rows that were logged before, all of them and no others, are not logged again. With
    ``logger=csv`` there is nothing to do: results.jsonl holds the rows.
    """
    if config.logger.name != "wandb":
        return
    mode = wandb_mode(config.logger.mode)
    directory = subject.run_dir or subject.output_dir
    marker, digest = directory / LOGGED, _digest(rows)
    if mode == "disabled" or _read(marker) == digest:
        return
    try:
        _log(rows, config, subject, directory, mode)
    except OSError as error:  # the rows are safe in results.jsonl
        log.warning("W&B cannot log the evaluation: %s", error)
        return
    atomic_write(marker, digest)


def _log(
    rows: list[Record], config: EvalConfig, subject: Subject, directory: Path, mode: str
) -> None:
    run = start_run(
        directory,
        run_id=run_id(directory),
        project=config.logger.project,
        name=directory.name,
        group=directory.parent.name,
        tags=[subject.fields["model"], subject.fields["recipe"], subject.data.name],
        config=subject.train_config or asdict(config),
        mode=mode,
        job_type="train" if subject.run_dir else "eval",
    )
    # Offline nobody knows the steps that training has used, and used ones would be dropped on
    # upload; seconds since 1970 are beyond them. The axis of the plots is eval/resolution.
    log_evaluation(run, rows, first_step=int(time.time()) if mode == "offline" else None)
    run.finish()


def _digest(rows: list[Record]) -> str:
    return hashlib.sha256(repr([(row.key, row.time) for row in rows]).encode()).hexdigest()


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
