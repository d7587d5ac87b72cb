"""The schema of `eval.py measure=cost`, and what its values must be beyond their types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from semabench.config.schema import MIN_RESOLUTION, describe
from semabench.errors import SemabenchError, nearest

MODES = ("infer", "train")
EXECUTIONS = ("eager", "compiled")
ACCELERATORS = ("auto", "cpu", "gpu")


@dataclass
class CostModel:
    """One model of `models`; a plain name stands for itself with all defaults."""

    name: str = MISSING  # ours or timm's
    mixer: str | None = None  # null: the mixer in the model's name
    options: dict[str, Any] = field(default_factory=dict)  # to the model; nulls are left out
    fused_attention: bool | None = None  # of timm's models; null: as TIMM_FUSED_ATTN says


@dataclass
class CostCase:
    """One product of conditions; null: the list of the same name beside `cases`."""

    resolutions: list[int] | None = None
    batch_sizes: list[int] | None = None
    modes: list[str] | None = None
    executions: list[str] | None = None


@dataclass
class CostConfig:
    """`python eval.py measure=cost`."""

    measure: str = "cost"
    models: list[Any] = field(default_factory=list)  # names, or mappings as of CostModel
    resolutions: list[int] = field(default_factory=list)
    batch_sizes: list[int] = field(default_factory=lambda: [64])
    modes: list[str] = field(default_factory=lambda: list(MODES))
    executions: list[str] = field(default_factory=lambda: list(EXECUTIONS))
    cases: list[CostCase] = field(default_factory=list)  # in place of the product of the above
    rounds: int = 5  # timed windows of each model, peers in turn
    min_steps: int = 5  # of a window
    min_seconds: float = 0.3  # of a window
    max_seconds: float | None = None  # no further group is begun after that
    patience: float = 600  # seconds without an answer after which a process is given up
    peers: int = 8  # models that are measured in turn, each in processes of its own
    accelerator: str = "auto"
    precision: str | None = None  # null: bf16-mixed on a GPU, 32-true on a CPU
    channels_last: bool = True
    redo: bool = False  # measure again what results.jsonl already has
    output_dir: str | None = None  # null: outputs/cost


def cost_models(config: CostConfig) -> list[CostModel]:
    """Return the entries of `models` as objects, in their order, each once.

    Raises:
        SemabenchError: none, an unknown key, or a value of the wrong type.
    """
    if not config.models:
        raise SemabenchError("no models: give e.g. 'models=[sema_tiny,mila_tiny]'.")
    models: list[CostModel] = []
    for entry in config.models:
        told = {"name": entry} if isinstance(entry, str) else entry
        if not isinstance(told, dict):
            raise SemabenchError(f"models: {entry!r} is neither a name nor {{name: ..., ...}}.")
        try:
            merged = OmegaConf.merge(OmegaConf.structured(CostModel), told)
            model = OmegaConf.to_object(merged)
        except OmegaConfBaseException as error:
            raise SemabenchError(f"models: {describe(error, CostModel)}") from error
        assert isinstance(model, CostModel)
        if model not in models:
            models.append(model)
    return models


def products(config: CostConfig) -> list[CostCase]:
    """Return the cases, every list filled in; the one product of the lists where none is given."""
    return [
        CostCase(
            **{
                name: getattr(config, name) if getattr(case, name) is None else getattr(case, name)
                for name in ("resolutions", "batch_sizes", "modes", "executions")
            }
        )
        for case in config.cases or [CostCase()]
    ]


def check_cost(config: CostConfig) -> None:
    """Raise a SemabenchError that names the first key whose value cannot be used."""
    cost_models(config)
    for case in products(config):
        for name in ("resolutions", "batch_sizes", "modes", "executions"):
            if not getattr(case, name):
                raise SemabenchError(f"no {name}: give e.g. '{name}={_EXAMPLES[name]}'.")
        _at_least("resolutions", case.resolutions or (), MIN_RESOLUTION)
        _at_least("batch_sizes", case.batch_sizes or (), 1)
        _among("modes", case.modes or (), MODES)
        _among("executions", case.executions or (), EXECUTIONS)
    _among("accelerator", [config.accelerator], ACCELERATORS)
    for name, low in (
        ("rounds", 1),
        ("min_steps", 1),
        ("min_seconds", 0),
        ("patience", 1),
        ("peers", 1),
    ):
        _at_least(name, [getattr(config, name)], low)
    _at_least("max_seconds", [] if config.max_seconds is None else [config.max_seconds], 0)


_EXAMPLES = {
    "resolutions": "[224,512]",
    "batch_sizes": "[64]",
    "modes": "[infer,train]",
    "executions": "[eager,compiled]",
}


def _at_least(key: str, values: Sequence[float], low: int) -> None:
    for value in values:
        if value < low:
            unit = " pixels" if key == "resolutions" else ""
            raise SemabenchError(f"{key} must be at least {low}{unit}, not {value}.")


def _among(key: str, values: Sequence[str], choices: tuple[str, ...]) -> None:
    for value in values:
        if value not in choices:
            raise SemabenchError(f"{key}: '{value}' is not known.{nearest(value, choices)}")
