"""Evaluate one model at several resolutions, in one pass each; rows are stored as they come."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from semabench.config.schema import TrainConfig
from semabench.data.loader import EvalLoader, create_eval_loader
from semabench.errors import SemabenchError
from semabench.evaluation.accuracy.schema import EvalConfig
from semabench.evaluation.classes import among_all, imagenet_wnids, own_logits
from semabench.evaluation.one_pass import Measurement, measure, require_all
from semabench.evaluation.real_labels import RealCounts, numbered, real_labels
from semabench.evaluation.target import EvalTarget, load_target
from semabench.files import atomic_write
from semabench.models.compiled import compile_model
from semabench.processes import global_rank
from semabench.progress import note
from semabench.results.record import Record, accuracy
from semabench.results.store import RESULTS_NAME, append_record, read_rows
from semabench.results.trackers import log_curves, require_trackers
from semabench.results.wandb_log import (
    finish_run,
    keep_artifact,
    log_evaluation,
    run_id,
    start_run,
    wandb_mode,
)
from semabench.training.counts import Counts
from semabench.training.device import (
    choose_accelerator,
    choose_precision,
    execution_label,
)


def evaluate(config: EvalConfig) -> list[Record]:
    """Measure what ``config`` asks for and is not in results.jsonl yet; log all of it.

    Returns:
        One row a resolution, measured now or before.

    Raises:
        SemabenchError: no model or resolution given, data missing, classes that disagree; or, once
            all else is measured, that the model cannot take some resolution.
    """
    if not config.resolutions:
        raise SemabenchError("no resolutions: give e.g. 'resolutions=[128,160,224]'.")
    require_trackers((config.logger.name, *config.logger.also))
    accelerator = choose_accelerator(config.accelerator)
    precision = choose_precision(config.precision, accelerator)
    device = torch.device("cuda" if accelerator == "gpu" else "cpu")
    target = load_target(config, device, precision)
    torch.backends.cudnn.benchmark = True  # whatever training, in this process, left it at
    path = target.output_dir / RESULTS_NAME
    stored = {} if config.redo else {row.key: row for row in read_rows(path)}
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"evaluating {target.fields['model']} on {target.data.name}: {path}")
    rows: list[Record] = []
    failed: dict[int, str] = {}
    for number, resolution in enumerate(config.resolutions):
        loader = _loader(config, target, resolution)
        # ReaL's labels are of all of ImageNet's classes, whichever the dataset has.
        theirs = list(imagenet_wnids()) if config.labels == "real" else loader.classes
        columns = target.columns(theirs)
        sets = real_labels(loader.paths, target.data.name) if config.labels == "real" else None
        if number == 0:
            _say_what_is_compared(config, target, loader)
        try:
            row = target.row(
                loader,
                resolution,
                labels="" if sets is None else "real",
                classes=len(theirs),
                logits=config.logits if _some(config, target, loader) else "",
                n=loader.num_samples if sets is None else int(sets.any(dim=1).sum()),
                execution=execution_label(
                    config.compile, graph=config.graph and device.type == "cuda"
                ),
                batch_size=config.batch_size,
            )
            launched = replace(row, execution=execution_label(config.compile, graph=False))
            before = stored.get(row.key) or stored.get(launched.key)  # where none can be recorded
            if before is None:
                row = _measure(config, target, row, loader, sets, columns)
                append_record(path, row)
            else:
                row = before
        except SemabenchError as error:  # of this size alone
            failed[resolution] = str(error)
            console.print(f"{resolution:>5} px  NOT MEASURED: {failed[resolution]}", markup=False)
            continue
        console.print(_line(row) + ("  (measured before)" if before else ""))
        rows.append(row)
    log_rows(read_rows(path), config, target)
    if failed:
        sizes = ", ".join(map(str, failed))
        raise SemabenchError(f"not measured: {sizes} px ({next(iter(failed.values()))}).")
    return rows


def _loader(config: EvalConfig, target: EvalTarget, resolution: int) -> EvalLoader:
    data = target.data
    return create_eval_loader(
        data, resolution, batch_size=config.batch_size, num_workers=data.num_workers
    )


def _say_what_is_compared(config: EvalConfig, target: EvalTarget, loader: EvalLoader) -> None:
    """Say where classes are taken on trust, or are some of the model's alone."""
    name, theirs = target.fields["model"], loader.classes
    if target.known(theirs) is None:
        note(
            f"the weights of {name} do not name their {len(theirs)} classes: they must be in the "
            f"dataset's order, {', '.join(theirs[:3])}, ..."
        )
    elif _some(config, target, loader):
        others = "are left out" if config.logits == "own" else "compete, too (logits=all)"
        note(
            f"{len(theirs)} of the {target.num_classes} classes of {name}: the other logits "
            f"{others}."
        )


def _some(config: EvalConfig, target: EvalTarget, loader: EvalLoader) -> bool:
    """Tell whether the dataset's labels are of some of the model's classes."""
    return config.labels == "own" and len(loader.classes) < target.num_classes


def _measure(
    config: EvalConfig,
    target: EvalTarget,
    row: Record,
    loader: EvalLoader,
    sets: Tensor | None,
    columns: list[int],
) -> Record:
    # Each resolution is compiled by itself, in the first batches, which are not timed.
    if config.compile:
        torch.compiler.reset()
        compile_model(target.model)
    run = target.forward(graph=config.graph)
    logits: Callable[[Tensor], Tensor] = run
    batches: Iterable[tuple[Tensor, Tensor]] = loader
    counts = Counts()
    if sets is not None:
        counts, batches = RealCounts(sets.to(target.device)), numbered(loader)
    if columns != list(range(target.num_classes)):
        chosen = torch.tensor(columns, device=target.device)
        if config.logits == "own" or sets is not None:
            logits = own_logits(run, chosen)
        else:
            batches = among_all(loader, chosen)
    found = measure(
        logits,
        batches,
        counts,
        device=target.device,
        batch_size=config.batch_size,
        batches=len(loader),
        title=f"{row.resolution} px",
    )
    run.release()
    execution = execution_label(config.compile, run.graph)  # as it came to be
    return _complete(replace(row, execution=execution), found)


def _complete(row: Record, found: Measurement) -> Record:
    require_all(found.n, row)
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
            graph=config.trainer.graph,
            channels_last=config.trainer.channels_last,
        )
    )


log = logging.getLogger(__name__)

LOGGED = "wandb_logged"  # names the rows that were logged last


def log_rows(rows: list[Record], config: EvalConfig, target: EvalTarget) -> None:
    """Log all rows of a results file to the run that trained the model, or to one of their own.

    Rows that W&B has, all of them and no others, are not logged again. For CSV files there is
    nothing to do: results.jsonl holds the rows.
    """
    names = (config.logger.name, *config.logger.also)
    directory = target.run_dir or target.output_dir
    log_curves(names, directory, rows, config.logger.project)
    if "wandb" not in names:
        return
    mode = wandb_mode(config.logger.mode)
    marker, digest = directory / LOGGED, _digest(rows)
    if mode == "disabled" or _read(marker) == digest:
        return
    try:
        _log(rows, config, target, directory, mode)
    except (OSError, UnicodeError) as error:  # the rows are safe in results.jsonl
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
    if config.logger.artifacts:
        path = target.output_dir / RESULTS_NAME
        keep_artifact(run, path, "results", {"run": directory.name, "rows": len(rows)})
    finish_run(run)


def _digest(rows: list[Record]) -> str:
    return hashlib.sha256(repr([(row.key, row.time) for row in rows]).encode()).hexdigest()


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
