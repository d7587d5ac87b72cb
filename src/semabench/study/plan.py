"""What is to be trained and tested: trainings, and the rows that each will give."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from semabench.config.study import StudyCase, StudyConfig, clear_of, study_cases
from semabench.data.procedural.tasks import CELL, CLASSES
from semabench.evaluation.labels import device_label
from semabench.models import backend_name
from semabench.models.flops import count_parameters
from semabench.results.record import Record, git_commit, software_versions
from semabench.study.probe import MODEL, build_probe
from semabench.study.spec import Recipe, Training

TEST_SEED = 0  # of the pictures tested on: the same for all mixers and seeds


@dataclass(frozen=True)
class Job:
    """One training and the rows that are asked of it, without their numbers.

    Attributes:
        pictures: to test on, "test" or "calibration".
    """

    training: Training
    rows: tuple[Record, ...]
    pictures: str

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
    return [Job(training, tuple(rows.values()), config.pictures) for training, rows in jobs.items()]


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
            tested_on=config.pictures,
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
