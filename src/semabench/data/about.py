"""What a training set is, read without opening its pixels."""

from __future__ import annotations

from dataclasses import dataclass

from semabench.config.schema import DataConfig
from semabench.data.diagnostics.loader import NAMES, TRAIN_SAMPLES, fingerprint
from semabench.data.diagnostics.tasks import require_pixels, task_named
from semabench.data.holdout import require_holdout
from semabench.data.loaders import eval_file, resolve_source, train_file
from semabench.data.sidecar import read_sidecar
from semabench.data.sources import find_pictures
from semabench.errors import SemabenchError


@dataclass(frozen=True)
class About:
    """The number of training pictures, their classes in label order, and their identity."""

    samples: int
    classes: list[str]
    fingerprint: str


def describe_training_set(
    kind: str,
    packed_dir: str,
    source_dir: str | None,
    holdout: float | None = None,
    name: str = "",
) -> About:
    """Describe the training set that ``create_train_loader`` would open.

    Raises:
        SemabenchError: it is missing or was never finished.
    """
    source = resolve_source(kind, source_dir)
    if source is not None:
        pictures = find_pictures(source, "train", holdout)
        return About(len(pictures), pictures.classes, pictures.fingerprint)
    if kind == "drawn":
        return About(TRAIN_SAMPLES, NAMES, fingerprint(task_named(name), train=True))
    path = train_file(packed_dir)
    if not path.is_file():
        raise SemabenchError(
            f"no file {path}: make it with `semabench data pack {source_dir or 'SRC'} "
            f"{packed_dir}`."
        )
    sidecar = read_sidecar(path)
    require_holdout(str(path), sidecar.settings, holdout)
    return About(sidecar.samples, sidecar.classes, sidecar.fingerprint)


def require_eval_files(config: DataConfig, resolutions: list[int]) -> None:
    """Check that the validation set has been rendered, or can be drawn, at all these resolutions.

    Raises:
        SemabenchError: it has not, and the message holds the command that does; or it cannot.
    """
    if config.loader == "drawn":
        for resolution in resolutions:
            require_pixels(task_named(config.name), resolution)
    if config.loader != "ffcv" or resolve_source(config.loader, config.source) is not None:
        return
    missing = [str(r) for r in resolutions if not eval_file(config.packed, r).is_file()]
    if missing:
        options = f" --crop-pct {config.crop_pct}" if config.crop_pct != 0.875 else ""
        raise SemabenchError(
            f"{config.name} is not rendered at {', '.join(missing)} px: `semabench data render "
            f"{config.source or 'SRC'} {config.packed} --resolution {' '.join(missing)}{options}`."
        )
