"""Keys that several measures have: those that name a model and its images, and cases of lists."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from semabench.config.key import Need, key
from semabench.config.schema import ACCELERATORS, PIXELS, DataConfig, ModelConfig
from semabench.errors import SemabenchError


@dataclass
class TargetConfig:
    """A checkpoint of ours, or a model with official or timm weights, and its images."""

    measure: str = key("accuracy")
    checkpoint: str | None = key(
        None, "a checkpoint, or a run directory of train.py's: its last checkpoint"
    )
    weights: str = key(
        "auto",
        "auto: the averaged weights where there are any, but of Vim's files the plain ones | "
        "model | ema",
        choices=("auto", "model", "ema"),
        needs=[
            Need(
                lambda c: bool(c.checkpoint or (c.model and c.model.checkpoint)),
                "without checkpoint=RUN or model.checkpoint=FILE, which may have several",
            )
        ],
    )
    model: ModelConfig | None = key(None, "in place of checkpoint: official or timm weights")
    data: DataConfig | None = key(None, "null: the one the checkpoint was trained on")
    resolutions: list[int] = key([], "at which to measure", **PIXELS)
    window_size: int | None = key(None, "null: as trained", low=1)
    batch_size: int = key(64, low=1)
    accelerator: str = key("auto", "auto | cpu | gpu", choices=ACCELERATORS)
    precision: str | None = key(None, "null: bf16-mixed on a GPU, 32-true on a CPU")
    channels_last: bool = key(True)
    redo: bool = key(False, "measure again what results.jsonl already has")
    output_dir: str | None = key(
        None, "null: the checkpoint's run directory, or outputs/eval/<model>"
    )


def beside_cases(name: str) -> Need:
    """Return that a list counts only where some case leaves it out."""
    return Need(
        lambda c: not c.cases or any(getattr(case, name) is None for case in c.cases),
        "beside cases, each of which has its own",
        "give cases=[...] without it",
    )


def filled_cases(config: Any, kind: type) -> list[Any]:
    """Return ``config.cases``, what each leaves out being as beside them; one case if none."""
    names = [f.name for f in fields(kind)]
    told = [[getattr(case, name) for name in names] for case in config.cases or [kind()]]
    return [
        kind(
            *(
                getattr(config, n) if own is None else own
                for n, own in zip(names, values, strict=True)
            )
        )
        for values in told
    ]


def require_lists(case: Any, examples: dict[str, str]) -> None:
    """Raise a SemabenchError that names the first list that is empty, with an example."""
    for name, example in examples.items():
        if not getattr(case, name):
            raise SemabenchError(f"no {name}: give e.g. '{name}={example}'.")
