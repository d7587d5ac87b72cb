"""The schema of `conf/`: every key there is, its type and its meaning.

Hydra composes the YAML files; `to_config` merges the result into these dataclasses, so that an
unknown key or a wrong type fails before anything is read or written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from semabench.errors import SemabenchError, nearest

MIN_RESOLUTION = 32
_PAIRS = "recipe.resolution_schedule"  # the only list of lists: OmegaConf does not say which it was
_NO_PAIRS = f"config key '{_PAIRS}' is pairs of epoch and pixels: {_PAIRS}=[[0,128],[100,224]]."


def told(default: Any) -> Any:
    """A key that does not name a run: where, how fast, or what is only said."""
    return field(default=default, metadata={"names_run": "never"})


def later(default: Any) -> Any:
    """A key that came after the first runs: it names a run only where it is not at its default.

    So runs from before it keep their names. Every new key of a model, of data or of a recipe is
    one; tests/config/test_run_name.py notices one that is not.
    """
    return field(default=default, metadata={"names_run": "changed"})


@dataclass
class ModelConfig:
    """A model by its timm name, ours or timm's own."""

    name: str = MISSING
    mixer: str | None = None  # null: the mixer in the model's name
    drop_path_rate: float | None = None  # null: the model's default
    checkpoint: str | None = None  # an official file, or one of ours, to start from
    pretrained: bool = False  # timm's published weights
    published_recipe: str | None = told(None)  # how the published weights were trained
    compiles: bool = told(True)  # torch.compile makes its training faster, for trainer.compile=null
    fused_attention: bool | None = None  # PyTorch's, in timm's models; null: as timm chooses
    options: dict[str, Any] = field(default_factory=dict)  # to the model; nulls are left out


@dataclass
class DataConfig:
    """Where the pictures are and how they become batches."""

    name: str = MISSING
    packed: str = told(MISSING)  # directory of train.beton and val-<resolution>.beton
    source: str | None = told(None)  # train/ and val/ folders, or the ILSVRC2012 tars
    loader: str = "ffcv"  # ffcv | folder | drawn: a diagnostic task, on the fly
    resolution: int = 224  # of training, in pixels; with a resolution_schedule, of its end
    val_resolution: int | None = told(None)  # of validation during training; null: as in training
    crop_pct: float = 0.875
    interpolation: str = "bicubic"
    crop_scale: list[float] = field(default_factory=lambda: [0.08, 1.0])
    crop_ratio: list[float] = field(default_factory=lambda: [3 / 4, 4 / 3])
    hflip: float = 0.5
    num_workers: int | None = told(None)  # per process; null: the cores this process may use
    holdout: float | None = later(None)  # share of training images to validate on, not val
    augment_on: str = "device"  # device: in batches | cpu: timm's, in the folder loader's workers


@dataclass
class RecipeConfig:
    """How a model is trained. Data, not code: two runs with equal recipes are comparable."""

    name: str = MISSING
    epochs: int = 300
    warmup_epochs: float = 20
    cooldown_epochs: float = 0  # the last of the epochs, spent at min_lr
    batch_size: int = 1024  # global, over all devices
    lr: float = 1e-3
    lr_batch_size: int | None = None  # the three rates are for this batch, and scale; null: as is
    min_lr: float = 1e-5
    warmup_lr: float = 1e-6
    layer_decay: float | None = later(None)  # factor from a group of layers to the one before
    weight_decay: float = 0.05
    decay_state_matrix: bool = False  # weight decay on A_log of state spaces, too
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8
    clip_grad: float | None = 5.0  # norm
    label_smoothing: float = 0.1
    rand_augment: str | None = None  # in timm's words: rand-m9-mstd0.5-inc1; null: off
    color_jitter: float = 0.0  # of brightness, contrast, saturation; not beside rand_augment
    random_erase: float = 0.0  # probability that a rectangle becomes noise
    repeated_augmentation: int = 1  # times a picture comes in an epoch, which stays as long
    mixup: float = 0.8  # alpha; 0: off
    cutmix: float = 1.0  # alpha; 0: off
    mix_prob: float = 1.0  # that a batch is mixed at all
    mix_switch_prob: float = 0.5  # that cutmix, not mixup, mixes it (where both are on)
    ema_decay: float | None = None  # null: no averaged weights
    ema_batch_size: int | None = None  # the decay is for this batch: decay ** (batch / this)
    resolution_schedule: list[list[int]] | None = later(None)  # [[0, 128]]: from epoch, pixels
    mesa: float = 0.0  # weight of the cross-entropy with the averaged weights' predictions
    mesa_start: float = 0.25  # share of the epochs without it


@dataclass
class TrainerConfig:
    """Where and how fast a run computes.

    Precision is part of a run's identity. The number of devices is not, but it changes numbers a
    little: BatchNorm's statistics and the mixing draws are each device's own. Nor is accumulation,
    which changes less: samples, augmentation, mixing and rates stay; each part has BatchNorm
    statistics and drop-path draws of its own.
    """

    accelerator: str = "auto"  # auto | cpu | gpu
    devices: int = 1  # processes per node, one a device; more than one is started by torchrun/srun
    num_nodes: int = 1
    precision: str | None = None  # null: bf16-mixed on a GPU, 32-true on a CPU
    compile: bool | None = None  # null: on a GPU, if the model gains by it and the run is long
    compile_min_steps: int = 2000  # how long that is, in optimiser steps
    graph: bool = True  # on a GPU, record a whole step as one CUDA graph and replay it
    accumulate: int = 1  # parts in which a device takes its share of a batch, to save memory
    channels_last: bool = True
    val_every_n_epochs: int = 1
    log_every_n_steps: int = 50  # or an epoch, where that is shorter
    save_every_n_steps: int | None = None  # besides each epoch's end; null: only there
    progress_bar: bool | None = None  # null: on a terminal
    val_batch_size: int | None = None  # per device; null: as in training
    profile_steps: int | None = None  # trace so many steps with torch's profiler; null: none


@dataclass
class LoggerConfig:
    """Where metrics go besides results.jsonl."""

    name: str = "wandb"  # wandb | csv
    mode: str = "auto"  # wandb: auto | online | offline | disabled
    project: str = "semabench"


@dataclass
class TrainConfig:
    """`python train.py`."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    experiment: str = "default"
    name: str | None = None  # null: made from the config, see run_name
    seed: int = 0
    resume: str = "auto"  # auto | never | path of a checkpoint
    output_root: str = "outputs"
    evaluate_at: list[int] = field(default_factory=list)  # resolutions, once trained


@dataclass
class EvalConfig:
    """`python eval.py`: a checkpoint of ours, or a model with official or timm weights."""

    measure: str = "accuracy"  # others have schemas of their own: config_measures.SCHEMAS
    checkpoint: str | None = None  # a checkpoint or a run directory of train.py's
    weights: str = "auto"  # auto | model | ema; auto: the averaged weights where there are any
    model: ModelConfig | None = None
    data: DataConfig | None = None  # null: the one the checkpoint was trained on
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    resolutions: list[int] = field(default_factory=list)
    window_size: int | None = None  # null: as trained
    batch_size: int = 64
    accelerator: str = "auto"
    precision: str | None = None
    compile: bool = False
    channels_last: bool = True
    redo: bool = False  # measure again what results.jsonl already has
    output_dir: str | None = None  # null: the checkpoint's run directory, or outputs/eval/<model>


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


def describe(error: OmegaConfBaseException, schema: type) -> str:
    """Say in one line what OmegaConf found wrong."""
    key = str(getattr(error, "full_key", "") or "")
    reason = str(error).splitlines()[0]
    if "is not a ListConfig" in reason:
        return _NO_PAIRS if key in ("", _PAIRS) else f"config key '{key}' is a list: {key}=[...]."
    if "not in" in reason or "not found" in reason.lower():
        return unknown_key(key, known_keys(schema))
    if "missing mandatory value" in reason.lower():
        return f"config key '{key}' has no value: set {key}=..."
    return f"config key '{key}': {reason}"


def unknown_key(key: str, keys: list[str]) -> str:
    """Name the nearest valid key, or those that could stand in its place.

    >>> unknown_key("lr", ["recipe", "recipe.lr", "seed"])
    "unknown config key 'lr'. Did you mean 'recipe.lr'?"
    """
    told = f"unknown config key '{key}'."
    if key.startswith("model.options."):
        return f"{told} An option that conf/model does not list is added: +{key}=..."
    parent = key.rpartition(".")[0]
    beside = [known for known in keys if known.rpartition(".")[0] == parent]
    elsewhere = [known for known in keys if known.endswith(f".{key}")]
    for choices in (beside, elsewhere, keys):
        hint = nearest(key, choices)
        if hint.startswith(" Did you mean"):
            return told + hint
        if choices is elsewhere and len(elsewhere) == 1:
            return f"{told} Did you mean '{elsewhere[0]}'?"
    return told + nearest(key, elsewhere or beside or keys)


def known_keys(schema: type) -> list[str]:
    """All dotted keys of a schema."""
    structured = OmegaConf.structured(schema)
    for name, part in {"model": ModelConfig, "data": DataConfig}.items():
        if name in structured and structured._get_node(name)._is_none():
            structured[name] = part()
    return sorted(_dotted(structured, ""))


def _dotted(node: DictConfig, prefix: str) -> list[str]:
    keys = []
    for key in map(str, node):
        value = node._get_node(key)
        keys.append(f"{prefix}{key}")
        if isinstance(value, DictConfig) and not value._is_none():
            keys += _dotted(value, f"{prefix}{key}.")
    return keys
