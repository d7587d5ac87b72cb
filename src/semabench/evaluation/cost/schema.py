"""The keys of `measure=cost`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from semabench.config.key import check_declared, key
from semabench.config.schema import ACCELERATORS, PIXELS, describe
from semabench.errors import SemabenchError
from semabench.evaluation.schema import beside_cases, filled_cases, require_lists

MODES = ("infer", "train")
EXPORTED = ("onnx", "aoti")  # files, by `semabench export`'s writers
EXECUTIONS = ("eager", "graph", "compiled", "compiled-graph", *EXPORTED)


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

    resolutions: list[int] | None = key(None, **PIXELS)
    batch_sizes: list[int] | None = key(None, low=1)
    modes: list[str] | None = key(None, choices=MODES)
    executions: list[str] | None = key(None, choices=EXECUTIONS)


@dataclass
class CostConfig:
    """`semabench eval measure=cost`."""

    measure: str = key("cost")
    models: list[Any] = key(
        [], "names, or {name: …, mixer: …, options: {…}, fused_attention: true}"
    )
    resolutions: list[int] = key([], needs=[beside_cases("resolutions")], **PIXELS)
    batch_sizes: list[int] = key([64], low=1, needs=[beside_cases("batch_sizes")])
    modes: list[str] = key([*MODES], choices=MODES, needs=[beside_cases("modes")])
    executions: list[str] = key(
        ["eager", "compiled"],
        "graph, compiled-graph: a step as one CUDA graph; onnx, aoti: an exported file",
        choices=EXECUTIONS,
        needs=[beside_cases("executions")],
    )
    cases: list[CostCase] = key(
        [], "in place of the product of the four above; what one leaves out is as there"
    )
    rounds: int = key(5, "timed windows of each model, all models in turn", low=1)
    min_steps: int = key(5, "of a window", low=1)
    min_seconds: float = key(0.3, "of a window", low=0)
    max_seconds: float | None = key(
        None, "no further group is begun after that; the same command goes on", low=0
    )
    patience: float = key(600, "seconds without an answer after which a process is given up", low=1)
    peers: int = key(8, "models that are measured in turn, each in processes of its own", low=1)
    accelerator: str = key("auto", "auto | cpu | gpu", choices=ACCELERATORS)
    precision: str | None = key(None, "null: bf16-mixed on a GPU, 32-true on a CPU")
    channels_last: bool = key(True)
    redo: bool = key(False, "measure again what results.jsonl already has")
    output_dir: str | None = key(None, "null: outputs/cost")


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
    return filled_cases(config, CostCase)


def check_cost(config: CostConfig) -> None:
    """Raise a SemabenchError that names the first list that is empty or cannot be used."""
    cost_models(config)
    for case in products(config):
        check_declared(case)
        require_lists(case, _EXAMPLES)


_EXAMPLES = {
    "resolutions": "[224,512]",
    "batch_sizes": "[64]",
    "modes": "[infer,train]",
    "executions": "[eager,compiled]",
}
