"""Runs of MLflow and trackio: made once, found again by later starts, and never a training's end.

TensorBoard's and these show accuracy against resolution with the pixels as the step; W&B, which
can do more, is in `wandb_log`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from semabench.errors import SemabenchError, first_line
from semabench.files import atomic_write
from semabench.results.record import Record
from semabench.results.wandb_log import METRICS

log = logging.getLogger(__name__)

# In a run's directory: which runs of the trackers are its own, and what one of them has.
MLFLOW_RUN, TRACKIO_RUN, TRACKIO_LOGGED = "mlflow_run_id", "trackio_run", "trackio_logged"
_NEEDS = {
    "tensorboard": ("torch.utils.tensorboard", "pip install tensorboard"),
    "mlflow": ("mlflow.tracking", "pip install mlflow"),
    "trackio": ("trackio", "pip install trackio, which wants Pillow below 13"),
}


def require_trackers(names: Iterable[str]) -> None:
    """Raise a SemabenchError for the first logger whose package is not installed."""
    for name in names:
        if name in _NEEDS:
            module, advice = _NEEDS[name]
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise SemabenchError(f"logger={name} needs its package: {advice}.") from error


def forget_runs(run_dir: Path) -> None:
    """Let the next start of the run have runs of its own in MLflow and trackio."""
    for name in (MLFLOW_RUN, TRACKIO_RUN, TRACKIO_LOGGED):
        (run_dir / name).unlink(missing_ok=True)


def mlflow_uri(run_dir: Path) -> str:
    """Return where MLflow keeps runs: as its environment says, or beside the experiments."""
    place = run_dir.resolve().parent.parent / "mlflow.db"
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{place}"


def join_mlflow(run_dir: Path, project: str) -> tuple[Any, str, bool]:
    """Return MLflow's client, the id of the run of this directory, and whether it is new.

    Raises:
        Exception: whatever MLflow, its database or its server raises.
    """
    from mlflow.tracking import MlflowClient

    uri, marker = mlflow_uri(run_dir), run_dir / MLFLOW_RUN
    with _alone(uri):  # two processes that make one database, or one experiment, disturb each other
        client = MlflowClient(uri)
        if marker.exists():
            run_id = marker.read_text().strip()
            with contextlib.suppress(Exception):
                client.get_run(run_id)
                return client, run_id, False
            log.warning("MLflow at %s has no run %s: it gets a new one.", uri, run_id)
        found = client.get_experiment_by_name(project)
        experiment = found.experiment_id if found else client.create_experiment(project)
        run_id = client.create_run(experiment, run_name=run_dir.name).info.run_id
        atomic_write(marker, f"{run_id}\n")
    return client, run_id, True


def _alone(uri: str) -> contextlib.AbstractContextManager[Any]:
    if not uri.startswith("sqlite:///"):
        return contextlib.nullcontext()
    path = Path(uri.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock")


def join_trackio(run_dir: Path, project: str, **more: Any) -> Any:
    """Return trackio's run of this directory; its name, unlike the directory's, is its own.

    Raises:
        Exception: whatever trackio raises.
    """
    import trackio

    marker = run_dir / TRACKIO_RUN
    if not marker.exists():
        name = f"{run_dir.resolve().parent.name}/{run_dir.name}-{secrets.token_hex(3)}"
        atomic_write(marker, f"{name}\n")
    name = marker.read_text().strip()
    return trackio.init(project=project, name=name, resume="allow", embed=False, **more)


def log_curves(
    trackers: Sequence[str], run_dir: Path, records: Sequence[Record], project: str
) -> None:
    """Show accuracies against resolution in each tracker that can; one that fails is a warning.

    Args:
        trackers: names of loggers; others are left out.
        run_dir: of the run, or of the evaluation.
        records: all rows of accuracy.
        project: of the runs, where a tracker has such.
    """
    for name in trackers:
        if name in _CURVES:
            try:
                _CURVES[name](run_dir, records, project)
            except Exception as error:  # whatever it is: the rows are safe in results.jsonl
                log.warning("%s cannot show the evaluation: %s.", name, first_line(error))


def _points(records: Sequence[Record]) -> Iterator[tuple[str, int, dict[str, float]]]:
    """Yield the dataset, with what it was told by, the pixels and the numbers of each row."""
    for record in records:
        row = record.to_dict()
        numbers = {name: row[name] for name in METRICS if row[name] is not None}
        finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
        yield f"{record.dataset}{record.told_apart}", record.resolution, finite


def _tensorboard(run_dir: Path, records: Sequence[Record], project: str) -> None:
    """Write a folder ``tensorboard/eval-<dataset>`` of events in place of the one before."""
    from torch.utils.tensorboard import SummaryWriter

    for dataset in dict.fromkeys(name for name, *_ in _points(records)):
        place = run_dir / "tensorboard" / f"eval-{dataset}"
        shutil.rmtree(place, ignore_errors=True)
        writer = SummaryWriter(str(place))
        for name, resolution, numbers in _points(records):
            for metric, value in numbers.items():
                if name == dataset:
                    writer.add_scalar(f"eval/{metric}", value, resolution)
        writer.close()


def _mlflow(run_dir: Path, records: Sequence[Record], project: str) -> None:
    """Log ``eval-<dataset>/<metric>`` to the run that training made; what it has is left out."""
    client, run_id, fresh = join_mlflow(run_dir, project)
    for dataset, resolution, numbers in _points(records):
        for metric, value in numbers.items():
            key = re.sub(r"[^\w/.\- ]", "_", f"eval-{dataset}/{metric}")
            there = {(p.step, p.value) for p in client.get_metric_history(run_id, key)}
            if (resolution, value) not in there:
                client.log_metric(run_id, key, value, step=resolution)
    if fresh:
        client.set_terminated(run_id)


def _trackio(run_dir: Path, records: Sequence[Record], project: str) -> None:
    """Log a row of ``eval-<dataset>/*`` for each of ours, once, to the run that training made."""
    marker = run_dir / TRACKIO_LOGGED
    had = set(marker.read_text().split()) if marker.exists() else set()
    digests = {hashlib.sha256(repr(record).encode()).hexdigest(): record for record in records}
    new = {digest: record for digest, record in digests.items() if digest not in had}
    if not new:
        return
    run = join_trackio(run_dir, project)
    for dataset, resolution, numbers in _points(list(new.values())):
        named = {f"eval-{dataset}/{metric}": value for metric, value in numbers.items()}
        run.log(named | {"eval/resolution": resolution})
    run.finish()
    atomic_write(marker, "\n".join(sorted(had | new.keys())) + "\n")


_CURVES: dict[str, Callable[[Path, Sequence[Record], str], None]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "trackio": _trackio,
}
