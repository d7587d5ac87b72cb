"""Where batches come from: the table of loaders, by the name in ``data.loader``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from semabench.config.schema import NO_FILES, DataConfig, RecipeConfig
from semabench.data.augment.batch import PixelAugment
from semabench.data.augment.plan import parse_rand_augment
from semabench.data.epoch import Dataset, EpochLoader
from semabench.data.procedural.tasks import check_procedural
from semabench.errors import SemabenchError, nearest

#: Module and what makes its ``Dataset`` of a config; imported when it is asked for.
LOADERS = {
    "ffcv": ("semabench.data.ffcv.loader", "packed_or_folder"),
    "simplejpeg": ("semabench.data.ffcv.loader", "packed_or_folder"),
    "folder": ("semabench.data.folder", "FolderDataset"),
    "procedural": ("semabench.data.procedural.loader", "ProceduralDataset"),
    "drawn": ("semabench.data.procedural.loader", "ProceduralDataset"),  # its name before
}
MIN_RESOLUTION = 32

EvalLoader = EpochLoader


def open_dataset(config: DataConfig) -> Dataset:
    """Return the dataset as ``config.loader`` reads it.

    "ffcv" reads .beton files, by simplejpeg where FFCV is not installed; what is not packed it then
    reads in its folder, with a warning. "simplejpeg" does without FFCV in any case. "folder" reads
    the images themselves. "procedural" draws a task on the fly.

    Raises:
        SemabenchError: an unknown loader, or nothing that it could read.
    """
    _check_loader(config)
    module, name = LOADERS[config.loader]
    dataset: Dataset = getattr(import_module(module), name)(config)
    return dataset


def check_data(config: DataConfig, recipe: RecipeConfig | None = None) -> None:
    """Check what needs no file: the loader's name, and what it, and RandAugment, can do.

    Raises:
        SemabenchError: it names the first key whose value cannot be used.
    """
    _check_loader(config)
    if config.augment_on == "cpu" and config.loader != "folder":
        raise SemabenchError(
            "data.augment_on=cpu is the folder loader's: set data.loader=folder, or augment on "
            "the device."
        )
    if config.loader in NO_FILES:
        check_procedural(config)
    if recipe is not None and recipe.rand_augment is not None:
        parse_rand_augment(recipe.rand_augment)


def create_train_loader(
    config: DataConfig, *, augment: PixelAugment | None = None, **options: Any
) -> EpochLoader:
    """Create the loader of a training set: random-resized-crops, flipped at random.

    Args:
        config: which images, the loader, ``resolution``, ``crop_scale`` and ``crop_ratio`` (ranges
            of a crop's share of the area and of its width / height), ``hflip``, ``interpolation``.
        augment: what the folder loader's workers shall do; the others do none.
        options: ``batch_size`` (per rank), ``seed``, ``rank``, ``world_size``, ``repeats``,
            ``schedule``, ``mixed``, see ``EpochLoader``; ``num_workers``: threads (ffcv) or
            processes (folder) of this rank, all its cores if None.

    Raises:
        SemabenchError: bad arguments, or the data are missing, unfinished or damaged.
    """
    _check_ranges(config)
    dataset = open_dataset(config)
    if augment and not dataset.augments:
        raise SemabenchError(
            "only the folder loader can augment on the CPU: set data.loader=folder."
        )
    return dataset.train_loader(**options, **({"augment": augment} if augment else {}))


def create_eval_loader(
    config: DataConfig,
    resolution: int,
    *,
    split: str = "val",
    holdout: float | None = None,
    **options: Any,
) -> EpochLoader:
    """Create the loader of a whole split at one resolution, as timm's transform renders it.

    Args:
        config: which images, the loader, ``crop_pct`` and ``interpolation``.
        resolution: R of the batches, in pixels, ≥ 32.
        split: "val", or "train": its images in order, without augmentation.
        holdout: validate on this share of the training images instead; see ``sources``.
        options: ``batch_size``, ``rank``, ``world_size``, ``num_workers``.

    Raises as ``create_train_loader``.
    """
    _check_resolution(resolution)
    return open_dataset(config).eval_loader(resolution, split=split, holdout=holdout, **options)


def require_eval_files(config: DataConfig, resolutions: list[int], split: str = "val") -> None:
    """Check that a split has been rendered, or can be drawn, at all these resolutions.

    Raises:
        SemabenchError: it has not, and the message holds the command that does; or it cannot.
    """
    open_dataset(config).require_eval(resolutions, split)


def _check_loader(config: DataConfig) -> None:
    if config.loader not in LOADERS:
        raise SemabenchError(
            f"data.loader={config.loader} is not known.{nearest(config.loader, LOADERS)}"
        )


def _check_resolution(resolution: int) -> None:
    if resolution < MIN_RESOLUTION:
        raise SemabenchError(f"resolution must be at least {MIN_RESOLUTION}, got {resolution}.")


def _check_ranges(config: DataConfig) -> None:
    _check_resolution(config.resolution)
    scale, ratio = tuple(config.crop_scale), tuple(config.crop_ratio)
    if not (len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1):
        raise SemabenchError(f"crop_scale must be two numbers, 0 < min ≤ max ≤ 1, got {scale}.")
    if not (len(ratio) == 2 and 0 < ratio[0] <= ratio[1]):
        raise SemabenchError(f"crop_ratio must be two numbers, 0 < min ≤ max, got {ratio}.")
    if not 0 <= config.hflip <= 1:
        raise SemabenchError(f"hflip must be a probability, got {config.hflip}.")
