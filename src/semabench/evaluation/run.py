"""Evaluate one model at several resolutions; each row is stored as soon as it is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from semabench.config.schema import EvalConfig, TrainConfig
from semabench.data.loader import EvalLoader, create_eval_loader, require_eval_files
from semabench.data.normalize import Normalize
from semabench.errors import SemabenchError
from semabench.evaluation.labels import device_label, layout_label
from semabench.evaluation.log import log_rows
from semabench.evaluation.measure import Measurement, measure
from semabench.evaluation.subject import Subject, load_subject
from semabench.models import backend_name, set_resolution
from semabench.models.flops import count_gmacs, count_parameters
from semabench.results.record import Record, accuracy, git_commit, software_versions
from semabench.results.store import RESULTS_NAME, append_record, read_rows
from semabench.training.devices import choose_accelerator, choose_precision, global_rank


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
    subject = load_subject(config)
    subject.model.to(device)
    if precision == "64-true":
        subject.model.double()
    torch.backends.cudnn.benchmark = True  # whatever training, in this process, left it at
    if config.channels_last:
        subject.model.to(memory_format=torch.channels_last)
    require_eval_files(subject.data, config.resolutions)
    path = subject.output_dir / RESULTS_NAME
    stored = {} if config.redo else {row.key: row for row in read_rows(path)}
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"evaluating {subject.fields['model']} on {subject.data.name}: {path}")
    rows = []
    for resolution in config.resolutions:
        loader = _loader(config, subject, resolution)
        row = _plan(config, subject, loader, resolution, precision, device)
        before = stored.get(row.key)
        if before is None:
            row = _complete(row, _measure(config, subject, row, loader, device))
            append_record(path, row)
        else:
            row = before
        console.print(_line(row) + ("  (measured before)" if before else ""))
        rows.append(row)
    log_rows(read_rows(path), config, subject)
    return rows


def _loader(config: EvalConfig, subject: Subject, resolution: int) -> EvalLoader:
    data = subject.data
    loader = create_eval_loader(
        data, resolution, batch_size=config.batch_size, num_workers=data.num_workers
    )
    if len(loader.classes) != subject.num_classes:
        raise SemabenchError(
            f"{subject.fields['model']} has {subject.num_classes} classes but {data.name} has "
            f"{len(loader.classes)}: evaluate on the data set it was trained on."
        )
    if subject.classes is not None and subject.classes != loader.classes:
        raise SemabenchError(
            f"{subject.fields['model']} was trained on other classes than {data.name}'s "
            f"({subject.classes[0]}, ... against {loader.classes[0]}, ...)."
        )
    return loader


def _plan(
    config: EvalConfig,
    subject: Subject,
    loader: EvalLoader,
    resolution: int,
    precision: str,
    device: torch.device,
) -> Record:
    """Return the row as known before it is measured."""
    set_resolution(subject.model, resolution)
    return Record(
        **subject.fields,
        dataset=subject.data.name,
        fingerprint=loader.fingerprint,
        classes=len(loader.classes),
        n=loader.num_samples,
        resolution=resolution,
        crop_pct=subject.data.crop_pct,
        interpolation=subject.data.interpolation,
        precision=precision,
        backend=backend_name(subject.model, device),
        device=device_label(device),
        execution="compiled" if config.compile else "eager",
        layout=layout_label(config.channels_last),
        batch_size=config.batch_size,
        params=count_parameters(subject.model),
        gmacs=count_gmacs(subject.model, resolution),
        versions=software_versions(),
        commit=git_commit(),
    )


def _measure(
    config: EvalConfig, subject: Subject, row: Record, loader: EvalLoader, device: torch.device
) -> Measurement:
    # Each resolution is compiled by itself, in the first batches, which are not timed.
    if config.compile:
        torch.compiler.reset()
    run = torch.compile(subject.model, dynamic=False) if config.compile else subject.model
    return measure(
        run,  # type: ignore[arg-type]
        loader,
        normalize=Normalize(subject.mean, subject.std).to(device),
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
