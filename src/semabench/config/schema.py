"""The keys of `conf/`: each declared once, with all that follows from what it is.

Hydra composes the YAML files, which state differences from these defaults; `to_config` merges the
result into these dataclasses, so that an unknown key or a wrong type fails before anything is read
or written. `semabench config` prints them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from semabench.config.key import ABOVE_0, Need, declared, key, unknown_key
from semabench.errors import SemabenchError

MIN_RESOLUTION = 32
ACCELERATORS = ("auto", "cpu", "gpu")
PIXELS: dict[str, Any] = {"low": MIN_RESOLUTION, "unit": "pixels"}
NO_FILES = ("drawn", "procedural")  # data.loader: images that no file holds


def is_training(config: Any) -> bool:
    """Tell a training's config from those of measures."""
    return isinstance(config, TrainConfig)


def _loader(config: Any) -> str:
    return "" if config.data is None else config.data.loader


def _augments(config: Any) -> bool:
    return config.recipe.rand_augment is not None or config.recipe.color_jitter > 0


OF_TRAINING = Need(is_training, "in an evaluation (it is of training)")
VALIDATES = Need(
    lambda c: not is_training(c) or c.trainer.val_every_n_epochs <= c.recipe.epochs,
    "as no epoch is validated",
    "lower trainer.val_every_n_epochs",
)
HAS_FILES = Need(lambda c: _loader(c) not in NO_FILES, "on images that no file holds")
PACKED = Need(lambda c: _loader(c) != "folder", "beside data.loader=folder", "set data.loader=ffcv")
INTERPOLATES = Need(
    lambda c: _loader(c) not in NO_FILES or (is_training(c) and _augments(c)),
    "on images that no file holds",
)
AUGMENTS = Need(
    lambda c: not is_training(c) or _augments(c),
    "without RandAugment and colour jitter",
    "set recipe.rand_augment or recipe.color_jitter",
)
BUILT_FOR = Need(
    lambda c: is_training(c) or c.checkpoint is None,
    "beside checkpoint=..., which knows that of its training",
    "give resolutions=[...]",
)
COMPILES = Need(
    lambda c: not is_training(c) or c.trainer.compile is None,
    "beside trainer.compile=true or false",
    "set trainer.compile=null",
)


@dataclass
class ModelConfig:
    """A model by its timm name, ours or timm's own."""

    name: str = key(MISSING, "ours, or any of timm's")
    mixer: str | None = key(None, "token mixer in place of the name's own; null: that one")
    drop_path_rate: float | None = key(
        None, "null: the model's default", low=0, high=0.99, needs=[OF_TRAINING]
    )
    checkpoint: str | None = key(None, "an official file, or one of ours, to start from")
    pretrained: bool = key(False, "timm's published weights")
    published_recipe: str | None = key(
        None, "the recipe that the published weights were trained with", names_run="never"
    )
    compiles: bool = key(
        True,
        "torch.compile makes its training faster, for trainer.compile=null",
        needs=[OF_TRAINING, COMPILES],
        names_run="never",
    )
    fused_attention: bool | None = key(
        None, "PyTorch's fused attention in timm's models; null: as timm chooses"
    )
    options: dict[str, Any] = key({}, "further arguments of the model; nulls are left out")


@dataclass
class DataConfig:
    """Where the images are and how they become batches."""

    name: str = key(MISSING, "of the dataset; of a procedural task, which one")
    packed: str = key(
        MISSING,
        "directory of train.beton and val-<resolution>.beton",
        needs=[PACKED, HAS_FILES],
        names_run="never",
    )
    source: str | None = key(
        None,
        "train/ and val/ folders, or the ILSVRC2012 tars",
        needs=[HAS_FILES],
        names_run="never",
    )
    loader: str = key(
        "ffcv",
        "ffcv | simplejpeg: .beton without FFCV | folder | drawn: a procedural task, on the fly",
    )
    resolution: int = key(
        224, "of training; with a resolution_schedule, of its end", needs=[BUILT_FOR], **PIXELS
    )
    val_resolution: int | None = key(
        None,
        "of validation during training; null: as in training",
        needs=[OF_TRAINING, VALIDATES],
        names_run="never",
        **PIXELS,
    )
    crop_pct: float = key(0.875, "of the shorter side, in evaluation", low=1e-3, high=1)
    interpolation: str = key("bicubic", "of every resizing", needs=[INTERPOLATES])
    crop_scale: list[float] = key([0.08, 1.0], "share of the area of a crop", needs=[OF_TRAINING])
    crop_ratio: list[float] = key([3 / 4, 4 / 3], "width / height of a crop", needs=[OF_TRAINING])
    hflip: float = key(0.5, "probability of a horizontal flip", low=0, high=1, needs=[OF_TRAINING])
    num_workers: int | None = key(
        None,
        "per process; null: the cores this process may use",
        low=1,
        high=1024,
        names_run="never",
    )
    holdout: float | None = key(
        None,
        "share of the training images to validate on, instead of val",
        low=1e-6,
        high=0.99,
        needs=[OF_TRAINING],
        names_run="changed",
    )
    augment_on: str = key(
        "device",
        "device: in batches | cpu: timm's operations, in the folder loader's workers",
        choices=("device", "cpu"),
        needs=[OF_TRAINING, AUGMENTS],
    )


@dataclass
class RecipeConfig:
    """How a model is trained. Data, not code: two runs with equal recipes are comparable."""

    name: str = key(MISSING)
    epochs: int = key(300, low=1)
    warmup_epochs: float = key(20, "from warmup_lr to lr, linearly", low=0)
    cooldown_epochs: float = key(0, "the last of the epochs, spent at min_lr", low=0)
    batch_size: int = key(1024, "global, over all devices", low=1)
    lr: float = key(1e-3, "peak, of a cosine", low=ABOVE_0)
    schedule: str = key(
        "cosine",
        "cosine, down to min_lr at the last step; timm_step | timm_epoch: timm's, as the official "
        "loops set it, after every step or epoch",
        choices=("cosine", "timm_step", "timm_epoch"),
        names_run="changed",
    )
    warmup_prefix: bool = key(
        True,
        "the cosine begins after the warm-up; false: with it, which hides its first part",
        names_run="changed",
        needs=[
            Need(
                lambda c: c.recipe.schedule != "cosine",
                "on schedule=cosine, which begins after it",
                "set recipe.schedule=timm_step",
            )
        ],
    )
    lr_batch_size: int | None = key(
        None, "the three rates are for this batch, and scale with batch_size; null: as is", low=1
    )
    min_lr: float = key(1e-5, "at the end", low=0)
    warmup_lr: float = key(
        1e-6,
        "at the start",
        low=0,
        needs=[
            Need(
                lambda c: c.recipe.warmup_epochs > 0,
                "without a warm-up",
                "set recipe.warmup_epochs",
            )
        ],
    )
    layer_decay: float | None = key(
        None,
        "each group of layers learns by this factor less than the next one",
        low=1e-3,
        high=1,
        names_run="changed",
    )
    weight_decay: float = key(0.05, low=0)
    decay_state_matrix: bool = key(
        False,
        "weight decay on A_log of state spaces, too",
        needs=[
            Need(
                lambda c: c.recipe.weight_decay > 0,
                "without weight decay",
                "set recipe.weight_decay",
            )
        ],
    )
    betas: list[float] = key([0.9, 0.999], "of AdamW")
    eps: float = key(1e-8, "of AdamW", low=0)
    clip_grad: float | None = key(5.0, "norm; null: off", low=ABOVE_0)
    label_smoothing: float = key(0.1, low=0, high=1)
    rand_augment: str | None = key(None, "in timm's words: rand-m9-mstd0.5-inc1; null: off")
    color_jitter: float = key(
        0.0, "of brightness, contrast, saturation; not beside rand_augment", low=0
    )
    random_erase: float = key(0.0, "probability that a rectangle becomes noise", low=0, high=1)
    repeated_augmentation: int = key(
        1, "times an image comes in an epoch, which stays as long", low=1
    )
    mixup: float = key(0.8, "alpha; 0: off", low=0)
    cutmix: float = key(1.0, "alpha; 0: off", low=0)
    mix_prob: float = key(
        1.0,
        "that a batch is mixed at all",
        low=0,
        high=1,
        needs=[
            Need(
                lambda c: c.recipe.mixup > 0 or c.recipe.cutmix > 0,
                "without mixing",
                "set recipe.mixup or recipe.cutmix",
            )
        ],
    )
    mix_switch_prob: float = key(
        0.5,
        "that cutmix, not mixup, mixes it",
        low=0,
        high=1,
        needs=[
            Need(
                lambda c: c.recipe.mixup > 0 and c.recipe.cutmix > 0,
                "unless both kinds of mixing are on",
                "set recipe.mixup and recipe.cutmix",
            )
        ],
    )
    ema_decay: float | None = key(None, "null: no averaged weights", low=0, high=1)
    ema_batch_size: int | None = key(
        None,
        "the decay is for this batch: decay ** (batch / this)",
        low=1,
        needs=[
            Need(
                lambda c: c.recipe.ema_decay is not None,
                "without averaged weights",
                "set recipe.ema_decay",
            )
        ],
    )
    resolution_schedule: list[list[int]] | None = key(
        None,
        "[[0, 128], [100, 224]]: pixels from an epoch on; ends at data.resolution",
        names_run="changed",
    )
    mixed_resolutions: list[int] | None = key(
        None,
        "each batch has one of these sizes, drawn; data.resolution is one; null: all have that",
        names_run="changed",
        **PIXELS,
    )
    mesa: float = key(
        0.0, "weight of the cross-entropy with the averaged weights' predictions", low=0
    )
    mesa_start: float = key(
        0.25,
        "share of the epochs without it",
        low=0,
        high=1,
        needs=[Need(lambda c: c.recipe.mesa > 0, "without MESA", "set recipe.mesa")],
    )


@dataclass
class TrainerConfig:
    """Where and how fast a run computes.

    Precision is part of a run's identity. The number of devices is not, but it changes numbers a
    little: BatchNorm's statistics and the mixing draws are each device's own. Nor is accumulation,
    which changes less: samples, augmentation, mixing and rates stay; each micro-batch has BatchNorm
    statistics and drop-path draws of its own.
    """

    accelerator: str = key("auto", "auto | cpu | gpu", choices=ACCELERATORS)
    devices: int = key(
        1, "processes per node, one a device; more than one is started by torchrun or srun", low=1
    )
    num_nodes: int = key(1, low=1)
    precision: str | None = key(None, "null: bf16-mixed on a GPU, 32-true on a CPU")
    compile: bool | None = key(
        None, "null: on a GPU, if the model gains by it (model.compiles) and the run is long"
    )
    compile_min_steps: int = key(
        2000, "how long that is, in optimiser steps", low=0, needs=[COMPILES]
    )
    graph: bool = key(True, "on a GPU, record a whole step as one CUDA graph and replay it")
    accumulate: int = key(
        1, "micro-batches in which a device takes its share of a batch, to save memory", low=1
    )
    grad_checkpointing: bool = key(
        False, "make activations anew in the backward pass: a third more time, far less memory"
    )
    channels_last: bool = key(True)
    val_every_n_epochs: int = key(1, low=1)
    log_every_n_steps: int = key(50, "or an epoch, where that is shorter", low=1)
    save_every_n_steps: int | None = key(
        None, "besides each epoch's end; a stop by a signal saves anyway", low=1
    )
    progress_bar: bool | None = key(None, "null: on a terminal")
    val_batch_size: int | None = key(
        None, "per device; null: as in training", low=1, needs=[VALIDATES]
    )
    profile_steps: int | None = key(
        None, "trace so many steps with torch's profiler: <run>/profile/", low=1
    )


LOGGERS = ("wandb", "csv", "tensorboard", "mlflow", "trackio")


def _logs_to(config: Any, *names: str) -> bool:
    return not set(names).isdisjoint([config.logger.name, *config.logger.also])


_OF_WANDB = Need(lambda c: _logs_to(c, "wandb"), "without W&B", "set logger=wandb")
_HAS_PROJECT = Need(
    lambda c: _logs_to(c, "wandb", "mlflow", "trackio"),
    "without W&B, MLflow and trackio",
    "set logger=wandb",
)
_LOGS = Need(
    lambda c: c.logger.mode != "disabled" or _logs_to(c, "mlflow", "trackio"),
    "beside logger.mode=disabled",
    "set logger.mode=auto",
)


@dataclass
class LoggerConfig:
    """Where metrics go besides results.jsonl."""

    name: str = key(
        "wandb",
        "csv, tensorboard: folders in the run's; mlflow: beside them",
        choices=LOGGERS,
    )
    also: list[str] = key([], "more at once", choices=LOGGERS)
    mode: str = key(
        "auto",
        "wandb: online where the user is logged in (auto) | online | offline | disabled",
        choices=("auto", "online", "offline", "disabled"),
        needs=[_OF_WANDB],
    )
    artifacts: bool = key(
        False,
        "keep the last checkpoint and the results in W&B, where it is online",
        needs=[_OF_WANDB, _LOGS],
    )
    project: str = key("semabench", needs=[_HAS_PROJECT, _LOGS])


@dataclass
class TrainConfig:
    """`semabench train`, `python train.py`."""

    model: ModelConfig = key(ModelConfig)
    data: DataConfig = key(DataConfig)
    recipe: RecipeConfig = key(RecipeConfig)
    trainer: TrainerConfig = key(TrainerConfig)
    logger: LoggerConfig = key(LoggerConfig)
    experiment: str = key("default", "names the directory; experiment=NAME of conf/ sets it")
    name: str | None = key(None, "of the run; null: made from the config")
    seed: int = key(0, low=0, high=2**63 - 1)
    resume: str = key("auto", "auto | never | path of a checkpoint")
    output_root: str = key("outputs", "of <output_root>/<experiment>/<name>")
    evaluate_at: list[int] = key([], "resolutions to evaluate at, once trained", **PIXELS)
    trial: str | None = key(None, "of a search, which gives it to its jobs", names_run="never")


GROUPS: dict[str, type] = {
    "model": ModelConfig,
    "data": DataConfig,
    "recipe": RecipeConfig,
    "trainer": TrainerConfig,
    "logger": LoggerConfig,
}
"""Groups of `conf/` and what their YAML files differ from."""

ConfigT = TypeVar("ConfigT")


def to_config(composed: DictConfig, schema: type[ConfigT]) -> ConfigT:
    """Validate a composed config against its schema.

    Raises:
        SemabenchError: an unknown key (the nearest valid one is named), a missing value, or a
            value of the wrong type.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), composed)
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise SemabenchError(describe(error, schema)) from error
    assert isinstance(config, schema)
    return config


_PAIRS = "recipe.resolution_schedule"  # the only list of lists: OmegaConf does not say which it was
_NO_PAIRS = f"config key '{_PAIRS}' is pairs of epoch and pixels: {_PAIRS}=[[0,128],[100,224]]."


def describe(error: OmegaConfBaseException, schema: type) -> str:
    """Say in one line what OmegaConf found wrong."""
    name = str(getattr(error, "full_key", "") or "")
    reason = str(error).splitlines()[0]
    if "is not a ListConfig" in reason:
        return (
            _NO_PAIRS if name in ("", _PAIRS) else f"config key '{name}' is a list: {name}=[...]."
        )
    if isinstance(error, InterpolationKeyError):
        return f"config key '{name}': {reason}; ${{...}} takes the value of another key."
    if "not in" in reason or "not found" in reason.lower():
        return unknown_key(name, known_keys(schema))
    if "missing mandatory value" in reason.lower():
        return f"config key '{name}' has no value: set {name}=..."
    return f"config key '{name}': {reason}"


def known_keys(schema: type) -> list[str]:
    """Return all dotted keys of a schema."""
    return sorted(one.name for one in declared(schema))
