"""The schema of `eval.py measure=dispersion`, and what its values must be beyond their types."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from semabench.config.check import check_model_and_data
from semabench.config.schema import MIN_RESOLUTION, DataConfig, EvalConfig, ModelConfig
from semabench.errors import SemabenchError, nearest

KERNELS = ("softmax", "linear", "focused", "mila", "window")
VALUES = ("independent", "keys")
ACCELERATORS = ("auto", "cpu", "gpu")
_MIN_TOKENS = 4


@dataclass
class DispersionConfig:
    """`python eval.py measure=dispersion`: on random inputs, or with a model on its pictures."""

    measure: str = "dispersion"
    # On random inputs.
    kernels: list[str] = field(default_factory=lambda: list(KERNELS))
    tokens: list[int] = field(default_factory=list)  # n, squares: a grid of √n × √n
    dim: int = 32  # channels of a head
    bound: float = 1.0  # q and k are uniform in [-bound, bound]
    values: str = "independent"  # v, uniform in [0, 1] | keys: v = (1 + k / bound) / 2
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    # With a model.
    checkpoint: str | None = None  # a checkpoint or a run directory of train.py's
    weights: str = "auto"  # auto | model | ema
    model: ModelConfig | None = None  # in place of checkpoint: official or timm weights
    data: DataConfig | None = None  # null: the one the checkpoint was trained on
    resolutions: list[int] = field(default_factory=list)
    pictures: int = 32  # of the validation set, the first
    batch_size: int = 8
    precision: str | None = None  # null: bf16-mixed on a GPU, 32-true on a CPU
    channels_last: bool = True
    # With either.
    queries: int = 256  # sampled, of each grid; all where it has fewer
    window_size: int | None = None  # null: 7, or as trained
    accelerator: str = "auto"
    redo: bool = False  # measure again what results.jsonl already has
    output_dir: str | None = None  # null: <run>/dispersion, or outputs/dispersion/<model or random>

    @property
    def random(self) -> bool:
        """Whether the inputs are random: no model is named."""
        return self.checkpoint is None and self.model is None


def check_dispersion(config: DispersionConfig) -> None:
    """Raise a SemabenchError that names the first key whose value cannot be used."""
    _among("accelerator", [config.accelerator], ACCELERATORS)
    for key in ("queries", "pictures", "batch_size", "dim", "window_size"):
        value = getattr(config, key)
        if value is not None and value < 1:
            raise SemabenchError(f"{key} must be at least 1, not {value}.")
    if config.random:
        _check_random(config)
        return
    _among("weights", [config.weights], ("auto", "model", "ema"))
    check_model_and_data(config.model, config.data)
    if not config.resolutions:
        raise SemabenchError(
            "no resolutions (with a model they stand in for tokens): give e.g. "
            "'resolutions=[128,160,224]'."
        )
    for value in config.resolutions:
        if value < MIN_RESOLUTION:
            raise SemabenchError(
                f"resolutions must be at least {MIN_RESOLUTION} pixels, not {value}."
            )


def _check_random(config: DispersionConfig) -> None:
    if config.resolutions:
        raise SemabenchError(
            "resolutions are those of a model's pictures: give checkpoint=RUN, too, or "
            "'tokens=[49,196]' for random inputs."
        )
    for key in ("kernels", "tokens", "seeds"):
        if not getattr(config, key):
            raise SemabenchError(f"no {key}: give e.g. '{key}={_EXAMPLES[key]}'.")
    _among("kernels", config.kernels, KERNELS)
    _among("values", [config.values], VALUES)
    for n in config.tokens:
        side = math.isqrt(max(n, 0))
        if n < _MIN_TOKENS or side * side != n:
            close = max(2, round(max(n, 0) ** 0.5)) ** 2
            raise SemabenchError(
                f"tokens must be squares of at least {_MIN_TOKENS}, not {n}: {close} is near."
            )
    if not 0 < config.bound < math.inf:
        raise SemabenchError(f"bound must be above 0 and finite, not {config.bound}.")
    if config.dim % 4:
        raise SemabenchError(f"dim must be a multiple of 4, for MILA's RoPE, not {config.dim}.")
    for seed in config.seeds:
        if seed < 0:
            raise SemabenchError(f"seeds must be at least 0, not {seed}.")
    if config.precision not in (None, "64-true"):
        raise SemabenchError("random inputs are measured in 64-true: leave precision out.")


_EXAMPLES = {"kernels": "[softmax,window]", "tokens": "[49,196,784]", "seeds": "[0,1,2]"}


def as_evaluation(config: DispersionConfig) -> EvalConfig:
    """Return what names the model and its pictures, as an evaluation of accuracy would."""
    return EvalConfig(
        checkpoint=config.checkpoint,
        weights=config.weights,
        model=config.model,
        data=config.data,
        resolutions=config.resolutions,
        window_size=config.window_size,
        batch_size=config.batch_size,
    )


def _among(key: str, values: Iterable[str], choices: tuple[str, ...]) -> None:
    for value in values:
        if value not in choices:
            raise SemabenchError(f"{key}: '{value}' is not known.{nearest(value, choices)}")
