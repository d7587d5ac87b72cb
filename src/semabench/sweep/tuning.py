"""A search by Optuna: it asks for trials, a launcher runs them as jobs, it is told what came out.

What is known lies in a journal, a file that jobs on other machines write to as well: a search that
was stopped goes on, and a trial reports its epochs, so that a poor one can end early.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from omegaconf import OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from semabench.errors import SemabenchError
from semabench.files import atomic_write, make_directory

JOURNAL = "search.journal"  # in the output root
BEST = "optimization_results.yaml"
PRUNED = "pruned"  # a trial's attribute: its run ended early
DONE = (TrialState.COMPLETE, TrialState.PRUNED)

optuna.logging.set_verbosity(optuna.logging.WARNING)

Launch = Callable[[list[list[str]], int], Sequence[Any]]
"""Runs jobs, given as overrides, the first one's number told; returns their results."""


@dataclass(frozen=True)
class Settings:
    """Of a search.

    Attributes:
        n_trials: that end with a result.
        n_jobs: asked for, and launched, at once.
        seed: of the sampler; a trial's draws depend on it and on the trial's number alone.
        n_startup_trials: drawn at random before the sampler, TPE, learns from results.
        prune_after: epochs after which a trial ends whose best is below the median of what the
            others had at the same epoch; None: none does.

    Raises:
        SemabenchError: a number below its least.
    """

    n_trials: int
    n_jobs: int
    seed: int
    n_startup_trials: int
    prune_after: int | None

    def __post_init__(self) -> None:
        least = {"n_trials": 1, "n_jobs": 1, "seed": 0, "n_startup_trials": 0, "prune_after": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if name == "prune_after" and value is None:
                continue
            if not isinstance(value, int) or value < low:
                raise SemabenchError(f"hydra.sweeper.{name} must be at least {low}, not {value}.")


def storage(output_root: Path) -> JournalStorage:
    """Open what searches of one output root know."""
    return JournalStorage(JournalFileBackend(str(output_root / JOURNAL)))


def split(arguments: Sequence[str], ranges: Mapping[str, str]) -> tuple[list[str], dict[str, Any]]:
    """Return the overrides that stay as they are, and what is searched, by key.

    Args:
        arguments: of the command line; one that names several values is searched.
        ranges: of the sweeper's config, in Hydra's words: ``interval(1e-4, 1e-2)``, ``range``,
            ``choice``, and ``tag(log, …)`` about the first two.

    Raises:
        SemabenchError: a range in other words.
    """
    parser = OverridesParser.create()
    told = parser.parse_overrides(list(arguments))
    named = {override.get_key_element() for override in told}
    kept = [str(o.input_line) for o in told if not o.is_sweep_override()]
    searched = [o for o in told if o.is_sweep_override()]
    try:
        own = [parser.parse_override(f"{k}={v}") for k, v in ranges.items() if k not in named]
        return kept, {o.get_key_element(): _distribution(o) for o in [*own, *searched]}
    except (ValueError, AttributeError) as error:
        raise SemabenchError(f"hydra.sweeper.params: {' '.join(str(error).split())}") from error


def _distribution(override: Override) -> BaseDistribution:
    value = override.value()
    if isinstance(value, ChoiceSweep):
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    if isinstance(value, RangeSweep) and value.start is not None and value.stop is not None:
        start, step, log = value.start, value.step, "log" in value.tags
        last = start + (math.ceil((value.stop - start) / step - 1e-9) - 1) * step  # without stop
        if all(isinstance(n, int) for n in (start, value.stop, step)):
            return IntDistribution(int(start), int(last), step=int(step), log=log)
        if log:
            raise ValueError(f"{override.input_line}: log needs an interval, or integers")
        return FloatDistribution(start, round(last, 12), step=step)
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        log = "log" in value.tags
        if isinstance(value.start, int) and isinstance(value.end, int):
            return IntDistribution(value.start, value.end, log=log)
        return FloatDistribution(float(value.start), float(value.end), log=log)
    raise ValueError(f"{override.input_line} is no interval, range or choice")


class Search:
    """One search.

    Args:
        output_root: of its runs; the journal lies there.
        name: of what is searched for: the same name goes on with the same search.
        overrides: of every job.
        space: distributions by key.
        settings: see there.
    """

    def __init__(
        self,
        output_root: Path,
        name: str,
        overrides: Sequence[str],
        space: Mapping[str, BaseDistribution],
        settings: Settings,
    ) -> None:
        make_directory(output_root)
        told = {key: repr(value) for key, value in space.items()}
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:6]
        # A word that Hydra, and a file system, take as it is.
        self.root, self.name = output_root, re.sub(r"[^A-Za-z0-9_.-]", "_", f"{name}-{digest}")
        self.overrides, self.space, self.settings = list(overrides), dict(space), settings

    def run(self, launch: Launch) -> None:
        """Run trials until as many have ended as asked for, or as many were tried; write the best.

        Raises:
            SemabenchError: the same search runs already.
        """
        lock = FileLock(self.root / f".{self.name}.lock")
        try:
            with lock.acquire(timeout=0):
                self._run(launch)
        except Timeout:
            raise SemabenchError(
                f"the search {self.name} runs already in {self.root}: let it end, or give another "
                "output_root."
            ) from None

    def _run(self, launch: Launch) -> None:
        self.study = optuna.create_study(
            storage=storage(self.root), study_name=self.name, direction="maximize",
            load_if_exists=True,
        )  # fmt: skip
        self.study.set_user_attr("prune_after", self.settings.prune_after)
        left = self.settings.n_trials - len(self.study.get_trials(states=DONE))
        # Jobs that a stopped search has left behind go on, or find what they have finished.
        waiting = []
        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):
            if trial.params.keys() == self.space.keys():
                waiting.append(trial)
            else:  # it was stopped while it asked
                self.study.tell(trial.number, state=TrialState.FAIL)
        self._again()
        number = 0
        while number < left:
            some = min(self.settings.n_jobs, left - number)
            batch = [waiting.pop(0) if waiting else self._ask() for _ in range(some)]
            self._try(launch, batch, number)
            number += some
        self._write_best()

    def _try(self, launch: Launch, batch: Sequence[FrozenTrial], number: int) -> None:
        """Run trials. Those of equal values are one run, whose result is all of theirs."""
        runs = {str(t.params): t.number for t in self.study.get_trials(states=DONE)}
        new = [t for t in batch if runs.setdefault(str(t.params), t.number) == t.number]
        jobs = [
            [*self.overrides, *self._words(trial), f"trial={self.name}/{trial.number}"]
            for trial in new
        ]
        if jobs:
            for trial, value in zip(new, launch(jobs, number), strict=True):
                self._tell(trial, value)
        known = self.study.get_trials()
        for trial in batch:
            if trial not in new:
                first = known[runs[str(trial.params)]]
                value = first.value if first.state == TrialState.COMPLETE else None
                self.study.tell(trial.number, value, state=first.state)

    def _again(self) -> None:
        """Try once more what has failed."""
        trials = self.study.get_trials()
        known = [
            t.system_attrs.get("fixed_params", t.params)
            for t in trials
            if t.state != TrialState.FAIL
        ]
        for trial in trials:
            whole = trial.params.keys() == self.space.keys()
            if trial.state == TrialState.FAIL and whole and trial.params not in known:
                self.study.enqueue_trial(trial.params)
                known.append(trial.params)

    def _ask(self) -> FrozenTrial:
        number = len(self.study.get_trials(deepcopy=False))
        self.study.sampler = optuna.samplers.TPESampler(
            seed=(self.settings.seed * 1_000_003 + number) % 2**32,
            n_startup_trials=self.settings.n_startup_trials,
        )
        asked = self.study.ask(self.space)
        return self.study.get_trials()[asked.number]

    def _words(self, trial: FrozenTrial) -> list[str]:
        return [f"{key}={trial.params[key]}" for key in self.space]

    def _tell(self, asked: FrozenTrial, value: Any) -> None:
        trial = self.study.get_trials()[asked.number]
        state = TrialState.PRUNED if trial.user_attrs.get(PRUNED) else TrialState.FAIL
        if isinstance(value, int | float):
            state = TrialState.COMPLETE
        self.study.tell(trial.number, value if state == TrialState.COMPLETE else None, state=state)
        ended = {TrialState.COMPLETE: f"{value} %", TrialState.PRUNED: "ended early"}
        words = " ".join(self._words(trial))
        print(f"trial {trial.number}: {words}: {ended.get(state, 'failed')}", flush=True)

    def _write_best(self) -> None:
        if not self.study.get_trials(states=(TrialState.COMPLETE,)):
            return
        best = self.study.best_trial
        found = {
            "name": "optuna",
            "best_evaluated_params": dict(best.params),
            "best_value": best.value,
        }
        atomic_write(self.root / BEST, OmegaConf.to_yaml(found))
        print(f"best: trial {best.number}, {best.value} %: {self.root / BEST}", flush=True)


class TrialReport:
    """What a run tells the search that it is a trial of.

    Args:
        output_root: of the run.
        trial: its key ``trial``: ``<search>/<number>``.

    Raises:
        SemabenchError: there is no such trial.
    """

    def __init__(self, output_root: Path, trial: str) -> None:
        name, _, number = trial.rpartition("/")
        try:
            self.study = optuna.load_study(storage=storage(output_root), study_name=name)
            self.trial = optuna.Trial(self.study, self.study.get_trials()[int(number)]._trial_id)
        except (KeyError, IndexError, ValueError, OSError) as error:
            raise SemabenchError(
                f"trial={trial} is none of {output_root / JOURNAL}: a search gives it to its jobs."
            ) from error
        after = self.study.user_attrs.get("prune_after")
        if after is None:
            self.study.pruner = optuna.pruners.NopPruner()
        else:
            self.study.pruner = optuna.pruners.MedianPruner(
                n_startup_trials=1, n_warmup_steps=after - 1
            )

    def ends(self, value: float, epoch: int) -> bool:
        """Report a validation, epochs counted from 0; return whether the run shall end."""
        if epoch not in self.study.get_trials()[self.trial.number].intermediate_values:
            self.trial.report(value, epoch)
        if not self.trial.should_prune():
            return False
        self.trial.set_user_attr(PRUNED, True)
        return True
