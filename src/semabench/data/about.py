"""What a training set is, read without opening its pixels."""

from __future__ import annotations

from dataclasses import dataclass

from semabench.data.loaders import resolve_source, train_file
from semabench.data.sidecar import read_sidecar
from semabench.data.sources import find_pictures
from semabench.errors import SemabenchError


@dataclass(frozen=True)
class About:
    """The number of training pictures, their classes in label order, and their identity."""

    samples: int
    classes: list[str]
    fingerprint: str


def describe_training_set(kind: str, packed_dir: str, source_dir: str | None) -> About:
    """Describe the training set that ``create_train_loader`` would open.

    Raises:
        SemabenchError: it is missing or was never finished.
    """
    source = resolve_source(kind, source_dir)
    if source is not None:
        pictures = find_pictures(source, "train")
        return About(len(pictures), pictures.classes, pictures.fingerprint)
    path = train_file(packed_dir)
    if not path.is_file():
        raise SemabenchError(
            f"no file {path}: make it with `semabench data pack {source_dir or 'SRC'} "
            f"{packed_dir}`."
        )
    sidecar = read_sidecar(path)
    return About(sidecar.samples, sidecar.classes, sidecar.fingerprint)
