"""Measure dispersion on random inputs or with a model; rows are stored as they are measured."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from semabench.evaluation.dispersion.random_inputs import measure_job, plan_jobs
from semabench.evaluation.dispersion.schema import DispersionConfig
from semabench.evaluation.dispersion.trained import (
    attention_layers,
    measure_rows,
    open_images,
    plan_rows,
)
from semabench.evaluation.dispersion.views import VIEW
from semabench.evaluation.target import load_target
from semabench.results.record import Record
from semabench.results.report import print_report
from semabench.results.store import RESULTS_NAME, append_record, read_rows
from semabench.training.device import choose_accelerator, choose_precision

DIRECTORY = "dispersion"  # in a run's directory: accuracy's rows stay apart


def measure_dispersion(config: DispersionConfig) -> list[Record]:
    """Measure what ``config`` asks for and is not in results.jsonl yet, and report all of it.

    Returns:
        The rows asked for, measured now or before.

    Raises:
        SemabenchError: a model without queries and keys, data missing, ...
    """
    accelerator = choose_accelerator(config.accelerator)
    device = torch.device("cuda" if accelerator == "gpu" else "cpu")
    if config.random:
        path, rows = _measure_random(config, device)
    else:
        precision = choose_precision(config.precision, accelerator)
        path, rows = _measure_model(config, precision, device)
    print_report([path], path.parent / "report", [VIEW])
    return rows


def _measure_random(config: DispersionConfig, device: torch.device) -> tuple[Path, list[Record]]:
    path = Path(config.output_dir or "outputs/dispersion/random") / RESULTS_NAME
    jobs = plan_jobs(config, device)
    stored = {} if config.redo else {row.key: row for row in read_rows(path)}
    todo = [job for job in jobs if job.row.key not in stored]
    _say(f"random inputs: {len(todo)} of {len(jobs)} to measure: {path}")
    with Progress(transient=True, disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task("random inputs", total=sum(job.tokens for job in todo))
        for job in todo:
            bar.update(task, description=f"{job.row.model}, n = {job.tokens:,}")
            row = measure_job(job, config, device)
            append_record(path, row)
            stored[row.key] = row
            bar.advance(task, job.tokens)
    return path, [stored[job.row.key] for job in jobs]


def _measure_model(
    config: DispersionConfig, precision: str, device: torch.device
) -> tuple[Path, list[Record]]:
    target = load_target(config, device, precision)
    attention_layers(target.model, target.fields["model"])  # raises before anything is read
    path = target.results(config.output_dir, DIRECTORY)
    stored = {} if config.redo else {row.key: row for row in read_rows(path)}
    _say(f"dispersion of {target.fields['model']} on {target.data.name}: {path}")
    rows: list[Record] = []
    for resolution in dict.fromkeys(config.resolutions):
        loader = open_images(config, target, resolution)
        planned = plan_rows(config, target, loader, resolution, precision, device)
        before = all(row.key in stored for row in planned)
        if before:
            found: Sequence[Record] = [stored[row.key] for row in planned]
        else:
            found = measure_rows(planned, target, loader, device)
            for row in found:
                append_record(path, row)
        rows += found
        _say(
            f"{resolution:>5} px  {len(found)} heads on {found[0].n} images"
            + ("  (measured before)" if before else "")
        )
    return path, rows


def _say(line: str) -> None:
    Console(highlight=False, soft_wrap=True).print(line, markup=False)
