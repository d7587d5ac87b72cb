"""Accuracy against resolution for TensorBoard, whose horizontal axis is then the pixels."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from semabench.errors import SemabenchError
from semabench.results.record import Record
from semabench.results.wandb_log import METRICS


def log_curves(directory: Path, records: Sequence[Record]) -> None:
    """Write ``eval/*`` of all rows, a curve for each dataset; it takes the place of older ones.

    Args:
        directory: of the run's events; each dataset has a folder ``eval-<dataset>`` in it.
        records: rows of accuracy.

    Raises:
        SemabenchError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise SemabenchError(
            "logger=tensorboard needs TensorBoard: pip install tensorboard."
        ) from error
    for dataset in dict.fromkeys(record.dataset for record in records):
        place = directory / f"eval-{dataset}"
        shutil.rmtree(place, ignore_errors=True)
        writer = SummaryWriter(str(place))
        for record in records:
            row = record.to_dict()
            for name in METRICS:
                if record.dataset == dataset and row[name] is not None:
                    writer.add_scalar(f"eval/{name}", row[name], record.resolution)
        writer.close()
