"""What `eval.py` can measure: each package of `evaluation`, and the study."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from functools import cache

from omegaconf import DictConfig

import semabench.evaluation
from semabench.errors import SemabenchError, nearest
from semabench.evaluation.measure import Measure
from semabench.results.view import View


@cache
def measures() -> dict[str, Measure]:
    """Return all measures by their names, in the order in which they are reported."""
    parent = semabench.evaluation
    packages = [
        m.name for m in pkgutil.iter_modules(parent.__path__, f"{parent.__name__}.") if m.ispkg
    ]
    found = [pkgutil.resolve_name(f"{p}:MEASURE") for p in [*packages, "semabench.study"]]
    return {measure.name: measure for measure in found}


def views() -> list[View]:
    """Return how each measure is shown, in the report's order."""
    return [measure.view for measure in measures().values()]


def measure_of(composed: DictConfig) -> Measure:
    """Return the measure that a composed config is of.

    Raises:
        SemabenchError: there is no such `measure`.
    """
    name = str(composed.get("measure", "accuracy"))
    if name not in measures():
        raise SemabenchError(f"measure={name} is not known.{nearest(name, measures())}")
    return measures()[name]


def measure_asked_for(words: Iterable[str]) -> Measure:
    """Return the measure that a command line means, `measure=cost_baselines` being of cost."""
    asked = next((w.partition("=")[2] for w in words if w.startswith("measure=")), "accuracy")
    return measures().get(asked.split("_")[0], measures()["accuracy"])
