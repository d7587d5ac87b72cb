"""The schema of `eval.py measure=study`, and what its values must be beyond their types."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from semabench.data.procedural.tasks import CELL, PAIRS, TASKS, smallest_size, task_named
from semabench.errors import SemabenchError, nearest

READOUTS = ("query", "attention", "avg")
PICTURES = ("test", "calibration")
ACCELERATORS = ("auto", "cpu", "gpu")


@dataclass
class StudyCase:
    """One product of trainings; null: the value of the same name beside `cases`."""

    train_resolutions: list[int] | None = None
    resolutions: list[int] | None = None
    tasks: list[str] | None = None
    mixers: list[str] | None = None
    seeds: list[int] | None = None
    readout: str | None = None
    depth: int | None = None
    steps: dict[str, int] | None = None
    batch_size: int | None = None
    lr: float | None = None


@dataclass
class StudyConfig:
    """`python eval.py measure=study`: train each mixer on each diagnostic task, test on sizes."""

    measure: str = "study"
    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    mixers: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    train_resolutions: list[int] = field(default_factory=list)  # in turn, in one training
    resolutions: list[int] = field(default_factory=list)  # of the tests
    pairs: list[int] = field(default_factory=lambda: list(PAIRS))  # m of recall: trained on all
    cases: list[StudyCase] = field(default_factory=list)  # in place of the product of the above
    # The model.
    depth: int = 1  # blocks
    embed_dim: int = 64
    num_heads: int = 2
    readout: str = "query"  # query | attention | avg
    # The recipe, one for all.
    steps: dict[str, int] = field(default_factory=dict)  # of each task
    batch_size: int = 128
    lr: float = 3e-3
    warmup_steps: int = 200
    weight_decay: float = 0.0
    clip_grad: float = 1.0  # norm
    # The test.
    samples: int = 512  # of each resolution and m
    pictures: str = "test"  # test | calibration: what settings are chosen on, never reported
    # How it runs.
    workers: int | None = None  # processes; null: 4 on a GPU, 1 on a CPU
    max_seconds: float | None = None  # no further training is begun after that
    patience: float = 600  # seconds without an answer after which a process is given up
    accelerator: str = "auto"
    precision: str | None = None  # null: 32-true, with TF32 products in a GPU's training steps
    channels_last: bool = True
    redo: bool = False  # train again what results.jsonl already has
    output_dir: str | None = None  # null: outputs/study


_OF_A_CASE = tuple(StudyCase.__dataclass_fields__)


def study_cases(config: StudyConfig) -> list[StudyCase]:
    """Return the cases, every value filled in; the one product of the lists where none is given."""
    filled = []
    for case in config.cases or [StudyCase()]:
        own = {name: getattr(case, name) for name in _OF_A_CASE}
        told = {k: getattr(config, k) if v is None else v for k, v in own.items()}
        filled.append(StudyCase(**told))
    return filled


def check_study(config: StudyConfig) -> None:
    """Raise a SemabenchError that names the first key whose value cannot be used."""
    from semabench.mixers import list_mixers

    _among("accelerator", [config.accelerator], ACCELERATORS)
    _among("pictures", [config.pictures], PICTURES)
    for key, low in _LEAST.items():
        value = getattr(config, key)
        if value is not None and not (value >= low and math.isfinite(value)):
            raise SemabenchError(f"{key} must be at least {low:g}, not {value}.")
    if not 0 < config.clip_grad < math.inf:
        raise SemabenchError(f"clip_grad must be above 0 and finite, not {config.clip_grad}.")
    if config.precision not in (None, "32-true") or not config.channels_last:
        raise SemabenchError(
            "a study computes in 32-true on channels-last pictures: leave precision and "
            "channels_last out."
        )
    if config.embed_dim % config.num_heads or config.embed_dim // config.num_heads % 4:
        raise SemabenchError(
            f"embed_dim={config.embed_dim} must be num_heads={config.num_heads} times a multiple "
            "of 4."
        )
    for case in study_cases(config):
        for key in ("tasks", "mixers", "seeds", "train_resolutions", "resolutions"):
            if not getattr(case, key):
                raise SemabenchError(f"no {key}: give e.g. '{key}={_EXAMPLES[key]}'.")
        _among("tasks", case.tasks or (), TASKS)
        _among("mixers", case.mixers or (), list_mixers())
        _among("readout", [str(case.readout)], READOUTS)
        _check_case(config, case)


def _check_case(config: StudyConfig, case: StudyCase) -> None:
    for key in ("depth", "batch_size"):
        if getattr(case, key) < 1:
            raise SemabenchError(f"{key} must be at least 1, not {getattr(case, key)}.")
    steps = case.steps or {}
    _among("steps", list(steps), TASKS)
    for name in case.tasks or ():
        if steps.get(name, 0) < 1:
            raise SemabenchError(f"steps.{name} must be at least 1, not {steps.get(name)}.")
    if not 0 < (case.lr or 0) < math.inf:
        raise SemabenchError(f"lr must be above 0 and finite, not {case.lr}.")
    for seed in case.seeds or ():
        if not 0 <= seed < 2**63:
            raise SemabenchError(f"seeds must be at least 0 and below 2^63, not {seed}.")
    for name in case.tasks or ():
        task = task_named(name, clear=clear_of(case), pairs=tuple(config.pairs))
        least = smallest_size(task) * CELL
        for key in ("train_resolutions", "resolutions"):
            for value in getattr(case, key):
                if value % CELL or value < least:
                    raise SemabenchError(
                        f"{key} of {name} must be multiples of {CELL} and at least {least} pixels, "
                        f"not {value}."
                    )


def clear_of(case: StudyCase) -> int:
    """Return how many cells around the query are blank: what the convolutions reach."""
    assert case.depth is not None
    return 3 * case.depth


_LEAST: dict[str, float] = {
    "warmup_steps": 0,
    "weight_decay": 0,
    "samples": 1,
    "workers": 1,
    "max_seconds": 0,
    "patience": 1,
    "embed_dim": 1,
    "num_heads": 1,
}
_EXAMPLES: dict[str, Any] = {
    "tasks": "[needle,recall]",
    "mixers": "[sema,softmax]",
    "seeds": "[0,1,2]",
    "train_resolutions": "[96,128]",
    "resolutions": "[128,256]",
}


def _among(key: str, values: Sequence[str], choices: Sequence[str]) -> None:
    for value in values:
        if value not in choices:
            raise SemabenchError(f"{key}: '{value}' is not known.{nearest(value, choices)}")
