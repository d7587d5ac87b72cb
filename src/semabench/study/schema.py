"""The keys of `measure=study`: train each mixer on each procedural task, test it on other sizes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from semabench.config.key import ABOVE_0, Need, check_declared, key
from semabench.config.schema import ACCELERATORS
from semabench.data.procedural.tasks import CELL, PAIRS, TASKS, smallest_size, task_named
from semabench.errors import SemabenchError, nearest
from semabench.evaluation.schema import beside_cases, filled_cases, require_lists

READOUTS = ("query", "attention", "avg")


@dataclass
class StudyCase:
    """One product of trainings; null: the value of the same name beside `cases`."""

    train_resolutions: list[int] | None = key(None)
    resolutions: list[int] | None = key(None)
    tasks: list[str] | None = key(None, choices=TASKS)
    mixers: list[str] | None = key(None)
    seeds: list[int] | None = key(None, low=0, high=2**63 - 1)
    readout: str | None = key(None, choices=READOUTS)
    depth: int | None = key(None, low=1)
    steps: dict[str, int] | None = key(None)
    batch_size: int | None = key(None, low=1)
    lr: float | None = key(None, low=ABOVE_0)


def _asked(config: StudyConfig, name: str) -> set[Any]:
    return {value for case in study_cases(config) for value in getattr(case, name) or ()}


def _has_heads(config: StudyConfig) -> bool:
    from semabench.mixers import headless_mixers

    return not _asked(config, "mixers") <= set(headless_mixers())


@dataclass
class StudyConfig:
    """`semabench eval measure=study`."""

    measure: str = key("study")
    tasks: list[str] = key([*TASKS], choices=TASKS, needs=[beside_cases("tasks")])
    mixers: list[str] = key([], "by name", needs=[beside_cases("mixers")])
    seeds: list[int] = key([0, 1, 2], low=0, high=2**63 - 1, needs=[beside_cases("seeds")])
    train_resolutions: list[int] = key(
        [],
        "in turn within one training; a token is 8 px wide",
        unit="pixels",
        needs=[beside_cases("train_resolutions")],
    )
    resolutions: list[int] = key(
        [], "of the tests", unit="pixels", needs=[beside_cases("resolutions")]
    )
    pairs: list[int] = key(
        [*PAIRS],
        "m of recall: trained on all, tested on each",
        needs=[Need(lambda c: "recall" in _asked(c, "tasks"), "without recall", "add it to tasks")],
    )
    cases: list[StudyCase] = key(
        [], "{train_resolutions, tasks, mixers, readout, …}; what one leaves out is as beside it"
    )
    depth: int = key(1, "blocks", low=1, needs=[beside_cases("depth")])
    embed_dim: int = key(64, "channels", low=1)
    num_heads: int = key(
        2, low=1, needs=[Need(_has_heads, "on mixers without heads", "add one that has some")]
    )
    readout: str = key(
        "query",
        "query: at the token that asks | attention: pooled by it | avg: by the mean",
        choices=READOUTS,
        needs=[beside_cases("readout")],
    )
    steps: dict[str, int] = key(
        {},
        "of each task's training",
        needs=[beside_cases("steps")],
        each=lambda task: Need(
            lambda c: task in _asked(c, "tasks"), f"without {task}", "add it to tasks"
        ),
    )
    batch_size: int = key(128, low=1, needs=[beside_cases("batch_size")])
    lr: float = key(3e-3, "of AdamW, a cosine", low=ABOVE_0, needs=[beside_cases("lr")])
    warmup_steps: int = key(200, low=0)
    weight_decay: float = key(0.0, low=0)
    clip_grad: float = key(1.0, "norm", low=ABOVE_0)
    samples: int = key(
        512, "tested on, of each resolution and m, the same for all mixers and seeds", low=1
    )
    test_on: str = key(
        "test",
        "test | calibration: what settings are chosen on, never reported",
        choices=("test", "calibration"),
    )
    workers: int | None = key(None, "processes; null: 4 on a GPU, 1 on a CPU", low=1)
    max_seconds: float | None = key(
        None, "no further training is begun after that; the same command goes on", low=0
    )
    patience: float = key(600, "seconds without an answer after which a process is given up", low=1)
    accelerator: str = key("auto", "auto | cpu | gpu", choices=ACCELERATORS)
    precision: str | None = key(None, "null: 32-true, with TF32 products in a GPU's training steps")
    channels_last: bool = key(True)
    redo: bool = key(False, "train again what results.jsonl already has")
    output_dir: str | None = key(None, "null: outputs/study")


def study_cases(config: StudyConfig) -> list[StudyCase]:
    """Return the cases, every value filled in; the one product of the lists where none is given."""
    return filled_cases(config, StudyCase)


def check_study(config: StudyConfig) -> None:
    """Raise a SemabenchError that names the first key that does not fit the others."""
    from semabench.mixers import list_mixers

    if config.precision not in (None, "32-true") or not config.channels_last:
        raise SemabenchError(
            "a study computes in 32-true on channels-last images: leave precision and "
            "channels_last out."
        )
    if config.embed_dim % config.num_heads or config.embed_dim // config.num_heads % 4:
        raise SemabenchError(
            f"embed_dim={config.embed_dim} must be num_heads={config.num_heads} times a multiple "
            "of 4."
        )
    for case in study_cases(config):
        require_lists(case, _EXAMPLES)
        check_declared(case)
        _among("mixers", case.mixers or (), list_mixers())
        _check_case(config, case)


def _check_case(config: StudyConfig, case: StudyCase) -> None:
    steps = case.steps or {}
    _among("steps", steps, TASKS)
    for name in case.tasks or ():
        if steps.get(name, 0) < 1:
            raise SemabenchError(f"steps.{name} must be at least 1, not {steps.get(name)}.")
        task = task_named(name, clear=clear_of(case), pairs=tuple(config.pairs))
        least = smallest_size(task) * CELL
        for name_ in ("train_resolutions", "resolutions"):
            for value in getattr(case, name_):
                if value % CELL or value < least:
                    raise SemabenchError(
                        f"{name_} of {name} must be multiples of {CELL} and at least {least} "
                        f"pixels, not {value}."
                    )


def _among(name: str, values: Iterable[str], choices: Iterable[str]) -> None:
    for value in values:
        if value not in choices:
            raise SemabenchError(f"{name}={value} is not known.{nearest(value, choices)}")


def clear_of(case: StudyCase) -> int:
    """Return how many cells around the query are blank: what the convolutions reach."""
    assert case.depth is not None
    return 3 * case.depth


_EXAMPLES: dict[str, str] = {
    "tasks": "[needle,recall]",
    "mixers": "[sema,softmax]",
    "seeds": "[0,1,2]",
    "train_resolutions": "[96,128]",
    "resolutions": "[128,256]",
}
