"""One place that decides where batches come from: .beton files, or the images themselves."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semabench.config.schema import DataConfig
from semabench.data.augment.batch import PixelAugment
from semabench.data.epoch import EpochLoader, Schedule
from semabench.data.ffcv.check import require_intact
from semabench.data.ffcv.format import read_sidecar, require_holdout
from semabench.data.ffcv.loader import FFCVEvalLoader, FFCVTrainLoader, missing_ffcv
from semabench.data.folder import FolderEvalLoader, FolderTrainLoader
from semabench.data.procedural.loader import NAMES, TRAIN_SAMPLES, DiagnosticsLoader, fingerprint
from semabench.data.procedural.tasks import require_pixels, task_named
from semabench.data.sources import find_images
from semabench.errors import SemabenchError, nearest

KINDS = ("ffcv", "folder", "drawn")
MIN_RESOLUTION = 32

TrainLoader = EpochLoader
EvalLoader = EpochLoader


def create_train_loader(
    *,
    kind: str,
    packed_dir: str | Path,
    source_dir: str | Path | None,
    resolution: int,
    batch_size: int,
    seed: int,
    num_workers: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    hflip: float = 0.5,
    interpolation: str = "bicubic",
    repeats: int = 1,
    holdout: float | None = None,
    augment: PixelAugment | None = None,
    schedule: Schedule = (),
    name: str = "",
) -> TrainLoader:
    """Create the loader of a training set: random-resized-crops, flipped at random.

    Args:
        kind: "ffcv" reads ``packed_dir/train.beton``, "folder" the images in ``source_dir``.
            Where FFCV is not installed, "ffcv" warns and takes the folder if there is one.
            "drawn" draws a diagnostic task on the fly, whole: nothing is cropped or flipped.
        packed_dir: directory of the .beton files.
        source_dir: what ``find_images`` takes.
        resolution: R of the batches, in pixels, ≥ 32.
        batch_size: per rank.
        seed: of the orders and crops.
        num_workers: threads (ffcv) or processes (folder) of this rank; all its cores if not given.
        rank, world_size: which share of each global batch is ours.
        scale, ratio, hflip, interpolation: see ``FFCVTrainLoader``.
        repeats: see ``EpochLoader``.
        holdout: share of the training images that is kept for validation; see ``holdout``.
        schedule: of progressive resizing, in place of ``resolution`` from its epochs on.
        augment: what the folder loader's workers shall do; the others do none.
        name: of the task, for "drawn".

    Raises:
        SemabenchError: bad arguments, or the data are missing, unfinished or damaged.
    """
    _check_ranges(resolution, scale, ratio, hflip)
    options: dict[str, Any] = {
        "resolution": resolution,
        "batch_size": batch_size,
        "seed": seed,
        "num_workers": num_workers,
        "rank": rank,
        "world_size": world_size,
        "scale": (scale[0], scale[1]),
        "ratio": (ratio[0], ratio[1]),
        "hflip": hflip,
        "interpolation": interpolation,
        "repeats": repeats,
        "schedule": schedule,
    }
    source = resolve_source(kind, source_dir)
    if source is not None:
        return FolderTrainLoader(source, augment=augment, holdout=holdout, **options)
    if kind == "drawn" and not augment:
        return DiagnosticsLoader(
            name,
            resolution=resolution,
            train=True,
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            repeats=repeats,
            schedule=schedule,
        )
    if augment:
        raise SemabenchError("only the folder loader can augment on the CPU: set kind='folder'.")
    path = train_file(packed_dir)
    _require_file(path, f"semabench data pack {source_dir or 'SRC'} {packed_dir}")
    loader = FFCVTrainLoader(path, **options)
    require_holdout(str(path), loader.settings, holdout)
    return loader


def create_eval_loader(
    *,
    kind: str,
    packed_dir: str | Path,
    source_dir: str | Path | None,
    resolution: int,
    batch_size: int,
    num_workers: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    crop_pct: float = 0.875,
    interpolation: str = "bicubic",
    holdout: float | None = None,
    name: str = "",
) -> EvalLoader:
    """Create the loader of the validation set at one resolution, as timm's transform renders it.

    Arguments and errors as ``create_train_loader``'s; "ffcv" reads ``packed_dir/val-<R>.beton``.
    """
    _check_resolution(resolution)
    options: dict[str, Any] = {
        "resolution": resolution,
        "batch_size": batch_size,
        "num_workers": num_workers,
        "rank": rank,
        "world_size": world_size,
    }
    source = resolve_source(kind, source_dir)
    if source is not None:
        return FolderEvalLoader(
            source, crop_pct=crop_pct, interpolation=interpolation, holdout=holdout, **options
        )
    if kind == "drawn":
        del options["num_workers"]
        return DiagnosticsLoader(name, train=False, **options)
    path = eval_file(packed_dir, resolution)
    command = f"semabench data render {source_dir or 'SRC'} {packed_dir} --resolution {resolution}"
    if crop_pct != 0.875:
        command += f" --crop-pct {crop_pct}"
    if interpolation != "bicubic":
        command += f" --interpolation {interpolation}"
    _require_file(path, command)
    loader = FFCVEvalLoader(path, **options)
    for key, wanted in (("crop_pct", crop_pct), ("interpolation", interpolation)):
        if (found := loader.settings.get(key, wanted)) != wanted:
            raise SemabenchError(
                f"{path} was rendered with {key} {found}, not {wanted}: `{command} --overwrite`."
            )
    require_holdout(str(path), loader.settings, holdout)
    return loader


def train_file(packed_dir: str | Path) -> Path:
    """Return where the packed training set lies."""
    return Path(packed_dir) / "train.beton"


def eval_file(packed_dir: str | Path, resolution: int) -> Path:
    """Return where the validation set rendered at ``resolution`` lies."""
    return Path(packed_dir) / f"val-{resolution}.beton"


def resolve_source(kind: str, source_dir: str | Path | None) -> Path | None:
    """Return the folder to read images from, or ``None`` to read .beton files or to draw.

    Raises:
        SemabenchError: an unknown kind, or neither FFCV nor a folder.
    """
    if kind not in KINDS:
        raise SemabenchError(f"unknown loader '{kind}'.{nearest(kind, KINDS)}")
    if kind == "folder":
        if source_dir is None:
            raise SemabenchError("loader 'folder' needs the directory of images: set data.source.")
        return Path(source_dir)
    if kind == "drawn":
        return None
    reason = missing_ffcv()
    if reason is None:
        return None
    if source_dir is None:
        raise SemabenchError(
            f"FFCV cannot be used here ({reason}): install semabench[ffcv], or read the images "
            "themselves with data.loader=folder data.source=DIRECTORY."
        )
    warnings.warn(
        f"FFCV cannot be used here ({reason}): reading the images in {source_dir} with the "
        "slower folder loader.",
        stacklevel=3,
    )
    return Path(source_dir)


def prepare_files(packed_dir: str | Path, resolutions: list[int], train: bool = True) -> None:
    """Verify the checksums of the .beton files there are, once a machine and not once a rank.

    Files that are missing are reported where they are opened.
    """
    paths = [eval_file(packed_dir, resolution) for resolution in resolutions]
    for path in [train_file(packed_dir), *paths] if train else paths:
        if path.is_file():
            require_intact(path)


def _require_file(path: Path, command: str) -> None:
    if not path.is_file():
        raise SemabenchError(f"no file {path}: make it with `{command}`.")


def _check_resolution(resolution: int) -> None:
    if resolution < MIN_RESOLUTION:
        raise SemabenchError(f"resolution must be at least {MIN_RESOLUTION}, got {resolution}.")


def _check_ranges(
    resolution: int, scale: tuple[float, float], ratio: tuple[float, float], hflip: float
) -> None:
    _check_resolution(resolution)
    if not (len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1):
        raise SemabenchError(f"crop_scale must be two numbers, 0 < min ≤ max ≤ 1, got {scale}.")
    if not (len(ratio) == 2 and 0 < ratio[0] <= ratio[1]):
        raise SemabenchError(f"crop_ratio must be two numbers, 0 < min ≤ max, got {ratio}.")
    if not 0 <= hflip <= 1:
        raise SemabenchError(f"hflip must be a probability, got {hflip}.")


@dataclass(frozen=True)
class About:
    """The number of training images, their classes in label order, and their identity."""

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
        images = find_images(source, "train", holdout)
        return About(len(images), images.classes, images.fingerprint)
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
