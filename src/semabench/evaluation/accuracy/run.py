"""Evaluate one model at several resolutions; each row is stored as soon as it is measured."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from rich.console import Console

from semabench.config.schema import TrainConfig
from semabench.data.loader import EvalLoader, create_eval_loader
from semabench.data.normalize import Normalize
from semabench.errors import SemabenchError
from semabench.evaluation.accuracy.one_pass import Measurement, measure
from semabench.evaluation.accuracy.schema import EvalConfig
from semabench.evaluation.target import EvalTarget, load_target
from semabench.files import atomic_write
from semabench.models import backend_name, set_resolution
from semabench.models.flops import count_gmacs, count_parameters
from semabench.processes import global_rank
from semabench.results.record import Record, accuracy, git_commit, software_versions
from semabench.results.store import RESULTS_NAME, append_record, read_rows
from semabench.results.wandb_log import log_evaluation, run_id, start_run, wandb_mode
from semabench.training.device import (
    choose_accelerator,
    choose_precision,
    device_label,
    layout_label,
)


def evaluate(config: EvalConfig) -> list[Record]:
    """Measure what ``config`` asks for and is not in results.jsonl yet; log all of it.

    Returns:
        One row a resolution, measured now or before.

    Raises:
        SemabenchError: no model or resolution given, data missing, classes that disagree, ...
    """
    if not config.resolutions:
        raise SemabenchError("no resolutions: give e.g. 'resolutions=[128,160,224]'.")
    accelerator = choose_accelerator(config.accelerator)
    precision = choose_precision(config.precision, accelerator)
    device = torch.device("cuda" if accelerator == "gpu" else "cpu")
    target = load_target(config, device, precision)
    torch.backends.cudnn.benchmark = True  # whatever training, in this process, left it at
    path = target.output_dir / RESULTS_NAME
    stored = {} if config.redo else {row.key: row for row in read_rows(path)}
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"evaluating {target.fields['model']} on {target.data.name}: {path}")
    rows = []
    for resolution in config.resolutions:
        loader = _loader(config, target, resolution)
        row = _plan(config, target, loader, resolution, precision, device)
        before = stored.get(row.key)
        if before is None:
            row = _complete(row, _measure(config, target, row, loader, device))
            append_record(path, row)
        else:
            row = before
        console.print(_line(row) + ("  (measured before)" if before else ""))
        rows.append(row)
    log_rows(read_rows(path), config, target)
    return rows


def _loader(config: EvalConfig, target: EvalTarget, resolution: int) -> EvalLoader:
    data = target.data
    loader = create_eval_loader(
        data, resolution, batch_size=config.batch_size, num_workers=data.num_workers
    )
    if len(loader.classes) != target.num_classes:
        raise SemabenchError(
            f"{target.fields['model']} has {target.num_classes} classes but {data.name} has "
            f"{len(loader.classes)}: evaluate on the data set it was trained on."
        )
    if target.classes is not None and target.classes != loader.classes:
        raise SemabenchError(
            f"{target.fields['model']} was trained on other classes than {data.name}'s "
            f"({target.classes[0]}, ... against {loader.classes[0]}, ...)."
        )
    return loader


def _plan(
    config: EvalConfig,
    target: EvalTarget,
    loader: EvalLoader,
    resolution: int,
    precision: str,
    device: torch.device,
) -> Record:
    """Return the row as known before it is measured."""
    set_resolution(target.model, resolution)
    return Record(
        **target.fields,
        dataset=target.data.name,
        fingerprint=loader.fingerprint,
        classes=len(loader.classes),
        n=loader.num_samples,
        resolution=resolution,
        crop_pct=target.data.crop_pct,
        interpolation=target.data.interpolation,
        precision=precision,
        backend=backend_name(target.model, device),
        device=device_label(device),
        execution="compiled" if config.compile else "eager",
        layout=layout_label(config.channels_last),
        batch_size=config.batch_size,
        params=count_parameters(target.model),
        gmacs=count_gmacs(target.model, resolution),
        versions=software_versions(),
        commit=git_commit(),
    )


def _measure(
    config: EvalConfig, target: EvalTarget, row: Record, loader: EvalLoader, device: torch.device
) -> Measurement:
    # Each resolution is compiled by itself, in the first batches, which are not timed.
    if config.compile:
        torch.compiler.reset()
    run = torch.compile(target.model, dynamic=False) if config.compile else target.model
    return measure(
        run,  # type: ignore[arg-type]
        loader,
        normalize=Normalize(target.mean, target.std).to(device),
        device=device,
        precision=row.precision,
        batch_size=config.batch_size,
        batches=len(loader),
        title=f"{row.resolution} px",
    )


def _complete(row: Record, found: Measurement) -> Record:
    if found.n != row.n:
        raise SemabenchError(
            f"{row.dataset} at {row.resolution} px gave {found.n} samples instead of {row.n}: "
            "check the file with `semabench data check`."
        )
    top1, top1_stderr = accuracy(found.top1, found.n)
    top5, top5_stderr = accuracy(found.top5, found.n)
    return replace(
        row,
        top1=top1,
        top1_stderr=top1_stderr,
        top5=top5,
        top5_stderr=top5_stderr,
        images_per_second=found.images_per_second,
        images_per_second_spread=found.spread,
        peak_memory_mib=found.peak_memory_mib,
    )


def _line(row: Record) -> str:
    parts = [
        f"{row.resolution:>5} px",
        f"top-1 {row.top1:.2f} ± {row.top1_stderr:.2f} %",
        f"top-5 {row.top5:.2f} %",
        f"n {row.n}",
    ]
    if row.images_per_second is not None:
        parts.append(f"{row.images_per_second:,.0f} img/s")
    if row.peak_memory_mib is not None:
        parts.append(f"{row.peak_memory_mib:,.0f} MiB")
    return "  ".join(parts)


def evaluate_trained(run_dir: Path, config: TrainConfig) -> list[Record]:
    """Evaluate the last checkpoint of a run that has just been trained at ``evaluate_at``.

    Called on every rank, it works on rank 0 alone.
    """
    if global_rank() != 0:
        return []
    return evaluate(
        EvalConfig(
            checkpoint=str(run_dir),
            resolutions=config.evaluate_at,
            logger=config.logger,
            accelerator=config.trainer.accelerator,
            precision=config.trainer.precision,
            compile=bool(config.trainer.compile),  # unless asked for: one compilation a resolution
            channels_last=config.trainer.channels_last,
        )
    )


log = logging.getLogger(__name__)

LOGGED = "wandb_logged"  # names the rows that were logged last


def log_rows(rows: list[Record], config: EvalConfig, target: EvalTarget) -> None:
    """Log all rows of a results file to the run that trained the model, or to one of their own.

    Rows that were logged before, all of them and no others, are not logged again. With
    ``logger=csv`` there is nothing to do: results.jsonl holds the rows.
    """
    if config.logger.name != "wandb":
        return
    mode = wandb_mode(config.logger.mode)
    directory = target.run_dir or target.output_dir
    marker, digest = directory / LOGGED, _digest(rows)
    if mode == "disabled" or _read(marker) == digest:
        return
    try:
        _log(rows, config, target, directory, mode)
    except OSError as error:  # the rows are safe in results.jsonl
        log.warning("W&B cannot log the evaluation: %s", error)
        return
    atomic_write(marker, digest)


def _log(
    rows: list[Record], config: EvalConfig, target: EvalTarget, directory: Path, mode: str
) -> None:
    run = start_run(
        directory,
        run_id=run_id(directory),
        project=config.logger.project,
        name=directory.name,
        group=directory.parent.name,
        tags=[target.fields["model"], target.fields["recipe"], target.data.name],
        config=target.train_config or asdict(config),
        mode=mode,
        job_type="train" if target.run_dir else "eval",
    )
    # Offline nobody knows the steps that training has used, and used ones would be dropped on
    # upload; seconds since 1970 are beyond them. The axis of the plots is eval/resolution.
    log_evaluation(run, rows, first_step=int(time.time()) if mode == "offline" else None)
    run.finish()


def _digest(rows: list[Record]) -> str:
    return hashlib.sha256(repr([(row.key, row.time) for row in rows]).encode()).hexdigest()


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
