"""Probe a model's features at several resolutions; rows are stored as they are measured."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from semabench.data.loader import EvalLoader, create_eval_loader, require_eval_files
from semabench.errors import SemabenchError
from semabench.evaluation.one_pass import require_all
from semabench.evaluation.probe.classifiers import Features, fit_linear, require_enough, vote
from semabench.evaluation.probe.schema import ProbeConfig
from semabench.evaluation.probe.views import VIEW
from semabench.evaluation.target import EvalTarget, load_target
from semabench.progress import said_if_slow
from semabench.results.record import Record, accuracy
from semabench.results.report import print_report
from semabench.results.store import append_record, read_rows
from semabench.training.counts import Counts
from semabench.training.device import (
    choose_accelerator,
    choose_precision,
)

DIRECTORY = "probe"  # in a run's directory: accuracy's rows stay apart


def probe(config: ProbeConfig) -> list[Record]:
    """Measure what ``config`` asks for and is not in results.jsonl yet, and report all of it.

    Returns:
        One row a resolution and classifier, measured now or before.

    Raises:
        SemabenchError: a model without features of an image, images of a split missing, fewer
            training images than neighbours, ...
    """
    accelerator = choose_accelerator(config.accelerator)
    device = torch.device("cuda" if accelerator == "gpu" else "cpu")
    target = load_target(config, device, choose_precision(config.precision, accelerator))
    require_eval_files(target.data, config.resolutions, "train")
    name = target.fields["model"]
    if not callable(getattr(target.model, "forward_head", None)):
        raise SemabenchError(f"{name} gives no features of a whole image: it has no forward_head.")
    path = target.results(config.output_dir, DIRECTORY)
    stored = {} if config.redo else {row.key: row for row in read_rows(path)}
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"probing {name} on {target.data.name}: {path}")
    rows: list[Record] = []
    for resolution in dict.fromkeys(config.resolutions):
        splits = {split: _open(config, target, resolution, split) for split in ("train", "val")}
        if splits["train"].classes != splits["val"].classes:
            raise SemabenchError(f"train and val of {target.data.name} differ in classes.")
        require_enough(
            splits["train"].num_samples, config.neighbors if "knn" in config.classifiers else []
        )
        planned = _plan(config, target, splits, resolution)
        todo = [row for row in planned if row.key not in stored]
        if todo:
            features = {split: _features(target, one, todo[0]) for split, one in splits.items()}
            for row in todo:
                stored[row.key] = _measure(config, row, features["train"], features["val"])
                append_record(path, stored[row.key])
        for row in planned:
            done = stored[row.key]
            before = "" if row in todo else "  (measured before)"
            told = f"top-1 {done.top1:.2f} ± {done.top1_stderr:.2f} %  n {done.n}"
            console.print(f"{resolution:>5} px  {_name(done)}  {told}{before}")
            rows.append(done)
    print_report([path], path.parent / "report", [VIEW])
    return rows


def _name(row: Record) -> str:
    return row.classifier if row.neighbors is None else f"{row.neighbors}-nn"


def _open(config: ProbeConfig, target: EvalTarget, resolution: int, split: str) -> EvalLoader:
    return create_eval_loader(
        target.data,
        resolution,
        split=split,
        batch_size=config.batch_size,
        num_workers=target.data.num_workers,
    )


def _plan(
    config: ProbeConfig,
    target: EvalTarget,
    splits: dict[str, EvalLoader],
    resolution: int,
) -> list[Record]:
    """Return the rows of a resolution as known before they are measured."""
    row = target.row(
        splits["val"],
        resolution,
        measure="probe",
        train_n=splits["train"].num_samples,
        batch_size=config.batch_size,
    )
    learnt = splits["train"].fingerprint[:12]
    row = replace(row, fingerprint=f"{learnt}+{row.fingerprint}")
    planned = []
    for classifier in dict.fromkeys(config.classifiers):
        if classifier == "knn":
            knn = replace(row, classifier="knn", temperature=config.temperature)
            planned += [replace(knn, neighbors=k) for k in dict.fromkeys(config.neighbors)]
        else:
            tried = ",".join(f"{penalty:g}" for penalty in sorted(set(config.penalties)))
            planned.append(replace(row, classifier="linear", penalties=tried))
    return planned


class _Headless(nn.Module):
    """A model without its last layer: images to features (B, D), as timm's pre-logits."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.model.forward_head(
            self.model.forward_features(images), pre_logits=True
        )
        return features.flatten(1)


def _features(target: EvalTarget, loader: EvalLoader, row: Record) -> Features:
    """Return the features of all images of a split, on the device."""
    run = target.forward(_Headless(target.model))
    found, labels = [], []
    batches: Iterable[tuple[Tensor, Tensor]] = track(
        loader,
        description=f"{row.resolution} px, {loader.num_samples:,} images",
        total=len(loader),
        transient=True,
        disable=not sys.stdout.isatty(),
    )
    with said_if_slow(f"features of {loader.num_samples:,} images at {row.resolution} px: a while"):
        for images, some in batches:
            x = run(images.to(target.device, non_blocking=True))
            found.append(x[some >= 0].float())  # a copy: a graph writes its output again
            labels.append(some[some >= 0])
    run.release()
    return Features(torch.cat(found), torch.cat(labels).to(target.device))


def _measure(config: ProbeConfig, row: Record, train: Features, val: Features) -> Record:
    counts = Counts()
    classes = row.classes or 0
    if row.classifier == "linear":
        try:
            with said_if_slow(f"fitting a linear layer to {len(train):,} images: a while"):
                fitted = fit_linear(train, classes, config.penalties)
        except torch.OutOfMemoryError as error:
            raise SemabenchError(
                f"features of {len(train):,} images and {classes} classes do not fit on the "
                "device: set accelerator=cpu, or 'classifiers=[knn]'."
            ) from error
        row = replace(row, penalty=fitted.penalty)
        counts.add(fitted(val.x), val.labels)
    else:
        labels = iter(val.labels.split(512))
        for votes in vote(train, val.x, classes, row.neighbors or 1, config.temperature):
            counts.add(votes, next(labels))
    n, right, right5 = counts.correct()
    require_all(n, row)
    require_all(len(train), replace(row, n=row.train_n or 0))
    top1, top1_stderr = accuracy(right, n)
    row = replace(row, top1=top1, top1_stderr=top1_stderr)
    if row.classifier == "knn":  # fewer than five classes may have a vote
        return row
    top5, top5_stderr = accuracy(right5, n)
    return replace(row, top5=top5, top5_stderr=top5_stderr)
