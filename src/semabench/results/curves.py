"""Accuracy against resolution for trackers whose horizontal axis is a step: it is the pixels.

TensorBoard, MLflow and trackio; W&B, which can do more, is in `wandb_log`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from semabench.errors import SemabenchError
from semabench.files import atomic_write
from semabench.results.record import Record
from semabench.results.wandb_log import METRICS

MLFLOW_RUN = "mlflow_run_id"  # in the run's directory
_TRACKIO_LOGGED = "trackio_logged"  # names the rows that it has


def missing(tracker: str, package: str) -> SemabenchError:
    """Return the error that a tracker's package is not installed."""
    return SemabenchError(f"logger={tracker} needs its package: pip install {package}.")


def _points(records: Sequence[Record]) -> Iterator[tuple[str, int, dict[str, float]]]:
    """Yield the dataset, with what it was told by, the pixels and the numbers of each row."""
    for record in records:
        row = record.to_dict()
        found = {name: row[name] for name in METRICS if row[name] is not None}
        yield f"{record.dataset}{record.told_apart}", record.resolution, found


def _tensorboard(directory: Path, records: Sequence[Record], project: str) -> None:
    """Write a folder ``tensorboard/eval-<dataset>`` of events in place of the one before."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise missing("tensorboard", "tensorboard") from error
    for dataset in dict.fromkeys(name for name, *_ in _points(records)):
        place = directory / "tensorboard" / f"eval-{dataset}"
        shutil.rmtree(place, ignore_errors=True)
        writer = SummaryWriter(str(place))
        for name, resolution, numbers in _points(records):
            for metric, value in numbers.items():
                if name == dataset:
                    writer.add_scalar(f"eval/{metric}", value, resolution)
        writer.close()


def mlflow_uri(directory: Path) -> str:
    """Return where MLflow keeps runs: as its environment says, or beside the experiments."""
    place = (directory.parent.parent / "mlflow.db").resolve()
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{place}"


def _mlflow(directory: Path, records: Sequence[Record], project: str) -> None:
    """Log ``eval-<dataset>/<metric>`` to the run that training made; what it has is left out."""
    client: Any
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise missing("mlflow", "mlflow") from error
    client = MlflowClient(mlflow_uri(directory))
    marker = directory / MLFLOW_RUN
    if not marker.exists():  # trained elsewhere, or with another logger
        found = client.get_experiment_by_name(project)
        experiment = found.experiment_id if found else client.create_experiment(project)
        run = client.create_run(experiment, run_name=directory.name)
        atomic_write(marker, f"{run.info.run_id}\n")
    run_id = marker.read_text().strip()
    for dataset, resolution, numbers in _points(records):
        for metric, value in numbers.items():
            key = f"eval-{dataset}/{metric}"
            there = {point.step: point.value for point in client.get_metric_history(run_id, key)}
            if there.get(resolution) != value:
                client.log_metric(run_id, key, value, step=resolution)


def _trackio(directory: Path, records: Sequence[Record], project: str) -> None:
    """Log a row of ``eval/*`` for each of ours, once, to the run that training made."""
    try:
        import trackio
    except ImportError as error:
        raise missing("trackio", "trackio") from error
    marker = directory / _TRACKIO_LOGGED
    had = set(marker.read_text().split()) if marker.exists() else set()
    new = {hashlib.sha256(repr(r).encode()).hexdigest(): r for r in records}
    new = {digest: row for digest, row in new.items() if digest not in had}
    if not new:
        return
    run = trackio.init(project=project, name=directory.name, resume="allow", embed=False)
    for dataset, resolution, numbers in _points(list(new.values())):
        named = {f"eval-{dataset}/{metric}": value for metric, value in numbers.items()}
        run.log(named | {"eval/resolution": resolution})
    run.finish()
    atomic_write(marker, "\n".join(sorted(had | new.keys())) + "\n")


_TRACKERS: dict[str, Callable[[Path, Sequence[Record], str], None]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "trackio": _trackio,
}


def log_curves(
    trackers: Sequence[str], directory: Path, records: Sequence[Record], project: str
) -> None:
    """Show accuracies against resolution in each tracker that can.

    Args:
        trackers: names of loggers; others are left out.
        directory: of the run, or of the evaluation.
        records: all rows of accuracy.
        project: of the runs, where a tracker has such.

    Raises:
        SemabenchError: a tracker's package is not installed.
    """
    for name in trackers:
        if name in _TRACKERS:
            _TRACKERS[name](directory, records, project)
