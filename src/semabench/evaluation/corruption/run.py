"""Evaluate a model on each corruption at each severity; rows are stored as they are measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from semabench.data.loader import create_eval_loader
from semabench.errors import SemabenchError
from semabench.evaluation.classes import own_logits
from semabench.evaluation.corruption.schema import CorruptionConfig
from semabench.evaluation.corruption.views import VIEW
from semabench.evaluation.one_pass import measure, require_all
from semabench.evaluation.target import EvalTarget, load_target
from semabench.results.record import Record, accuracy
from semabench.results.report import print_report
from semabench.results.store import append_record, read_rows
from semabench.training.counts import Counts
from semabench.training.device import choose_accelerator, choose_precision

DIRECTORY = "corruption"  # in a run's directory: accuracy's rows stay apart


def measure_corruption(config: CorruptionConfig) -> list[Record]:
    """Measure what ``config`` asks for and is not in results.jsonl yet, and report all of it.

    Returns:
        One row a corruption, severity and resolution, measured now or before.

    Raises:
        SemabenchError: images of a corruption are missing, classes that the model does not know.
    """
    accelerator = choose_accelerator(config.accelerator)
    device = torch.device("cuda" if accelerator == "gpu" else "cpu")
    sources = {
        (name, severity): _source(config, name, severity)
        for name in dict.fromkeys(config.corruptions)
        for severity in dict.fromkeys(config.severities)
    }
    target = load_target(config, device, choose_precision(config.precision, accelerator))
    name = target.fields["model"]
    path = target.results(config.output_dir, DIRECTORY)
    stored = {} if config.redo else {row.key: row for row in read_rows(path)}
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{name} on {len(sources)} sets of {target.data.name}: {path}")
    rows: list[Record] = []
    for resolution in dict.fromkeys(config.resolutions):
        for (corruption, severity), source in sources.items():
            row, before = _row(config, target, stored, resolution, corruption, severity, source)
            if not before:
                append_record(path, row)
            told = f"{corruption} {severity}  top-1 {row.top1:.2f} ± {row.top1_stderr:.2f} %"
            end = "  (measured before)" if before else ""
            console.print(f"{resolution:>5} px  {told}  n {row.n}{end}")
            rows.append(row)
    print_report([path], path.parent / "report", [VIEW])
    return rows


def _source(config: CorruptionConfig, corruption: str, severity: int) -> Path:
    """Return the folder of classes, ``[<group>/]<corruption>/<severity>``, as it is distributed."""
    assert config.data is not None
    assert config.data.source is not None
    root = Path(config.data.source)
    for found in (root / corruption, *sorted(root.glob(f"*/{corruption}"))):
        if (found / str(severity)).is_dir():
            return found / str(severity)
    raise SemabenchError(
        f"no {corruption}/{severity} in {root}: unpack the archives of ImageNet-C there, or name "
        "what there is: 'corruptions=[...]' 'severities=[...]'."
    )


def _row(
    config: CorruptionConfig,
    target: EvalTarget,
    stored: dict[tuple[object, ...], Record],
    resolution: int,
    corruption: str,
    severity: int,
    source: Path,
) -> tuple[Record, bool]:
    """Return the row of one set, and whether it was measured before."""
    loader = create_eval_loader(
        replace(target.data, source=str(source)),
        resolution,
        batch_size=config.batch_size,
        num_workers=target.data.num_workers,
    )
    row = target.row(
        loader,
        resolution,
        measure="corruption",
        corruption=corruption,
        severity=severity,
        batch_size=config.batch_size,
    )
    if row.key in stored:
        return stored[row.key], True
    columns = target.columns(loader.classes)
    run = target.forward()
    found = measure(
        own_logits(run, torch.tensor(columns, device=target.device)),
        loader,
        Counts(),
        device=target.device,
        batch_size=config.batch_size,
        batches=len(loader),
        title=f"{resolution} px, {corruption} {severity}",
    )
    run.release()
    require_all(found.n, row)
    top1, top1_stderr = accuracy(found.top1, found.n)
    top5, top5_stderr = accuracy(found.top5, found.n)
    done = replace(row, top1=top1, top1_stderr=top1_stderr, top5=top5, top5_stderr=top5_stderr)
    return done, False
