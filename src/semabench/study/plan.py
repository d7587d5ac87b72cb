"""What is to be trained and tested: trainings, and the rows that each will give."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from semabench.data.procedural.tasks import CELL, CLASSES, Task, task_named
from semabench.models import backend_name, build_model
from semabench.models.flops import count_parameters
from semabench.results.record import Record, git_commit, software_versions
from semabench.study.schema import StudyCase, StudyConfig, clear_of, study_cases
from semabench.training.device import device_label

TEST_SEED = 0  # of the pictures tested on: the same for all mixers and seeds


MODEL = "probe_nano"


@dataclass(frozen=True)
class Recipe:
    """How long and how a training learns."""

    steps: int
    batch_size: int
    lr: float
    warmup_steps: int
    weight_decay: float
    clip_grad: float


@dataclass(frozen=True)
class Training:
    """One training, and all that its weights depend on but for device and versions."""

    task: str
    clear: int
    pairs: tuple[int, ...]
    mixer: str
    seed: int
    train_resolutions: tuple[int, ...]
    readout: str
    depth: int
    embed_dim: int
    num_heads: int
    recipe: Recipe

    @property
    def config(self) -> str:
        """Six hex digits that name its settings but for task, mixer and seed."""
        told = asdict(self)
        for name in ("task", "mixer", "seed", "clear"):
            del told[name]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:6]

    @property
    def title(self) -> str:
        """Name it on a screen."""
        sizes = ",".join(map(str, self.train_resolutions))
        extra = "" if self.readout == "query" else f", {self.readout}"
        extra += "" if self.depth == 1 else f", {self.depth} blocks"
        return f"{self.task} {self.mixer}, {sizes} px{extra}, seed {self.seed}"

    def drawn(self, pairs: int | None = None) -> Task:
        """Return its task, of recall with one m alone if that is given."""
        if self.task != "recall":
            return task_named(self.task, clear=self.clear)
        choices = self.pairs if pairs is None else (pairs,)
        return task_named(self.task, clear=self.clear, pairs=choices)


def build_probe(training: Training) -> nn.Module:
    """Build the model of a training, its weights drawn from the seed, on the CPU."""
    torch.manual_seed(training.seed)
    return build_model(
        MODEL,
        num_classes=CLASSES,
        resolution=training.train_resolutions[0],
        mixer=training.mixer,
        options={
            "global_pool": training.readout,
            "depth": training.depth,
            "embed_dim": training.embed_dim,
            "num_heads": training.num_heads,
        },
    )


@dataclass(frozen=True)
class Job:
    """One training and the rows that are asked of it, without their numbers.

    Attributes:
        test_on: images to test on, "test" or "calibration".
    """

    training: Training
    rows: tuple[Record, ...]
    test_on: str

    def without(self, stored: set[tuple[object, ...]]) -> Job:
        """Return what is left of it once the rows of these keys are stored."""
        return replace(self, rows=tuple(row for row in self.rows if row.key not in stored))


def plan_jobs(config: StudyConfig, device: torch.device) -> list[Job]:
    """Return what is to be done: cases in their order, in each all tasks and mixers of a seed.

    So a study that is cut short leaves whole comparisons, of fewer seeds.
    """
    probes: dict[tuple[object, ...], dict[str, Any]] = {}
    jobs: dict[Training, dict[tuple[object, ...], Record]] = {}
    for case in study_cases(config):
        for seed in case.seeds or ():
            for task in case.tasks or ():
                for mixer in case.mixers or ():
                    training = _training(config, case, task, mixer, seed)
                    kind = (mixer, training.depth, training.readout)
                    if kind not in probes:
                        model = build_probe(training)
                        probes[kind] = {
                            "params": count_parameters(model),
                            "backend": backend_name(model, device),
                        }
                    rows = jobs.setdefault(training, {})
                    for row in _rows(config, case, training):
                        known = replace(row, device=device_label(device), **probes[kind])
                        rows.setdefault(known.key, known)
    return [Job(training, tuple(rows.values()), config.test_on) for training, rows in jobs.items()]


def _training(config: StudyConfig, case: StudyCase, task: str, mixer: str, seed: int) -> Training:
    assert case.steps is not None
    assert case.batch_size is not None
    assert case.depth is not None
    assert case.lr is not None
    return Training(
        task=task,
        clear=clear_of(case),
        pairs=tuple(config.pairs) if task == "recall" else (),
        mixer=mixer,
        seed=seed,
        train_resolutions=tuple(case.train_resolutions or ()),
        readout=str(case.readout),
        depth=case.depth,
        embed_dim=config.embed_dim,
        num_heads=config.num_heads,
        recipe=Recipe(
            case.steps[task],
            case.batch_size,
            case.lr,
            config.warmup_steps,
            config.weight_decay,
            config.clip_grad,
        ),
    )


def _rows(config: StudyConfig, case: StudyCase, training: Training) -> list[Record]:
    sizes = training.train_resolutions
    choices = dict.fromkeys(config.pairs) if training.task == "recall" else {None: None}
    return [
        Record(
            measure="study",
            model=MODEL,
            mixer=training.mixer,
            recipe="study",
            config=training.config,
            seed=training.seed,
            train_resolution=sizes[0] if len(sizes) == 1 else None,
            train_resolutions=sizes,
            depth=training.depth,
            readout=training.readout,
            steps=training.recipe.steps,
            train_batch_size=training.recipe.batch_size,
            dataset=training.task,
            fingerprint=training.drawn(m).fingerprint,
            tested_on=config.test_on,
            test_seed=TEST_SEED,
            classes=CLASSES,
            pairs=m,
            n=config.samples,
            resolution=resolution,
            tokens=(resolution // CELL) ** 2,
            precision="32-true",
            versions=software_versions(),
            commit=git_commit(),
        )
        for resolution in dict.fromkeys(case.resolutions or ())
        for m in choices
    ]
